/** Ways to select tokens other than pointing at them, and the layers that are read. */
import { useState } from "preact/hooks";
import { type Group, inTemplate, shownOf } from "./groups";
import { brief, everything, matching, ofRole, type Positions } from "./selection";
import type { OracleInfo, Tokens } from "./types";

interface Props {
  tokens: Tokens;
  groups: readonly Group[];
  template: boolean;
  selected: Positions;
  oracle: OracleInfo | undefined;
  nLayers: number;
  layers: readonly number[];
  onTemplate: (shown: boolean) => void;
  onSelect: (selected: Positions) => void;
  onLayers: (layers: number[]) => void;
}

export function Select(props: Props) {
  const { tokens, selected, onSelect } = props;
  const [count, setCount] = useState(8);
  const [search, setSearch] = useState("");
  const [missing, setMissing] = useState<Positions | null>(null); // the selection that nothing was found for
  const shown = everything(shownOf(props.groups, props.template));
  const roles = [...new Set(tokens.spans.map((span) => span.role))];

  const find = (event: Event) => {
    event.preventDefault();
    const found = matching(tokens, search);
    setMissing(found.length === 0 ? selected : null);
    if (found.length > 0) onSelect(found);
  };
  return (
    <section class="select" aria-label="Select tokens">
      <div class="row">
        <button type="button" onClick={() => onSelect(shown.slice(-count))}>
          Last
        </button>
        <input
          type="number"
          aria-label="How many of the last tokens"
          min={1}
          max={Math.max(1, tokens.token_ids.length)}
          value={count}
          onInput={(event) => setCount(Math.max(1, event.currentTarget.valueAsNumber || 1))}
        />
        {roles.map((role) => (
          <button key={role} type="button" onClick={() => onSelect(ofRole(tokens, role))}>
            All {role} tokens
          </button>
        ))}
        <button type="button" onClick={() => onSelect(shown)}>
          Everything
        </button>
        <form class="search" role="search" onSubmit={find}>
          <input
            type="search"
            aria-label="Select the tokens of a text"
            placeholder="Find text"
            value={search}
            onInput={(event) => setSearch(event.currentTarget.value)}
          />
          <button type="submit">Find</button>
        </form>
        <Layers {...props} />
        <label>
          <input type="checkbox" checked={props.template} onChange={(event) => props.onTemplate(event.currentTarget.checked)} />{" "}
          Special tokens
        </label>
      </div>
      <p class="hint status" aria-live="polite">
        {missing !== null && missing === selected ? `"${search}" stands nowhere in these tokens.` : chosen(props)}
      </p>
    </section>
  );
}

function chosen({ tokens, selected }: Props): string {
  return `${selected.length} of ${tokens.token_ids.length} tokens${selected.length > 0 ? `: ${brief(selected)}` : ""}.`;
}

/** What is to be said of a selection, below the tokens: they must not move while it is made. */
export function Beyond({ groups, template, selected, oracle }: Pick<Props, "groups" | "template" | "selected" | "oracle">) {
  const hidden = template ? 0 : inTemplate(groups, selected);
  const most = oracle?.max_slots ?? null;
  if (selected.length === 0) return <p class="warning">Select at least one token.</p>;
  return (
    <>
      {hidden > 0 && <p class="warning">{hidden} selected tokens are the template's own, which are hidden.</p>}
      {most !== null && selected.length > most && (
        <p class="warning">
          The oracle was trained on at most {most} tokens at once, and {selected.length} are selected: its answer has no figures behind it.
        </p>
      )}
    </>
  );
}

function Layers({ oracle, nLayers, layers, onLayers }: Props) {
  const trained = oracle?.layers ?? null;
  if (trained === null) {
    return (
      <label>
        Layer{" "}
        <input
          type="number"
          min={0}
          max={nLayers - 1}
          value={layers[0] ?? 0}
          onChange={(event) => {
            const { valueAsNumber } = event.currentTarget;
            if (Number.isInteger(valueAsNumber)) onLayers([Math.min(nLayers - 1, Math.max(0, valueAsNumber))]);
            event.currentTarget.value = `${layers[0] ?? 0}`;
          }}
        />
      </label>
    );
  }
  return (
    <label>
      Layers{" "}
      <select value={layers.join(", ")} onChange={(event) => onLayers(trained[event.currentTarget.selectedIndex]!)}>
        {trained.map((tuple) => (
          <option key={tuple.join()} value={tuple.join(", ")}>
            {tuple.join(", ")}
          </option>
        ))}
      </select>
    </label>
  );
}
