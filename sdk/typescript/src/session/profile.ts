/** A session on one profile: its data, its messages, its events, and its way out. */
import { failure, ProfileError, quiet } from "../errors.js";
import { call, Events, type Report } from "../events.js";
import type { Asker, ByServer, Meta, SessionFrame } from "../frames.js";
import { members, parse } from "../json.js";
import { calls, oneOf } from "../options.js";
import type { Table } from "./beside.js";
import type { Document, Draft } from "./document.js";
import { Saver, type Wire } from "./saver.js";
import type { User } from "./users.js";

/** The same data, for reading. */
export type Reading<T> = T extends object ? { readonly [Name in keyof T]: Reading<T[Name]> } : T;

/** How a session ended. */
export interface End {
  /**
   * `ended` by this program, `released` for another server or an operator, or without being asked:
   * `external` (the profile was taken), `operator`, `lost`.
   */
  readonly reason: "ended" | "released" | "external" | "operator" | "lost";
  /** Who asked for the profile, or took it, if that is known. */
  readonly by: Asker | undefined;
  /** The last changes were not stored. */
  readonly hasLoss: boolean;
}

/** A message, beside its body. */
export interface Received {
  readonly id: string;
  readonly sentAt: Date;
}

/** What `Profile.on` tells of. */
export interface ProfileEvents {
  /** The session is over: let the player go. */
  end: End;
  /** Another server or an operator asks for the profile. It is saved and handed over at once. */
  release: { readonly by: Asker };
  /** A change could not be stored. The data stays as it is, and the next change tries again. */
  "save-failed": ProfileError;
  /** A message's handler failed. The message stays in the inbox. */
  "message-failed": { readonly id: string; readonly error: unknown };
}

const EVENTS: readonly (keyof ProfileEvents)[] = [
  "end",
  "release",
  "save-failed",
  "message-failed",
];

type Handler<T> = (data: T, message: never, received: Received) => void;
type Message = Extract<SessionFrame, ["message", unknown]>[1];

/** How many messages without a handler are kept here; the inbox has the others. */
const MOST_WAITING = 1000;

/** When a profile that was asked for is let go again, if the server could not do it. */
const AGAIN_MS = 1000;

export interface Opened {
  readonly s: number;
  readonly store: string;
  readonly scope: string;
  readonly key: string;
  readonly epoch: number;
  readonly version: number;
  readonly meta: string;
}

/** A profile that this game server holds. `Store.start` opens it. */
export class Profile<T> {
  readonly store: string;
  readonly scope: string;
  readonly key: string;
  readonly #events: Events<ProfileEvents>;
  readonly #handlers = new Map<string | undefined, Handler<T>>();
  readonly #lastSave: ((data: T) => void)[] = [];
  /** The revision that the last hooks have left, for which they do not run again. */
  #lastRevision: number | undefined;
  readonly #waiting = new Map<number, Message>();
  readonly #document: Document<T>;
  readonly #saver: Saver<T>;
  readonly #wire: Wire;
  #release: Asker | undefined;
  #isEnding = false;
  #isAsked = false;
  /** Who asked while an end was under way. */
  #askedMeanwhile: Asker | undefined;
  #ending: Promise<void> | undefined;
  #end: End | undefined;

  /** @internal */
  constructor(
    /** @internal */
    readonly opened: Opened,
    document: Document<T>,
    wire: Wire,
    saveWithinMs: number,
    report: Report,
  ) {
    ({ store: this.store, scope: this.scope, key: this.key } = opened);
    this.#document = document;
    this.#wire = wire;
    this.#events = new Events(report);
    this.#saver = new Saver(opened, document, wire, saveWithinMs, {
      refused: (error) => this.#events.emit("save-failed", error),
      thawed: () => this.#thawed(),
      lost: () => this.#finish("lost", undefined, true),
    });
  }

  /** The data, for reading: frozen, and a new object after each change. `update` changes it. */
  get data(): Reading<T> {
    return this.#document.view as Reading<T>;
  }

  /** As they were at the start: users, tags, metadata, and how often the profile was opened. */
  get meta(): Meta {
    const meta: Record<string, unknown> = {};
    for (const [name, text] of members(this.opened.meta)) {
      const isOfGame = name === "tags" || name === "metadata";
      meta[name] = parse(text, isOfGame ? this.#document.numbers : { bigint: false });
    }
    return meta as unknown as Meta;
  }

  /** The version that is stored. */
  get version(): number {
    return this.#saver.version;
  }

  /** Whether there are changes that are not stored yet. */
  get hasUnsaved(): boolean {
    return this.#end === undefined ? this.#document.isChanged : this.#end.hasLoss;
  }

  /** How the session ended. undefined: it goes on. */
  get ended(): End | undefined {
    return this.#end;
  }

  /**
   * Whether this game server may believe that the profile is its own. Ask before something that
   * cannot be taken back, such as giving out what is worth money outside of the profile.
   */
  get isActive(): boolean {
    const isOpen = this.#end === undefined && !this.#isEnding && !this.#isAsked;
    return isOpen && this.#wire.isActive(this.opened.s);
  }

  /**
   * Changes the data, at once. The change is stored within 5 s, or by `save`. What the function
   * throws comes through, and then nothing is changed. Fails with `busy` while a transaction has
   * the profile or it is being handed over, with `session-ended` after that, and with `invalid`
   * when the data has something that cannot be stored.
   */
  update<R>(change: (data: T) => R): R {
    this.#mustBeOpen();
    const result = this.#document.change(change);
    this.#saver.changed();
    return result;
  }

  /** The users associated with the profile, for search, export and erasure. */
  get users(): readonly User[] {
    return this.#document.beside.users;
  }

  /**
   * Associates a user: a number, or a name such as the UUID of a Minecraft player, of up to 100
   * bytes. UUIDs with hyphens get small letters. Stored as changes of the data are.
   */
  addUser(user: User | bigint): void {
    this.#changeBeside((beside) => beside.addUser(user));
  }

  /** Takes a user's association away. */
  removeUser(user: User | bigint): void {
    this.#changeBeside((beside) => beside.removeUser(user));
  }

  /**
   * The game's tags: what it notes of the profile beside the data, for support and tools. A new
   * object each time. Those of `dataVersion` are among them.
   */
  get tags(): Table {
    return this.#document.beside.tags;
  }

  /**
   * Replaces the tags. Stored as changes of the data are. Those of `dataVersion` stay, whatever is
   * given.
   */
  setTags(tags: Table): void {
    this.#changeBeside((beside) => beside.setTags(tags));
  }

  /** The metadata of the profile's key, on Roblox `RobloxMetaData`. A new object each time. */
  get metadata(): Table {
    return this.#document.beside.metadata;
  }

  /**
   * Replaces the metadata. Stored as changes of the data are. Fails with `too-large`, and changes
   * nothing, when a name has more than 50 characters, a value more than 250, or all of it more than
   * 300 as JSON.
   */
  setMetadata(metadata: Table): void {
    this.#changeBeside((beside) => beside.setMetadata(metadata));
  }

  #changeBeside(change: (beside: Document<T>["beside"]) => void): void {
    this.#mustBeOpen();
    this.#document.changeBeside(change);
    this.#saver.changed();
  }

  #mustBeOpen(): void {
    if (this.#end !== undefined) throw failure("session-ended", `the session is over: ${this.key}`);
    if (this.#isEnding) throw failure("busy", `the profile is being handed over: ${this.key}`);
    if (this.#saver.isFrozen) throw failure("busy", `a transaction has the profile: ${this.key}`);
  }

  /** Resolves when every change up to now is stored. */
  save(): Promise<void> {
    if (this.#end !== undefined) {
      return quiet(Promise.reject(failure("session-ended", `the session is over: ${this.key}`)));
    }
    return quiet(this.#saver.save());
  }

  /** The last save and the release, in one commit. Once it resolves, any server may start it. */
  end(): Promise<void> {
    if (this.#ending !== undefined) return this.#ending;
    if (this.#end !== undefined) return Promise.resolve();
    try {
      this.#document.mustBeAtRest();
    } catch (within) {
      return quiet(Promise.reject(within as ProfileError));
    }
    this.#lastRevision = undefined;
    return (this.#ending = quiet(this.#letGo("ended", undefined)));
  }

  /** Calls `handler` at each event. The function that comes back takes the handler away. */
  on<Name extends keyof ProfileEvents>(
    name: Name,
    handler: (event: ProfileEvents[Name]) => unknown,
  ): () => void {
    oneOf("name", EVENTS, name);
    calls("handler", handler);
    return this.#events.on(name, handler);
  }

  /**
   * What messages with a `type` do to the data, or with no type those that have no handler of their
   * own. The effect and the receipt are stored in one commit: each message has its effect once.
   */
  onMessage<M>(type: string, handler: (data: T, message: M, received: Received) => void): void;
  onMessage<M>(handler: (data: T, message: M, received: Received) => void): void;
  onMessage(first: string | Handler<T>, second?: Handler<T>): void {
    const [type, handler] = typeof first === "string" ? [first, second] : [undefined, first];
    calls("handler", handler);
    this.#handlers.set(type, handler as Handler<T>);
    this.#processAll();
  }

  /**
   * A last change of the data before `end` and before a hand-over. It is made once, however often
   * the hand-over is tried, unless the data was changed in between.
   */
  onLastSave(change: (data: T) => void): void {
    calls("change", change);
    this.#lastSave.push(change);
    this.#lastRevision = undefined;
  }

  // --- the way out ---------------------------------------------------------------------------

  async #letGo(reason: "ended" | "released", by: Asker | undefined): Promise<void> {
    // Another transaction may begin at the end of the first.
    while (this.#saver.isFrozen && this.#end === undefined) await this.#saver.whenThawed();
    if (this.#end !== undefined) throw failure("session-ended", `the session is over: ${this.key}`);
    if (!this.#isEnding) this.#runLast();
    this.#isEnding = true;
    try {
      await this.#saver.end();
      this.#finish(reason, by, false);
    } catch (error) {
      if (error instanceof ProfileError && error.kind === "session-ended") {
        this.#finish("lost", by, this.#document.isChanged);
      } else {
        // It was refused, so the session goes on.
        this.#isEnding = false;
        this.#ending = undefined;
        // What came meanwhile.
        this.#processAll();
        const asked = this.#askedMeanwhile;
        this.#askedMeanwhile = undefined;
        if (asked !== undefined) this.#asked(asked);
      }
      throw error;
    }
  }

  #runLast(): void {
    if (this.#document.revision === this.#lastRevision) return;
    for (const change of this.#lastSave) {
      call(() => this.#document.change(change), this.#events.report);
    }
    this.#lastRevision = this.#document.revision;
  }

  #finish(reason: End["reason"], by: Asker | undefined, hasLoss: boolean): void {
    if (this.#end !== undefined) return;
    this.#end = { reason, by, hasLoss };
    this.#waiting.clear();
    this.#wire.over(this.opened.s);
    this.#saver.over();
    this.#events.emit("end", this.#end);
  }

  /** @internal There is no connection any more, and there will be none. */
  abandon(): void {
    this.#finish("lost", undefined, this.#document.isChanged);
  }

  // --- what the server says ------------------------------------------------------------------

  /** @internal */
  heard([name, body]: SessionFrame): void {
    if (this.#end !== undefined) return;
    switch (name) {
      case "resumed":
        this.#saver.version = Math.max(this.#saver.version, body.version);
        return;
      case "lost":
        return this.#over("lost", body.by);
      case "closed":
        return this.#over(
          body.why === "external" || body.why === "operator" ? body.why : "lost",
          body.by,
        );
      case "release":
        return this.#asked(body.by);
      case "message":
        if (this.#waiting.size >= MOST_WAITING) return;
        this.#waiting.set(body.index, body);
        return this.#processAll();
      case "edit":
        // During an end it waits: when that is refused, the session goes on and the edit is made.
        this.#saver.edit(body.op, body.changes);
    }
  }

  #asked(by: Asker): void {
    // From now on no pong counts, also when the end is refused: the deadline of the server runs.
    this.#isAsked = true;
    if (this.#release !== undefined) return;
    if (this.#ending !== undefined) {
      this.#askedMeanwhile = by;
      return;
    }
    this.#release = by;
    this.#events.emit("release", { by });
    this.#handOver(by);
  }

  #handOver(by: Asker): void {
    if (this.#end !== undefined) return;
    this.#release = by;
    // The game may have ended it by itself. When that is refused, the profile is asked for still.
    const ending = (this.#ending ??= quiet(this.#letGo("released", by)));
    const refused = (error: unknown) => {
      this.#release = undefined;
      if (this.#end !== undefined) return;
      const why = error as ProfileError;
      this.#events.emit("save-failed", why);
      if (why.advice !== "retry") {
        this.#lastRevision = undefined;
        return;
      }
      // It was not done, and nobody else tries again. The server's deadline runs.
      setTimeout(() => {
        // Otherwise it was asked for again meanwhile.
        if (this.#release === undefined) this.#handOver(by);
      }, AGAIN_MS);
    };
    ending.catch(refused);
  }

  #over(reason: End["reason"], by: ByServer | null): void {
    // The answer to an end that was sent says what became of it.
    if (this.#saver.isEndSent) return;
    const server = by === null ? undefined : { server: by };
    this.#finish(reason, server, this.#document.isChanged);
  }

  #thawed(): void {
    if (this.#end === undefined && !this.#isEnding) this.#processAll();
  }

  #processAll(): void {
    for (const [index, message] of [...this.#waiting]) {
      // What the game did because of the one before may be the end, or a transaction.
      if (this.#saver.isFrozen || this.#isEnding || this.#end !== undefined) return;
      if (this.#document.hasSeen(index)) {
        this.#waiting.delete(index);
        continue;
      }
      this.#process(index, message);
    }
  }

  #process(index: number, message: Message): void {
    const received = { id: message.id, sentAt: new Date(message.sent_ms) };
    try {
      const body = parse(message.body, this.#document.numbers) as never;
      const type =
        typeof body === "object" && body !== null ? (body as { type?: unknown }).type : undefined;
      const own = typeof type === "string" ? this.#handlers.get(type) : undefined;
      const handler = own ?? this.#handlers.get(undefined);
      if (handler === undefined) return;
      this.#waiting.delete(index);
      this.#document.process(index, (data) => handler(data, body, received));
      this.#saver.soon();
    } catch (error) {
      this.#waiting.delete(index);
      this.#events.emit("message-failed", { id: message.id, error });
    }
  }

  // --- transactions --------------------------------------------------------------------------

  /** @internal Takes the profile for a transaction. */
  freeze(): Document<T> {
    this.#mustBeOpen();
    this.#document.mustBeAtRest();
    this.#saver.freeze();
    return this.#document;
  }

  /** @internal No save is under way any more. */
  settled(): Promise<void> {
    return this.#saver.settled();
  }

  /** @internal What is not stored yet. */
  pending(): Draft {
    return this.#document.draft();
  }

  /** @internal The number of the part, which counts as a save. */
  nextSave(): number {
    return this.#saver.nextSave();
  }

  /** @internal The transaction is over. `stored`: what it stored of this profile. */
  thaw(stored: Draft | undefined, version: number | undefined): void {
    if (stored !== undefined) {
      this.#document.take(stored.text);
      this.#document.stored({ ...stored, revision: this.#document.revision });
    }
    if (version !== undefined) this.#saver.version = version;
    this.#saver.thaw();
  }
}
