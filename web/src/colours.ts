/** Green for yes and purple for no, as in every heat map of augury; both are told apart by colour-blind eyes. */
const YES = "27, 120, 55";
const NO = "118, 42, 131";
const DEEPEST = 0.6; // text stays readable on it

/** 0 to 1: a value against the largest, in either direction. */
export function strengths(values: readonly number[]): (value: number) => number {
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  return (value) => Math.abs(value) / largest;
}

/** A colour over the page's own background, light or dark. */
export function colour(value: number, strength: number): string {
  return `rgba(${value > 0 ? YES : NO}, ${(DEEPEST * strength).toFixed(3)})`;
}

/** How a line of a plot is drawn: in other hues than the tokens, and told apart by more than these. */
export const LINES = [
  { class: "line-0", dash: "" },
  { class: "line-1", dash: "6 3" },
  { class: "line-2", dash: "2 3" },
  { class: "line-3", dash: "8 3 2 3" },
] as const;
