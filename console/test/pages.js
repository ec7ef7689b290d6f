// Each page of the console, in the small world of `fill.js`.
import { at } from "./world.js";

export const pages = (world) => ({
  overview: "/#/overview",
  find: "/#/find",
  "find-filter": "/#/find?q=held:",
  "find-where": "/#/find?where=/coins%20%3E%201500%20and%20not%20has%20/banned",
  profile: at("user-1"),
  raw: at("user-1", "raw"),
  history: at("user-1", "history?curve=/coins"),
  diff: at("user-1", "diff?from=1"),
  rollback: at("user-1", "rollback?to=2&path=/items"),
  "rollback-whole": at("user-1", "rollback?to=2"),
  edit: at("user-1", "edit?at=/coins"),
  "edit-online": at("user-2", "edit?at=/coins"),
  messages: at("user-9", "send"),
  holder: at("user-2", "holder"),
  "profile-audit": at("user-1", "audit"),
  missing: at("nobody"),
  "edits-waiting": at("user-8"),
  "edits-standing": at("newborn-1"),
  sessions: "/#/sessions",
  servers: "/#/servers",
  edits: "/#/edits",
  "edits-new": "/#/edits/new?prefix=user-&where=/coins%20%3E%201500",
  "edits-one": `/#/edits/${world.bulk}`,
  trades: "/#/trades?store=Trades",
  "trades-waiting": "/#/trades?store=Trades&waiting=1",
  "trades-one": "/#/trades/trade-77?store=Trades&scope=global",
  "profile-trades": at("user-2", "trades"),
  "find-inbox": "/#/find?q=inbox%3E0",
  time: `/#/time?at=${world.then}&path=/coins&prefix=user-1`,
  users: "/#/users?user=261",
  audit: "/#/audit",
  health: "/#/health",
  access: "/#/access",
  "access-keys": "/#/access/keys",
  "access-roles": "/#/access/roles",
  "access-logins": "/#/access/logins",
});

/** Waits until nothing is on its way any more. */
export async function ready(page) {
  await page.evaluate(
    () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))),
  );
  await page.waitForFunction(() => {
    const told = [...document.querySelectorAll("[role=status]")];
    return document.querySelector("h1") && told.every((one) => !one.textContent.includes("…"));
  });
}

/** Opens the set-up link as long as it works, which the store of `fill.js` does not have. */
export async function openSetUp(page, world) {
  await page.route("**/v1/setup", (route) => route.fulfill({ json: { is_open: true } }));
  await page.goto(world.setUp);
  await page.reload();
}

/** What is done on a page before it is looked at. */
export const PREPARED = {
  "edits-new": async (page) => {
    await page.getByLabel("A place").fill("/coins");
    await page.getByLabel("Value; +500").fill("+-1000000");
    await page.getByRole("button", { name: "Try on all" }).click();
    await page.locator("[data-complete=true]").waitFor();
  },
  time: async (page) => {
    await page.getByRole("button", { name: /^Compare \d/ }).click();
    await page.getByText("were something else then").waitFor();
    await page.getByRole("button", { name: "Try on all" }).click();
    await page.locator("[data-complete=true]").waitFor();
  },
};
