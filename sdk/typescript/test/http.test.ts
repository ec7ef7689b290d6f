/** Calls over HTTP against a server that refuses some: what is sent again, and what is not. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { Http } from "../dist/index.js";

const tooMany = '{"kind":"too-many-requests","advice":"retry"}';

/** Status, seconds to wait, body: one for each request. */
type Told = readonly [number, string, string];

async function refusing(t: TestContext, told: Told[]) {
  const asked: unknown[] = [];
  const server = createServer((request, response) => {
    asked.push([request.url, request.headers["idempotency-key"]]);
    const [status, after, body] = told.shift() ?? [500, "0", ""];
    request.resume();
    request.on("end", () => response.writeHead(status, { "Retry-After": after }).end(body));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const http = new Http(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, "ps_key");
  const headers = { "Idempotency-Key": "one" };
  return { asked, call: () => http.call("POST", "/v1/x", { body: "{}", headers }) };
}

test("a request over the limit is sent again as it was", async (t) => {
  const { asked, call } = await refusing(t, [
    [429, "0", tooMany],
    [429, "0", tooMany],
    [200, "0", "fine"],
  ]);
  assert.equal(await call(), "fine");
  assert.deepEqual(asked, Array(3).fill(["/v1/x", "one"]));
});

test("half of a character in a name is an error of the kind invalid", () => {
  const http = new Http("http://127.0.0.1:1", "ps_key");
  assert.throws(() => void http.get({ store: "P", key: "a\ud800" }), { kind: "invalid" });
});

test("other refusals, and a long wait, are told at once", async (t) => {
  const { asked, call } = await refusing(t, [
    [429, "0", '{"kind":"inbox-full","advice":"retry"}'],
    [429, "3600", tooMany],
  ]);
  await assert.rejects(call(), { kind: "inbox-full" });
  await assert.rejects(call(), { kind: "too-many-requests" });
  assert.equal(asked.length, 2);
});
