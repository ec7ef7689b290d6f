// Everything without a mouse.
import {
  armed,
  assert,
  at,
  chromium,
  finish,
  forTests,
  newPage,
  open,
  sees,
  signedIn,
  test,
  until,
  world,
} from "./world.js";
import { edit } from "./fill.js";

forTests();

/** The name of what has the focus, as a screen reader would say it. */
const focused = (page) =>
  page.evaluate(() => {
    const one = document.activeElement;
    return (
      one?.getAttribute("aria-label") ?? one?.labels?.[0]?.innerText ?? one?.textContent?.trim()
    );
  });

/** Tab, until what has the focus is called so. */
async function tabTo(page, name) {
  for (let left = 60; left > 0; left--) {
    await page.keyboard.press("Tab");
    if ((await focused(page))?.startsWith(name)) return;
  }
  throw new Error(`Tab does not lead to "${name}"`);
}

test("an operator signs in, finds, changes and undoes with nothing but the keyboard", async () => {
  await world.put("keys-1", { coins: 1 });
  await world.put("keys-2", { coins: 2, items: [{ id: "a" }] });
  const page = await newPage(chromium, world);
  await open(page, world, "/");
  await page.getByLabel("Key of the API").waitFor();
  await tabTo(page, "Key of the API");
  await page.keyboard.type(world.key);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Find a profile" }).waitFor();

  await page.keyboard.press("/");
  await until("the search has the focus", async () =>
    (await focused(page))?.startsWith("Key, its beginning"),
  );
  await page.keyboard.type("keys-");
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "keys-2" }).waitFor();
  await tabTo(page, "Profiles");
  for (const key of ["j", "j", "k", "j"]) await page.keyboard.press(key);
  assert.equal(await focused(page), "keys-2");
  await page.keyboard.press("Enter");

  // The tree: to an item, then to its edit.
  await page.getByRole("treeitem").first().waitFor();
  await tabTo(page, "coins");
  await page.keyboard.press("ArrowDown");
  await until("the list has the focus", async () => (await focused(page))?.includes("items"));
  await page.keyboard.press("ArrowLeft");
  await page.getByRole("treeitem", { name: "items", expanded: false }).waitFor();
  await page.keyboard.press("k");
  await until("the coins have the focus", async () => (await focused(page))?.startsWith("coins"));
  await page.keyboard.press("e");
  await sees(page, "You are only reading");
  await tabTo(page, "Switch changes on");
  await page.keyboard.press("Enter");
  await tabTo(page, "Value; +500");
  await page.keyboard.type("+40");
  await tabTo(page, "Reason");
  await page.keyboard.type("ticket 1");
  await tabTo(page, "Change the profile");
  await page.keyboard.press("Enter");
  await sees(page, "It is version 2");
  await tabTo(page, "Undo");
  await page.keyboard.press("Space");
  await sees(page, "Taken back.");
  assert.deepEqual((await world.read("keys-2")).data, { coins: 2, items: [{ id: "a" }] });
  await finish(page);
});

test("keys lead to each page, and a sheet says which", async () => {
  await world.put("sheet", { coins: 1 });
  await edit(world, "sheet", [{ op: "set", path: "/coins", value: 2 }]);
  const page = await signedIn(chromium, world);
  await open(page, world, at("sheet"));
  await page.getByRole("treeitem").first().waitFor();
  const press = async (keys, heading) => {
    for (const key of keys) await page.keyboard.press(key);
    await page.getByRole("heading", { name: heading, exact: true }).waitFor();
  };
  await page.keyboard.press("h");
  await page.locator("tr[data-version='2']").waitFor();
  await page.keyboard.press("t");
  await page.getByRole("treeitem").first().waitFor();
  await press("gs", "Sessions");
  await press("gv", "Game servers");
  await press("ga", "Audit log");
  await press("go", "Overview");
  await press("gb", "Edits of many profiles");
  await press("gt", "As it was at a time");
  await press("gu", "What is stored of a user");
  await press("gh", "Health");
  await press("gm", "Access");
  await press("gf", "Find a profile");
  await press("gp", "sheet");
  await press("?", "Keys");
  assert.equal(await focused(page), "Close");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  // Letters that are typed into a field are letters.
  await page.keyboard.press("Control+k");
  await until("the search has the focus", async () =>
    (await focused(page))?.startsWith("Key, its beginning"),
  );
  await page.keyboard.type("gs?");
  assert.equal(await page.locator("#find").inputValue(), "gs?");
  await page.getByRole("heading", { name: "Find a profile" }).waitFor();
  await finish(page);
});

test("a key that is pressed once too often takes nothing away", async () => {
  await world.play("eu-1", ["firm"]);
  const page = await armed(at("firm", "holder"));
  const take = page.getByRole("button", { name: "Take it away …" });
  await take.focus();
  await page.keyboard.press("Enter");
  const sheet = page.getByRole("dialog");
  await sheet.waitFor();
  assert.equal(await focused(page), "Leave it");
  // A screen reader says what the dialog says, since the focus is behind it.
  const told = await sheet.evaluate((dialog) =>
    ["aria-labelledby", "aria-describedby"].map((name) =>
      document.getElementById(dialog.getAttribute(name)).textContent.trim(),
    ),
  );
  assert.equal(told[0], "Take firm away from eu-1?");
  assert.match(told[1], /What it has not saved is lost/);
  await page.keyboard.press("Enter");
  await sheet.waitFor({ state: "hidden" });
  await until("the focus is back", async () => (await focused(page)) === "Take it away …");
  assert.equal((await world.read("firm")).held?.job, "eu-1");
  await finish(page);
});

test("without the browser's clipboard the focus stays, and a failure is told", async () => {
  await world.put("copied", { coins: 1 });
  const page = await signedIn(chromium, world);
  await page.addInitScript(() => {
    Object.defineProperty(navigator, "clipboard", { value: undefined });
    document.addEventListener("copy", () => (window.copied = document.activeElement.value));
  });
  await open(page, world, at("copied"));
  const name = "Copy the profile's name";
  const button = page.getByRole("button", { name });
  await button.press("Enter");
  await page.getByText("Copied", { exact: true }).waitFor({ state: "attached" });
  assert.equal(await page.evaluate(() => window.copied), "PlayerData/copied");
  assert.equal(await focused(page), name);
  await page.evaluate(() => (document.execCommand = () => false));
  await button.press("Enter");
  await sees(page, "not copied: mark it by hand");
  assert.equal(await focused(page), name);
  await finish(page);
});

test("what is wrong with a field is said where the field is", async () => {
  await world.put("typed", { coins: 1 });
  const page = await armed(at("typed", "edit?at=/coins"));
  const field = page.getByLabel("Value; +500");
  const described = (one) =>
    one.evaluate((field) => {
      const told = document.getElementById(field.getAttribute("aria-describedby"));
      return [field.getAttribute("aria-invalid"), told.textContent.trim()];
    });
  assert.deepEqual(await described(field), ["false", "No change yet."]);
  await field.fill("many");
  assert.deepEqual(await described(field), ["true", "this is no number"]);
  await open(page, world, at("typed", "send"));
  const message = page.getByLabel("The message, as");
  assert.deepEqual(await described(message), ["false", ""]);
  await message.fill("{");
  assert.deepEqual(await described(message), ["true", "this is no JSON: line 1, column 2"]);
  await finish(page);
});

test("where one is on the keyboard is told by the name of the page", async () => {
  await world.put("named", { coins: 1 });
  const page = await signedIn(chromium, world);
  await open(page, world, at("named"));
  await page.getByRole("treeitem").first().waitFor();
  for (const [keys, name] of [
    ["gs", "Sessions"],
    ["gp", "named"],
    ["ga", "Audit"],
  ]) {
    for (const key of keys) await page.keyboard.press(key);
    await until(`${name} has the focus`, async () => (await focused(page)) === name);
    assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  }
  await finish(page);
});

test("times are in UTC for those who ask for it, without a mouse", async () => {
  await world.put("timed", { coins: 1 });
  const utc = new Date((await world.read("timed")).stored_ms).toISOString().replace(/\.\d+/, "");
  const page = await signedIn(chromium, world);
  await open(page, world, at("timed", "history"));
  const time = page.locator("tr[data-version='1'] time");
  await time.waitFor();
  assert.notEqual(await time.innerText(), utc);
  await page.keyboard.press("z");
  await until("the history is in UTC", async () => (await time.innerText()) === utc);
  assert.equal(await page.locator("dd time").first().innerText(), utc, "so is the header");
  await page.reload();
  await time.waitFor();
  assert.equal(await time.innerText(), utc, "the choice stays");
  await page.keyboard.press("?");
  await page.getByRole("button", { name: "Times in UTC", pressed: true }).press("Enter");
  await page.keyboard.press("Escape");
  await until("it is local again", async () => (await time.innerText()) !== utc);
  await finish(page);
});

test("what has the focus is never behind the head of its table", async () => {
  for (let at = 10; at < 50; at++) await world.put(`focus-${at}`, {});
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/find?q=focus-");
  await sees(page, "40 profiles");
  const isSeen = () =>
    page.evaluate(() => {
      const one = document.activeElement;
      const { left, top, height } = one.getBoundingClientRect();
      return one.contains(document.elementFromPoint(left + 3, top + height / 2));
    });
  await page.getByRole("link", { name: "focus-10" }).focus();
  const hidden = [];
  for (const key of [..."j".repeat(35), ..."k".repeat(35)]) {
    await page.keyboard.press(key);
    if (!(await isSeen())) hidden.push(await focused(page));
  }
  assert.equal(await focused(page), "focus-10");
  assert.deepEqual(hidden, []);
  await finish(page);
});

test("the first stop of the keyboard leads past the menu", async () => {
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/audit");
  await page.getByRole("heading", { name: "Audit log" }).waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await focused(page), "To the page");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await finish(page);
});
