/** One WebSocket, from its opening to its end. */
import { WebSocket } from "ws";
import { failure, fromServer, inWords, ProfileError } from "./errors.js";
import { PROTOCOL, read, type ServerFrame } from "./frames.js";

/** How long the opening may take, until the answer to the greeting. */
const GREETING_MS = 10_000;

/** After how long without a byte the connection counts as lost. */
const SILENCE_MS = 8000;

const MAX_PAYLOAD = 32 << 20;

/** Where a link tells what happens. */
export interface LinkUser {
  /** It is open: the greeting's frames. */
  opened(link: Link): string[];
  frame(link: Link, frame: ServerFrame): void;
  /** It ended, and says nothing any more. */
  closed(link: Link, why: ProfileError): void;
}

export class Link {
  readonly #socket: WebSocket;
  readonly #greeting: NodeJS.Timeout;
  #heardAt = performance.now();
  #isClosed = false;
  /** The greeting was sent. */
  hasGreeted = false;

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
      if (this.#isClosed) return;
      const greeting = user.opened(this);
      this.hasGreeted = true;
      greeting.forEach((frame) => this.send(frame));
    });
    socket.on("message", (data, isBinary) => {
      this.#heardAt = performance.now();
      if (this.#isClosed || isBinary) return;
      this.#take(data.toString());
    });
    socket.on("pong", () => (this.#heardAt = performance.now()));
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
    if (frame[0] === "welcome") clearTimeout(this.#greeting);
    this.user.frame(this, frame);
  }

  send(frame: string): void {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    this.#socket.send(frame, () => {
      // A failure ends the connection, and what was not answered is sent again.
    });
  }

  /** A sign of life is asked for. A connection that has been silent for too long is given up. */
  probe(): void {
    if (performance.now() - this.#heardAt > SILENCE_MS) {
      this.#end(failure("unavailable", `the server is silent: ${this.url}`));
    } else if (this.#socket.readyState === WebSocket.OPEN) {
      this.#socket.ping(undefined, undefined, () => {});
    }
  }

  /** Gives the link up, with nothing said to its user. */
  drop(): void {
    this.#isClosed = true;
    clearTimeout(this.#greeting);
    if (this.#socket.readyState === WebSocket.OPEN) {
      this.#socket.close();
      setTimeout(() => this.#socket.terminate(), 1000).unref();
    } else {
      this.#socket.terminate();
    }
  }

  #end(why: ProfileError): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#greeting);
    this.#socket.terminate();
    this.user.closed(this, why);
  }
}
