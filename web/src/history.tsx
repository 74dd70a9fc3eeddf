/** What was asked in this session: to look at again, to take away, to bring back, to share. */
import { useState } from "preact/hooks";
import { type Entry, opened, type Result, saved } from "./kept";
import { Marks, Refused } from "./parts";
import { markdown } from "./rows";
import { useShort } from "./short";
import { type Fault, told } from "./work";
import { answerMarks, scoreMarks } from "./words";

interface Props {
  entries: readonly Entry[];
  onEntries: (entries: Entry[]) => void;
  onShow: (entry: Entry) => void;
  onLink: () => Promise<string>;
}

export function History({ entries, onEntries, onShow, onLink }: Props) {
  const [fault, setFault] = useState<Fault | null>(null);
  const [note, setNote] = useState("");
  const short = useShort();
  const read = async (input: HTMLInputElement) => {
    const file = input.files?.[0];
    if (file === undefined) return;
    try {
      const found = opened(await file.text());
      const known = new Set(entries.map((entry) => entry.id));
      const fresh = found.filter((entry) => !known.has(entry.id));
      onEntries([...entries, ...fresh].sort((a, b) => a.at.localeCompare(b.at)));
      setNote(`${fresh.length} of ${found.length} entries were new.`);
      setFault(null);
    } catch (error) {
      setFault({ ...told(error), what: `${file.name} cannot be read.`, instead: "choose a file that Export as JSON wrote" });
    }
    input.value = "";
  };
  const clear = () => {
    if (!confirm(`Forget what was asked? ${entries.length} entries are kept in this tab alone.`)) return;
    onEntries([]);
    setNote("");
  };
  const link = async () => {
    try {
      const address = await onLink();
      await navigator.clipboard.writeText(address);
      setNote("The link is in the clipboard. It holds the transcript itself: who has it can read that.");
    } catch {
      setNote("The link stands in the address bar. It holds the transcript itself: who has it can read that.");
    }
  };
  return (
    <>
      <div class="row">
        <button type="button" class="main" onClick={() => void link()}>
          Link to this view
        </button>
        <button type="button" disabled={entries.length === 0} onClick={() => download("augury.json", "application/json", saved(entries))}>
          Export as JSON
        </button>
        <button type="button" disabled={entries.length === 0} onClick={() => download("augury.md", "text/markdown", markdown(entries))}>
          Export as Markdown
        </button>
        <label class="file">
          Import JSON
          <input type="file" accept=".json,application/json" onChange={(event) => void read(event.currentTarget)} />
        </label>
        {entries.length > 0 && (
          <button type="button" onClick={clear}>
            Clear
          </button>
        )}
      </div>
      <p class="hint" aria-live="polite">
        {note}
      </p>
      <Refused fault={fault} />
      {entries.length === 0 && <p class="hint">Nothing was asked yet. What you ask is kept here until this tab is closed.</p>}
      <ol class="history" reversed>
        {[...entries].reverse().map((entry) => (
          <li key={entry.id}>
            {entry.results.map((result, i) => (
              <Line key={i} result={result} from={entry.from[i] ?? ""} />
            ))}
            <small>
              {new Date(entry.at).toLocaleString()}
              {entry.ended && ", ended before it was whole"}
            </small>{" "}
            <button type="button" aria-label={`Show again: ${short(entry.results[0]?.question ?? "")}`} onClick={() => onShow(entry)}>
              Show again
            </button>
          </li>
        ))}
      </ol>
    </>
  );
}

function Line({ result, from }: { result: Result; from: string }) {
  const short = useShort();
  const said = result.kind === "answer" ? result.text : result.kind === "score" ? result.choice : `${result.positions.length} tokens scanned`;
  const marks = result.kind === "answer" ? answerMarks(result) : result.kind === "score" ? scoreMarks(result) : [];
  return (
    <>
      <p>
        {short(result.question)} <strong>{said}</strong> <small>from {from}</small>
      </p>
      <Marks marks={marks} />
    </>
  );
}

function download(name: string, type: string, text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
