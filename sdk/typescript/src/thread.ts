/** The thread of a game server's links: it does what `links.ts` orders, and tells what happens. */
import { workerData, type MessagePort } from "node:worker_threads";
import { Ahead, steady } from "./belief.js";
import type { Problem } from "./errors.js";
import type { ServerFrame } from "./frames.js";
import { Link, type Pong } from "./link.js";

/** What the thread is to do. `link` is a number of the game's thread. */
export type Order =
  | { readonly do: "open"; readonly link: number; readonly url: string; readonly key: string }
  | { readonly do: "send"; readonly link: number; readonly frame: string }
  | { readonly do: "beat" | "drop"; readonly link: number }
  /** No more orders come. The thread ends when its links have. */
  | { readonly do: "finish" };

/** An order, and when it was given by the clock of the game's thread. */
export type Timed = Order & { readonly at: number };

/** What happened to a link. */
export type News = { readonly link: number } & (
  | { readonly is: "opened" }
  | { readonly is: "frame"; readonly frame: ServerFrame }
  | { readonly is: "pong"; readonly pong: Pong }
  | { readonly is: "closed"; readonly problem: Problem }
);

const port = workerData as MessagePort;
const links = new Map<number, Link>();
const ahead = new Ahead();
const tell = (news: News) => port.postMessage(news);

function open(link: number, url: string, key: string): Link {
  return new Link(url, key, {
    opened: () => tell({ link, is: "opened" }),
    frame: (frame) => tell({ link, is: "frame", frame }),
    ponged: (pong) => {
      const ping = ahead.there(pong.ping);
      tell({ link, is: "pong", pong: { ...pong, ping } });
    },
    closed: ({ problem }) => {
      links.delete(link);
      tell({ link, is: "closed", problem });
    },
  });
}

port.on("message", (order: Timed) => {
  ahead.note(order.at, steady());
  if (order.do === "finish") return port.close();
  const { link } = order;
  switch (order.do) {
    case "open":
      return void links.set(link, open(link, order.url, order.key));
    case "send":
      return links.get(link)?.send(order.frame);
    case "beat":
      return links.get(link)?.beat();
    case "drop":
      links.get(link)?.drop();
      links.delete(link);
  }
});
