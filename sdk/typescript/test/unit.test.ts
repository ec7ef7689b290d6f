/** The rules by themselves: no server, no clock. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { activeUntil, Belief } from "../dist/belief.js";
import type { Outcome } from "../dist/connection.js";
import { failure, ProfileError, type Problem } from "../dist/errors.js";
import { compose, read, type ServerFrame } from "../dist/frames.js";
import { Http, operationId } from "../dist/http.js";
import { members, parse, stringify } from "../dist/json.js";
import { Document } from "../dist/session/document.js";
import { edited } from "../dist/session/edit.js";
import { Profile } from "../dist/session/profile.js";
import { userOf } from "../dist/session/users.js";

// --- until when a game server may believe ----------------------------------------------------

test("belief ends before the lease of the last confirmed renewal, and 6 s after the ping", () => {
  assert.equal(activeUntil(1000, 0, 20_000), 7000);
  assert.equal(activeUntil(1000, 15_000, 20_000), 1000 - 15_000 + 20_000 - 200 - 500);
  assert.equal(activeUntil(1000, 30_000, 20_000), -9700);
});

test("belief is for the incarnation that the pong names, and not after a suspend", () => {
  const belief = new Belief();
  assert.equal(belief.holds("a", { steady: 0, wall: 0 }), false);
  belief.note("a", { steady: 1000, wall: 50_000 }, 100, 20_000);
  assert.equal(belief.holds("a", { steady: 6999, wall: 55_999 }), true);
  assert.equal(belief.holds("a", { steady: 7000, wall: 56_000 }), false);
  assert.equal(belief.holds("b", { steady: 1001, wall: 50_001 }), false);
  assert.equal(belief.holds("a", { steady: 1500, wall: 51_501 }), false, "the machine slept");
  assert.equal(
    belief.holds("a", { steady: 1500, wall: 40_000 }),
    true,
    "the wall's clock was set back",
  );
});

// --- JSON without rounding -------------------------------------------------------------------

const plain = { bigint: false };
const exact = { bigint: true };

test("numbers that JavaScript holds are read, others are an error that names the place", () => {
  for (const fine of [
    "0",
    "-1",
    "9007199254740991",
    "0.1",
    "1e22",
    "1.50",
    "5e-324",
    "100000e2",
    "-0.0",
  ]) {
    assert.equal(parse(fine, plain), Number(fine), fine);
  }
  const lossy = [
    "9007199254740992",
    "9007199254740993",
    "1e400",
    "0.1234567890123456789",
    "1e-400",
  ];
  for (const token of lossy) {
    const text = `{"a":{"b/c":[1,${token}]},"s":"\\"12345678901234567890"}`;
    assert.throws(() => parse(text, plain), { kind: "invalid", message: /\/a\/b~1c\/1/ }, token);
  }
});

test("with bigint every whole number is one, and what is written is read as the same", () => {
  const text = '{"level":7,"gold":9223372036854775807,"share":1.0,"list":[-5,1e5,0.25]}';
  const value = parse(text, exact);
  assert.deepEqual(value, {
    level: 7n,
    gold: 9223372036854775807n,
    share: 1,
    list: [-5n, 1e5, 0.25],
  });
  const written = stringify(value, exact);
  assert.equal(
    written,
    '{"level":7,"gold":9223372036854775807,"share":1.0,"list":[-5,100000.0,0.25]}',
  );
  assert.deepEqual(parse(written, exact), value);
});

test("half of a character is refused at once, and its place is shown without it", () => {
  const refused: [unknown, string][] = [
    [{ half: "\ud800" }, "path=`/half`"],
    [{ "\ude00": 1 }, "path=`/\\ude00`"],
    [{ "a/\ud83d": ["\ude00\ud83d"] }, "path=`/a~1\\ud83d`"],
  ];
  for (const [value, place] of refused) {
    assert.throws(
      () => stringify(value, plain),
      (error: unknown) =>
        error instanceof ProfileError &&
        error.kind === "invalid" &&
        error.message.includes("half of a character") &&
        error.message.includes(place),
    );
  }
  assert.equal(stringify({ "\u{1f600}": "\ud83d\ude00" }, plain), '{"\u{1f600}":"\u{1f600}"}');
});

test("what cannot be stored is refused with its place", () => {
  const own: Record<string, unknown> = {};
  own["self"] = own;
  const cases: [unknown, RegExp][] = [
    [{ a: [NaN] }, /\/a\/0/],
    [{ a: Infinity }, /\/a/],
    [{ a: 2 ** 53 }, /bigint.*\/a/],
    [{ a: 1n }, /bigint.*\/a/],
    [{ when: new Date(0) }, /Date.*\/when/],
    [{ m: new Map() }, /Map.*\/m/],
    [{ f: () => 1 }, /function.*\/f/],
    [[undefined], /undefined.*\/0/],
    [own, /itself/],
  ];
  for (const [value, message] of cases) {
    assert.throws(() => stringify(value, plain), { kind: "invalid", message });
  }
  assert.equal(stringify({ a: undefined, b: -0, c: 1e21 }, plain), '{"b":-0.0,"c":1e+21}');
});

test("what the server cannot store is refused at the change, and what it can is not", () => {
  const nested = (depth: number): unknown => (depth === 0 ? 1 : [nested(depth - 1)]);
  assert.ok(stringify(nested(100), exact).length > 100);
  const reserved = "$serde_json::private::RawValue";
  for (const value of [nested(101), 2n ** 64n, -(2n ** 63n) - 1n, { [reserved]: 1 }]) {
    assert.throws(() => stringify(value, exact), { kind: "invalid" });
  }
  assert.equal(stringify([2n ** 64n - 1n], exact), "[18446744073709551615]");
});

test("a name that a URL takes for a step up is no address", async () => {
  const http = new Http("http://127.0.0.1:1", "ps_0_0");
  for (const at of [
    { store: "S", scope: "..", key: "k" },
    { store: "S", key: "." },
  ]) {
    await assert.rejects(async () => http.send(at, 1), { kind: "invalid" });
  }
});

test("strings and odd names pass as they are", () => {
  const text =
    '{"__proto__":{"a":1},"\\u00e9\\"\\\\":"\\ud83d\\ude00\\n","n":[12345678901234567890]}';
  const value = parse(text, exact) as Record<string, unknown>;
  assert.deepEqual(Object.keys(value), ["__proto__", 'é"\\', "n"]);
  assert.equal(value['é"\\'], "😀\n");
  for (const broken of ["{", "[1,]", '{"a" 1}', "01", "1 2", "nul", '"\n"', '"abc', "", "-"]) {
    assert.throws(() => parse(broken, exact), broken);
  }
});

test("a frame's document stays the text that it was", () => {
  const data = '{"a": 1e400, "b": [{"c":"]},\\""}]}';
  const [name, body] = read(
    `{"started":{"i":1,"s":2,"epoch":3,"version":4,"data":${data},"meta":{}}}`,
  );
  assert.equal(name, "started");
  assert.equal((body as { data: string }).data, data);
  const frame = compose("save", { i: 1, n: undefined }, { data });
  assert.equal(frame, `{"save":{"i":1,"data":${data}}}`);
  assert.equal(compose("bye", {}), '{"bye":{}}');
  assert.deepEqual(
    [...members('{ "a" : 1 , "b":[1,2] }')],
    [
      ["a", "1"],
      ["b", "[1,2]"],
    ],
  );
});

test("an operation's id is a UUID of version 7", () => {
  assert.match(
    operationId(),
    /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
  );
});

// --- edits -----------------------------------------------------------------------------------

test("each step of an edit does what the standard says, and one that does not fit is named", () => {
  const steps = [
    { op: "test", path: "/coins", value: 5 },
    { op: "increase", path: "/coins", by: 1 },
    { op: "increase", path: "/coins", by: 1, create: true },
    { op: "increase", path: "/gems", by: 3, create: true },
    { op: "add", path: "/items/0", value: "shield" },
    { op: "add", path: "/items/-", value: "bow" },
    { op: "copy", from: "/items/0", path: "/first" },
    { op: "move", from: "/old", path: "/new" },
    { op: "replace", path: "/a~1b", value: null },
    { op: "merge", patch: { gone: null, deep: { x: 1 } } },
    { op: "restore", path: "/first", is: "shield" },
  ];
  const data = { coins: 5, items: ["sword"], old: 1, "a/b": 2, gone: 3 };
  const after = {
    coins: 7,
    gems: 3,
    items: ["shield", "sword", "bow"],
    "a/b": null,
    new: 1,
    deep: { x: 1 },
  };
  assert.deepEqual(edited(data, steps), after);
  for (const [step, why] of [
    [{ op: "remove", path: "/none" }, /step 1 \(remove `\/none`\): there is nothing/],
    [{ op: "add", path: "/items/9", value: 1 }, /no such place/],
    [{ op: "increase", path: "/items", by: 1 }, /no number/],
    [{ op: "increase", path: "/items", by: 1, create: true }, /no number/],
    [{ op: "increase", path: "/gems", by: 1 }, /there is nothing/],
    [{ op: "increase", path: "/bag/gems", by: 1, create: true }, /there is nothing/],
    [{ op: "restore", path: "/coins", is: 4, was: 1 }, /changed since/],
    [{ op: "shuffle", path: "" }, /does not know/],
  ] as const) {
    assert.throws(() => edited({ coins: 5, items: [] }, [step]), why);
  }
});

test("a change that fails, or that waits, leaves the data as it was", () => {
  const document = new Document<{ coins: number }>('{"coins":1}', plain, undefined);
  const fail = (data: { coins: number }) => {
    data.coins = 9;
    throw new Error("no");
  };
  assert.throws(() => document.change(fail), /no/);
  assert.throws(() => document.change((data) => void (data.coins = NaN)), { kind: "invalid" });
  const waits = async (data: { coins: number }) =>
    void (data.coins = await Promise.reject(new Error("late")));
  assert.throws(() => document.change(waits), { kind: "invalid", message: /async/ });
  assert.deepEqual([document.view, document.isChanged], [{ coins: 1 }, false]);
});

// --- saves, on a connection that this test answers -------------------------------------------

interface Save {
  i: number;
  n: number;
  data: { coins: number };
  processed: number[];
  user_ids?: (number | string)[];
  edits_done: { op: string; refused?: string }[];
}

/** Takes frames, and answers when the test says so. */
class Wire {
  #i = 0;
  readonly frames: [string, Save][] = [];
  readonly outcomes: Outcome[] = [];
  isOver = false;

  number(): number {
    return ++this.#i;
  }

  request(_i: number, frames: readonly string[], outcome: Outcome): void {
    const [entry] = Object.entries(JSON.parse(frames[0] ?? "") as Record<string, Save>);
    if (entry !== undefined) this.frames.push(entry);
    this.outcomes.push(outcome);
  }

  isActive(): boolean {
    return true;
  }

  over(): void {
    this.isOver = true;
  }

  /** The last frame. */
  get last(): Save {
    return (this.frames.at(-1) as [string, Save])[1];
  }

  answer(version: number): void {
    const saved: ServerFrame = ["saved", { i: 0, s: 1, n: 0, version }];
    this.outcomes.at(-1)?.done(saved);
  }
}

function session(): { wire: Wire; profile: Profile<{ coins: number }> } {
  const wire = new Wire();
  const document = new Document<{ coins: number }>('{"coins":0}', plain, undefined);
  const opened = { s: 1, store: "S", scope: "global", key: "k", epoch: 1, version: 1, meta: "{}" };
  const thrown = (fault: unknown) => assert.fail(String(fault));
  return { wire, profile: new Profile(opened, document, wire, 60_000, thrown) };
}

const turn = () => new Promise((done) => setImmediate(done));

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

test("an asked-for profile is frozen, saved and let go, with its last hooks", async () => {
  const { wire, profile } = session();
  profile.onLastSave((data) => void (data.coins += 1));
  const by = { server: { job: "eu-2", place: 0 } };
  profile.heard(["release", { s: 1, by, deadline_ms: 2000 }]);
  assert.throws(() => profile.update(() => {}), { kind: "busy", advice: "retry" });
  profile.heard(["release", { s: 1, by, deadline_ms: 2000 }]);
  assert.deepEqual(
    wire.frames.map(([name, { data }]) => [name, data.coins]),
    [["end", 1]],
  );
  wire.outcomes.at(-1)?.done(["ended", { i: 1 }]);
  await turn();
  assert.deepEqual(profile.ended, { reason: "released", by, hasLoss: false });
});
