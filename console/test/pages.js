// Each page of the console, in the small world of `fill.js`.
import { at } from "./world.js";

export const PAGES = {
  find: "/#/find",
  "find-filter": "/#/find?q=held:",
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
  sessions: "/#/sessions",
  servers: "/#/servers",
  audit: "/#/audit",
};

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
