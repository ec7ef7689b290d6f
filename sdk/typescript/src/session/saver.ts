/**
 * When a session's document is sent. At most one save is unanswered; what changes meanwhile goes
 * together into the next one. Edits go alone. Nothing is sent while a transaction has the session.
 */
import { timerMs } from "../belief.js";
import type { Outcome } from "../connection.js";
import { failure, inWords, ProfileError } from "../errors.js";
import { compose } from "../frames.js";
import { HALVES } from "../json.js";
import { framed, type Document, type Draft } from "./document.js";

/** What a session needs of the connection. */
export interface Wire {
  number(): number;
  request(i: number, frames: readonly string[], outcome: Outcome): void;
  isActive(s: number): boolean;
  /** The session is over. */
  over(s: number): void;
}

export interface SaverUser {
  /** A save was refused for good, and the session goes on. */
  refused(error: ProfileError): void;
  thawed(): void;
  lost(): void;
}

interface Waiter {
  readonly revision: number;
  done(): void;
  failed(error: ProfileError): void;
}

interface Ending {
  done(): void;
  failed(error: ProfileError): void;
  isSent: boolean;
}

interface EditDone {
  readonly op: string;
  readonly refused?: string;
}

/** How many edits are remembered, of which one may come again. */
const REMEMBERED = 10_000;

/** When a save is tried again that the server could not do. */
const AGAIN_MS = 1000;

export class Saver<T> {
  version: number;
  #n = 0;
  #isSending = false;
  #isFrozen = false;
  #isOver = false;
  /** A save is wanted now. */
  #isDue = false;
  #timer: NodeJS.Timeout | undefined;
  #end: Ending | undefined;
  #waiters: Waiter[] = [];
  #idle: (() => void)[] = [];
  #thawing: (() => void)[] = [];
  readonly #edits = new Map<string, string>();
  readonly #editsDone = new Set<string>();

  constructor(
    readonly session: { readonly s: number; readonly key: string; readonly version: number },
    readonly document: Document<T>,
    readonly wire: Wire,
    readonly saveWithinMs: number,
    readonly user: SaverUser,
  ) {
    this.version = session.version;
  }

  get isFrozen(): boolean {
    return this.#isFrozen;
  }

  get isEndSent(): boolean {
    return this.#end?.isSent === true;
  }

  /** The data was changed: it is saved after a while. */
  changed(): void {
    if (this.#timer !== undefined || this.#isOver || !this.document.isChanged) return;
    this.#timer = setTimeout(() => this.soon(), timerMs(this.saveWithinMs));
  }

  /** Saves behind what this moment brings. */
  soon(): void {
    this.#isDue = true;
    queueMicrotask(() => this.#pump());
  }

  save(): Promise<void> {
    return new Promise((done, failed) => {
      // What a transaction stores is one of the changes up to now.
      if (!this.document.isChanged && !this.#isSending && !this.#isFrozen) return done();
      this.#waiters.push({ revision: this.document.revision, done, failed });
      this.soon();
    });
  }

  end(): Promise<void> {
    return new Promise((done, failed) => {
      this.#end = { done, failed, isSent: false };
      this.#pump();
    });
  }

  /** An operator's edit. One that comes again is answered already, or waits. */
  edit(op: string, changes: string): void {
    if (this.#editsDone.has(op)) return;
    this.#edits.set(op, changes);
    this.soon();
  }

  // --- transactions --------------------------------------------------------------------------

  freeze(): void {
    this.#isFrozen = true;
  }

  thaw(): void {
    this.#isFrozen = false;
    this.#thawing.splice(0).forEach((done) => done());
    this.#settleWaiters();
    this.user.thawed();
    this.changed();
    this.#pump();
  }

  whenThawed(): Promise<void> {
    if (!this.#isFrozen) return Promise.resolve();
    return new Promise((done) => this.#thawing.push(done));
  }

  settled(): Promise<void> {
    if (!this.#isSending) return Promise.resolve();
    return new Promise((done) => this.#idle.push(done));
  }

  nextSave(): number {
    return ++this.#n;
  }

  // --- sending -------------------------------------------------------------------------------

  #pump(): void {
    if (this.#isSending || this.#isFrozen || this.#isOver) return;
    if (this.#end !== undefined) return this.#sendEnd(this.#end);
    if (this.#nextEdit()) return;
    if (!this.#isDue) return;
    this.#isDue = false;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.document.isChanged) return this.#sendSave(this.document.draft(), []);
    // What was changed was changed back: what is stored is what the waiters want.
    this.document.stored(this.document.storedDraft());
    this.#settleWaiters();
  }

  /** Makes the next edit and sends it. False: there is none. */
  #nextEdit(): boolean {
    for (const [op, changes] of this.#edits) {
      this.#edits.delete(op);
      this.#editsDone.add(op);
      for (const old of this.#editsDone) {
        if (this.#editsDone.size <= REMEMBERED) break;
        this.#editsDone.delete(old);
      }
      try {
        const { draft, undo } = this.document.edit(changes);
        this.#sendSave(draft, [{ op }], (why) => {
          undo();
          this.#refuseEdit(op, why.message);
        });
      } catch (thrown) {
        this.#refuseEdit(op, inWords(thrown));
      }
      return true;
    }
    return false;
  }

  #refuseEdit(op: string, why: string): void {
    // The cut, or the game's words, may leave half of a character, which no frame can have.
    const refused = why.slice(0, 1000).replace(HALVES, "\ufffd");
    this.#sendSave(this.document.storedDraft(), [{ op, refused }]);
  }

  /** `instead`: what is done when the save of an edit is refused. */
  #sendSave(draft: Draft, edits_done: EditDone[], instead?: (why: ProfileError) => void): void {
    const { s } = this.session;
    const [i, n] = [this.wire.number(), this.nextSave()];
    const { body, texts } = framed(draft);
    const frame = compose("save", { i, s, n, ...body, edits_done }, texts);
    this.#isSending = true;
    this.wire.request(i, [frame], {
      done: (answer) => {
        this.document.stored(draft);
        if (answer[0] === "saved" && answer[1].version !== null) this.version = answer[1].version;
        this.#sent();
      },
      failed: (error) => {
        if (error.kind === "session-ended") return this.#ended(error);
        if (error.advice !== "retry") {
          return instead === undefined ? this.#refused(error, draft) : instead(error);
        }
        // It was not done. Under a new number, but not before the session can have changed.
        setTimeout(() => {
          if (this.#isOver) this.#ended(failure("session-ended", "the session is over"));
          else this.#sendSave(draft, edits_done, instead);
        }, AGAIN_MS);
      },
    });
  }

  /** An answer is there, and the next frame may go. */
  #sent(): void {
    this.#isSending = false;
    this.#settleWaiters();
    this.#idle.splice(0).forEach((done) => done());
    if (this.#waiters.length > 0) this.#isDue = true;
    this.changed();
    this.#pump();
  }

  #ended(error: ProfileError): void {
    this.#isSending = false;
    this.#idle.splice(0).forEach((done) => done());
    if (this.#isOver) return this.#failAll(error);
    if (this.#end === undefined) this.user.lost();
    this.over(error);
  }

  /** A save was refused for good. The session goes on. */
  #refused(error: ProfileError, draft: Draft): void {
    this.#isSending = false;
    this.#idle.splice(0).forEach((done) => done());
    this.#waiters = this.#waiters.filter((waiter) => {
      const isMeant = waiter.revision <= draft.revision;
      if (isMeant) waiter.failed(error);
      return !isMeant;
    });
    this.user.refused(error);
    if (this.#waiters.length > 0) this.#isDue = true;
    this.changed();
    this.#pump();
  }

  #sendEnd(end: Ending): void {
    const { s } = this.session;
    const draft = this.document.draft();
    const [i, n] = [this.wire.number(), this.nextSave()];
    const { body, texts } = framed(draft);
    const frame = compose("end", { i, s, n, ...body, edits_done: [] }, texts);
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#isSending = end.isSent = true;
    this.wire.request(i, [frame], {
      done: () => {
        this.#isSending = false;
        this.document.stored(draft);
        this.#settleWaiters();
        end.done();
      },
      failed: (error) => {
        this.#isSending = false;
        this.#end = undefined;
        end.failed(error);
        this.changed();
        // What came meanwhile.
        this.#pump();
      },
    });
  }

  #settleWaiters(): void {
    this.#waiters = this.#waiters.filter((waiter) => {
      const isStored = waiter.revision <= this.document.storedRevision;
      if (isStored) waiter.done();
      return !isStored;
    });
  }

  /** The session is over. A save that is under way still has its answer. */
  over(why = failure("session-ended", `the session is over: ${this.session.key}`)): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#edits.clear();
    if (this.#isSending && why.kind !== "unknown")
      return void this.settled().then(() => this.#failAll(why));
    this.#failAll(why);
  }

  #failAll(why: ProfileError): void {
    this.#settleWaiters();
    this.#waiters.splice(0).forEach((waiter) => waiter.failed(why));
    this.#thawing.splice(0).forEach((done) => done());
    this.#end?.failed(why);
    this.#end = undefined;
  }
}
