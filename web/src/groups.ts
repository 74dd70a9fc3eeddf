/** A transcript's tokens by turn, with what the template puts between the turns. */
import type { Tokens } from "./types";

export interface Group {
  role: string;
  start: number;
  stop: number;
  /** Not a turn's content, but the template's own tokens. */
  template: boolean;
}

/** Groups that hold every position once, in order. In a plain text there is no template: what is no turn is text. */
export function groupsOf(tokens: Tokens, plain = tokens.spans.length === 0): Group[] {
  const length = tokens.token_ids.length;
  const groups: Group[] = [];
  let at = 0;
  const between = (stop: number) => {
    if (stop > at) groups.push({ role: plain ? "text" : "template", start: at, stop, template: !plain });
  };
  for (const { role, start, stop } of [...tokens.spans].sort((a, b) => a.start - b.start)) {
    between(start);
    if (stop > start) groups.push({ role, start, stop, template: false });
    at = Math.max(at, stop);
  }
  between(length);
  return groups;
}

/** What of them is shown: turns, and the template's own tokens on demand. */
export function shownOf(groups: readonly Group[], template: boolean): Group[] {
  return groups.filter((group) => template || !group.template);
}

/** How many positions of a selection the template's own tokens hold. */
export function inTemplate(groups: readonly Group[], selected: readonly number[]): number {
  const template = groups.filter((group) => group.template);
  return selected.filter((at) => template.some((group) => group.start <= at && at < group.stop)).length;
}
