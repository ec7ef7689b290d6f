// What needs neither a server nor a browser.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import ts from "typescript";
import { Playing } from "./playing.js";

/** The address of a module of the page, with all that it imports. */
function addressOf(file) {
  const source = readFileSync(new URL(`../src/lib/${file}`, import.meta.url), "utf8");
  const { outputText } = ts.transpileModule(source, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ES2022 },
  });
  const code = outputText.replaceAll(
    /from "\.\/([\w.]+)"/g,
    (_, name) => `from "${addressOf(`${name}.ts`)}"`,
  );
  return `data:text/javascript,${encodeURIComponent(code)}`;
}
const load = (file) => import(addressOf(file));

const { find, Malformed, parse, parseAnswer, plain, same, short, write } = await load("json.ts");

/** What is so long waits until something looks into it. */
const LONG = "x".repeat(1 << 16);

test("a large part of an answer is not read until something looks into it", () => {
  // What is not read is not found to be wrong.
  const text = `{"version":7,"data":{"coins":1.50,"items":["${LONG}",[1,2],oops]}}`;
  assert.throws(() => parse(text), Malformed);
  const answer = plain(parseAnswer(text));
  assert.equal(answer.version, 7);
  assert.equal(answer.data.size, 2);
  assert.equal(find(answer.data, "/coins").text, "1.50");
  const items = find(answer.data, "/items");
  assert.ok(Array.isArray(items));
  assert.equal(items.length, 3);
  assert.throws(() => items[0], Malformed);
  // Of an answer that is broken off nothing is shown.
  assert.throws(() => parseAnswer(text.slice(0, -3)), Malformed);
});

test("what is read later is what would be read at once", () => {
  const inner = `{"__proto__":null,"a\\"b":[true,false,"\\\\",-1.50e-7,""],"a":{"a":[]},"":{}}`;
  const many = Array.from({ length: 3000 }, (_, at) => `{"id":"${at}]","power":${at}.0}`);
  const text = `[{"data":[${many}],"of":{"it":[${inner},"${LONG}",${inner}]}},${inner}]`;
  const again = () => parseAnswer(text);
  // Not `equal`, which would print all of it.
  assert.ok(write(parse(text)) === text);
  assert.ok(write(again()) === text);
  assert.ok(write(again(), "  ") === write(parse(text), "  "));
  assert.equal(
    write(parse('{"a":[1,{}],"b":[]}'), "  "),
    '{\n  "a": [\n    1,\n    {}\n  ],\n  "b": []\n}',
  );
  assert.ok(same(again(), parse(text)) && same(parse(text), again()));
  assert.equal(find(again(), "/0/data").length, many.length);
  assert.equal(find(again(), "/0/data/2999/power").text, "2999.0");
  assert.equal([...find(again(), "/0/data")].length, many.length);
  assert.equal([0].concat(find(again(), "/0/data")).length, many.length + 1);
  assert.ok(find(again(), "/0/of") instanceof Map);
  assert.ok(find(again(), "/0/of").has("it"));
  assert.deepEqual([...new Map(find(again(), "/0/of")).keys()], ["it"]);
});

test("texts that are no JSON are refused with the place", () => {
  for (const [text, place] of [
    ["", "line 1, column 1"],
    ["{\n \"a\" 1}", "line 2, column 6"],
    ["[1,]", "line 1, column 4"],
    ['{"a":1,}', "line 1, column 8"],
    ['["a]', "line 1, column 2"],
    ['["\\q"]', "line 1, column 2"],
    ['["\n"]', "line 1, column 2"],
    ["[01]", "line 1, column 3"],
    ["tru", "line 1, column 1"],
    ["1 2", "line 1, column 3"],
    ["[}", "line 1, column 2"],
    ["[".repeat(600), "line 1, column 514"],
  ])
    assert.throws(() => parse(text), { message: `this is no JSON: ${place}` }, text.slice(0, 20));
});

test("the beginning of a value is that of all of it", () => {
  const value = parse(`{"a":"${LONG}","b":[1,[2,"${LONG}"],{"c":"😀${LONG}"}],"d":{}}`);
  const [line, lines] = [write(value), write(value, "  ")];
  for (let most = 0; most < 40; most++) {
    assert.equal(write(value, "", most).slice(0, most), line.slice(0, most));
    assert.equal(write(value, "  ", most).slice(0, most), lines.slice(0, most));
    assert.ok(write(value, "", most).length > most);
    assert.equal(short(value, most), `${line.slice(0, most)}…`);
  }
  assert.ok(write(value, "", 300_000) === line);
  assert.equal(short(parse('{"a":[1]}')), '{"a":[1]}');
});

/** Runs with what a browser and Svelte give, and with a server that answers so. */
async function answered(answer, run) {
  const sessionStorage = { getItem: () => null };
  const given = { $state: (value) => value, sessionStorage, fetch: answer };
  const before = Object.keys(given).map((name) => [
    name,
    Object.getOwnPropertyDescriptor(globalThis, name),
  ]);
  for (const [name, value] of Object.entries(given))
    Object.defineProperty(globalThis, name, { value, configurable: true });
  try {
    await run();
  } finally {
    for (const [name, was] of before)
      if (was) Object.defineProperty(globalThis, name, was);
      else delete globalThis[name];
  }
}

test("an answer that is broken off is one whose outcome is not known", async () => {
  const body = () =>
    new ReadableStream({
      pull(stream) {
        stream.error(new TypeError("network error"));
      },
    });
  await answered(
    async () => new Response(body()),
    async () => {
      const { ask, connection, fetched, Refusal, textOf } = await load("api.svelte.ts");
      const isUnknown = (error) => error instanceof Refusal && error.isOffline;
      await assert.rejects(ask({ path: "/v1/me" }), isUnknown);
      assert.ok(connection.silentSince > 0);
      // An export, of which nothing may be saved then.
      const call = { path: "/v1/users/1/export" };
      await assert.rejects(textOf(await fetched(call), call), isUnknown);
      const stop = AbortSignal.abort();
      await assert.rejects(textOf(new Response(body()), { ...call, signal: stop }), {
        message: "network error",
      });
    },
  );
});

test("a rollback to a version that is not there says so, of a damaged profile too", async () => {
  const problem = (status, kind) =>
    new Response(JSON.stringify({ kind, detail: kind, etag: '"e"' }), { status });
  await answered(
    async (path, { method }) =>
      method === "POST" ? problem(404, "not-found") : problem(500, "damaged"),
    async () => {
      const { tried } = await load("preview.ts");
      await assert.rejects(tried("/p", "99", new AbortController().signal), { kind: "not-found" });
    },
  );
  await answered(
    async () => problem(500, "damaged"),
    async () => {
      const { tried } = await load("preview.ts");
      const told = await tried("/p", "1", new AbortController().signal);
      assert.deepEqual([told.version, told.current, told.etag], ["1", null, '"e"']);
    },
  );
});

/** A profile whose saves fail as they are told to, one after the other. */
function profile(...fails) {
  return {
    data: { coins: 0 },
    update(change) {
      change(this.data);
    },
    async save() {
      await new Promise((done) => setImmediate(done));
      const error = fails.shift();
      if (error) throw error;
    },
  };
}
const failure = (message, advice) => Object.assign(new Error(message), { advice });

test("a player who is told to try again does, and what is measured goes on", async () => {
  const refused = profile(failure("busy", "retry"), failure("unknown", "retry-as"));
  const playing = new Playing([refused], 1);
  const told = await playing.beside(async () => {
    while (playing.saves < 3) await new Promise((done) => setImmediate(done));
    return "measured";
  });
  assert.equal(told, "measured");
  assert.ok(refused.data.coins >= 5);
  playing.stop();
});

test("the first error is told, of what is measured or of a player, and no later one", async () => {
  const ending = profile();
  let end;
  ending.save = () => new Promise((_, failed) => (end = failed));
  const measured = new Playing([ending]);
  const late = async () => {
    throw new Error("it never was so");
  };
  await assert.rejects(measured.beside(late), { message: "it never was so" });
  // As sessions that end do. An error that nothing takes would end this process.
  end(failure("busy", "retry"));
  await new Promise((done) => setImmediate(done));
  const lost = new Playing([profile(failure("session-ended", "leave"))]);
  await assert.rejects(
    lost.beside(() => new Promise(() => {})),
    { message: "session-ended" },
  );
});
