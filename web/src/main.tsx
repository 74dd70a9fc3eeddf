/** The door: what is served here, and who may come in. */
import { render } from "preact";
import { useEffect, useErrorBoundary, useState } from "preact/hooks";
import { App } from "./app";
import { Refusal, Service } from "./http";
import { isLink, unlinked, type View } from "./kept";
import { Refused } from "./parts";
import { store, stored, tab } from "./storage";
import { Theme } from "./theme";
import type { Info } from "./types";
import { type Fault, told } from "./work";

const TOKEN = "augury.token";

const UNKNOWN = {
  what: "This token is not known here.",
  why: "nobody who may call the service has it",
  instead: "check it with who runs the service",
};

function Door() {
  const [service, setService] = useState(() => new Service(stored(tab, TOKEN)));
  const [info, setInfo] = useState<Info | null>(null);
  const [closed, setClosed] = useState(false);
  const [fault, setFault] = useState<Fault | null>(null);
  const [restored, setRestored] = useState<View | null>(null);

  const knock = async () => {
    setFault(null);
    try {
      setRestored(await unlinked(location.hash));
    } catch (error) {
      setFault({ ...told(error), what: "The link's view was not restored.", instead: "go on without it" });
    }
    try {
      setInfo(await service.info());
      setClosed(false);
    } catch (error) {
      const unknown = error instanceof Refusal && error.status === 401;
      if (unknown) setClosed(true);
      if (!unknown) setFault(told(error));
      else if (service.token !== null) setFault(UNKNOWN);
    }
  };
  useEffect(() => void knock(), [service]);
  useEffect(() => {
    const follow = () => isLink(location.hash) && location.reload();
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const [broken, reset] = useErrorBoundary();

  return (
    <>
      <a class="skip" href="#questions">
        To the questions
      </a>
      <header>
        <h1>augury</h1>
        {info && (
          <p>
            {info.model.name}
            {info.oracles.length === 1 && `, oracle ${info.oracles[0]!.name}`}
          </p>
        )}
        <Theme />
      </header>
      <main>
        <Refused fault={fault} />
        {broken !== undefined && <Broken error={broken} onReset={reset} />}
        {broken === undefined && info !== null && <App service={service} info={info} restored={restored} />}
        {info === null && closed && <Tokens onToken={enter} />}
        {info === null && !closed && (fault === null ? <p class="wait">Loading</p> : <Again onAgain={() => void knock()} />)}
        {info?.oracles.length === 0 && (
          <p class="warning">No oracle is served here, so nothing can be asked. Start the service with --oracle FOLDER.</p>
        )}
      </main>
      <footer>
        <p>
          An answer is worth what its controls leave of it. An oracle can be fluent and wrong: it may guess from the text, or answer what
          most texts would get.
        </p>
        {info && (
          <p>
            augury {info.version}. {service.token === null && <a href="v1/openapi.json">The same over HTTP</a>}
          </p>
        )}
      </footer>
    </>
  );

  function enter(token: string): void {
    store(tab, TOKEN, token);
    setFault(null);
    setService(new Service(token));
  }
}

/** A fault of the page itself: what was kept in this tab stays where it is. */
function Broken({ error, onReset }: { error: unknown; onReset: () => void }) {
  const instead = "go on, and tell who runs this service; the history is still under Keep";
  return (
    <>
      <Refused fault={{ ...told(error), what: "The page has failed.", instead }} />
      <button type="button" class="main" onClick={onReset}>
        Go on
      </button>
    </>
  );
}

function Again({ onAgain }: { onAgain: () => void }) {
  return (
    <button type="button" class="main" onClick={onAgain}>
      Try again
    </button>
  );
}

function Tokens({ onToken }: { onToken: (token: string) => void }) {
  const [token, setToken] = useState("");
  const submit = (event: Event) => {
    event.preventDefault();
    if (token.trim() !== "") onToken(token.trim());
  };
  return (
    <form class="panel door" onSubmit={submit}>
      <label for="token">This service asks for a token. Who runs it gives one out.</label>
      <div class="row">
        <input id="token" type="password" autocomplete="off" value={token} onInput={(event) => setToken(event.currentTarget.value)} />
        <button type="submit" class="main">
          Enter
        </button>
      </div>
      <p class="hint">It is kept in this tab until you close it.</p>
    </form>
  );
}

const place = document.getElementById("page")!;
place.replaceChildren();
render(<Door />, place);
