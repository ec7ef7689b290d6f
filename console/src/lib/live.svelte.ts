// What a server process does, told once a second while a page shows it. The last quarter of an hour
// is kept for the visit; what happened while no page looked is a gap.

import { Refusal } from "./api.svelte";
import { events, pause } from "./stream";
import type { LiveView } from "./types";

/** How much is kept: 15 minutes. */
export const KEPT_MS = 15 * 60_000;

/** Without news for so long there is a gap in the charts. */
export const GAP_MS = 3500;

/** A value of a chart; none where there is a gap. */
export interface Point {
  at: number;
  value: number | null;
}

type Counter = "starts" | "saves" | "hand_overs" | "messages";
type Gauge = "sessions" | "connections" | "servers" | "hand_over_p99_ms";

class Live {
  ring = $state.raw<LiveView[]>([]);
  error = $state<unknown>(null);
  #stop = new AbortController();

  get last(): LiveView | undefined {
    return this.ring.at(-1);
  }

  /** Watches until `stop`. A stream that ends is asked for again. */
  async watch() {
    this.stop();
    const { signal } = (this.#stop = new AbortController());
    while (!signal.aborted) {
      try {
        for await (const view of events<LiveView>({ path: "/v1/live", signal })) this.#add(view);
        if (!signal.aborted) this.error = null;
      } catch (error) {
        if (signal.aborted) return;
        this.error = error;
        const goesOn = !(error instanceof Refusal) || error.isOffline || error.status >= 500;
        if (!goesOn) return;
      }
      await pause(2000, signal);
    }
  }

  stop() {
    this.#stop.abort();
  }

  /** Forgets what was seen: another person looks. */
  forget() {
    this.ring = [];
  }

  #add(view: LiveView) {
    this.error = null;
    const last = this.last;
    if (last && view.at_ms <= last.at_ms) return;
    const since = view.at_ms - KEPT_MS;
    this.ring = [...this.ring.filter((one) => one.at_ms >= since), view];
  }

  /** A gauge over time. */
  gauge(name: Gauge): Point[] {
    return this.#points((one) => one[name] ?? null);
  }

  /** A counter as how many there were each second. A process that began anew counts from 0. */
  rate(name: Counter | "errors"): Point[] {
    const value = (one: LiveView) => (name === "errors" ? errorsOf(one) : one[name]);
    return this.#points((one, before) => {
      if (!before) return null;
      const [now, then] = [value(one), value(before)];
      return Math.max(0, now < then ? now : now - then) / ((one.at_ms - before.at_ms) / 1000);
    });
  }

  #points(of: (one: LiveView, before: LiveView | undefined) => number | null): Point[] {
    const points: Point[] = [];
    let before: LiveView | undefined;
    for (const one of this.ring) {
      if (before && one.at_ms - before.at_ms > GAP_MS) {
        points.push({ at: before.at_ms + 1, value: null });
        before = undefined;
      }
      points.push({ at: one.at_ms, value: of(one, before) });
      before = one;
    }
    return points;
  }
}

const errorsOf = (one: LiveView) => Object.values(one.errors).reduce((sum, n) => sum + n, 0);

export const live = new Live();
