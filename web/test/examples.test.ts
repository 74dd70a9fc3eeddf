import { describe, expect, it } from "vitest";
import { conversations } from "../src/examples";
import { nearest, scaled } from "../src/plot";
import { joined } from "../src/asking";
import { beginning, contextOf } from "../src/tokens";
import { scan, view } from "./made";

describe("a JSONL file", () => {
  it("holds conversations in the forms that people have", () => {
    const turn = { role: "user", content: "hi" };
    const lines = [{ messages: [turn] }, { conversation: [turn], id: 3 }, [turn], { prompt: "hi" }, { text: "hi" }, "hi"];
    const file = lines.map((line) => JSON.stringify(line)).join("\n\n");
    expect(conversations(`${file}\n`)).toEqual(lines.map(() => [turn]));
  });

  it.each(['{"messages": []}', '{"messages": [{"role": 1}]}', "{", "3", "null", "{}"])("refuses %s by its line", (line) => {
    expect(() => conversations(`"a"\n${line}`)).toThrow("line 2");
  });
});

describe("a draft", () => {
  const draft = { ...view.draft, turns: [{ role: "user", content: "a" }, { role: "assistant", content: "b" }], ending: "closed" as const };

  it("is sent as it stands, without the turn that is still empty", () => {
    const turns = [...draft.turns, { role: "user", content: "" }];
    expect(contextOf({ ...draft, turns })).toEqual({ messages: draft.turns, end: "closed" });
    expect(contextOf({ ...draft, kind: "text", text: "" })).toBeNull();
    expect(contextOf({ ...draft, turns: [{ role: "user", content: "" }] })).toBeNull();
  });

  it("is gone on from before the answer that is written again", () => {
    expect(beginning(draft).context).toEqual({ messages: [draft.turns[0]], end: "generation" });
    expect(beginning({ ...draft, ending: "thinking", turns: [draft.turns[0]!] }).context).toMatchObject({ end: "thinking" });
  });
});

describe("a plot", () => {
  it("has 0 in sight, and gives back the position that stands at a place", () => {
    for (const values of [[1, 3], [-2, -1], [0, 0]]) {
      const places = scaled([scan({ positions: [5, 9], values })], 400);
      expect(places.ticks).toContain(0);
      for (const at of [5, 7, 9]) expect(places.position(places.x(at))).toBeCloseTo(at);
      for (const value of values) expect(places.y(value)).toBeGreaterThanOrEqual(0);
    }
    expect(nearest([1, 5, 9], 6.9)).toBe(5);
    expect(nearest([], 1)).toBeUndefined();
  });
});

describe("a long scan", () => {
  it("is the same in whatever parts it came", () => {
    const whole = scan({ positions: [0, 1, 2, 3, 4, 5], tokens: [..."abcdef"], margins: [1, 2, 3, 4, 5, 6], masses: [1, 1, 1, 1, 1, 1], values: [6, 5, 4, 3, 2, 1] });
    const cut = (from: number, to: number) =>
      scan({
        positions: whole.positions.slice(from, to), tokens: whole.tokens.slice(from, to), margins: whole.margins.slice(from, to),
        masses: whole.masses.slice(from, to), values: whole.values.slice(from, to),
      });
    for (const window of [1, 2, 3]) {
      const back = window - 1;
      const found = joined(joined(null, cut(0, 3), 0), cut(3 - back, 6), back);
      expect(found).toEqual({ ...whole, read_text: null });
    }
  });
});
