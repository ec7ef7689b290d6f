/** The rules by themselves: no server, no clock. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { activeUntil, Ahead, Belief } from "../dist/belief.js";
import { ProfileError } from "../dist/errors.js";
import { compose, read } from "../dist/frames.js";
import { operationId } from "../dist/http.js";
import { members, parse, stringify } from "../dist/json.js";
import { Beside } from "../dist/session/beside.js";
import { Document } from "../dist/session/document.js";
import { edited } from "../dist/session/edit.js";

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

test("a ping is timed by the game's clock, also where each thread has its own", () => {
  const ahead = new Ahead();
  // The thread began 100 s behind the game. Its first order took 300 ms, the others 2 ms.
  ahead.note(100_000, 300);
  assert.deepEqual(ahead.there({ steady: 400, wall: 9 }), { steady: 100_100, wall: 9 });
  for (const at of [101_000, 102_000]) ahead.note(at, at - 100_000 + 2);
  const ping = ahead.there({ steady: 5000, wall: 9 });
  assert.ok(ping.steady <= 105_000 && ping.steady >= 104_998, "never later than it was");
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

// --- errors ----------------------------------------------------------------------------------

test("the type of an error's kind has every kind that the server has", async () => {
  const read = (path: string) => readFile(new URL(path, import.meta.url), "utf8");
  const table = await read("../../../crates/profilestore-server/src/problem/table.rs");
  const ofServer = [...table.matchAll(/row\(\s*"([a-z-]+)"/g)].map(([, kind]) => kind);
  const own = (await read("../src/errors.ts")).split("export type Kind =")[1]?.split(";")[0] ?? "";
  assert.ok(ofServer.length > 40);
  assert.deepEqual([...own.matchAll(/\| "([a-z-]+)"/g)].map(([, kind]) => kind), ofServer);
});

// --- answers ---------------------------------------------------------------------------------

test("the types of answers have the members that the server's description has", async () => {
  const read = (path: string) => readFile(new URL(path, import.meta.url), "utf8");
  const api = "../../../crates/profilestore-server/api/openapi.json";
  const { schemas } = (JSON.parse(await read(api)) as { components: Described }).components;
  const source = await read("../src/http.ts");
  for (const [type, name] of [
    ["StoredProfile", "ProfileView"],
    ["Version", "VersionView"],
    ["HeldBy", "HolderView"],
    ["Holding", "SessionView"],
    ["Waiting", "MessageView"],
  ] as const) {
    const body = source.split(new RegExp(`export interface ${type}\\b.*{`))[1]?.split("\n}")[0];
    const own = [...(body ?? "").matchAll(/readonly (\w+):/g)].map(([, member]) => member);
    assert.deepEqual(own.sort(), Object.keys(schemas[name]?.properties ?? {}).sort(), type);
  }
});

interface Described {
  readonly schemas: Readonly<Record<string, { readonly properties: object }>>;
}

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

const beside = (meta = "{}") => new Beside(meta, plain);

test("a change that fails, or that waits, leaves the data as it was", () => {
  const document = new Document<{ coins: number }>('{"coins":1}', plain, undefined, beside());
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

// --- the package -----------------------------------------------------------------------------

/** `npm pack` ran `rm` and `cp`, which Windows has not. */
test("Node alone makes the package, with the licences, without what was built before", async () => {
  const own = new URL("../", import.meta.url);
  const { scripts } = JSON.parse(await readFile(new URL("package.json", own), "utf8"));
  assert.match(scripts.prepack, /^node prepack\.mjs && npm run /);
  const root = await mkdtemp(join(tmpdir(), "profilestore-pack-"));
  try {
    const folder = join(root, "sdk", "typescript");
    await mkdir(join(folder, "dist"), { recursive: true });
    await writeFile(join(folder, "dist", "earlier.js"), "");
    for (const name of ["LICENSE-MIT", "LICENSE-APACHE", "README.md"]) {
      await writeFile(join(root, name), name);
    }
    await copyFile(new URL("prepack.mjs", own), join(folder, "prepack.mjs"));
    // A second time over what the first one left.
    for (const _ of [1, 2]) execFileSync(process.execPath, [join(folder, "prepack.mjs")]);
    const left = await readdir(folder);
    assert.deepEqual(left.sort(), ["LICENSE-APACHE", "LICENSE-MIT", "prepack.mjs"]);
    assert.equal(await readFile(join(folder, "LICENSE-MIT"), "utf8"), "LICENSE-MIT");
  } finally {
    await rm(root, { recursive: true });
  }
});
