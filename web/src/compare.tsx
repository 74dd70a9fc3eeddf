/** One question, several readings side by side: two oracles, or a base, its fine-tune, and the difference. */
import { QuestionForm } from "./ask";
import { fromOf, type Question } from "./asking";
import type { Outcome } from "./doing";
import type { Column } from "./kept";
import { Refused, Running, toAdding } from "./parts";
import { Result } from "./result";
import type { Info, Reads, Tokens } from "./types";
import { firstColumns, layersFor } from "./view";
import type { Work } from "./work";

interface Props {
  columns: readonly Column[];
  layers: readonly number[];
  /** What stands on the page now. */
  tokens: Tokens | null;
  question: Question;
  info: Info;
  ready: boolean;
  found: readonly Outcome[];
  work: Work;
  setColumns: (columns: Column[]) => void;
  onQuestion: (question: Question) => void;
  run: () => void;
}

const MOST = 4;

export function Compare(props: Props) {
  const { columns, info, found, setColumns: onColumns } = props;
  if (firstColumns(info).length < 2) {
    return (
      <p class="hint">
        There is nothing to compare here: it takes two oracles, or a fine-tune beside the base. A fine-tune comes in with <code>augury serve --target FOLDER</code>,
        a second oracle with <code>--oracle FOLDER</code>.
      </p>
    );
  }
  const set = (i: number, column: Column) => onColumns(columns.map((other, j) => (i === j ? column : other)));
  return (
    <>
      <QuestionForm {...props} id="compare" label="Compare" onAsk={props.run} />
      <Running work={props.work} />
      <Refused fault={props.work.fault} />
      <div class="columns">
        {columns.map((column, i) => (
          <section key={i} aria-label={`Column ${i + 1}: ${named(column, info)}`}>
            <div class="row">
              <ReadsField label={`Read in column ${i + 1}`} info={info} reads={column.reads} onReads={(reads) => set(i, { ...column, reads })} />
              <OracleField label={`Oracle of column ${i + 1}`} info={info} oracle={column.oracle} onOracle={(oracle) => set(i, { ...column, oracle })} />
              <small>layers {layersFor(info, column.oracle, props.layers).join(", ")}</small>
              {columns.length > 2 && (
                <button
                  type="button"
                  aria-label={`Remove column ${i + 1}`}
                  onClick={(event) => {
                    toAdding(event.currentTarget);
                    onColumns(columns.filter((_, j) => i !== j));
                  }}
                >
                  Remove
                </button>
              )}
            </div>
            <Refused fault={found[i]?.fault ?? null} />
            {found[i]?.live ? <Result live={found[i].live} folded now={props.tokens} /> : <p class="hint">Not asked yet.</p>}
          </section>
        ))}
      </div>
      {columns.length < MOST && (
        <button type="button" data-add onClick={() => onColumns([...columns, { ...columns[0]! }])}>
          Add a column
        </button>
      )}
    </>
  );
}

function named({ oracle, reads }: Column, info: Info): string {
  return `${oracle}, ${fromOf({ reads, base: info.targets[0]!.name })}`;
}

/** Which target is read, or which one's difference from the base. */
export function ReadsField(props: { label: string; info: Info; reads: Reads; onReads: (reads: Reads) => void }) {
  const [base, ...tuned] = props.info.targets;
  const choices: Reads[] = [
    ...[base!, ...tuned].map(({ name }) => ({ target: name, difference: false })),
    ...tuned.map(({ name }) => ({ target: name, difference: true })),
  ];
  const chosen = choices.findIndex((reads) => reads.target === props.reads.target && reads.difference === props.reads.difference);
  return (
    <select aria-label={props.label} value={`${chosen}`} onChange={(event) => props.onReads(choices[Number(event.currentTarget.value)]!)}>
      {choices.map((reads, i) => (
        <option key={i} value={`${i}`}>
          {fromOf({ reads, base: base!.name })}
        </option>
      ))}
    </select>
  );
}

export function OracleField(props: { label: string; info: Info; oracle: string; onOracle: (oracle: string) => void }) {
  return (
    <select aria-label={props.label} value={props.oracle} onChange={(event) => props.onOracle(event.currentTarget.value)}>
      {props.info.oracles.map(({ name }) => (
        <option key={name}>{name}</option>
      ))}
    </select>
  );
}
