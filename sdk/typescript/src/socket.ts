/**
 * One WebSocket. Bun and Deno have one that sends headers: theirs is used, and nothing of Node's.
 * In Node it is the package `ws`.
 */
import { failure, fromServer, inWords, type ProfileError } from "./errors.js";
import { PROTOCOL } from "./frames.js";

/** Where a socket tells what happens. */
export interface SocketUser {
  opened(): void;
  text(text: string): void;
  /** The other side is there. */
  sign(): void;
  /** Once, and nothing behind it. */
  ended(why: ProfileError): void;
}

export interface Socket {
  /** Without effect unless it is open. What was not answered is sent again on the next one. */
  send(text: string): void;
  /** Asks for a sign of life, where the platform can. */
  probe(): void;
  /** What was sent goes out first. */
  close(): void;
  terminate(): void;
}

export type OpenSocket = (url: string, key: string, user: SocketUser) => Socket;

/** A platform's WebSocket, with what Bun and Deno have beyond the standard. */
interface Platform {
  readonly readyState: number;
  send(text: string): void;
  close(): void;
  terminate?(): void;
  addEventListener(name: string, listener: (event: PlatformEvent) => void): void;
}
interface PlatformEvent {
  readonly data?: unknown;
  readonly code?: number;
  readonly reason?: string;
}
type Options = { readonly protocols: string[]; readonly headers: Record<string, string> };
export type PlatformClass = new (url: string, options: Options) => Platform;

const OPEN = 1;
const WHY_MS = 5000;

/** Opens the platform's WebSocket. */
export function openPlatform(
  platform: PlatformClass,
  url: string,
  key: string,
  user: SocketUser,
): Socket {
  const headers = { Authorization: `Bearer ${key}` };
  let isOver = false;
  let isOpen = false;
  const end = (why: ProfileError) => {
    if (isOver) return;
    isOver = true;
    user.ended(why);
  };
  const socket = new platform(url, { protocols: [PROTOCOL], headers });
  let asking: Promise<void> | undefined;
  const failed = (event: PlatformEvent) => {
    const words = `the connection ended: ${url}: ${event.code ?? ""} ${event.reason ?? ""}`;
    if (isOpen) return end(failure("unavailable", words.trim()));
    asking ??= whyNot(url, headers).then(end);
  };
  socket.addEventListener("open", () => {
    isOpen = true;
    user.opened();
  });
  socket.addEventListener("message", ({ data }) => {
    user.sign();
    if (typeof data === "string") user.text(data);
  });
  socket.addEventListener("error", failed);
  socket.addEventListener("close", failed);
  return {
    send: (text) => {
      if (socket.readyState === OPEN) socket.send(text);
    },
    // The answers to pings are enough: a server that sends no pong sends `heard`.
    probe: () => {},
    close: () => {
      isOver = true;
      socket.close();
    },
    terminate: () => {
      isOver = true;
      if (socket.terminate !== undefined) socket.terminate();
      else socket.close();
    },
  };
}

/** A platform's WebSocket does not say why it was refused. The same request without it does. */
async function whyNot(url: string, headers: Record<string, string>): Promise<ProfileError> {
  try {
    const signal = AbortSignal.timeout(WHY_MS);
    const response = await fetch(url.replace(/^ws/, "http"), { headers, signal });
    const why = fromServer(await response.text(), response.status);
    // Only the WebSocket was missing this time.
    if (why.kind !== "upgrade-required") return why;
    return failure("unavailable", `the connection was not opened: ${url}`);
  } catch (thrown) {
    return failure("unavailable", `${url}: ${inWords(thrown)}`, thrown);
  }
}

const hasOwn = "Bun" in globalThis || "Deno" in globalThis;

/** Opens a WebSocket of this platform. */
export const openSocket: OpenSocket = hasOwn
  ? (...how) => openPlatform(globalThis.WebSocket as unknown as PlatformClass, ...how)
  : (await import("./socket-node.js")).openNode;
