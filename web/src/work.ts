/** Something that takes a while: whether it runs, how far it is, how it failed, and how it is stopped. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { Refusal, stopped } from "./http";

export interface Fault {
  what: string;
  why: string;
  instead: string;
}

export interface Progress {
  text: string;
  /** 0 to 1; null: nobody knows. */
  share: number | null;
}

export type Tell = (text: string, share?: number) => void;

export interface Work {
  progress: Progress | null;
  fault: Fault | null;
  /** How the last one ended; empty before any has. */
  ended: string;
  start: (task: (signal: AbortSignal, tell: Tell) => Promise<void>) => void;
  stop: () => void;
}

/** One piece of work at a time: to start another stops the one before. */
export function useWork(): Work {
  const [progress, setProgress] = useState<Progress | null>(null);
  const [fault, setFault] = useState<Fault | null>(null);
  const [ended, setEnded] = useState("");
  const running = useRef<AbortController | null>(null);

  const stop = useCallback(() => running.current?.abort(), []);
  useEffect(() => stop, []);

  const start = useCallback<Work["start"]>((task) => {
    running.current?.abort();
    const own = new AbortController();
    running.current = own;
    setFault(null);
    setProgress({ text: "waiting", share: null });
    const tell: Tell = (text, share) => running.current === own && setProgress({ text, share: share ?? null });
    task(own.signal, tell)
      .then(() => "done")
      .catch((error: unknown) => {
        if (stopped(error)) return "stopped";
        if (running.current === own) setFault(told(error));
        return "failed";
      })
      .then((how) => running.current === own && setEnded(how))
      .finally(() => {
        if (running.current !== own) return;
        running.current = null;
        setProgress(null);
      });
  }, []);
  return { progress, fault, ended, start, stop };
}

/** An error as its three parts. */
export function told(error: unknown): Fault {
  if (error instanceof Refusal) return error;
  const why = error instanceof Error ? error.message : String(error);
  return { what: "That did not work.", why, instead: "look at what was given, and try again" };
}
