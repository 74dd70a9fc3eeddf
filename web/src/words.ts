/** What an answer's controls say of it, in plain words. No mark claims more than the control shows. */
import type { Answer, Control, Score } from "./types";
import { made } from "./types";

/** `good`: speaks for the answer; `bad`: against it; `open`: neither. */
export interface Mark {
  tone: "good" | "bad" | "open";
  text: string;
}

export const MEANINGS: Record<Control | "real", string> = {
  real: "the oracle, given the activations",
  none: "the oracle, given nothing",
  shuffled: "the oracle, given other texts' activations",
  "text-window": "a reader of the selected tokens' text",
  "text-all": "a reader of the text up to the last selected token",
  untrained: "the model without the oracle's training, given the activations",
};

const MOST = 0.5; // from here on samples agree
const AHEAD = 95; // percent of donors
const DONORS = 20; // fewer are no comparison
const HALF_MASS = 0.5; // below, the oracle does not say one of the choices
const WORDS = 5; // longer answers are not compared

const WITHOUT = ["none", "shuffled"] as const;
const TEXT = ["text-window", "text-all"] as const;

/** What to think of an answer in words; of its controls only once all of them are there. */
export function answerMarks(answer: Answer): Mark[] {
  const sampled = answer.samples.length > 1;
  if (long(answer.text) || (sampled && answer.agreement === null)) {
    return [{ tone: "open", text: "too long to be compared, with its controls or with itself" }];
  }
  // What one sample in many says no control will say either, so that nothing follows from their silence.
  if (sampled && (answer.groups[0]?.count ?? 0) < 2) return [{ tone: "bad", text: "no two samples agree" }];
  const marks = agreementMarks(answer);
  return "untrained" in answer.controls ? [...marks, ...controlMarks(answer)] : marks;
}

/** Such answers are never equal to the letter, whatever they mean. */
export function long(text: string): boolean {
  return text.trim().split(/\s+/).length > WORDS;
}

function agreementMarks(answer: Answer): Mark[] {
  if (answer.agreement === null) return [];
  const agreed = percent(answer.agreement);
  return answer.agreement >= MOST
    ? [{ tone: "good", text: `answers agree (${agreed})` }]
    : [{ tone: "bad", text: `answers disagree (${agreed} agree)` }];
}

/** A control gives the same answer where it gives it half of the time, or as often as the oracle itself does. */
function controlMarks(answer: Answer): Mark[] {
  const bar = Math.min(MOST, answer.agreement ?? 1);
  const share = (name: Control) => {
    const control = answer.controls[name] as Answer | undefined;
    return made<Answer>(control) ? control.same_as_real : null;
  };
  const marks: Mark[] = [];
  const without = WITHOUT.map(share);
  const blind = largest(without);
  if (blind !== null && blind >= bar) marks.push({ tone: "bad", text: "does not change with the activations" });
  else if (blind !== null && blind > bar / 2) marks.push({ tone: "open", text: "changes little with the activations" });
  else if (without.every((found) => found !== null)) marks.push({ tone: "good", text: "changes with the activations" });
  marks.push(...textMarks(answer, bar));
  if ((share("untrained") ?? 0) >= bar) marks.push({ tone: "bad", text: "the untrained model gives the same answer" });
  return marks;
}

/** A reader that writes sentences cannot give a short answer to the letter: then it is looked for in what it writes. */
function textMarks(answer: Answer, bar: number): Mark[] {
  const readers = TEXT.map((name) => answer.controls[name] as Answer | undefined).filter((found) => made<Answer>(found));
  if (readers.length === 0) return [];
  if (readers.some((reader) => (reader.same_as_real ?? 0) >= bar)) return [SAME_TEXT];
  const written = readers.flatMap((reader) => (reader.samples.length > 0 ? reader.samples : [reader.text]));
  if (written.some((text) => within(answer.text, text))) return [{ tone: "bad", text: "the text reader's words hold this answer" }];
  if (written.every(long)) return [{ tone: "open", text: "the text reader's answers are too long to be compared" }];
  return [OTHER_TEXT];
}

const SAME_TEXT: Mark = { tone: "bad", text: "the text alone gives the same answer" };
const OTHER_TEXT: Mark = { tone: "open", text: "the text alone gives another answer" };

/** Whether some words stand in a text, as words. */
function within(words: string, text: string): boolean {
  const plain = (raw: string) => ` ${raw.toLowerCase().match(/[\p{L}\p{N}]+/gu)?.join(" ") ?? ""} `;
  const wanted = plain(words);
  return wanted.trim() !== "" && plain(text).includes(wanted);
}

/** What to think of a scored choice. */
export function scoreMarks(score: Score): Mark[] {
  const marks: Mark[] = [];
  if (score.mass < HALF_MASS) marks.push({ tone: "bad", text: `hardly answers (mass ${score.mass.toFixed(2)})` });
  marks.push(donorMark(score));
  const readers = TEXT.map((name) => score.controls[name] as Score | undefined).filter((found) => made<Score>(found));
  const answering = readers.filter((reader) => reader.mass >= HALF_MASS);
  if (answering.length > 0) marks.push(answering.some((reader) => reader.choice === score.choice) ? SAME_TEXT : OTHER_TEXT);
  else if (readers.length > 0) marks.push({ tone: "open", text: "the text reader hardly answers" });
  return marks;
}

/** Its place among the donors: oracles lean to one answer, so only that tells whether the activations matter. */
function donorMark({ percentile, donor_margins, choice, choices }: Score): Mark {
  const count = donor_margins.length;
  if (percentile === null || count === 0) return { tone: "open", text: "could not be set against other texts" };
  if (count < DONORS) return { tone: "open", text: `set against only ${count} other texts (percentile ${percentile.toFixed(0)})` };
  const more = percentile >= AHEAD;
  if (!more && percentile > 100 - AHEAD) return { tone: "bad", text: "no more than what other texts' activations give" };
  const share = `${(more ? percentile : 100 - percentile).toFixed(0)}% of ${count} other texts`;
  const said = choices[more ? 0 : 1] ?? choices[0]!;
  if (choices.length > 2) return { tone: "open", text: `${more ? "ahead of" : "behind"} ${share}` };
  if (choice !== said) return { tone: "bad", text: `says ${choice}, yet more of a ${said} than ${share}` };
  return { tone: "good", text: `more of a ${said} than ${share}` };
}

function largest(shares: (number | null)[]): number | null {
  const known = shares.filter((share) => share !== null);
  return known.length > 0 ? Math.max(...known) : null;
}

export function percent(share: number): string {
  return `${Math.round(100 * share)}%`;
}

export function signed(value: number): string {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
}
