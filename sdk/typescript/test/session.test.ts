/** When a session is saved and how it ends, on a connection that this test answers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { failure, ProfileError, type Problem } from "../dist/errors.js";
import type { Profile } from "../dist/session/profile.js";
import { userOf } from "../dist/session/users.js";
import { transact } from "../dist/transaction.js";
import { session, turn } from "./wire.js";

interface Coins {
  coins: number;
}

const UUID = "069a79f4-44e9-4726-a5be-fca90e38aaf5";

test("users have one spelling, and what is no user is refused", () => {
  const bare = UUID.replaceAll("-", "").toUpperCase();
  for (const [given, user] of [
    [7, 7],
    ["7", 7],
    [7n, 7],
    ["07", "07"],
    [76_561_198_000_000_000n, "76561198000000000"],
    [UUID.toUpperCase(), UUID],
    [bare, bare],
    ["Notch", "Notch"],
  ] as const) {
    assert.equal(userOf(given), user);
  }
  for (const wrong of [-1, "-1", 1.5, 2 ** 53, NaN, "", "a\0b", "ä".repeat(51), "\ud800"]) {
    assert.throws(() => userOf(wrong), { kind: "invalid" }, String(wrong));
  }
  // Of a game that no compiler checks: as text they would be the names of users.
  for (const wrong of [undefined, null, true, {}, [7]]) {
    assert.throws(() => userOf(wrong as unknown as string), { kind: "invalid" }, String(wrong));
  }
});

test("users go with the next save, once, and not with an edit", async () => {
  const { wire, profile } = session();
  profile.addUser(UUID.toUpperCase());
  profile.addUser(UUID);
  profile.addUser(7);
  assert.deepEqual([profile.users, profile.hasUnsaved], [[UUID, 7], true]);
  const saved = profile.save();
  await turn();
  assert.deepEqual(wire.last.user_ids, [UUID, 7]);
  profile.removeUser("7");
  wire.answer(2);
  await saved;
  assert.equal(profile.hasUnsaved, true);
  profile.heard(["edit", { s: 1, op: "op-1", changes: "[]", by: "ann", reason: "" }]);
  await turn();
  assert.equal("user_ids" in wire.last, false);
  wire.answer(3);
  await turn();
  const second = profile.save();
  await turn();
  assert.deepEqual(wire.last.user_ids, [UUID]);
  wire.answer(4);
  await second;
  assert.equal(profile.hasUnsaved, false);
  profile.update((data) => (data.coins = 1));
  void profile.save();
  await turn();
  assert.equal("user_ids" in wire.last, false);
});

test("one save is unanswered at a time, and what changes meanwhile goes together", async () => {
  const { wire, profile } = session();
  profile.update((data) => (data.coins = 1));
  const first = profile.save();
  await turn();
  const later: Promise<void>[] = [];
  for (let coins = 2; coins <= 10; coins++) {
    profile.update((data) => (data.coins = coins));
    later.push(profile.save());
  }
  await turn();
  assert.deepEqual(
    wire.frames.map(([name, save]) => [name, save.data.coins]),
    [["save", 1]],
  );
  wire.answer(2);
  await first;
  await turn();
  assert.deepEqual(
    wire.frames.map(([, save]) => [save.n, save.data.coins]),
    [
      [1, 1],
      [2, 10],
    ],
  );
  assert.equal(profile.hasUnsaved, true);
  wire.answer(3);
  await Promise.all(later);
  assert.deepEqual([profile.hasUnsaved, profile.version, wire.frames.length], [false, 3, 2]);
  await profile.save();
  assert.equal(wire.frames.length, 2, "nothing is new");
});

test("a message's effect and its index go in one save, and it has its effect once", async () => {
  const { wire, profile } = session();
  const message = { s: 1, index: 7, id: "1:a", sent_ms: 1, body: '{"type":"gift","coins":5}' };
  profile.heard(["message", message]);
  profile.onMessage("gift", (data, gift: { coins: number }) => void (data.coins += gift.coins));
  profile.heard(["message", message]);
  await turn();
  assert.deepEqual([wire.last.data.coins, wire.last.processed], [5, [7]]);
  wire.answer(2);
  profile.heard(["message", message]);
  await turn();
  assert.deepEqual([profile.data.coins, wire.frames.length], [5, 1]);
});

test("an edit goes alone, although play goes on", async () => {
  const { wire, profile } = session();
  profile.update((data) => (data.coins = 3));
  const edit = {
    s: 1,
    op: "op-1",
    changes: '[{"op":"increase","path":"/coins","by":100}]',
    by: "",
    reason: "",
  };
  profile.heard(["edit", edit]);
  profile.heard(["edit", edit]);
  await turn();
  assert.deepEqual([wire.last.data.coins, wire.last.edits_done], [100, [{ op: "op-1" }]]);
  assert.equal(profile.data.coins, 103);
  wire.answer(2);
  void profile.save();
  await turn();
  assert.deepEqual([wire.last.data.coins, wire.last.edits_done], [103, []]);
  profile.heard(["edit", { ...edit, op: "op-2", changes: '[{"op":"remove","path":"/none"}]' }]);
  wire.answer(3);
  await turn();
  assert.equal(wire.last.data.coins, 103);
  assert.match(wire.last.edits_done[0]?.refused ?? "", /there is nothing/);
});

test("an edit is refused in words that a frame can have", async () => {
  for (const [words, shown] of [
    ["x".repeat(969) + "\u{1f600}", /x\ufffd$/],
    ["\udc00", /: \ufffd$/],
  ] as const) {
    const { wire, profile } = session("{}", () => {
      throw new Error(words);
    });
    profile.heard(["edit", { s: 1, op: "op-1", changes: "[]", by: "", reason: "" }]);
    await turn();
    assert.match(wire.last.edits_done[0]?.refused ?? "", shown);
  }
});

test("a time that no timer has is the longest one, and not none", async () => {
  const { wire, profile } = session("{}", undefined, Infinity);
  profile.update((data) => (data.coins = 1));
  await new Promise((done) => setTimeout(done, 50));
  assert.deepEqual(wire.frames, []);
  const end = profile.end();
  wire.outcomes.at(-1)?.done(["ended", { i: 1 }]);
  await end;
});

test("an edit that comes during an end is made when that end is refused", async () => {
  const { wire, profile } = session();
  profile.update((data) => (data.coins = 3));
  const end = profile.end();
  await turn();
  const changes = '[{"op":"increase","path":"/coins","by":100}]';
  profile.heard(["edit", { s: 1, op: "op-1", changes, by: "", reason: "" }]);
  await turn();
  assert.deepEqual(
    wire.frames.map(([name]) => name),
    ["end"],
  );
  wire.outcomes.at(-1)?.failed(failure("too-large", "it is too large"));
  await assert.rejects(end, { kind: "too-large" });
  await turn();
  assert.deepEqual([wire.last.data.coins, wire.last.edits_done], [100, [{ op: "op-1" }]]);
  assert.equal(profile.data.coins, 103);
  wire.answer(2);
  // Play goes behind it.
  wire.answer(3);
  const again = profile.end();
  await turn();
  wire.outcomes.at(-1)?.done(["ended", { i: 1 }]);
  await again;
  assert.equal(wire.last.data.coins, 103);
});

test("a save that is refused for good fails, and the session goes on", async () => {
  const { wire, profile } = session();
  const told: ProfileError[] = [];
  profile.on("save-failed", (error) => told.push(error));
  profile.update((data) => (data.coins = 1));
  const save = profile.save();
  await turn();
  wire.outcomes.at(-1)?.failed(failure("too-large", "it is too large"));
  await assert.rejects(save, { kind: "too-large", advice: "fix" });
  assert.equal(told.length, 1);
  profile.update((data) => (data.coins = 2));
  const again = profile.save();
  await turn();
  wire.answer(2);
  await again;
  assert.equal(wire.last.data.coins, 2);
});

test("a save of a change that was changed back is done", async () => {
  const { wire, profile } = session();
  profile.update((data) => (data.coins = 1));
  const first = profile.save();
  profile.update((data) => (data.coins = 0));
  await first;
  assert.deepEqual([wire.frames.length, profile.hasUnsaved], [0, false]);
  // The same behind a save that is refused.
  profile.on("save-failed", () => {});
  profile.update((data) => (data.coins = 1));
  const refused = profile.save();
  await turn();
  profile.update((data) => (data.coins = 0));
  const back = profile.save();
  wire.outcomes.at(-1)?.failed(failure("too-large", "it is too large"));
  await assert.rejects(refused, { kind: "too-large" });
  await back;
  assert.deepEqual([wire.frames.length, profile.hasUnsaved], [1, false]);
});

test("a session that is lost says so once, and whether play was lost with it", async () => {
  const { wire, profile } = session();
  const ends: unknown[] = [];
  profile.on("end", (end) => ends.push(end));
  profile.update((data) => (data.coins = 1));
  const save = profile.save();
  await turn();
  profile.heard(["closed", { s: 1, n: null, why: "external", by: { job: "eu-2", place: 0 } }]);
  const over: Problem = { kind: "session-ended", advice: "leave" };
  wire.outcomes.at(-1)?.failed(new ProfileError(over));
  await assert.rejects(save, { kind: "session-ended" });
  profile.heard(["lost", { s: 1, by: null }]);
  const by = { server: { job: "eu-2", place: 0 } };
  assert.deepEqual(ends, [{ reason: "external", by, hasLoss: true }]);
  assert.equal(wire.isOver, true);
});

test("an end waits for a transaction that begins when another one ends", async () => {
  const { wire, profile } = session();
  let hooks = 0;
  profile.onLastSave(() => void hooks++);
  profile.freeze();
  const end = profile.end();
  profile.thaw(undefined, undefined);
  profile.freeze();
  await turn();
  assert.deepEqual([hooks, wire.frames.length], [0, 0]);
  profile.thaw(undefined, undefined);
  await turn();
  assert.deepEqual([hooks, wire.frames.map(([name]) => name)], [1, ["end"]]);
  wire.outcomes.at(-1)?.done(["ended", { i: 1 }]);
  await end;
});

test("a message behind one whose failure ends the session changes nothing", async () => {
  const { wire, profile } = session();
  for (const index of [7, 8]) {
    const body = `{"type":"gift","index":${index}}`;
    profile.heard(["message", { s: 1, index, id: `1:${index}`, sent_ms: 1, body }]);
  }
  profile.on("message-failed", () => void profile.end());
  profile.onMessage("gift", (data, { index }: { index: number }) => {
    if (index === 7) throw new Error("no");
    data.coins += 5;
  });
  await turn();
  assert.deepEqual([profile.data.coins, wire.last.processed], [0, []]);
  wire.outcomes.at(-1)?.done(["ended", { i: 1 }]);
  await turn();
  assert.equal(profile.ended?.hasLoss, false);
});

test("tags and metadata go with the next save, once, and not with an edit", async () => {
  const { wire, profile } = session('{"user_ids":[7],"tags":{"old":1},"metadata":{}}');
  assert.deepEqual([profile.tags, profile.metadata, profile.hasUnsaved], [{ old: 1 }, {}, false]);
  profile.setTags({ ...profile.tags, vip: true });
  profile.setMetadata({ region: "eu" });
  assert.deepEqual([profile.tags, profile.hasUnsaved], [{ old: 1, vip: true }, true]);
  profile.heard(["edit", { s: 1, op: "op-1", changes: "[]", by: "ann", reason: "" }]);
  await turn();
  assert.deepEqual(["tags" in wire.last, "metadata" in wire.last], [false, false]);
  wire.answer(2);
  const saved = profile.save();
  await turn();
  assert.deepEqual([wire.last.tags, wire.last.metadata], [profile.tags, { region: "eu" }]);
  assert.equal("user_ids" in wire.last, false);
  // Changed while that is under way: it goes with the next one.
  profile.setTags({});
  wire.answer(3);
  await saved;
  assert.deepEqual([wire.last.tags, "metadata" in wire.last], [{}, false]);
  profile.setMetadata({});
  const end = profile.end();
  wire.answer(4);
  assert.deepEqual(["tags" in wire.last, wire.last.metadata], [false, {}]);
  wire.outcomes.at(-1)?.done(["ended", { i: 1 }]);
  await end;
  assert.equal(profile.hasUnsaved, false);
  assert.throws(() => profile.setTags({}), { kind: "session-ended" });
});

test("tags and metadata that cannot be stored are refused at once, and change nothing", () => {
  const { profile } = session();
  const long = "ä".repeat(250);
  profile.setMetadata({ long });
  for (const metadata of [
    { long: `${long}x` },
    { ["k".repeat(51)]: 1 },
    { a: long, b: "x".repeat(50) },
    { list: Array(126).fill(1) },
  ]) {
    assert.throws(() => profile.setMetadata(metadata), { kind: "too-large", advice: "fix" });
  }
  for (const wrong of [[], null, "vip", { half: "\ud800" }, { at: new Date(0) }, { n: 2 ** 53 }]) {
    const given = wrong as Record<string, unknown>;
    assert.throws(() => profile.setTags(given), { kind: "invalid" });
    assert.throws(() => profile.setMetadata(given), { kind: "invalid" });
  }
  assert.deepEqual([profile.tags, profile.metadata], [{}, { long }]);
});

test("a number in tags that cannot be held is an error only when they are read", async () => {
  const { wire, profile } = session('{"tags":{"n":9007199254740993},"metadata":{}}');
  assert.throws(() => profile.tags, { kind: "invalid", message: /9007199254740993/ });
  profile.update((data) => (data.coins = 1));
  void profile.save();
  await turn();
  assert.deepEqual([wire.last.data.coins, "tags" in wire.last], [1, false]);
});

test("data that is changed outside of an update is an error, and not lost in silence", () => {
  const { profile } = session();
  profile.update((data) => Object.assign(data, { coins: 1, items: [{ name: "sword" }] }));
  const data = profile.data as unknown as { coins: number; items: { name: string }[] };
  assert.throws(() => (data.coins = 2), TypeError);
  assert.throws(() => data.items.push({ name: "bow" }), TypeError);
  assert.throws(() => Object.assign(data.items[0] as object, { name: "bow" }), TypeError);
  profile.update((own) => (own.coins += 1));
  assert.deepEqual(profile.data, { coins: 2, items: [{ name: "sword" }] });
});

test("a change within a change is refused, and loses nothing", async () => {
  const { wire, profile } = session();
  const within: unknown[] = [];
  profile.update((data) => {
    data.coins = 1;
    try {
      profile.update((other) => (other.coins = 50));
    } catch (error) {
      within.push((error as ProfileError).kind);
    }
    void profile.end().catch((error: ProfileError) => within.push(error.kind));
    data.coins += 1;
  });
  await turn();
  assert.deepEqual([profile.data.coins, within], [2, ["invalid", "invalid"]]);
  // A message whose handler forgets the data that it was given stays in the inbox.
  const failed: string[] = [];
  profile.on("message-failed", ({ id }) => failed.push(id));
  profile.onMessage("gift", () => void profile.update((data) => (data.coins += 5)));
  const body = '{"type":"gift"}';
  profile.heard(["message", { s: 1, index: 7, id: "1:a", sent_ms: 1, body }]);
  assert.deepEqual([profile.data.coins, failed], [2, ["1:a"]]);
  const saved = profile.save();
  await turn();
  assert.deepEqual([wire.last.data.coins, wire.last.processed], [2, []]);
  wire.answer(2);
  await saved;
});

test("a save during a trade is done when the trade is", async () => {
  const { wire, profile } = session();
  const bench = Object.assign(wire, { maxFrame: 5 << 20 });
  const all = [profile as unknown as Profile<unknown>];
  const trade = transact(bench, all, ([data]) => void ((data as Coins).coins = 1), {});
  let isSaved = false;
  const saved = profile.save().then(() => (isSaved = true));
  await turn();
  assert.deepEqual([wire.frames.map(([name]) => name), isSaved], [["tx"], false]);
  wire.outcomes.at(-1)?.done(["done", { i: 1, versions: [2] }]);
  await Promise.all([trade, saved]);
  assert.deepEqual([profile.data.coins, profile.version, wire.frames.length], [1, 2, 1]);
});

test("tags go with their part of a trade, also when its data is sent before", async () => {
  const { wire, profile } = session();
  profile.setTags({ vip: 1 });
  const all = [profile as unknown as Profile<unknown>];
  for (const maxFrame of [5 << 20, 10]) {
    const bench = Object.assign(wire, { maxFrame });
    const trade = transact(bench, all, ([data]) => void ((data as Coins).coins += 1), {});
    await turn();
    const parts = wire.all.map((text) => Object.entries(JSON.parse(text) as object));
    const [, tx] = parts.at(-1)?.[0] as [string, { parts: { tags?: unknown; data?: unknown }[] }];
    const staged = maxFrame === 10;
    assert.deepEqual(tx.parts[0]?.tags, staged ? { vip: 2 } : { vip: 1 });
    assert.deepEqual([parts.length, "data" in (tx.parts[0] ?? {})], [staged ? 2 : 1, !staged]);
    wire.outcomes.at(-1)?.done(["done", { i: 1, versions: [2] }]);
    await trade;
    profile.setTags({ vip: 2 });
  }
});

test("a trade takes nothing over from an edit that was taken back meanwhile", async () => {
  const { wire, profile } = session();
  const changes = '[{"op":"increase","path":"/coins","by":100}]';
  profile.heard(["edit", { s: 1, op: "op-1", changes, by: "", reason: "" }]);
  await turn();
  const bench = Object.assign(wire, { maxFrame: 5 << 20 });
  const all = [profile as unknown as Profile<unknown>];
  const trade = transact(bench, all, ([data]) => void ((data as Coins).coins += 1), {});
  wire.outcomes.at(-1)?.failed(failure("too-large", "it is too large"));
  await turn();
  wire.answer(2);
  await assert.rejects(trade, { kind: "busy", advice: "retry" });
  assert.deepEqual([profile.data.coins, profile.hasUnsaved], [0, false]);
  assert.deepEqual(
    wire.frames.map(([name, { data }]) => [name, data?.coins]),
    [
      ["save", 100],
      ["save", 0],
    ],
  );
});

test("a change that gives something to wait for is refused, whatever kind of promise it is", () => {
  const { profile } = session();
  const later = { then: (_: unknown, failed: (why: Error) => void) => failed(new Error("late")) };
  const change = (data: Coins) => {
    data.coins = 9;
    return later;
  };
  assert.throws(() => profile.update(change), { kind: "invalid", message: /async/ });
  assert.equal(profile.data.coins, 0);
});

test("ten thousand edits of one session are remembered, and no more", async () => {
  const { wire, profile } = session();
  const edit = (op: string) =>
    profile.heard(["edit", { s: 1, op, changes: "[]", by: "", reason: "" }]);
  const made = () => wire.frames.length;
  for (let at = 0; at <= 10_000; at++) {
    edit(`op-${at}`);
    await Promise.resolve();
    wire.answer(at + 2);
  }
  const before = made();
  edit("op-10000");
  await turn();
  assert.equal(made(), before, "it is known");
  edit("op-0");
  await turn();
  assert.equal(made(), before + 1, "it is forgotten");
});
