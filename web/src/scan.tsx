/** Yes/no questions at every token: colours on the chips, and lines over position. */
import { useMemo, useState } from "preact/hooks";
import { LINES } from "./colours";
import { YES_NO_QUESTIONS } from "./examples";
import { NumberField, QuestionField, Refused, Running, toAdding } from "./parts";
import { Plot } from "./plot";
import { visible } from "./selection";
import { useShort } from "./short";
import type { Scan as Found } from "./types";
import type { Work } from "./work";
import { signed } from "./words";

interface Props {
  questions: string[];
  window: number;
  everywhere: boolean;
  ready: boolean;
  found: readonly Found[];
  shown: number;
  cursor: number;
  work: Work;
  run: () => void;
  onWindow: (window: number) => void;
  onEverywhere: (everywhere: boolean) => void;
  setShown: (number: number) => void;
  onQuestions: (questions: string[]) => void;
  onCursor: (position: number) => void;
}

const MOST = LINES.length;

export function Scan(props: Props) {
  const { questions, found, work, onQuestions } = props;
  const set = (i: number, text: string) => onQuestions(questions.map((other, j) => (i === j ? text : other)));
  const submit = (event: Event) => {
    event.preventDefault();
    if (questions.some((question) => question.trim() !== "")) props.run();
  };
  return (
    <>
      <form onSubmit={submit} data-list>
        {questions.map((question, i) => (
          <QuestionField
            key={i}
            id={`scan-${i}`}
            label={questions.length > 1 ? `Yes or no question ${i + 1}` : "Yes or no question"}
            value={question}
            presets={YES_NO_QUESTIONS}
            onInput={(text) => set(i, text)}
          >
            {questions.length > 1 && (
              <button
                type="button"
                aria-label={`Remove question ${i + 1}`}
                onClick={(event) => {
                  toAdding(event.currentTarget);
                  onQuestions(questions.filter((_, j) => i !== j));
                }}
              >
                Remove
              </button>
            )}
          </QuestionField>
        ))}
        <div class="row">
          {questions.length < MOST && (
            <button type="button" data-add onClick={() => onQuestions([...questions, ""])}>
              Add a question
            </button>
          )}
          <label>
            Over{" "}
            <select
              value={props.everywhere ? "all" : "selected"}
              onChange={(event) => props.onEverywhere(event.currentTarget.value === "all")}
            >
              <option value="all">every token</option>
              <option value="selected">the selected tokens</option>
            </select>
          </label>
          <NumberField label="Window" value={props.window} min={1} max={64} onInput={props.onWindow} />
          <button type="submit" class="main" disabled={!props.ready || work.progress !== null}>
            Scan
          </button>
        </div>
      </form>
      <Running work={work} />
      <Refused fault={work.fault} />
      {found.length > 0 && <Scans {...props} />}
    </>
  );
}

function Scans({ found, shown, cursor, setShown, onCursor }: Props) {
  const short = useShort();
  const [open, setOpen] = useState(false);
  const table = useMemo(() => <FiguresTable found={found} />, [found]); // thousands of rows, which no pointer changes
  return (
    <section class="result" aria-label="Scans">
      <fieldset class="legend">
        <legend>Colour the tokens by</legend>
        {found.map((scan, i) => (
          <label key={i}>
            <input type="radio" name="shown" checked={shown === i} onChange={() => setShown(i)} />
            <svg width="28" height="8" aria-hidden="true">
              <line class={LINES[i]!.class} stroke-dasharray={LINES[i]!.dash} x1="0" x2="28" y1="4" y2="4" />
            </svg>
            {short(scan.question)}
          </label>
        ))}
      </fieldset>
      <Plot scans={found} cursor={cursor} onCursor={onCursor} />
      <Figures found={found} cursor={cursor} />
      {[...new Set(found.flatMap((scan) => scan.warnings))].map((warning) => (
        <p key={warning} class="warning">
          {warning}
        </p>
      ))}
      <p class="hint">
        {found.some((scan) => scan.donor_median === null)
          ? "Each value is the margin between Yes and No as it is, since no other text is as long: compare tokens with each other; zero means nothing. "
          : "Each value is the margin between Yes and No minus the median of the same question on other texts' activations: above zero is more of a yes than there. "}
        Green is above zero, purple below.
      </p>
      <p class="hint">
        Oracle {found[0]!.oracle}, layers {found[0]!.layers.join(", ")}, window {found[0]!.window}
        {found.flatMap((scan) => scan.notes).map((note) => `; ${note}`)}
      </p>
      <details onToggle={(event) => setOpen(event.currentTarget.open)}>
        <summary>The figures as a table</summary>
        {open && table}
      </details>
    </section>
  );
}

/** What each question has at one token. */
function Figures({ found, cursor }: { found: readonly Found[]; cursor: number }) {
  const short = useShort();
  const told = found.flatMap((scan) => {
    const at = scan.positions.indexOf(cursor);
    if (at < 0) return [];
    return [{ question: scan.question, token: scan.tokens[at]!, value: scan.values[at]!, margin: scan.margins[at]!, mass: scan.masses[at]! }];
  });
  if (told.length === 0) return <p class="figures">Point at a token, here or above, for its figures.</p>;
  return (
    <dl class="figures">
      <dt>
        token {cursor} <span class="token">{visible(told[0]!.token)}</span>
      </dt>
      {told.map(({ question, value, margin, mass }, i) => (
        <dd key={i}>
          {short(question)} <strong>{signed(value)}</strong> (margin {signed(margin)}, mass {mass.toFixed(2)})
        </dd>
      ))}
    </dl>
  );
}

function FiguresTable({ found }: { found: readonly Found[] }) {
  const short = useShort();
  return (
    <div class="wide tall" tabIndex={0} role="region" aria-label="Figures by token">
      <table>
        <thead>
          <tr>
            <th scope="col">token</th>
            <th scope="col">text</th>
            {found.map((scan, i) => (
              <th key={i} scope="col">
                {short(scan.question)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {found[0]!.positions.map((at, i) => (
            <tr key={at}>
              <th scope="row">{at}</th>
              <td>{visible(found[0]!.tokens[i] ?? "")}</td>
              {found.map((scan, j) => (
                <td key={j}>{signed(scan.values[i] ?? NaN)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
