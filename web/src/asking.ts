/** Questions to the service: what is read is captured where it is not kept yet, and parts are told as they come. */
import type { Readings } from "./readings";
import type { Answer, AnswerEvent, Captured, ProgressEvent, Reads, Scan, ScanEvent, Score, ScoreEvent, TextEvent, Tokens } from "./types";
import type { Tell } from "./work";

/** What is read, and by which oracle. */
export interface Reading {
  tokens: Tokens;
  oracle: string;
  reads: Reads;
  base: string;
  layers: readonly number[];
  selected: readonly number[];
}

export interface Question {
  text: string;
  yesNo: boolean;
  samples: number;
  temperature: number;
  controls: boolean;
}

/** An answer on its way. */
export interface Live {
  question: string;
  /** What is read, in words. */
  from: string;
  /** The tokens that it is about; null: of an answer that was kept. */
  tokens: Tokens | null;
  texts: readonly string[];
  result: Answer | Score | null;
  whole: boolean;
  /** Set where it ended before it was whole. */
  ended: boolean;
}

/** Ask, and tell each state of the answer; the last one is whole. */
export async function ask(
  readings: Readings,
  reading: Reading,
  question: Question,
  signal: AbortSignal,
  say: Tell,
  tell: (live: Live) => void,
): Promise<Answer | Score> {
  const path = question.yesNo ? "v1/score" : "v1/ask";
  const { samples, temperature, controls } = question;
  const asked = question.yesNo ? { controls } : { controls, samples, temperature };
  return withKept(readings, reading, signal, say, async (kept) => {
    say("asking");
    const body = { ...about(kept, reading), questions: [question.text], ...asked };
    let result: Answer | Score | null = null;
    const state = (texts: readonly string[], whole: boolean) =>
      tell({ question: question.text, from: fromOf(reading), tokens: reading.tokens, texts, result, whole, ended: false });
    for await (const { name, data } of readings.service.stream(path, body, signal)) {
      if (name === "text") state((data as TextEvent).texts, false);
      if (name !== "answer" && name !== "score") continue;
      result = name === "answer" ? (data as AnswerEvent).answer : (data as ScoreEvent).score;
      if (controls) say("asking the controls");
      state([], false);
    }
    state([], true);
    return result!;
  });
}

/** What is read, in words. */
export function fromOf({ reads, base }: Pick<Reading, "reads" | "base">): string {
  return reads.difference ? `${reads.target} minus ${base}` : reads.target;
}

/** Yes/no questions at every position; each scan is told as it is there. */
export async function scan(
  readings: Readings,
  reading: Reading,
  questions: readonly string[],
  window: number,
  signal: AbortSignal,
  say: Tell,
  tell: (number: number, found: Scan) => void,
): Promise<void> {
  const { selected } = reading;
  const all = selected.length * questions.length;
  await withKept(readings, reading, signal, say, async (kept) => {
    for (const [number, question] of questions.entries()) {
      let found: Scan | null = null;
      for (let start = 0; start < selected.length; start += PART) {
        const left = Math.max(0, start - window + 1); // what the first windows of a part reach back to
        const part = selected.slice(left, start + PART);
        const body = { ...about(kept, { ...reading, selected: part }), questions: [question], window };
        for await (const { name, data } of readings.service.stream("v1/scan", body, signal)) {
          if (name === "progress") {
            const done = number * selected.length + left + (data as ProgressEvent).done;
            say(`${done} of ${all} tokens`, done / all);
          }
          if (name === "scan") tell(number, (found = joined(found, (data as ScanEvent).scan, start - left)));
        }
      }
    }
  });
}

const PART = 400; // positions in one request, which has to end within the service's time

/** Two parts of a scan as one; the first results of the second have been counted already. */
export function joined(before: Scan | null, part: Scan, known: number): Scan {
  if (before === null) return part;
  const rest = <T>(first: readonly T[], second: readonly T[]) => [...first, ...second.slice(known)];
  return {
    ...part,
    positions: rest(before.positions, part.positions),
    tokens: rest(before.tokens, part.tokens),
    margins: rest(before.margins, part.margins),
    masses: rest(before.masses, part.masses),
    values: rest(before.values, part.values),
    read_text: null,
    warnings: [...new Set([...before.warnings, ...part.warnings])],
  };
}

function withKept<T>(
  readings: Readings,
  { tokens, reads, base, layers }: Reading,
  signal: AbortSignal,
  say: Tell,
  use: (kept: Captured) => Promise<T>,
): Promise<T> {
  say("capturing activations");
  return readings.with(tokens, reads, base, layers, signal, use);
}

function about(kept: Captured, { oracle, selected }: Reading): object {
  return { oracle, reading: { handle: kept.handle, positions: selected } };
}
