/** Whether something that came from a file or a link is what it says it is. */

export type Check = (value: unknown) => boolean;

export const text: Check = (value) => typeof value === "string";
export const flag: Check = (value) => typeof value === "boolean";
export const number: Check = (value) => typeof value === "number" && Number.isFinite(value);
export const place: Check = (value) => Number.isInteger(value) && (value as number) >= 0;
export const nothing: Check = (value) => value === null;

export const one =
  (...words: string[]): Check =>
  (value) =>
    words.includes(value as string);

export const either =
  (...checks: Check[]): Check =>
  (value) =>
    checks.some((check) => check(value));

export const list =
  (check: Check, most = 200_000): Check =>
  (value) =>
    Array.isArray(value) && value.length <= most && value.every(check);

/** An object with at least these fields. */
export const fields =
  (checks: Record<string, Check>): Check =>
  (value) =>
    typeof value === "object" &&
    value !== null &&
    Object.entries(checks).every(([name, check]) => Object.hasOwn(value, name) && check((value as Record<string, unknown>)[name]));

/** An object whose own values all pass. */
export const values =
  (check: Check): Check =>
  (value) =>
    typeof value === "object" && value !== null && Object.values(value).every(check);
