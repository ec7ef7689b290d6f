// Something that is read from the server, with what a page needs to show of it.

import { untrack } from "svelte";

/** A value that is read, and read again; an older answer never replaces a newer one. */
export class Loaded<T> {
  value = $state.raw<T | null>(null);
  error = $state<unknown>(null);
  busy = $state(false);
  #turn = 0;
  #stop = new AbortController();

  constructor(readonly read: (signal: AbortSignal) => Promise<T>) {}

  async load(): Promise<void> {
    this.#stop.abort();
    this.#stop = new AbortController();
    const turn = ++this.#turn;
    this.busy = true;
    try {
      const value = await this.read(this.#stop.signal);
      if (turn !== this.#turn) return;
      this.value = value;
      this.error = null;
    } catch (error) {
      if (turn === this.#turn) this.error = error;
    } finally {
      if (turn === this.#turn) this.busy = false;
    }
  }

  /** Forgets what was read and what is under way. */
  drop() {
    this.#turn++;
    this.#stop.abort();
    this.value = null;
    this.error = null;
    this.busy = false;
  }
}

/** A list that comes in pages. */
export class Listed<T> {
  items = $state.raw<T[]>([]);
  error = $state<unknown>(null);
  busy = $state(false);
  isComplete = $state(false);
  #token: string | undefined;
  #turn = 0;
  /** Nothing of what is asked for now has come yet. */
  #isFresh = true;

  constructor(
    readonly read: (
      token: string | undefined,
    ) => Promise<{ items: T[]; next_page_token: string | null }>,
  ) {}

  /** Reads anew; what was read is shown until then. An effect that begins it does not begin it
   * again because it goes on. */
  async begin() {
    this.#turn++;
    this.#token = undefined;
    this.#isFresh = true;
    this.isComplete = false;
    this.busy = false;
    this.error = null;
    await untrack(() => this.more(true));
  }

  /** Reads something else: what was read is not shown any more. */
  async beginOther() {
    this.items = [];
    await this.begin();
  }

  /** The next page that has something. */
  async more(fresh = false) {
    if (this.busy || this.isComplete || (this.error && !fresh)) return;
    const turn = this.#turn;
    this.busy = true;
    this.error = null;
    let kept = this.#isFresh ? [] : this.items;
    try {
      for (;;) {
        const page = await this.read(this.#token);
        if (turn !== this.#turn) return;
        kept = kept.concat(page.items);
        this.#isFresh = false;
        this.#token = page.next_page_token ?? undefined;
        this.items = kept;
        if (page.next_page_token === null) this.isComplete = true;
        if (page.items.length > 0 || this.isComplete) break;
      }
    } catch (error) {
      if (turn === this.#turn) this.error = error;
    } finally {
      if (turn === this.#turn) this.busy = false;
    }
  }

  async again() {
    this.error = null;
    await this.more();
  }
}
