/** What is kept of a session: its history as files, and a view as a link. */
import type { Answer, Control, Draft, Reads, Scan, Score, Tokens, Transcript } from "./types";
import { CONTROLS, made } from "./types";
import { answerMarks, percent, scoreMarks, signed } from "./words";

export const FORMAT = "augury-page";
export const VERSION = 1;

/** What is set on the page, without results. */
export interface View {
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
  scans: string[];
}

/** One question that was asked, and what came of it. */
export interface Entry {
  id: string;
  at: string;
  view: View;
  results: (Answer | Score | Scan)[];
}

export interface Saved {
  format: typeof FORMAT;
  version: typeof VERSION;
  entries: Entry[];
}

export function saved(entries: Entry[]): string {
  const file: Saved = { format: FORMAT, version: VERSION, entries };
  return JSON.stringify(file, null, 1);
}

/** The entries of a file that `saved` wrote.
 *
 * @throws Error: it is none.
 */
export function opened(text: string): Entry[] {
  let file: Partial<Saved> | null;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("it is not JSON");
  }
  if (file?.format !== FORMAT || !Array.isArray(file.entries)) throw new Error("it is no history of this page");
  if (file.version !== VERSION) throw new Error(`it has version ${file.version}, and this page reads ${VERSION}`);
  if (!file.entries.every(isEntry)) throw new Error("some of its entries are broken");
  return file.entries;
}

function isEntry(row: unknown): row is Entry {
  const entry = row as Partial<Entry> | null;
  return typeof entry?.id === "string" && isView(entry.view) && Array.isArray(entry.results) && entry.results.every(isResult);
}

function isResult(row: unknown): boolean {
  const kind = (row as { kind?: unknown } | null)?.kind;
  return kind === "answer" || kind === "score" || kind === "scan";
}

function isView(row: unknown): row is View {
  const view = row as Partial<View> | null | undefined;
  const numbers = [view?.layers, view?.selected];
  return (
    Array.isArray(view?.draft?.turns) &&
    typeof view.draft.text === "string" &&
    typeof view.question === "string" &&
    typeof view.reads?.target === "string" &&
    Array.isArray(view.scans) &&
    numbers.every((list) => Array.isArray(list) && list.every(Number.isInteger))
  );
}

/** The history as a text to read. */
export function markdown(entries: Entry[]): string {
  return `# Questions to activations\n\n${entries.map(section).join("\n")}`;
}

function section(entry: Entry): string {
  return entry.results.map((result) => `${heading(entry, result)}\n${body(result)}`).join("\n");
}

function heading(entry: Entry, result: Answer | Score | Scan): string {
  const read = result.read_text === null ? "" : `\n> ${escaped(result.read_text)}\n`;
  const where = `oracle ${result.oracle}, layers ${result.layers.join(", ")}, ${result.positions.length} positions`;
  const target = `${entry.view.reads.target}${entry.view.reads.difference ? " minus base" : ""}`;
  return `## ${escaped(result.question)}\n${read}\n${entry.at}, ${where}, read from ${target}\n`;
}

function body(result: Answer | Score | Scan): string {
  if (result.kind === "scan") {
    const rows = result.positions.map((at, i) => [`${at}`, result.tokens[i] ?? "", signed(result.values[i]!)]);
    return table([["position", "token", "margin minus the donors' median"], ...rows]);
  }
  const marks = (result.kind === "answer" ? answerMarks(result) : scoreMarks(result)).map((mark) => `- ${mark.text}`);
  return `${table(result.kind === "answer" ? answerRows(result) : scoreRows(result))}\n${marks.join("\n")}\n`;
}

/** An answer beside its controls, as cells. */
export function answerRows(answer: Answer): string[][] {
  const row = (name: string, found: Answer) => [
    name,
    found.text,
    found.agreement === null ? "" : percent(found.agreement),
    found.same_as_real === null ? "" : percent(found.same_as_real),
  ];
  const controls = CONTROLS.filter((name) => name in answer.controls).map((name) => {
    const found = answer.controls[name] as Answer;
    return made<Answer>(found) ? row(name, found) : [name, notAvailable(answer, name), "", ""];
  });
  return [["evidence", "answer", "agreement", "same as real"], row("activations", answer), ...controls];
}

/** A score beside its controls, as cells. */
export function scoreRows(score: Score): string[][] {
  const first = score.choices[0]!;
  const row = (name: string, found: Score) => [
    name,
    found.choice,
    found.probability.toFixed(2),
    signed(found.margin),
    found.mass.toFixed(2),
    found.percentile === null ? "" : found.percentile.toFixed(0),
  ];
  const controls = CONTROLS.filter((name) => name in score.controls).map((name) => {
    const found = score.controls[name] as Score;
    return made<Score>(found) ? row(name, found) : [name, notAvailable(score, name), "", "", "", ""];
  });
  return [["evidence", "answer", `P(${first})`, "margin", "mass", "percentile"], row("activations", score), ...controls];
}

function notAvailable(result: Answer | Score, name: Control): string {
  const found = result.controls[name];
  return found && "reason" in found ? `not available: ${found.reason}` : "not available";
}

function table([head, ...rows]: string[][]): string {
  const line = (cells: string[]) => `| ${cells.map(escaped).join(" | ")} |\n`;
  return line(head!) + line(head!.map(() => "---")) + rows.map(line).join("");
}

function escaped(text: string): string {
  return text.replaceAll(/([\\`*_|<>#])/g, "\\$1").replaceAll(/\s+/g, " ").trim();
}

/** The exact part of a view: tokens that cannot be made from the text again. */
export function exactly(transcript: Transcript | null): View["exact"] {
  if (transcript === null || !transcript.exact) return null;
  return { token_ids: transcript.tokens.token_ids, spans: transcript.tokens.spans };
}

const MARK = "#view=";

/** A view as the part of an address that no browser sends anywhere. */
export async function linked(view: View): Promise<string> {
  const packed = await through(new CompressionStream("deflate-raw"), new TextEncoder().encode(JSON.stringify(view)));
  return MARK + btoa(String.fromCharCode(...packed)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** The view of such an address; null: there is none in it.
 *
 * @throws Error: there is one that cannot be read.
 */
export async function unlinked(hash: string): Promise<View | null> {
  if (!hash.startsWith(MARK)) return null;
  try {
    const plain = atob(hash.slice(MARK.length).replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(plain, (letter) => letter.charCodeAt(0));
    const text = new TextDecoder().decode(await through(new DecompressionStream("deflate-raw"), bytes));
    const view: unknown = JSON.parse(text);
    if (isView(view)) return view;
  } catch {
    // told below
  }
  throw new Error("this link is broken: it was cut, or made by another release");
}

async function through(stream: CompressionStream | DecompressionStream, bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const piped = new Blob([bytes]).stream().pipeThrough(stream);
  return new Uint8Array(await new Response(piped).arrayBuffer());
}
