/** The same game without Colyseus: one game server with plain WebSockets. See README.md. */
import { WebSocketServer } from "ws";
import { connect } from "profilestore";
import { buy, mine, sell, template } from "./shop.js";

const { PROFILESTORE_URL, PROFILESTORE_KEY, ISLAND = "plain", PORT = 2569 } = process.env;
const server = await connect(PROFILESTORE_URL, { key: PROFILESTORE_KEY, job: ISLAND });
const players = server.store("Islanders", { template, reconcile: true });
const here = new Map();

function act(profile, what, to) {
  if (what === "mine") return mine(profile);
  if (what === "buy") return buy(profile);
  if (what !== "sell" || !here.has(to)) throw new Error("nobody of this name is here");
  return sell(server, profile, here.get(to));
}

/** One player, from the greeting `?user=NAME` to the end of the connection. */
async function play(socket, user) {
  const say = (line) => socket.send(JSON.stringify(line));
  const lines = [];
  socket.on("message", (line) => lines.push(line));
  const profile = await players.start(user);
  if (socket.readyState !== socket.OPEN) return profile.end();
  here.set(user, profile);
  socket.on("close", () => profile.end());
  profile.on("end", ({ reason }) => {
    if (here.get(user) === profile) here.delete(user);
    socket.close(4000, reason);
  });
  const answer = async (line) => {
    const { id, what, to } = JSON.parse(line);
    try {
      const got = await act(profile, what, to);
      say({ id, got: got ?? null, data: profile.data });
    } catch (error) {
      say({ id, why: error.message });
    }
  };
  socket.removeAllListeners("message").on("message", answer);
  say({ id: 0, data: profile.data });
  for (const line of lines) await answer(line);
}

const sockets = new WebSocketServer({ port: Number(PORT), host: "127.0.0.1" });
sockets.on("connection", (socket, ask) => {
  const user = new URL(ask.url, "ws://here").searchParams.get("user") ?? "ann";
  play(socket, user).catch((error) => socket.close(4001, error.message));
});

process.once("SIGTERM", async () => {
  await server.close();
  process.exit();
});
process.once("disconnect", () => process.exit());
sockets.once("listening", () => process.send?.("listening"));
