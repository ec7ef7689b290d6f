/** One store of profiles, with the type of its data. */
import type { Named } from "./connection.js";
import { timerMs } from "./belief.js";
import { failure, inWords, ProfileError, quiet } from "./errors.js";
import type { Report } from "./events.js";
import { compose } from "./frames.js";
import { messageId, type Http, type Page, type StoredProfile, type Version } from "./http.js";
import { parse, stringify, type Numbers } from "./json.js";
import { calls, fields, frameMs, oneOf, text, timeMs, whole } from "./options.js";
import { Beside } from "./session/beside.js";
import { Document } from "./session/document.js";
import { put } from "./session/edit.js";
import { Profile } from "./session/profile.js";
import { giftText, type Bench, type Gift } from "./transaction.js";

/** How a store's profiles begin, and are read and written. */
export interface StoreOptions<T> {
  /** The data of a player who plays for the first time. It gives the data its type. */
  readonly template: T;
  readonly scope?: string | undefined;
  /** Members that the template has and the stored data has not are filled in. */
  readonly reconcile?: boolean | undefined;
  /**
   * Every whole number is a `bigint`, and a `number` is written with a fraction. Otherwise stored
   * data with a whole number beyond 2^53 cannot be opened.
   */
  readonly bigint?: boolean | undefined;
  /** Throws when data does not fit the program: asked at each start, and about operators' edits. */
  readonly check?: ((data: T) => void) | undefined;
  /** The version of the data that the program writes. Older programs leave it alone. */
  readonly dataVersion?: number | undefined;
  /** From which version on programs can read what this one writes; the same by default. */
  readonly readableFrom?: number | undefined;
  /** Within how many milliseconds a change is stored: 5000. */
  readonly saveWithinMs?: number | undefined;
}

/** How a profile is opened. */
export interface StartOptions {
  /** Calls the start off. */
  readonly signal?: AbortSignal | undefined;
  /**
   * When another game server holds the profile: `ask` it to save and let go (the default), `wait`
   * without asking, `give_up` with the error `cancelled`, or `steal`, which loses what the holder
   * has not saved.
   */
  readonly whenHeld?: "ask" | "wait" | "give_up" | "steal" | undefined;
  /** After how many milliseconds the start fails with `timed-out`: 120,000. */
  readonly timeoutMs?: number | undefined;
}

/** What `whenHeld` may be. */
const WHEN_HELD = ["ask", "wait", "give_up", "steal"] satisfies StartOptions["whenHeld"][];

/** How long a start may take by default, as the server has it. */
const START_MS = 120_000;

/** How much later than the server a start's time is over here: the server's word counts first. */
const LATER_MS = 1000;

/** When an end is tried again that the server could not do. */
const AGAIN_MS = 1000;

/** Within what time a change is stored by default. */
const SAVE_WITHIN_MS = 5000;

/** What a store needs of the server it belongs to. */
export interface Shop extends Bench {
  /** Calls off the start with this number. */
  callOff(i: number): void;
  readonly http: Http;
  readonly report: Report;
  /** Nothing is opened any more. */
  readonly isClosing: boolean;
  session(): number;
  opened(profile: Profile<unknown>): void;
  /** A session that the program has not seen is let go: a resume names it until it is over. */
  leaving(session: Named): void;
}

/** The profiles of one store. `Server.store` makes it. */
export class Store<T> {
  readonly scope: string;
  readonly #numbers: Numbers;
  readonly #template: string;

  /** @internal */
  constructor(
    readonly name: string,
    readonly options: StoreOptions<T>,
    /** @internal */
    readonly shop: Shop,
  ) {
    text("name", name);
    fields("options", options);
    this.scope = text("scope", options.scope ?? "global");
    if (options.check !== undefined) calls("check", options.check);
    timeMs("saveWithinMs", options.saveWithinMs ?? SAVE_WITHIN_MS);
    whole("dataVersion", options.dataVersion);
    whole("readableFrom", options.readableFrom);
    this.#numbers = { bigint: options.bigint ?? false };
    this.#template = stringify(options.template, this.#numbers);
  }

  /**
   * Opens a profile. When another game server holds it, that one saves it and lets it go first. The
   * profile is this game server's until `end`, or until its event `end`.
   */
  start(key: string, options: StartOptions = {}): Promise<Profile<T>> {
    try {
      const { whenHeld } = fields("options", options);
      if (whenHeld !== undefined) oneOf("whenHeld", WHEN_HELD, whenHeld);
      const timeoutMs = frameMs("timeoutMs", options.timeoutMs);
      return quiet(this.#start(text("key", key), { ...options, timeoutMs }));
    } catch (error) {
      return quiet(Promise.reject(error as Error));
    }
  }

  #start(key: string, { signal, whenHeld, timeoutMs }: StartOptions): Promise<Profile<T>> {
    const cancelled = () => failure("cancelled", `the start was called off: ${key}`);
    if (signal?.aborted === true) return Promise.reject(cancelled());
    const { shop } = this;
    const closing = () => failure("closing", `this game server is closing: ${key}`);
    if (shop.isClosing) return Promise.reject(closing());
    const [s, i] = [shop.session(), shop.number()];
    const { dataVersion: data_version, readableFrom: readable_from } = this.options;
    const how = { when_held: whenHeld, timeout_ms: timeoutMs, data_version, readable_from };
    const body = { i, s, store: this.name, scope: this.scope, key, ...how };
    const frame = compose("start", body, { template: this.#template });
    return new Promise((done, failed) => {
      let isOff = false;
      const giveUp = (why: ProfileError) => {
        isOff = true;
        over();
        shop.callOff(i);
        failed(why);
      };
      const callOff = () => giveUp(cancelled());
      // Before the timer: what is no signal fails here, and leaves none behind.
      signal?.addEventListener("abort", callOff, { once: true });
      // The server's clock begins anew at each process, and does not run without a connection.
      const ms = timeoutMs ?? START_MS;
      const late = `the start took longer than ${ms} ms: ${key}`;
      const timer = setTimeout(
        () => giveUp(failure("timed-out", late)),
        timerMs(ms + LATER_MS),
      );
      const over = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", callOff);
      };
      shop.request(i, [frame], {
        done: (answer) => {
          over();
          if (answer[0] !== "started")
            return failed(failure("internal", "a start without its answer"));
          const letGo = () => {
            shop.leaving([s, this.name, this.scope, key, answer[1].epoch]);
            this.#letGo(s);
          };
          if (isOff || shop.isClosing) {
            letGo();
            return failed(closing());
          }
          try {
            done(this.#opened(key, answer[1]));
          } catch (error) {
            letGo();
            failed(
              error instanceof ProfileError ? error : failure("undecodable", inWords(error), error),
            );
          }
        },
        failed: (error) => {
          over();
          // It may be given up, and have opened its session all the same.
          isOff = true;
          failed(error);
        },
      });
    });
  }

  #opened(
    key: string,
    started: { s: number; epoch: number; version: number; data: string; meta: string },
  ): Profile<T> {
    const { check, reconcile, saveWithinMs = SAVE_WITHIN_MS } = this.options;
    const beside = new Beside(started.meta, this.#numbers);
    const document = new Document<T>(started.data, this.#numbers, check, beside);
    if (reconcile === true) {
      const template = parse(this.#template, this.#numbers);
      document.change((data) => void fill(data, template));
    }
    check?.(parse(document.text, this.#numbers) as T);
    const { s, epoch, version, meta } = started;
    const opened = { s, store: this.name, scope: this.scope, key, epoch, version, meta };
    const profile = new Profile(opened, document, this.shop, saveWithinMs, this.shop.report);
    this.shop.opened(profile as Profile<unknown>);
    return profile;
  }

  /** Ends a session that the program has not seen, as it is stored. Otherwise it stays locked. */
  #letGo(s: number, n = 1): void {
    const i = this.shop.number();
    this.shop.request(i, [compose("end", { i, s, n })], {
      done: () => this.shop.over(s),
      failed: ({ kind, advice }) => {
        if (advice === "retry" && kind !== "closing")
          setTimeout(() => this.#letGo(s, n + 1), AGAIN_MS);
        else this.shop.over(s);
      },
    });
  }

  /** A message to a profile, for a transaction. Its id makes it once: `TIME:NAME`. */
  gift(key: string, message: unknown, id: string = messageId()): Gift {
    const to = { store: this.name, scope: this.scope, key: text("key", key), id: text("id", id) };
    return { ...to, message: stringify(message, this.#numbers) };
  }

  /**
   * Sends a message to a profile, whether it is played or not. Resolves when it is stored; false
   * when it had been sent before under this id.
   */
  send(key: string, message: unknown, id: string = messageId()): Promise<boolean> {
    const { shop } = this;
    const sent = new Promise<boolean>((done, failed) => {
      const gift = giftText(this.gift(key, message, id));
      const i = shop.number();
      shop.request(i, [compose("send", { i }, { gift })], {
        done: (answer) => done(answer[0] === "sent" && answer[1].stored_now),
        failed,
      });
    });
    return quiet(sent);
  }

  /** A profile as it is stored, without a session. undefined: there is none. */
  get(key: string): Promise<StoredProfile<T> | undefined> {
    return this.shop.http.get<T>(this.at(key), this.#numbers);
  }

  /** A profile's versions, the newest first. */
  versions(key: string): Promise<Page<Version>> {
    return this.shop.http.versions(this.at(key));
  }

  /** An earlier version: by its number, its label, or as it was at a time. */
  version(key: string, which: number | string | Date): Promise<StoredProfile<T>> {
    return this.shop.http.version<T>(this.at(key), which, this.#numbers);
  }

  /** What names a profile of this store in `Http`. */
  at(key: string): { store: string; scope: string; key: string } {
    return { store: this.name, scope: this.scope, key };
  }
}

/** Fills in what the template has and the data has not. Lists are left alone. */
function fill(data: unknown, template: unknown): void {
  if (!isPlain(data) || !isPlain(template)) return;
  for (const [name, value] of Object.entries(template)) {
    if (Object.hasOwn(data, name)) fill(data[name], value);
    else put(data, name, value);
  }
}

function isPlain(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
