// A search for profiles. What an index finds comes a page at a time, as the reader goes on. A scan
// goes on by itself, says how far it is, and can be called off.

import { untrack } from "svelte";
import { ask } from "./api.svelte";
import { scopePath } from "./ids";
import type { Found, Row } from "./types";

/** How many more are found before a scan waits for the reader. */
const MANY = 5000;

export interface Wanted {
  store: string;
  scope: string;
  query: Record<string, string>;
}

export class Search {
  items = $state.raw<Row[]>([]);
  /** Profiles of which the search cannot tell. */
  unreadable = $state.raw<Found["unreadable"]>([]);
  error = $state<unknown>(null);
  busy = $state(false);
  isComplete = $state(false);
  isScan = $state(false);
  /** It was called off, and can go on. */
  isOff = $state(false);
  scanned = $state(0);
  /** For how long the server was asked, in milliseconds. */
  took = $state(0);
  #wanted: Wanted | null = null;
  #token: string | undefined;
  #stop = new AbortController();

  /** Begins another search. The one that is under way is called off. */
  begin(wanted: Wanted) {
    this.#stop.abort();
    this.#wanted = wanted;
    this.#token = undefined;
    this.items = [];
    this.unreadable = [];
    this.error = null;
    this.busy = this.isComplete = this.isOff = false;
    this.isScan = "where" in wanted.query || "messages_waiting" in wanted.query;
    this.scanned = this.took = 0;
    void untrack(() => this.more());
  }

  /** Goes on: to the next page of an index, or with the scan. */
  async more() {
    const wanted = this.#wanted;
    if (!wanted || this.busy || this.isComplete) return;
    const stop = (this.#stop = new AbortController());
    const { store, scope, query } = wanted;
    const path = `${scopePath(store, scope)}/profiles`;
    const enough = this.items.length + MANY;
    const [began, before] = [performance.now(), this.took];
    this.busy = true;
    this.isOff = false;
    this.error = null;
    try {
      do {
        const { body } = await ask<Found>({
          path,
          query: { ...query, page_size: this.isScan ? "500" : "200", page_token: this.#token },
          signal: stop.signal,
        });
        if (stop.signal.aborted) return;
        this.#token = body.next_page_token ?? undefined;
        this.isScan = body.found_by === "scan";
        this.isComplete = body.next_page_token === null;
        this.scanned += body.scanned;
        this.took = before + performance.now() - began;
        if (body.items.length > 0) this.items = this.items.concat(body.items);
        if (body.unreadable.length > 0) this.unreadable = this.unreadable.concat(body.unreadable);
      } while (!this.isComplete && this.#goesOn(enough));
    } catch (error) {
      if (!stop.signal.aborted) this.error = error;
    } finally {
      if (stop === this.#stop) this.busy = false;
    }
  }

  /** An index's page may be empty although more follow. */
  #goesOn(enough: number): boolean {
    return this.isScan ? this.items.length < enough : this.items.length === 0;
  }

  /** Calls it off. What was found stays. */
  cancel() {
    this.#stop.abort();
    this.isOff = this.busy;
    this.busy = false;
  }
}
