// Getting in: the first administrator, log-ins, roles, and the end of a log-in.
import {
  arm,
  assert,
  at,
  chromium,
  finish,
  forTests,
  loggedIn,
  logIn,
  newPage,
  open,
  PASSWORD,
  profilePath,
  sees,
  test,
  until,
  uuid7,
  world,
} from "./world.js";

forTests();

/** A request from inside of the page, with its cookie and its origin. */
const asked = (page, method, path, body, headers = {}) =>
  page.evaluate(
    async ([method, path, body, headers]) => {
      const all = body === undefined ? headers : { "Content-Type": "application/json", ...headers };
      const answer = await fetch(path, {
        method,
        headers: all,
        body: body && JSON.stringify(body),
      });
      const text = await answer.text();
      return {
        status: answer.status,
        kind: text.startsWith("{") ? JSON.parse(text).kind : undefined,
      };
    },
    [method, path, body, headers],
  );

test("the set-up link makes the first administrator, and works once", async () => {
  const page = await newPage(chromium, world);
  await open(page, world, "/");
  await sees(page, "Nobody can log in with a name yet");
  const setUp = async (link) => {
    await page.goto(link);
    await page.getByLabel("Name").fill("ann");
    await page.getByLabel("Password").fill(PASSWORD);
    await page.getByRole("button", { name: "Begin" }).click();
  };
  await setUp(`${world.url}/#/setup?token=wrong`);
  await sees(page, "this is not the set-up link");
  // Wrong tries do not lock the right link.
  const wrong = { token: "wrong", name: "eve", password: PASSWORD };
  await until("wrong links are refused for a while", async () => {
    return (await world.ask("POST", "/v1/setup", wrong)).body.kind === "too-many-tries";
  });
  await setUp(world.setUp);
  await page.getByRole("heading", { name: "Find a profile" }).waitFor();
  await sees(page, "ann (admin)");
  assert.ok(!page.url().includes("token"), "the secret is not left in the address");
  await page.reload();
  await sees(page, "ann (admin)");
  await open(page, world, world.setUp.slice(world.url.length));
  await page.getByRole("heading", { name: "You are logged in" }).waitFor();
  await open(page, world, "/#/find");

  // Of an empty store the page sees by itself when something is there.
  await sees(page, "This page waits for the first session");
  await world.put("the-first", { coins: 1 });
  await page.getByRole("link", { name: "the-first", exact: true }).waitFor();

  const other = await newPage(chromium, world);
  await other.goto(world.setUp);
  await sees(other, "This set-up link has done its work");
  const token = new URLSearchParams(world.setUp.split("?")[1]).get("token");
  const again = await world.ask("POST", "/v1/setup", { token, name: "eve", password: PASSWORD });
  assert.equal(again.body.kind, "already-set-up");
  await finish(other);
  await finish(page);
});

test("a log-in begins read-only, and the API says so too", async () => {
  await world.put("read-only", { coins: 10 });
  const page = await newPage(chromium, world);
  await open(page, world, at("read-only", "edit?at=/coins"));
  await logIn(page, "ann", "a wrong password");
  await sees(page, "the name or the password is wrong");
  await logIn(page, "ann");
  // The address that was asked for is where the log-in leads.
  await sees(page, "You are only reading");
  const steps = [{ op: "set", path: "/coins", value: 0 }];
  const patch = () => ({
    "Content-Type": "application/json-patch+json",
    "Idempotency-Key": uuid7(),
  });
  const edits = `${profilePath("read-only")}/edits`;
  assert.deepEqual(await asked(page, "POST", edits, steps, patch()), {
    status: 403,
    kind: "read-only",
  });
  await arm(page);
  await page.getByLabel("Value; +500").fill("+5");
  await page.getByLabel("Reason, for the audit log").fill("ticket 1");
  await page.getByRole("button", { name: "Change the profile" }).click();
  await sees(page, "It is version 2");
  assert.equal((await world.read("read-only")).data.coins, 15);
  await page.getByRole("switch", { name: "Changes on" }).click();
  await page.getByRole("switch", { name: "Read-only" }).waitFor();
  assert.deepEqual(await asked(page, "POST", edits, steps, patch()), {
    status: 403,
    kind: "read-only",
  });
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  assert.equal((await asked(page, "GET", "/v1/me")).status, 401);
  await finish(page);
});

/** What each role may do, and which pages of a profile it is offered. */
const MAY = {
  viewer: { tabs: ["Data", "Raw", "History", "Trades", "Messages", "Holder", "Audit"], may: [] },
  support: {
    tabs: ["Data", "Raw", "History", "Trades", "Edit", "Messages", "Holder", "Audit"],
    may: ["edit", "send", "free"],
  },
  operator: {
    tabs: ["Data", "Raw", "History", "Trades", "Edit", "Messages", "Holder", "Audit"],
    may: ["edit", "send", "free", "back", "restore", "remove"],
  },
  privacy: { tabs: ["Data", "Raw", "History", "Trades", "Messages", "Holder", "Audit"], may: [] },
  admin: {
    tabs: ["Data", "Raw", "History", "Trades", "Edit", "Messages", "Holder", "Audit"],
    may: ["edit", "send", "free", "back", "restore", "remove", "members"],
  },
};

for (const [role, { tabs, may }] of Object.entries(MAY)) {
  test(`the role ${role} is offered what it may do, and the API refuses it the rest`, async () => {
    await world.put(`for-${role}`, { coins: 1 });
    await world.newMember(`a ${role}`, role);
    const page = await loggedIn(chromium, world, `a ${role}`);
    const changes = role !== "viewer";
    if (changes) await arm(page);
    else assert.equal((await asked(page, "POST", "/v1/arm")).kind, "forbidden");
    await open(page, world, at(`for-${role}`));
    const bar = page.getByRole("navigation", { name: "About this profile" });
    await bar.getByRole("link", { name: "Audit" }).waitFor();
    assert.deepEqual(await bar.getByRole("link").allTextContents(), tabs);
    assert.equal(await page.getByRole("switch").count(), changes ? 1 : 0);

    const there = profilePath(`for-${role}`);
    const once = () => ({ "Idempotency-Key": uuid7() });
    const patch = () => ({ ...once(), "Content-Type": "application/json-patch+json" });
    const tag = (await world.ask("GET", there)).headers.get("etag");
    const back = {
      store: "PlayerData",
      prefix: `for-${role}`,
      back_to: { time: "2026-11-20T18:30:00Z", paths: ["/coins"] },
      dry_run: true,
    };
    const tries = {
      edit: ["POST", `${there}/edits`, [{ op: "test", path: "/coins", value: 1 }], patch()],
      send: ["POST", `${there}/messages`, { message: 1 }, once()],
      free: ["DELETE", `${there}/session`],
      back: ["POST", "/v1/edits", back],
      restore: ["POST", `${there}/restores`, { version: "1", dry_run: true }],
      members: ["GET", "/v1/members"],
      remove: ["DELETE", there, undefined, { "If-Match": tag }],
    };
    const refused = changes ? "forbidden" : "read-only";
    for (const [what, [method, path, body, headers]] of Object.entries(tries)) {
      const { status, kind } = await asked(page, method, path, body, headers);
      if (may.includes(what))
        assert.ok(status < 300 || status === 409, `${role} may ${what}: ${status} ${kind}`);
      else {
        assert.equal(status, 403, `${role} may not ${what}`);
        assert.equal(kind, method === "GET" ? "forbidden" : refused);
      }
    }
    await finish(page);
  });
}

test("a member who may not roll back is not told to switch changes on", async () => {
  await world.put("hinted", { coins: 1 });
  const { etag } = await world.read("hinted");
  const changed = await world.ask("PUT", profilePath("hinted"), { data: { coins: 2 } }, {
    "If-Match": etag,
  });
  assert.equal(changed.status, 200, changed.text);
  await world.newMember("hugo", "viewer");
  const page = await loggedIn(chromium, world, "hugo");
  await open(page, world, at("hinted", "rollback?to=1"));
  await sees(page, "Gifts and trades since stay done");
  await sees(page, "It needs history:restore");
  assert.equal(await page.getByText("Switch changes on").count(), 0);
  await finish(page);
});

test("a member who reaches one store undoes an edit, and is offered no log of all", async () => {
  const big = "9223372036854775807";
  await world.put("narrow", `{"coins":${big}}`);
  await world.newMember("nora", "support", ["PlayerData"]);
  const page = await loggedIn(chromium, world, "nora");
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  await open(page, world, at("narrow", "edit?at=/coins"));
  await arm(page);
  await page.getByLabel("Value; +500").fill("7");
  await page.getByLabel("Reason").fill("ticket 13");
  await page.getByRole("button", { name: "Change the profile" }).click();
  await sees(page, "It is version 2");
  await page.getByRole("button", { name: "Undo" }).click();
  await sees(page, "Taken back.");
  assert.match((await world.read("narrow")).text, new RegExp(`"coins":${big}`));
  const bar = page.getByRole("navigation", { name: "About this profile" });
  assert.equal(await bar.getByRole("link", { name: "Audit" }).count(), 0);
  await bar.getByRole("link", { name: "History" }).click();
  await page.locator("tr[data-version='3']").waitFor();
  assert.deepEqual(
    asked.filter((url) => url.includes("/v1/audit")),
    [],
    "the API would refuse it",
  );
  await finish(page);
});

test("before changes go off a button keeps them on", async () => {
  await world.put("hurry", { coins: 1 });
  await world.newMember("tia", "support");
  const page = await loggedIn(chromium, world, "tia");
  await open(page, world, at("hurry", "edit?at=/coins"));
  let early = 14 * 60_000;
  await page.route("**/v1/arm", async (route) => {
    const response = await route.fetch();
    const { armed_until_ms } = await response.json();
    await route.fulfill({ response, json: { armed_until_ms: armed_until_ms - early } });
  });
  await arm(page);
  await page.getByLabel("Value; +500").fill("+2");
  await sees(page, "Changes go off within two minutes");
  early = 0;
  await page.getByRole("button", { name: "15 min more" }).click();
  await page.getByRole("switch", { name: /^Changes on, 1[45] min$/ }).waitFor();
  await page.getByText("Changes go off within").waitFor({ state: "hidden" });
  assert.equal(await page.getByLabel("Value; +500").inputValue(), "+2");
  await finish(page);
});

test("a page of another site cannot use the cookie", async () => {
  const page = await loggedIn(chromium, world, "ann");
  const cookies = await page.context().cookies();
  assert.equal(cookies.length, 1);
  assert.ok(cookies[0].httpOnly && cookies[0].sameSite === "Strict");
  const answer = await fetch(`${world.api}/v1/arm`, {
    method: "POST",
    headers: { Cookie: `${cookies[0].name}=${cookies[0].value}`, Origin: "http://evil.example" },
  });
  assert.equal((await answer.json()).kind, "cross-site");
  await finish(page);
});

test("a log-in that an admin ends leads back to the log-in page", async () => {
  await world.newMember("bob", "support");
  const page = await loggedIn(chromium, world, "bob");
  await open(page, world, "/#/sessions");
  await page.getByRole("heading", { name: "Sessions" }).waitFor();
  const { body } = await world.ask("GET", "/v1/logins");
  const login = body.items.find((one) => one.name === "bob");
  assert.equal((await world.ask("DELETE", `/v1/logins/${login.id}`)).status, 204);
  const again = page.getByRole("button", { name: "Read again" });
  await until("the log-in is over", async () => {
    if (await again.isVisible()) await again.click().catch(() => {});
    return page.getByText("does not know this key or log-in any more").isVisible();
  });
  await logIn(page, "bob");
  await page.getByRole("heading", { name: "Sessions" }).waitFor();
  await finish(page);
});

test("a draft is still there after a log-in that ended in the middle of it", async () => {
  await world.put("drafted", { coins: 10, name: "Ada" });
  await world.newMember("carla", "support");
  await world.newMember("cesar", "support");
  const page = await loggedIn(chromium, world, "carla");
  await arm(page);
  await open(page, world, at("drafted", "edit?at=/coins"));
  await page.getByLabel("Value; +500").fill("+7");
  await page.getByLabel("A place").fill("/name");
  await page.getByRole("button", { name: "Add it" }).click();
  const field = page.locator('fieldset[data-path="/name"]').getByLabel("Value");
  await field.fill("Grace");
  await page.getByLabel("Reason, for the audit log").fill("ticket 12");
  const end = async (name) => {
    const { body } = await world.ask("GET", "/v1/logins");
    const login = body.items.find((one) => one.name === name);
    assert.equal((await world.ask("DELETE", `/v1/logins/${login.id}`)).status, 204);
    const send = page.getByRole("button", { name: "Read again" });
    await until("the log-in is over", async () => {
      if (await send.isVisible()) await send.click().catch(() => {});
      return page.getByText("what you typed is still there").isVisible();
    });
  };
  await end("carla");
  // Another person does not see it.
  await logIn(page, "cesar");
  await sees(page, "You are only reading");
  await arm(page);
  await page.getByLabel("Value; +500").waitFor();
  assert.equal(await page.getByLabel("Value; +500").inputValue(), "10");
  assert.equal(await field.count(), 0);
  await page.getByRole("button", { name: "Sign out" }).click();
  await finish(page);

  const again = await loggedIn(chromium, world, "carla");
  await arm(again);
  await open(again, world, at("drafted", "edit?at=/coins"));
  await again.getByLabel("Value; +500").fill("+7");
  await again.getByLabel("Reason, for the audit log").fill("ticket 12");
  const { body } = await world.ask("GET", "/v1/logins");
  for (const login of body.items.filter((one) => one.name === "carla"))
    await world.ask("DELETE", `/v1/logins/${login.id}`);
  const change = again.getByRole("button", { name: "Change the profile" });
  // The change itself meets the end of the log-in, or the one behind it does.
  await until("the log-in is over", async () => {
    const isIn = await again.getByRole("button", { name: "Read again" }).isVisible();
    if (isIn)
      await again
        .getByRole("button", { name: "Read again" })
        .click()
        .catch(() => {});
    return again.getByText("what you typed is still there").isVisible();
  });
  await logIn(again, "carla");
  await arm(again);
  await sees(again, "You typed this before, and did not send it.");
  assert.equal(await again.getByLabel("Value; +500").inputValue(), "+7");
  assert.equal(await again.getByLabel("Reason, for the audit log").inputValue(), "ticket 12");
  await change.click();
  await sees(again, "It is version 2");
  assert.equal((await world.read("drafted")).data.coins, 17);
  await finish(again);
});

for (const hours of [-2, 2]) {
  test(`the switch goes by the server's clock, with a browser's clock ${hours} h off`, async () => {
    await world.put(`clock${hours}`, { coins: 1 });
    const page = await newPage(chromium, world);
    await page.addInitScript((ms) => {
      const real = Date.now.bind(Date);
      Date.now = () => real() + ms;
    }, hours * 3_600_000);
    await open(page, world, at(`clock${hours}`));
    await logIn(page, "ann");
    await page.getByRole("switch", { name: "Read-only" }).click();
    await page.getByRole("switch", { name: /^Changes on, 1[45] min$/ }).waitFor();
    // Other times go by it too.
    await page
      .locator("dd time", { hasText: /^\d+ s ago$/ })
      .first()
      .waitFor();
    // After a new start of the page the server says how long it still is.
    await page.reload();
    await page.getByRole("switch", { name: /^Changes on, 1[45] min$/ }).waitFor();
    await page.getByRole("switch", { name: "Changes on" }).click();
    await page.getByRole("switch", { name: "Read-only" }).waitFor();
    await finish(page);
  });
}
