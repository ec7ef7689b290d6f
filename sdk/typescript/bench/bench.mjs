/**
 * What one Node process does: starts and saves a second beside a bare WebSocket that sends the same
 * frames in the same run, memory of a session beside its data, and the size of the package.
 *
 *   PROFILESTORE_BIN=../../target/release/profilestore npm run bench
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { WebSocket } from "ws";
import { connect } from "../dist/index.js";

const { PROFILESTORE_BIN } = process.env;
if (PROFILESTORE_BIN === undefined) {
  throw new Error("PROFILESTORE_BIN names the program `profilestore`");
}
const program = resolve(PROFILESTORE_BIN);
const SECONDS = Number(process.env.SECONDS ?? 5);
const AT_ONCE = [1, 32, 256];
/** At least as many as are saved at once. */
const STARTS = Number(process.env.STARTS ?? 2000);

/** 4 KB of a game's data. */
const template = {
  coins: 0,
  items: Array.from({ length: 64 }, (_, at) => ({ id: `item-${at}`, kind: "sword", level: at })),
  notes: "x".repeat(1200),
};
const bytes = JSON.stringify(template).length;

/** Does `work(at)` over and over, so many at once, and says how often a second. */
async function rate(count, work) {
  let done = 0;
  const began = performance.now();
  const end = began + SECONDS * 1000;
  const one = async (at) => {
    while (performance.now() < end) {
      await work(at);
      done += 1;
    }
  };
  await Promise.all(Array.from({ length: count }, (_, at) => one(at)));
  return (done * 1000) / (performance.now() - began);
}

/** The protocol without an SDK: whole documents that are texts already. */
async function bare({ url, key }) {
  const socket = new WebSocket(`${url.replace("http", "ws")}/v1/connect`, "profilestore.v1+json", {
    headers: { Authorization: `Bearer ${key}` },
    perMessageDeflate: false,
  });
  const waiting = new Map();
  let i = 0;
  const hello = { instance: "ab".repeat(32), job: "bare", place: 0, sdk: "bench" };
  const welcome = new Promise((done) => waiting.set("welcome", done));
  socket.on("message", (text) => {
    const [[name, body]] = Object.entries(JSON.parse(text));
    if (name === "error") throw new Error(String(text));
    waiting.get(name === "welcome" ? name : body.i)?.(body);
    waiting.delete(body.i);
  });
  await once(socket, "open");
  socket.send(JSON.stringify({ hello }));
  await welcome;
  const pinging = setInterval(() => socket.send('{"ping":{"n":1}}'), 2000);
  const ask = (name, body) =>
    new Promise((done) => {
      waiting.set(++i, done);
      socket.send(JSON.stringify({ [name]: { i, ...body } }));
    });
  const close = () => {
    clearInterval(pinging);
    socket.terminate();
  };
  return { ask, close };
}

function size(files) {
  const text = Buffer.concat(files.map((file) => readFileSync(file)));
  const inKb = (bytes) => `${(bytes.length / 1024).toFixed(0)} KB`;
  return `${inKb(text)}, ${inKb(gzipSync(text))} gzipped`;
}

function scripts(folder) {
  const all = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return all.filter((name) => /\.m?js$/.test(name)).map((name) => join(folder, name));
}

const folder = mkdtempSync(join(tmpdir(), "profilestore-bench-"));
const child = spawn(program, ["serve", "--json", "--listen", "127.0.0.1:0"], {
  cwd: folder,
  stdio: ["ignore", "pipe", "inherit"],
});
try {
  const [line] = await once(createInterface({ input: child.stdout }), "line");
  const serve = JSON.parse(line);
  const server = await connect(serve.url.replace("http", "ws"), { key: serve.key, job: "bench" });
  const players = server.store("Bench", { template, saveWithinMs: 600_000 });

  const took = await (async () => {
    const began = performance.now();
    let next = 0;
    const some = async () => {
      for (let at = next++; at < STARTS; at = next++) await players.start(`start-${at}`);
    };
    await Promise.all(Array.from({ length: 256 }, some));
    return performance.now() - began;
  })();
  const starts = (STARTS * 1000) / took;
  console.log(`starts of new profiles, 256 at once: ${starts.toFixed(0)} a second`);

  global.gc();
  const before = process.memoryUsage().heapUsed;
  await Promise.all(Array.from({ length: STARTS }, (_, at) => players.start(`memory-${at}`)));
  global.gc();
  const each = (process.memoryUsage().heapUsed - before) / STARTS;
  console.log(`memory of a session with ${bytes} bytes of data as JSON: ${each.toFixed(0)} bytes`);

  for (const count of AT_ONCE) {
    const open = server.profiles.slice(0, count);
    const saves = await rate(count, async (at) => {
      open[at].update((data) => (data.coins += 1));
      await open[at].save();
    });
    console.log(`saves, ${count} sessions: ${saves.toFixed(0)} a second`);
  }
  await server.close({ timeoutMs: 120_000 });

  const { ask, close } = await bare(serve);
  const ns = [];
  for (let s = 1; s <= Math.max(...AT_ONCE); s++) {
    ns[s] = 0;
    await ask("start", { s, store: "Bare", scope: "global", key: `bare-${s}`, template });
  }
  for (const count of AT_ONCE) {
    const saves = await rate(count, (at) => {
      const s = at + 1;
      const data = { ...template, coins: ++ns[s] };
      return ask("save", { s, n: ns[s], data, processed: [], edits_done: [] });
    });
    console.log(`saves by a bare WebSocket, ${count} sessions: ${saves.toFixed(0)} a second`);
  }
  close();

  const here = (path) => fileURLToPath(new URL(path, import.meta.url));
  console.log(`the package: ${size(scripts(here("../dist")))}`);
  console.log(`its one dependency, ws: ${size(scripts(here("../node_modules/ws")))}`);
} finally {
  child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
}
