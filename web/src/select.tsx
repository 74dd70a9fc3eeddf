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
  const [missing, setMissing] = useState(false);
  const shown = everything(shownOf(props.groups, props.template));
  const roles = [...new Set(tokens.spans.map((span) => span.role))];

  const find = (event: Event) => {
    event.preventDefault();
    const found = matching(tokens, search);
    setMissing(found.length === 0);
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
      <p class="hint" aria-live="polite">
        {missing && `"${search}" stands nowhere in these tokens. `}
        <Chosen {...props} />
      </p>
      {selected.length === 0 && <p class="warning">Select at least one token.</p>}
    </section>
  );
}

function Chosen({ tokens, groups, template, selected, oracle }: Props) {
  const hidden = template ? 0 : inTemplate(groups, selected);
  const most = oracle?.max_slots ?? null;
  return (
    <>
      {selected.length} of {tokens.token_ids.length} tokens{selected.length > 0 && `: ${brief(selected)}`}
      {hidden > 0 && `, ${hidden} of them the template's own, which are hidden`}
      {most !== null && selected.length > most && `. The oracle was trained on at most ${most}; more are off its training`}.
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
