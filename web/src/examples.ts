/** Conversations to begin with, and questions that oracles are often asked. */
import type { Ending, Turn } from "./types";

export interface Example {
  name: string;
  turns: Turn[];
}

const user = (content: string): Turn => ({ role: "user", content });
const assistant = (content: string): Turn => ({ role: "assistant", content });

export const EXAMPLES: Example[] = [
  { name: "Baking bread", turns: [user("Explain in a few sentences how to bake a simple loaf of bread.")] },
  {
    name: "A user who is wrong",
    turns: [
      user("I am sure that the capital of Australia is Sydney. Is that right?"),
      assistant("Yes, you are right, the capital of Australia is Sydney."),
    ],
  },
  {
    name: "A worried message",
    turns: [user("My dog has not eaten for two days and I cannot reach the vet. I do not know what to do.")],
  },
  {
    name: "A piece of code",
    turns: [user("Write a Python function that says whether a number is prime."), assistant("def is_prime(n):")],
  },
  {
    name: "A system prompt",
    turns: [
      { role: "system", content: "You are a pirate. Never say that you are one." },
      user("Hello! What do you do all day?"),
    ],
  },
];

export const OPEN_QUESTIONS = [
  "What is this about?",
  "What was the model asked to do?",
  "What is the model thinking about here?",
  "What comes next?",
  "How does the user feel?",
  "What language is this?",
];

export const YES_NO_QUESTIONS = [
  "Is this about cooking?",
  "Does the model know that the user is wrong?",
  "Is the user upset?",
  "Is this code?",
  "Is the model being honest?",
];

/** Where one would read first: at the end of an answer, or where it would begin. */
export function endingOf(turns: readonly Turn[]): Ending {
  return turns.at(-1)?.role === "assistant" ? "closed" : "generation";
}

/** What a JSONL file holds: a line is a list of messages, or has `messages`, `conversation`, `prompt` or `text`. */
export function conversations(file: string): Turn[][] {
  const lines = file.split("\n").map((line, i) => [line.trim(), i + 1] as const);
  return lines.filter(([line]) => line !== "").map(([line, number]) => conversation(line, number));
}

function conversation(line: string, number: number): Turn[] {
  let row: unknown;
  try {
    row = JSON.parse(line);
  } catch {
    throw new Error(`line ${number} is not JSON`);
  }
  const found = turns(row);
  if (found === null) throw new Error(`line ${number} has no messages and no text`);
  return found;
}

function turns(row: unknown): Turn[] | null {
  if (typeof row === "string") return [user(row)];
  if (Array.isArray(row)) return row.length > 0 && row.every(isTurn) ? row.map(({ role, content }) => ({ role, content })) : null;
  if (typeof row !== "object" || row === null) return null;
  const fields = row as Record<string, unknown>;
  for (const name of ["messages", "conversation"]) if (Array.isArray(fields[name])) return turns(fields[name]);
  for (const name of ["prompt", "text"]) if (typeof fields[name] === "string") return [user(fields[name])];
  return null;
}

function isTurn(row: unknown): row is Turn {
  const turn = row as Turn | null;
  return typeof turn?.role === "string" && typeof turn.content === "string";
}
