// The real server on a store of its own, a real game server that plays, and a browser.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium as launcher } from "playwright-core";
import { connect } from "../../sdk/typescript/dist/index.js";
import { proxy } from "./proxy.js";

/** Each file of tests needs them. */
export { assert, test };

const here = dirname(fileURLToPath(import.meta.url));
export const program = process.env.PROFILESTORE_BIN;
if (!program)
  throw new Error("PROFILESTORE_BIN names the program `profilestore`, built with `serve`");

/** A PostgreSQL server, as its owner. Without it each world has a SQLite file. */
const POSTGRES = process.env.PROFILESTORE_TEST_STORE;

/** The password of everyone here. */
export const PASSWORD = "correct horse battery";

/** A version 7 UUID. */
export function uuid7() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Where a profile is in the API. */
export const profilePath = (key, store = "PlayerData") =>
  `/v1/stores/${store}/profiles/${encodeURIComponent(key)}`;

/** A server process, the page's address, an administrator's key. */
export class World {
  folder = mkdtempSync(join(tmpdir(), "profilestore-console-"));
  games = [];

  static async start() {
    const world = new World();
    world.store = POSTGRES
      ? `${POSTGRES}?schema=console_${randomBytes(6).toString("hex")}`
      : `sqlite:${join(world.folder, "profiles.db")}`;
    if (POSTGRES) world.run("migrate");
    const listen = ["--listen", "127.0.0.1:0", "--json"];
    world.child = spawn(program, ["--store", world.store, "serve", ...listen], {
      cwd: world.folder,
      stdio: ["ignore", "pipe", process.env.SHOW ? "inherit" : "ignore"],
    });
    for await (const line of createInterface({ input: world.child.stdout })) {
      const told = JSON.parse(line);
      world.api = told.url;
      world.key = told.key;
      world.setUp = told.set_up;
      break;
    }
    // The page as it was just built, in front of an older program. The gate tests what is embedded.
    world.front = process.env.PROFILESTORE_CONSOLE === "dist" ? await proxy(world.api) : undefined;
    world.url = world.front?.url ?? world.api;
    world.setUp = world.setUp.replace(world.api, world.url);
    return world;
  }

  /** A command of the program on the store. */
  run(...words) {
    const how = { cwd: this.folder, stdio: "pipe" };
    return execFileSync(program, ["--store", this.store, ...words], how).toString();
  }

  /** Asks the API with the administrator's key, or another. */
  async ask(method, path, body, headers = {}, key = this.key) {
    const answer = await fetch(this.api + path, {
      method,
      headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json", ...headers },
      body: body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body),
    });
    const text = await answer.text();
    return { status: answer.status, text, headers: answer.headers, body: text && JSON.parse(text) };
  }

  /** Profiles with users, which HTTP has no way to name: `[key, data, users]` each. The lines may
   * be changed before they are read. */
  import(profiles, changed = (line) => line) {
    const at = 1_790_000_000_000;
    const lines = profiles.map(([key, data, users = []]) =>
      JSON.stringify({
        store: "PlayerData",
        scope: "global",
        key,
        n: 1,
        version: "1",
        created_ms: at,
        updated_ms: at,
        user_ids: users,
        metadata: {},
        value: {
          Data: data,
          MetaData: { SessionLoadCount: 1, MetaTags: {} },
          GlobalUpdates: [0, []],
        },
      }),
    );
    const file = join(this.folder, "import.jsonl");
    writeFileSync(file, lines.map(changed).join("\n") + "\n");
    this.run("import", file);
  }

  put(key, data) {
    const text = typeof data === "string" ? data : JSON.stringify(data);
    return this.ask("PUT", profilePath(key), `{"data":${text}}`, { "If-None-Match": "*" });
  }

  async read(key) {
    const { body, text } = await this.ask("GET", profilePath(key));
    return { ...body, text };
  }

  /** Sends a message, a gift of coins if nothing else is said. */
  async send(key, message = { type: "gift", coins: 500 }, store = "PlayerData") {
    const headers = { "Idempotency-Key": uuid7() };
    const path = `${profilePath(key, store)}/messages`;
    const answer = await this.ask("POST", path, { message }, headers);
    if (answer.status !== 201) throw new Error(answer.text);
  }

  /** A member who can log in. */
  async newMember(name, role, stores = null) {
    const { status, text } = await this.ask("POST", "/v1/members", {
      name,
      role,
      stores,
      password: PASSWORD,
    });
    if (status !== 201) throw new Error(text);
  }

  async newKey(name, scopes) {
    const { body } = await this.ask("POST", "/v1/keys", { name, scopes });
    return body.key;
  }

  /** A game server that plays some profiles. Gifts are coins. */
  async play(job, keys, options = {}, how = {}, store = "PlayerData") {
    const url = this.api.replace(/^http/, "ws");
    const server = await connect(url, { key: this.key, job, connectMs: 60_000 });
    this.games.push(server);
    const players = server.store(store, {
      template: { coins: 0, items: [] },
      reconcile: true,
      ...options,
    });
    const profiles = [];
    for (const key of keys) {
      const profile = await players.start(key, how);
      profile.onMessage("gift", (data, gift) => {
        data.coins += gift.coins;
      });
      profiles.push(profile);
    }
    return profiles;
  }

  async stop() {
    for (const server of this.games) await server.close().catch(() => {});
    this.front?.close();
    const exit = once(this.child, "exit");
    this.child.kill("SIGKILL");
    await exit;
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The server and the browser of all tests of a file. */
export let world, chromium;

/** Starts both before the first test of a file, and ends them after the last. */
export function forTests(fill = () => {}) {
  before(async () => {
    [world, chromium] = await Promise.all([World.start(), browser()]);
    await fill(world);
  });
  after(async () => {
    await chromium?.close();
    await world?.stop();
  });
}

/** A page of the tests that may change things: with the administrator's key, or of a member. */
export async function armed(path, as) {
  const page = as ? await loggedIn(chromium, world, as) : await signedIn(chromium, world);
  await open(page, world, path);
  await arm(page);
  return page;
}

/** Debian's browser, or another that CHROMIUM names. */
export function browser() {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  if (!existsSync(executablePath)) throw new Error(`there is no browser: ${executablePath}`);
  return launcher.launch({
    executablePath,
    args: ["--no-sandbox", "--headless", "--disable-background-networking", "--disable-gpu"],
  });
}

/** A page in a browser of its own. What it complains about, and whom else it asks, is kept. */
export async function newPage(browser, world, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("console", (message) => {
    if (/Content Security Policy|Refused to/.test(message.text()))
      page.complaints.push(message.text());
  });
  page.on("request", (request) => {
    const own = request.url().startsWith(world.url) || /^(blob|data):/.test(request.url());
    if (!own) page.complaints.push(`a request to ${request.url()}`);
  });
  return page;
}

/** A page with a key, as that of one who has signed in with it. */
export async function signedIn(browser, world, key = world.key, options = {}) {
  const page = await newPage(browser, world, options);
  await page.addInitScript((key) => {
    if (!sessionStorage.getItem("visited")) sessionStorage.setItem("key", key);
    sessionStorage.setItem("visited", "yes");
  }, key);
  return page;
}

/** A page of a member, who logs in by typing. */
export async function loggedIn(browser, world, name) {
  const page = await newPage(browser, world);
  await page.goto(`${world.url}/`);
  await logIn(page, name);
  await page.getByRole("heading", { name: "Find a profile" }).waitFor();
  return page;
}

/** Types name and password. */
export async function logIn(page, name, password = PASSWORD) {
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
}

/** Opens a place of the console; a page that has it open goes there as by a link. */
export async function open(page, world, path) {
  await page.goto(world.url + path);
}

/** Switches changes on. */
export async function arm(page) {
  await page.getByRole("switch", { name: "Read-only" }).click();
  await page.getByRole("switch", { name: "Changes on" }).waitFor();
}

/** Waits until the page has this text. */
export const sees = (page, text) => page.getByText(text).first().waitFor();

/** The texts of a table's rows, cell by cell. */
export const cells = (rows) =>
  rows.evaluateAll((all) => all.map((row) => [...row.cells].map((cell) => cell.innerText.trim())));

/** Nothing went wrong unseen, and nobody else was asked. Ends the page. */
export async function finish(page) {
  assert.deepEqual(page.complaints, []);
  await page.context().close();
}

/** Asks until it is so, again and again after so long. */
export async function until(what, is, withinMs = 60_000, everyMs = 50) {
  for (const end = Date.now() + withinMs; Date.now() < end;) {
    if (await is()) return;
    await new Promise((done) => setTimeout(done, everyMs));
  }
  throw new Error(`it never was so: ${what}`);
}

/** Where a profile is in the console. */
export const at = (key, tab = "") =>
  `/#/p/PlayerData/global/${encodeURIComponent(key)}${tab && `/${tab}`}`;

export const folder = here;
