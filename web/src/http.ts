/** Requests to the service that this page came from. */
import type { Captured, Context, Info, Tokens } from "./types";

const RETRIES = 3;
const LONGEST_WAIT = 10; // seconds; what takes longer is told at once

/** What the service refused, in its three parts. */
export class Refusal extends Error {
  constructor(
    readonly code: string,
    readonly what: string,
    readonly why: string,
    readonly instead: string,
    readonly status = 0,
  ) {
    super(what);
  }
}

export interface ServerEvent {
  name: string;
  data: unknown;
}

/** Server-sent events out of text that comes in any pieces. */
export class EventParser {
  private rest = "";

  feed(text: string): ServerEvent[] {
    const blocks = (this.rest + text).replaceAll("\r\n", "\n").split("\n\n");
    this.rest = blocks.pop() ?? "";
    return blocks.map(parsed).filter((event) => event !== null);
  }
}

function parsed(block: string): ServerEvent | null {
  const fields = block.split("\n").map((line) => {
    const at = line.indexOf(":");
    return [line.slice(0, at), line.slice(at + 1).replace(/^ /, "")] as const;
  });
  const data = fields.filter(([name]) => name === "data").map(([, value]) => value);
  if (data.length === 0) return null;
  const name = fields.find(([field]) => field === "event")?.[1] ?? "message";
  return { name, data: JSON.parse(data.join("\n")) };
}

/** The service, as one caller sees it. */
export class Service {
  constructor(readonly token: string | null = null) {}

  info(): Promise<Info> {
    return this.json("GET", "v1/info");
  }

  tokenize(context: Context, signal?: AbortSignal): Promise<Tokens> {
    return this.json("POST", "v1/tokenize", { context }, signal);
  }

  capture(body: object, signal?: AbortSignal): Promise<Captured> {
    return this.json("POST", "v1/capture", body, signal);
  }

  difference(finetuned: string, base: string, signal?: AbortSignal): Promise<Captured> {
    return this.json("POST", "v1/diff", { finetuned, base }, signal);
  }

  /** Forget activations; what is gone already is no fault. */
  async forget(handle: string, closing = false): Promise<void> {
    const headers = this.headers();
    await fetch(`v1/activations/${handle}`, { method: "DELETE", headers, keepalive: closing }).catch(() => undefined);
  }

  /** Parts of an answer as they come; ends after `done`, and fails with what `error` says. */
  async *stream(path: string, body: object, signal: AbortSignal): AsyncGenerator<ServerEvent> {
    const reply = await this.send("POST", path, { ...body, stream: true }, signal);
    const reader = reply.body!.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new EventParser();
    for (;;) {
      const { value, done } = await reader.read().catch(lost);
      if (done) throw cutOff();
      for (const event of parser.feed(value)) {
        if (event.name === "done") return;
        if (event.name === "error") throw refusal(event.data, 200);
        yield event;
      }
    }
  }

  private async json<T>(method: string, path: string, body?: object, signal?: AbortSignal): Promise<T> {
    return (await this.send(method, path, body, signal)).json();
  }

  /** A request, and again where the service is busy, as late as it says. */
  private async send(method: string, path: string, body?: object, signal?: AbortSignal): Promise<Response> {
    const headers = { ...this.headers(), "content-type": "application/json" };
    for (let tried = 0; ; tried++) {
      const sent = { method, headers, body: body && JSON.stringify(body), signal: signal ?? null };
      const reply = await fetch(path, sent).catch(lost);
      if (reply.ok) return reply;
      const wait = Number(reply.headers.get("retry-after") ?? 1);
      if (reply.status !== 429 || tried === RETRIES || wait > LONGEST_WAIT) {
        throw refusal(await reply.json().catch(() => null), reply.status);
      }
      await pause(1000 * wait, signal);
    }
  }

  private headers(): Record<string, string> {
    return this.token === null ? {} : { authorization: `Bearer ${this.token}` };
  }
}

function refusal(row: unknown, status: number): Refusal {
  const told = row as { code: string; what: string; why: string; instead: string } | null;
  if (told?.what === undefined) {
    return new Refusal("network", "The service gave no answer.", `status ${status}`, "try again in a while", status);
  }
  return new Refusal(told.code, told.what, told.why, told.instead, status);
}

function lost(error: unknown): never {
  if (error instanceof DOMException && error.name === "AbortError") throw error;
  throw new Refusal("network", "The service cannot be reached.", "it gave no reply", "check that it runs, and try again");
}

function cutOff(): Refusal {
  return new Refusal("network", "The answer was cut off.", "the connection ended before it was whole", "ask again");
}

function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });
}

/** Whether something ended because the reader of the page stopped it. */
export function stopped(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}
