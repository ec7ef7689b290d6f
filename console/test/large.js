// A search by value over many profiles in the browser: how long, whether it says how far it is and
// can be called off, and what it costs play beside it. `npm run large -- 200000`, with a release
// build of the program.
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { Playing } from "./playing.js";
import { browser, open, program, sees, signedIn, until, World } from "./world.js";

const many = Number(process.argv[2] ?? 200_000);
/** How many players play meanwhile, and for how long each measurement lasts at least. */
const [PLAYERS, SECONDS] = [50, 10];
/** What takes longer has failed: a slow machine looks at 1,000 profiles in 5 s beside play. */
const LIMIT_MS = 60_000 + 5 * many;
/** How often this script looks at the page. 20 times a second, the looks alone take 13 % of a core
 * in the browser and here, and no operator costs that. A search tells something new once a second. */
const LOOK_MS = 500;
/** Fewer are looked at so soon that nothing is left to be called off: then answers are held up. */
const SOON = 20_000;

/** About 1.5 KB of JSON each, as in scripts/large.sh. */
async function written(file) {
  const out = createWriteStream(file);
  let seed = 1;
  const chance = () => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647;
  const at = 1_790_000_000_000;
  for (let p = 1; p <= many; p++) {
    const items = Array.from({ length: 40 }, () => ({
      id: Math.floor(chance() * 1e9),
      count: Math.floor(chance() * 99),
    }));
    const line = JSON.stringify({
      store: "PlayerData",
      scope: "global",
      key: `user-${p}`,
      n: 1,
      version: `${p}-1`,
      created_ms: at,
      updated_ms: at,
      user_ids: [p],
      metadata: {},
      value: {
        Data: { coins: p, items },
        MetaData: { SessionLoadCount: 1, MetaTags: {} },
        GlobalUpdates: [0, []],
      },
    });
    if (!out.write(`${line}\n`)) await once(out, "drain");
  }
  out.end();
  await once(out, "finish");
}

/** Saves a second, until `end` says so. */
async function speed(end) {
  const [from, began] = [playing.saves, performance.now()];
  await end();
  return (playing.saves - from) / ((performance.now() - began) / 1000);
}

const wait = () => new Promise((done) => setTimeout(done, SECONDS * 1000));

/** What the server refuses for now is asked for again, as an operator does, and is told. */
async function goOn(page) {
  const again = page.getByRole("alert").getByRole("button", { name: "Try again" }).first();
  if (!(await again.isVisible())) return;
  console.error(await page.getByRole("alert").first().innerText());
  await again.click();
}

/** Searches in the browser, and tells how it went and what it cost play. */
async function measured() {
  const page = await signedIn(chromium, world);
  page.setDefaultTimeout(LIMIT_MS);
  await open(page, world, "/#/find");
  await sees(page, /\d\s+profiles/);
  const scanned = async () =>
    Number(await page.locator("[data-scanned]").getAttribute("data-scanned"));
  const search = async (where) => {
    await page.getByLabel("What is saved in it").fill(where);
    await page.keyboard.press("Enter");
  };

  await speed(wait);
  const before = await speed(wait);
  const steps = new Set();
  const began = performance.now();
  let seconds = 0;
  const isDone = async () => {
    steps.add(await scanned());
    await goOn(page);
    return page.getByText("all were looked at").isVisible();
  };
  const during = await speed(async () => {
    await search(`/coins > ${many - 100}`);
    await page.locator("[data-scanned]").waitFor();
    await until("all were looked at", isDone, LIMIT_MS, LOOK_MS);
    seconds = (performance.now() - began) / 1000;
  });
  const after = await speed(wait);
  const all = await scanned();

  // Called off in the middle.
  if (many < SOON)
    await page.route(/where=/, (route) => setTimeout(() => route.continue().catch(() => {}), 5000));
  await search("/coins > 5 and /coins < 3");
  const cancel = page.getByRole("button", { name: "Cancel" });
  await cancel.waitFor();
  const off = performance.now();
  await cancel.click();
  await sees(page, "called off");
  const cancelled = performance.now() - off;

  const beside = during / ((before + after) / 2);
  return (
    `${all} profiles looked at in ${seconds.toFixed(1)} s, told in ${steps.size} steps; called ` +
    `off in ${cancelled.toFixed(0)} ms. ${PLAYERS} players saved ${before.toFixed(0)} times a ` +
    `second before, ${during.toFixed(0)} during, ${after.toFixed(0)} after: ` +
    `${beside.toFixed(2)} of play alone (0.80 at least is aimed at).`
  );
}

const world = await World.start();
const chromium = await browser();
let playing;
try {
  const file = join(world.folder, "large.jsonl");
  await written(file);
  execFileSync(program, ["--store", world.store, "import", file], {
    stdio: ["ignore", "ignore", "inherit"],
    timeout: LIMIT_MS,
  });

  const keys = Array.from({ length: PLAYERS }, (_, at) => `player-${at}`);
  const profiles = await world.play("eu-1", keys, { saveWithinMs: 600_000 });
  playing = new Playing(profiles);
  console.log(await playing.beside(measured));
} catch (error) {
  // Now: what ends below may fail because of it.
  console.error(error);
  process.exitCode = 1;
} finally {
  playing?.stop();
  await chromium.close();
  await world.stop();
}
