// Many profiles at a time: searched by value, edited, and as they were at a time.
import {
  arm,
  armed,
  assert,
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
import { edit, escrow } from "./fill.js";
import { Mute } from "./mute.js";

forTests();

const name = (prefix, at) => `${prefix}-${String(at).padStart(2, "0")}`;
const keys = (page) => page.locator("tbody tr[data-at] a").allTextContents();

test("profiles are found by what is saved in them, and the address has the search", async () => {
  for (let at = 0; at < 30; at++)
    await world.put(name("rich", at), { coins: at * 100, items: at % 7 ? {} : { sword: 1 } });
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/find");
  await page.getByLabel("What is saved in it").fill("/coins > 2500 and not has /items/sword");
  await page.getByRole("button", { name: "Find", exact: true }).click();
  await sees(page, "all were looked at");
  assert.deepEqual(await keys(page), ["rich-26", "rich-27", "rich-29"]);
  assert.equal(await page.locator("[data-scanned]").getAttribute("data-scanned"), "30");
  await page.locator("#find").fill("rich-1");
  await page.getByLabel("What is saved in it").fill("has /items/sword");
  await page.keyboard.press("Enter");
  await until("a beginning of the key narrows it", async () => {
    return (await keys(page)).join() === "rich-14" && (await page.url()).includes("q=rich-1");
  });
  // What is wrong is said in the server's words, with the place.
  await page.getByLabel("What is saved in it").fill("/coins > 5 AND has /vip");
  await page.keyboard.press("Enter");
  await sees(page, "the search is wrong at character 12");
  await page.goBack();
  await until("the search of before", async () => (await keys(page)).join() === "rich-14");
  assert.equal(await page.getByLabel("What is saved in it").inputValue(), "has /items/sword");
  await page.reload();
  await until("the same again", async () => (await keys(page)).join() === "rich-14");
  await page.getByRole("link", { name: "rich-14" }).click();
  await page.getByRole("heading", { name: "rich-14" }).waitFor();
  await finish(page);
});

test("a search by value says how far it is, is called off, and goes on", async () => {
  const many = Array.from({ length: 12_000 }, (_, at) => [`scan-${at}`, { at }]);
  world.import(many);
  const page = await signedIn(chromium, world);
  const held = [];
  // The first answer comes. The second one is held until the search was called off.
  await page.route("**/profiles?*page_token*", (route) => held.push(route));
  await open(page, world, "/#/find?q=scan-&where=/at%20%3E=%2011990");
  await until("the next answer is awaited", () => held.length === 1);
  const scanned = async () =>
    Number(await page.locator("[data-scanned]").getAttribute("data-scanned"));
  const first = await scanned();
  assert.ok(first > 0 && first < 12_000, `${first} were looked at`);
  await page.getByRole("button", { name: "Cancel" }).click();
  await sees(page, "called off");
  assert.equal(await scanned(), first);
  await page.unroute("**/profiles?*page_token*");
  await page.getByRole("button", { name: "Go on" }).click();
  await sees(page, "all were looked at");
  assert.equal(await scanned(), 12_000);
  assert.equal((await keys(page)).length, 10);
  await finish(page);
});

test("many profiles are edited after a try, played ones too, and it is undone", async () => {
  world.import(Array.from({ length: 600 }, (_, at) => [`bulk-${at}`, { coins: 1000 + at }]));
  world.import([
    ["bulk-poor", { coins: 5 }],
    ["bulk-odd", { coins: "many" }],
  ]);
  const [played] = await world.play("eu-1", ["bulk-7"]);
  const page = await armed(
    "/#/find?q=bulk-&where=/coins%20%3E=%201000%20or%20/coins%20=%20%22many%22",
  );
  await sees(page, "601 found");
  await page.getByRole("link", { name: "Edit all of them" }).click();
  await page.getByRole("heading", { name: "New edit of many profiles" }).waitFor();
  assert.equal(await page.getByLabel("Beginning of the key").inputValue(), "bulk-");
  await page.getByLabel("A place").fill("/coins");
  await page.getByLabel("Value; +500").fill("+-400");
  await sees(page, "/coins − 400");
  const run = page.getByRole("button", { name: "Edit them …" });
  assert.ok(await run.isDisabled(), "it is not done without a try");
  await page.getByRole("button", { name: "Try on all" }).click();
  await page.locator("[data-complete=true]").waitFor();
  const planned = async (which) => page.locator(`[data-count=${which}] strong`).innerText();
  assert.equal(await planned("changed"), "600");
  assert.equal(await planned("refused"), "1");
  assert.equal(await planned("unmatched"), "1");
  await sees(page, "1 of those that would be changed are played now");
  await page.getByText("bulk-0", { exact: false }).first().click();
  assert.deepEqual(
    (await cells(page.locator("details[open] tr[data-path]"))).map((row) => row.slice(0, 3)),
    [["/coins", "1000", "600"]],
  );
  // What is changed about it has to be tried anew.
  await page.getByLabel("Reason").fill("coins from a bug");
  await page.getByLabel("Value; +500").fill("+-500");
  assert.ok(await run.isDisabled());
  await page.getByRole("button", { name: "Try on some" }).click();
  await until("it was tried", () => run.isEnabled());
  await run.click();
  const sheet = page.getByRole("dialog");
  assert.ok(await sheet.getByRole("button", { name: "Edit them" }).isDisabled());
  await sheet.getByRole("textbox").fill("PlayerData");
  await sheet.getByRole("button", { name: "Edit them" }).click();
  await page.locator("[data-state=done]").waitFor();
  assert.equal(await planned("changed"), "600");
  assert.equal((await world.read("bulk-3")).data.coins, 503);
  assert.equal((await world.read("bulk-poor")).data.coins, 5);
  assert.equal(played.data.coins, 507);
  assert.ok(played.isActive, "the player stays online");
  // Undone: what was changed since stays.
  await edit(world, "bulk-3", [{ op: "set", path: "/coins", value: 1 }]);
  const [, first] = page.url().split("/edits/");
  await page.getByRole("button", { name: "Undo …" }).click();
  await sheet.getByLabel("Reason").fill("it was no bug");
  await sheet.getByRole("button", { name: "Undo it" }).click();
  await page.getByRole("heading", { name: "Undo of an edit" }).waitFor();
  await page.locator("[data-state=done]").waitFor();
  assert.equal((await world.read("bulk-5")).data.coins, 1005);
  assert.equal(played.data.coins, 1007);
  await page.getByRole("link", { name: "All edits" }).click();
  const rows = page.locator("tr[data-operation]");
  await rows.nth(1).waitFor();
  assert.equal(await rows.nth(1).getAttribute("data-operation"), first);
  assert.match(await rows.nth(1).innerText(), /undone/);
  assert.match(await rows.nth(0).innerText(), /done/);
  await finish(page);
});

test("an edit of many that waits for a game server is paused, and goes on", async () => {
  world.import(Array.from({ length: 40 }, (_, at) => [`slow-${at}`, { coins: 1 }]));
  const game = await Mute.play(world, "eu-9", "slow-7");
  const page = await armed("/#/edits/new?store=PlayerData&prefix=slow-");
  await page.getByLabel("A place").fill("/coins");
  await page.getByLabel("Value; +500").fill("2");
  await page.getByLabel("Reason").fill("a test of patience");
  await page.getByRole("button", { name: "Try on all" }).click();
  await page.locator("[data-complete=true]").waitFor();
  await page.getByRole("button", { name: "Edit them …" }).click();
  await page.getByRole("dialog").getByRole("textbox").fill("PlayerData");
  await page.keyboard.press("Enter");
  await sees(page, "1 wait for their game servers");
  assert.equal(await page.locator("[data-done]").getAttribute("data-done"), "39");
  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator("[data-state=paused]").waitFor();
  await sees(page, "Nothing is edited now");
  // The address is all that is needed to come back to it.
  await page.reload();
  await page.locator("[data-state=paused]").waitFor();
  await arm(page);
  await page.getByRole("button", { name: "Go on" }).click();
  await page.locator("[data-state=running]").waitFor();
  await game.end();
  await page.locator("[data-state=done]").waitFor();
  assert.equal((await world.read("slow-7")).data.coins, 2);
  assert.equal((await world.read("slow-8")).data.coins, 2);
  await finish(page);
});

test("a place of many profiles is compared with a time, put back, and that is undone", async () => {
  for (let at = 0; at < 6; at++) await world.put(name("time", at), { coins: at, items: ["a"] });
  // The store's clock has passed the second in which they were made.
  const made = (await world.read(name("time", 5))).stored_ms;
  const then = new Date(Math.ceil((made + 1) / 1000) * 1000);
  await until("a second has passed", async () => {
    const { headers } = await world.ask("GET", "/v1/me");
    return Date.parse(headers.get("date")) > then.getTime();
  });
  for (const at of [1, 2, 3])
    await edit(world, name("time", at), [
      { op: "increase", path: "/coins", by: 1_000_000 },
      { op: "set", path: "/items", value: ["a", "b"] },
    ]);
  const [played] = await world.play("eu-1", [name("time", 2)]);
  const address = (path) =>
    `/#/time?${new URLSearchParams({ at: then.toISOString(), path, prefix: "time-" })}`;
  const page = await armed(address("/coins"));
  await page.getByRole("button", { name: "Compare 6" }).click();
  await sees(page, "3 of 6 were something else then");
  assert.deepEqual(
    (await cells(page.locator("tbody tr[data-at]"))).map((row) => row.slice(0, 3)),
    [1, 2, 3].map((at) => [name("time", at), String(at), String(1_000_000 + at)]),
  );
  // All of them are put back by one operation, which is tried before and undone after.
  const put = page.getByRole("button", { name: "Put them back …" });
  await page.getByRole("button", { name: "Try on all" }).click();
  await page.locator("[data-complete=true]").waitFor();
  const counted = async (which) => page.locator(`[data-count=${which}] strong`).innerText();
  assert.equal(await counted("changed"), "3");
  assert.equal(await counted("unchanged"), "3");
  await page.getByText(name("time", 1)).last().click();
  assert.deepEqual(
    (await cells(page.locator("details[open] tr[data-path]"))).map((row) => row.slice(0, 3)),
    [["/coins", "1000001", "1"]],
  );
  assert.ok(await put.isDisabled(), "it has no reason");
  await page.getByLabel("Reason").fill("the exploit of 18:30");
  await put.click();
  const sheet = page.getByRole("dialog");
  await sheet.getByRole("textbox").fill("PlayerData");
  await sheet.getByRole("button", { name: "Put back" }).click();
  await page.getByRole("heading", { name: "Edit of many profiles" }).waitFor();
  await page.locator("[data-state=done]").waitFor();
  await sees(page, "puts back to what it was at");
  assert.equal(await counted("changed"), "3");
  for (const at of [1, 3]) assert.equal((await world.read(name("time", at))).data.coins, at);
  assert.equal(played.data.coins, 2);
  assert.ok(played.isActive, "the player stays online");
  assert.deepEqual((await world.read(name("time", 1))).data.items, ["a", "b"], "only that place");
  await page.getByRole("button", { name: "Undo …" }).click();
  await sheet.getByLabel("Reason").fill("it was no exploit");
  await sheet.getByRole("button", { name: "Undo it" }).click();
  await page.getByRole("heading", { name: "Undo of an edit" }).waitFor();
  await page.locator("[data-state=done]").waitFor();
  assert.equal((await world.read(name("time", 1))).data.coins, 1_000_001);
  assert.equal(played.data.coins, 1_000_002);
  // A list is shown and put back as a whole.
  await open(page, world, address("/items/1"));
  await page.getByRole("button", { name: "Compare 6" }).click();
  await sees(page, "A list is put back as a whole");
  await page.getByRole("link", { name: name("time", 1) }).click();
  await page.getByRole("heading", { name: /Version 1 to/ }).waitFor();
  await finish(page);
});

test("profiles are found by messages that wait, with how many", async () => {
  await world.put("inbox-1", { coins: 1 });
  await world.put("inbox-2", { coins: 1 });
  await world.send("inbox-1");
  await world.send("inbox-1");
  await world.send("inbox-3");
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/find");
  await page.locator("#find").fill("inbox>0 inbox-");
  await page.keyboard.press("Enter");
  await sees(page, "all were looked at");
  const rows = await cells(page.locator("tbody tr[data-at]"));
  assert.deepEqual(
    rows.map((row) => [row[0], row[4]]),
    [
      ["inbox-1", "2"],
      ["inbox-3", "1"],
    ],
  );
  await page.getByRole("link", { name: "2", exact: true }).click();
  await page.getByRole("heading", { name: "inbox-1" }).waitFor();
  await finish(page);
});

test("a trade stands with both profiles, and leads from one to the other", async () => {
  const pair = await world.play("eu-5", ["trade-ann", "trade-bob"]);
  await world.games.at(-1).transaction(pair, ([ann, bob]) => {
    ann.items.push("shield");
    bob.items.push("sword");
  });
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/p/PlayerData/global/trade-ann/trades");
  await sees(page, "traded with");
  const id = await page.locator("[data-trade]").getAttribute("data-trade");
  await page.getByRole("link", { name: "PlayerData/trade-bob" }).click();
  await page.getByRole("heading", { name: "trade-bob" }).waitFor();
  await page.locator(`[data-trade="${id}"]`).waitFor();
  await page.getByTitle("The history, as far as it is kept").click();
  await page.getByLabel("A number over the versions").waitFor();
  await finish(page);
});

test("an escrow shows where what was put into it is now", async () => {
  await escrow(world, "trade-9", "trade-carl");
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/trades");
  await page.getByRole("combobox", { name: "Store" }).selectOption({ label: "Trades" });
  await page.getByRole("link", { name: "trade-9" }).click();
  await page.getByRole("heading", { name: "trade-9" }).waitFor();
  await page.getByText('["ann","sword"]').waitFor();
  const coming = page.locator("[data-coming]");
  assert.match(await coming.innerText(), /"item":"shield"/);
  const given = page.locator("[data-given]");
  assert.match(await given.innerText(), /PlayerData\/trade-carl\s+waits in the inbox/);
  // The player comes and takes it.
  const [carl] = await world.play("eu-6", ["trade-carl"]);
  carl.onMessage("item", (data, gift) => {
    data.items.push(gift.id);
  });
  await until("carl has it", () => carl.data.items.includes("bow"));
  await carl.save();
  await page.getByRole("button", { name: "Look again" }).click();
  await until("it was taken", async () => /taken/.test(await given.innerText()));
  // The page has all of it in its address.
  await page.reload();
  await given.waitFor();
  await finish(page);
});
