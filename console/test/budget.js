// What the first view costs: bytes, the time until it is there, and tasks that block the page.
// `npm run budget`. Bytes are limited, and the script fails beyond that; times depend on the
// machine and are shown beside what is aimed at.
import { browser, signedIn, until, World } from "./world.js";
import { fill } from "./fill.js";

const BYTES = 120 * 1024;
const FIRST_MS = 1000;
const LONG_MS = 100;
const VISITS = 5;

/** One visit with an empty cache. */
async function visit(chromium, world, path, ready) {
  const page = await signedIn(chromium, world);
  await page.addInitScript(() => {
    window.tasks = [];
    const seen = (list) => window.tasks.push(...list.getEntries().map((one) => one.duration));
    new PerformanceObserver(seen).observe({ type: "longtask", buffered: true });
  });
  const client = await page.context().newCDPSession(page);
  let bytes = 0;
  client.on("Network.loadingFinished", ({ encodedDataLength }) => (bytes += encodedDataLength));
  await client.send("Network.enable");
  // A stream of events has no end.
  const underWay = new Set();
  page.on("request", (one) => one.url().endsWith("/v1/live") || underWay.add(one));
  for (const end of ["requestfinished", "requestfailed"])
    page.on(end, (one) => underWay.delete(one));
  const began = performance.now();
  await page.goto(world.url + path);
  await ready(page);
  const there = performance.now() - began;
  await until("nothing is on its way", () => underWay.size === 0);
  const told = await page.evaluate(() => {
    const [painted] = performance.getEntriesByName("first-contentful-paint");
    return { painted: painted?.startTime ?? 0, tasks: window.tasks };
  });
  await page.context().close();
  const longest = Math.max(0, ...told.tasks);
  const blocked = told.tasks.reduce((sum, one) => sum + Math.max(0, one - 50), 0);
  return { bytes, painted: told.painted, there, longest, blocked };
}

/** The one in the middle. */
const median = (all) => all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)];

const line = (page) => page.getByRole("treeitem").first();
const VIEWS = {
  "Find, signed in": ["/", (page) => page.getByRole("link", { name: "user-1", exact: true })],
  "a profile": ["/#/p/PlayerData/global/user-1", line],
  Overview: ["/#/overview", (page) => page.getByText("the store answers")],
};
/** Beside the page itself it has a profile that is as large as one may be. */
const LARGE = { "a profile of 4 MiB": ["/#/p/PlayerData/global/large", line] };

/** Data of 4 MiB, less room for what stands around it: many small values, and a text. */
function large() {
  const items = Array.from({ length: 120_000 }, (_, at) => ({ id: `sword-${at}`, power: at % 97 }));
  const rest = (4 << 20) - (64 << 10) - JSON.stringify(items).length;
  return { items, notes: "a".repeat(rest) };
}

const [world, chromium] = await Promise.all([World.start(), browser()]);
let isWithin = true;
try {
  await fill(world);
  const made = await world.put("large", large());
  if (made.status !== 201) throw new Error(made.text);
  console.log("| first view | KiB | first paint | there after | longest task | blocked |");
  console.log("| --- | --- | --- | --- | --- | --- |");
  for (const [name, [path, what]] of Object.entries({ ...VIEWS, ...LARGE })) {
    const visits = [];
    for (let at = 0; at < VISITS; at++)
      visits.push(await visit(chromium, world, path, (page) => what(page).waitFor()));
    const of = (member) => median(visits.map((one) => one[member]));
    const ms = (value, most) => `${Math.round(value)} ms${value > most ? `, above ${most}` : ""}`;
    const kib = (of("bytes") / 1024).toFixed(1);
    isWithin &&= name in LARGE || of("bytes") <= BYTES;
    const times = [ms(of("painted"), FIRST_MS), ms(of("there"), FIRST_MS)];
    const tasks = [ms(of("longest"), LONG_MS), ms(of("blocked"), LONG_MS)];
    console.log(`| ${[name, kib, ...times, ...tasks].join(" | ")} |`);
  }
} finally {
  await chromium.close();
  await world.stop();
}
if (!isWithin) {
  console.error(`a first view takes more than ${BYTES / 1024} KiB`);
  process.exitCode = 1;
}
