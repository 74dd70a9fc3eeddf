/** What the page does when it is told to: generate, ask, scan, compare. */
import { useState } from "preact/hooks";
import { ask, type Live, type Question, type Reading, scan } from "./asking";
import { type Column, firstColumns, type Outcome } from "./compare";
import type { Service } from "./http";
import type { View } from "./keep";
import type { Readings } from "./readings";
import { everything } from "./selection";
import { beginning } from "./tokens";
import type { Writing } from "./transcript";
import type { Answer, Generated, Info, Scan, Score, Tokens, WrittenEvent } from "./types";
import { told, useWork } from "./work";

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
  keep: (results: (Answer | Score | Scan)[]) => void;
}

/** Let the target go on; what it wrote becomes the transcript, with the very tokens that were sampled. */
export function useGenerate({ service, view, set }: Page, take: (tokens: Tokens) => View["exact"]) {
  const work = useWork();
  const [written, setWritten] = useState("");
  const run = ({ tokens: most, temperature }: Writing) =>
    work.start(async (signal, say) => {
      setWritten("");
      const { draft, context } = beginning(view.draft);
      if (context === null) throw new Error("there is nothing to go on from");
      const body = { context, max_new_tokens: most, temperature, target: view.reads.target, seed: randomSeed() };
      for await (const { name, data } of service.stream("v1/generate", body, signal)) {
        if (name === "written") {
          const { text, tokens } = data as WrittenEvent;
          say(`${tokens} of ${most} tokens`, tokens / most);
          setWritten(text);
        } else if (name === "generated") {
          const found = data as Generated;
          set({ exact: take(found), draft: continued(draft, found.text) });
        }
      }
    });
  return { work, written, run };
}

function continued(draft: View["draft"], text: string): View["draft"] {
  if (draft.kind === "text") return { ...draft, text: draft.text + text };
  return { ...draft, turns: [...draft.turns, { role: "assistant", content: text }], ending: "closed" };
}

function randomSeed(): number {
  return Math.floor(Math.random() * 2 ** 31);
}

export function useAsk({ readings, reading, question, keep }: Page) {
  const work = useWork();
  const [live, setLive] = useState<Live[]>([]);
  const run = () =>
    work.start(async (signal, say) => {
      keep([await ask(readings, reading(), question, signal, say, (state) => setLive([state]))]);
    });
  return { work, live, setLive, run };
}

export function useScan({ readings, reading, tokens, view, keep }: Page) {
  const work = useWork();
  const [window, setWindow] = useState(1);
  const [everywhere, setEverywhere] = useState(true);
  const [found, setFound] = useState<Scan[]>([]);
  const [shown, setShown] = useState(0);
  const run = () =>
    work.start(async (signal, say) => {
      const questions = view.scans.filter((question) => question.trim() !== "");
      const where = everywhere ? everything([{ start: 0, stop: tokens!.token_ids.length }]) : view.selected;
      const scans: Scan[] = [];
      setFound([]);
      setShown(0);
      await scan(readings, { ...reading(), selected: where }, questions, window, signal, say, (number, one) => {
        scans[number] = one;
        setFound([...scans]);
      });
      keep(scans);
    });
  return { work, window, setWindow, everywhere, setEverywhere, found, setFound, shown, setShown, run };
}

export function useCompare({ readings, reading, question, info, keep }: Page) {
  const work = useWork();
  const [columns, setColumns] = useState<Column[]>(() => firstColumns(info));
  const [found, setFound] = useState<Outcome[]>([]);
  const run = () =>
    work.start(async (signal, say) => {
      const outcomes: Outcome[] = columns.map(() => ({ live: null, fault: null }));
      const put = (i: number, outcome: Outcome) => {
        outcomes[i] = outcome;
        setFound([...outcomes]);
      };
      const one = (column: Column, i: number): Promise<Answer | Score | null> =>
        ask(readings, { ...reading(), ...column }, question, signal, say, (live) => put(i, { live, fault: null })).catch((error) => {
          if (signal.aborted) throw error;
          put(i, { live: null, fault: told(error) });
          return null;
        });
      setFound(outcomes);
      const results = await Promise.all(columns.map(one));
      keep(results.filter((result) => result !== null));
    });
  return { work, columns, setColumns, found, run };
}
