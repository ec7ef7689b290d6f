// What each page is to tools: accessibility, width, size; and what it does without a server.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import {
  arm,
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
import { fill } from "./fill.js";
import { openSetUp, pages, PREPARED, ready } from "./pages.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const BUDGET = 120 * 1024;

forTests(fill);

/** Those of axe's rules whose verdict hangs on the colours. */
const OF_COLOURS = ["color-contrast", "link-in-text-block"];

/** What axe finds wrong, by these of its rules or by all. */
async function violations(page, rules) {
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(AXE);
  const found = await page.evaluate((values) => {
    const only = values ? { runOnly: { type: "rule", values } } : {};
    return window.axe.run(document, { resultTypes: ["violations"], ...only });
  }, rules);
  const where = ({ target, failureSummary }) => `${target}: ${failureSummary}`;
  return found.violations.map(
    ({ id, nodes }) => `${id} at ${nodes.slice(0, 3).map(where).join("; ")}`,
  );
}

/** How much wider than the window the page is. */
const overflow = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

for (const [name, [colorScheme, ...others], width] of [
  ["light and dark", ["light", "dark"], 1280],
  ["on a phone", ["dark"], 360],
]) {
  test(`each page is accessible and fits: ${name}`, async () => {
    const page = await signedIn(chromium, world, world.key, {
      colorScheme,
      viewport: { width, height: 800 },
    });
    await open(page, world, "/");
    await arm(page);
    const wrong = {};
    const look = async (which) => {
      await ready(page);
      const found = await violations(page);
      for (const other of others) {
        await page.emulateMedia({ colorScheme: other });
        found.push(...(await violations(page, OF_COLOURS)).map((one) => `${other}: ${one}`));
        await page.emulateMedia({ colorScheme });
      }
      const wider = await overflow(page);
      if (wider > 0) found.push(`${wider} px wider than the window`);
      if (found.length > 0) wrong[which] = found;
    };
    for (const [which, path] of Object.entries(pages(world))) {
      await open(page, world, path);
      await ready(page);
      await PREPARED[which]?.(page);
      await look(which);
    }
    await page.keyboard.press("?");
    await look("help");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("heading", { name: "Sign in with a key" }).waitFor();
    await look("sign in");
    await openSetUp(page, world);
    await page.getByRole("heading", { name: "The first administrator" }).waitFor();
    await look("set up");
    assert.deepEqual(wrong, {});
    await finish(page);
  });
}

test("on a phone it is told in one line who wrote the version of a profile", async () => {
  const viewport = { width: 360, height: 800 };
  const page = await signedIn(chromium, world, world.key, { viewport });
  await open(page, world, at("user-1"));
  const tall = (name) =>
    page
      .locator("dl > div", { has: page.locator("dt", { hasText: name }) })
      .locator("dd")
      .evaluate((one) => one.clientHeight);
  const line = await tall("Version");
  assert.ok(line > 0);
  assert.equal(await tall("Written"), line);
  await finish(page);
});

test("on a phone a button in a table is not broken between its letters", async () => {
  const viewport = { width: 360, height: 800 };
  const page = await signedIn(chromium, world, world.key, { viewport });
  // One version: no link beside the button makes the column wider.
  await open(page, world, at("user-12", "history"));
  await arm(page);
  const lines = await page.getByRole("button", { name: "pin version 1" }).evaluate((one) => {
    const text = document.createRange();
    text.selectNodeContents(one);
    return text.getClientRects().length;
  });
  assert.equal(lines, 1);
  await finish(page);
});

test("the chosen colours stay, and count more than those of the system", async () => {
  const page = await signedIn(chromium, world, world.key, { colorScheme: "light" });
  await open(page, world, "/");
  const back = () =>
    page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  await sees(page, "Find a profile");
  const light = await back();
  for (const choice of ["system", "light"])
    await page.getByRole("button", { name: `Colours: ${choice}` }).click();
  await page.getByRole("button", { name: "Colours: dark" }).waitFor();
  const dark = await back();
  assert.notEqual(dark, light);
  await page.reload();
  await sees(page, "Find a profile");
  assert.equal(await back(), dark);
  await finish(page);
});

test("the first view takes at most 120 KB, all of it from this server", async () => {
  const page = await signedIn(chromium, world);
  const client = await page.context().newCDPSession(page);
  let bytes = 0;
  client.on("Network.loadingFinished", ({ encodedDataLength }) => {
    bytes += encodedDataLength;
  });
  await client.send("Network.enable");
  await open(page, world, "/");
  await page.getByRole("link", { name: "user-1", exact: true }).waitFor();
  await page.waitForLoadState("networkidle");
  assert.ok(bytes > 10_000, "it is counted");
  assert.ok(bytes <= BUDGET, `${bytes} bytes`);
  // Once more: what has its contents in its name is not asked for again.
  const first = bytes;
  bytes = 0;
  await page.reload();
  await page.getByRole("link", { name: "user-1", exact: true }).waitFor();
  await page.waitForLoadState("networkidle");
  assert.ok(bytes < first / 4, `${bytes} bytes after ${first}`);
  console.log(`first view: ${first} bytes; again: ${bytes} bytes`);
  await finish(page);
});

test("a server that does not answer is told, and what was typed stays", async () => {
  const page = await signedIn(chromium, world);
  await open(page, world, at("user-1", "edit?at=/coins"));
  await arm(page);
  await page.getByLabel("Value; +500").fill("+5");
  await page.context().setOffline(true);
  await page.getByRole("button", { name: "Read again" }).click();
  await sees(page, "The server has not answered for");
  await page.context().setOffline(false);
  await page.getByRole("button", { name: "Read again" }).click();
  await page.getByText("The server has not answered for").waitFor({ state: "hidden" });
  assert.equal(await page.getByLabel("Value; +500").inputValue(), "+5");
  await finish(page);
});

test("that the server answers again is noticed without a click, and nothing moves", async () => {
  const page = await signedIn(chromium, world);
  await open(page, world, at("user-1"));
  await page.getByRole("treeitem").first().waitFor();
  const heading = page.getByRole("heading", { name: "user-1" });
  const place = () =>
    heading.evaluate((one) => Math.round(one.getBoundingClientRect().top + window.scrollY));
  const before = await place();
  let away = true;
  await page.route(/\/v1\/|healthz/, (route) => (away ? route.abort() : route.continue()));
  await page.keyboard.press("h");
  await sees(page, "The server has not answered for");
  assert.equal(await place(), before);
  assert.deepEqual(
    await page.locator("[role=status]", { hasText: "does not answer" }).allTextContents(),
    ["The server does not answer."],
    "the seconds are not told one by one",
  );
  away = false;
  await page.getByText("The server has not answered for").waitFor({ state: "hidden" });
  await page.getByRole("button", { name: "Try again" }).first().click();
  await page.locator("tr[data-version='5']").waitFor();
  await finish(page);
});

test("an answer that is an error of the server is shown with a way to try again", async () => {
  const page = await signedIn(chromium, world);
  let broken = true;
  await page.route("**/v1/servers", (route) =>
    broken ? route.fulfill({ status: 503, body: "<h1>from a proxy</h1>" }) : route.continue(),
  );
  await open(page, world, "/#/servers");
  await sees(page, "the server answered 503");
  broken = false;
  await page.getByRole("button", { name: "Try again" }).click();
  await page.getByRole("link", { name: "eu-3" }).waitFor();
  await finish(page);
});

test("a slow answer is waited for, and an older one never replaces a newer one", async () => {
  const page = await signedIn(chromium, world);
  const held = [];
  await page.route("**/profiles?*prefix=user-2*", (route) => held.push(route));
  await open(page, world, "/#/find?q=user-2");
  await sees(page, "looking");
  await page.locator("#find").fill("user-3");
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "user-3", exact: true }).waitFor();
  assert.equal(held.length, 1);
  // The search of before is called off, and an answer that comes all the same does not count.
  await held[0].continue().catch(() => {});
  await ready(page);
  assert.deepEqual(await page.locator("tbody a").allTextContents(), ["user-3", "user-30"]);
  await finish(page);
});

test("a table of 200,000 rows has few of them in the page, and each is reached", async () => {
  const [all, some] = [200_000, 10_000];
  const page = await signedIn(chromium, world);
  const row = (at) => ({
    store: "PlayerData",
    scope: "global",
    key: `s-${at}`,
    version: 1,
    stored_ms: 1_790_000_000_000,
    held: { job: "eu-1", server: "alive", since_ms: 1_790_000_000_000, asked_for_by: null },
  });
  await page.route("**/v1/sessions?*", (route) => {
    const { searchParams } = new URL(route.request().url());
    const from = Number(searchParams.get("page_token") ?? 0);
    const items = Array.from({ length: some }, (_, at) => row(from + at));
    const next_page_token = from + some < all ? String(from + some) : null;
    return route.fulfill({ json: { items, next_page_token } });
  });
  await open(page, world, "/#/sessions");
  const box = page.getByRole("region", { name: "Sessions" });
  await box.waitFor();
  const scroll = (share) =>
    box.evaluate((box, share) => box.scrollTo(0, box.scrollHeight * share), share);
  await until("all are listed", async () => {
    await scroll(1);
    return page.getByText("200,000 sessions").isVisible();
  });
  const rows = box.locator("tr[data-at]");
  for (const [share, at] of [
    [1, all - 1],
    [0.5, all / 2],
    [0, 0],
  ]) {
    await until(`row ${at} is there`, async () => {
      await scroll(share);
      return box.getByRole("link", { name: `s-${at}`, exact: true }).isVisible();
    });
    const index = await box.locator(`tr[data-at="${at}"]`).getAttribute("aria-rowindex");
    assert.equal(index, `${at + 2}`);
    assert.ok((await rows.count()) < 80, `${await rows.count()} rows are in the page`);
  }
  await finish(page);
});

test("sessions of a game server that stand further on are looked for", async () => {
  const page = await signedIn(chromium, world);
  const row = (key, job) => ({
    store: "PlayerData",
    scope: "global",
    key,
    version: 1,
    stored_ms: 1_790_000_000_000,
    held: { job, server: "alive", since_ms: 1_790_000_000_000, asked_for_by: null },
  });
  await page.route("**/v1/sessions?*", (route) =>
    route.fulfill({
      json: route.request().url().includes("page_token=")
        ? { items: [row("s-2", "us-7")], next_page_token: null }
        : { items: [row("s-1", "eu-1")], next_page_token: "next" },
    }),
  );
  await open(page, world, "/#/sessions?job=us-7");
  await sees(page, "0 sessions so far");
  await sees(page, "1 looked at.");
  await page.getByRole("button", { name: "Look at more sessions" }).click();
  await page.getByRole("link", { name: "s-2", exact: true }).waitFor();
  await sees(page, "1 session");
  await finish(page);
});

test("the page Find says what each filter means", async () => {
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/find");
  await page.getByText("What the filters mean").click();
  await sees(page, "messages wait for it");
  const told = await page.locator("details dt").allInnerTexts();
  for (const filter of told)
    await page.getByRole("button", { name: filter, exact: true }).waitFor();
  assert.equal(told.length, 5);
  await finish(page);
});

test("a page without a server says what to check, and begins when it is there", async () => {
  const page = await newPage(chromium, world);
  let away = true;
  await page.route("**/v1/**", (route) => (away ? route.abort() : route.continue()));
  await open(page, world, "/");
  await page.getByRole("heading", { name: "The server does not answer" }).waitFor();
  away = false;
  await page.getByRole("button", { name: "Try again" }).click();
  await page.getByRole("heading", { name: "Sign in with a key" }).waitFor();
  await finish(page);
});
