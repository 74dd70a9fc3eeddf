/** Scans over position, as lines. */
import { useEffect, useRef, useState } from "preact/hooks";
import { LINES } from "./colours";
import { valueName } from "./rows";
import { useShort } from "./short";
import type { Scan } from "./types";
import { signed } from "./words";

const HEIGHT = 180;
const LEFT = 44;
const BOTTOM = 22;
const TOP = 8;

interface Props {
  scans: readonly Scan[];
  cursor: number;
  onCursor: (position: number) => void;
}

export function Plot({ scans, cursor, onCursor }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const width = useWidth(box);
  const places = scaled(scans, width);
  const positions = [...new Set(scans.flatMap((scan) => scan.positions))].sort((a, b) => a - b);
  const point = (event: PointerEvent) => {
    const left = event.clientX - box.current!.getBoundingClientRect().left;
    const at = nearest(positions, places.position(left));
    if (at !== undefined && at !== cursor) onCursor(at);
  };
  return (
    <div ref={box} class="plot" onPointerMove={point} onPointerDown={point}>
      <svg width={width} height={HEIGHT} role="img" aria-label={summary(scans, useShort())}>
        {places.ticks.map((value) => (
          <g key={value}>
            <line class={value === 0 ? "zero" : "grid"} x1={LEFT} x2={width} y1={places.y(value)} y2={places.y(value)} />
            <text x={LEFT - 6} y={places.y(value) + 4} text-anchor="end">
              {signed(value)}
            </text>
          </g>
        ))}
        {scans.map((scan, i) => (
          <path key={i} class={LINES[i % LINES.length]!.class} stroke-dasharray={LINES[i % LINES.length]!.dash} d={line(scan, places)} />
        ))}
        {cursor >= places.first && cursor <= places.last && (
          <line class="cursor" x1={places.x(cursor)} x2={places.x(cursor)} y1={TOP} y2={HEIGHT - BOTTOM} />
        )}
        <text x={LEFT} y={HEIGHT - 6}>
          token {places.first}
        </text>
        <text x={width - 2} y={HEIGHT - 6} text-anchor="end">
          {places.last}
        </text>
      </svg>
    </div>
  );
}

function line(scan: Scan, places: Places): string {
  return scan.positions.map((at, i) => `${i === 0 ? "M" : "L"}${places.x(at).toFixed(1)} ${places.y(scan.values[i]!).toFixed(1)}`).join("");
}

interface Places {
  first: number;
  last: number;
  ticks: readonly number[];
  x: (position: number) => number;
  y: (value: number) => number;
  position: (x: number) => number;
}

/** Where positions and values stand; nothing differs from the donors at 0, which is always in sight. */
export function scaled(scans: readonly Scan[], width: number): Places {
  const positions = scans.flatMap((scan) => scan.positions);
  const [first, last] = [least(positions, 0), -least(positions.map((at) => -at), 0)];
  const values = scans.flatMap((scan) => scan.values);
  const low = Math.min(0, least(values, 0));
  const high = Math.max(0, -least(values.map((value) => -value), 0));
  const span = high - low || 1;
  const across = (width - LEFT - 4) / Math.max(1, last - first);
  return {
    first,
    last,
    ticks: [...new Set([low, 0, high])],
    x: (position) => LEFT + (position - first) * across,
    y: (value) => TOP + ((high - value) / span) * (HEIGHT - TOP - BOTTOM),
    position: (x) => first + (x - LEFT) / across,
  };
}

function least(values: readonly number[], otherwise: number): number {
  return values.length === 0 ? otherwise : values.reduce((a, b) => Math.min(a, b));
}

export function nearest(rising: readonly number[], wanted: number): number | undefined {
  return rising.reduce<number | undefined>(
    (best, at) => (best === undefined || Math.abs(at - wanted) < Math.abs(best - wanted) ? at : best),
    undefined,
  );
}

function summary(scans: readonly Scan[], short: (question: string) => string): string {
  const told = scans.map((scan) => {
    const most = scan.values.indexOf(-least(scan.values.map((value) => -value), 0));
    return `${short(scan.question)} Highest at token ${scan.positions[most]}, ${scan.tokens[most]}, ${signed(scan.values[most]!)}`;
  });
  return `${valueName(scans[0]!)} over position. ${told.join(". ")}`;
}

function useWidth(box: { current: HTMLElement | null }): number {
  const [width, setWidth] = useState(600);
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.max(200, Math.floor(entry!.contentRect.width))));
    watch.observe(box.current!);
    return () => watch.disconnect();
  }, []);
  return width;
}
