/** One game server: an island in a process of its own. `start.js` runs two of them. */
import { Room, Server, logger } from "@colyseus/core";
import { WebSocketTransport } from "@colyseus/ws-transport";
import { connect } from "profilestore";
import { buy, mine, sell, template } from "./shop.js";

const { PROFILESTORE_URL, PROFILESTORE_KEY, ISLAND, PORT } = process.env;
const server = await connect(PROFILESTORE_URL, {
  key: PROFILESTORE_KEY,
  job: ISLAND,
  leaseMs: 10_000,
});
const players = server.store("Islanders", { template, reconcile: true });

class Island extends Room {
  autoDispose = false;
  maxMessagesPerSecond = Infinity;
  /** The profiles of those who are here, by name. */
  here = new Map();
  gone = new WeakSet();

  onCreate() {
    this.onMessage("do", async (client, { id, what, to }) => {
      try {
        const got = await this.act(client.userData, what, to);
        client.send("done", { id, got });
      } catch (error) {
        client.send("failed", { id, why: error.message });
      }
      this.show();
    });
  }

  act(profile, what, to) {
    if (what === "mine") return mine(profile);
    if (what === "buy") return buy(profile);
    if (what === "show") return undefined;
    const other = this.here.get(to);
    if (what !== "sell" || other === undefined) throw new Error("nobody of this name is here");
    return sell(server, profile, other);
  }

  /** The island that the player comes from saves the profile and lets it go first: milliseconds. */
  async onJoin(client, { user }) {
    const profile = await players.start(user);
    if (this.gone.has(client)) return profile.end();
    client.userData = profile;
    this.here.set(user, profile);
    profile.on("end", ({ reason }) => {
      if (this.here.get(user) === profile) this.here.delete(user);
      if (reason !== "ended") client.leave(4000, reason);
      this.show();
    });
    this.show();
  }

  async onLeave(client) {
    this.gone.add(client);
    await client.userData?.end();
  }

  show() {
    const seen = [...this.here].map(([user, { data }]) => ({
      user,
      coins: data.coins,
      swords: data.swords,
    }));
    this.broadcast("here", seen);
  }
}

logger.info = logger.debug = () => {};
const game = new Server({ transport: new WebSocketTransport(), greet: false });
game.define("island", Island);
game.onShutdown(() => server.close());
await game.listen(Number(PORT));
process.once("disconnect", () => process.exit());
process.send?.("listening");
