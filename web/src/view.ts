/** What is set on the page: at first, out of a link, and how much of it this service can show. */
import { useEffect, useState } from "preact/hooks";
import type { Question } from "./asking";
import { endingOf, EXAMPLES } from "./examples";
import { type Column, type Entry, opened, saved, type View } from "./kept";
import { store, stored, tab } from "./storage";
import type { Draft, Info } from "./types";

export const LAST = 8; // tokens that are selected at first, as `augury ask` reads

/** The page as it is first seen. */
export function firstView(info: Info): View {
  const { turns } = EXAMPLES[0]!;
  const draft: Draft = { kind: info.chats ? "chat" : "text", turns, text: turns[0]!.content, ending: endingOf(turns) };
  const oracle = info.oracles[0]?.name ?? "";
  return {
    tokenizer: info.model.tokenizer_hash ?? null,
    draft,
    exact: null,
    oracle,
    reads: { target: info.targets[0]!.name, difference: false },
    layers: layersFor(info, oracle, []),
    selected: [],
    question: "What is this about?",
    yesNo: false,
    samples: 5,
    temperature: 1,
    controls: true,
    scans: ["Is this about cooking?"],
    window: 1,
    everywhere: true,
    columns: firstColumns(info),
  };
}

/** The first comparison that a service makes possible; fewer than two columns: it makes none. */
export function firstColumns({ oracles, targets }: Info): Column[] {
  const [base, ...tuned] = targets.map((target) => target.name);
  const [first, ...others] = oracles.map((oracle) => oracle.name);
  if (first === undefined || base === undefined) return [];
  const plain = { oracle: first, reads: { target: base, difference: false } };
  if (tuned[0] !== undefined) {
    const column = (difference: boolean) => ({ oracle: first, reads: { target: tuned[0]!, difference } });
    return [plain, column(false), column(true)];
  }
  return [plain, ...others.slice(0, 1).map((oracle) => ({ ...plain, oracle }))];
}

/** Layers that an oracle was trained on: those that are set where it was trained on them, else its first. */
export function layersFor(info: Info, oracle: string, layers: readonly number[]): number[] {
  const trained = info.oracles.find(({ name }) => name === oracle)?.layers;
  if (!trained) return layers.length > 0 ? [...layers] : [Math.round(0.62 * info.model.n_layers)];
  return [...(trained.find((tuple) => tuple.join() === layers.join()) ?? trained[0] ?? layers)];
}

/** A view with the names that this service has, and what had to be changed for that. */
export function fitted(view: View, info: Info): { view: View; changed: string[] } {
  const changed: string[] = [];
  const first = firstView(info);
  const oracles = info.oracles.map(({ name }) => name);
  const targets = info.targets.map(({ name }) => name);
  const here = ({ oracle, reads }: Column) => oracles.includes(oracle) && targets.includes(reads.target);
  const found: View = { ...view, tokenizer: first.tokenizer };
  if (!oracles.includes(view.oracle)) {
    if (view.oracle) changed.push(`oracle ${view.oracle}`);
    found.oracle = first.oracle;
  }
  if (!targets.includes(view.reads.target)) {
    changed.push(`target ${view.reads.target}`);
    found.reads = first.reads;
  }
  found.layers = layersFor(info, found.oracle, view.layers);
  if (found.layers.join() !== view.layers.join()) changed.push(`layers ${view.layers.join(", ")}`);
  found.columns = view.columns.length > 1 && view.columns.every(here) ? view.columns : first.columns;
  if (view.tokenizer !== first.tokenizer) {
    changed.push("the tokens that were selected, which are another model's");
    Object.assign(found, { exact: null, selected: [] });
  }
  if (!info.chats && view.draft.kind === "chat") {
    changed.push("the conversation, of which the text is left");
    found.draft = { ...view.draft, kind: "text", text: view.draft.turns.map(({ content }) => content).join("\n\n") };
    Object.assign(found, { exact: null, selected: [] });
  }
  return { view: found, changed };
}

export function questionOf({ question: text, yesNo, samples, temperature, controls }: View): Question {
  return { text, yesNo, samples, temperature, controls };
}

const KEPT = "augury.history";

/** The session's history, which outlives a reload of this tab and nothing more. */
export function useHistory(onFault: (note: string) => void) {
  const [entries, setEntries] = useState<Entry[]>(() => {
    try {
      return opened(stored(tab, KEPT) ?? saved([]));
    } catch {
      return [];
    }
  });
  useEffect(() => {
    if (!store(tab, KEPT, saved(entries)) && entries.length > 0) {
      onFault("The history is too large to outlive a reload of this tab. Export it under Keep.");
    }
  }, [entries]);
  return [entries, setEntries] as const;
}
