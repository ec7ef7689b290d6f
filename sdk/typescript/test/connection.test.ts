/** The connection, with a host that this test plays. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { after, test } from "node:test";
import { WebSocketServer, type WebSocket } from "ws";
import { Connection } from "../dist/connection.js";
import { connect, Http, ProfileError, type Server } from "../dist/index.js";
import { openPlatform, type PlatformClass } from "../dist/socket.js";
import { Store, type Shop } from "../dist/store.js";
import { until } from "./serve.js";

type Frame = Record<string, { i?: number; n?: number; resume?: { sessions: unknown } }>;

/** Takes frames, and says what the test says. It greets by itself. */
class Host {
  readonly heard: Frame[] = [];
  readonly sockets: WebSocket[] = [];
  /** What a greeting that resumes is refused with. */
  refusal: object | undefined;
  readonly #listening = new WebSocketServer({ port: 0, host: "127.0.0.1" });

  static async start(): Promise<Host> {
    const host = new Host();
    host.#listening.on("connection", (socket) => host.#greet(socket));
    await once(host.#listening, "listening");
    after(() => host.#listening.close());
    return host;
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#listening.address() as AddressInfo).port}`;
  }

  #greet(socket: WebSocket): void {
    this.sockets.push(socket);
    socket.on("message", (data: Buffer) => {
      const frame = JSON.parse(data.toString()) as Frame;
      if ("ping" in frame) return;
      this.heard.push(frame);
      if (frame["hello"] === undefined) return;
      const resumed = frame["hello"].resume === undefined ? null : "same";
      if (this.refusal !== undefined) return this.say({ error: { problem: this.refusal } });
      const welcome = { incarnation: "i", token: "t", store: "s", lease_ms: 20_000, resumed };
      this.say({ welcome: { ...welcome, max_frame: 5 << 20 } });
    });
  }

  say(frame: object): void {
    this.sockets.at(-1)?.send(JSON.stringify(frame));
  }

  cut(): void {
    this.sockets.at(-1)?.terminate();
  }

  /** The names of what was heard. */
  get names(): (string | undefined)[] {
    return this.heard.map((frame) => Object.keys(frame)[0]);
  }
}

const open = (host: Host, faults: unknown[] = []): Promise<Server> =>
  connect(host.url, { key: "k", job: "eu-1", onFault: (fault) => faults.push(fault) });

test("a frame without what belongs to it ends the connection, and not the game", async () => {
  const host = await Host.start();
  const faults: unknown[] = [];
  const server = await open(host, faults);
  for (const times of [1, 2]) {
    host.say({ error: { i: null } });
    await until("it has connected again", () => host.sockets.length === times + 1);
    await until("it is connected", () => server.isConnected);
    assert.equal(faults.length, times);
  }
  assert.ok(faults.every((fault) => fault instanceof ProfileError));
  await server.close();
});

test("a game server whose place another run took comes no more, and its game is told", async () => {
  const host = await Host.start();
  const faults: ProfileError[] = [];
  const server = await open(host, faults);
  const players = server.store("P", { template: { coins: 0 } });
  const start = players.start("a");
  await until("the start is there", () => host.names.includes("start"));
  const i = host.heard.at(-1)?.["start"]?.i;
  host.say({ started: { i, s: 1, epoch: 1, version: 1, data: { coins: 0 }, meta: {} } });
  const profile = await start;
  host.refusal = { kind: "run-replaced", advice: "leave" };
  host.sockets.at(-1)?.close(4000);
  await until("its session is over", () => profile.ended !== undefined);
  assert.equal(profile.ended?.reason, "lost");
  assert.deepEqual([faults.map((fault) => fault.kind), server.profiles], [["run-replaced"], []]);
  await assert.rejects(players.start("b"), { kind: "closing" });
  assert.deepEqual(await server.close(), []);
  assert.deepEqual(host.names, ["hello", "start", "hello"]);
});

test("a close with a time that is none is refused, and the game server stays open", async () => {
  const server = await open(await Host.start());
  for (const timeoutMs of [5n as unknown as number, NaN]) {
    await assert.rejects(server.close({ timeoutMs }), { kind: "invalid" });
  }
  assert.equal(server.isConnected, true);
  assert.deepEqual(await server.close(), []);
});

test("a start that is called off without a connection is called off on the next", async () => {
  const host = await Host.start();
  const server = await open(host);
  const players = server.store("P", { template: { coins: 0 } });
  const [sent, later] = [new AbortController(), new AbortController()];
  const start = players.start("a", { signal: sent.signal });
  await until("the start is there", () => host.names.includes("start"));
  host.cut();
  await until("the connection is lost", () => !server.isConnected);
  sent.abort();
  // One that was never sent takes nothing, and is never heard of.
  const never = players.start("b", { signal: later.signal });
  later.abort();
  await assert.rejects(start, { kind: "cancelled" });
  await assert.rejects(never, { kind: "cancelled" });
  await until("it was called off", () => host.names.includes("cancel"));
  assert.deepEqual(host.names, ["hello", "start", "hello", "start", "cancel"]);
  assert.equal(host.heard[4]?.["cancel"]?.i, host.heard[1]?.["start"]?.i);
  await server.close();
});

test("a start that nobody answers fails in its time, and is called off", async () => {
  const host = await Host.start();
  const server = await open(host);
  const start = server.store("P", { template: {} }).start("a", { timeoutMs: 1 });
  await assert.rejects(start, { kind: "timed-out", advice: "retry" });
  await until("it was called off", () => host.names.includes("cancel"));
  assert.deepEqual(host.names, ["hello", "start", "cancel"]);
  // It had taken effect all the same.
  const { i } = host.heard[1]?.["start"] as { i: number };
  host.say({ started: { i, s: 1, epoch: 1, version: 1, data: {}, meta: {} } });
  await until("its session is let go", () => host.names.includes("end"));
  await server.close();
});

test("a session that nobody has seen is ended again when its end could not be done", async () => {
  const host = await Host.start();
  const server = await open(host);
  const players = server.store("P", { template: { coins: 0 }, check: () => assert.fail("no") });
  const start = players.start("a");
  await until("the start is there", () => host.names.includes("start"));
  const i = host.heard.at(-1)?.["start"]?.i;
  host.say({ started: { i, s: 1, epoch: 1, version: 1, data: { coins: 0 }, meta: {} } });
  await assert.rejects(start, { kind: "undecodable" });
  await until("its end is there", () => host.names.includes("end"));
  const first = host.heard.at(-1)?.["end"];
  host.say({ error: { i: first?.i, problem: { kind: "unavailable", advice: "retry" } } });
  await until("its second end is there", () => host.names.at(-2) === "end");
  const second = host.heard.at(-1)?.["end"];
  assert.ok((second?.i ?? 0) > (first?.i ?? 0) && (second?.n ?? 0) > (first?.n ?? 0));
  host.say({ ended: { i: second?.i } });
  await server.close();
});

test("a session that nobody has seen is named by a resume until it is ended", async () => {
  const host = await Host.start();
  const server = await open(host);
  const players = server.store("P", { template: { coins: 0 }, check: () => assert.fail("no") });
  const start = players.start("a");
  await until("the start is there", () => host.names.includes("start"));
  const i = host.heard.at(-1)?.["start"]?.i;
  host.say({ started: { i, s: 1, epoch: 7, version: 1, data: { coins: 0 }, meta: {} } });
  await assert.rejects(start, { kind: "undecodable" });
  const ends = () => host.heard.flatMap((frame) => frame["end"] ?? []);
  const named = () => host.heard.flatMap((frame) => frame["hello"]?.resume?.sessions ?? []);
  // The process dies with the end.
  await until("its end is there", () => ends().length === 1);
  host.cut();
  await until("its end is there again", () => ends().length === 2);
  assert.deepEqual(named(), [[1, "P", "global", "a", 7]]);
  host.say({ ended: { i: ends()[0]?.i } });
  // What is answered behind that says that it was heard.
  const sent = players.send("a", 1);
  await until("the message is there", () => host.names.includes("send"));
  host.say({ sent: { i: host.heard.at(-1)?.["send"]?.i, stored_now: true } });
  assert.equal(await sent, true);
  host.cut();
  await until("it has resumed", () => host.names.filter((name) => name === "hello").length === 3);
  assert.equal(named().length, 1);
  await server.close();
});

test("a start that is given up is called off until it is known what became of it", async () => {
  const host = await Host.start();
  const options = { urls: [host.url], key: "k", job: "j", place: 0, leaseMs: undefined };
  const holder = { named: () => [], resumed: () => {}, replaced: () => {}, frame: () => {} };
  const connection = new Connection({ ...options, connectMs: 10_000 }, holder, () => {});
  connection.mostAttempts = 2;
  await connection.open();
  const shop: Partial<Shop> = {
    isClosing: false,
    session: () => 7,
    number: () => connection.number(),
    request: (i, frames, outcome) =>
      connection.request(i, frames, outcome, frames[0]?.startsWith('{"end"') === true),
    leaving: () => {},
    over: () => {},
  };
  const start = new Store("P", { template: { coins: 0 } }, shop as Shop).start("a");
  const unknown = { kind: "unknown", advice: "retry-as" };
  for (const times of [1, 2]) {
    const starts = () => host.names.filter((name) => name === "start").length;
    await until("the start is there", () => starts() === times);
    host.say({ error: { i: 1, problem: unknown } });
  }
  await assert.rejects(start, { kind: "unknown" });
  // Nobody knows yet whether its session is there, and the next answer does not say it either.
  await until("it was called off", () => host.names.at(-1) === "cancel");
  host.say({ error: { i: 1, problem: unknown } });
  const offs = () => host.names.filter((name) => name === "cancel").length;
  await until("it was called off again", () => offs() === 2);
  host.say({ started: { i: 1, s: 7, epoch: 1, version: 1, data: { coins: 0 }, meta: {} } });
  await until("its session is ended", () => host.names.at(-1) === "end");
  assert.deepEqual(host.names.slice(1), [
    ...["start", "start", "start", "cancel", "start", "cancel"],
    "end",
  ]);
  await connection.close();
});

test("the first connection is given up in its time when the server says nothing", async () => {
  const mute = createServer();
  mute.listen(0, "127.0.0.1");
  await once(mute, "listening");
  const url = `ws://127.0.0.1:${(mute.address() as AddressInfo).port}`;
  const opening = connect(url, { key: "k", job: "eu-1", connectMs: 300 });
  await assert.rejects(opening, { kind: "unavailable", message: /within 300 ms/ });
  mute.close();
});

test("a link that cannot be made is tried again, and ends no game", async () => {
  // What no thread can be given: as if there were none.
  const key = (() => {}) as unknown as string;
  const urls = ["ws://127.0.0.1:1"];
  const options = { urls, key, job: "j", place: 0, leaseMs: undefined, connectMs: 1000 };
  const holder = { named: () => [], resumed: () => {}, replaced: () => {}, frame: () => {} };
  const connection = new Connection(options, holder, () => {});
  await assert.rejects(connection.open(), { kind: "unavailable", message: /no link can be made/ });
});

test("a start that is answered while its game server closes is let go", async () => {
  const host = await Host.start();
  const server = await open(host);
  const players = server.store("P", { template: { coins: 0 } });
  const begun = { epoch: 1, version: 1, data: { coins: 0 }, meta: {} };
  const started = async (s: number) => {
    const starts = () => host.names.filter((name) => name === "start").length;
    await until("the start is there", () => starts() === s);
    return { started: { ...begun, i: host.heard.at(-1)?.["start"]?.i, s } };
  };
  const first = players.start("a");
  host.say(await started(1));
  await first;
  const second = players.start("b");
  const answer = await started(2);
  const closing = server.close();
  await until("the first end is there", () => host.names.includes("end"));
  await assert.rejects(players.start("c"), { kind: "closing" });
  host.say(answer);
  await assert.rejects(second, { kind: "closing" });
  const ends = () => host.heard.flatMap((frame) => frame["end"] ?? []);
  await until("the second end is there", () => ends().length === 2);
  // The last answer is the one that the closing waits for.
  for (const { i } of ends().reverse()) host.say({ ended: { i } });
  assert.deepEqual(await closing, []);
});

test("messages that nobody takes are refused before they fill the memory", async () => {
  const options = { urls: [], key: "k", job: "j", place: 0, leaseMs: undefined, connectMs: 1 };
  const holder = { named: () => [], resumed: () => {}, replaced: () => {}, frame: () => {} };
  const connection = new Connection(options, holder, () => {});
  connection.mostBytes = 10_000;
  const failed: [number, string][] = [];
  const send = (i: number, isKept: boolean) =>
    connection.request(
      i,
      ["ä".repeat(2000)],
      { done: () => {}, failed: ({ kind }) => failed.push([i, kind]) },
      isKept,
    );
  for (const i of [1, 2, 3]) send(i, false);
  assert.deepEqual(failed, [[3, "overloaded"]]);
  // A save is never refused for them, and one that was called off makes room.
  send(4, true);
  connection.callOff(1);
  send(5, false);
  assert.equal(failed.length, 1);
  await connection.close();
  assert.deepEqual(
    failed.slice(1),
    [2, 4, 5].map((i) => [i, "unknown"]),
  );
});

test("a key with the end of its line is refused at once", async () => {
  for (const key of ["ps_1_2\n", "", "ps 1", undefined as unknown as string]) {
    await assert.rejects(connect("ws://127.0.0.1:1", { key, job: "eu-1" }), { kind: "invalid" });
    assert.throws(() => new Http("http://127.0.0.1:1", key), { kind: "invalid" });
  }
});

// --- a platform's WebSocket, as Bun and Deno have it -------------------------------------------

/** A WebSocket whose other side is this test. */
class Played {
  static readonly all: Played[] = [];
  readonly sent: string[] = [];
  readonly #listeners = new Map<string, ((event: object) => void)[]>();
  readyState = 0;

  constructor(
    readonly url: string,
    readonly options: { protocols: string[]; headers: Record<string, string> },
  ) {
    Played.all.push(this);
  }

  send(text: string): void {
    this.sent.push(text);
  }

  close(): void {
    this.readyState = 2;
  }

  addEventListener(name: string, listener: (event: object) => void): void {
    this.#listeners.set(name, [...(this.#listeners.get(name) ?? []), listener]);
  }

  does(name: string, event: object = {}): void {
    if (name === "open") this.readyState = 1;
    this.#listeners.get(name)?.forEach((listener) => listener(event));
  }
}

function played(url: string) {
  const told: unknown[] = [];
  const socket = openPlatform(Played as unknown as PlatformClass, url, "ps_key", {
    opened: () => told.push("opened"),
    text: (text) => told.push(text),
    sign: () => told.push("sign"),
    ended: ({ kind, message }) => told.push([kind, message]),
  });
  const other = Played.all.at(-1);
  assert.ok(other !== undefined);
  return { told, socket, other };
}

test("a platform's WebSocket sends key and protocol, texts, and tells its end once", () => {
  const { told, socket, other } = played("ws://here/v1/connect");
  assert.deepEqual(other.options, {
    protocols: ["profilestore.v1+json"],
    headers: { Authorization: "Bearer ps_key" },
  });
  socket.send("too early");
  other.does("open");
  socket.send("hello");
  other.does("message", { data: "{}" });
  other.does("message", { data: new ArrayBuffer(1) });
  other.does("error");
  other.does("close", { code: 1006, reason: "" });
  assert.deepEqual(other.sent, ["hello"]);
  const end = ["unavailable", "unavailable: the connection ended: ws://here/v1/connect:"];
  assert.deepEqual(told, ["opened", "sign", "{}", "sign", end]);
});

test("a platform's WebSocket that is refused asks why", async (t) => {
  const answers = [
    new Response('{"kind":"unauthorized","advice":"fix","detail":"no"}', { status: 401 }),
    new Response('{"kind":"upgrade-required","advice":"fix"}', { status: 426 }),
  ];
  const asked: unknown[] = [];
  t.mock.method(globalThis, "fetch", async (url: string, { headers }: RequestInit) => {
    asked.push([url, headers]);
    return answers.shift() ?? assert.fail("it asks once");
  });
  for (const kind of ["unauthorized", "unavailable"]) {
    const { told, other } = played("wss://here/v1/connect");
    other.does("error");
    other.does("close", { code: 1002 });
    await until("it is told", () => told.length > 0);
    assert.equal((told[0] as string[])[0], kind);
  }
  const once = ["https://here/v1/connect", { Authorization: "Bearer ps_key" }];
  assert.deepEqual(asked, [once, once]);
});
