// What a game, a person or a network may do that nobody thinks of first.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import {
  arm,
  armed,
  assert,
  at,
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
  uuid7,
  world,
} from "./world.js";
import { edit } from "./fill.js";
import { ready } from "./pages.js";

forTests();

const keys = (page) => page.locator("tbody tr[data-at] td:first-child a").allTextContents();

// As it is typed on Find, where that is not the key itself.
const ODD = [
  ["a/b/c", ""],
  ["100%", ""],
  ["%2F", ""],
  ["two words", '"two words"'],
  ["user:12", '"user:12"'],
  ['say "hi"', '"say ""hi"""'],
  ["what?#&=+", ""],
  ["__proto__", ""],
  ["it's", ""],
  ["[1-3]{a,b}", ""],
  ["Zoë 🗡", '"Zoë 🗡"'],
];

for (const [key, typed] of ODD)
  test(`a profile with an odd key is found, edited and undone: ${key}`, async () => {
    const made = await world.put(key, { coins: 1 });
    assert.equal(made.status, 201, made.text);
    const page = await armed("/#/find");
    await page.locator("#find").fill(typed || key);
    await page.keyboard.press("Enter");
    await until(`${key} is found`, async () => (await keys(page)).join("\n") === key);
    await page.getByRole("link", { name: key, exact: true }).click();
    await page.getByRole("treeitem", { name: "coins 1" }).waitFor();
    await page.reload();
    await page.getByRole("treeitem", { name: "coins 1" }).waitFor();
    await arm(page);
    await page.keyboard.press("e");
    await page.getByLabel("A place").fill("/coins");
    await page.getByRole("button", { name: "Add it" }).click();
    await page.getByLabel("Value; +500").fill("+41");
    await page.getByLabel("Reason").fill(`odd ${key}`);
    await page.getByRole("button", { name: "Change the profile" }).click();
    await sees(page, "It is version 2");
    assert.equal((await world.read(key)).data.coins, 42);
    // The undo is read from the audit log, by the profile's name.
    await page.getByRole("button", { name: "Undo" }).click();
    await sees(page, "Taken back.");
    assert.equal((await world.read(key)).data.coins, 1);
    await page.getByRole("link", { name: "Audit", exact: true }).last().click();
    await page
      .locator("tr[data-operation]", { hasText: `odd ${key}` })
      .first()
      .waitFor();
    const rows = page.locator("tr[data-operation]");
    assert.equal(await rows.count(), 3, "the making, the edit and its undo");
    await page.getByRole("link", { name: "History", exact: true }).click();
    await page.locator("tr[data-version]", { hasText: `odd ${key}` }).waitFor();
    await finish(page);
  });

for (const key of ["it's", "a/b", "[1-3]{a,b}", "$KEY `id` !!", "@file", "Zoë 🗡", 'say "hi"'])
  test(`the command for what was done does the same in a shell: ${key}`, async () => {
    const shell = `shell ${key}`;
    await world.put(shell, { coins: 1, [key]: "as it was" });
    const page = await armed(at(shell, "send"));
    const message = JSON.stringify({ type: "note", text: `${key}\nit's "so"` });
    await page.getByLabel("The message, as").fill(message);
    await page.getByLabel("Reason").fill(`of ${key}`);
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await sees(page, "It waits until the profile is played");
    const [line] = await page.locator("pre", { hasText: "/messages" }).allTextContents();
    const how = { cwd: world.folder, env: { ...process.env, KEY: world.key } };
    const run = async (line) =>
      JSON.parse((await promisify(execFile)("sh", ["-c", `${line} -s`], how)).stdout);
    assert.equal((await run(line)).stored_now, false, "it is the same request");
    // Under an identity of its own it is another message, with the same text.
    const { body } = await world.ask("GET", `${profilePath(shell)}/messages`);
    assert.equal(body.items.length, 1);
    const id = /Idempotency-Key: ([^']+)/.exec(line)[1];
    assert.equal((await run(line.replace(id, uuid7()))).stored_now, true);
    const { body: after } = await world.ask("GET", `${profilePath(shell)}/messages`);
    assert.deepEqual(
      after.items.map((one) => one.message),
      [JSON.parse(message), JSON.parse(message)],
    );
    await finish(page);
  });

test("a name of dots is refused by the page, and never stands for another profile", async () => {
  await world.put("dotted", { coins: 7 });
  const page = await signedIn(chromium, world);
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  for (const path of [
    "/#/p/PlayerData/%2E%2E/dotted",
    "/#/p/PlayerData/../dotted",
    "/#/p/%2E%2E/global/dotted",
    at(".."),
    at("."),
    "/#/users?user=..",
  ]) {
    await open(page, world, "/#/account");
    await open(page, world, path);
    await sees(page, "cannot be asked for by a browser");
    assert.equal(await page.getByText("coins", { exact: true }).count(), 0, path);
  }
  assert.deepEqual(
    asked.filter((url) => /\/profiles\/|\/users\//.test(url)),
    [],
  );
  await finish(page);
});

test("a user whose number is beyond 2^53 keeps it, in the page and in its links", async () => {
  const user = "9007199254740993";
  world.import([["huge-user", { coins: 1 }, [261]]], (line) => line.replace("[261]", `[${user}]`));
  const page = await signedIn(chromium, world);
  await open(page, world, at("huge-user"));
  await page.getByRole("link", { name: user, exact: true }).click();
  await until("the user's profile is found", async () => {
    return (await keys(page)).join() === "huge-user";
  });
  assert.equal(await page.locator("#find").inputValue(), `user:${user}`);
  await finish(page);
});

test("what cannot be seen in a key, a name or a value is shown as an escape", async () => {
  for (const [key, shown] of [
    ["  spaced  out", "\\u0020\\u0020spaced\\u0020\\u0020out"],
    ["two\tcolumns", "two\\u0009columns"],
    ["\u202egnp.exe", "\\u202egnp.exe"],
    ["family 👨‍👩‍👧 שלום", "family 👨‍👩‍👧 שלום"],
  ]) {
    const made = await world.put(key, { [key]: `[${key}]`, "": 1 });
    assert.equal(made.status, 201, made.text);
    const page = await signedIn(chromium, world);
    await open(page, world, at(key));
    await page.getByRole("heading", { name: shown, exact: true }).waitFor();
    await page.locator(".tree .name").first().waitFor();
    const lines = await page.locator(".tree .name").allTextContents();
    assert.deepEqual(lines.toSorted(), [shown, '""'].toSorted());
    const value = JSON.stringify(`[${key}]`).replace("\u202e", "\\u202e");
    const codes = await page.locator(".tree code").allTextContents();
    assert.ok(codes.includes(value), `${value} in ${codes.join()}`);
    await open(page, world, "/#/find");
    await until(`${shown} is listed`, async () => (await keys(page)).includes(shown));
    await finish(page);
  }
});

test("a text keeps its line breaks when it is edited, and in a message", async () => {
  const text = "one\ntwo\r\nthree";
  await world.put("sign", { text });
  const page = await armed(at("sign", "edit?at=/text"));
  const value = page.getByLabel("Value");
  assert.equal(await value.inputValue(), JSON.stringify(text));
  await value.fill(JSON.stringify(`${text}!`));
  await page.getByLabel("Reason").fill("ticket 17");
  await page.getByRole("button", { name: "Change the profile" }).click();
  await sees(page, "It is version 2");
  assert.equal((await world.read("sign")).data.text, `${text}!`);
  await page.getByRole("link", { name: "Messages", exact: true }).click();
  await page.getByLabel("The message, as").fill(JSON.stringify({ type: "note", text }));
  // A field of its own is offered for what fits into one line.
  await page.getByRole("textbox", { name: "type", exact: true }).fill("letter");
  assert.equal(await page.getByRole("textbox", { name: "text", exact: true }).count(), 0);
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await sees(page, "It waits until the profile is played");
  const { body } = await world.ask("GET", `${profilePath("sign")}/messages`);
  assert.deepEqual(body.items[0].message, { type: "letter", text });
  await finish(page);
});

test("a filter beside a whole key is held against that profile too", async () => {
  await world.put("alone", { coins: 1 });
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/find?q=alone%20held:");
  await sees(page, "No profile is like that");
  await open(page, world, "/#/find?q=alone");
  await until("without the filter", async () => (await keys(page)).join() === "alone");
  await finish(page);
});

test("searches are kept by name in the browser, for the person who kept them", async () => {
  await world.newMember("Kim", "viewer");
  await world.newMember("Lou", "viewer");
  const page = await loggedIn(chromium, world, "Kim");
  await page.getByLabel("What is saved in it").fill("/coins > 5");
  await page.locator("#find").fill("find-");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Save this search" }).click();
  await page.getByLabel("What it is called").fill("the rich");
  await page.keyboard.press("Enter");
  const saved = page.getByRole("group", { name: "Saved searches" });
  await saved.getByRole("link", { name: "the rich" }).waitFor();
  await open(page, world, "/#/find");
  await saved.getByRole("link", { name: "the rich" }).click();
  assert.equal(await page.getByLabel("What is saved in it").inputValue(), "/coins > 5");
  await page.reload();
  await saved.getByRole("link", { name: "the rich" }).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Name").fill("Lou");
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "Find a profile" }).waitFor();
  await ready(page);
  assert.equal(await page.getByText("the rich").count(), 0, "it is not Lou's");
  // What stands in the browser may be anything.
  await page.evaluate(() => {
    for (const name of Object.keys(localStorage))
      if (name.startsWith("searches")) localStorage.setItem(name, '[{"label":1},null,"x"');
  });
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Name").fill("Kim");
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "Find a profile" }).waitFor();
  await finish(page);
});

test("the messages that a person sent are not offered to the next person", async () => {
  await world.put("secretive", { coins: 1 });
  const page = await armed(at("secretive", "send"));
  await page.getByLabel("The message, as").fill('{"type":"whisper","to":"the auditor"}');
  await page.getByLabel("Reason").fill("ticket 9");
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await sees(page, "waits until the profile is played");
  const other = await world.newKey("another", ["admin"]);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Key of the API").fill(other);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "secretive" }).waitFor();
  await arm(page);
  await page.getByLabel("The message, as").waitFor();
  const offered = await page.locator("main").innerText();
  assert.equal(offered.split("the auditor").length - 1, 1, "it waits in the inbox, and is no form");
  await finish(page);
});

test("a time that no calendar has is shown as a number", async () => {
  world.import([["timeless", { coins: 1 }]], (line) =>
    line.replaceAll(/"(created|updated)_ms":\d+/g, '"$1_ms":9000000000000000'),
  );
  const page = await signedIn(chromium, world);
  await open(page, world, at("timeless"));
  await page.getByRole("treeitem", { name: "coins 1" }).waitFor();
  await finish(page);
});

test("a profile that was removed, is damaged or is none comes back as a whole", async () => {
  const removed = await world.put("removed", { coins: 7 });
  const match = { "If-Match": removed.body.etag };
  assert.equal((await world.ask("DELETE", profilePath("removed"), undefined, match)).status, 204);
  const twice = ["foreign", { coins: 7 }];
  world.import([twice, twice], (line, at) => {
    const second = { ...JSON.parse(line), n: 2, version: "2", value: "elsewhere" };
    return at === 0 ? line : JSON.stringify(second);
  });
  const first = await world.put("damaged", { coins: 7 });
  const changed = { data: { coins: 9 } };
  const over = { "If-Match": first.body.etag };
  const { etag } = (await world.ask("PUT", profilePath("damaged"), changed, over)).body;
  const page = await armed("/#/find");
  // The store would say so of a value that is not the one that was written.
  const damaged = { status: 500, json: { kind: "damaged", detail: "it is damaged", etag } };
  await page.route(
    (url) => url.pathname.endsWith("/profiles/damaged"),
    (route) => route.fulfill(damaged),
  );
  await page.route("**/profiles/damaged/restores*", (route) =>
    route.request().postData().includes("dry_run") ? route.fulfill(damaged) : route.continue(),
  );
  for (const [key, told] of Object.entries({
    removed: "now, version 2",
    foreign: "elsewhere",
    damaged: "nothing can be compared",
  })) {
    await open(page, world, at(key, "history"));
    const line = page.locator("tr[data-version='1']");
    await line.getByRole("link", { name: "roll back" }).click();
    await page.locator("main").getByText(told).first().waitFor();
    assert.equal(await page.getByLabel("Some places").count(), 0, "it comes back as a whole");
    await page.getByLabel("Reason").fill("ticket 16");
    await page.getByRole("button", { name: "Roll the whole profile back" }).click();
    await sees(page, "Rolled back.");
    assert.equal((await world.read(key)).data.coins, 7, key);
  }
  await finish(page);
});

test("a reason that was typed in a dialog and left is in no other dialog", async () => {
  await world.put("hesitant", { coins: 1 });
  for (const by of [1, 2]) await edit(world, "hesitant", [{ op: "increase", path: "/coins", by }]);
  const page = await armed(at("hesitant", "history"));
  const reason = page.getByRole("dialog").getByLabel("Reason");
  const leave = [
    () => page.getByRole("dialog").getByRole("button", { name: "Leave it" }).click(),
    () => page.keyboard.press("Escape"),
    async () => {
      await page.goBack();
      await page.getByRole("treeitem", { name: "coins" }).waitFor();
      await page.goForward();
    },
  ];
  await open(page, world, at("hesitant"));
  await page.getByRole("link", { name: "History", exact: true }).click();
  for (const version of [1, 2, 3, 1, 2, 3]) {
    await page.getByRole("button", { name: `pin version ${version}`, exact: true }).click();
    assert.equal(await reason.inputValue(), "", `the dialog of version ${version}`);
    await reason.fill(`ticket of version ${version}`);
    await leave[version - 1]();
    await reason.waitFor({ state: "hidden" });
  }
  assert.equal(await page.locator(".tag", { hasText: "pinned" }).count(), 0);
  await finish(page);
});

test("a dialog goes when the back button leads to something else on the same page", async () => {
  world.import([
    ["of-81", { coins: 1 }, [81]],
    ["of-82", { coins: 1 }, [82]],
  ]);
  const page = await armed("/#/users?user=81");
  await page.getByRole("link", { name: "PlayerData/of-81" }).waitFor();
  await open(page, world, "/#/users?user=82");
  await page.getByLabel("Reason").fill("request of the user");
  await page.getByRole("button", { name: "Erase user 82 …" }).click();
  await page.getByRole("dialog").waitFor();
  await page.goBack();
  await page.getByRole("link", { name: "PlayerData/of-81" }).waitFor();
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await finish(page);
});

test("a click that is made twice on a slow network does one thing", async () => {
  await world.put("slow", { coins: 1 });
  const page = await armed(at("slow", "edit?at=/coins"));
  await page.getByLabel("Value; +500").fill("+10");
  await page.getByLabel("Reason").fill("ticket 10");
  const held = [];
  await page.route("**/edits?*", (route) => held.push(route));
  const change = page.getByRole("button", { name: "Change the profile" });
  await change.click();
  await until("it is under way", () => held.length === 1);
  await change.click({ force: true, timeout: 500 }).catch(() => {});
  assert.equal(held.length, 1);
  // The first answer is lost on its way; the same request again takes effect once.
  const { body } = await world.ask("GET", profilePath("slow"));
  assert.equal(body.version, 1);
  await held[0].fetch();
  await held[0].abort();
  await page.unroute("**/edits?*");
  await sees(page, "the server does not answer");
  await change.click();
  await sees(page, "It is version 2");
  assert.equal((await world.read("slow")).data.coins, 11);
  await finish(page);
});

test("a log-in in a second tab is one in the first, with nothing of the other person", async () => {
  await world.newMember("Mia", "support");
  await world.newMember("Ned", "support");
  await world.put("tabs", { coins: 1 });
  const page = await loggedIn(chromium, world, "Mia");
  await open(page, world, at("tabs", "edit?at=/coins"));
  await arm(page);
  await page.getByLabel("Value; +500").fill("+7");
  await page.getByLabel("Reason").fill("a word of Mia's");
  const other = await page.context().newPage();
  await other.goto(`${world.url}/`);
  await sees(other, "Mia (support)");
  await other.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  await logIn(other, "Ned");
  await sees(page, "Ned (support)");
  await page.getByRole("switch", { name: "Read-only" }).waitFor();
  await arm(page);
  await page.getByLabel("A place").waitFor();
  assert.equal(await page.getByLabel("Reason").inputValue(), "");
  assert.equal((await world.read("tabs")).version, 1);
  await finish(page);
});

test("on a slow network nothing of one user stands under the name of another", async () => {
  world.import([
    ["of-one", { coins: 1 }, [71]],
    ["of-two", { coins: 1 }, [72]],
  ]);
  const page = await signedIn(chromium, world);
  await open(page, world, "/#/users?user=71");
  await page.getByRole("link", { name: "PlayerData/of-one" }).waitFor();
  let fails = true;
  const held = [];
  await page.route("**/v1/users/72/**", (route) => (fails ? held.push(route) : route.continue()));
  await page.getByLabel("The user's number").fill("72");
  await page.keyboard.press("Enter");
  await until("the second user is asked for", () => held.length === 1);
  assert.equal(await page.getByText("of-one").count(), 0);
  await held[0].fulfill({ status: 503, body: "" });
  await sees(page, "the server answered 503");
  fails = false;
  await page.getByRole("button", { name: "Try again" }).click();
  await page.getByRole("link", { name: "PlayerData/of-two" }).waitFor();
  assert.deepEqual(await keys(page), ["PlayerData/of-two"]);
  await finish(page);
});
