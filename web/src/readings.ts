/** Captured activations: each transcript is captured once for a target and its layers, and stays at the service. */
import type { Service } from "./http";
import { Refusal } from "./http";
import type { Captured, Reads, Tokens } from "./types";

const MOST = 6; // handles that are kept; the oldest are given back

/** Remembers which handle holds what. */
export class Readings {
  private readonly found = new Map<string, Promise<Captured>>();

  constructor(readonly service: Service) {}

  /** What is kept of a transcript; captured now where it was not yet. */
  async of(tokens: Tokens, reads: Reads, base: string, layers: readonly number[], signal: AbortSignal): Promise<Captured> {
    if (!reads.difference) return this.one(tokens, reads.target, layers, signal);
    const key = keyed(tokens, `${reads.target}-${base}`, layers);
    return this.once(key, async () => {
      const [finetuned, plain] = [
        await this.one(tokens, reads.target, layers, signal),
        await this.one(tokens, base, layers, signal),
      ];
      return this.service.difference(finetuned.handle, plain.handle, signal);
    });
  }

  /** Do something with what is kept; where the service has forgotten it, capture it again, once. */
  async with<T>(get: () => Promise<Captured>, use: (kept: Captured) => Promise<T>): Promise<T> {
    try {
      return await use(await get());
    } catch (error) {
      if (!(error instanceof Refusal && error.code === "not-found")) throw error;
      this.found.clear();
      return use(await get());
    }
  }

  private one(tokens: Tokens, target: string, layers: readonly number[], signal: AbortSignal): Promise<Captured> {
    const body = { context: { token_ids: tokens.token_ids }, target, layers, positions: "all" };
    return this.once(keyed(tokens, target, layers), () => this.service.capture(body, signal));
  }

  private once(key: string, make: () => Promise<Captured>): Promise<Captured> {
    const known = this.found.get(key);
    if (known) return known;
    const making = make();
    this.found.set(key, making);
    making.then(() => this.tidy(), () => this.found.delete(key));
    return making;
  }

  private tidy(): void {
    for (const [key, making] of [...this.found].slice(0, Math.max(0, this.found.size - MOST))) {
      this.found.delete(key);
      void making.then((kept) => this.service.forget(kept.handle));
    }
  }
}

function keyed(tokens: Tokens, target: string, layers: readonly number[]): string {
  return `${target}|${layers.join(",")}|${tokens.token_ids.join(",")}`;
}
