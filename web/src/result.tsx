/** An answer beside its controls. */
import type { Live } from "./asking";
import { Marks } from "./parts";
import { rowsOf } from "./rows";
import { useShort } from "./short";
import type { Answer, Control, Score, Tokens } from "./types";
import { answerMarks, MEANINGS, percent, scoreMarks } from "./words";

interface Props {
  live: Live;
  /** What stands on the page now. */
  now: Tokens | null;
  folded?: boolean;
}

export function Result({ live, now, folded = false }: Props) {
  const { result } = live;
  const earlier = live.tokens !== null && live.tokens !== now;
  const question = useShort()(live.question);
  return (
    <article class="result" aria-busy={!live.whole} aria-label={`Answer to: ${question}`}>
      <p class="asked">{question}</p>
      {earlier && <p class="warning">This is about an earlier transcript.</p>}
      {result === null && <Writing texts={live.texts} ended={live.ended} />}
      <div aria-live="polite">{result !== null && <Said live={live} result={result} />}</div>
      {result !== null && <Told result={result} whole={live.whole} folded={folded} />}
      {live.ended && <p class="warning">It ended before all of its controls were run.</p>}
    </article>
  );
}

function Writing({ texts, ended }: { texts: readonly string[]; ended: boolean }) {
  if (texts.length > 1) return <Samples texts={texts} />;
  return <p class={ended ? "said" : "said pending"}>{texts[0] ?? "..."}</p>;
}

function Samples({ texts }: { texts: readonly string[] }) {
  return (
    <ol class="samples" aria-label="Samples">
      {texts.map((text, i) => (
        <li key={i}>{text || "..."}</li>
      ))}
    </ol>
  );
}

/** What is read out: the answer, and, once all controls are there, what they say of it. */
function Said({ live, result }: { live: Live; result: Answer | Score }) {
  const said = result.kind === "answer" ? result.text : result.choice;
  const marks = result.kind === "answer" ? answerMarks(result) : scoreMarks(result);
  return (
    <>
      <p class="said">{said || "(nothing)"}</p>
      <p class="hint read">
        read from {live.from}
        {result.read_text !== null && `: ${result.read_text}`}
      </p>
      {live.whole && <Marks marks={marks} />}
    </>
  );
}

function Told({ result, whole, folded }: { result: Answer | Score; whole: boolean; folded: boolean }) {
  const controls = <Controls rows={rowsOf(result)} />;
  return (
    <>
      {result.kind === "answer" && <Agreement answer={result} />}
      {folded ? (
        <details>
          <summary>Its controls</summary>
          {controls}
        </details>
      ) : (
        controls
      )}
      {!whole && <p class="hint">The controls are being asked.</p>}
      <Remarks result={result} />
    </>
  );
}

function Agreement({ answer }: { answer: Answer }) {
  if (answer.samples.length < 2) return null;
  const groups = answer.groups.slice(0, 5).map((group) => `${group.count} × ${group.text}`);
  const agreed = answer.agreement === null ? "" : `${percent(answer.agreement)} of `;
  return (
    <p class="hint">
      {agreed}
      {answer.samples.length} samples: {groups.join("; ")}
      {answer.groups.length > 5 && "; ..."}
    </p>
  );
}

function Controls({ rows: [head, ...rows] }: { rows: string[][] }) {
  return (
    <div class="wide" tabIndex={0} role="region" aria-label="The answer beside its controls">
      <table>
        <thead>
          <tr>
            {head!.map((cell) => (
              <th key={cell} scope="col">
                {cell}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(([name, ...cells], i) => (
            <tr key={name} class={i === 0 ? "real" : ""}>
              <th scope="row">
                {name}
                <small>{MEANINGS[i === 0 ? "real" : (name as Control)]}</small>
              </th>
              {head!.slice(1).map((_, j) => (
                <td key={j}>{cells[j] ?? ""}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Remarks({ result }: { result: Answer | Score }) {
  return (
    <>
      {result.warnings.map((warning) => (
        <p key={warning} class="warning">
          {warning}
        </p>
      ))}
      <details>
        <summary>How this was asked</summary>
        <dl>
          <dt>read</dt>
          <dd>
            {result.read_text ?? "no text"} ({result.positions.length} positions, layers {result.layers.join(", ")})
          </dd>
          <dt>oracle</dt>
          <dd>
            {result.oracle}, coefficient {result.coefficient} (trained at {result.trained_coefficient})
          </dd>
          <dt>target</dt>
          <dd>
            {result.target.model?.name ?? "unknown"}, {result.target.dtype}, {result.target.kind}, captured {result.target.captured}
          </dd>
          {result.notes.length > 0 && <dt>notes</dt>}
          {result.notes.map((note) => (
            <dd key={note}>{note}</dd>
          ))}
        </dl>
        <p class="hint">
          <em>Same as real</em>: how many of a control's answers are the real one, word for word. A text reader that is a small model answers
          badly, so to differ from it proves little.
        </p>
      </details>
    </>
  );
}
