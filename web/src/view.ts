/** What is set on the page, and how much of it another service can show. */
import { useEffect, useState } from "preact/hooks";
import type { Question } from "./asking";
import { endingOf, EXAMPLES } from "./examples";
import { type Entry, opened, saved, type View } from "./keep";
import type { Draft, Info } from "./types";

export const LAST = 8; // tokens that are selected at first, as `augury ask` reads

/** The page as it is first seen. */
export function firstView(info: Info): View {
  const { turns } = EXAMPLES[0]!;
  const draft: Draft = { kind: info.chats ? "chat" : "text", turns, text: turns[0]!.content, ending: endingOf(turns) };
  const oracle = info.oracles[0];
  return {
    draft,
    exact: null,
    oracle: oracle?.name ?? "",
    reads: { target: info.targets[0]!.name, difference: false },
    layers: oracle?.layers?.[0] ?? [Math.round(0.62 * info.model.n_layers)],
    selected: [],
    question: "What is this about?",
    yesNo: false,
    samples: 5,
    temperature: 1,
    scans: ["Is this about cooking?"],
  };
}

/** A view with the names that this service has, and what had to be changed for that. */
export function fitted(view: View, info: Info): { view: View; changed: string[] } {
  const changed: string[] = [];
  const first = firstView(info);
  let { oracle, reads, layers } = view;
  if (!info.oracles.some(({ name }) => name === oracle)) {
    if (oracle) changed.push(`oracle ${oracle}`);
    oracle = first.oracle;
  }
  if (!info.targets.some(({ name }) => name === reads.target)) {
    changed.push(`target ${reads.target}`);
    reads = first.reads;
  }
  const trained = info.oracles.find(({ name }) => name === oracle)?.layers;
  if (trained && !trained.some((tuple) => tuple.join() === layers.join())) {
    changed.push(`layers ${layers.join(", ")}`);
    layers = trained[0] ?? first.layers;
  }
  return { view: { ...first, ...view, oracle, reads, layers }, changed };
}

export function questionOf(view: View, controls: boolean): Question {
  const { question: text, yesNo, samples, temperature } = view;
  return { text, yesNo, samples, temperature, controls };
}

const KEPT = "augury.history";

/** The session's history, which outlives a reload of this tab and nothing more. */
export function useHistory(onFault: (note: string) => void) {
  const [entries, setEntries] = useState<Entry[]>(() => {
    try {
      return opened(sessionStorage.getItem(KEPT) ?? saved([]));
    } catch {
      return [];
    }
  });
  useEffect(() => {
    try {
      sessionStorage.setItem(KEPT, saved(entries));
    } catch {
      onFault("The history has grown too large to outlive a reload. Export it under Keep.");
    }
  }, [entries]);
  return [entries, setEntries] as const;
}
