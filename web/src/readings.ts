/** Captured activations: each transcript is captured once for a target and its layers, and stays at the service. */
import type { Service } from "./http";
import { Refusal } from "./http";
import type { Captured, Reads, Tokens } from "./types";

const MOST = 6; // handles that are kept; what was not used for longest is given back

interface Kept {
  captured: Promise<Captured>;
  ids: readonly number[];
  /** How many requests are using it now: these keep it from being given back. */
  users: number;
}

/** Remembers which handle holds what. */
export class Readings {
  private readonly found = new Map<string, Kept>();

  constructor(readonly service: Service) {
    addEventListener("pagehide", () => this.giveBack(this.found.keys(), true));
  }

  /** Do something with what is kept of a transcript.
   *
   * It is captured now where it was not yet, and once more where the service has forgotten it or has no room.
   */
  async with<T>(
    tokens: Tokens,
    reads: Reads,
    base: string,
    layers: readonly number[],
    signal: AbortSignal,
    use: (kept: Captured) => Promise<T>,
  ): Promise<T> {
    const attempt = () => this.using(tokens, reads, base, layers, signal, use);
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Refusal) || (error.code !== "not-found" && error.code !== "busy")) throw error;
      this.giveBack(this.idle());
      return await attempt();
    }
  }

  /** Give back what is kept of other transcripts. */
  keepOnly({ token_ids }: Tokens): void {
    this.giveBack(this.idle().filter((key) => this.found.get(key)!.ids !== token_ids));
  }

  private async using<T>(
    tokens: Tokens,
    reads: Reads,
    base: string,
    layers: readonly number[],
    signal: AbortSignal,
    use: (kept: Captured) => Promise<T>,
  ): Promise<T> {
    const capture = (target: string) => () =>
      this.service.capture({ context: { token_ids: tokens.token_ids }, target, layers, positions: "all" });
    const one = <R>(target: string, then: (kept: Captured) => Promise<R>) =>
      this.held(keyed(["target", target], tokens, layers), tokens, capture(target), signal, then);
    if (!reads.difference) return one(reads.target, use);
    const difference = () =>
      one(reads.target, (finetuned) => one(base, (plain) => this.service.difference(finetuned.handle, plain.handle)));
    return this.held(keyed(["difference", reads.target, base], tokens, layers), tokens, difference, signal, use);
  }

  /** Use what is kept under a key. Several may wait for one capture, so none of them can stop it for the others. */
  private async held<T>(
    key: string,
    { token_ids: ids }: Tokens,
    make: () => Promise<Captured>,
    signal: AbortSignal,
    use: (kept: Captured) => Promise<T>,
  ): Promise<T> {
    const kept = this.found.get(key) ?? { captured: make(), ids, users: 0 };
    this.found.delete(key);
    this.found.set(key, kept); // the one used last stands last
    kept.users++;
    try {
      return await use(await unlessStopped(kept.captured, signal));
    } catch (error) {
      const forgotten = error instanceof Refusal && error.code === "not-found";
      const failed = await settled(kept.captured, signal);
      if ((forgotten || failed) && this.found.get(key) === kept) this.found.delete(key);
      throw error;
    } finally {
      kept.users--;
      this.giveBack(this.idle().slice(0, Math.max(0, this.found.size - MOST)));
    }
  }

  private idle(): string[] {
    return [...this.found].filter(([, kept]) => kept.users === 0).map(([key]) => key);
  }

  private giveBack(keys: Iterable<string>, closing = false): void {
    for (const key of [...keys]) {
      const kept = this.found.get(key)!;
      this.found.delete(key);
      void kept.captured.then(({ handle }) => this.service.forget(handle, closing), () => undefined);
    }
  }
}

/** Whether a capture has failed; while it is still under way it has not. */
function settled(captured: Promise<unknown>, signal: AbortSignal): Promise<boolean> {
  if (signal.aborted) return Promise.resolve(false);
  return captured.then(() => false, () => true);
}

function unlessStopped<T>(wanted: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(new DOMException("stopped", "AbortError"));
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop);
    wanted.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

function keyed(what: string[], tokens: Tokens, layers: readonly number[]): string {
  return JSON.stringify([what, layers, tokens.token_ids]);
}
