// A small world to look at: players, a history, a gift, an edit, a session.
import { Mute } from "./mute.js";
import { until, uuid7 } from "./world.js";

export { uuid7 };

export async function edit(world, key, steps, reason = "ticket 4711") {
  const path = `/v1/stores/PlayerData/profiles/${key}/edits?reason=${encodeURIComponent(reason)}`;
  const headers = { "Content-Type": "application/json-patch+json", "Idempotency-Key": uuid7() };
  const answer = await world.ask("POST", path, steps, headers);
  if (answer.status !== 200) throw new Error(answer.text);
  return answer.body;
}

/** An edit of many profiles, which `world.bulk` names. */
async function bulk(world) {
  world.bulk = uuid7();
  const body = {
    store: "PlayerData",
    prefix: "user-",
    where: "/level >= 20",
    operations: [{ op: "increase", path: "/coins", by: -100 }],
    reason: "coins from a bug",
  };
  const begun = await world.ask("POST", "/v1/edits", body, { "Idempotency-Key": world.bulk });
  if (begun.status !== 202) throw new Error(begun.text);
}

/** Many players get coins that they should not have, after the time that `world.then` says. */
async function exploit(world) {
  const seconds = Math.ceil(((await world.read("user-30")).stored_ms + 1) / 1000);
  world.then = new Date(seconds * 1000).toISOString();
  while (Date.now() <= seconds * 1000) await new Promise((done) => setTimeout(done, 50));
  for (let at = 11; at <= 19; at += 2)
    await edit(world, `user-${at}`, [{ op: "increase", path: "/coins", by: 1_000_000 }], "a shop");
}

/** A trade between game servers: what one side put in went to the other, what the other one gives
 * is on its way. */
export async function escrow(world, id = "trade-77", to = "user-10") {
  const template = { closed: false, held: [] };
  const [side] = await world.play("trader", [id], { template }, {}, "Trades");
  const trader = world.games.pop();
  side.update((data) => {
    data.held = [["ann", "sword"]];
  });
  await side.save();
  const gift = trader.store("PlayerData", { template: {} }).gift(to, { type: "item", id: "bow" });
  await trader.transaction([side], ([data]) => void (data.sides = ["ann", to]), { gifts: [gift] });
  await side.end();
  await trader.close();
  await world.send(id, { type: "deposit", from: to, item: "shield" }, "Trades");
}

/** An edit that its holder does not make, and one that stands for new profiles. */
async function coming(world) {
  const game = await Mute.play(world, "eu-9", "user-8");
  world.games.push({ close: () => game.end() });
  const steps = [{ op: "increase", path: "/coins", by: 250 }];
  // It is not answered as done.
  edit(world, "user-8", steps, "ticket 4712").catch(() => {});
  await until("it waits", async () => {
    const { body } = await world.ask("GET", "/v1/stores/PlayerData/profiles/user-8/edits");
    return body.waiting.length === 1;
  });
  world.run(
    ...["edit", "--all", "--new-too", "--store-name", "PlayerData", "--prefix", "newborn-"],
    ...["--set", "/welcome=true", "--yes", "--reason", "season 4"],
  );
}

export async function fill(world) {
  const items = (many) =>
    Array.from({ length: many }, (_, at) => ({
      id: `sword-${at}`,
      power: at * 7,
      bound: at % 2 === 0,
    }));
  for (let at = 1; at <= 30; at++)
    await world.put(`user-${at}`, {
      coins: at * 100,
      level: at,
      name: `Player ${at}`,
      items: items(at % 7),
      settings: { music: true, volume: 0.8 },
    });
  await edit(
    world,
    "user-1",
    [
      { op: "increase", path: "/coins", by: 400 },
      { op: "set", path: "/items", value: items(5) },
    ],
    "the shop's order 9021",
  );
  await edit(world, "user-1", [{ op: "increase", path: "/coins", by: 250 }]);
  await edit(
    world,
    "user-1",
    [
      { op: "set", path: "/items", value: items(1) },
      { op: "increase", path: "/coins", by: -600 },
    ],
    "a test of the reset command",
  );
  await edit(world, "user-1", [{ op: "set", path: "/name", value: "Ada" }]);
  await world.send("user-9");
  await world.send("user-9");
  world.import([
    ["veteran-1", { coins: 12_000, items: {} }, [261]],
    ["veteran-2", { coins: 900, items: { sword: 1 } }, [261, 262]],
  ]);
  await bulk(world);
  await exploit(world);
  for (const [name, role] of [
    ["Bea", "support"],
    ["Carlo", "viewer"],
    ["Dipika", "privacy"],
  ])
    await world.newMember(name, role);
  await world.newKey("web shop", ["messages:send"]);
  world.players = [
    ...(await world.play("eu-3", ["user-2", "user-3", "user-4"])),
    ...(await world.play("us-1", ["user-5", "user-6"])),
  ];
  const [eu] = world.games;
  await eu.transaction(world.players.slice(0, 2), ([one, other]) => {
    one.coins -= 50;
    other.coins += 50;
  });
  await escrow(world);
  await coming(world);
}
