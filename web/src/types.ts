/** The service's own words, under short names; `api.ts` is made from its OpenAPI page. */
import type { components } from "./api";

type Schemas = components["schemas"];

export type Info = Schemas["InfoOut"];
export type OracleInfo = Schemas["OracleOut"];
export type Tokens = Schemas["TokensOut"];
export type Generated = Schemas["GeneratedOut"];
export type Captured = Schemas["CapturedOut"];
export type Answer = Schemas["AnswerOut"];
export type Score = Schemas["ScoreOut"];
export type Scan = Schemas["ScanOut"];
export type TextEvent = Schemas["TextEvent"];
export type AnswerEvent = Schemas["AnswerEvent"];
export type ScoreEvent = Schemas["ScoreEvent"];
export type ScanEvent = Schemas["ScanEvent"];
export type ProgressEvent = Schemas["ProgressEvent"];
export type WrittenEvent = Schemas["WrittenEvent"];
export type Unavailable = Schemas["UnavailableOut"];
export type Context = Schemas["ContextIn"];
export type Ending = NonNullable<Context["end"]>;

/** One turn of a conversation as it is edited. */
export interface Turn {
  role: string;
  content: string;
}

/** What the target is to read: a conversation, or plain text. */
export interface Draft {
  kind: "chat" | "text";
  turns: Turn[];
  text: string;
  ending: Ending;
}

/** A draft as tokens; `exact`: the ids are those that were sampled, and are not made from the text again. */
export interface Transcript {
  tokens: Tokens;
  exact: boolean;
}

/** What is read: one of the targets, or a fine-tune's difference from the base. */
export interface Reads {
  target: string;
  difference: boolean;
}

export const CONTROLS = ["none", "shuffled", "text-window", "text-all", "untrained"] as const;
export type Control = (typeof CONTROLS)[number];

/** Whether a control could be made. */
export function made<T extends object>(control: T | Unavailable | undefined): control is T {
  return control !== undefined && !("available" in control);
}
