/**
 * What one Node process does on a server that runs, as one number: how many a second.
 * `cargo bench -p profilestore-server --bench served -- node` asks it.
 *
 *   node client.mjs saves SESSIONS SECONDS
 *   node client.mjs starts COUNT AT_ONCE
 */
import { readFileSync } from "node:fs";
import { connect } from "../dist/index.js";

const [what, count, more] = process.argv.slice(2);
const { PROFILESTORE_URL: url, PROFILESTORE_KEY: key, TEMPLATE: file } = process.env;
const template = JSON.parse(readFileSync(file, "utf8"));
const server = await connect(url, { key, job: "node" });
const players = server.store("Node", { template, saveWithinMs: 600_000 });

/** So many of them work at once; resolves when all have ended. */
const several = (number, work) => Promise.all(Array.from({ length: number }, (_, at) => work(at)));

async function saves(sessions, seconds) {
  const open = await several(sessions, (at) => players.start(`saves-${sessions}-${at}`));
  const began = performance.now();
  const end = began + seconds * 1000;
  let done = 0;
  await several(sessions, async (at) => {
    while (performance.now() < end) {
      open[at].update((data) => (data.coins += 1));
      await open[at].save();
      done += 1;
    }
  });
  return (done * 1000) / (performance.now() - began);
}

async function starts(number, atOnce) {
  let next = 0;
  const began = performance.now();
  await several(atOnce, async () => {
    for (let at = next++; at < number; at = next++) await players.start(`starts-${at}`);
  });
  return (number * 1000) / (performance.now() - began);
}

const rate = await { saves, starts }[what](Number(count), Number(more));
console.log(rate.toFixed(1));
process.exit(0);
