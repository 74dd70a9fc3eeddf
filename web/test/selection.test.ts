import { describe, expect, it } from "vitest";
import { groupsOf, inTemplate, shownOf } from "../src/groups";
import { between, brief, everything, matching, ofRole, toggled, union } from "../src/selection";
import { tokensOf } from "./made";

describe("selections", () => {
  it("run between two positions in either direction", () => {
    expect(between(5, 2)).toEqual([2, 3, 4, 5]);
    expect(between(3, 3)).toEqual([3]);
  });

  it("stay sorted and hold each position once, whatever is done to them", () => {
    let selected: readonly number[] = [];
    const reference = new Set<number>();
    let seed = 7;
    for (let i = 0; i < 500; i++) {
      seed = (seed * 48271) % 2147483647;
      const [a, b] = [seed % 40, (seed >> 8) % 40];
      if (seed % 3 === 0) {
        selected = union(selected, between(a, b));
        for (let at = Math.min(a, b); at <= Math.max(a, b); at++) reference.add(at);
      } else {
        selected = toggled(selected, a);
        if (!reference.delete(a)) reference.add(a);
      }
      expect(selected).toEqual([...reference].sort((x, y) => x - y));
    }
  });

  it("find every token that has a part in a text", () => {
    const tokens = tokensOf([" The", " phil", "os", "opher", " and", " the", " sea"]);
    expect(matching(tokens, "philosopher")).toEqual([1, 2, 3]);
    expect(matching(tokens, "THE")).toEqual([0, 5]);
    expect(matching(tokens, "r a")).toEqual([3, 4]);
    expect(matching(tokens, "absent")).toEqual([]);
    expect(matching(tokens, "  ")).toEqual([]);
  });

  it("agree with a search letter by letter", () => {
    const words = ["a", "ba", "", "ab", "b", "aab"];
    const tokens = tokensOf(Array.from({ length: 60 }, (_, i) => words[(i * i + 3 * i) % words.length]!));
    const owner = tokens.tokens.flatMap((token, i) => [...token].map(() => i));
    const text = tokens.tokens.join("");
    for (const needle of ["ab", "aba", "bb", "aabab"]) {
      const naive = new Set<number>();
      for (let at = 0; at + needle.length <= text.length; at++) {
        if (text.startsWith(needle, at)) for (let i = at; i < at + needle.length; i++) naive.add(owner[i]!);
      }
      const found = matching(tokens, needle).filter((at) => tokens.tokens[at] !== "");
      expect(found).toEqual([...naive].sort((x, y) => x - y));
    }
  });

  it("are told in few words", () => {
    expect(brief([3, 4, 5, 9])).toBe("3..5, 9");
    expect(brief([])).toBe("");
  });
});

describe("groups", () => {
  const spans = [
    { role: "user", start: 2, stop: 4 },
    { role: "assistant", start: 6, stop: 9 },
  ];
  const tokens = { ...tokensOf(Array.from({ length: 10 }, (_, i) => `t${i}`)), spans };

  it("hold every position once, in order", () => {
    const groups = groupsOf(tokens);
    expect(everything(groups)).toEqual(between(0, 9));
    expect(groups.map((group) => group.role)).toEqual(["template", "user", "template", "assistant", "template"]);
    expect(everything(shownOf(groups, false))).toEqual([2, 3, 6, 7, 8]);
  });

  it("know the roles' own tokens and the template's", () => {
    expect(ofRole(tokens, "assistant")).toEqual([6, 7, 8]);
    expect(ofRole(tokens, "system")).toEqual([]);
    expect(inTemplate(groupsOf(tokens), [1, 2, 9])).toBe(2);
  });

  it("are one where there are no turns", () => {
    expect(groupsOf(tokensOf(["a", "b"]))).toEqual([{ role: "text", start: 0, stop: 2, template: false }]);
    expect(groupsOf(tokensOf([]))).toEqual([]);
  });
});
