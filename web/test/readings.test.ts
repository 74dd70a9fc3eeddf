import { beforeAll, describe, expect, it, vi } from "vitest";
import { Refusal, type Service } from "../src/http";
import { Readings } from "../src/readings";
import type { Captured } from "../src/types";
import { tokensOf } from "./made";

const base = { target: "base", difference: false };
const on = new AbortController().signal;

/** A service that remembers what it keeps. */
function kept() {
  let count = 0;
  const there = new Set<string>();
  const put = async () => {
    const handle = `h${++count}`;
    there.add(handle);
    return { handle } as Captured;
  };
  const service = {
    capture: vi.fn(put),
    difference: vi.fn(put),
    forget: vi.fn(async (handle: string) => void there.delete(handle)),
  };
  const use = async ({ handle }: Captured) => {
    if (!there.has(handle)) throw new Refusal("not-found", "gone", "", "", 404);
    return handle;
  };
  return { service, there, use, readings: new Readings(service as unknown as Service) };
}

beforeAll(() => vi.stubGlobal("addEventListener", () => undefined));

describe("captured activations", () => {
  it("are captured once for a transcript, a target and its layers", async () => {
    const { service, readings, use } = kept();
    const tokens = tokensOf(["a", "b"]);
    const asked = (layers: number[], reads = base) => readings.with(tokens, reads, "base", layers, on, use);
    expect(await Promise.all([asked([1]), asked([1]), asked([2])])).toEqual(["h1", "h1", "h2"]);
    expect(service.capture).toHaveBeenCalledTimes(2);
    await asked([1], { target: "x", difference: true });
    expect(service.capture).toHaveBeenCalledTimes(3); // the fine-tune's; the base's was there
    expect(service.difference).toHaveBeenCalledTimes(1);
    const named = await asked([1], { target: "x-base", difference: false });
    expect(named).not.toBe(await asked([1], { target: "x", difference: true }));
  });

  it("are captured again where the service has forgotten them", async () => {
    const { there, readings, use, service } = kept();
    const asked = () => readings.with(tokensOf(["a"]), base, "base", [1], on, use);
    const first = await asked();
    there.clear();
    expect(await asked()).not.toBe(first);
    expect(service.capture).toHaveBeenCalledTimes(2);
  });

  it("are not lost to one who waits for them when another stops", async () => {
    const { readings, use, service } = kept();
    let done: (captured: Captured) => void = () => undefined;
    service.capture.mockImplementationOnce(() => new Promise((resolve) => (done = resolve)));
    const own = new AbortController();
    const stopped = readings.with(tokensOf(["a"]), base, "base", [1], own.signal, use);
    const other = readings.with(tokensOf(["a"]), base, "base", [1], on, async ({ handle }) => handle);
    own.abort();
    await expect(stopped).rejects.toThrow("stopped");
    done({ handle: "late" } as Captured);
    expect(await other).toBe("late");
  });

  it("are given back: the oldest beyond six, and those of other transcripts, but never one in use", async () => {
    const { there, readings, use } = kept();
    const tokens = tokensOf(["a"]);
    let go: () => void = () => undefined;
    const using = readings.with(tokens, base, "base", [0], on, (captured) => new Promise((resolve) => (go = () => resolve(use(captured)))));
    for (let layer = 1; layer < 12; layer++) await readings.with(tokens, base, "base", [layer], on, use);
    expect(there.size).toBeLessThanOrEqual(7);
    go();
    expect(await using).toBe("h1");
    readings.keepOnly(tokensOf(["b"]));
    await Promise.resolve();
    expect(there.size).toBe(0);
  });

  it("make room and try once more where the store is full", async () => {
    const { readings, use, service, there } = kept();
    await readings.with(tokensOf(["a"]), base, "base", [1], on, use);
    service.capture.mockRejectedValueOnce(new Refusal("busy", "full", "", "", 429));
    expect(await readings.with(tokensOf(["b", "c"]), base, "base", [1], on, use)).toBe("h2");
    expect(there).toEqual(new Set(["h2"]));
  });
});
