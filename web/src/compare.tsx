/** One question, several readings side by side: two oracles, or a base, its fine-tune, and the difference. */
import { QuestionForm } from "./ask";
import type { Live, Question } from "./asking";
import { Refused, Running } from "./parts";
import { Result } from "./result";
import type { Info, Reads } from "./types";
import type { Fault, Work } from "./work";

export interface Column {
  oracle: string;
  reads: Reads;
}

/** What came of one column: a column that is refused does not take the others with it. */
export interface Outcome {
  live: Live | null;
  fault: Fault | null;
}

interface Props {
  columns: readonly Column[];
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

/** The first comparison that a service makes possible; fewer than two columns: it makes none. */
export function firstColumns({ oracles, targets }: Info): Column[] {
  const [base, ...tuned] = targets.map((target) => target.name);
  const [first, ...others] = oracles.map((oracle) => oracle.name);
  if (first === undefined || base === undefined) return [];
  const plain = { oracle: first, reads: { target: base, difference: false } };
  if (tuned[0] !== undefined) {
    const column = (difference: boolean) => ({ oracle: first, reads: { target: tuned[0]!, difference } });
    return [plain, column(false), column(true)];
  }
  return [plain, ...others.slice(0, 1).map((oracle) => ({ ...plain, oracle }))];
}

export function Compare(props: Props) {
  const { columns, info, found, setColumns: onColumns } = props;
  if (firstColumns(info).length < 2) {
    return (
      <p class="hint">
        There is one oracle and one target here, so nothing to compare. A fine-tune comes in with <code>augury serve --target FOLDER</code>,
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
              {columns.length > 2 && (
                <button type="button" aria-label={`Remove column ${i + 1}`} onClick={() => onColumns(columns.filter((_, j) => i !== j))}>
                  Remove
                </button>
              )}
            </div>
            <Refused fault={found[i]?.fault ?? null} />
            {found[i]?.live ? <Result live={found[i].live} folded /> : <p class="hint">Not asked yet.</p>}
          </section>
        ))}
      </div>
      {columns.length < MOST && (
        <button type="button" onClick={() => onColumns([...columns, columns[0]!])}>
          Add a column
        </button>
      )}
    </>
  );
}

function named({ oracle, reads }: Column, info: Info): string {
  return `${oracle}, ${readsName(reads, info)}`;
}

export function readsName(reads: Reads, info: Info): string {
  return reads.difference ? `${reads.target} minus ${info.targets[0]!.name}` : reads.target;
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
          {readsName(reads, props.info)}
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
