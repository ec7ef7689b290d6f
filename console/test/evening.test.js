// An operator's evening: six tasks in the browser, with clicks and typed characters counted, and
// the same six by the program's commands. Prints a table; docs/benchmarks.md has the same counts.
// `npm run evening`
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import {
  assert,
  chromium,
  folder,
  forTests,
  open,
  program,
  sees,
  signedIn,
  test,
  until,
  uuid7,
  world,
} from "./world.js";
import { edit } from "./fill.js";

const run = promisify(execFile);
const items = (...names) => Object.fromEntries(names.map((name) => [name, { power: 7 }]));

/** What an operator's hands do. */
class Hands {
  clicks = 0;
  typed = 0;
  constructor(page) {
    this.page = page;
  }
  async click(locator) {
    this.clicks++;
    await locator.click();
  }
  async type(locator, text) {
    await this.click(locator);
    this.typed += text.length;
    await locator.fill(text);
  }
  async press(...keys) {
    for (const key of keys) {
      this.typed++;
      await this.page.keyboard.press(key);
    }
  }
  button(name) {
    return this.page.getByRole("button", { name, exact: true });
  }
  link(name) {
    return this.page.getByRole("link", { name, exact: true });
  }
}

/** A player whose items went, in a crowd. */
async function lose(world, key) {
  await world.put(key, { coins: 900, items: items("sword", "shield"), level: 12 });
  await edit(world, key, [{ op: "increase", path: "/coins", by: 50 }], "the shop");
  await edit(world, key, [{ op: "set", path: "/items", value: {} }], "a bad script");
  await edit(world, key, [{ op: "increase", path: "/level", by: 1 }], "a quest");
}

/** A bulk edit that somebody regrets. */
async function regret(world, prefix) {
  const operation = uuid7();
  const body = {
    store: "PlayerData",
    prefix,
    operations: [{ op: "increase", path: "/coins", by: -10 }],
    reason: "coins from a bug",
  };
  await world.ask("POST", "/v1/edits", body, { "Idempotency-Key": operation });
  await until("it is done", async () => {
    return (await world.ask("GET", `/v1/edits/${operation}`)).body.state === "done";
  });
  return operation;
}

/** What each task took, as rows of the table. */
const rows = [];
let operations, page, hands;

forTests(async (world) => {
  world.import(Array.from({ length: 2000 }, (_, at) => [`crowd-${at}`, { coins: at }]));
  for (const key of ["hero-1", "hero-2"]) await lose(world, key);
  await world.play("eu-1", ["hero-1", "hero-2"]);
  await world.play("eu-7", ["stuck-1", "stuck-2"]);
  operations = [await regret(world, "crowd-1"), await regret(world, "crowd-2")];
  page = await signedIn(chromium, world);
  hands = new Hands(page);
  await open(page, world, "/");
  await page.getByRole("link", { name: "crowd-0", exact: true }).waitFor();
});

const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word}'`);
const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;

/** A task in the browser, and the commands that do the same. */
function task(name, work, commandsOf) {
  test(name, async () => {
    [hands.clicks, hands.typed] = [0, 0];
    const began = performance.now();
    await work();
    const took = performance.now() - began;
    const commands = commandsOf();
    const from = performance.now();
    for (const command of commands) await run(program, ["--store", world.store, ...command]);
    const theirs = performance.now() - from;
    const length = commands
      .map((command) => ["profilestore", ...command].map(quoted).join(" ").length)
      .reduce((sum, one) => sum + one, 0);
    const counted = [name, hands.clicks, hands.typed, seconds(took)];
    rows.push([...counted, commands.length, length, seconds(theirs)]);
  });
}

task(
  "find the player who lost items",
  async () => {
    const where = "/items = {} and /level > 10";
    await hands.type(page.getByLabel("What is saved in it"), where);
    await hands.press("Enter");
    await sees(page, "all were looked at");
    await hands.click(hands.link("hero-1"));
    await page.getByRole("treeitem").first().waitFor();
  },
  () => [
    ["list", "--store-name", "PlayerData", "--where", "/items = {} and /level > 10"],
    ["get", "PlayerData/hero-2"],
  ],
);

task(
  "see what happened",
  async () => {
    await hands.press("h");
    const row = page.locator("tr[data-version]", { hasText: "a bad script" });
    await hands.click(row.getByRole("link", { name: "what changed" }));
    await page.locator("tr[data-path='/Data/items/sword']").waitFor();
  },
  () => [
    ["history", "PlayerData/hero-2"],
    ["audit", "--key", "PlayerData/hero-2"],
    ["diff", "PlayerData/hero-2", "2", "3"],
  ],
);

task(
  "preview, and put one place back while the player plays",
  async () => {
    const row = page.locator("tr[data-path='/Data/items/sword']");
    await hands.click(row.getByRole("link", { name: "put back" }));
    await hands.click(hands.button("Switch changes on for 15 min"));
    await hands.type(page.getByLabel("Reason"), "ticket 4711");
    await hands.click(page.getByRole("button", { name: /^Put \d places? back$/ }));
    await sees(page, "Done.");
  },
  () => [
    ["diff", "PlayerData/hero-2", "2", "--path", "/items"],
    ["edit", "PlayerData/hero-2", "--set", '/items/sword={"power":7}', "--dry-run"],
    [
      ...["edit", "PlayerData/hero-2", "--set", '/items/sword={"power":7}'],
      ...["--reason", "ticket 4711"],
    ],
  ],
);

task(
  "send a gift",
  async () => {
    await hands.click(hands.link("Messages"));
    await hands.type(page.getByLabel("Reason"), "ticket 4711");
    await hands.click(hands.button("Send"));
    await sees(page, "The game has processed it.");
  },
  () => [
    [
      ...["send", "PlayerData/hero-2", '{"type":"gift","coins":500}'],
      ...["--reason", "ticket 4711"],
    ],
    ["messages", "PlayerData/hero-2"],
  ],
);

task(
  "free a lock",
  async () => {
    await hands.press("/");
    await page.locator("#find").waitFor();
    await until("the box has the focus", () =>
      page.locator("#find").evaluate((box) => box === document.activeElement),
    );
    hands.typed += "stuck-1".length;
    await page.keyboard.type("stuck-1");
    await hands.press("Enter");
    await hands.click(hands.link("stuck-1"));
    await hands.click(hands.link("Holder"));
    await hands.type(page.getByLabel("Reason"), "ticket 4712");
    await hands.click(hands.button("Ask eu-7 to let go"));
    await sees(page, "Nobody plays this profile");
  },
  () => [
    ["get", "PlayerData/stuck-2"],
    ["end-session", "PlayerData/stuck-2", "--reason", "ticket 4712"],
  ],
);

task(
  "undo an edit of 1,111 profiles",
  async () => {
    await hands.press("g", "b");
    const row = page.locator(`tr[data-operation='${operations[0]}']`);
    await hands.click(row.getByRole("link").first());
    await hands.click(hands.button("Undo …"));
    const sheet = page.getByRole("dialog");
    await hands.type(sheet.getByLabel("Reason"), "it was no bug");
    await hands.click(sheet.getByRole("button", { name: "Undo it" }));
    await page.getByRole("heading", { name: "Undo of an edit" }).waitFor();
    await page.locator("[data-state=done]").waitFor();
  },
  () => [
    ["audit", "--limit", "5"],
    ["edit", "--undo", operations[1], "--yes", "--reason", "it was no bug"],
  ],
);

/** The rows of the table in the documentation. */
function documented() {
  const text = readFileSync(join(folder, "../../docs/benchmarks.md"), "utf8");
  const [, table] = text.split("| task | clicks |");
  const lines = table.split("\n").slice(2);
  const rows = lines.slice(0, lines.indexOf(""));
  return rows.map((row) => row.split("|").slice(1, -1).map((cell) => cell.trim()));
}

test("the documentation says how many clicks and characters each task takes", () => {
  const head = ["task", "clicks", "characters", "until it is done"];
  const line = (cells) => `| ${cells.join(" | ")} |`;
  console.log(line([...head, "commands", "their characters", "their time"]));
  console.log("| --- | --- | --- | --- | --- | --- | --- |");
  for (const row of rows) console.log(line(row));
  // Times depend on the machine; what is counted does not.
  const counts = (all) => all.map((row) => [0, 1, 2, 4, 5].map((at) => String(row[at])));
  assert.deepEqual(counts(rows), counts(documented()));
});
