/** The server process is killed and deployed anew. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { WebSocketServer } from "ws";
import { connect, ProfileError } from "../dist/index.js";
import { connected, Serve, until } from "./serve.js";

const rejected: unknown[] = [];
process.on("unhandledRejection", (why) => rejected.push(why));

for (const [signal, rounds] of [
  ["SIGKILL", 3],
  ["SIGTERM", 1],
] as const) {
  test(`no session ends and nothing acknowledged is lost at ${signal} of the server`, async () => {
    const serve = await Serve.start();
    try {
      const server = await connected(serve.url, { key: serve.key, job: "eu-1" });
      const players = server.store("PlayerData", {
        template: { coins: 0, trades: 0 },
        saveWithinMs: 50,
      });
      const keys = ["a", "b", "c", "d"];
      const profiles = await Promise.all(keys.map((key) => players.start(key)));
      profiles.forEach((profile) => {
        profile.onMessage(
          "gift",
          (data, gift: { coins: number }) => void (data.coins += gift.coins),
        );
      });
      const ends: unknown[] = [];
      profiles.forEach((profile) => profile.on("end", (end) => ends.push(end)));
      for (let round = 1; round <= rounds; round++) {
        await Promise.all(
          profiles.map((profile) => {
            profile.update((data) => (data.coins += 1));
            return profile.save();
          }),
        );
        // All this is on its way when the process dies.
        profiles.slice(2).forEach((profile) => profile.update((data) => (data.coins += 1)));
        const saves = profiles.slice(2).map((profile) => profile.save());
        const [a, b] = profiles;
        assert.ok(a !== undefined && b !== undefined);
        const trade = server.transaction([a, b], ([from, to]) => {
          from.coins -= 1;
          to.coins += 1;
          from.trades += 1;
        });
        const sent = players.send("c", { type: "gift", coins: 100 });
        const late = players.start(`late-${round}`);
        await serve.stop(signal);
        await serve.start();
        await Promise.all([...saves, trade, sent]);
        await (await late).end();
        const isRead = async () => {
          const read = await Promise.all(keys.map((key) => players.get(key)));
          const coins = read.map((profile) => profile?.data.coins);
          return JSON.stringify(coins) === JSON.stringify([0, 2 * round, 102 * round, 2 * round]);
        };
        await until(`round ${round} is stored`, isRead);
        await until("the sessions may be believed in", () =>
          profiles.every((profile) => profile.isActive),
        );
      }
      assert.deepEqual(ends, []);
      assert.equal(profiles[0]?.data.trades, rounds);
      assert.deepEqual(await server.close(), []);
      assert.deepEqual(
        ends.map((end) => (end as { reason: string }).reason),
        keys.map(() => "ended"),
      );
      assert.deepEqual(rejected, []);
    } finally {
      await serve.remove();
    }
  });
}

test("with the server gone for good, nothing is thrown that nobody awaits", async () => {
  const serve = await Serve.start();
  const faults: unknown[] = [];
  const server = await connected(serve.url, {
    key: serve.key,
    job: "eu-1",
    onFault: (fault) => faults.push(fault),
  });
  const players = server.store("PlayerData", { template: { coins: 0 } });
  const [a, b] = await Promise.all([players.start("a"), players.start("b")]);
  a.on("end", () => Promise.reject(new Error("of a handler")));
  await serve.stop("SIGKILL");
  const work: Promise<unknown>[] = [a.save(), players.get("a"), players.send("c", "hello")];
  a.update((data) => (data.coins = 1));
  work.push(a.save(), players.start("d"), a.end());
  work.push(server.transaction([b], ([data]) => (data.coins = 2)));
  work.push(server.transaction([a, b], () => {}));
  work.push(b.end());
  const unsaved = await server.close({ timeoutMs: 300 });
  assert.deepEqual(unsaved.map((profile) => profile.key).sort(), ["a", "b"]);
  for (const outcome of (await Promise.allSettled(work)).slice(1)) {
    assert.equal(outcome.status, "rejected");
    assert.ok(outcome.reason instanceof ProfileError, String(outcome.reason));
  }
  await until("the event loop has turned", () => true);
  assert.deepEqual(rejected, []);
  await serve.remove();
});

test("a process that stops hands game servers to another one, and no player notices", async () => {
  const first = await Serve.start();
  const second = await Serve.start(first);
  try {
    const server = await connected([first.url, second.url], { key: first.key, job: "eu-1" });
    const players = server.store("PlayerData", { template: { coins: 0 } });
    const profile = await players.start("a");
    await until("the session may be believed in", () => profile.isActive);
    const doubts: boolean[] = [];
    const watch = setInterval(() => profile.isActive || doubts.push(true), 1);
    profile.update((data) => (data.coins = 1));
    const saved = profile.save();
    await first.stop("SIGTERM");
    await saved;
    profile.update((data) => (data.coins = 2));
    await profile.save();
    clearInterval(watch);
    assert.deepEqual([doubts, profile.ended, server.isConnected], [[], undefined, true]);
    await server.close();
    await first.start();
    assert.equal((await players.get("a"))?.data.coins, 2);
    assert.deepEqual(rejected, []);
  } finally {
    await second.stop("SIGKILL");
    await first.remove();
  }
});

test("after a cut longer than the lease, what was taken is lost and the rest goes on", async () => {
  const first = await Serve.start();
  const second = await Serve.start(first);
  const template = { coins: 0 };
  try {
    const cut = await connected(first.url, { key: first.key, job: "eu-1", leaseMs: 10_000 });
    const other = await connected(second.url, { key: first.key, job: "eu-2" });
    const players = cut.store("PlayerData", { template, saveWithinMs: 60_000 });
    const [taken, kept] = [await players.start("taken"), await players.start("kept")];
    const end = new Promise((done) => taken.on("end", done));
    await first.stop("SIGKILL");
    taken.update((data) => (data.coins = 1));
    kept.update((data) => (data.coins = 2));
    const there = await other.store("PlayerData", { template }).start("taken");
    assert.deepEqual([there.data.coins, taken.isActive], [0, false]);
    const saves = [taken.save(), kept.save()];
    await first.start();
    assert.deepEqual(((await end) as { reason: string; hasLoss: boolean }).hasLoss, true);
    await assert.rejects(saves[0] as Promise<void>, { kind: "session-ended" });
    await saves[1];
    await until("the kept session may be believed in", () => kept.isActive);
    await there.end();
    assert.deepEqual(await cut.close(), []);
    const read = await Promise.all(["taken", "kept"].map((key) => players.get(key)));
    assert.deepEqual(
      read.map((profile) => profile?.data.coins),
      [0, 2],
    );
    await other.close();
    assert.deepEqual(rejected, []);
  } finally {
    await second.stop("SIGKILL");
    await first.remove();
  }
});

test("a game that computes for long is believed in, but not where it was asked", async () => {
  const serve = await Serve.start();
  try {
    const open = (job: string) => connected(serve.url, { key: serve.key, job });
    const [calm, asked, other] = await Promise.all(["eu-1", "eu-2", "eu-3"].map(open));
    assert.ok(calm !== undefined && asked !== undefined && other !== undefined);
    const players = [calm, asked, other].map((one) => one.store("P", { template: { coins: 0 } }));
    const kept = await players[0]?.start("kept");
    const wanted = await players[1]?.start("wanted");
    const both = () => kept?.isActive === true && wanted?.isActive === true;
    await until("both may be believed in", both);
    const later = players[2]?.start("wanted");
    // Longer than an answer counts. Nothing of this turns the event loop.
    for (const end = performance.now() + 8000; performance.now() < end; ) Math.random();
    const now = [kept?.isActive, wanted?.isActive];
    assert.deepEqual(now, [true, false]);
    await (await later)?.end();
    assert.deepEqual([kept?.ended, await calm.close(), await other.close()], [undefined, [], []]);
    await asked.close();
    assert.deepEqual(rejected, []);
  } finally {
    await serve.remove();
  }
});

/** Answers greetings and pings, and says how late it is. */
async function host(age: number): Promise<{ url: string; greetings: unknown[]; stop(): void }> {
  const listening = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  const greetings: { resume?: unknown }[] = [];
  listening.on("connection", (socket) => {
    socket.on("message", (data: Buffer) => {
      const frame = JSON.parse(data.toString()) as {
        hello?: { resume?: unknown };
        ping?: { n: number };
      };
      if (frame.hello !== undefined) {
        greetings.push(frame.hello);
        const resumed = frame.hello.resume === undefined ? null : "same";
        const welcome = { incarnation: "i", token: "t", store: "s", lease_ms: 1000, resumed };
        socket.send(JSON.stringify({ welcome: { ...welcome, max_frame: 5 << 20 } }));
      }
      if (frame.ping !== undefined) {
        socket.send(JSON.stringify({ pong: { n: frame.ping.n, incarnation: "i", age } }));
      }
    });
  });
  await once(listening, "listening");
  const url = `ws://127.0.0.1:${(listening.address() as AddressInfo).port}`;
  return { url, greetings, stop: () => listening.close() };
}

test("a host that is late is left for another one, after that one answers", async () => {
  const [late, other] = [await host(60_000), await host(0)];
  const server = await connect([late.url, other.url], { key: "k", job: "eu-1" });
  let cuts = 0;
  await until("the other one was asked", () => {
    if (!server.isConnected) cuts++;
    return other.greetings.length > 0;
  });
  const [greeting] = other.greetings as { resume: { incarnation: string; token: string } }[];
  assert.deepEqual([greeting?.resume.incarnation, greeting?.resume.token, cuts], ["i", "t", 0]);
  await server.close();
  late.stop();
  other.stop();
});
