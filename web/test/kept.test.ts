import { describe, expect, it } from "vitest";
import { type Entry, linked, opened, saved, unlinked } from "../src/kept";
import { markdown } from "../src/rows";
import { answer, scan, score, view } from "./made";

const results = [answer({ controls: { none: answer(), "text-all": { available: false, reason: "no text" } } }), score(), scan()];
const entry: Entry = { id: "1", at: "2026-01-01T00:00:00.000Z", view, results, from: ["base", "base", "x minus base"], ended: false };
const with_ = (change: (entry: any) => void) => {
  const copy = structuredClone(entry);
  change(copy);
  return saved([copy]);
};

describe("a history", () => {
  it("is read as it was written", () => {
    expect(opened(saved([entry]))).toEqual([entry]);
  });

  it.each([
    ["not JSON", "{", "not JSON"],
    ["another file", "{}", "no history"],
    ["null", "null", "no history"],
    ["another version", saved([entry]).replace('"version": 1', '"version": 9'), "version 9"],
    ["a broken entry", JSON.stringify({ format: "augury-page", version: 1, entries: [{ id: 1 }] }), "broken"],
    ["a result of no kind", with_((row) => (row.results[2].kind = "other")), "broken"],
    ["a result of its kind alone", with_((row) => (row.results[0] = { kind: "answer" })), "broken"],
    ["a turn that is none", with_((row) => (row.view.draft.turns = [null])), "broken"],
    ["a span of a thousand million tokens", with_((row) => (row.view.exact = { token_ids: [1], spans: [{ role: "user", start: 0, stop: 1e9 }] })), "broken"],
    ["a position before the first", with_((row) => (row.view.selected = [-1])), "broken"],
    ["a question that is no text", with_((row) => (row.view.scans = [1])), "broken"],
    ["figures of other tokens", with_((row) => row.results[2].values.pop()), "broken"],
    ["a control that is none", with_((row) => (row.results[0].controls.none = 3)), "broken"],
    ["results that nobody knows the source of", with_((row) => row.from.pop()), "broken"],
  ])("refuses %s", (_, text, why) => {
    expect(() => opened(text)).toThrow(why);
  });

  it("is a text to read, whose cells hold what was said and nothing that would break them", () => {
    const said = answer({ text: "a | b\nc ![x](http://y)", warnings: ["off contract"], controls: { none: answer({ text: "home", same_as_real: 0 }) } });
    const told = markdown([{ ...entry, results: [said, scan()], from: ["base", "x minus base"] }]);
    expect(told).toContain("| activations | a \\| b c \\!\\[x\\](http://y) |");
    expect(told).toContain("| none | home |  | 0% |");
    expect(told).toContain("| 4 | bake | +2.00 | 1.00 |");
    expect(told).toContain("- warning: off contract");
    expect(told).toContain("read from x minus base");
    expect(markdown([{ ...entry, ended: true }])).toContain("- ended before all of its controls were run");
  });

  it("says what a scan's values are", () => {
    const head = (donor_median: number | null) => markdown([{ ...entry, results: [scan({ donor_median })], from: ["base"] }]);
    expect(head(-1)).toContain("| position | token | margin minus the donors' median | mass |");
    expect(head(null)).toContain("| position | token | margin | mass |");
  });
});

describe("a link", () => {
  it("brings the view back, whatever letters it holds", async () => {
    const exact = { token_ids: [1, 49151], spans: [{ role: "assistant", start: 0, stop: 2 }] };
    for (const kept of [view, { ...view, exact }]) expect(await unlinked(await linked(kept))).toEqual(kept);
    expect(await linked(view)).toMatch(/^#view=[A-Za-z0-9_-]+$/);
  });

  it("holds a transcript of any length", async () => {
    const noise = Array.from({ length: 300_000 }, (_, i) => String.fromCharCode(33 + ((i * i * 7919) % 9000))).join("");
    const long = { ...view, draft: { ...view.draft, text: noise } };
    expect(await unlinked(await linked(long))).toEqual(long);
  });

  it("is none where there is none, and refused where it is broken or stands for too much", async () => {
    expect(await unlinked("")).toBeNull();
    expect(await unlinked("#questions")).toBeNull();
    const whole = await linked(view);
    const bomb = await linked({ ...view, question: "a".repeat(30_000_000) });
    expect(bomb.length).toBeLessThan(100_000);
    for (const broken of [whole.slice(0, 60), "#view=%%%", "#view=AAAA", bomb]) await expect(unlinked(broken)).rejects.toThrow("broken");
  });
});
