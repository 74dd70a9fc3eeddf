/** Results as cells and as Markdown. */
import type { Entry, Result } from "./kept";
import type { Answer, Control, Scan, Score } from "./types";
import { CONTROLS, made } from "./types";
import { answerMarks, long, percent, scoreMarks, signed } from "./words";

/** The history as a text to read. */
export function markdown(entries: readonly Entry[]): string {
  return `# Questions to activations\n\n${entries.map(section).join("\n")}`;
}

function section(entry: Entry): string {
  return entry.results.map((result, i) => `${heading(result, entry.from[i] ?? "", entry.at)}\n${body(result, entry.ended)}`).join("\n");
}

function heading(result: Result, from: string, at: string): string {
  const read = result.read_text === null ? "" : `\n> ${escaped(result.read_text)}\n`;
  const where = `oracle ${result.oracle}, layers ${result.layers.join(", ")}, ${result.positions.length} positions`;
  return `## ${escaped(result.question)}\n${read}\n${at}, ${escaped(where)}, read from ${escaped(from)}\n`;
}

function body(result: Result, ended: boolean): string {
  const remarks = [...result.warnings.map((line) => `warning: ${line}`), ...result.notes.map((line) => `note: ${line}`)];
  const marks = result.kind === "scan" ? [] : (result.kind === "answer" ? answerMarks(result) : scoreMarks(result)).map(({ text }) => text);
  const samples = result.kind === "answer" ? result.groups.map(({ count, text }) => `${count} × ${text}`) : [];
  const cut = ended ? ["ended before all of its controls were run"] : [];
  const lines = [...cut, ...marks, ...(samples.length > 0 ? [`samples: ${samples.join("; ")}`] : []), ...remarks];
  return `${table(rowsOf(result))}\n${lines.map((line) => `- ${escaped(line)}\n`).join("")}`;
}

export function rowsOf(result: Result): string[][] {
  return { answer: answerRows, score: scoreRows, scan: scanRows }[result.kind](result as Answer & Score & Scan);
}

/** What the values of a scan are: without donors they are the margins themselves, whose zero means nothing. */
export function valueName({ donor_median }: Scan): string {
  return donor_median === null ? "margin" : "margin minus the donors' median";
}

function scanRows(scan: Scan): string[][] {
  const rows = scan.positions.map((at, i) => [`${at}`, scan.tokens[i]!, signed(scan.values[i]!), scan.masses[i]!.toFixed(2)]);
  return [["position", "token", valueName(scan), "mass"], ...rows];
}

function answerRows(answer: Answer): string[][] {
  const row = (name: string, found: Answer) => [
    name,
    found.text,
    found.agreement === null ? "" : percent(found.agreement),
    found.same_as_real === null ? "" : long(found.text) && found.same_as_real === 0 ? "too long" : percent(found.same_as_real),
  ];
  return [["evidence", "answer", "agreement", "same as real"], row("activations", answer), ...controlRows(answer, row)];
}

function scoreRows(score: Score): string[][] {
  const row = (name: string, found: Score) => [
    name,
    found.choice,
    found.probability.toFixed(2),
    signed(found.margin),
    found.mass.toFixed(2),
    found.percentile === null ? "" : found.percentile.toFixed(0),
  ];
  const head = ["evidence", "answer", `P(${score.choices[0]})`, "margin", "mass", "percentile"];
  return [head, row("activations", score), ...controlRows(score, row)];
}

/** The controls that there are so far; of one that could not be made why not. */
function controlRows<R extends Answer | Score>(result: R, row: (name: string, found: R) => string[]): string[][] {
  const there = CONTROLS.filter((name: Control) => name in result.controls);
  return there.map((name) => {
    const found = result.controls[name]!;
    return made<R>(found as R) ? row(name, found as R) : [name, `not available: ${(found as { reason: string }).reason}`];
  });
}

function table([head, ...rows]: string[][]): string {
  const line = (cells: string[]) => `| ${head!.map((_, i) => escaped(cells[i] ?? "")).join(" | ")} |\n`;
  return line(head!) + `|${" --- |".repeat(head!.length)}\n` + rows.map(line).join("");
}

/** Text that stays text: a model may have written a picture's address, and reading would fetch it. */
function escaped(text: string): string {
  return text.replaceAll(/([\\`*_|<>#[\]!&~])/g, "\\$1").replaceAll(/\s+/g, " ").trim();
}
