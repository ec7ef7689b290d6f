/** One WebSocket in Node, of the package `ws`: Node's own cannot be told a header in version 20. */
import { WebSocket } from "ws";
import { failure, fromServer, inWords } from "./errors.js";
import { PROTOCOL } from "./frames.js";
import type { Socket, SocketUser } from "./socket.js";

const MAX_PAYLOAD = 32 << 20;
const CLOSE_MS = 1000;

export function openNode(url: string, key: string, user: SocketUser): Socket {
  const socket = new WebSocket(url, PROTOCOL, {
    headers: { Authorization: `Bearer ${key}` },
    perMessageDeflate: false,
    maxPayload: MAX_PAYLOAD,
  });
  socket.on("open", () => user.opened());
  socket.on("message", (data, isBinary) => {
    user.sign();
    if (!isBinary) user.text(data.toString());
  });
  socket.on("pong", () => user.sign());
  socket.on("error", (error) =>
    user.ended(failure("unavailable", `${url}: ${inWords(error)}`, error)),
  );
  socket.on("close", (code, reason) => {
    const words = `the connection ended: ${url}: ${code} ${reason.toString()}`;
    user.ended(failure("unavailable", words.trim()));
  });
  socket.on("unexpected-response", (request, response) => {
    let body = "";
    response.setEncoding("utf8");
    response.on("data", (part: string) => (body = (body + part).slice(0, 100_000)));
    response.on("error", () => {});
    response.on("close", () => {
      request.destroy();
      user.ended(fromServer(body, response.statusCode ?? 0));
    });
  });
  const isOpen = () => socket.readyState === WebSocket.OPEN;
  return {
    send: (text) => {
      // A failure ends the connection, and what was not answered is sent again.
      if (isOpen()) socket.send(text, () => {});
    },
    // A sign of life comes also from a server that is too busy to answer.
    probe: () => {
      if (isOpen()) socket.ping(undefined, undefined, () => {});
    },
    close: () => {
      if (!isOpen()) return socket.terminate();
      socket.close();
      setTimeout(() => socket.terminate(), CLOSE_MS).unref();
    },
    terminate: () => socket.terminate(),
  };
}
