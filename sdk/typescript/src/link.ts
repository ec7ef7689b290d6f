/**
 * One WebSocket, from its opening to its end, with its pings. It runs on a thread of its own
 * (`thread.ts`), so that the pings go out while the game computes.
 */
import { now, PING_MS, steady, type Moment } from "./belief.js";
import { failure, inWords, type ProfileError } from "./errors.js";
import { compose, read, type ServerFrame } from "./frames.js";
import { openSocket, type Socket } from "./socket.js";

/** How long the opening may take, until the answer to the greeting. */
const GREETING_MS = 10_000;

/** After how long without a byte the connection counts as lost. */
const SILENCE_MS = 8000;

const MOST_PINGS = 100;

/** The answer to a ping: when that was sent, and how old the confirmation of the lease is. */
export interface Pong {
  readonly incarnation: string;
  readonly ping: Moment;
  readonly age: number;
}

/** Where a link tells what happens. */
export interface LinkUser {
  /** It is open, and the greeting may be sent. */
  opened(): void;
  frame(frame: ServerFrame): void;
  ponged(pong: Pong): void;
  /** It ended, and says nothing any more. */
  closed(why: ProfileError): void;
}

export class Link {
  readonly #socket: Socket;
  readonly #greeting: NodeJS.Timeout;
  readonly #pings = new Map<number, Moment>();
  #pinging: NodeJS.Timeout | undefined;
  #heardAt = steady();
  #isClosed = false;
  #n = 0;

  constructor(
    readonly url: string,
    key: string,
    readonly user: LinkUser,
  ) {
    const late = () => this.#end(failure("unavailable", `no answer to the greeting: ${url}`));
    this.#greeting = setTimeout(late, GREETING_MS);
    this.#socket = openSocket(`${url.replace(/\/+$/, "")}/v1/connect`, key, {
      opened: () => {
        if (!this.#isClosed) user.opened();
      },
      text: (text) => {
        if (!this.#isClosed) this.#take(text);
      },
      sign: () => (this.#heardAt = steady()),
      ended: (why) => this.#end(why),
    });
  }

  #take(text: string): void {
    let frame: ServerFrame;
    try {
      frame = read(text);
    } catch (thrown) {
      this.#end(failure("unavailable", `the server sent no frame: ${inWords(thrown)}`, thrown));
      return;
    }
    if (frame[0] === "heard") return;
    if (frame[0] === "pong") return this.#ponged(frame[1]);
    if (frame[0] === "welcome") clearTimeout(this.#greeting);
    this.user.frame(frame);
  }

  #ponged({ n, incarnation, age }: { n: number; incarnation: string; age: number }): void {
    const ping = this.#pings.get(n);
    if (ping === undefined) return;
    for (const old of this.#pings.keys()) if (old <= n) this.#pings.delete(old);
    this.user.ponged({ incarnation, ping, age });
  }

  send(frame: string): void {
    this.#socket.send(frame);
  }

  /** From now on it pings. A connection that has been silent for too long is given up. */
  beat(): void {
    if (this.#isClosed) return;
    if (steady() - this.#heardAt > SILENCE_MS) {
      return this.#end(failure("unavailable", `the server is silent: ${this.url}`));
    }
    this.#pinging = setTimeout(() => this.beat(), PING_MS);
    this.#socket.probe();
    this.#pings.set(++this.#n, now());
    this.#pings.delete(this.#n - MOST_PINGS);
    this.send(compose("ping", { n: this.#n }));
  }

  /** Gives the link up, with nothing said to its user. What was sent goes out first. */
  drop(): void {
    this.#stop();
    this.#socket.close();
  }

  #end(why: ProfileError): void {
    if (this.#isClosed) return;
    this.#stop();
    this.#socket.terminate();
    this.user.closed(why);
  }

  #stop(): void {
    this.#isClosed = true;
    clearTimeout(this.#greeting);
    clearTimeout(this.#pinging);
  }
}
