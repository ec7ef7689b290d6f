// Pictures of each page: light and dark, wide and narrow. `npm run screenshots`, and look at them.
// Words behind it: only the pages that have one of them in their names. With `--docs`, those that
// stand in the documentation are put there.
import { copyFileSync, existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { arm, browser, folder, newPage, signedIn, World } from "./world.js";
import { fill } from "./fill.js";
import { openSetUp, pages, PREPARED, ready } from "./pages.js";

const to = join(folder, "../screenshots");
mkdirSync(to, { recursive: true });
const words = process.argv.slice(2);
const only = words.filter((word) => word !== "--docs");

/** What stands in the documentation, and of which pages. */
const DOCS = {
  edit: "edit-online-light-narrow",
  edits: "edits-new-light-wide",
  history: "history-light-wide",
  overview: "overview-light-wide",
  rollback: "rollback-light-wide",
  search: "find-where-light-wide",
  time: "time-light-wide",
  trade: "trades-one-light-wide",
  users: "users-light-wide",
};

const world = await World.start();
const chromium = await browser();
let playing;
try {
  await fill(world);
  let turn = 0;
  playing = setInterval(() => {
    for (const player of world.players.slice(0, ++turn % 5)) {
      player.update((data) => {
        data.coins += 1;
      });
      player.save().catch(() => {});
    }
  }, 300);
  for (const colorScheme of ["light", "dark"]) {
    for (const [width, name] of [
      [1280, "wide"],
      [360, "narrow"],
    ]) {
      const viewport = { width, height: 800 };
      const page = await signedIn(chromium, world, world.key, { viewport, colorScheme });
      await page.goto(`${world.url}/`);
      await arm(page);
      for (const [which, path] of Object.entries(pages(world))) {
        if (only.length > 0 && !only.some((word) => which.includes(word))) continue;
        await page.goto(world.url + path);
        await ready(page);
        await PREPARED[which]?.(page);
        // The charts have something to show.
        if (which === "overview") await new Promise((done) => setTimeout(done, 15_000));
        await page.screenshot({ path: join(to, `${which}-${colorScheme}-${name}.png`) });
      }
      await page.keyboard.press("?");
      await page.screenshot({ path: join(to, `help-${colorScheme}-${name}.png`) });
      await page.context().close();
      const out = await newPage(chromium, world, { viewport, colorScheme });
      for (const [which, path] of [
        ["sign-in", `${world.url}/`],
        ["set-up", world.setUp],
      ]) {
        await (which === "set-up" ? openSetUp(out, world) : out.goto(path));
        await ready(out);
        await out.screenshot({ path: join(to, `${which}-${colorScheme}-${name}.png`) });
      }
      await out.context().close();
    }
  }
} finally {
  clearInterval(playing);
  await chromium.close();
  await world.stop();
}
if (words.includes("--docs"))
  for (const [name, of] of Object.entries(DOCS)) {
    const made = join(to, `${of}.png`);
    if (existsSync(made)) copyFileSync(made, join(folder, "../../docs/console", `${name}.png`));
  }
