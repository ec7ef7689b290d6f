// A game server that plays, and answers no edit until it ends its session: what waits for it stays
// so for as long as a test wants.
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createRequire } from "node:module";

const WebSocket = createRequire(new URL("../../sdk/typescript/package.json", import.meta.url))(
  "ws",
);

export class Mute {
  #answers = new Map();
  #i = 0;

  static async play(world, job, key) {
    const game = new Mute();
    const url = `${world.api.replace(/^http/, "ws")}/v1/connect`;
    const headers = { Authorization: `Bearer ${world.key}` };
    game.socket = new WebSocket(url, "profilestore.v1+json", { headers });
    game.socket.on("message", (text) => game.#heard(JSON.parse(text)));
    await once(game.socket, "open");
    const welcome = new Promise((done) => game.#answers.set("welcome", done));
    game.#send({ hello: { instance: randomBytes(16).toString("hex"), job } });
    await welcome;
    let n = 0;
    game.pings = setInterval(() => game.#send({ ping: { n: ++n } }), 1000);
    await game.#ask("start", { s: 1, store: "PlayerData", key, template: { coins: 0 } });
    return game;
  }

  #send(frame) {
    this.socket.send(JSON.stringify(frame));
  }

  #ask(name, body) {
    const i = ++this.#i;
    const answer = new Promise((done) => this.#answers.set(i, done));
    this.#send({ [name]: { i, ...body } });
    return answer;
  }

  #heard(frame) {
    const [[name, body]] = Object.entries(frame);
    const which = name === "welcome" ? name : body?.i;
    this.#answers.get(which)?.({ name, ...body });
    this.#answers.delete(which);
  }

  /** Ends the session, as it was saved last. */
  async end() {
    const { name } = await this.#ask("end", { s: 1, n: 1 });
    clearInterval(this.pings);
    this.socket.close();
    if (name !== "ended") throw new Error(`the session did not end: ${name}`);
  }
}
