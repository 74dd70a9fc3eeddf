/** What the page does when it is told to: generate, ask, scan, compare. */
import { useRef, useState } from "preact/hooks";
import { ask, fromOf, type Live, type Question, type Reading, scan } from "./asking";
import type { Service } from "./http";
import type { Column, Result, View } from "./kept";
import type { Readings } from "./readings";
import { everything } from "./selection";
import { beginning } from "./tokens";
import type { Writing } from "./transcript";
import type { Generated, Info, Scan, Tokens, WrittenEvent } from "./types";
import { layersFor } from "./view";
import { type Fault, told, useWork } from "./work";

/** What the panels share. */
export interface Page {
  service: Service;
  info: Info;
  readings: Readings;
  view: View;
  set: (part: Partial<View>) => void;
  tokens: Tokens | null;
  reading: () => Reading;
  question: Question;
  /** Results, and what each was read from. */
  keep: (results: Result[], from: string[], ended: boolean) => void;
}

/** Let the target go on; what it wrote becomes the transcript, with the very tokens that were sampled. */
export function useGenerate({ service, view, set }: Page, take: (tokens: Tokens) => View["exact"]) {
  const work = useWork();
  const [written, setWritten] = useState("");
  const [note, setNote] = useState("");
  const replaced = useRef(false);
  const run = ({ tokens: most, temperature }: Writing) =>
    work.start(async (signal, say) => {
      replaced.current = false;
      setWritten("");
      setNote("");
      let part = "";
      const { draft, context } = beginning(view.draft);
      if (context === null) throw new Error("there is nothing to go on from");
      const body = { context, max_new_tokens: most, temperature, target: view.reads.target, seed: randomSeed() };
      try {
        for await (const { name, data } of service.stream("v1/generate", body, signal)) {
          if (name === "written") {
            const { text, tokens } = data as WrittenEvent;
            say(`${tokens} of ${most} tokens`, tokens / most);
            setWritten((part = text));
          } else if (name === "generated") {
            const found = data as Generated;
            const { start, stop } = found.spans.at(-1)!;
            set({ exact: take(found), draft: continued(draft, found.text) });
            if (stop - start === most) setNote(`It was cut at ${most} tokens.`);
          }
        }
      } catch (error) {
        // What was written until then stays, as text: which tokens it was nobody has told.
        if (part !== "" && !replaced.current) set({ exact: null, draft: continued(draft, part) });
        throw error;
      }
    });
  /** Stop, since the transcript has become another: what was being written is no part of it. */
  const drop = () => {
    replaced.current = true;
    work.stop();
  };
  return { work, written, note, run, drop };
}

function continued(draft: View["draft"], text: string): View["draft"] {
  if (draft.kind === "text") return { ...draft, text: draft.text + text };
  return { ...draft, turns: [...draft.turns, { role: "assistant", content: text }], ending: "closed" };
}

function randomSeed(): number {
  return Math.floor(Math.random() * 2 ** 31);
}

/** Ask, and keep what came of it, also where it was stopped before its controls were there. */
async function asked(page: Page, reading: Reading, signal: AbortSignal, say: (text: string) => void, tell: (live: Live) => void) {
  let last: Live | null = null;
  let ended = true;
  try {
    await ask(page.readings, reading, page.question, signal, say, (live) => tell((last = live)));
    ended = false;
  } catch (error) {
    if (last !== null) tell({ ...(last as Live), whole: true, ended: true });
    throw error;
  } finally {
    const { result } = (last as Live | null) ?? { result: null };
    if (result !== null) page.keep([result], [fromOf(reading)], ended);
  }
}

export function useAsk(page: Page) {
  const work = useWork();
  const [live, setLive] = useState<Live[]>([]);
  const run = () => {
    setLive([]);
    work.start((signal, say) => asked(page, page.reading(), signal, say, (state) => setLive([state])));
  };
  return { work, live, setLive, run };
}

export function useScan({ readings, reading, tokens, view, keep }: Page) {
  const work = useWork();
  const [found, setFound] = useState<Scan[]>([]);
  const [shown, setShown] = useState(0);
  const show = (scans: Scan[]) => {
    setFound(scans);
    setShown(0);
  };
  const run = () =>
    work.start(async (signal, say) => {
      const questions = view.scans.filter((question) => question.trim() !== "");
      const where = view.everywhere ? everything([{ start: 0, stop: tokens!.token_ids.length }]) : view.selected;
      const about = { ...reading(), selected: where };
      const scans: Scan[] = [];
      let ended = true;
      show([]);
      try {
        await scan(readings, about, questions, view.window, signal, say, (number, one) => {
          scans[number] = one;
          setFound([...scans]);
        });
        ended = false;
      } finally {
        if (scans.length > 0) keep(scans, scans.map(() => fromOf(about)), ended);
      }
    });
  /** Nothing of what was found holds any more. */
  const clear = () => {
    work.stop();
    show([]);
  };
  return { work, found, shown, setShown, show, clear, run };
}

/** What came of one column: a column that is refused does not take the others with it. */
export interface Outcome {
  live: Live | null;
  fault: Fault | null;
}

const NOTHING: Outcome = { live: null, fault: null };

export function useCompare(page: Page) {
  const { columns } = page.view;
  const work = useWork();
  const [found, setFound] = useState<Outcome[]>([]);
  const askedOf = useRef<readonly Column[]>(columns);
  /** Outcomes go with their columns; of a column that was changed nothing is known. */
  const setColumns = (next: Column[]) => {
    work.stop();
    askedOf.current = next;
    setFound(next.map((column) => found[columns.indexOf(column)] ?? NOTHING));
    page.set({ columns: next });
  };
  const run = () =>
    work.start(async (signal, say) => {
      const outcomes: Outcome[] = columns.map(() => NOTHING);
      const put = (i: number, outcome: Outcome) => {
        outcomes[i] = outcome;
        if (askedOf.current === columns) setFound([...outcomes]);
      };
      const one = async ({ oracle, reads }: Column, i: number) => {
        const layers = layersFor(page.info, oracle, page.view.layers);
        try {
          await asked(page, { ...page.reading(), oracle, reads, layers }, signal, say, (live) => put(i, { live, fault: null }));
        } catch (error) {
          if (signal.aborted) throw error;
          put(i, { live: outcomes[i]!.live, fault: told(error) });
        }
      };
      askedOf.current = columns;
      setFound(outcomes);
      await Promise.all(columns.map(one));
    });
  return { work, columns, setColumns, found, run };
}
