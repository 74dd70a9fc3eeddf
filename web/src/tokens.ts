/** A draft as the target's tokens, made again whenever the draft has changed. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Service } from "./http";
import { stopped } from "./http";
import type { View } from "./kept";
import type { Context, Draft, Tokens, Transcript } from "./types";
import { type Fault, told } from "./work";

const DELAY = 200; // ms after the last key

/** What the target is to read of a draft; null: there is nothing. */
export function contextOf(draft: Draft): Context | null {
  if (draft.kind === "text") return draft.text === "" ? null : { text: draft.text };
  const turns = draft.turns.filter((turn, i) => turn.content !== "" || i < draft.turns.length - 1);
  return turns.length === 0 ? null : { messages: turns, end: draft.ending };
}

/** What the target goes on from: the draft without the answer that is to be written again. */
export function beginning(draft: Draft): { draft: Draft; context: Context | null } {
  if (draft.kind === "text") return { draft, context: contextOf(draft) };
  const again = draft.turns.at(-1)?.role === "assistant";
  const ending = draft.ending === "thinking" ? "thinking" : "generation";
  const kept: Draft = { ...draft, turns: again ? draft.turns.slice(0, -1) : draft.turns, ending };
  return { draft: kept, context: contextOf(kept) };
}

/** What a transcript was made of. */
type Made = Pick<View, "draft" | "exact">;

/** The tokens of a view's draft, or of the ids that were sampled for it; `fresh`: they are of what stands there now. */
export function useTokens(service: Service, { draft, exact }: Made) {
  const [{ transcript, of }, setMade] = useState<{ transcript: Transcript | null; of: Made | null }>({ transcript: null, of: null });
  const [fault, setFault] = useState<Fault | null>(null);
  const generated = useRef<View["exact"]>(null);
  const fresh = of !== null && of.draft === draft && of.exact === exact;
  useEffect(() => {
    const put = (tokens: Tokens | null, failed: Fault | null = null) => {
      setFault(failed);
      setMade({ transcript: tokens === null ? null : { tokens, exact: exact !== null }, of: { draft, exact } });
    };
    const taken = exact !== null && exact === generated.current;
    const context = exact === null ? contextOf(draft) : { token_ids: exact.token_ids };
    if (taken) {
      setFault(null);
      return setMade((made) => ({ ...made, of: { draft, exact } }));
    }
    if (context === null) return put(null);
    const own = new AbortController();
    const wait = setTimeout(() => {
      service
        .tokenize(context, own.signal)
        .then((tokens) => put(exact === null ? tokens : { ...tokens, spans: exact.spans }))
        .catch((error: unknown) => {
          if (!stopped(error)) put(null, told(error));
        });
    }, DELAY);
    return () => {
      clearTimeout(wait);
      own.abort();
    };
  }, [service, draft, exact]);
  /** Take over what was generated, as it is. */
  const take = (tokens: Tokens): View["exact"] => {
    generated.current = { token_ids: tokens.token_ids, spans: tokens.spans };
    setMade({ transcript: { tokens, exact: true }, of: null });
    return generated.current;
  };
  return { transcript, fresh, take, fault };
}
