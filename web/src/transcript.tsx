/** The conversation that is read: written, loaded, and gone on with by the target. */
import { useState } from "preact/hooks";
import { conversations, endingOf, EXAMPLES } from "./examples";
import { NumberField, Refused, Running, toAdding } from "./parts";
import type { Draft, Ending, Turn } from "./types";
import { told, type Fault, type Work } from "./work";

export interface Writing {
  tokens: number;
  temperature: number;
}

interface Props {
  draft: Draft;
  chats: boolean;
  mostTokens: number;
  /** Who generates, where there are several. */
  target: string | null;
  /** What the target has written so far. */
  written: string;
  /** How it ended, where that is not by itself. */
  note: string;
  work: Work;
  onDraft: (draft: Draft) => void;
  onGenerate: (writing: Writing) => void;
}

const ROLES = ["system", "user", "assistant"];
const ENDINGS: Record<Ending, string> = {
  closed: "after the last turn",
  generation: "where the assistant would begin",
  open: "inside the last turn",
  thinking: "where the assistant would begin to think",
};

export function Transcript(props: Props) {
  const { draft, chats, onDraft, work } = props;
  const [writing, setWriting] = useState<Writing>({ tokens: 48, temperature: 0 });
  return (
    <section aria-labelledby="transcript-title" class="panel">
      <div class="row">
        <h2 id="transcript-title">Transcript</h2>
        <Load onDraft={(turns) => onDraft(asDraft(draft, turns, chats))} />
      </div>
      {chats && <Kind draft={draft} onDraft={onDraft} />}
      {draft.kind === "chat" ? <Turns draft={draft} onDraft={onDraft} /> : <Text draft={draft} onDraft={onDraft} />}
      <div class="row">
        <button type="button" class="main" disabled={work.progress !== null} onClick={() => props.onGenerate(writing)}>
          Generate
        </button>
        <span class="hint">{props.target === null ? "with the target" : `with ${props.target}`}</span>
        <NumberField
          label="Tokens"
          value={writing.tokens}
          min={1}
          max={props.mostTokens}
          onInput={(tokens) => setWriting({ ...writing, tokens })}
        />
        <NumberField
          label="Temperature"
          value={writing.temperature}
          min={0}
          max={5}
          step={0.1}
          onInput={(temperature) => setWriting({ ...writing, temperature })}
        />
        {draft.kind === "chat" && <EndingField draft={draft} onDraft={onDraft} />}
      </div>
      {work.progress !== null && props.written !== "" && <p class="writing">{props.written}</p>}
      <Running work={work} />
      {props.note !== "" && <p class="hint">{props.note}</p>}
      <Refused fault={work.fault} />
    </section>
  );
}

/** A loaded conversation in the form that the page is in; a model that has no chat template takes its text alone. */
function asDraft(draft: Draft, turns: Turn[], chats: boolean): Draft {
  if (chats) return { ...draft, kind: "chat", turns, ending: endingOf(turns) };
  return { ...draft, kind: "text", text: turns.map((turn) => turn.content).join("\n\n") };
}

interface Edit {
  draft: Draft;
  onDraft: (draft: Draft) => void;
}

function Kind({ draft, onDraft }: Edit) {
  const choice = (kind: Draft["kind"], label: string) => (
    <label>
      <input type="radio" name="kind" checked={draft.kind === kind} onChange={() => onDraft({ ...draft, kind })} /> {label}
    </label>
  );
  return (
    <fieldset class="row plain">
      <legend class="hidden">What is read</legend>
      {choice("chat", "Conversation")}
      {choice("text", "Plain text")}
    </fieldset>
  );
}

function Text({ draft, onDraft }: Edit) {
  return (
    <textarea
      aria-label="Text"
      rows={6}
      value={draft.text}
      onInput={(event) => onDraft({ ...draft, text: event.currentTarget.value })}
    />
  );
}

function Turns({ draft, onDraft }: Edit) {
  const set = (turns: Turn[]) => onDraft({ ...draft, turns });
  const replace = (i: number, turn: Turn) => set(draft.turns.map((other, j) => (i === j ? turn : other)));
  const add = () => {
    const role = draft.turns.at(-1)?.role === "user" ? "assistant" : "user";
    set([...draft.turns, { role, content: "" }]);
  };
  return (
    <div data-list>
      <ol class="turns">
        {draft.turns.map((turn, i) => (
          <li key={i} class={turn.role}>
            <div class="row">
              <select
                aria-label={`Role of turn ${i + 1}`}
                value={turn.role}
                onChange={(event) => replace(i, { ...turn, role: event.currentTarget.value })}
              >
                {[...new Set([...ROLES, turn.role])].map((role) => (
                  <option key={role}>{role}</option>
                ))}
              </select>
              <button
                type="button"
                aria-label={`Remove turn ${i + 1}`}
                onClick={(event) => {
                  toAdding(event.currentTarget);
                  set(draft.turns.filter((_, j) => i !== j));
                }}
              >
                Remove
              </button>
            </div>
            <textarea
              aria-label={`Turn ${i + 1}, ${turn.role}`}
              rows={Math.min(10, 1 + Math.ceil(turn.content.length / 60))}
              value={turn.content}
              onInput={(event) => replace(i, { ...turn, content: event.currentTarget.value })}
            />
          </li>
        ))}
      </ol>
      <button type="button" data-add onClick={add}>
        Add a turn
      </button>
    </div>
  );
}

function EndingField({ draft, onDraft }: Edit) {
  return (
    <label>
      Ends{" "}
      <select value={draft.ending} onChange={(event) => onDraft({ ...draft, ending: event.currentTarget.value as Ending })}>
        {Object.entries(ENDINGS).map(([ending, words]) => (
          <option key={ending} value={ending}>
            {words}
          </option>
        ))}
      </select>
    </label>
  );
}

/** Conversations that come with the page, or stand in a JSONL file. */
function Load({ onDraft }: { onDraft: (turns: Turn[]) => void }) {
  const [file, setFile] = useState<Turn[][]>([]);
  const [line, setLine] = useState(0);
  const [fault, setFault] = useState<Fault | null>(null);
  const read = async (input: HTMLInputElement) => {
    const chosen = input.files?.[0];
    if (chosen === undefined) return;
    try {
      const found = conversations(await chosen.text());
      if (found.length === 0) throw new Error("it is empty");
      setFile(found);
      setLine(0);
      setFault(null);
      onDraft(found[0]!);
    } catch (error) {
      setFault({ ...told(error), what: `${chosen.name} cannot be read.`, instead: 'write a line {"messages": [...]} each' });
    }
    input.value = "";
  };
  return (
    <>
      <select
        aria-label="Load an example"
        value=""
        onChange={(event) => {
          onDraft(EXAMPLES[Number(event.currentTarget.value)]!.turns);
          event.currentTarget.value = "";
        }}
      >
        <option value="">Examples</option>
        {EXAMPLES.map((example, i) => (
          <option key={example.name} value={i}>
            {example.name}
          </option>
        ))}
      </select>
      <label class="file">
        Open JSONL
        <input type="file" accept=".jsonl,.json,.txt,application/json" onChange={(event) => void read(event.currentTarget)} />
      </label>
      {file.length > 1 && (
        <label>
          Line{" "}
          <select
            value={`${line}`}
            onChange={(event) => {
              const chosen = Number(event.currentTarget.value);
              setLine(chosen);
              onDraft(file[chosen]!);
            }}
          >
            {file.map((_, i) => (
              <option key={i} value={`${i}`}>
                {i + 1} of {file.length}
              </option>
            ))}
          </select>
        </label>
      )}
      <Refused fault={fault} />
    </>
  );
}
