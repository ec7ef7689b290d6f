/** Sessions against the real server. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { connect, ProfileError, type Server } from "../dist/index.js";
import { connected, Serve, until } from "./serve.js";

let serve: Serve;
const open: Server[] = [];
const rejected: unknown[] = [];
process.on("unhandledRejection", (why) => rejected.push(why));

before(async () => void (serve = await Serve.start()));
after(async () => {
  await Promise.all(open.map((server) => server.close({ timeoutMs: 2000 })));
  await serve.remove();
  assert.deepEqual(rejected, []);
});

async function gameServer(job: string): Promise<Server> {
  const server = await connected(serve.url, { key: serve.key, job });
  open.push(server);
  return server;
}

const player = { template: { coins: 0, items: [] as string[] }, reconcile: true };

test("a start right behind an end gets what that saved", async () => {
  const players = (await gameServer("eu-1")).store("PlayerData", player);
  const profile = await players.start("back");
  profile.update((data) => (data.coins += 10));
  const [, again] = await Promise.all([profile.end(), players.start("back")]);
  assert.equal(again.data.coins, 10);
  await again.end();
});

test("what is saved is read back over HTTP, and a second session finds it", async () => {
  const server = await gameServer("eu-1");
  const players = server.store("PlayerData", player);
  const profile = await players.start("saved");
  assert.deepEqual(profile.data, { coins: 0, items: [] });
  assert.equal(
    profile.update((data) => (data.coins += 10)),
    10,
  );
  assert.equal(profile.hasUnsaved, true);
  await profile.save();
  assert.equal(profile.hasUnsaved, false);
  const stored = await players.get("saved");
  assert.equal(stored?.data.coins, 10);
  assert.equal(stored?.held?.job, "eu-1");
  assert.equal(stored?.version, profile.version);
  await until("the lease is confirmed", () => profile.isActive);
  await profile.end();
  assert.equal(profile.ended?.reason, "ended");
  assert.equal(profile.isActive, false);
  assert.throws(() => profile.update(() => {}), { kind: "session-ended", advice: "leave" });
  await assert.rejects(profile.save(), { kind: "session-ended" });
  const again = await players.start("saved");
  assert.equal(again.data.coins, 10);
  await again.end();
  const { items } = await players.versions("saved");
  assert.equal((await players.version("saved", items[0]?.version ?? 0)).data.coins, 10);
  assert.equal(await players.get("nobody"), undefined);
});

test("a change is saved by itself, and the template fills in what is missing", async () => {
  const server = await gameServer("eu-1");
  await server.http.put({ store: "PlayerData", key: "old" }, { coins: 5 }, undefined);
  const players = server.store("PlayerData", { ...player, saveWithinMs: 100 });
  const profile = await players.start("old");
  assert.deepEqual(profile.data, { coins: 5, items: [] });
  profile.update((data) => data.items.push("sword"));
  const stored = async () => (await players.get("old"))?.data.items?.length === 1;
  await until("the sword is stored", stored);
  await profile.end();
});

test("a second server gets the profile as the first one left it", async () => {
  const [first, second] = [await gameServer("eu-1"), await gameServer("eu-2")];
  const here = await first.store("PlayerData", player).start("hop");
  here.onLastSave((data) => void (data.coins += 1));
  const ended = new Promise((done) => here.on("end", done));
  here.update((data) => (data.coins = 41));
  const there = await second.store("PlayerData", player).start("hop");
  assert.equal(there.data.coins, 42);
  const by = { server: { job: "eu-2", place: 0 } };
  assert.deepEqual(await ended, { reason: "released", by, hasLoss: false });
  assert.throws(() => here.update(() => {}), { kind: "session-ended" });
  await there.end();
});

test("users are found, and stay through a trade and a second session", async () => {
  const server = await gameServer("eu-1");
  const players = server.store("Users", player);
  const profile = await players.start("p");
  const uuid = "069A79F4-44E9-4726-A5BE-FCA90E38AAF5";
  profile.addUser(uuid);
  profile.addUser(76_561_198_000_000_000n);
  await server.transaction([profile], ([data]) => void (data.coins += 1));
  profile.addUser(7);
  await profile.end();
  const users = ["76561198000000000", 7, uuid.toLowerCase()];
  assert.deepEqual((await players.get("p"))?.user_ids, users);
  for (const user of [uuid, ...users]) {
    const found = await server.http.call("GET", `/v1/users/${user}/profiles`);
    assert.match(found, /"key":"p"/, String(user));
  }
  const again = await players.start("p");
  assert.deepEqual(again.users, users);
  again.removeUser(uuid);
  await again.end();
  assert.deepEqual((await players.get("p"))?.user_ids, users.slice(0, 2));
});

test("a message has its effect once, however often it is sent and handed out", async () => {
  const [first, second] = [await gameServer("eu-1"), await gameServer("eu-2")];
  const players = first.store("PlayerData", player);
  const id = `${Date.now()}:order-1`;
  assert.equal(await players.send("gifted", { type: "gift", coins: 5 }, id), true);
  assert.equal(await players.send("gifted", { type: "gift", coins: 5 }, id), false);
  const give = (data: { coins: number }, gift: { coins: number }) =>
    void (data.coins += gift.coins);
  const here = await players.start("gifted");
  here.onMessage("gift", give);
  await until("the first gift is there", () => here.data.coins === 5);
  await first.http.send(players.at("gifted"), { type: "gift", coins: 7 });
  await until("the second gift is there", () => here.data.coins === 12);
  const there = await second.store("PlayerData", player).start("gifted");
  there.onMessage("gift", give);
  assert.equal(there.data.coins, 12);
  await there.save();
  assert.deepEqual((await second.http.messages(players.at("gifted"))).items, []);
  await there.end();
  assert.equal((await players.get("gifted"))?.data.coins, 12);
});

test("a handler that fails leaves the message in the inbox and the data as it was", async () => {
  const server = await gameServer("eu-1");
  const players = server.store("PlayerData", player);
  const profile = await players.start("clumsy");
  const failed = new Promise<{ id: string }>((done) => profile.on("message-failed", done));
  profile.onMessage((data) => {
    data.coins = 99;
    throw new Error("no room");
  });
  await players.send("clumsy", "a box");
  await failed;
  assert.equal(profile.data.coins, 0);
  assert.equal((await server.http.messages(players.at("clumsy"))).items.length, 1);
  await profile.end();
});

test("a trade moves the item to both or to neither, and its gift goes with it", async () => {
  const server = await gameServer("eu-1");
  const players = server.store("PlayerData", player);
  const [ann, bob] = [await players.start("ann"), await players.start("bob")];
  ann.update((data) => data.items.push("sword"));
  const gifts = [players.gift("carl", { type: "tax", coins: 1 })];
  const trade = server.transaction(
    [ann, bob],
    ([from, to]) => to.items.push(from.items.pop() as string),
    { gifts },
  );
  assert.throws(() => ann.update((data) => data.items.push("copy")), { kind: "busy" });
  assert.equal(await trade, 1);
  assert.deepEqual([ann.data.items, bob.data.items], [[], ["sword"]]);
  assert.deepEqual((await players.get("bob"))?.data.items, ["sword"]);
  assert.deepEqual((await players.get("ann"))?.data.items, []);
  assert.equal((await server.http.messages(players.at("carl"))).items.length, 1);
  const failing = server.transaction([ann, bob], ([from]) => {
    from.coins = 1;
    throw new Error("changed my mind");
  });
  await assert.rejects(failing, /changed my mind/);
  assert.equal(ann.data.coins, 0);
  await bob.end();
  await assert.rejects(
    server.transaction([ann, bob], () => {}),
    { kind: "session-ended" },
  );
  ann.update((data) => (data.coins = 3));
  await ann.end();
  assert.equal((await players.get("ann"))?.data.coins, 3);
});

test("an edit is made in the middle of play, or is refused by the game", async () => {
  const server = await gameServer("eu-1");
  const check = (data: { coins: number }) => {
    if (data.coins < 0) throw new Error("debts are not allowed");
  };
  const players = server.store("PlayerData", { ...player, check });
  const profile = await players.start("edited");
  profile.update((data) => (data.coins += 1));
  const increase = (by: number) => [{ op: "increase", path: "/coins", by }];
  await server.http.edit(players.at("edited"), increase(100), { reason: "lost in a crash" });
  assert.equal(profile.data.coins, 101);
  const refused = server.http.edit(players.at("edited"), increase(-500));
  await assert.rejects(refused, (error: unknown) => {
    return error instanceof ProfileError && /debts are not allowed/.test(error.message);
  });
  assert.equal(profile.data.coins, 101);
  await profile.end();
  assert.equal((await players.get("edited"))?.data.coins, 101);
});

test("a rollback goes over what was read, and nothing else", async () => {
  const { http } = await gameServer("eu-1");
  const at = { store: "PlayerData", key: "rolled" };
  await http.put(at, { coins: 5 }, undefined);
  const first = (await http.get(at))?.etag ?? undefined;
  await http.put(at, { coins: 6 }, first);
  await assert.rejects(http.restore(at, 1, first), { kind: "changed" });
  await assert.rejects(http.restore(at, 1, undefined), { kind: "changed" });
  const second = (await http.get(at))?.etag ?? undefined;
  const done = await http.restore(at, 1, second, { reason: "a test" });
  assert.deepEqual([done.restored, done.replaced], [1, 2]);
  const stored = await http.get<{ coins: number }>(at);
  assert.deepEqual([stored?.data.coins, stored?.etag], [5, done.etag]);
});

test("a number that cannot be held is an error at the start and locks nothing", async () => {
  const server = await gameServer("eu-1");
  const exact = server.store("Big", { template: { gold: 0n }, bigint: true });
  const rich = await exact.start("rich");
  rich.update((data) => (data.gold = 9223372036854775807n));
  await rich.end();
  const rounded = server.store("Big", { template: { gold: 0 } });
  await assert.rejects(rounded.start("rich"), {
    kind: "invalid",
    message: /9223372036854775807.*gold/,
  });
  const free = async () => (await server.http.session(exact.at("rich"))).held === null;
  await until("the profile is free", free);
  const again = await exact.start("rich");
  assert.equal(again.data.gold, 9223372036854775807n);
  await again.end();
});

test("tags and metadata are read over HTTP, by the next session and behind a trade", async () => {
  const server = await gameServer("eu-1");
  const players = server.store("PlayerData", { ...player, bigint: true });
  const [tagged, other] = [await players.start("tagged"), await players.start("other")];
  tagged.setTags({ vip: 9007199254740993n, notes: ["ä"] });
  tagged.setMetadata({ region: "eu" });
  await tagged.save();
  const stored = await players.get("tagged");
  assert.deepEqual(
    [stored?.tags, stored?.metadata],
    [{ vip: 9007199254740993n, notes: ["ä"] }, { region: "eu" }],
  );
  tagged.setTags({ vip: 1n });
  await server.transaction([tagged, other], ([{ items }]) => void items.push("sword"));
  const traded = await players.get("tagged");
  assert.deepEqual([traded?.tags, traded?.data.items.length], [{ vip: 1n }, 1]);
  await Promise.all([tagged.end(), other.end()]);
  const again = await players.start("tagged");
  assert.deepEqual([again.tags, again.meta.tags], [{ vip: 1n }, { vip: 1n }]);
  assert.deepEqual(again.metadata, { region: "eu" });
  await again.end();
});

test("a start that is called off, or that is refused, leaves nothing behind", async () => {
  const [first, second] = [await gameServer("eu-1"), await gameServer("eu-2")];
  const held = await first.store("PlayerData", player).start("off");
  const players = second.store("PlayerData", player);
  await assert.rejects(players.start("off", { whenHeld: "give_up" }), { kind: "cancelled" });
  const off = new AbortController();
  const start = players.start("fresh", { signal: off.signal });
  off.abort();
  await assert.rejects(start, { kind: "cancelled", advice: "ignore" });
  const free = async () => (await first.http.session(players.at("fresh"))).held === null;
  await until("the profile is free", free);
  await held.end();
});

test("a program that is too old leaves the profile alone", async () => {
  const server = await gameServer("eu-1");
  await (await server.store("PlayerData", { ...player, dataVersion: 2 }).start("versioned")).end();
  const old = server.store("PlayerData", { ...player, dataVersion: 1 });
  await assert.rejects(old.start("versioned"), { kind: "newer-data", advice: "fix" });
  await (await server.store("PlayerData", { ...player, dataVersion: 2 }).start("versioned")).end();
});

test("a wrong key is refused at once", async () => {
  const wrong = connect(serve.url, { key: "ps_000000000000_wrong", job: "eu-1" });
  await assert.rejects(wrong, { kind: "unauthorized", advice: "fix" });
});

/** The programs of the README, and what it says that the first one prints. */
async function readme() {
  const text = await readFile(new URL("../README.md", import.meta.url), "utf8");
  const programs = [...text.matchAll(/```js\n([^]*?)```/g)].map(([, program]) => program ?? "");
  /** The first one with this in it. */
  const program = (part: string): string => programs.find((one) => one.includes(part)) ?? "";
  const hello = program("import");
  const connecting = hello.slice(0, hello.indexOf("const profile =")).replace("PlayerData", "Bank");
  const printed = /node hello\.mjs\n([^]*?)```/.exec(text)?.[1] ?? "";
  return { hello, connecting, program, printed };
}

async function output(name: string, program: string): Promise<[string, string]> {
  const file = new URL(name, import.meta.url);
  await writeFile(file, program);
  const env = { ...process.env, PROFILESTORE_URL: serve.url, PROFILESTORE_KEY: serve.key };
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [fileURLToPath(file)], {
    env,
  });
  return [stdout, stderr];
}

test("the README's program runs as it stands, and prints what the README says", async () => {
  const { hello, printed } = await readme();
  assert.deepEqual(await output("hello.mjs", hello), [printed, ""]);
});

test("the README's second connection of a player goes on with what the first left", async () => {
  const { connecting, program } = await readme();
  const change = "(await players.start(user)).update((data) => (data.coins = 7));";
  const first = `const user = "twice"; ${change}`;
  const printing = "console.log(profile.data.coins); await server.close();";
  const twice = connecting + first + program("isTheirs") + printing;
  assert.deepEqual(await output("twice.mjs", twice), ["7\n", ""]);
});

test("the README's way to end a game server leaves nothing held", async () => {
  const { connecting, program } = await readme();
  const playing = 'await players.start("stopped"); process.kill(process.pid, "SIGTERM");';
  assert.deepEqual(await output("stop.mjs", connecting + program("SIGTERM") + playing), ["", ""]);
  const stored = await (await gameServer("eu-1")).store("Bank", player).get("stopped");
  assert.equal(stored?.held, null);
});

test("the README's trade moves coins and sends its gift", async () => {
  const { connecting, program } = await readme();
  const trade = program("server.transaction");
  const printing = "console.log(ann.data.coins, bob.data.coins); await server.close();";
  assert.deepEqual(await output("trade.mjs", connecting + trade + printing), ["0 2\n", ""]);
  const server = await gameServer("eu-1");
  const friend = await server.store("Bank", player).start("user-3");
  friend.onMessage<{ coins: number }>("gift", (data, { coins }) => void (data.coins += coins));
  await until("the gift is there", () => friend.data.coins === 1);
  await friend.end();
});

test("an operator who takes a profile ends its session, and the game is told", async () => {
  const server = await gameServer("eu-1");
  const players = server.store("PlayerData", player);
  const profile = await players.start("stolen");
  const ended = new Promise<{ hasLoss: boolean }>((done) => profile.on("end", done));
  profile.update((data) => (data.coins = 1));
  await server.http.endSession(players.at("stolen"), { steal: true, reason: "a test" });
  assert.equal((await ended).hasLoss, true);
  const asked = await players.start("asked");
  asked.update((data) => (data.coins = 1));
  const released = await server.http.endSession(players.at("asked"), { reason: "a test" });
  assert.deepEqual([released.held_by, asked.ended?.reason], ["eu-1", "released"]);
  assert.equal((await players.get("asked"))?.data.coins, 1);
});
