/** Small things that several panels show. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Fault, Work } from "./work";
import type { Mark } from "./words";

export function Refused({ fault }: { fault: Fault | null }) {
  if (fault === null) return null;
  return (
    <div class="fault" role="alert">
      <strong>{fault.what}</strong> <span>{sentence(fault.why)}</span> <span>To do: {sentence(fault.instead)}</span>
    </div>
  );
}

function sentence(text: string): string {
  const trimmed = text.trim();
  return trimmed.slice(0, 1).toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
}

/** How far something is, and how to stop it. Read out are its beginning and its end, and nothing between. */
export function Running({ work }: { work: Work }) {
  const { progress, ended } = work;
  const box = useRef<HTMLDivElement>(null);
  const left = useRef(false);
  useEffect(() => {
    // The button that was pressed is gone: whoever uses a keyboard goes on where the work was started.
    if (progress === null && left.current) box.current?.parentElement?.querySelector<HTMLElement>("button.main")?.focus();
    left.current = false;
  }, [progress === null]);
  return (
    <div ref={box}>
      <span class="hidden" role="status">
        {progress !== null ? "working" : ended}
      </span>
      {progress && (
        <div class="running" onFocusIn={() => (left.current = true)} onFocusOut={(event) => (left.current = event.relatedTarget === null)}>
          <progress aria-label="Progress" {...(progress.share === null ? {} : { value: progress.share })} />
          <span>{progress.text}</span>
          <button type="button" onClick={work.stop}>
            Stop
          </button>
        </div>
      )}
    </div>
  );
}

/** Before a part of a list goes, with the button that takes it away: the keyboard's place is where parts are added. */
export function toAdding(button: HTMLElement): void {
  button.closest("[data-list]")?.querySelector<HTMLElement>("[data-add]")?.focus();
}

export function Marks({ marks }: { marks: Mark[] }) {
  if (marks.length === 0) return null;
  return (
    <ul class="marks">
      {marks.map((mark) => (
        <li key={mark.text} class={mark.tone}>
          <span aria-hidden="true">{{ good: "✓", bad: "✗", open: "·" }[mark.tone]}</span> {mark.text}
        </li>
      ))}
    </ul>
  );
}

/** A question's field, with questions that are often asked beside it. */
export function QuestionField(props: {
  id: string;
  label: string;
  value: string;
  presets: readonly string[];
  onInput: (value: string) => void;
  children?: ComponentChildren;
}) {
  return (
    <div class="question">
      <label for={props.id}>{props.label}</label>
      <input
        id={props.id}
        type="text"
        value={props.value}
        list={`${props.id}-presets`}
        maxLength={4000}
        autocomplete="off"
        onInput={(event) => props.onInput(event.currentTarget.value)}
      />
      <select
        aria-label={`${props.label}: questions often asked`}
        value=""
        onChange={(event) => {
          props.onInput(event.currentTarget.value);
          event.currentTarget.value = "";
        }}
      >
        <option value="">Often asked</option>
        {props.presets.map((preset) => (
          <option key={preset} value={preset}>
            {preset}
          </option>
        ))}
      </select>
      {props.children}
    </div>
  );
}

export function NumberField(props: {
  label: string;
  value: number;
  min: number;
  max: number;
  step?: number;
  disabled?: boolean;
  onInput: (value: number) => void;
}) {
  return (
    <label class="number">
      {props.label}{" "}
      <input
        type="number"
        value={props.value}
        min={props.min}
        max={props.max}
        step={props.step ?? 1}
        disabled={props.disabled ?? false}
        onChange={(event) => {
          const { valueAsNumber } = event.currentTarget;
          const bounded = Math.min(props.max, Math.max(props.min, Number.isNaN(valueAsNumber) ? props.min : valueAsNumber));
          event.currentTarget.value = `${bounded}`;
          props.onInput(bounded);
        }}
      />
    </label>
  );
}
