/** The page: a transcript and its tokens on one side, what is asked of them on the other. */
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Ask } from "./ask";
import { Chips } from "./chips";
import { Compare, OracleField, ReadsField } from "./compare";
import { type Page, useAsk, useCompare, useGenerate, useScan } from "./doing";
import { type Group, groupsOf, shownOf } from "./groups";
import { History } from "./history";
import type { Service } from "./http";
import { type Entry, exactly, linked, type View } from "./keep";
import { Refused } from "./parts";
import { Readings } from "./readings";
import { Scan } from "./scan";
import { Select } from "./select";
import { everything } from "./selection";
import { Prefixes } from "./short";
import { Tabs } from "./tabs";
import { useTokens } from "./tokens";
import { Transcript } from "./transcript";
import type { Info, Scan as Found } from "./types";
import { firstView, fitted, LAST, questionOf, useHistory } from "./view";

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
  const [controls, setControls] = useState(true);
  const [template, setTemplate] = useState(false);
  const [cursor, setCursor] = useState(0);
  const [tab, setTab] = useState("ask");

  const readings = useMemo(() => new Readings(service), [service]);
  const oracle = info.oracles.find(({ name }) => name === view.oracle);
  const { transcript, fresh, take, fault } = useTokens(service, view);
  const tokens = transcript?.tokens ?? null;
  const groups = useMemo(() => (tokens === null ? [] : groupsOf(tokens)), [tokens]);
  const shared = () => ({ ...view, exact: exactly(transcript) });

  const { reads, layers, selected } = view;
  const page: Page = {
    service, info, readings, view, set, tokens,
    question: questionOf(view, controls),
    reading: () => ({ tokens: tokens!, oracle: view.oracle, reads, base: info.targets[0]!.name, layers, selected }),
    keep: (results) => setEntries((before) => [...before, { id: newId(), at: new Date().toISOString(), view: shared(), results }]),
  };
  const generating = useGenerate(page, take);
  const asking = useAsk(page);
  const scanning = useScan(page);
  const comparing = useCompare(page);

  // Another transcript: what was found in the one before says nothing of it, and its last tokens are where to begin.
  const coming = useRef<Coming>({ selected: view.selected, scans: [] });
  useEffect(() => {
    if (tokens === null) return;
    const { selected: wanted, scans } = coming.current;
    coming.current = { selected: [], scans: [] };
    const kept = wanted.filter((at) => at < tokens.token_ids.length);
    set({ selected: kept.length > 0 ? kept : lastOfTurn(groups) });
    setCursor(0);
    scanning.work.stop();
    scanning.setFound(scans);
  }, [tokens]);

  const show = (entry: Entry) => {
    const { view: before, changed } = fitted(entry.view, info);
    const scans = entry.results.filter((result) => result.kind === "scan");
    const answers = entry.results.filter((result) => result.kind !== "scan");
    setNote(notHere(changed));
    coming.current = { selected: before.selected, scans };
    setView({ ...before, draft: { ...before.draft } }); // made into tokens again, whichever stand here now
    asking.setLive(answers.map((result) => ({ question: result.question, texts: [], result, whole: true })));
    setTab(scans.length > 0 ? "scan" : "ask");
  };
  const link = async () => {
    history.replaceState(null, "", await linked(shared()));
    return location.href;
  };

  const onSelect = (positions: readonly number[]) => set({ selected: [...positions] });
  const form = {
    info,
    question: page.question,
    ready: fresh && tokens !== null && oracle !== undefined && selected.length > 0,
    onQuestion: (changed: Page["question"]) => {
      setControls(changed.controls);
      set({ question: changed.text, yesNo: changed.yesNo, samples: changed.samples, temperature: changed.temperature });
    },
  };
  const tabs = [
    { id: "ask", label: "Ask", body: <Ask {...form} live={asking.live} work={asking.work} onAsk={asking.run} /> },
    {
      id: "scan",
      label: "Scan",
      body: (
        <Scan
          {...scanning}
          questions={view.scans}
          ready={form.ready}
          cursor={cursor}
          onQuestions={(scans) => set({ scans })}
          onCursor={setCursor}
        />
      ),
    },
    { id: "compare", label: "Compare", body: <Compare {...form} {...comparing} /> },
    {
      id: "keep",
      label: entries.length > 0 ? `Keep (${entries.length})` : "Keep",
      body: <History entries={entries} onEntries={setEntries} onShow={show} onLink={link} />,
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
            work={generating.work}
            onDraft={(draft) => set({ draft, exact: null })}
            onGenerate={generating.run}
          />
          <section class="panel" aria-labelledby="tokens-title">
            <div class="row">
              <h2 id="tokens-title">Tokens</h2>
              {info.targets.length > 1 && (
                <label>
                  Read from <ReadsField label="Read from" info={info} reads={reads} onReads={(chosen) => set({ reads: chosen })} />
                </label>
              )}
              {info.oracles.length > 1 && (
                <label>
                  Oracle{" "}
                  <OracleField label="Oracle" info={info} oracle={view.oracle} onOracle={(name) => setView(fitted({ ...view, oracle: name }, info).view)} />
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
                  onLayers={(chosen) => set({ layers: chosen })}
                />
                <Chips
                  {...{ tokens, groups, template, selected, cursor, onSelect }}
                  heat={scanning.found[scanning.shown] ?? null}
                  onCursor={setCursor}
                />
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

/** What is to be shown once a transcript's tokens are there. */
interface Coming {
  selected: readonly number[];
  scans: Found[];
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
