/** Which positions of a transcript are read. A selection is sorted and has no position twice. */
import type { Tokens } from "./types";

export type Positions = readonly number[];

/** Every position from one to another, both included, whichever comes first. */
export function between(a: number, b: number): Positions {
  const start = Math.min(a, b);
  return Array.from({ length: Math.abs(a - b) + 1 }, (_, i) => start + i);
}

/** One selection and another. */
export function union(a: Positions, b: Positions): Positions {
  return [...new Set([...a, ...b])].sort((x, y) => x - y);
}

/** A selection with one position more, or less where it was in. */
export function toggled(selected: Positions, position: number): Positions {
  return selected.includes(position) ? selected.filter((other) => other !== position) : union(selected, [position]);
}

/** Every position of some groups, in order. */
export function everything(groups: readonly { start: number; stop: number }[]): Positions {
  return groups.flatMap(inSpan);
}

/** The positions of all turns of a role. */
export function ofRole(tokens: Tokens, role: string): Positions {
  return tokens.spans.filter((span) => span.role === role && span.stop > span.start).flatMap(inSpan);
}

function inSpan(span: { start: number; stop: number }): Positions {
  return between(span.start, span.stop - 1);
}

/** The positions of every token that has a part in a text, wherever it stands; letters' case is passed over. */
export function matching(tokens: Tokens, wanted: string): Positions {
  const needle = wanted.toLowerCase();
  if (needle.trim() === "") return [];
  const starts: number[] = [];
  let text = "";
  for (const token of tokens.tokens) {
    starts.push(text.length);
    text += token.toLowerCase();
  }
  const found = new Set<number>();
  for (let at = text.indexOf(needle); at >= 0; at = text.indexOf(needle, at + 1)) {
    for (let i = place(starts, at); i < starts.length && starts[i]! < at + needle.length; i++) found.add(i);
  }
  return [...found].sort((x, y) => x - y);
}

/** The last of some rising starts that is not after a place. */
function place(starts: readonly number[], at: number): number {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (starts[middle]! <= at) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** A selection in few words: `3..9, 12`. */
export function brief(selected: Positions): string {
  const runs: [number, number][] = [];
  for (const position of selected) {
    const open = runs.at(-1);
    if (open && position === open[1] + 1) open[1] = position;
    else runs.push([position, position]);
  }
  const shown = runs.slice(0, 6).map(([a, b]) => (a === b ? `${a}` : `${a}..${b}`));
  return shown.join(", ") + (runs.length > 6 ? ", ..." : "");
}

/** A token as it is shown: what cannot be seen is given a sign. */
export function visible(token: string): string {
  return token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(/^ /, "\u00a0") || "∅";
}

/** A token as it is read out. */
export function spoken(token: string): string {
  const words = token.trim();
  if (words !== "") return words;
  return token.includes("\n") ? "new line" : token === "" ? "empty" : "space";
}
