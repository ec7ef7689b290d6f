/** A game server: it holds profiles, through one connection. */
import { timerMs } from "./belief.js";
import { Connection, type Holder, type Named, type Outcome } from "./connection.js";
import { failure, quiet } from "./errors.js";
import { call, type Report } from "./events.js";
import type { ResumedAs, SessionFrame } from "./frames.js";
import { Http } from "./http.js";
import { calls, fields, frameMs, text, timeMs, whole } from "./options.js";
import type { Profile } from "./session/profile.js";
import { Store, type Shop, type StoreOptions } from "./store.js";
import { transact, type AnyProfile, type DataOf, type TransactionOptions } from "./transaction.js";

export interface ConnectOptions {
  /** A key with the scope `sessions:hold`, from `profilestore keys add`. */
  readonly key: string;
  /** The game server's name, for people: 1 to 100 bytes. */
  readonly job: string;
  /** Which game or part of it. */
  readonly place?: number | undefined;
  /**
   * After how many milliseconds without a sign of life others may take the profiles: 20,000 by
   * default, 10,000 to 600,000.
   */
  readonly leaseMs?: number | undefined;
  /** For how many milliseconds the first connection is tried: 10,000. */
  readonly connectMs?: number | undefined;
  /** Told of what has no caller to be told, such as an error of a handler. `console.error`. */
  readonly onFault?: Report | undefined;
}

/**
 * Connects as a game server. Several addresses are those of processes on the same store: when one
 * dies, the sessions go on at another.
 */
export function connect(url: string | readonly string[], options: ConnectOptions): Promise<Server> {
  // Of a game that no compiler checks it may be a URL, for example.
  const isList = typeof url === "object" && url !== null && Symbol.iterator in url;
  return quiet(Server.open(isList ? [...url] : [url], options));
}

function checkUrls(urls: readonly string[]): void {
  const isUrl = (url: string) => /^wss?:\/\/\S+$/.test(text("url", url)) && URL.canParse(url);
  if (urls.length > 0 && urls.every(isUrl)) return;
  const told = "an address begins with ws:// or wss://, and has no space";
  throw failure("invalid", `${told}: given=\`${urls.join(" ")}\``);
}

const CLOSE_MS = 30_000;

export class Server implements Holder {
  /** One-shot work and operators' calls, at the first address. */
  readonly http: Http;
  readonly #profiles = new Map<number, Profile<unknown>>();
  /** Sessions that the program has not seen, until they are over. */
  readonly #leaving = new Map<number, Named>();
  /** Sessions that a resume has not answered yet, and whether they may be believed in meanwhile. */
  readonly #unanswered = new Map<number, () => boolean>();
  readonly #connection: Connection;
  readonly #shop: Shop;
  #s = 0;
  #closing: Promise<Profile<unknown>[]> | undefined;

  private constructor(urls: readonly string[], options: ConnectOptions) {
    checkUrls(urls);
    fields("options", options);
    if (options.onFault !== undefined) calls("onFault", options.onFault);
    const key = text("key", options.key);
    const job = text("job", options.job);
    const place = whole("place", options.place) ?? 0;
    const leaseMs = frameMs("leaseMs", options.leaseMs);
    const connectMs = timeMs("connectMs", options.connectMs ?? 10_000);
    const told = options.onFault ?? ((fault: unknown) => console.error("profilestore:", fault));
    const report: Report = (fault) =>
      call(
        () => told(fault),
        () => {},
      );
    const connection = new Connection({ urls, key, job, place, leaseMs, connectMs }, this, report);
    const http = new Http((urls[0] ?? "").replace(/^ws/, "http"), key);
    this.#connection = connection;
    this.http = http;
    const isClosing = () => this.#closing !== undefined;
    const isActive = (s: number) => (this.#unanswered.get(s) ?? (() => connection.isActive()))();
    this.#shop = {
      http,
      report,
      isActive,
      get maxFrame() {
        return connection.maxFrame;
      },
      get isClosing() {
        return isClosing();
      },
      number: () => connection.number(),
      request: (i, frames, outcome: Outcome) => {
        const isKept = !/^\{"(start|send)"/.test(frames[0] ?? "");
        connection.request(i, frames, outcome, isKept);
      },
      callOff: (i) => connection.callOff(i),
      session: () => ++this.#s,
      opened: (profile) => void this.#profiles.set(profile.opened.s, profile),
      leaving: (session) => void this.#leaving.set(session[0], session),
      over: (s) => {
        this.#profiles.delete(s);
        this.#leaving.delete(s);
        this.#unanswered.delete(s);
      },
    };
  }

  /** @internal */
  static async open(urls: readonly string[], options: ConnectOptions): Promise<Server> {
    const server = new Server(urls, options);
    await server.#connection.open();
    return server;
  }

  /** Whether there is a connection at this moment. Play goes on without one for a while. */
  get isConnected(): boolean {
    return this.#connection.isConnected;
  }

  /** The profiles that this game server holds. */
  get profiles(): Profile<unknown>[] {
    return [...this.#profiles.values()];
  }

  /** A store. Its template gives the data its type. */
  store<T>(name: string, options: StoreOptions<T>): Store<T> {
    return new Store(name, options, this.#shop);
  }

  /**
   * Changes several profiles of this game server together, and sends gifts with it: all of it or
   * nothing. The profiles cannot be changed until it resolves.
   */
  transaction<const Profiles extends readonly AnyProfile[], R>(
    profiles: readonly [...Profiles],
    change: (data: DataOf<Profiles>) => R,
    options: TransactionOptions = {},
  ): Promise<R> {
    const all = profiles as unknown as readonly Profile<unknown>[];
    return quiet(transact(this.#shop, all, change as unknown as (data: unknown[]) => R, options));
  }

  /**
   * Ends all sessions, and then the connection. Resolves with the profiles that were not saved
   * within `timeoutMs`: 30,000.
   */
  close({ timeoutMs = CLOSE_MS }: { timeoutMs?: number | undefined } = {}): Promise<
    Profile<unknown>[]
  > {
    if (this.#closing !== undefined) return this.#closing;
    try {
      timeMs("timeoutMs", timeoutMs);
    } catch (error) {
      return quiet(Promise.reject(error as Error));
    }
    return (this.#closing = quiet(this.#close(timeoutMs)));
  }

  async #close(timeoutMs: number): Promise<Profile<unknown>[]> {
    const open = this.profiles;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise((done) => (timer = setTimeout(done, timerMs(timeoutMs))));
    await Promise.race([Promise.allSettled(open.map((profile) => profile.end())), late]);
    clearTimeout(timer);
    const unsaved = open.filter((profile) => profile.hasUnsaved || profile.ended === undefined);
    const closed = this.#connection.close();
    // Nothing of these can be saved any more. Their leases run out.
    [...open, ...this.profiles].forEach((profile) => profile.abandon());
    await closed;
    return unsaved;
  }

  /** @internal */
  named(): Named[] {
    const held = this.profiles.map(
      ({ opened: { s, store, scope, key, epoch } }): Named => [s, store, scope, key, epoch],
    );
    return [...held, ...this.#leaving.values()];
  }

  /** @internal */
  resumed(how: ResumedAs): void {
    const before = this.#connection.snapshot();
    for (const s of this.#profiles.keys()) {
      const isActive = how === "same" ? (this.#unanswered.get(s) ?? before) : () => false;
      this.#unanswered.set(s, isActive);
    }
  }

  /** @internal */
  replaced(): void {
    this.profiles.forEach((profile) => profile.abandon());
  }

  /** @internal */
  frame(frame: SessionFrame): void {
    const { s } = frame[1];
    if (frame[0] === "resumed") this.#unanswered.delete(s);
    this.#profiles.get(s)?.heard(frame);
  }
}
