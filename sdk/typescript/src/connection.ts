/**
 * The connection of one game server: it is opened again whenever it is lost, here or at another
 * address, and goes on as the same game server. A request that was sent never changes. It is kept
 * until it is answered, and sent again in order.
 */
import { randomBytes } from "node:crypto";
import { Belief, now, PING_MS, steady, timerMs } from "./belief.js";
import { failure, inWords, ProfileError } from "./errors.js";
import type { Report } from "./events.js";
import { compose, type ResumedAs, type ServerFrame, type SessionFrame } from "./frames.js";
import type { Pong } from "./link.js";
import { Links, type FarLink, type LinksUser } from "./links.js";

export interface ConnectionOptions {
  readonly urls: readonly string[];
  readonly key: string;
  readonly job: string;
  readonly place: number;
  readonly leaseMs: number | undefined;
  readonly connectMs: number;
}

/** A session as a resume names it: number, store, scope, key, epoch. */
export type Named = readonly [number, string, string, string, number];

/** Who holds the sessions. */
export interface Holder {
  named(): Named[];
  /** A resume was answered; each session is told about behind it. */
  resumed(how: ResumedAs): void;
  /** Another run goes on as this game server: nothing is told here any more. */
  replaced(): void;
  frame(frame: SessionFrame): void;
}

/** What becomes of a request. */
export interface Outcome {
  done(frame: ServerFrame): void;
  failed(error: ProfileError): void;
}

interface Request extends Outcome {
  /** It is repeated until its outcome is known. */
  readonly isKept: boolean;
  readonly isStart: boolean;
  readonly i: number;
  readonly frames: readonly string[];
  readonly bytes: number;
  attempts: number;
  isSent: boolean;
  isCalledOff: boolean;
}

const SDK = "typescript/0.1.0";
const MOST_RETRY_MS = 2000;
/** A host is late when its confirmation is older than this part of the lease. */
const LATE = 0.6;
const AGAIN_MS = 500;
/** How many requests may be unanswered. */
const MOST_REQUESTS = 100_000;
/** How many sessions one frame of a greeting names. */
const NAMED_AT_ONCE = 5000;
const REFUSED = new Set([
  "unauthorized",
  "forbidden",
  "upgrade-required",
  "invalid",
  "misdirected",
]);
/** Another run has resumed this game server, and goes on in the place of this one. */
const MADE_WAY = "run-replaced";
const ANSWERS = new Set(["started", "saved", "ended", "done", "sent", "error", "overloaded"]);

/** How long to wait before connecting again: soon at first, not with all others at once. */
export function pause(failures: number, chance: number): number {
  return Math.min(MOST_RETRY_MS, 100 * 2 ** failures) * (0.2 + 0.8 * chance);
}

export class Connection implements LinksUser {
  readonly #instance = randomBytes(32).toString("hex");
  readonly #requests = new Map<number, Request>();
  /** Those of the unanswered starts and messages. */
  #bytes = 0;
  readonly #links = new Links(this);
  readonly #belief = new Belief();
  #identity: { incarnation: string; token: string; store: string } | undefined;
  #leaseMs = 0;
  #i = 0;
  #at = 0;
  #failures = 0;
  /** The one that counts. */
  #link: FarLink | undefined;
  /** The one that is to take its place. */
  #next: FarLink | undefined;
  #retry: NodeJS.Timeout | undefined;
  #watching: NodeJS.Timeout | undefined;
  #leaving: NodeJS.Timeout | undefined;
  #confirmedAt = 0;
  #leftAt = -Infinity;
  #opening: { done(): void; failed(why: ProfileError): void } | undefined;
  #openingLate: NodeJS.Timeout | undefined;
  /** Why there is no first connection yet. */
  #whyNot: ProfileError;
  #isClosed = false;
  /** How many bytes of starts and messages may be unanswered. A session has one save at most. */
  mostBytes = 256 << 20;
  /** How often a start or a message is tried whose outcome nobody knows. */
  mostAttempts = 60;
  /** How large a frame may be, in bytes. */
  maxFrame = 5 << 20;

  constructor(
    readonly options: ConnectionOptions,
    readonly holder: Holder,
    readonly report: Report,
  ) {
    const { urls, connectMs } = options;
    const detail = `no connection within ${connectMs} ms: ${urls.join(" ")}`;
    this.#whyNot = failure("unavailable", detail);
  }

  /** Connects for the first time. */
  open(): Promise<void> {
    return new Promise((done, failed) => {
      this.#opening = { done, failed };
      const late = () => this.#notOpened(this.#whyNot);
      this.#openingLate = setTimeout(late, timerMs(this.options.connectMs));
      this.#attempt();
    });
  }

  /** There is no first connection, and none is tried any more. */
  #notOpened(why: ProfileError): void {
    const opening = this.#opening;
    this.#opening = undefined;
    void this.close();
    opening?.failed(why);
  }

  get incarnation(): string {
    return this.#identity?.incarnation ?? "";
  }

  get isConnected(): boolean {
    return this.#link !== undefined;
  }

  /** Whether the sessions of this game server may be believed in. */
  isActive(): boolean {
    this.#hear();
    return this.#belief.holds(this.incarnation, now());
  }

  /** The same, as it is known at this moment: what comes later does not count. */
  snapshot(): () => boolean {
    this.#hear();
    const [incarnation, belief] = [this.incarnation, this.#belief.copy()];
    return () => belief.holds(incarnation, now());
  }

  // --- requests ------------------------------------------------------------------------------

  /** A number for the next request. */
  number(): number {
    return ++this.#i;
  }

  /**
   * Sends a request, once there is a connection. Only one of the outcomes happens, once. `isKept`:
   * it is repeated for as long as nobody knows what became of it.
   *
   * A start that is given up is called off until it is known what became of it. So it may be done
   * when it has failed: then its session is to be let go.
   */
  request(i: number, frames: readonly string[], outcome: Outcome, isKept: boolean): void {
    const { done, failed } = outcome;
    const sizes = frames.map((frame) => Buffer.byteLength(frame));
    const bytes = isKept ? 0 : sizes.reduce((sum, size) => sum + size, 0);
    const state = { attempts: 0, isSent: false, isCalledOff: false };
    const isStart = frames[0]?.startsWith('{"start"') === true;
    const request = { i, frames, isKept, isStart, bytes, ...state, done, failed };
    if (this.#isClosed) return request.failed(failure("closing", "this game server is closed"));
    if (sizes.some((size) => size > this.maxFrame)) {
      const detail = `a frame has at most ${this.maxFrame} bytes`;
      return request.failed(failure("too-large", detail));
    }
    if (this.#requests.size >= MOST_REQUESTS || this.#bytes + bytes > this.mostBytes) {
      return request.failed(failure("overloaded", "too many requests are unanswered"));
    }
    this.#requests.set(i, request);
    this.#bytes += bytes;
    this.#send(request);
  }

  /** Calls a start off, also one that is sent again later. */
  callOff(i: number): void {
    const request = this.#requests.get(i);
    if (request === undefined) return;
    if (!request.isSent) return this.#forget(request);
    request.isCalledOff = true;
    this.#tell(compose("cancel", { i }));
  }

  /** Sends what needs no answer. It is lost without a connection. */
  #tell(frame: string): void {
    if (!this.#isMuted) this.#link?.send(frame);
  }

  #send(request: Request): void {
    if (this.#link === undefined || this.#isMuted) return;
    request.isSent = true;
    request.frames.forEach((frame) => this.#tell(frame));
    if (request.isCalledOff) this.#tell(compose("cancel", { i: request.i }));
  }

  #forget(request: Request): void {
    if (this.#requests.delete(request.i)) this.#bytes -= request.bytes;
  }

  /** A greeting is under way at another link: what the old one says is said again there. */
  get #isMuted(): boolean {
    return this.#next?.hasGreeted === true;
  }

  #answer(frame: ServerFrame, i: number): void {
    const request = this.#requests.get(i);
    if (request === undefined) return;
    if (frame[0] === "overloaded") return this.#sendLater(request, frame[1].retry_after_ms);
    if (frame[0] === "error") {
      const { kind, advice } = frame[1].problem;
      // Nothing was done, or nobody knows. The same request finds out, through any process.
      const isOpen = kind === "closing" || advice === "retry-as";
      const goesOn =
        request.isKept || request.isCalledOff || ++request.attempts < this.mostAttempts;
      if (isOpen && (goesOn || request.isStart)) {
        this.#sendLater(request, AGAIN_MS);
        if (goesOn) return;
        // Its session may be there, and its caller waits no more.
        request.isCalledOff = true;
        return request.failed(new ProfileError(frame[1].problem));
      }
    }
    this.#forget(request);
    if (frame[0] === "error") request.failed(new ProfileError(frame[1].problem));
    else request.done(frame);
  }

  #sendLater(request: Request, ms: number): void {
    setTimeout(() => {
      if (this.#requests.has(request.i)) this.#send(request);
    }, ms);
  }

  // --- links ---------------------------------------------------------------------------------

  #attempt(): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    if (this.#isClosed || this.#next !== undefined) return;
    const { urls, key } = this.options;
    try {
      this.#next = this.#links.open(urls[this.#at++ % urls.length] ?? "", key);
    } catch (thrown) {
      // The platform has no thread to give, for one. It may have one later.
      this.#missed(failure("unavailable", `no link can be made: ${inWords(thrown)}`, thrown));
      this.#again();
    }
  }

  /** A link did not come to its greeting's end. */
  #missed(why: ProfileError): void {
    if (this.#opening !== undefined) this.#whyNot = why;
    else this.report(why);
  }

  /** Connects again after a while. */
  #again(): void {
    if (this.#isClosed || this.#retry !== undefined || this.#next !== undefined) return;
    this.#retry = setTimeout(() => this.#attempt(), pause(this.#failures++, Math.random()));
  }

  opened(): string[] {
    const { job, place, leaseMs } = this.options;
    const hello = { instance: this.#instance, job, place, lease_ms: leaseMs, sdk: SDK };
    if (this.#identity === undefined) return [compose("hello", hello)];
    const all = this.holder.named();
    const pieces: { sessions: Named[]; more: boolean }[] = [];
    do {
      const sessions = all.splice(0, NAMED_AT_ONCE);
      pieces.push({ sessions, more: all.length > 0 });
    } while (all.length > 0);
    const [first, ...others] = pieces;
    const resume = { ...this.#identity, ...first };
    return [
      compose("hello", { ...hello, resume }),
      ...others.map((piece) => compose("sessions", piece)),
    ];
  }

  frame(link: FarLink, frame: ServerFrame): void {
    try {
      this.#take(link, frame);
    } catch (thrown) {
      // It has a name, and not what belongs to it. The game is not to end by that.
      const detail = `the server sent a frame that cannot be read: ${frame[0]}: ${inWords(thrown)}`;
      const why = failure("unavailable", detail, thrown);
      this.report(why);
      this.#refused(link, why);
    }
  }

  #take(link: FarLink, frame: ServerFrame): void {
    if (link === this.#next) {
      if (frame[0] === "welcome") this.#welcomed(link, frame[1]);
      else if (frame[0] === "error") this.#refused(link, new ProfileError(frame[1].problem));
      return;
    }
    if (link !== this.#link || this.#isMuted) return;
    const [name, body] = frame;
    if (ANSWERS.has(name) && "i" in body && body.i !== null) return this.#answer(frame, body.i);
    switch (name) {
      case "error":
        return this.report(new ProfileError(body.problem));
      case "goaway":
        this.#failures = 0;
        return this.#attempt();
      case "stopped":
        this.#link = undefined;
        link.drop();
        return this.#again();
      case "resumed":
      case "lost":
      case "release":
      case "closed":
      case "message":
      case "edit":
        return this.holder.frame(frame as SessionFrame);
      default:
    }
  }

  #welcomed(link: FarLink, welcome: Extract<ServerFrame, ["welcome", unknown]>[1]): void {
    const before = this.#link;
    const { incarnation, token, store } = welcome;
    this.#next = undefined;
    this.#link = link;
    before?.drop();
    this.#failures = 0;
    if (welcome.resumed !== null) this.holder.resumed(welcome.resumed);
    this.#identity = { incarnation, token, store };
    this.#leaseMs = welcome.lease_ms;
    this.#confirmedAt = steady();
    this.maxFrame = welcome.max_frame;
    for (const request of [...this.#requests.values()]) this.#send(request);
    link.beat();
    this.#watch();
    clearTimeout(this.#openingLate);
    this.#opening?.done();
    this.#opening = undefined;
  }

  ponged(link: FarLink, { incarnation, ping, age }: Pong): void {
    if (link !== this.#link || this.#isMuted || incarnation !== this.incarnation) return;
    this.#belief.note(incarnation, ping, age, this.#leaseMs);
    this.#confirmedAt = Math.max(this.#confirmedAt, ping.steady - age);
  }

  /** Takes the pongs that came while the game computed. */
  #hear(): void {
    const link = this.#link;
    if (link !== undefined) this.#links.pongs(link).forEach((pong) => this.ponged(link, pong));
  }

  #watch(): void {
    clearTimeout(this.#watching);
    if (this.#link === undefined) return;
    this.#watching = setTimeout(() => this.#watch(), PING_MS);
    this.#leaveLateHost();
  }

  get #isLate(): boolean {
    this.#hear();
    return steady() - this.#confirmedAt > LATE * this.#leaseMs;
  }

  /**
   * A host that is late with its renewals is left for the next address: once in a lease time at
   * most, and not with all other game servers at once.
   */
  #leaveLateHost(): void {
    const isDue = steady() - this.#leftAt > this.#leaseMs;
    if (this.#leaving !== undefined || !isDue || !this.#isLate) return;
    const leave = () => {
      this.#leaving = undefined;
      if (this.#link === undefined || !this.#isLate) return;
      this.#leftAt = steady();
      this.#attempt();
    };
    this.#leaving = setTimeout(leave, (Math.random() * this.#leaseMs) / 2);
  }

  #refused(link: FarLink, why: ProfileError): void {
    link.drop();
    this.closed(link, why);
  }

  closed(link: FarLink, why: ProfileError): void {
    if (link === this.#next) {
      const hadGreeted = link.hasGreeted;
      this.#next = undefined;
      // What the old link said in the meantime was not listened to.
      if (hadGreeted) this.#link?.drop();
      if (hadGreeted) this.#link = undefined;
      if (why.kind === MADE_WAY) return this.#madeWay(why);
      const isRefused = REFUSED.has(why.kind);
      if (isRefused && this.#opening !== undefined) return this.#notOpened(why);
      if (isRefused || this.#opening !== undefined) this.#missed(why);
      this.#again();
    } else if (link === this.#link) {
      this.#link = undefined;
      this.#again();
    }
  }

  /** Each would end the connection of the other, in turn for ever. */
  #madeWay(why: ProfileError): void {
    this.report(why);
    void this.close();
    this.holder.replaced();
  }

  /** The last frame, and the end. What is unanswered fails at once. Resolves when it is sent. */
  close(): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    this.#tell(compose("bye", {}));
    this.#isClosed = true;
    clearTimeout(this.#openingLate);
    clearTimeout(this.#retry);
    clearTimeout(this.#watching);
    clearTimeout(this.#leaving);
    this.#next = this.#link = undefined;
    const unanswered = [...this.#requests.values()];
    this.#requests.clear();
    this.#bytes = 0;
    for (const request of unanswered) {
      request.failed(failure("unknown", "this game server was closed before the answer came"));
    }
    return this.#links.finish();
  }
}
