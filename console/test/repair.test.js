// Finding a profile, seeing what happened, and putting it right while nobody plays it.
import {
  arm,
  armed,
  assert,
  at,
  cells,
  chromium,
  finish,
  forTests,
  loggedIn,
  open,
  profilePath,
  sees,
  signedIn,
  test,
  until,
  uuid7,
  world,
} from "./world.js";
import { edit } from "./fill.js";

forTests();

test("a profile is found by its key, the key's beginning, its holder and its time", async () => {
  for (let at = 1; at <= 12; at++) await world.put(`find-${at}`, { level: at });
  await world.play("eu-1", ["find-3"]);
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/find?q=nothing-like-that");
  await sees(page, "No profile is like that");
  const found = async (typed, keys) => {
    await page.locator("#find").fill(typed);
    await page.getByRole("button", { name: "Find", exact: true }).click();
    await until(`${typed} finds ${keys}`, async () => {
      const shown = await page.locator("tbody a").allTextContents();
      return shown.join() === keys.join() && page.getByText(/^\d+\s+profiles?\s*$/).isVisible();
    });
  };
  await found("find-1", ["find-1", "find-10", "find-11", "find-12"]);
  await found("user:261", []);
  await found("user:069a79f4-44e9-4726-a5be-fca90e38aaf5", []);
  await found("held: find-", ["find-3"]);
  await found("find- since:2030-01-01T00:00:00Z", []);
  await found(
    "find- since:2h",
    [1, 10, 11, 12, 2, 3, 4, 5, 6, 7, 8, 9].map((at) => `find-${at}`),
  );
  await page.locator("#find").fill("user:");
  await page.keyboard.press("Enter");
  await sees(page, "user: is followed by the number or the name of a user");
  // The address has all of it: the back button leads through the searches.
  await page.goBack();
  await until("the search of before", async () => (await page.locator("tbody a").count()) === 12);
  assert.equal(await page.locator("#find").inputValue(), "find- since:2h");
  await page.getByRole("link", { name: "find-12" }).click();
  await page.getByRole("treeitem", { name: "level 12" }).waitFor();
  await finish(page);
});

const NUMBERS =
  '{"coins":100,"big":9223372036854775807,"huge":123456789012345678901234567890.10,"tiny":-1.5e-7}';

test("numbers stay the text that they are, in the page and beside an edit", async () => {
  const made = await world.put("numbers", NUMBERS);
  assert.equal(made.status, 201, made.text);
  const stored = async () => (await world.read("numbers")).text;
  const shown = ["9223372036854775807", "123456789012345678901234567890.10", "-1.5e-7"];
  const page = await armed(at("numbers"));
  for (const number of shown)
    await page.locator(".tree").getByText(number, { exact: true }).waitFor();
  await page.getByRole("link", { name: "Edit", exact: true }).click();
  await page.getByLabel("A place").fill("/coins");
  await page.getByRole("button", { name: "Add it" }).click();
  await page.getByLabel("Value; +500").fill("9007199254740993");
  await page.getByLabel("Reason").fill("ticket 2");
  await page.getByRole("button", { name: "Change the profile" }).click();
  await sees(page, "It is version 2");
  for (const number of [...shown, "9007199254740993"])
    assert.ok((await stored()).includes(`:${number}`), `${number} in ${await stored()}`);
  await page.getByRole("button", { name: "Undo" }).click();
  await sees(page, "Taken back.");
  assert.match(await stored(), /"coins":100[,}]/);
  for (const number of shown) assert.ok((await stored()).includes(`:${number}`));
  await page.getByRole("link", { name: "Raw" }).click();
  for (const number of shown)
    assert.ok((await page.locator("pre.raw").textContent()).includes(` ${number}`));
  await finish(page);
});

test("an edit stands in the audit log with its reason, and is undone from there", async () => {
  await world.put("audited", { coins: 1 });
  await edit(world, "audited", [{ op: "set", path: "/coins", value: 7 }], "the reason is 4712");
  const page = await armed(at("audited", "audit"));
  const row = page.locator("tr", { hasText: "the reason is 4712" });
  await row.getByText("more").click();
  await row.getByRole("button", { name: "Undo" }).click();
  await sees(page, "undo of");
  assert.equal((await world.read("audited")).data.coins, 1);
  await open(page, world, "/#/audit?profile=PlayerData%2Faudited");
  await until(
    "two edits and the making",
    async () => (await page.locator("tr[data-operation]").count()) === 3,
  );
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Save these 3 as a file" }).click(),
  ]);
  assert.equal(download.suggestedFilename(), "audit.jsonl");
  await finish(page);
});

test("an undo that waits for the switch says so", async () => {
  await world.put("switched", { coins: 1 });
  await edit(world, "switched", [{ op: "set", path: "/coins", value: 7 }], "the reason is 4713");
  const page = await signedIn(chromium, world);
  await open(page, world, at("switched", "audit"));
  const row = page.locator("tr", { hasText: "the reason is 4713" });
  await row.getByText("more").click();
  const undo = row.getByRole("button", { name: "Undo" });
  const told = row.getByText("Changes are off");
  await told.waitFor();
  assert.ok(await undo.isDisabled());
  await arm(page);
  await told.waitFor({ state: "hidden" });
  assert.ok(await undo.isEnabled());
  await finish(page);
});

/** A player who had five swords, and lost them. */
async function robbed(key) {
  await world.put(key, { coins: 100, items: ["a", "b", "c"], level: 3 });
  await edit(world, key, [{ op: "increase", path: "/coins", by: 50 }], "the shop");
  await edit(
    world,
    key,
    [
      { op: "set", path: "/items", value: [] },
      { op: "set", path: "/level", value: 4 },
    ],
    "a bad script",
  );
}

test("the history tells what happened, and one path is put back after a preview", async () => {
  await robbed("robbed");
  const page = await armed(at("robbed", "history"));
  const rows = page.locator("tr[data-version]");
  await page.locator("tr", { hasText: "a bad script" }).waitFor();
  assert.deepEqual(
    (await cells(rows)).map((row) => [row[1], row[5]]),
    [
      ["3", "a bad script"],
      ["2", "the shop"],
      ["1", ""],
    ],
  );
  // The curve of a number over the versions.
  await page.getByLabel("A number over the versions").fill("/coins");
  await page.getByRole("button", { name: "Draw" }).click();
  await sees(page, "from 100 in version 1 to 150 in version 3");
  // What did version 3 change?
  await rows.first().getByRole("link", { name: "what changed" }).click();
  await page.getByRole("heading", { name: "Version 2 to 3" }).waitFor();
  const differences = page.locator("tr[data-path]");
  assert.deepEqual(
    (await cells(differences)).map((row) => row.slice(0, 3)),
    [
      ["/Data/items/0", '"a"', "nothing"],
      ["/Data/items/1", '"b"', "nothing"],
      ["/Data/items/2", '"c"', "nothing"],
      ["/Data/level", "3", "4"],
    ],
  );
  await page.goBack();
  await rows.nth(1).getByLabel("Compare version 2").check();
  await rows.nth(2).getByLabel("Compare version 1").check();
  await page.getByRole("link", { name: "Compare 1 with 2" }).click();
  await page.getByRole("heading", { name: "Version 1 to 2" }).waitFor();
  assert.deepEqual(
    (await cells(differences)).map((row) => row.slice(0, 3)),
    [["/Data/coins", "100", "150"]],
  );

  // The items come back, the level stays.
  await open(page, world, at("robbed", "rollback?to=2&path=/items"));
  await page.getByLabel("Reason").fill("ticket 3");
  // One list, and a tick at each of its three items.
  await page.getByRole("button", { name: "Put 3 places back" }).click();
  await sees(page, "It is version 4");
  assert.deepEqual((await world.read("robbed")).data, {
    coins: 150,
    items: ["a", "b", "c"],
    level: 4,
  });
  await page.getByRole("button", { name: "Undo" }).click();
  await sees(page, "Taken back.");
  assert.deepEqual((await world.read("robbed")).data, { coins: 150, items: [], level: 4 });
  await finish(page);
});

test("the versions that are ticked in the history stand in the address", async () => {
  await robbed("compared");
  const page = await signedIn(chromium, world);
  await open(page, world, at("compared", "history?curve=/coins"));
  await sees(page, "from 100 in version 1 to 150 in version 3");
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  const tick = (version) => page.getByLabel(`Compare version ${version}`);
  for (const version of [1, 2, 3]) await tick(version).check();
  // Two are compared: the one that was ticked first is let go.
  await page.getByRole("link", { name: "Compare 2 with 3" }).waitFor();
  assert.ok(!(await tick(1).isChecked()));
  const again = asked.filter((url) => url.includes("/versions/"));
  assert.deepEqual(again, [], "the curve is not read again");
  await page.reload();
  await page.getByRole("link", { name: "Compare 2 with 3" }).click();
  await page.getByRole("heading", { name: "Version 2 to 3" }).waitFor();
  await page.goBack();
  await page.getByRole("link", { name: "Compare 2 with 3" }).waitFor();
  assert.ok(await tick(3).isChecked());
  await finish(page);
});

test("the button of a rollback counts the ticks, and the address has them", async () => {
  await robbed("ticked");
  await world.newMember("Tess", "operator");
  const page = await loggedIn(chromium, world, "Tess");
  await open(page, world, at("ticked", "rollback?to=2"));
  await page.getByLabel("Some places, by an edit").check();
  const put = (place) => page.getByLabel(`Put /Data/${place} back`);
  const ticks = () => page.locator("td input[type=checkbox]:checked").count();
  await put("items/1").check();
  assert.equal(await ticks(), 3, "a list is put back as a whole");
  await sees(page, "with all of its items: /items");
  await put("level").check();
  // To switch changes on reads the preview anew.
  await arm(page);
  const button = page.getByRole("button", { name: "Put 4 places back" });
  await button.waitFor();
  assert.equal(await ticks(), 4);
  await page.reload();
  await put("level").waitFor();
  assert.equal(await ticks(), 4, "a reload and a link keep them");
  await put("items/0").uncheck();
  assert.equal(await ticks(), 1);
  await page.getByRole("button", { name: "Put 1 place back" }).waitFor();
  await put("level").uncheck();
  assert.ok(await page.getByRole("button", { name: "Put 0 places back" }).isDisabled());
  assert.ok(await page.getByLabel("Some places, by an edit").isChecked());
  await finish(page);
});

test("data that is a list as a whole is put back by an edit", async () => {
  await world.put("listed", ["a", "b", "c"]);
  await edit(world, "listed", [{ op: "set", path: "", value: ["a"] }], "a bad script");
  const page = await armed(at("listed", "rollback?to=1"));
  await page.getByLabel("Some places, by an edit").check();
  await page.getByLabel("Put /Data/1 back").check();
  assert.ok(await page.getByLabel("Put /Data/2 back").isChecked(), "the list is one place");
  await sees(page, "with all of its items: (all of it)");
  await page.getByLabel("Reason").fill("ticket 9");
  await page.getByRole("button", { name: "Put 2 places back" }).click();
  await sees(page, "It is version 3");
  assert.deepEqual((await world.read("listed")).data, ["a", "b", "c"]);
  await finish(page);
});

test("a whole profile is rolled back after a preview, and that is undone", async () => {
  await robbed("whole");
  const gift = { message: { type: "gift", coins: 1 } };
  await world.ask("POST", `${profilePath("whole")}/messages`, gift, { "Idempotency-Key": uuid7() });
  const page = await armed(at("whole", "history"));
  await page.locator("tr[data-version='1']").getByRole("link", { name: "roll back" }).click();
  await page.getByLabel("The whole profile").check();
  await sees(page, "What a rollback does not undo");
  assert.deepEqual(
    (await cells(page.locator("tr[data-path]"))).map((row) => row[0]),
    ["/Data/coins", "/Data/items/0", "/Data/items/1", "/Data/items/2", "/Data/level"],
  );
  const button = page.getByRole("button", { name: "Roll the whole profile back" });
  assert.ok(await button.isDisabled(), "a reason is needed");
  assert.equal(await page.getByLabel("Reason").getAttribute("aria-required"), "true");
  await page.getByLabel("Reason").fill("ticket 4");
  await button.click();
  await sees(page, "Rolled back.");
  assert.deepEqual((await world.read("whole")).data, {
    coins: 100,
    items: ["a", "b", "c"],
    level: 3,
  });
  assert.equal((await world.read("whole")).messages_waiting, 1, "a message that waits stays");
  await page.getByRole("button", { name: "Undo" }).click();
  await until("it is undone", async () => (await world.read("whole")).data.level === 4);
  await finish(page);
});

test("a version is pinned and unpinned with a reason, and only after a second step", async () => {
  await world.put("pinned", { coins: 1 });
  await edit(world, "pinned", [{ op: "increase", path: "/coins", by: 1 }]);
  const page = await armed(at("pinned", "history"));
  const sheet = page.getByRole("dialog");
  await page.getByRole("button", { name: "pin version 1", exact: true }).click();
  await sheet.getByLabel("Reason").fill("ticket 13");
  await sheet.getByRole("button", { name: "Pin it" }).click();
  const tag = page.locator("tr[data-version='1'] .tag", { hasText: "pinned" });
  await tag.waitFor();
  const unpin = page.getByRole("button", { name: "unpin version 1" });
  await unpin.focus();
  // A key that is pressed once too often does nothing, though a reason may be typed.
  await page.keyboard.press("Enter");
  await sheet.getByText("cannot be brought back").waitFor();
  await page.keyboard.press("Enter");
  await sheet.waitFor({ state: "hidden" });
  assert.ok(await tag.isVisible());
  await unpin.click();
  await sheet.getByLabel("Reason").fill("ticket 14");
  await sheet.getByRole("button", { name: "Unpin it" }).click();
  await tag.waitFor({ state: "hidden" });
  const { body } = await world.ask("GET", "/v1/audit?profile=PlayerData/pinned");
  for (const reason of ["ticket 13", "ticket 14"])
    assert.equal(body.items.filter((one) => one.reason === reason).length, 1, reason);
  await finish(page);
});

test("a rollback and its undo do nothing when the profile has moved on since they were shown", async () => {
  await world.put("moved", { coins: 1 });
  const earn = (by) => edit(world, "moved", [{ op: "increase", path: "/coins", by }], "another");
  const coins = async () => (await world.read("moved")).data.coins;
  await earn(10);
  const page = await armed(at("moved", "rollback?to=1"));
  await page.getByLabel("The whole profile").check();
  await page.getByLabel("Reason").fill("ticket 6");
  await earn(100);
  const button = page.getByRole("button", { name: "Roll the whole profile back" });
  await button.click();
  await sees(page, "The profile has moved on");
  assert.equal(await coins(), 111, "nothing is overwritten");
  // The preview was made anew, so the same button goes over what is shown now.
  await button.click();
  await sees(page, "Rolled back.");
  assert.equal(await coins(), 1);
  await earn(1000);
  await page.getByRole("button", { name: "Undo" }).click();
  await sees(page, "The profile has moved on");
  assert.equal(await coins(), 1001, "what came later stays");
  await finish(page);
});

test("of two operators on one place the second sees what the first did", async () => {
  await world.put("both", { coins: 100, name: "Ada" });
  const page = await armed(at("both", "edit?at=/coins"));
  await page.getByLabel("Value; +500").fill("200");
  await page.getByLabel("Reason").fill("ticket 5");
  await edit(world, "both", [{ op: "set", path: "/coins", value: 120 }], "the other operator");
  await page.getByRole("button", { name: "Change the profile" }).click();
  await page.getByRole("heading", { name: "The profile has moved on" }).waitFor();
  assert.deepEqual(await cells(page.locator("table.conflict tbody tr")), [
    ["/coins", "100", "120", "200", "it was changed meanwhile"],
  ]);
  assert.equal((await world.read("both")).data.coins, 120, "nothing was overwritten");
  await page.getByRole("button", { name: "Go on from theirs" }).click();
  await page.getByRole("button", { name: "Change the profile" }).click();
  await sees(page, "It is version 3");
  assert.equal((await world.read("both")).data.coins, 200);

  // Adding has no such conflict.
  await open(page, world, at("both", "edit?at=/coins"));
  await page.getByLabel("Value; +500").fill("+5");
  await page.getByLabel("Reason").fill("ticket 6");
  await edit(world, "both", [{ op: "set", path: "/coins", value: 1000 }], "the other operator");
  await page.getByRole("button", { name: "Change the profile" }).click();
  await sees(page, "It is version 5");
  assert.equal((await world.read("both")).data.coins, 1005);
  await finish(page);
});

test("what a lost answer did is found out, and nothing is done twice", async () => {
  await world.put("lost", { coins: 100 });
  const page = await armed(at("lost", "edit?at=/coins"));
  // The first answer is thrown away: the server has made the change, and the page does not know.
  let lost = 0;
  await page.route("**/edits?*", async (route) => {
    if (lost++ > 0) return route.continue();
    await route.fetch();
    return route.abort();
  });
  await page.getByLabel("Value; +500").fill("+5");
  await page.getByLabel("Reason").fill("ticket 7");
  await page.getByRole("button", { name: "Change the profile" }).click();
  await sees(page, "Trying again does nothing twice");
  await page.getByRole("button", { name: "Try again" }).click();
  await sees(page, "It is version 2");
  assert.equal((await world.read("lost")).data.coins, 105);
  assert.equal(lost, 2);
  await finish(page);
});

const HOSTILE = '<img src=x onerror="window.hacked=1">';

test("a hostile key, name, value and reason are shown as the text that they are", async () => {
  const data = { [HOSTILE]: HOSTILE, __proto__: 1, constructor: { prototype: HOSTILE } };
  const made = await world.put(HOSTILE, JSON.stringify(data));
  assert.equal(made.status, 201, made.text);
  await world.ask(
    "POST",
    `${profilePath(HOSTILE)}/messages`,
    { message: { [HOSTILE]: HOSTILE } },
    { "Idempotency-Key": uuid7() },
  );
  const steps = [{ op: "set", path: `/${HOSTILE.replaceAll("/", "~1")}`, value: `${HOSTILE}2` }];
  const headers = { "Content-Type": "application/json-patch+json", "Idempotency-Key": uuid7() };
  const edited = await world.ask(
    "POST",
    `${profilePath(HOSTILE)}/edits?reason=${encodeURIComponent(HOSTILE)}`,
    steps,
    headers,
  );
  assert.equal(edited.status, 200, edited.text);
  const page = await armed("/#/find?q=%3Cimg");
  await page.getByRole("link", { name: HOSTILE }).click();
  await page.getByRole("heading", { name: HOSTILE }).waitFor();
  for (const [tab, shown] of Object.entries({
    "": HOSTILE,
    raw: "onerror",
    history: HOSTILE,
    "diff?from=1": "onerror",
    "rollback?to=1": "onerror",
    [`edit?at=${encodeURIComponent(`/${HOSTILE}`)}`]: "onerror",
    send: "onerror",
    holder: "Nobody plays this profile",
    audit: HOSTILE,
  })) {
    await open(page, world, at(HOSTILE, tab));
    await page.locator("main").getByText(shown).first().waitFor();
    assert.equal(await page.locator("main img").count(), 0, tab);
  }
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  await finish(page);
});

test("a profile of 100,000 values is opened and searched, with few lines in the page", async () => {
  const items = Array.from({ length: 100_000 }, (_, at) => at * 3);
  const made = await world.put("large", { items, last: "needle" });
  assert.equal(made.status, 201, made.text);
  const page = await signedIn(chromium, world);
  await open(page, world, at("large"));
  const lines = page.getByRole("treeitem");
  await lines.filter({ hasText: "100000 members" }).click();
  await page.locator('[data-pointer="/items/5"]', { hasText: "15" }).waitFor();
  assert.ok((await lines.count()) < 100, `${await lines.count()} lines are in the page`);
  await page.getByLabel("Search in this profile").fill("299997");
  await page.locator('[data-pointer="/items/99999"]').waitFor();
  assert.equal(await lines.count(), 2);
  await finish(page);
});

test("a list goes on where its first page ends", async () => {
  for (let at = 0; at < 450; at++) await world.put(`many-${String(at).padStart(3, "0")}`, {});
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/find?q=many-");
  await sees(page, "200 profiles so far");
  const box = page.getByRole("region", { name: "Profiles" });
  await until("all of them", async () => {
    await box.evaluate((box) => box.scrollTo(0, box.scrollHeight));
    return page.getByText("450 profiles").isVisible();
  });
  // The last page may have made the list longer behind the scrolling.
  await until("the last line", async () => {
    await box.evaluate((box) => box.scrollTo(0, box.scrollHeight));
    return page.getByRole("link", { name: "many-449" }).isVisible();
  });
  assert.ok((await page.locator("tbody a").count()) < 80);
  await finish(page);
});
