import { afterEach, describe, expect, it, vi } from "vitest";
import { EventParser, Refusal, Service } from "../src/http";

const events = 'event: text\ndata: {"number": 0, "texts": ["é"]}\n\n: a remark\n\nevent: done\r\ndata: {}\r\n\r\n';

describe("server-sent events", () => {
  it("are the same in whatever pieces they come", () => {
    const whole = new EventParser().feed(events);
    expect(whole).toEqual([
      { name: "text", data: { number: 0, texts: ["é"] } },
      { name: "done", data: {} },
    ]);
    for (let size = 1; size < 9; size++) {
      const parser = new EventParser();
      const found = [];
      for (let at = 0; at < events.length; at += size) found.push(...parser.feed(events.slice(at, at + size)));
      expect(found).toEqual(whole);
    }
  });
});

describe("the service", () => {
  afterEach(() => vi.unstubAllGlobals());
  const replies = (...found: Response[]) => {
    const asked = vi.fn(async () => found.shift()!);
    vi.stubGlobal("fetch", asked);
    return asked;
  };
  const refused = { code: "busy", what: "Too many.", why: "60 a minute", instead: "wait" };
  const collect = async (stream: AsyncGenerator<unknown>) => {
    const found = [];
    for await (const event of stream) found.push(event);
    return found;
  };

  it("is asked again where it is busy, and its refusal is told in three parts", async () => {
    const busy = () => Response.json(refused, { status: 429, headers: { "retry-after": "0" } });
    const asked = replies(busy(), Response.json({ version: "1" }));
    expect(await new Service("secret").info()).toEqual({ version: "1" });
    expect(asked).toHaveBeenCalledTimes(2);
    replies(busy(), busy(), busy(), busy());
    await expect(new Service().info()).rejects.toMatchObject({ code: "busy", what: "Too many.", instead: "wait", status: 429 });
    replies(new Response("<html>", { status: 502 }));
    await expect(new Service().info()).rejects.toMatchObject({ code: "network" });
  });

  it("ends a stream at done, fails with what error says, and tells one that was cut off", async () => {
    const signal = new AbortController().signal;
    const stream = (text: string) => {
      replies(new Response(text));
      return collect(new Service().stream("v1/ask", {}, signal));
    };
    expect(await stream(events)).toHaveLength(1);
    await expect(stream(`event: error\ndata: ${JSON.stringify(refused)}\n\n`)).rejects.toMatchObject({ code: "busy" });
    await expect(stream(events.slice(0, 40))).rejects.toBeInstanceOf(Refusal);
  });
});
