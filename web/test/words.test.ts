import { describe, expect, it } from "vitest";
import { answerMarks, scoreMarks, signed } from "../src/words";
import { answer, score } from "./made";

const same = (share: number) => answer({ same_as_real: share });
const said = (marks: { text: string }[]) => marks.map((mark) => mark.text);
const none = { available: false as const, reason: "a difference has no text" };

describe("what controls say of an answer", () => {
  it("is nothing before they are there", () => {
    expect(answerMarks(answer())).toEqual([]);
  });

  it("is that it changes with the activations only where both blind controls differ", () => {
    const marks = (a: number, b: number) => said(answerMarks(answer({ controls: { none: same(a), shuffled: same(b) } })));
    expect(marks(0, 0.1)).toEqual(["changes with the activations"]);
    expect(marks(1, 0)).toEqual(["does not change with the activations"]);
    expect(marks(0, 0.6)).toEqual(["does not change with the activations"]);
    expect(said(answerMarks(answer({ controls: { none: same(0) } })))).toEqual([]);
    expect(said(answerMarks(answer({ controls: { none: same(0), shuffled: none } })))).toEqual([]);
  });

  it("names the text wherever one of its readers gives the answer", () => {
    const marks = (window: number, all: number) =>
      said(answerMarks(answer({ controls: { "text-window": same(window), "text-all": same(all) } })));
    expect(marks(0, 1)).toEqual(["the text alone gives the same answer"]);
    expect(marks(0, 0)).toEqual(["the text alone gives another answer"]);
    expect(said(answerMarks(answer({ controls: { "text-window": none, "text-all": none } })))).toEqual([]);
  });

  it("says whether samples agree", () => {
    const sampled = (agreement: number | null) => said(answerMarks(answer({ samples: ["a", "b"], agreement })));
    expect(sampled(0.6)).toEqual(["answers agree (60%)"]);
    expect(sampled(0.2)).toEqual(["answers disagree (20% agree)"]);
    expect(sampled(null)).toEqual(["answers too long to be compared"]);
  });
});

describe("what controls say of a score", () => {
  it("is its place among other texts", () => {
    expect(said(scoreMarks(score()))).toEqual(["more of a yes than 100% of other texts"]);
    expect(said(scoreMarks(score({ percentile: 3 })))).toEqual(["more of a no than 97% of other texts"]);
    expect(said(scoreMarks(score({ percentile: 60 })))).toEqual(["no more than what other texts' activations give"]);
  });

  it("does not count a reader that does not answer", () => {
    const reader = (choice: string, mass: number) => scoreMarks(score({ percentile: null, controls: { "text-all": score({ choice, mass }) } }));
    expect(said(reader("Yes", 0.9))).toEqual(["the text alone gives the same answer"]);
    expect(said(reader("No", 0.9))).toEqual(["the text alone gives another answer"]);
    expect(said(reader("Yes", 0.2))).toEqual(["the text reader hardly answers"]);
  });

  it("warns where the oracle does not say one of the choices", () => {
    expect(said(scoreMarks(score({ mass: 0.3, percentile: null })))).toEqual(["hardly answers (mass 0.30)"]);
  });
});

it("writes signs", () => {
  expect([signed(1.234), signed(-0.5), signed(0)]).toEqual(["+1.23", "−0.50", "+0.00"]);
});
