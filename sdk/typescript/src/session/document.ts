/**
 * The data of one session, as text: what was changed, what is stored, and the messages whose effect
 * is in it. Pure; it knows of no connection. A change that fails leaves nothing behind.
 */
import { failure, inWords, isPromise, quiet } from "../errors.js";
import { frozen, parse, stringify, type Numbers } from "../json.js";
import { edited } from "./edit.js";
import type { Beside, BesideDraft } from "./beside.js";

/** One state of the document that is to be stored. */
export interface Draft extends BesideDraft {
  readonly text: string;
  readonly processed: readonly number[];
  /** How many changes it has. */
  readonly revision: number;
}

/** What a frame has of a draft: its members, and those that are JSON texts already. */
export function framed({ text, processed, users, tags, metadata }: Draft): {
  body: { readonly processed: readonly number[]; readonly user_ids: unknown };
  texts: Record<string, string | undefined>;
} {
  return { body: { processed, user_ids: users }, texts: { tags, metadata, data: text } };
}

/** How many indexes of messages are remembered. */
const REMEMBERED = 10_000;

export class Document<T> {
  #text: string;
  #stored: string;
  #view: T | undefined;
  #revision = 0;
  #storedRevision = 0;
  /** Messages whose effect is in the text and not stored yet. */
  #processed = new Set<number>();
  /** All messages that had their effect. */
  readonly #seen = new Set<number>();
  #isChanging = false;

  /** Fails when the text has a number that cannot be held. */
  constructor(
    stored: string,
    readonly numbers: Numbers,
    readonly check: ((data: T) => void) | undefined,
    readonly beside: Beside,
  ) {
    const value = parse(stored, numbers) as T;
    this.#text = this.#stored = stringify(value, numbers);
  }

  /** For reading: frozen, and a new object after each change. */
  get view(): T {
    return (this.#view ??= frozen(parse(this.#text, this.numbers)) as T);
  }

  get text(): string {
    return this.#text;
  }

  get revision(): number {
    return this.#revision;
  }

  get storedRevision(): number {
    return this.#storedRevision;
  }

  /** Whether there is something that is not stored. */
  get isChanged(): boolean {
    const isText = this.#text !== this.#stored;
    return isText || this.#processed.size > 0 || this.beside.isChanged;
  }

  /** A change of what is stored beside the data. */
  changeBeside(change: (beside: Beside) => void): void {
    change(this.beside);
    this.#revision++;
  }

  /** A change made within another one would be lost when the outer one is taken over. */
  mustBeAtRest(): void {
    if (!this.#isChanging) return;
    throw failure("invalid", "within a change: change the data that its function was given");
  }

  /** The data after `change`, as a text; nothing is changed yet. */
  tried<R>(change: (data: T) => R): { text: string; result: R } {
    this.mustBeAtRest();
    this.#isChanging = true;
    try {
      const data = parse(this.#text, this.numbers) as T;
      const result = change(data);
      if (isPromise(result)) {
        void quiet(Promise.resolve(result));
        throw failure("invalid", "a change is made at once: its function must not be async");
      }
      return { text: stringify(data, this.numbers), result };
    } finally {
      this.#isChanging = false;
    }
  }

  /** Takes a text over that was tried. */
  take(text: string): void {
    if (text === this.#text) return;
    this.#text = text;
    this.#view = undefined;
    this.#revision++;
  }

  change<R>(change: (data: T) => R): R {
    const { text, result } = this.tried(change);
    this.take(text);
    return result;
  }

  hasSeen(index: number): boolean {
    return this.#seen.has(index);
  }

  /** A message's effect; it goes with its index into one save. */
  process(index: number, effect: (data: T) => void): void {
    this.change(effect);
    this.#revision++;
    this.#processed.add(index);
    this.#seen.add(index);
    for (const old of this.#seen) {
      if (this.#seen.size <= REMEMBERED) break;
      this.#seen.delete(old);
    }
  }

  /** An edit, alone: made on what is stored, and on what play made of it since. */
  edit(changes: string): { draft: Draft; undo: () => void } {
    const steps = parse(changes, this.numbers);
    const make = (text: string): string => {
      const data = edited(parse(text, this.numbers), steps);
      try {
        this.check?.(data as T);
      } catch (thrown) {
        throw new Error(`the program refuses the data: ${inWords(thrown)}`);
      }
      return stringify(data, this.numbers);
    };
    const alone = make(this.#stored);
    const before = this.#text;
    const together = before === this.#stored ? alone : make(before);
    this.take(together);
    const draft = { text: alone, processed: [], revision: this.#storedRevision };
    return { draft, undo: () => this.#text === together && this.take(before) };
  }

  /** What is stored. */
  storedDraft(): Draft {
    return { text: this.#stored, processed: [], revision: this.#storedRevision };
  }

  draft(): Draft {
    const beside = this.beside.draft();
    const processed = [...this.#processed];
    return { ...beside, text: this.#text, processed, revision: this.#revision };
  }

  /** A draft is stored. */
  stored(draft: Draft): void {
    this.#stored = draft.text;
    this.beside.stored(draft);
    this.#storedRevision = Math.max(this.#storedRevision, draft.revision);
    draft.processed.forEach((index) => this.#processed.delete(index));
    if (!this.isChanged) this.#storedRevision = this.#revision;
  }
}
