/** An answer beside its controls. */
import type { Live } from "./asking";
import { answerRows, scoreRows } from "./keep";
import { Marks } from "./parts";
import { useShort } from "./short";
import type { Answer, Control, Score } from "./types";
import { answerMarks, MEANINGS, percent, scoreMarks } from "./words";

export function Result({ live, folded = false }: { live: Live; folded?: boolean }) {
  const { result } = live;
  const question = useShort()(live.question);
  return (
    <article class="result" aria-busy={!live.whole} aria-label={`Answer to: ${question}`}>
      <p class="asked">{question}</p>
      {result === null ? <Writing texts={live.texts} /> : <Told result={result} whole={live.whole} folded={folded} />}
    </article>
  );
}

function Writing({ texts }: { texts: readonly string[] }) {
  if (texts.length === 0) return <p class="said pending">...</p>;
  return texts.length === 1 ? <p class="said pending">{texts[0]}</p> : <Samples texts={texts} />;
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

function Told({ result, whole, folded }: { result: Answer | Score; whole: boolean; folded: boolean }) {
  const said = result.kind === "answer" ? result.text : result.choice;
  const marks = result.kind === "answer" ? answerMarks(result) : scoreMarks(result);
  const controls = <Controls rows={result.kind === "answer" ? answerRows(result) : scoreRows(result)} />;
  return (
    <>
      <p class="said">{said || "(nothing)"}</p>
      {result.read_text !== null && <p class="hint read">read at: {result.read_text}</p>}
      {result.kind === "answer" && <Agreement answer={result} />}
      <div aria-live="polite">{whole && <Marks marks={marks} />}</div>
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
              {cells.map((cell, j) => (
                <td key={j}>{cell}</td>
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
          {result.notes.map((note) => (
            <>
              <dt>note</dt>
              <dd>{note}</dd>
            </>
          ))}
        </dl>
        <p class="hint">
          <em>Same as real</em>: how many of a control's answers are the real one. A text reader that is a small model answers
          badly, so to differ from it proves little.
        </p>
      </details>
    </>
  );
}
