/** One question about the selected tokens, its answer beside its controls. */
import { useState } from "preact/hooks";
import type { Live, Question } from "./asking";
import { OPEN_QUESTIONS, YES_NO_QUESTIONS } from "./examples";
import { NumberField, QuestionField, Refused, Running } from "./parts";
import { Result } from "./result";
import type { Info, Tokens } from "./types";
import type { Work } from "./work";

interface Props {
  question: Question;
  info: Info;
  ready: boolean;
  live: readonly Live[];
  /** What stands on the page now. */
  tokens: Tokens | null;
  work: Work;
  onQuestion: (question: Question) => void;
  onAsk: () => void;
}

export function Ask(props: Props) {
  return (
    <>
      <QuestionForm {...props} id="ask" label="Ask" />
      <Running work={props.work} />
      <Refused fault={props.work.fault} />
      {props.live.map((live, i) => (
        <Result key={i} live={live} now={props.tokens} />
      ))}
    </>
  );
}

interface Form extends Pick<Props, "question" | "info" | "ready" | "work" | "onQuestion" | "onAsk"> {
  id: string;
  label: string;
}

/** What is asked, and how. */
export function QuestionForm({ id, label, question, info, ready, work, onQuestion, onAsk }: Form) {
  const [empty, setEmpty] = useState(false);
  const submit = (event: Event) => {
    event.preventDefault();
    setEmpty(question.text.trim() === "");
    if (question.text.trim() !== "") onAsk();
  };
  return (
    <form onSubmit={submit}>
      <QuestionField
        id={id}
        label="Question"
        value={question.text}
        presets={question.yesNo ? YES_NO_QUESTIONS : OPEN_QUESTIONS}
        onInput={(text) => onQuestion({ ...question, text })}
      />
      {empty && question.text.trim() === "" && <p class="warning">Write a question, or take one that is often asked.</p>}
      <div class="row">
        <Kind id={id} question={question} onQuestion={onQuestion} />
        {!question.yesNo && (
          <>
            <NumberField
              label="Samples"
              value={question.samples}
              min={0}
              max={info.limits.samples}
              onInput={(samples) => onQuestion({ ...question, samples })}
            />
            <NumberField
              label="Temperature"
              value={question.temperature}
              min={0.1}
              max={5}
              step={0.1}
              disabled={question.samples === 0}
              onInput={(temperature) => onQuestion({ ...question, temperature })}
            />
          </>
        )}
        <label>
          <input
            type="checkbox"
            checked={question.controls}
            onChange={(event) => onQuestion({ ...question, controls: event.currentTarget.checked })}
          />{" "}
          Controls
        </label>
        <button type="submit" class="main" disabled={!ready || work.progress !== null}>
          {label}
        </button>
      </div>
    </form>
  );
}

function Kind({ id, question, onQuestion }: Pick<Form, "id" | "question" | "onQuestion">) {
  const choice = (yesNo: boolean, label: string) => (
    <label>
      <input type="radio" name={`${id}-kind`} checked={question.yesNo === yesNo} onChange={() => onQuestion({ ...question, yesNo })} />{" "}
      {label}
    </label>
  );
  return (
    <fieldset class="row plain">
      <legend class="hidden">Kind of question</legend>
      {choice(false, "Open")}
      {choice(true, "Yes or no")}
    </fieldset>
  );
}
