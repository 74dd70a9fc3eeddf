/** What is kept of a session, and how it is read again: from a file, or from a link. */
import { either, fields, flag, list, nothing, number, one, place, text, values, type Check } from "./check";
import type { Answer, Draft, Reads, Scan, Score, Tokens } from "./types";

export const FORMAT = "augury-page";
export const VERSION = 1;
const LARGEST = 20_000_000; // characters of a file or of a link's view

/** One side of a comparison. */
export interface Column {
  oracle: string;
  reads: Reads;
}

/** What is set on the page, without results. */
export interface View {
  /** Of the model that was read: positions mean nothing for another tokenizer. */
  tokenizer: string | null;
  draft: Draft;
  /** Set where the ids are those that a model sampled. */
  exact: Pick<Tokens, "token_ids" | "spans"> | null;
  oracle: string;
  reads: Reads;
  layers: number[];
  selected: number[];
  question: string;
  yesNo: boolean;
  samples: number;
  temperature: number;
  controls: boolean;
  scans: string[];
  window: number;
  everywhere: boolean;
  columns: Column[];
}

export type Result = Answer | Score | Scan;

/** One question that was asked, and what came of it. */
export interface Entry {
  id: string;
  at: string;
  view: View;
  results: Result[];
  /** What each of them was read from, in words. */
  from: string[];
  /** It was stopped, or failed, before it was whole. */
  ended: boolean;
}

export interface Saved {
  format: typeof FORMAT;
  version: typeof VERSION;
  entries: Entry[];
}

const isReads = fields({ target: text, difference: flag });
const isSpan: Check = (row) => fields({ role: text, start: place, stop: place })(row);

const isExact: Check = (row) => {
  if (!fields({ token_ids: list(place), spans: list(isSpan) })(row)) return false;
  const { token_ids, spans } = row as NonNullable<View["exact"]>;
  return spans.every(({ start, stop }) => start <= stop && stop <= token_ids.length);
};

const isDraft = fields({
  kind: one("chat", "text"),
  turns: list(fields({ role: text, content: text })),
  text,
  ending: one("closed", "generation", "open", "thinking"),
});

const isView = fields({
  tokenizer: either(text, nothing),
  draft: isDraft,
  exact: either(nothing, isExact),
  oracle: text,
  reads: isReads,
  layers: list(place, 64),
  selected: list(place),
  question: text,
  yesNo: flag,
  samples: place,
  temperature: number,
  controls: flag,
  scans: list(text, 64),
  window: place,
  everywhere: flag,
  columns: list(fields({ oracle: text, reads: isReads }), 16),
});

const source = {
  question: text,
  oracle: text,
  layers: list(place),
  positions: list(place),
  read_text: either(text, nothing),
  coefficient: number,
  trained_coefficient: number,
  target: fields({ model: either(nothing, fields({ name: either(text, nothing) })), dtype: text, captured: text, kind: text }),
  warnings: list(text),
  notes: list(text),
};
const share = either(number, nothing);
const unavailable = fields({ available: (value) => value === false, reason: text });

const isAnswer: Check = (row) =>
  fields({
    ...source,
    kind: one("answer"),
    text,
    samples: list(text),
    groups: list(fields({ text, count: place })),
    agreement: share,
    same_as_real: share,
    controls: values(either(unavailable, isAnswer)),
  })(row);

const isScore: Check = (row) =>
  fields({
    ...source,
    kind: one("score"),
    choices: list(text),
    choice: text,
    margin: number,
    probability: number,
    mass: number,
    percentile: share,
    donor_margins: list(number),
    controls: values(either(unavailable, isScore)),
  })(row) && (row as Score).choices.length > 1;

const isScan: Check = (row) => {
  const figures = { tokens: list(text), margins: list(number), masses: list(number), values: list(number) };
  if (!fields({ ...source, ...figures, kind: one("scan"), donor_median: share, window: place })(row)) return false;
  const scan = row as Scan;
  return [scan.tokens, scan.margins, scan.masses, scan.values].every((found) => found.length === scan.positions.length);
};

const isEntry: Check = (row) =>
  fields({ id: text, at: text, view: isView, results: list(either(isAnswer, isScore, isScan)), from: list(text), ended: flag })(row) &&
  (row as Entry).from.length === (row as Entry).results.length;

export function saved(entries: readonly Entry[]): string {
  const file: Saved = { format: FORMAT, version: VERSION, entries: [...entries] };
  return JSON.stringify(file, null, 1);
}

/** The entries of a file that `saved` wrote.
 *
 * @throws Error: it is none.
 */
export function opened(written: string): Entry[] {
  if (written.length > LARGEST) throw new Error("it is larger than what this page reads");
  let file: Partial<Saved> | null;
  try {
    file = JSON.parse(written);
  } catch {
    throw new Error("it is not JSON");
  }
  if (file?.format !== FORMAT || !Array.isArray(file.entries)) throw new Error("it is no history of this page");
  if (file.version !== VERSION) throw new Error(`it has version ${file.version}, and this page reads ${VERSION}`);
  if (!file.entries.every(isEntry)) throw new Error("some of its entries are broken");
  return file.entries;
}

const MARK = "#view=";

/** A view as the part of an address that no browser sends anywhere. */
export async function linked(view: View): Promise<string> {
  const packed = new Blob([JSON.stringify(view)]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(packed).arrayBuffer());
  const letters = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return MARK + btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Whether an address holds a view. */
export function isLink(hash: string): boolean {
  return hash.startsWith(MARK);
}

/** The view of such an address; null: there is none in it.
 *
 * @throws Error: there is one that cannot be read.
 */
export async function unlinked(hash: string): Promise<View | null> {
  if (!isLink(hash)) return null;
  try {
    const plain = atob(hash.slice(MARK.length).replaceAll("-", "+").replaceAll("_", "/"));
    const view: unknown = JSON.parse(await inflated(Uint8Array.from(plain, (letter) => letter.charCodeAt(0))));
    if (isView(view)) return view as View;
  } catch {
    // told below
  }
  throw new Error("this link is broken: it was cut, or made by another release");
}

/** Unpacked no further than a view may be long: a few bytes could stand for gigabytes. */
async function inflated(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const decoder = new TextDecoder();
  let found = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return found + decoder.decode();
    found += decoder.decode(value, { stream: true });
    if (found.length > LARGEST) throw new Error("too large");
  }
}
