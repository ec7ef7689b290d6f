/** How a profile that is asked for is let go, on a connection that this test answers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { failure } from "../dist/errors.js";
import { until } from "./serve.js";
import { session, turn } from "./wire.js";

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

test("a profile that is asked for during an end is let go when that end is refused", async () => {
  const { wire, profile } = session();
  const asked: unknown[] = [];
  profile.on("release", ({ by }) => asked.push(by));
  profile.update((data) => (data.coins = 1));
  const end = profile.end();
  await turn();
  const by = { server: { job: "eu-2", place: 0 } };
  profile.heard(["release", { s: 1, by, deadline_ms: 2000 }]);
  wire.outcomes.at(-1)?.failed(failure("too-large", "it is too large"));
  await assert.rejects(end, { kind: "too-large" });
  await turn();
  assert.deepEqual([wire.frames.map(([name]) => name), asked], [["end", "end"], [by]]);
  wire.outcomes.at(-1)?.done(["ended", { i: 2 }]);
  await turn();
  assert.deepEqual(profile.ended, { reason: "released", by, hasLoss: false });
});

test("a hand-over that the server could not do is tried again", async () => {
  const { wire, profile } = session();
  profile.on("save-failed", () => {});
  const by = { server: { job: "eu-2", place: 0 } };
  profile.heard(["release", { s: 1, by, deadline_ms: 2000 }]);
  wire.outcomes.at(-1)?.failed(failure("unavailable", "not now"));
  await until("it is let go again", () => wire.frames.length === 2);
  wire.outcomes.at(-1)?.done(["ended", { i: 2 }]);
  await turn();
  assert.equal(profile.ended?.reason, "released");
});

test("a profile that its game ends as it is asked for is let go when that is refused", async () => {
  const { wire, profile } = session();
  const refused: string[] = [];
  profile.on("save-failed", (why) => refused.push(why.kind));
  profile.on("release", () => void profile.end());
  const by = { server: { job: "eu-2", place: 0 } };
  profile.heard(["release", { s: 1, by, deadline_ms: 2000 }]);
  assert.equal(wire.frames.length, 1);
  wire.outcomes.at(-1)?.failed(failure("unavailable", "not now"));
  await turn();
  // The server says it again, as on a new connection: one end at a time all the same.
  profile.heard(["release", { s: 1, by, deadline_ms: 1000 }]);
  assert.deepEqual([wire.frames.length, refused], [2, ["unavailable"]]);
  await new Promise((done) => setTimeout(done, 1200));
  wire.outcomes.at(-1)?.failed(failure("unavailable", "not now"));
  await until("it is let go again", () => wire.frames.length === 3);
  assert.equal(refused.length, 2);
  wire.outcomes.at(-1)?.done(["ended", { i: 3 }]);
  await turn();
  assert.equal(profile.ended?.hasLoss, false);
});

test("a hand-over that is tried again runs its last hooks once for the same data", async () => {
  const { wire, profile } = session();
  profile.on("save-failed", () => {});
  profile.onLastSave((data) => void (data.coins += 1));
  const refused = () => wire.outcomes.at(-1)?.failed(failure("unavailable", "not now"));
  const by = { server: { job: "eu-2", place: 0 } };
  profile.heard(["release", { s: 1, by, deadline_ms: 2000 }]);
  refused();
  await until("it is let go again", () => wire.frames.length === 2);
  refused();
  await turn();
  profile.update((data) => void (data.coins += 10));
  await until("it is let go once more", () => wire.frames.length === 3);
  assert.deepEqual(
    wire.frames.map(([name, { data }]) => [name, data.coins]),
    [
      ["end", 1],
      ["end", 1],
      ["end", 12],
    ],
  );
  wire.outcomes.at(-1)?.done(["ended", { i: 3 }]);
  await turn();
  assert.equal(profile.ended?.hasLoss, false);
});

test("a second end that the game asks for runs the last hooks again", async () => {
  const { wire, profile } = session();
  profile.onLastSave((data) => void (data.coins += 1));
  for (const coins of [1, 2]) {
    const end = profile.end();
    await turn();
    assert.equal(wire.last.data.coins, coins);
    wire.outcomes.at(-1)?.failed(failure("unavailable", "not now"));
    await assert.rejects(end, { kind: "unavailable" });
  }
});
