/** The page: a transcript and its tokens on one side, what is asked of them on the other. */
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Ask } from "./ask";
import type { Live } from "./asking";
import { Chips } from "./chips";
import { Compare, OracleField, ReadsField } from "./compare";
import { type Page, useAsk, useCompare, useGenerate, useScan } from "./doing";
import { type Group, groupsOf, shownOf } from "./groups";
import { History } from "./history";
import type { Service } from "./http";
import { type Entry, linked, type View } from "./kept";
import { Refused } from "./parts";
import { Readings } from "./readings";
import { Scan } from "./scan";
import { Beyond, Select } from "./select";
import { everything, union } from "./selection";
import { Prefixes } from "./short";
import { Tabs } from "./tabs";
import { useTokens } from "./tokens";
import { Transcript } from "./transcript";
import type { Answer, Draft, Info, Scan as Found, Score, Tokens } from "./types";
import { firstView, fitted, LAST, layersFor, questionOf, useHistory } from "./view";

interface Props {
  service: Service;
  info: Info;
  /** What a link had set. */
  restored: View | null;
}

export function App({ service, info, restored }: Props) {
  const begun = useMemo(() => fitted(restored ?? firstView(info), info), []);
  const [view, setView] = useState<View>(begun.view);
  const set = useCallback((part: Partial<View>) => setView((before) => ({ ...before, ...part })), []);
  const [note, setNote] = useState(notHere(begun.changed));
  const [entries, setEntries] = useHistory(setNote);
  const [template, setTemplate] = useState(false);
  const [cursor, setCursor] = useState(0);
  const [tab, setTab] = useState("ask");

  const readings = useMemo(() => new Readings(service), [service]);
  const oracle = info.oracles.find(({ name }) => name === view.oracle);
  const { transcript, fresh, take, fault } = useTokens(service, view);
  const tokens = transcript?.tokens ?? null;
  const groups = useMemo(() => (tokens === null ? [] : groupsOf(tokens, view.draft.kind === "text")), [tokens]);

  const { reads, layers, selected } = view;
  const page: Page = {
    service, info, readings, view, set, tokens,
    question: questionOf(view),
    reading: () => ({ tokens: tokens!, oracle: view.oracle, reads, base: info.targets[0]!.name, layers, selected }),
    keep: (results, from, ended) =>
      setEntries((before) => [...before, { id: newId(), at: new Date().toISOString(), view, results, from, ended }]),
  };
  const generating = useGenerate(page, take);
  const asking = useAsk(page);
  const scanning = useScan(page);
  const comparing = useCompare(page);

  // Another transcript: what was found in the one before says nothing of it, and its last tokens are where to begin.
  const coming = useRef<Coming>({ draft: view.draft, selected: view.selected, scans: [] });
  useEffect(() => {
    scanning.clear();
    if (tokens === null) return;
    readings.keepOnly(tokens);
    const { draft, selected: wanted, scans } = coming.current;
    coming.current = { draft: null, selected: [], scans: [] };
    const kept = draft === view.draft ? inside(wanted, tokens.token_ids.length) : [];
    set({ selected: kept.length > 0 ? kept : lastOfTurn(groups) });
    setCursor(everything(shownOf(groups, template))[0] ?? 0);
    if (draft === view.draft && scans.every((scan) => isOf(scan, tokens))) scanning.show(scans);
  }, [tokens]);

  const show = (entry: Entry) => {
    const { view: before, changed } = fitted(entry.view, info);
    const draft = { ...before.draft }; // made into tokens again, whichever stand here now
    const scans = entry.results.filter((result) => result.kind === "scan");
    const answers = entry.results.map((result, i) => [result, entry.from[i]!] as const).filter(([{ kind }]) => kind !== "scan");
    generating.drop();
    asking.work.stop();
    setNote(notHere(changed));
    coming.current = { draft, selected: before.selected, scans };
    setView({ ...before, draft });
    asking.setLive(answers.map(([result, from]) => finished(result as Answer | Score, from, entry.ended)));
    setTab(scans.length > 0 ? "scan" : "ask");
  };
  const link = async () => {
    history.replaceState(null, "", await linked(view));
    return location.href;
  };
  /** What was found at other layers, by another oracle or from another target says nothing of these. */
  const reread = (part: Partial<View>) => {
    scanning.clear();
    set(part);
  };

  const onSelect = (positions: readonly number[]) => set({ selected: [...positions] });
  const form = {
    info,
    question: page.question,
    ready: fresh && tokens !== null && oracle !== undefined && selected.length > 0,
    tokens,
    onQuestion: ({ text, ...rest }: Page["question"]) => set({ question: text, ...rest }),
  };
  const tabs = [
    { id: "ask", label: "Ask", body: <Ask {...form} live={asking.live} work={asking.work} onAsk={asking.run} /> },
    {
      id: "scan",
      label: "Scan",
      body: (
        <Scan
          {...scanning}
          {...{ window: view.window, everywhere: view.everywhere }}
          questions={view.scans}
          ready={form.ready}
          cursor={cursor}
          onQuestions={(scans) => set({ scans })}
          onWindow={(window) => set({ window })}
          onEverywhere={(everywhere) => set({ everywhere })}
          onCursor={setCursor}
        />
      ),
    },
    { id: "compare", label: "Compare", body: <Compare {...form} {...comparing} layers={layers} /> },
    {
      id: "keep",
      label: entries.length > 0 ? `Keep (${entries.length})` : "Keep",
      body: useMemo(() => <History entries={entries} onEntries={setEntries} onShow={show} onLink={link} />, [entries, view, tab]),
    },
  ];
  return (
    <Prefixes.Provider value={info.oracles.map((one) => one.yes_no_prefix)}>
      <p class={note ? "warning" : "hidden"} role="status">
        {note}
      </p>
      <div class="sides">
        <div>
          <Transcript
            draft={view.draft}
            chats={info.chats}
            mostTokens={info.limits.new_tokens}
            target={info.targets.length > 1 ? reads.target : null}
            written={generating.written}
            note={generating.note}
            work={generating.work}
            onDraft={(draft) => {
              generating.drop();
              set({ draft, exact: null });
            }}
            onGenerate={generating.run}
          />
          <section class="panel" aria-labelledby="tokens-title">
            <div class="row">
              <h2 id="tokens-title">Tokens</h2>
              {info.targets.length > 1 && (
                <label>
                  Read from <ReadsField label="Read from" info={info} reads={reads} onReads={(chosen) => reread({ reads: chosen })} />
                </label>
              )}
              {info.oracles.length > 1 && (
                <label>
                  Oracle{" "}
                  <OracleField label="Oracle" info={info} oracle={view.oracle} onOracle={(name) => reread({ oracle: name, layers: layersFor(info, name, layers) })} />
                </label>
              )}
            </div>
            <Refused fault={fault} />
            {tokens === null ? (
              <p class="hint">Write something above, and its tokens stand here.</p>
            ) : (
              <div class={fresh ? "" : "stale"} aria-busy={!fresh}>
                <Select
                  {...{ tokens, groups, template, selected, oracle, layers, onSelect }}
                  nLayers={info.model.n_layers}
                  onTemplate={setTemplate}
                  onLayers={(chosen) => reread({ layers: chosen })}
                />
                <Chips
                  {...{ tokens, groups, template, selected, cursor, onSelect }}
                  heat={scanning.found[scanning.shown] ?? null}
                  onCursor={setCursor}
                />
                <Beyond {...{ groups, template, selected, oracle }} />
                <p id="tokens-help" class="hint">
                  Click, drag, or shift-click; Ctrl-click adds one. By keyboard: arrows, Space, Shift with arrows, Ctrl-A, Escape.
                </p>
              </div>
            )}
          </section>
        </div>
        <Tabs chosen={tab} onChoose={setTab} tabs={tabs} />
      </div>
    </Prefixes.Provider>
  );
}

/** What is to be shown once the tokens of a draft are there. */
interface Coming {
  draft: Draft | null;
  selected: readonly number[];
  scans: Found[];
}

/** A selection of another time as one of so many tokens. */
function inside(positions: readonly number[], length: number): number[] {
  return [...union([], positions.filter((at) => at < length))];
}

/** Whether a scan's positions are these tokens. */
function isOf(scan: Found, tokens: Tokens): boolean {
  return scan.positions.every((at, i) => tokens.tokens[at] === scan.tokens[i]);
}

function finished(result: Answer | Score, from: string, ended: boolean): Live {
  return { question: result.question, from, tokens: null, texts: [], result, whole: true, ended };
}

/** The last tokens of what was said last. */
function lastOfTurn(groups: readonly Group[]): number[] {
  return everything(shownOf(groups, false).slice(-1)).slice(-LAST);
}

function notHere(changed: readonly string[]): string {
  return changed.length === 0 ? "" : `Not here, so replaced by what is: ${changed.join("; ")}.`;
}

/** `crypto.randomUUID` is missing where the page came without TLS from another machine. */
function newId(): string {
  return [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join("");
}
