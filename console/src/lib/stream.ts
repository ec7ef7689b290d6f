// Server-sent events. `EventSource` sends no key, so they are read from a plain answer.

import { type Call, fetched } from "./api.svelte";
import { parse, plain } from "./json";

/** What the server tells, one after the other, until it or the signal ends it. */
export async function* events<T>(call: Call): AsyncGenerator<T> {
  const response = await fetched(call);
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  if (!reader) return;
  let gathered = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      gathered += value;
      const whole = gathered.split(/\r?\n\r?\n/);
      gathered = whole.pop() ?? "";
      for (const event of whole) {
        const data = event
          .split(/\r?\n/)
          .filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(5).trimStart())
          .join("\n");
        if (data) yield plain(parse(data)) as T;
      }
    }
  } finally {
    void reader.cancel().catch(() => {});
  }
}

/** A pause that a signal ends. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      done();
    });
  });
}
