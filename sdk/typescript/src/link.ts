/**
 * One WebSocket, from its opening to its end, with its pings. It runs on a thread of its own
 * (`thread.ts`), so that the pings go out while the game computes.
 */
import { WebSocket } from "ws";
import { now, steady, type Moment } from "./belief.js";
import { failure, fromServer, inWords, ProfileError } from "./errors.js";
import { compose, PROTOCOL, read, type ServerFrame } from "./frames.js";

/** How long the opening may take, until the answer to the greeting. */
const GREETING_MS = 10_000;

/** After how long without a byte the connection counts as lost. */
const SILENCE_MS = 8000;

export const PING_MS = 2000;
const MOST_PINGS = 100;
const MAX_PAYLOAD = 32 << 20;

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
  readonly #socket: WebSocket;
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
    const socket = new WebSocket(`${url.replace(/\/+$/, "")}/v1/connect`, PROTOCOL, {
      headers: { Authorization: `Bearer ${key}` },
      perMessageDeflate: false,
      maxPayload: MAX_PAYLOAD,
    });
    this.#socket = socket;
    const late = () => this.#end(failure("unavailable", `no answer to the greeting: ${url}`));
    this.#greeting = setTimeout(late, GREETING_MS);
    socket.on("open", () => {
      if (!this.#isClosed) user.opened();
    });
    socket.on("message", (data, isBinary) => {
      this.#heardAt = steady();
      if (this.#isClosed || isBinary) return;
      this.#take(data.toString());
    });
    socket.on("pong", () => (this.#heardAt = steady()));
    socket.on("error", (error) =>
      this.#end(failure("unavailable", `${url}: ${inWords(error)}`, error)),
    );
    socket.on("close", (code, reason) => {
      this.#end(
        failure("unavailable", `the connection ended: ${url}: ${code} ${reason.toString()}`),
      );
    });
    socket.on("unexpected-response", (request, response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => (body = (body + part).slice(0, 100_000)));
      response.on("error", () => {});
      response.on("close", () => {
        request.destroy();
        this.#end(fromServer(body, response.statusCode ?? 0));
      });
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
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    this.#socket.send(frame, () => {
      // A failure ends the connection, and what was not answered is sent again.
    });
  }

  /** From now on it pings. A connection that has been silent for too long is given up. */
  beat(): void {
    if (this.#isClosed) return;
    if (steady() - this.#heardAt > SILENCE_MS) {
      return this.#end(failure("unavailable", `the server is silent: ${this.url}`));
    }
    this.#pinging = setTimeout(() => this.beat(), PING_MS);
    if (this.#socket.readyState === WebSocket.OPEN) {
      // A sign of life comes also from a server that is too busy to answer.
      this.#socket.ping(undefined, undefined, () => {});
    }
    this.#pings.set(++this.#n, now());
    this.#pings.delete(this.#n - MOST_PINGS);
    this.send(compose("ping", { n: this.#n }));
  }

  /** Gives the link up, with nothing said to its user. */
  drop(): void {
    this.#stop();
    if (this.#socket.readyState === WebSocket.OPEN) {
      this.#socket.close();
      setTimeout(() => this.#socket.terminate(), 1000).unref();
    } else {
      this.#socket.terminate();
    }
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
