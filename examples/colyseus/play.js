/**
 * Plays the game in a real browser, kills an island on the way, and counts every coin and sword.
 *
 *   PROFILESTORE_BIN=…/profilestore node play.js [--hops 1000] [--picture FILE]
 */
import assert from "node:assert/strict";
import { fork, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { Http } from "profilestore";
import { WebSocket } from "ws";
import { PRICE } from "./shop.js";
import { startGame } from "./start.js";

const { values } = parseArgs({
  options: { hops: { type: "string", default: "1000" }, picture: { type: "string" } },
});
const USERS = ["ann", "bob", "cid", "dot"];
const HOPS = Math.ceil(Number(values.hops) / USERS.length);
const { PROFILESTORE_BIN } = process.env;
if (PROFILESTORE_BIN === undefined) {
  throw new Error("PROFILESTORE_BIN names the program `profilestore`");
}
const program = resolve(PROFILESTORE_BIN);

/** The server of profiles, on a store of its own. */
async function serve(folder) {
  const child = spawn(program, ["serve", "--listen", "127.0.0.1:0", "--json"], {
    cwd: folder,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const { value: line } = await createInterface({ input: child.stdout })
    [Symbol.asyncIterator]()
    .next();
  return { child, ...JSON.parse(line) };
}


async function mine(page) {
  await page.click("#mine");
  await page.getByText("10 coins, stored").waitFor();
  await page.evaluate(() => (document.querySelector("#says").textContent = ""));
}

/** Buttons, as a person presses them. */
async function press([ann, bob], picture) {
  for (let left = 6; left > 0; left--) await mine(ann);
  await ann.click("#buy");
  await ann.getByRole("cell", { name: "ann-1" }).waitFor();
  for (let left = 2; left > 0; left--) await mine(bob);
  await ann.click("tr:has(td:text-is('bob')) button");
  await ann.getByText("sold to bob").waitFor();
  await bob.waitForFunction(() => document.body.innerText.includes("ann-1"));
  if (picture !== undefined) await ann.screenshot({ path: picture });
  await bob.click("#hop");
  await bob.waitForFunction(() => document.querySelector("#island").textContent === "south");
  await bob.getByRole("cell", { name: "ann-1" }).waitFor();
}

/** Runs in the page: mines, buys, sells and sails. */
async function sail({ hops, others }) {
  const book = { mined: 0, asked: 0, swords: [], sold: 0, refused: 0, hops: 0 };
  const asked = async (what, to, stored) => {
    try {
      stored(await window.game.act(what, to));
    } catch {
      book.refused += 1;
    }
  };
  for (let at = 0; at < hops; at++) {
    book.asked += 1;
    await asked("mine", undefined, () => (book.mined += 1));
    if (at % 3 === 2) await asked("buy", undefined, (sword) => book.swords.push(sword));
    await asked("sell", others[at % others.length], () => (book.sold += 1));
    await window.game.hop();
    book.hops += 1;
    window.hops = book.hops;
  }
  return book;
}

/** The game without Colyseus: one player plays in one process, then in the other. */
async function playPlain(env) {
  const islands = ["east", "west"].map((ISLAND, at) =>
    fork(fileURLToPath(new URL("plain.js", import.meta.url)), {
      env: { ...process.env, ...env, ISLAND, PORT: 2569 + at },
    }),
  );
  await Promise.all(islands.map((island) => once(island, "message")));
  let id = 0;
  for (let hop = 0; hop < 6; hop++) {
    const socket = new WebSocket(`ws://127.0.0.1:${2569 + (hop % 2)}/?user=eve`);
    const hear = async () => JSON.parse((await once(socket, "message"))[0]);
    assert.equal((await hear()).data.mined, hop, "the data came along");
    socket.send(JSON.stringify({ id: ++id, what: "mine" }));
    assert.equal((await hear()).data.mined, hop + 1);
    socket.close();
  }
  const exits = islands.map((island) => once(island, "exit"));
  islands.forEach((island) => island.kill("SIGTERM"));
  await Promise.all(exits);
}

async function audit(http, books) {
  const stored = await Promise.all(
    USERS.map(async (key) => (await http.get({ store: "Islanders", key })).data),
  );
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  const swords = stored.flatMap((player) => player.swords);
  assert.equal(new Set(swords).size, swords.length, "each sword is in one place");
  assert.equal(swords.length, sum(stored.map((player) => player.bought)), "no sword is gone");
  const [coins, mined] = ["coins", "mined"].map((name) => sum(stored.map((one) => one[name])));
  assert.equal(coins, 10 * mined - PRICE * swords.length, "no coin is gone or was made");
  books.forEach((book, at) => {
    const { mined } = stored[at];
    assert.ok(book.mined <= mined && mined <= book.asked, `${USERS[at]}: what was stored is there`);
    for (const sword of book.swords) assert.ok(swords.includes(sword), `${sword} is there`);
  });
  return { coins, swords: swords.length };
}

const folder = mkdtempSync(join(tmpdir(), "islands-"));
const { child, url, key } = await serve(folder);
const env = { PROFILESTORE_URL: url.replace("http", "ws"), PROFILESTORE_KEY: key };
const game = await startGame(env);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});
try {
  const pages = await Promise.all(
    USERS.map(async (user) => {
      const page = await browser.newPage({ viewport: { width: 720, height: 480 } });
      page.on("pageerror", (error) => console.error(`${user}: ${error}`));
      page.setDefaultTimeout(0);
      await page.goto(`${game.url}?user=${user}`, { waitUntil: "commit" });
      await page.waitForFunction(() => window.game !== undefined);
      return page;
    }),
  );
  await press(pages, values.picture);
  const began = Date.now();
  const sailing = pages.map((page, at) =>
    page.evaluate(sail, { hops: HOPS, others: USERS.filter((_, other) => other !== at) }),
  );
  await pages[0].waitForFunction((half) => window.hops >= half, Math.ceil(HOPS / 2));
  game.kill("north");
  const books = await Promise.all(sailing);
  const seconds = (Date.now() - began) / 1000;
  // What the buttons did before.
  [6, 2].forEach((mined, at) => {
    books[at].mined += mined;
    books[at].asked += mined;
  });
  await browser.close();
  await game.stop();
  await playPlain(env);
  const { coins, swords } = await audit(new Http(url, key), books);
  const sum = (name) => books.reduce((total, book) => total + book[name], 0);
  console.log(
    `hops: ${sum("hops")} in ${seconds.toFixed(1)} s, one island killed on the way; ` +
      `sales: ${sum("sold")}; refused or cut off: ${sum("refused")}; ` +
      `coins: ${coins}, swords: ${swords}, all accounted for`,
  );
} finally {
  await browser.close();
  await game.stop();
  child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
}
