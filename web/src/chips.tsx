/** The tokens of a transcript as chips, to be selected by pointer or keyboard, and coloured by a scan. */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { colour, strengths } from "./colours";
import { type Group, shownOf } from "./groups";
import { between, everything, type Positions, spoken, toggled, union, visible } from "./selection";
import type { Scan, Tokens } from "./types";
import { signed } from "./words";

interface Props {
  tokens: Tokens;
  groups: readonly Group[];
  template: boolean;
  selected: Positions;
  heat: Scan | null;
  cursor: number;
  onSelect: (selected: Positions) => void;
  onCursor: (position: number) => void;
}

/** A drag from one token: the selection that it began with, and whether it adds to that. */
interface Drag {
  anchor: number;
  kept: Positions;
}

export function Chips(props: Props) {
  const { tokens, selected, heat, onSelect, onCursor } = props;
  const shown = useMemo(() => everything(shownOf(props.groups, props.template)), [props.groups, props.template]);
  const cursor = shown.find((at) => at >= props.cursor) ?? shown.at(-1) ?? 0;
  const box = useRef<HTMLDivElement>(null);
  const drag = useRef<Drag | null>(null);
  const [anchor, setAnchor] = useState(cursor);
  useEffect(() => setAnchor(cursor), [tokens, props.template]);

  useSelected(box, tokens, selected, props.template);
  useHeat(box, tokens, heat, props.template);
  useLayoutEffect(() => {
    const here = chip(box.current!, cursor);
    here?.classList.add("at");
    return () => here?.classList.remove("at");
  }, [tokens, cursor, props.template]);

  const extend = (from: Drag, to: number) => onSelect(union(from.kept, between(from.anchor, to)));

  const down = (event: PointerEvent) => {
    const at = positionOf(event.target);
    if (at === null || event.button !== 0 || event.pointerType === "touch") return;
    onCursor(at);
    if (event.shiftKey) return extend({ anchor, kept: [] }, at);
    setAnchor(at);
    if (event.ctrlKey || event.metaKey) return onSelect(toggled(selected, at));
    drag.current = { anchor: at, kept: [] };
    onSelect([at]);
  };
  /** A finger that is put down may be about to scroll: only where it is lifted again does it select. */
  const click = (event: MouseEvent) => {
    const at = positionOf(event.target);
    if (at === null || (event as PointerEvent).pointerType !== "touch") return;
    onCursor(at);
    onSelect(toggled(selected, at));
  };
  const move = (event: PointerEvent) => {
    const at = positionOf(event.target);
    if (event.buttons === 0) drag.current = null;
    if (at !== null && at !== cursor) onCursor(at);
    if (at !== null && drag.current !== null) extend(drag.current, at);
  };
  const key = (event: KeyboardEvent) => {
    const to = moved(event, box.current!, shown, cursor);
    if (to !== null) {
      onCursor(to);
      if (event.shiftKey) extend({ anchor, kept: [] }, to);
      else setAnchor(to);
      chip(box.current!, to)?.scrollIntoView({ block: "nearest" });
    } else if (event.key === " ") onSelect(toggled(selected, cursor));
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) onSelect(shown);
    else if (event.key === "Escape") onSelect([]);
    else return;
    event.preventDefault();
  };
  useEffect(() => {
    const up = () => (drag.current = null);
    const ends = ["pointerup", "pointercancel"];
    ends.forEach((name) => window.addEventListener(name, up));
    return () => ends.forEach((name) => window.removeEventListener(name, up));
  }, []);

  // Thousands of chips: drawn once for a transcript, whatever is selected.
  const drawn = useMemo(
    () => <Groups tokens={tokens} groups={props.groups} template={props.template} />,
    [tokens, props.groups, props.template],
  );
  return (
    <div
      ref={box}
      id="tokens"
      class="chips"
      role="listbox"
      aria-label="Tokens"
      aria-multiselectable="true"
      aria-describedby="tokens-help"
      {...(shown.length > 0 && { "aria-activedescendant": `t${cursor}` })}
      tabIndex={0}
      onPointerDown={down}
      onPointerMove={move}
      onClick={click}
      onKeyDown={key}
    >
      {drawn}
    </div>
  );
}

function Groups(props: Pick<Props, "tokens" | "groups" | "template">) {
  return (
    <>
      {shownOf(props.groups, props.template).map((group) => (
        <div key={group.start} role="group" aria-label={group.role} class={group.template ? "turn template" : "turn"}>
          <span class="role" aria-hidden="true">
            {group.role}
          </span>
          {between(group.start, group.stop - 1).map((at) => (
            <Chip key={at} at={at} token={props.tokens.tokens[at]!} />
          ))}
        </div>
      ))}
    </>
  );
}

function Chip({ at, token }: { at: number; token: string }) {
  return (
    <span id={`t${at}`} data-at={at} class="chip" role="option" aria-label={spoken(token)}>
      {visible(token)}
      {token.includes("\n") && <br />}
    </span>
  );
}

function useSelected(box: { current: HTMLElement | null }, tokens: Tokens, selected: Positions, template: boolean): void {
  useLayoutEffect(() => {
    const wanted = new Set(selected);
    for (const element of chips(box.current!)) {
      const on = `${wanted.has(Number(element.dataset["at"]))}`;
      if (element.getAttribute("aria-selected") !== on) element.setAttribute("aria-selected", on);
    }
  }, [tokens, selected, template]);
}

function useHeat(box: { current: HTMLElement | null }, tokens: Tokens, heat: Scan | null, template: boolean): void {
  useLayoutEffect(() => {
    const values = new Map(heat?.positions.map((at, i) => [at, heat.values[i]!]));
    const strength = strengths([...values.values()]);
    for (const element of chips(box.current!)) {
      const at = Number(element.dataset["at"]);
      const value = values.get(at);
      element.style.backgroundColor = value === undefined ? "" : colour(value, strength(value));
      element.classList.toggle("hot", value !== undefined);
      const said = spoken(tokens.tokens[at] ?? "");
      element.setAttribute("aria-label", value === undefined ? said : `${said}, ${signed(value)}`);
    }
  }, [tokens, heat, template]);
}

function chips(box: HTMLElement): NodeListOf<HTMLElement> {
  return box.querySelectorAll<HTMLElement>(".chip");
}

function chip(box: HTMLElement, at: number): HTMLElement | null {
  return box.querySelector<HTMLElement>(`#t${at}`);
}

function positionOf(target: EventTarget | null): number | null {
  const found = target instanceof Element ? target.closest<HTMLElement>("[data-at]") : null;
  return found ? Number(found.dataset["at"]) : null;
}

/** Where a key leads from a position; null: it is no key for that. */
function moved({ key }: KeyboardEvent, box: HTMLElement, shown: Positions, from: number): number | null {
  const place = shown.indexOf(from);
  if (key === "ArrowDown" || key === "ArrowUp") return besides(box, from, key);
  const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: shown.length - 1 }[key];
  return to === undefined ? null : (shown[Math.min(shown.length - 1, Math.max(0, to))] ?? null);
}

/** The chip that stands nearest in the line below or above. */
function besides(box: HTMLElement, from: number, key: string): number | null {
  const here = chip(box, from)?.getBoundingClientRect();
  if (!here) return null;
  const down = key === "ArrowDown";
  let best: { at: number; line: number; far: number } | null = null;
  for (const element of chips(box)) {
    const there = element.getBoundingClientRect();
    const line = down ? there.top - here.top : here.top - there.top;
    const far = Math.abs(there.left - here.left);
    if (line < here.height / 2) continue;
    if (best === null || line < best.line - 2 || (line < best.line + 2 && far < best.far)) {
      best = { at: Number(element.dataset["at"]), line, far };
    }
  }
  return best?.at ?? from;
}
