/** Questions without what an oracle puts before every yes/no question. */
import { createContext } from "preact";
import { useContext } from "preact/hooks";

/** What the oracles of this service put before such a question. */
export const Prefixes = createContext<readonly string[]>([]);

export function useShort(): (question: string) => string {
  const prefixes = useContext(Prefixes);
  return (question) => short(question, prefixes);
}

export function short(question: string, prefixes: readonly string[]): string {
  const found = prefixes.find((prefix) => prefix !== "" && question.startsWith(prefix));
  return found === undefined ? question : question.slice(found.length);
}
