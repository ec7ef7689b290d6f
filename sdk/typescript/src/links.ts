/** The links of one game server, as its game's thread sees them. They work on another thread. */
import { MessageChannel, receiveMessageOnPort, Worker } from "node:worker_threads";
import type { MessagePort } from "node:worker_threads";
import { steady } from "./belief.js";
import { failure, inWords, ProfileError } from "./errors.js";
import type { ServerFrame } from "./frames.js";
import type { Pong } from "./link.js";
import type { News, Order, Timed } from "./thread.js";

/** Where a link tells what happens. */
export interface LinksUser {
  /** It is open: the greeting's frames. */
  opened(link: FarLink): string[];
  frame(link: FarLink, frame: ServerFrame): void;
  ponged(link: FarLink, pong: Pong): void;
  /** It ended, and says nothing any more. */
  closed(link: FarLink, why: ProfileError): void;
}

/** Behind one of these a session may be in doubt, and a pong says nothing for it. */
const DOUBTS = new Set(["release", "lost", "closed"]);

/** One link. What it is told after its end has no effect. */
export class FarLink {
  /** The greeting was sent. */
  hasGreeted = false;

  constructor(
    readonly id: number,
    readonly url: string,
    readonly order: (order: Order) => void,
  ) {}

  send(frame: string): void {
    this.order({ do: "send", link: this.id, frame });
  }

  /** From now on it pings. */
  beat(): void {
    this.order({ do: "beat", link: this.id });
  }

  /** Gives the link up, with nothing said to its user. What was sent goes out first. */
  drop(): void {
    this.order({ do: "drop", link: this.id });
  }
}

/** How long the last links may take to close. */
const FINISH_MS = 3000;

interface Thread {
  readonly worker: Worker;
  readonly port: MessagePort;
  readonly ended: Promise<void>;
}

export class Links {
  readonly #links = new Map<number, FarLink>();
  #thread: Thread | undefined;
  /** What was taken from the thread and not told yet. */
  #news: News[] = [];
  #id = 0;

  constructor(readonly user: LinksUser) {}

  open(url: string, key: string): FarLink {
    const { port } = (this.#thread ??= this.#start());
    const link = new FarLink(++this.#id, url, (order) => {
      if (order.do === "drop") this.#links.delete(link.id);
      port.postMessage({ ...order, at: steady() } satisfies Timed);
    });
    this.#links.set(link.id, link);
    link.order({ do: "open", link: link.id, url, key });
    return link;
  }

  #start(): Thread {
    const { port1: port, port2 } = new MessageChannel();
    const file = new URL("./thread.js", import.meta.url);
    // None of the program's options: some of them forbid a thread.
    const how = { workerData: port2, transferList: [port2], execArgv: [], name: "profilestore" };
    const worker = new Worker(file, how);
    let why: unknown = "it ended";
    const ended = new Promise<void>((done) => {
      worker.on("error", (error) => (why = error));
      worker.on("exit", () => {
        port.close();
        done();
        this.#failed(port, why);
      });
    });
    port.on("message", (news: News) => {
      this.#news.push(news);
      this.#tell();
    });
    return { worker, port, ended };
  }

  /** The thread is gone, and its links with it. The next one gets a new thread. */
  #failed(port: MessagePort, why: unknown): void {
    if (this.#thread?.port !== port) return;
    this.#thread = undefined;
    this.#news = [];
    const links = [...this.#links.values()];
    this.#links.clear();
    const failed = failure("unavailable", `the thread of the connection failed: ${inWords(why)}`);
    links.forEach((link) => this.user.closed(link, failed));
  }

  /**
   * The pongs of a link that are there already, also while the game computes. Those behind a frame
   * that puts a session in doubt wait until that frame was told.
   */
  pongs(link: FarLink): Pong[] {
    const port = this.#thread?.port;
    const hadNews = this.#news.length > 0;
    for (;;) {
      const got = port === undefined ? undefined : receiveMessageOnPort(port);
      if (got === undefined) break;
      this.#news.push(got.message as News);
    }
    const doubt = this.#news.findIndex((it) => it.is === "frame" && DOUBTS.has(it.frame[0]));
    const before = doubt < 0 ? this.#news.length : doubt;
    const pongs: Pong[] = [];
    this.#news = this.#news.filter((news, at) => {
      const isMeant = at < before && news.is === "pong" && news.link === link.id;
      if (isMeant) pongs.push(news.pong);
      return !isMeant;
    });
    if (!hadNews && this.#news.length > 0) setImmediate(() => this.#tell());
    return pongs;
  }

  #tell(): void {
    for (let news = this.#news.shift(); news !== undefined; news = this.#news.shift()) {
      this.#tellOne(news);
    }
  }

  #tellOne(news: News): void {
    const link = this.#links.get(news.link);
    if (link === undefined) return;
    switch (news.is) {
      case "opened": {
        const greeting = this.user.opened(link);
        link.hasGreeted = true;
        return greeting.forEach((frame) => link.send(frame));
      }
      case "frame":
        return this.user.frame(link, news.frame);
      case "pong":
        return this.user.ponged(link, news.pong);
      case "closed":
        this.#links.delete(link.id);
        return this.user.closed(link, new ProfileError(news.problem));
    }
  }

  /** No link is opened any more. Resolves when the last frames were sent and the thread ended. */
  finish(): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    [...this.#links.values()].forEach((link) => link.drop());
    if (thread === undefined) return Promise.resolve();
    thread.port.postMessage({ do: "finish", at: steady() } satisfies Timed);
    // A platform's WebSocket may wait for long until the other side closes too.
    const late = setTimeout(() => void thread.worker.terminate(), FINISH_MS);
    return thread.ended.finally(() => clearTimeout(late));
  }
}
