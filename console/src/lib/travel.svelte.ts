// Many profiles as they were at a time, beside what they are now. What anybody may read who may
// read the profiles: this asks for each of them.

import { ask, Refusal } from "./api.svelte";
import { type Address, profilePath } from "./ids";
import { find, type Json, same } from "./json";
import { utcTime } from "./show";
import { listAround } from "./steps";
import type { Profile, Row } from "./types";

/** How many are asked for at once. */
const AT_ONCE = 4;

/** A place of a profile, then and now. */
export interface Line {
  address: Address;
  /** The place, or the list around it: an edit puts back a list as a whole. */
  path: string;
  then: Json | undefined;
  now: Json | undefined;
  state: "" | "no version";
}

export const isSame = (line: Line) => line.state !== "no version" && same(line.then, line.now);

export class Travel {
  lines = $state.raw<Line[]>([]);
  /** How many were compared. */
  done = $state(0);
  busy = $state("");
  error = $state<unknown>(null);
  #stop = new AbortController();

  clear() {
    this.cancel();
    this.lines = [];
    this.done = 0;
    this.error = null;
  }

  cancel() {
    this.#stop.abort();
    this.busy = "";
  }

  compare(rows: Row[], moment: number, path: string) {
    this.lines = [];
    return this.#act("Comparing", async (signal) => {
      const made: Line[] = [];
      await through(rows, signal, async (row) => {
        const line = await compared(row, moment, path, signal);
        if (signal.aborted) return;
        made.push(line);
        this.done = made.length;
        if (made.length % 25 === 0 || made.length === rows.length)
          this.lines = made.toSorted((a, b) => (a.address.key < b.address.key ? -1 : 1));
      });
    });
  }

  async #act(what: string, work: (signal: AbortSignal) => Promise<void>) {
    this.#stop.abort();
    const stop = (this.#stop = new AbortController());
    this.busy = what;
    this.done = 0;
    this.error = null;
    try {
      await work(stop.signal);
    } catch (caught) {
      if (!stop.signal.aborted) this.error = caught;
      stop.abort();
    } finally {
      if (stop === this.#stop) this.busy = "";
    }
  }
}

async function compared(
  row: Row,
  moment: number,
  wanted: string,
  signal: AbortSignal,
): Promise<Line> {
  const base = profilePath(row);
  const now = (await ask<Profile>({ path: base, signal })).body.data;
  const path = listAround(now, wanted) ?? wanted;
  const { store, scope, key } = row;
  const line = {
    address: { store, scope, key },
    path,
    now: find(now, path),
  };
  try {
    const { body } = await ask<Profile>({
      path: `${base}/versions/@${utcTime(moment)}`,
      signal,
    });
    return { ...line, then: find(body.data, path), state: "" };
  } catch (caught) {
    if (!(caught instanceof Refusal && caught.status === 404)) throw caught;
    return { ...line, then: undefined, state: "no version" };
  }
}

/** Works through a list, a few at once, until it is done or called off. */
async function through<T>(items: T[], signal: AbortSignal, work: (item: T) => Promise<void>) {
  const left = items.values();
  const worker = async () => {
    for (const item of left) {
      if (signal.aborted) return;
      await work(item);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}
