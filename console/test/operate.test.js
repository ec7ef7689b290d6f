// Running it: what happens now, whether all is well, who may do what, what is stored of a user.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import {
  arm,
  armed,
  assert,
  chromium,
  finish,
  forTests,
  loggedIn,
  logIn,
  open,
  PASSWORD,
  profilePath,
  sees,
  signedIn,
  test,
  until,
  world,
} from "./world.js";

forTests();

const chart = (page, title) => page.locator("figure", { hasText: title });

test("the overview shows what happens as it happens, and keys tell a moment", async () => {
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/overview");
  await sees(page, "the store answers");
  const value = async (title) => Number(await chart(page, title).locator("strong").innerText());
  await until("nobody plays", async () => (await value("Sessions")) === 0);
  const profiles = await world.play("eu-1", ["live-1", "live-2", "live-3"]);
  await until("three play", async () => (await value("Sessions")) === 3);
  assert.equal(await value("Game servers connected"), 1);
  for (const profile of profiles) {
    profile.update((data) => {
      data.coins = 5;
    });
    await profile.save();
  }
  // What was at its highest stays to be read from the chart.
  const saves = chart(page, "Saves");
  await until("saves are in the chart", async () => {
    const most = /at most ([\d.]+)/.exec(await saves.locator(".most").innerText());
    return Number(most?.[1]) > 0;
  });
  await saves.focus();
  await page.keyboard.press("ArrowLeft");
  const told = async () => saves.locator(".most").innerText();
  await until("a moment is told", async () => / at /.test(await told()));
  await page.keyboard.press("Escape");
  await until("and left", async () => /at most/.test(await told()));
  // The stream ends with the page, and goes on with what it had.
  const points = async () =>
    (await chart(page, "Sessions").locator("polyline").first().getAttribute("points")).split(" ")
      .length;
  await until("some points", async () => (await points()) >= 3);
  await page.getByRole("link", { name: "Sessions", exact: true }).first().click();
  await page.getByRole("heading", { name: "Sessions" }).waitFor();
  await page.goBack();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  await until("what it had is there", async () => (await points()) >= 3);
  await finish(page);
});

test("the overview says how long hand-overs take", async () => {
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/overview");
  await sees(page, "No profile was handed over in the last minute.");
  const [first] = await world.play("eu-1", ["passed-on"]);
  const [second] = await world.play("eu-2", ["passed-on"]);
  assert.ok(second.isActive && !first.isActive);
  const told = page.locator("[data-hand-overs]");
  await until("it is told", async () => /half took/.test(await told.innerText()));
  assert.match(await told.innerText(), /at most [\d.]+ m?s and 99 of 100 at most [\d.]+ m?s/);
  const title = "Hand-over p99";
  await until("it is in the chart", async () => {
    const most = /at most ([\d.]+)/.exec(await chart(page, title).locator(".most").innerText());
    return Number(most?.[1]) > 0;
  });
  await finish(page);
});

test("errors are told by kind as they happen", async () => {
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/overview");
  await sees(page, "Nothing failed since this process began");
  await world.play("eu-2", ["held-elsewhere"]);
  // A second game server that does not wait for the profile fails to start.
  await assert.rejects(world.play("eu-3", ["held-elsewhere"], {}, { whenHeld: "give_up" }));
  const row = page.locator("tr", { hasText: "Cancelled" });
  await row.waitFor();
  assert.deepEqual((await row.innerText()).split(/\s+/).slice(1), ["1", "1"]);
  // On a phone the head of the last column is not cut.
  await page.setViewportSize({ width: 360, height: 800 });
  const cut = await page
    .getByRole("region", { name: "What failed" })
    .evaluate((box) => box.scrollWidth - box.clientWidth);
  assert.ok(cut <= 0, `${cut} px are cut`);
  await finish(page);
});

test("a stream that breaks is begun anew, and a server that is away is told", async () => {
  const page = await signedIn(chromium, world);
  let away = false;
  await page.route("**/v1/live", (route) => (away ? route.abort() : route.continue()));
  await open(page, world, "/#/overview");
  await sees(page, "the store answers");
  away = true;
  await page.getByRole("link", { name: "Health" }).click();
  await sees(page, "Servers alive");
  await page.getByRole("link", { name: "Overview" }).click();
  await sees(page, "The server has not answered for");
  await page.locator("figure").first().waitFor();
  away = false;
  await page.getByText("The server has not answered for").waitFor({ state: "hidden" });
  await sees(page, "the store answers");
  await finish(page);
});

test("health says that the server is ready, how long it takes, what must stay 0", async () => {
  await world.play("eu-1", ["healthy"]);
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/health");
  await page.locator("span[role=status]", { hasText: "ready" }).waitFor();
  await page.getByRole("cell", { name: "starts of sessions" }).waitFor();
  await until("a start was measured", async () => {
    await page.reload();
    const row = page.locator("tr", { hasText: "starts of sessions" });
    await row.waitFor();
    return /\d (ms|s)/.test(await row.innerText());
  });
  await page.getByRole("cell", { name: "calls of the store that failed" }).waitFor();
  // What waits leads to the profiles for which it waits.
  await world.send("never-played");
  await page.reload();
  await sees(page, "for 1 profile");
  await page.getByText("What the store takes").click();
  await page.locator("tr[data-table]").first().waitFor();
  await page.locator("dd", { hasText: "for 1 profile" }).getByRole("link").click();
  await page.getByRole("link", { name: "never-played" }).waitFor();
  // Without the right, it says which one.
  const key = await world.newKey("reader", ["profiles:read"]);
  const reader = await signedIn(chromium, world, key);
  await open(reader, world, "/#/health");
  await sees(reader, "Times and counts need the right");
  const menu = reader.getByRole("navigation", { name: "Pages" });
  assert.deepEqual(await menu.getByRole("link").allTextContents(), [
    "Find",
    "Sessions",
    "Servers",
    "Time",
    "Trades",
    "Users",
    "Health",
  ]);
  await open(reader, world, "/#/access");
  await sees(reader, "Your key does not allow this page");
  await finish(reader);
  await finish(page);
});

test("a server that is not ready says why", async () => {
  const page = await signedIn(chromium, world);
  const body = JSON.stringify({ kind: "unavailable", detail: "the store cannot be used" });
  await page.route("**/readyz", (route) => route.fulfill({ status: 503, body }));
  await open(page, world, "/#/health");
  await page.locator("span[role=status]", { hasText: "the store cannot be used" }).waitFor();
  await finish(page);
});

test("a long reason, step or name of a game server makes no page wider than a phone", async () => {
  const long = "a-name-without-any-space-".repeat(5);
  await world.play(long.slice(0, 60), ["long-1"]);
  const viewport = { width: 360, height: 800 };
  const page = await signedIn(chromium, world, world.key, { viewport });
  const wider = () =>
    page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
  const body = JSON.stringify({ kind: "unavailable", detail: `the store cannot be used: ${long}` });
  await page.route("**/readyz", (route) => route.fulfill({ status: 503, body }));
  await open(page, world, "/#/health");
  await page.locator("span[role=status]", { hasText: "the store cannot be used" }).waitFor();
  assert.equal(await wider(), 0);
  await open(page, world, "/#/edits/new");
  await page.getByLabel("A place").fill(`/${long}`);
  await page.getByLabel("Value; +500").fill("+1");
  await page.locator("code.tag", { hasText: long }).waitFor();
  assert.equal(await wider(), 0);
  await open(page, world, "/#/p/PlayerData/global/long-1/holder");
  await sees(page, "it reports to the store in time");
  await arm(page);
  await page.getByRole("button", { name: /^Ask a-name/ }).waitFor();
  assert.equal(await wider(), 0);
  await finish(page);
});

test("an admin makes, changes and removes a member", async () => {
  await world.newMember("ada", "admin");
  const page = await armed("/#/access", "ada");
  await page.getByLabel("Name").fill("carl");
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByLabel("Role").selectOption("support");
  await page.getByRole("button", { name: "Make the member" }).click();
  await sees(page, "carl can log in now.");
  const carl = await loggedIn(chromium, world, "carl");
  await sees(carl, "carl (support)");
  await page.getByRole("button", { name: "Change carl" }).click();
  const row = page.getByRole("form", { name: "Change carl" });
  await row.getByLabel("Role").selectOption("operator");
  await row.getByLabel("Stores").fill("PlayerData, Guilds");
  await row.getByRole("button", { name: "Change", exact: true }).click();
  await sees(page, "carl is changed.");
  const members = async () => (await world.ask("GET", "/v1/members")).body.items;
  const found = (await members()).find((one) => one.name === "carl");
  assert.equal(found.role, "operator");
  assert.deepEqual(found.stores, ["Guilds", "PlayerData"]);
  // Narrowed to stores, carl is not offered what crosses them.
  await until("carl is an operator", async () => {
    await carl.reload();
    await sees(carl, "carl (");
    return carl.getByText("carl (operator)").isVisible();
  });
  const menu = carl.getByRole("navigation", { name: "Pages" });
  assert.deepEqual(await menu.getByRole("link").allTextContents(), [
    "Find",
    "Edits",
    "Time",
    "Trades",
  ]);
  await open(carl, world, "/#/audit");
  await sees(carl, "you reach some profiles only");
  await finish(carl);
  await page.getByRole("button", { name: "Change carl" }).click();
  await row.getByRole("button", { name: "Remove …" }).click();
  const sheet = page.getByRole("dialog");
  await sheet.getByRole("textbox").fill("carl");
  await sheet.getByRole("button", { name: "Remove the member" }).click();
  await sees(page, "carl is removed.");
  assert.ok(!(await members()).some((one) => one.name === "carl"));
  // The last admin stays one: the API's own words.
  await page.getByRole("button", { name: "Change ada" }).click();
  await page.getByRole("form", { name: "Change ada" }).getByLabel("Role").selectOption("viewer");
  await page
    .getByRole("form", { name: "Change ada" })
    .getByRole("button", { name: "Change", exact: true })
    .click();
  await page.locator(".note.bad").waitFor();
  await finish(page);
});

test("a key is made, shown once, used, and revoked", async () => {
  const page = await armed("/#/access/keys");
  await page.getByLabel("Name").fill("web shop");
  await page.getByLabel("Only this store").fill("PlayerData");
  await page.getByLabel("messages:send").check();
  await page.getByLabel("Days").fill("30");
  await page.getByRole("button", { name: "Make the key" }).click();
  await sees(page, "It is shown this once");
  const key = await page.locator(".note.good code").innerText();
  const me = async () => (await world.ask("GET", "/v1/me", undefined, {}, key)).body;
  assert.deepEqual((await me()).scopes, ["messages:send"]);
  assert.deepEqual((await me()).stores, ["PlayerData"]);
  await page.reload();
  const row = page.locator("tr[data-key='web shop']");
  await row.waitFor();
  assert.ok(!(await page.content()).includes(key), "the secret is gone with the page");
  await arm(page);
  await page.getByRole("button", { name: "Revoke web shop" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Revoke it" }).click();
  await row.getByText("revoked").waitFor();
  await until("it is refused", async () => (await me()).kind === "unauthorized");
  await finish(page);
});

test("a key that is shown once is in sight, however long the list of keys is", async () => {
  for (let at = 0; at < 30; at++) await world.newKey(`shop ${at}`, ["messages:send"]);
  const page = await armed("/#/access/keys");
  await page.locator("tr[data-key='shop 29']").waitFor();
  await page.getByLabel("Name").fill("the last shop");
  await page.getByLabel("messages:send").check();
  await page.getByRole("button", { name: "Make the key" }).click();
  await sees(page, "It is shown this once");
  const note = page.locator(".note.good", { hasText: "It is shown this once" });
  await until("it is in sight", () =>
    note.evaluate((one) => {
      const { left, top, bottom } = one.getBoundingClientRect();
      const isInside = top >= 0 && bottom <= window.innerHeight;
      // The bar at the top of the page does not lie over it.
      return isInside && one.contains(document.elementFromPoint(left + 20, top + 8));
    }),
  );
  await finish(page);
});

test("roles are shown as the API has them, and a log-in is ended", async () => {
  await world.newMember("dora", "viewer");
  const dora = await loggedIn(chromium, world, "dora");
  const page = await armed("/#/access/roles");
  const row = page.locator("tr", { hasText: "edits:bulk" });
  await row.waitFor();
  assert.deepEqual((await row.innerText()).split(/\s+/), [
    "edits:bulk",
    "–",
    "–",
    "yes",
    "–",
    "yes",
  ]);
  await page
    .getByRole("navigation", { name: "Access" })
    .getByRole("link", { name: "Log-ins" })
    .click();
  const endOf = page.getByRole("button", { name: "End a log-in of dora" });
  await endOf.click();
  await page.getByRole("dialog").getByRole("button", { name: "Leave it" }).click();
  await endOf.click();
  await page.getByRole("dialog").getByRole("button", { name: "End it" }).click();
  await endOf.waitFor({ state: "hidden" });
  await until("dora is out", async () => {
    await dora.reload();
    return dora.getByRole("heading", { name: "Log in" }).isVisible();
  });
  await finish(dora);
  await finish(page);
});

test("a member changes password and ends own log-ins without the switch", async () => {
  await world.newMember("emil", "viewer");
  const [page, other] = [
    await loggedIn(chromium, world, "emil"),
    await loggedIn(chromium, world, "emil"),
  ];
  await page.getByRole("link", { name: "emil (viewer)" }).click();
  await page.getByRole("heading", { name: "Your log-ins" }).waitFor();
  await page.getByRole("button", { name: "End a log-in of emil" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "End it" }).click();
  await until("the other one is out", async () => {
    await other.reload();
    return other.getByRole("heading", { name: "Log in" }).isVisible();
  });
  await page.getByLabel("Password until now").fill("wrong horse");
  await page.getByLabel("New password").fill("a better horse");
  await page.getByRole("button", { name: "Change the password" }).click();
  await sees(page, "the name or the password is wrong");
  await page.getByRole("heading", { name: "Your log-ins" }).waitFor();
  await page.getByLabel("Password until now").fill(PASSWORD);
  await page.getByRole("button", { name: "Change the password" }).click();
  await sees(page, "The password is changed.");
  await logIn(other, "emil", "a better horse");
  await sees(other, "emil (viewer)");
  await finish(other);
  await finish(page);
});

test("what is stored of a user is seen, taken out and erased, with a certificate", async () => {
  world.import([
    ["of-261", { coins: 1 }, [261]],
    ["of-both", { coins: 2 }, [261, 262]],
    ["of-262", { coins: 3 }, [262]],
  ]);
  await world.newMember("paula", "privacy");
  const page = await armed("/#/users", "paula");
  await page.getByLabel("The user's number or name").fill("261");
  await page.getByRole("button", { name: "Show" }).click();
  await sees(page, "2 profiles of user 261");
  const [file] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Save all of it as a file" }).click(),
  ]);
  const lines = readFileSync(await file.path(), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(lines.map((line) => line.key).sort(), ["of-261", "of-both"]);
  await page.getByLabel("Reason").fill("request of the user");
  await page.getByRole("button", { name: "Erase user 261 …" }).click();
  await page.getByRole("dialog").getByRole("textbox").fill("261");
  await page.getByRole("dialog").getByRole("button", { name: "Erase" }).click();
  await page.getByRole("heading", { name: "Certificate" }).waitFor();
  await sees(page, "something is left");
  await sees(page, "PlayerData/of-both");
  await sees(page, "backups, exports");
  const [saved] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Save the certificate" }).click(),
  ]);
  const text = readFileSync(await saved.path(), "utf8");
  const [, certificate, digest] = /^\{"certificate":(.*),"sha256":"([0-9a-f]{64})"\}\s*$/.exec(
    text,
  );
  assert.equal(createHash("sha256").update(certificate).digest("hex"), digest);
  assert.equal(await page.locator("[data-digest]").innerText(), digest);
  assert.equal((await world.ask("GET", profilePath("of-261"))).status, 404);
  assert.equal((await world.read("of-both")).data.coins, 2);
  // What belongs to others too goes only when it is asked for.
  await page.getByLabel("Reason").fill("request of the user");
  await page.getByLabel("Also profiles that belong to other users").check();
  await page.getByRole("button", { name: "Erase user 261 …" }).click();
  await page.getByRole("dialog").getByRole("textbox").fill("261");
  await page.getByRole("dialog").getByRole("button", { name: "Erase" }).click();
  await sees(page, "nothing of the user's own is left");
  assert.equal((await world.read("of-262")).data.coins, 3);
  await finish(page);
});

test("of an erasure whose answer is lost it is told where its record is", async () => {
  const page = await armed("/#/find");
  const erase = async (user) => {
    await page.getByLabel("Reason").fill("request of the user");
    await page.getByRole("button", { name: `Erase user ${user} …` }).click();
    await page.getByRole("dialog").getByRole("textbox").fill(user);
    await page.getByRole("dialog").getByRole("button", { name: "Erase" }).click();
  };
  for (const [user, lose] of [
    ["270", (route) => route.abort()],
    ["271", (route) => route.fulfill({ contentType: "text/html", body: "<h1>a proxy's</h1>" })],
  ]) {
    world.import([[`of-${user}`, { coins: 1 }, [Number(user)]]]);
    await open(page, world, `/#/users?user=${user}`);
    // The server has erased the user, and the page does not know.
    await page.route("**/erasures?*", async (route) => {
      await route.fetch();
      await lose(route);
    });
    await erase(user);
    await sees(page, "An erasure before has given no certificate");
    assert.equal((await world.ask("GET", profilePath(`of-${user}`))).status, 404);
    await page.unroute("**/erasures?*");
    // Also when the page was left: nothing is found then, and a certificate is there to be had.
    await open(page, world, "/#/find");
    await sees(page, "Find a profile");
    await open(page, world, `/#/users?user=${user}`);
    await sees(page, `Nothing is stored of user ${user}.`);
    await erase(user);
    await sees(page, "0 profiles are erased");
    const certificate = page.getByRole("region", { name: "Certificate" });
    await certificate.getByRole("link", { name: "the audit log" }).click();
    const line = page.locator("tr[data-operation]", { hasText: `PlayerData/of-${user}` });
    await line.first().waitFor();
  }
  await finish(page);
});

test("roles without the right are not offered export and erasure", async () => {
  world.import([["of-300", { coins: 1 }, [300]]]);
  await world.newMember("vera", "viewer");
  const page = await loggedIn(chromium, world, "vera");
  await open(page, world, "/#/users?user=300");
  await page.getByRole("link", { name: "PlayerData/of-300" }).waitFor();
  assert.equal(await page.getByRole("heading", { name: "Erase" }).count(), 0);
  assert.equal(await page.getByRole("heading", { name: "Export" }).count(), 0);
  await open(page, world, "/#/users?user=301");
  await sees(page, "Nothing is stored of user 301");
  await finish(page);
});
