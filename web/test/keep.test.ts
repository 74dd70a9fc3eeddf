import { describe, expect, it } from "vitest";
import { type Entry, linked, markdown, opened, saved, unlinked } from "../src/keep";
import { answer, scan, score, view } from "./made";

const entry: Entry = { id: "1", at: "2026-01-01T00:00:00.000Z", view, results: [answer(), score(), scan()] };

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
    ["a result of no kind", saved([entry]).replaceAll('"kind": "scan"', '"kind": "other"'), "broken"],
  ])("refuses %s", (_, text, why) => {
    expect(() => opened(text)).toThrow(why);
  });

  it("is a text to read, whose cells hold what was said and nothing that would break them", () => {
    const told = markdown([{ ...entry, results: [answer({ text: "a | b\nc", controls: { none: answer({ text: "home", same_as_real: 0 }) } }), scan()] }]);
    expect(told).toContain("| activations | a \\| b c |");
    expect(told).toContain("| none | home |  | 0% |");
    expect(told).toContain("| 4 | bake | +2.00 |");
  });
});

describe("a link", () => {
  it("brings the view back, whatever letters it holds", async () => {
    const exact = { token_ids: [1, 49151], spans: [{ role: "assistant", start: 0, stop: 2 }] };
    for (const kept of [view, { ...view, exact }]) expect(await unlinked(await linked(kept))).toEqual(kept);
    expect(await linked(view)).toMatch(/^#view=[A-Za-z0-9_-]+$/);
  });

  it("is none where there is none, and refused where it is broken", async () => {
    expect(await unlinked("")).toBeNull();
    expect(await unlinked("#questions")).toBeNull();
    const whole = await linked(view);
    for (const broken of [whole.slice(0, 60), "#view=%%%", "#view=AAAA"]) await expect(unlinked(broken)).rejects.toThrow("broken");
  });
});
