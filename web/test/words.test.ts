import { describe, expect, it } from "vitest";
import { answerMarks, scoreMarks, signed } from "../src/words";
import type { Answer } from "../src/types";
import { answer, score } from "./made";

const same = (share: number) => answer({ same_as_real: share, text: share >= 0.5 ? "cooking" : "home" });
const said = (marks: { text: string }[]) => marks.map((mark) => mark.text);
const missing = { available: false as const, reason: "a difference has no text" };
const beside = (controls: Answer["controls"], parts: Partial<Answer> = {}) =>
  said(answerMarks(answer({ controls: { "text-window": missing, "text-all": missing, untrained: same(0), ...controls }, ...parts })));

describe("what controls say of an answer", () => {
  it("is nothing before all of them are there", () => {
    expect(answerMarks(answer())).toEqual([]);
    expect(answerMarks(answer({ controls: { none: same(0), shuffled: same(0) } }))).toEqual([]);
  });

  it("is that it changes with the activations only where both blind controls differ", () => {
    const marks = (a: number, b: number) => beside({ none: same(a), shuffled: same(b) });
    expect(marks(0, 0.1)).toEqual(["changes with the activations"]);
    expect(marks(1, 0)).toEqual(["does not change with the activations"]);
    expect(marks(0, 0.6)).toEqual(["does not change with the activations"]);
    expect(marks(0, 0.4)).toEqual(["changes little with the activations"]);
    expect(beside({ none: same(0), shuffled: missing })).toEqual([]);
  });

  it("does not call an answer its own that a control gives as often as the oracle", () => {
    const sampled = { samples: ["a", "b", "c", "d", "e"], agreement: 0.4, groups: [{ text: "a", count: 2 }] };
    expect(beside({ none: same(0.4), shuffled: same(0) }, sampled)).toContain("does not change with the activations");
    expect(beside({ none: same(0.1), shuffled: same(0.1) }, sampled)).toContain("changes with the activations");
  });

  it("claims nothing of an answer that is too long to be given twice", () => {
    const long = { text: "write a recipe inspired by fresh bread" };
    expect(beside({ none: same(0), shuffled: same(0) }, long)).toEqual(["too long to be compared, with its controls or with itself"]);
  });

  it("names the text wherever one of its readers gives the answer", () => {
    const marks = (window: number, all: number) => beside({ "text-window": same(window), "text-all": same(all) });
    expect(marks(0, 1)).toEqual(["the text alone gives the same answer"]);
    expect(marks(0, 0)).toEqual(["the text alone gives another answer"]);
    expect(beside({})).toEqual([]);
  });

  it("looks for the answer in what a reader writes that does not answer in a word", () => {
    const reads = (text: string) => beside({ "text-all": answer({ text, same_as_real: 0 }) });
    expect(reads("The sentence is about cooking and about bread.")).toEqual(["the text reader's words hold this answer"]);
    expect(reads("The sentence is about precooking of some sort.")).toEqual(["the text reader's answers are too long to be compared"]);
    expect(reads("bread")).toEqual(["the text alone gives another answer"]);
  });

  it("says whether samples agree", () => {
    const sampled = (agreement: number | null, count: number) =>
      said(answerMarks(answer({ samples: ["a", "b", "c", "d", "e"], agreement, groups: [{ text: "a", count }] })));
    expect(sampled(0.6, 3)).toEqual(["answers agree (60%)"]);
    expect(sampled(0.4, 2)).toEqual(["answers disagree (40% agree)"]);
    expect(sampled(null, 1)).toEqual(["too long to be compared, with its controls or with itself"]);
  });

  it("is silent of the controls where no two samples agree", () => {
    const once = { samples: ["a", "b"], agreement: 0.5, groups: [{ text: "a", count: 1 }] };
    expect(beside({ none: same(0), shuffled: same(0) }, once)).toEqual(["no two samples agree"]);
  });
});

describe("what controls say of a score", () => {
  it("is its place among other texts", () => {
    expect(said(scoreMarks(score()))).toEqual(["more of a Yes than 100% of 32 other texts"]);
    expect(said(scoreMarks(score({ percentile: 3, choice: "No" })))).toEqual(["more of a No than 97% of 32 other texts"]);
    expect(said(scoreMarks(score({ percentile: 60 })))).toEqual(["no more than what other texts' activations give"]);
  });

  it("is no praise where the choice says the opposite, or where there are few other texts", () => {
    const [against] = scoreMarks(score({ choice: "No", percentile: 100 }));
    expect(against).toEqual({ tone: "bad", text: "says No, yet more of a Yes than 100% of 32 other texts" });
    const [few] = scoreMarks(score({ donor_margins: [-1, -2] }));
    expect(few).toEqual({ tone: "open", text: "set against only 2 other texts (percentile 100)" });
    const [none] = scoreMarks(score({ donor_margins: [], percentile: null }));
    expect(none).toEqual({ tone: "open", text: "could not be set against other texts" });
  });

  it("does not count a reader that does not answer", () => {
    const reader = (choice: string, mass: number) => said(scoreMarks(score({ controls: { "text-all": score({ choice, mass }) } }))).at(-1);
    expect(reader("Yes", 0.9)).toBe("the text alone gives the same answer");
    expect(reader("No", 0.9)).toBe("the text alone gives another answer");
    expect(reader("Yes", 0.2)).toBe("the text reader hardly answers");
  });

  it("warns where the oracle does not say one of the choices", () => {
    expect(said(scoreMarks(score({ mass: 0.3 })))[0]).toBe("hardly answers (mass 0.30)");
  });
});

it("writes signs", () => {
  expect([signed(1.234), signed(-0.5), signed(0)]).toEqual(["+1.23", "−0.50", "+0.00"]);
});
