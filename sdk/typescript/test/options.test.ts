/** What a game gives by mistake, such as a `bigint` or nothing: an error that names it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, Http, messageId, ProfileError } from "../dist/index.js";
import { userOf } from "../dist/session/users.js";
import { Store, type Shop } from "../dist/store.js";
import { transact } from "../dist/transaction.js";
import { session } from "./wire.js";

/** Of a JavaScript game, which no compiler has checked. */
const given = (value: unknown): never => value as never;

const invalid = (what: string) => (error: unknown) =>
  error instanceof ProfileError && error.kind === "invalid" && error.message.includes(what);

const template = { coins: 0 };
/** It has nothing: what is refused asks for nothing. */
const store = () => new Store("P", { template }, {} as Shop);

test("an option of `connect` that is of another type is named, and nothing is opened", async () => {
  const known = { key: "ps_key", job: "eu-1" };
  for (const [option, value] of [
    ["key", undefined],
    ["job", 5],
    ["place", 5n],
    ["place", 1.5],
    ["leaseMs", 20_000n],
    ["leaseMs", "20000"],
    ["leaseMs", Infinity],
    ["connectMs", 5n],
    ["connectMs", NaN],
    ["onFault", "log"],
  ] as const) {
    const options = given({ ...known, [option]: value });
    await assert.rejects(connect("ws://127.0.0.1:1", options), invalid(`\`${option}\``), option);
  }
  for (const none of [undefined, null, "ps_key"]) {
    await assert.rejects(connect("ws://127.0.0.1:1", given(none)), invalid("`options`"));
  }
});

test("an address that is not there is an error, as is one of another kind", async () => {
  const known = { key: "ps_key", job: "eu-1" };
  const one = "ws://127.0.0.1:7400";
  for (const url of [undefined, null, 5, [], [undefined], new URL(one), `${one} `, `${one}\n`]) {
    await assert.rejects(connect(given(url), known), { kind: "invalid" });
  }
  for (const url of ["127.0.0.1:7400", one, "http://", "http://127.0.0.1:7400 ", undefined]) {
    assert.throws(() => new Http(given(url), "ps_key"), { kind: "invalid" });
  }
});

test("an option of a store that is of another type is named", () => {
  for (const [option, value] of [
    ["scope", 5],
    ["check", 5],
    ["saveWithinMs", 5n],
    ["saveWithinMs", "5"],
    ["saveWithinMs", -1],
    ["dataVersion", 1n],
    ["readableFrom", 1n],
  ] as const) {
    const options = given({ template, [option]: value });
    assert.throws(() => new Store("P", options, {} as Shop), invalid(`\`${option}\``), option);
  }
  assert.throws(() => new Store("P", given(undefined), {} as Shop), invalid("`options`"));
  assert.throws(() => new Store(given(5), { template }, {} as Shop), invalid("`name`"));
  assert.equal(new Store("P", { template, saveWithinMs: Infinity }, {} as Shop).scope, "global");
});

test("a key that is a number is refused, and so are other arguments of another type", async () => {
  for (const key of [5, 76561198000000000n, undefined, null]) {
    await assert.rejects(store().start(given(key)), invalid("`key`"));
    await assert.rejects(store().send(given(key), {}), invalid("`key`"));
  }
  for (const timeoutMs of [5n, NaN, -1, "5", Infinity]) {
    await assert.rejects(store().start("k", given({ timeoutMs })), invalid("`timeoutMs`"));
  }
  for (const whenHeld of ["stael", null, 5]) {
    await assert.rejects(store().start("k", given({ whenHeld })), invalid("`whenHeld`"));
  }
  await assert.rejects(store().start("k", given(null)), invalid("`options`"));
  await assert.rejects(store().send("k", {}, given(5)), invalid("`id`"));
  assert.throws(() => void new Http("http://127.0.0.1:1", "k").get(given({ store: "P", key: 5n })));
});

test("a transaction that is refused for its arguments leaves its profiles free", async () => {
  const { profile } = session();
  const bench = given({});
  for (const [profiles, options, what] of [
    [[profile], { deadlineMs: 5n }, "`deadlineMs`"],
    [[profile], { deadlineMs: Infinity }, "`deadlineMs`"],
    [[profile], { gifts: 5 }, "`gifts`"],
    [[profile], { gifts: [null] }, "`gifts[0]`"],
    [profile, {}, "a list"],
    [[Promise.resolve(profile)], {}, "a list"],
  ] as const) {
    const tried = transact(bench, given(profiles), () => {}, given(options));
    await assert.rejects(tried, invalid(what));
  }
  const unmade = transact(bench, given([profile]), given(undefined), {});
  await assert.rejects(unmade, invalid("`change`"));
  profile.update((data) => (data.coins = 1));
  assert.equal(profile.data.coins, 1);
});

test("an event that there is not is an error, as is a handler that is none", () => {
  const { profile } = session();
  assert.throws(() => profile.on(given("ended"), () => {}), invalid("save-failed"));
  assert.throws(() => profile.on("end", given(undefined)), invalid("`handler`"));
  assert.throws(() => profile.onMessage("gift", given(undefined)), invalid("`handler`"));
  assert.throws(() => profile.onLastSave(given(undefined)), invalid("`change`"));
});

test("a name that a URL takes for a step up is no part of a path", async () => {
  const http = new Http("http://127.0.0.1:1", "ps_0_0");
  const at = { store: "S", key: "k" };
  for (const ask of [
    () => http.send({ ...at, scope: ".." }, 1),
    () => http.get({ ...at, key: "." }),
    () => http.list(".."),
    () => http.version(at, ".."),
    () => http.call("GET", "/v1/stores/S/profiles/%2E%2e"),
    () => http.call("GET", "/v1/stores/S/profiles/..?fresh=true"),
    () => http.call("GET", "/v1\\..\\metrics"),
  ]) {
    await assert.rejects(async () => ask(), invalid("takes such names"));
  }
  // A URL takes the spaces away, and then the names. Without `/` another server would be asked.
  for (const odd of ["/v1/stores/S/profiles/.\t.", "/v1/stores/.. ", "@127.0.0.1:2/v1", ""]) {
    await assert.rejects(http.call("GET", odd), invalid("begins with `/`"));
  }
  const where = http.call("GET", "/v1/stores/S/profiles/a..b?prefix=..");
  await assert.rejects(where, { kind: "unavailable" }, "dots within a name, and in a query");
});

/** A text as the address was one without a store, and nothing was a version called `undefined`. */
test("what is no address, no version and no number of one is named", async () => {
  const http = new Http("http://127.0.0.1:1", "ps_0_0");
  const at = { store: "S", key: "k" };
  for (const other of ["P/k", undefined, null, 5]) {
    assert.throws(() => void http.get(given(other)), invalid("`at`"));
    assert.throws(() => void http.send(given(other), {}), invalid("`at`"));
  }
  for (const which of [undefined, null, 1.5, NaN, 5n, {}, new Date(NaN)]) {
    assert.throws(() => void http.version(at, given(which)), invalid("`which`"));
    assert.throws(() => void http.restore(at, given(which), undefined), invalid("`which`"));
  }
  for (const epoch of [NaN, Infinity, 1.5, 2 ** 60, "1"]) {
    assert.throws(() => void http.endSession(at, given({ epoch })), invalid("`epoch`"));
    assert.throws(() => messageId("gift", given(epoch)), invalid("`at`"));
  }
  assert.throws(() => void http.put(at, {}, given(null)), invalid("`etag`"));
});

/** They were `unavailable`, to be tried again, or were sent as another text. */
test("a call over HTTP that never can be sent is invalid", async () => {
  const http = new Http("http://127.0.0.1:1", "ps_0_0");
  const at = { store: "S", key: "k" };
  for (const [ask, what] of [
    [() => http.edit(at, [], { operation: "one\ntwo" }), "header"],
    [() => http.edit(at, [], { reason: "\ud800" }), "`reason`"],
    [() => http.call("PUT", "/v1/x", { body: "\ud800" }), "`body`"],
    [() => http.call("PUT", "/v1/x", { body: given({ a: 1 }) }), "`body`"],
    [() => http.call("GET", "/v1/\ud800"), "`path`"],
    [() => http.call("GET", "/v1/x", given(null)), "`call`"],
    [() => http.call("GET", "/v1/x", { query: given(null) }), "`query`"],
    [() => http.call(given(5), "/v1/x"), "`method`"],
    [() => http.call("GET /", "/v1/x"), "GET /"],
  ] as const) {
    await assert.rejects(ask(), invalid(what));
  }
});

test("a user whose number nothing can hold is refused, and named in a few words", () => {
  for (const user of [10n ** 400n, 2n ** 63n, -1n, 2 ** 60, NaN, null, {}, "9".repeat(101)]) {
    const brief = (error: unknown) =>
      invalid("user")(error) && (error as ProfileError).message.length < 200;
    assert.throws(() => userOf(given(user)), brief);
  }
  assert.equal(userOf(2n ** 63n - 1n), "9223372036854775807");
});
