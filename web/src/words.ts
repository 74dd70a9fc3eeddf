/** What an answer's controls say of it, in plain words. */
import type { Answer, Control, Score } from "./types";
import { made } from "./types";

/** `good`: speaks for the answer; `bad`: against it; `open`: neither. */
export interface Mark {
  tone: "good" | "bad" | "open";
  text: string;
}

export const NAMES: Record<Control | "real", string> = {
  real: "activations",
  none: "none",
  shuffled: "shuffled",
  "text-window": "text-window",
  "text-all": "text-all",
  untrained: "untrained",
};

export const MEANINGS: Record<Control | "real", string> = {
  real: "the oracle, given the activations",
  none: "the oracle, given nothing",
  shuffled: "the oracle, given other texts' activations",
  "text-window": "a reader of the selected tokens' text",
  "text-all": "a reader of the text up to the last selected token",
  untrained: "the model without the oracle's training, given the activations",
};

const MOST = 0.5; // from here on a share is called "the same"
const AHEAD = 95; // percent of donors
const HALF_MASS = 0.5; // below, the oracle does not say one of the choices

const WITHOUT = ["none", "shuffled"] as const;
const TEXT = ["text-window", "text-all"] as const;

/** What to think of an answer in words; empty before its controls are there. */
export function answerMarks(answer: Answer): Mark[] {
  const marks = agreementMarks(answer);
  const share = (name: Control) => {
    const control = answer.controls[name];
    return made<Answer>(control as Answer) ? (control as Answer).same_as_real : null;
  };
  return [...marks, ...controlMarks(WITHOUT.map(share), TEXT.map(share), share("untrained"))];
}

function agreementMarks(answer: Answer): Mark[] {
  if (answer.samples.length < 2) return [];
  if (answer.agreement === null) return [{ tone: "open", text: "answers too long to be compared" }];
  const agreed = percent(answer.agreement);
  return answer.agreement >= MOST
    ? [{ tone: "good", text: `answers agree (${agreed})` }]
    : [{ tone: "bad", text: `answers disagree (${agreed} agree)` }];
}

type Share = number | null;

function controlMarks(without: Share[], text: Share[], untrained: Share): Mark[] {
  const marks: Mark[] = [];
  const blind = largest(without);
  if (blind !== null && blind >= MOST) marks.push({ tone: "bad", text: "does not change with the activations" });
  else if (without.every((share) => share !== null)) {
    marks.push({ tone: "good", text: "changes with the activations" });
  }
  const read = largest(text);
  if (read !== null) {
    marks.push(
      read >= MOST
        ? { tone: "bad", text: "the text alone gives the same answer" }
        : { tone: "open", text: "the text alone gives another answer" },
    );
  }
  if (untrained !== null && untrained >= MOST) {
    marks.push({ tone: "bad", text: "the untrained model gives the same answer" });
  }
  return marks;
}

/** What to think of a scored choice. */
export function scoreMarks(score: Score): Mark[] {
  const marks: Mark[] = [];
  if (score.mass < HALF_MASS) marks.push({ tone: "bad", text: `hardly answers (mass ${score.mass.toFixed(2)})` });
  if (score.percentile !== null) marks.push(donorMark(score.percentile));
  const readers = TEXT.map((name) => score.controls[name]).filter((found) => made<Score>(found as Score)) as Score[];
  const answering = readers.filter((reader) => reader.mass >= HALF_MASS);
  if (answering.some((reader) => reader.choice === score.choice)) {
    marks.push({ tone: "bad", text: "the text alone gives the same answer" });
  } else if (readers.length > 0) {
    const text = answering.length > 0 ? "the text alone gives another answer" : "the text reader hardly answers";
    marks.push({ tone: "open", text });
  }
  return marks;
}

function donorMark(percentile: number): Mark {
  if (percentile >= AHEAD) return { tone: "good", text: `more of a yes than ${tidy(percentile)}% of other texts` };
  if (percentile <= 100 - AHEAD) return { tone: "good", text: `more of a no than ${tidy(100 - percentile)}% of other texts` };
  return { tone: "bad", text: "no more than what other texts' activations give" };
}

function largest(shares: Share[]): Share {
  const known = shares.filter((share) => share !== null);
  return known.length > 0 ? Math.max(...known) : null;
}

export function percent(share: number): string {
  return `${Math.round(100 * share)}%`;
}

export function signed(value: number): string {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
}

function tidy(value: number): string {
  return value.toFixed(0);
}
