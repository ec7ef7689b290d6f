// While the player plays: a real game server holds the profile.
import {
  arm,
  armed,
  assert,
  at,
  cells,
  chromium,
  finish,
  forTests,
  open,
  sees,
  signedIn,
  test,
  until,
  world,
} from "./world.js";
import { edit } from "./fill.js";
import { Mute } from "./mute.js";

forTests();

test("an edit is made in the middle of play and undone, and the session goes on", async () => {
  const [profile] = await world.play("eu-1", ["online"]);
  profile.update((data) => {
    data.coins = 100;
  });
  await profile.save();
  const page = await armed(at("online", "edit?at=/coins"));
  await sees(page, "eu-1 plays it");
  await page.getByLabel("Value; +500").fill("+50");
  await page.getByLabel("Reason").fill("ticket 1");
  // What is not saved yet is kept: the holder saves play first.
  profile.update((data) => {
    data.coins += 7;
  });
  await page.getByRole("button", { name: "Hand it to eu-1" }).click();
  await sees(page, "eu-1 made the change in the middle of play");
  assert.equal(profile.data.coins, 157);
  profile.update((data) => {
    data.coins += 1;
  });
  await page.getByRole("button", { name: "Undo" }).click();
  await sees(page, "Taken back.");
  assert.equal(profile.data.coins, 108);
  assert.ok(profile.isActive);
  await finish(page);
});

for (const [server, word, told, button] of [
  ["silent", "silent", "The change waits for it; if it stays silent", "Hand it to eu-4"],
  ["dead", "ended", "has ended and did not let it go", "Change the profile"],
  ["unknown", "unknown", "this store does not know that game server", "Change the profile"],
])
  test(`an edit of a profile that a game server holds says who makes it: ${word}`, async () => {
    const key = `held-${word}`;
    await world.put(key, { coins: 1 });
    const page = await signedIn(chromium, world);
    await page.route(new RegExp(`/profiles/${key}$`), async (route) => {
      const response = await route.fetch();
      const since_ms = Date.now();
      const held = { job: "eu-4", place: 0, since_ms, server, asked_for_by: null };
      await route.fulfill({ response, json: { ...(await response.json()), held } });
    });
    await open(page, world, at(key, "edit?at=/coins"));
    await sees(page, `eu-4, ${word}`);
    await arm(page);
    await sees(page, told);
    await page.getByRole("button", { name: button }).waitFor();
    await finish(page);
  });

test("a player who moved on while an operator typed makes a conflict, place by place", async () => {
  const [profile] = await world.play("eu-1", ["racing"]);
  profile.update((data) => {
    data.coins = 10;
    data.name = "Ada";
  });
  await profile.save();
  const page = await armed(at("racing", "edit?at=/coins"));
  await page.getByLabel("A place").fill("/name");
  await page.getByRole("button", { name: "Add it" }).click();
  const field = (path) => page.locator(`fieldset[data-path="${path}"]`).getByLabel("Value");
  await field("/coins").fill("500");
  await field("/name").fill("Eve");
  await page.getByLabel("Reason").fill("ticket 2");
  profile.update((data) => {
    data.coins = 11;
  });
  await profile.save();
  await page.getByRole("button", { name: "Hand it to eu-1" }).click();
  await page.getByRole("heading", { name: "The profile has moved on" }).waitFor();
  const rows = page.locator("table.conflict tbody tr");
  assert.match(await rows.nth(0).innerText(), /\/coins\s+10\s+11\s+500\s+it was changed meanwhile/);
  assert.match(
    await rows.nth(1).innerText(),
    /\/name\s+"Ada"\s+"Ada"\s+"Eve"\s+unchanged in what is saved/,
  );
  assert.equal(profile.data.name, "Ada", "an edit is made as a whole or not at all");
  await finish(page);
});

test("the holder's refusal is shown in the game's own words", async () => {
  const check = (data) => {
    if (data.coins < 0) throw new Error("nobody owes the bank of Ravenholm");
  };
  const [profile] = await world.play("eu-2", ["checked"], { check });
  const page = await armed(at("checked", "edit?at=/coins"));
  await page.getByLabel("Value; +500").fill("-5");
  await page.getByLabel("Reason").fill("ticket 3");
  await page.getByRole("button", { name: "Hand it to eu-2" }).click();
  await sees(page, "nobody owes the bank of Ravenholm");
  assert.equal(profile.data.coins, 0);
  await finish(page);
});

test("a gift is sent once, and the page sees that the game has taken it", async () => {
  const [profile] = await world.play("eu-1", ["lucky"]);
  const page = await armed(at("lucky", "send"));
  await page.getByLabel("coins, a number").fill("250");
  await page.getByLabel("coins, a number").blur();
  await page.getByLabel("Reason").fill("ticket 4");
  const send = page.getByRole("button", { name: "Send", exact: true });
  await send.click();
  await sees(page, "The game has processed it.");
  assert.equal(profile.data.coins, 250);
  await send.click();
  await sees(page, "It had been sent before; nothing was sent now.");
  assert.equal(profile.data.coins, 250);
  await finish(page);
});

test("a gift for a player who is away waits in the inbox", async () => {
  await world.put("away", { coins: 1 });
  const page = await armed(at("away", "send"));
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await sees(page, "waits until the profile is played");
  await page.locator("tr", { hasText: '{"type":"gift","coins":500}' }).waitFor();
  const [profile] = await world.play("eu-1", ["away"]);
  await until("the gift has come", () => profile.data.coins === 501);
  await profile.save();
  await page.getByRole("button", { name: "Look again" }).click();
  await sees(page, "The game has processed it.");
  await finish(page);
});

test("a profile is asked for, and its holder saves it and lets it go", async () => {
  const [profile] = await world.play("eu-1", ["asked"], { saveWithinMs: 600_000 });
  const ended = new Promise((done) => profile.on("end", done));
  profile.update((data) => {
    data.coins = 42;
  });
  const page = await armed(at("asked", "holder"));
  await sees(page, "Asked to let go, it saves first");
  await page.getByLabel("Reason").fill("ticket 5");
  await page.getByRole("button", { name: "Ask eu-1 to let go" }).click();
  await sees(page, "Nobody plays this profile");
  assert.equal((await ended).reason, "released");
  assert.equal((await world.read("asked")).data.coins, 42);
  await finish(page);
});

test("a profile is taken away only after a second step, which says what is lost", async () => {
  const [profile] = await world.play("eu-1", ["taken"], { saveWithinMs: 600_000 });
  const ended = new Promise((done) => profile.on("end", done));
  profile.update((data) => {
    data.coins = 42;
  });
  const page = await armed(at("taken", "holder"));
  await page.getByRole("button", { name: "Take it away …" }).click();
  const sheet = page.getByRole("dialog");
  await sheet.getByText("What it has not saved is lost").waitFor();
  await sheet.getByRole("button", { name: "Leave it" }).click();
  assert.equal((await world.read("taken")).held?.job, "eu-1");
  await page.getByRole("button", { name: "Take it away …" }).click();
  await sheet.getByLabel("Reason").fill("ticket 15");
  await sheet.getByRole("button", { name: "Take it away" }).click();
  await sees(page, "Nobody plays this profile");
  assert.equal((await ended).hasLoss, true);
  assert.equal((await world.read("taken")).data.coins, 0);
  const { body } = await world.ask("GET", "/v1/audit?profile=PlayerData/taken");
  assert.ok(body.items.some((one) => one.reason === "ticket 15"), "the reason stands in the log");
  await finish(page);
});

test("the dialog of taking away has the reason of the page, and leaves it as it is", async () => {
  await world.play("eu-1", ["reasoned"]);
  const page = await armed(at("reasoned", "holder"));
  const take = page.getByRole("button", { name: "Take it away …" });
  const [own, sheet] = [page.locator(".card").getByLabel("Reason"), page.getByRole("dialog")];
  await own.fill("ticket 17");
  await take.click();
  assert.equal(await sheet.getByLabel("Reason").inputValue(), "ticket 17");
  await sheet.getByLabel("Reason").fill("ticket 18");
  await sheet.getByRole("button", { name: "Leave it" }).click();
  await sheet.waitFor({ state: "hidden" });
  assert.equal(await own.inputValue(), "ticket 17");
  await take.click();
  assert.equal(await sheet.getByLabel("Reason").inputValue(), "ticket 17");
  assert.equal((await world.read("reasoned")).held?.job, "eu-1");
  await finish(page);
});

test("a profile that is played is rolled back as a whole only after a second step", async () => {
  await world.put("rolled", { coins: 1 });
  await edit(world, "rolled", [{ op: "increase", path: "/coins", by: 9 }], "ticket 7");
  const page = await armed(at("rolled", "rollback?to=1"));
  await sees(page, "No gift and no trade since");
  // The player comes after the page was read: the store refuses it, and the page is read anew.
  const [profile] = await world.play("eu-1", ["rolled"], { saveWithinMs: 600_000 });
  await page.getByLabel("Reason").fill("ticket 7");
  const roll = page.getByRole("button", { name: "Roll the whole profile back" });
  await roll.click();
  await sees(page, "The profile has moved on");
  await sees(page, "eu-1 plays this profile");
  const sheet = page.getByRole("dialog");
  await roll.click();
  await sheet.getByText("what is not saved is lost").waitFor();
  await sheet.getByRole("button", { name: "Leave it" }).click();
  await sheet.waitFor({ state: "hidden" });
  assert.equal((await world.read("rolled")).data.coins, 10);
  assert.ok(profile.isActive);
  await roll.click();
  await sheet.getByRole("button", { name: "Roll it back" }).click();
  await sees(page, "Rolled back.");
  assert.equal((await world.read("rolled")).data.coins, 1);
  await until("the game server was told", () => !profile.isActive);
  await finish(page);
});

test("before a rollback it is asked who plays a profile that cannot be read", async () => {
  await world.put("unread", { coins: 1 });
  await edit(world, "unread", [{ op: "increase", path: "/coins", by: 9 }], "ticket 7");
  await world.play("eu-1", ["unread"], { saveWithinMs: 600_000 });
  const page = await armed("/#/find");
  const fails = (path) =>
    page.route(
      (url) => url.pathname.endsWith(path),
      (route) => route.fulfill({ status: 500, json: { kind: "damaged", detail: "it is damaged" } }),
    );
  await fails("/profiles/unread");
  const sheet = page.getByRole("dialog");
  for (const told of ["eu-1 plays it", "Whether it is played could not be read"]) {
    await open(page, world, at("unread", "rollback?to=1"));
    await page.getByLabel("Reason").fill("ticket 7");
    await page.getByRole("button", { name: "Roll the whole profile back …" }).click();
    await sheet.getByText(told).waitFor();
    await sheet.getByRole("button", { name: "Leave it" }).click();
    await sheet.waitFor({ state: "hidden" });
    await open(page, world, "/#/find");
    await page.getByRole("heading", { name: "Find a profile" }).waitFor();
    await fails("/unread/session");
  }
  assert.equal((await world.read("unread")).data.coins, 10);
  await finish(page);
});

test("a session that took the place of the one that was seen is told and not ended", async () => {
  const [first] = await world.play("eu-1", ["swapped"]);
  const page = await armed(at("swapped", "holder"));
  const ask = page.getByRole("button", { name: "Ask eu-1 to let go" });
  await ask.waitFor();
  await first.end();
  const [second] = await world.play("eu-2", ["swapped"]);
  await page.getByLabel("Reason").fill("ticket 6");
  await ask.click();
  await sees(page, "Another session took its place, so nothing was ended.");
  await sees(page, "Since then eu-2 holds the profile");
  assert.ok(second.isActive);
  assert.equal((await world.read("swapped")).held?.job, "eu-2");
  // Taking it away names the session as well, the one that is seen now.
  await page.getByRole("button", { name: "Take it away …" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Take it away" }).click();
  await sees(page, "Nobody plays this profile");
  await until("the game server was told", () => !second.isActive);
  const [line] = await page.locator("pre", { hasText: "-X DELETE" }).allTextContents();
  assert.match(line, /\/session\?epoch=\d+&reason=ticket\+6&steal=true'/);
  await finish(page);
});

test("an edit that waits for its holder is told in the profile's header", async () => {
  const game = await Mute.play(world, "eu-8", "patient");
  const asked = edit(world, "patient", [{ op: "increase", path: "/coins", by: 5 }], "ticket 8");
  const settled = asked.catch(() => {});
  const page = await signedIn(chromium, world);
  await open(page, world, at("patient"));
  const waiting = page.locator("[data-edits-waiting]");
  await until("it waits", async () => {
    await page.getByRole("button", { name: "Read again" }).click();
    return (await waiting.innerText()) === "1";
  });
  const told = await page.locator("[data-coming-edits]").innerText();
  for (const part of ["eu-8 has yet to make", "/coins + 5", "ticket 8"])
    assert.ok(told.includes(part), `${part}: ${told}`);
  await game.end();
  await settled;
  // The game server that plays it next makes what none has made yet.
  const [profile] = await world.play("eu-9", ["patient"]);
  await until("it is made", () => profile.data.coins === 5);
  await profile.save();
  await page.getByRole("button", { name: "Read again" }).click();
  await until("nothing waits", async () => (await waiting.innerText()) === "0");
  assert.equal(await page.locator("[data-coming-edits]").count(), 0);
  await finish(page);
});

test("a profile that is not there yet shows the edits with which it will begin", async () => {
  world.run(
    ...["edit", "--all", "--new-too", "--store-name", "PlayerData", "--prefix", "newborn-"],
    ...["--set", "/welcome=true", "--yes", "--reason", "season 4"],
  );
  const page = await signedIn(chromium, world);
  await open(page, world, at("newborn-1"));
  await sees(page, "begins with the edits that stand in its store");
  await sees(page, "/welcome becomes true");
  await sees(page, "season 4");
  const [profile] = await world.play("eu-1", ["newborn-1"]);
  assert.equal(profile.data.welcome, true);
  await page.getByRole("button", { name: "Read again" }).click();
  await page.locator("[data-edits-waiting]").waitFor();
  assert.equal(await page.locator("[data-coming-edits]").count(), 0);
  await finish(page);
});

test("sessions and game servers are listed, and lead to each other", async () => {
  await world.play("us-1", ["far-1", "far-2"]);
  await world.play("us-2", ["far-3"]);
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/servers?state=alive");
  const row = page.locator("tr", { has: page.getByRole("link", { name: "us-1" }) });
  await row.waitFor();
  const [shown] = await cells(row);
  assert.match(shown[3], /^typescript\/\d/, "the SDK and its version");
  assert.match(shown[4], /^[\da-f]{16}, this one$/, "the process that hosts it");
  await page.getByRole("link", { name: "us-1" }).click();
  await page.getByRole("heading", { name: "Sessions" }).waitFor();
  await sees(page, "2 sessions");
  assert.deepEqual(await page.locator("tbody a").allTextContents(), ["far-1", "far-2"]);
  await page.getByRole("link", { name: "far-2" }).click();
  await sees(page, "it reports to the store in time");
  await finish(page);
});

test("a game server that was shut down in order is not called dead", async () => {
  const [profile] = await world.play("us-9", ["shut-1"]);
  await profile.end();
  await world.games.pop().close();
  const state = async () => {
    const { body } = await world.ask("GET", "/v1/servers");
    return body.items.find((one) => one.job === "us-9")?.state;
  };
  await until("the store knows that it ended", async () => (await state()) === "dead");
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/servers");
  const row = page.locator("tr", { has: page.getByRole("link", { name: "us-9" }) });
  await row.waitFor();
  const [shown] = await cells(row);
  assert.equal(shown[1], "ended");
  await sees(page, "the store does not tell which");
  await page.getByRole("button", { name: /^ended \d+$/ }).click();
  await row.waitFor();
  await until("addresses stay as they were", () => page.url().endsWith("state=dead"));
  await finish(page);
});
