/** The kit's driver for TypeScript: JSON lines over standard input and output (docs/sdk.md). */
import { createInterface } from "node:readline";
import { connect, ProfileError } from "../sdk/typescript/dist/index.js";
import { Belief, activeUntil } from "../sdk/typescript/dist/belief.js";
import { pause } from "../sdk/typescript/dist/connection.js";
import { fromServer } from "../sdk/typescript/dist/errors.js";
import { parse, stringify } from "../sdk/typescript/dist/json.js";
import { edited } from "../sdk/typescript/dist/session/edit.js";

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const tell = (name, as = "", more = {}) => say({ event: { name, as, ...more } });
process.on("unhandledRejection", (why) => tell("fault", "", { message: String(why) }));

function gift(data, message, { id }) {
  if (message.broken) {
    data.gifts = -1;
    throw new Error("no room");
  }
  data.got ??= {};
  data.got[id] = (data.got[id] ?? 0) + 1;
  data.gifts = (data.gifts ?? 0) + message.coins;
}

function change(data, command) {
  for (const [name, by] of Object.entries(command.add ?? {})) data[name] = (data[name] ?? 0) + by;
  for (const [name, value] of Object.entries(command.set ?? {})) data[name] = value;
  for (const [name, count] of Object.entries(command.fill ?? {})) data[name] = "x".repeat(count);
  if (command.push !== undefined) data.items.push(command.push);
  if (command.raise) throw new Error("of the game");
}

function move(giver, taker, command) {
  const item = command.move === "last" ? giver.items.at(-1) : command.move;
  if (item !== undefined) {
    giver.items.splice(giver.items.indexOf(item), 1);
    taker.items.push(item);
  }
  if (command.raise) throw new Error("of the game");
}

function noDebts(data) {
  if (data.coins < 0) throw new Error("debts are not allowed");
}

let server;
let options;
const sessions = new Map();
const starts = new Map();
const session = (command) => sessions.get(command.as);

function store(command) {
  return server.store(options.store, {
    template: command.template ?? options.template,
    reconcile: command.reconcile ?? false,
    check: noDebts,
    saveWithinMs: command.save_within_ms ?? 60_000,
    dataVersion: command.data_version,
  });
}

const commands = {
  async connect(command) {
    options = command;
    server = await connect(command.urls, {
      key: command.key,
      job: command.job,
      leaseMs: command.lease_ms,
      onFault: (fault) => tell("fault", "", { message: String(fault) }),
    });
  },

  async start(command) {
    const { as, key, later, when_held: whenHeld, timeout_ms: timeoutMs } = command;
    const off = new AbortController();
    starts.set(later, off);
    const profile = await store(command).start(key, { signal: off.signal, whenHeld, timeoutMs });
    sessions.set(as, profile);
    profile.on("end", ({ reason, by, hasLoss }) =>
      tell("end", as, { reason, by: by?.server ?? by?.operator ?? null, loss: hasLoss }),
    );
    profile.on("release", () => tell("release", as));
    profile.on("save-failed", ({ kind }) => tell("save-failed", as, { kind }));
    profile.on("message-failed", ({ id }) => tell("message-failed", as, { id }));
    if (command.last) profile.onLastSave((data) => change(data, command.last));
    if (command.messages) profile.onMessage("gift", gift);
    return { data: profile.data, version: profile.version };
  },

  call_off: (command) => starts.get(command.of).abort(),

  messages: (command) => session(command).onMessage("gift", gift),

  update(command) {
    session(command).update((data) => change(data, command));
    return { data: session(command).data };
  },

  beside(command) {
    const profile = session(command);
    if (command.tags !== undefined) profile.setTags(command.tags);
    if (command.metadata !== undefined) profile.setMetadata(command.metadata);
    if (command.user !== undefined) profile.addUser(command.user);
    const { tags, metadata, users } = profile;
    return { tags, metadata, users };
  },

  data: (command) => ({ data: session(command).data }),

  state(command) {
    const { isActive, hasUnsaved, ended } = session(command);
    return { active: isActive, unsaved: hasUnsaved, ended: ended?.reason ?? null };
  },

  async save(command) {
    const { data } = session(command);
    await session(command).save();
    return { data };
  },

  async end(command) {
    await session(command).end();
    return { data: session(command).data };
  },

  async trade(command) {
    const to = command.gift;
    const message = { type: "gift", coins: to?.coins };
    const gifts = to === undefined ? [] : [store({}).gift(to.key, message, to.id)];
    const pair = [session(command), sessions.get(command.to)];
    let left;
    const make = ([giver, taker]) => {
      move(giver, taker, command);
      left = [giver, taker];
    };
    await server.transaction(pair, make, { gifts });
    return { data: left };
  },

  async send({ key, coins, broken = false, pad, id_of_message: id }) {
    const message = { type: "gift", coins, broken, pad: pad && "x".repeat(pad) };
    return { stored_now: await store({}).send(key, message, id) };
  },

  async close({ timeout_ms: timeoutMs = 60_000 }) {
    const open = server.profiles;
    const unsaved = await server.close({ timeoutMs });
    const saved = open.filter((profile) => !unsaved.includes(profile));
    return { unsaved: unsaved.map(({ key }) => key), data: saved.map(({ data }) => data) };
  },

  vector(command) {
    switch (command.rule) {
      case "json":
        return stringify(parse(command.text, { bigint: true }), { bigint: true });
      case "edit":
        return edited(command.data, command.steps);
      case "belief": {
        const { ping, age, lease, at } = command;
        if (at === undefined) return activeUntil(ping, age, lease);
        const belief = new Belief();
        belief.note("a", { steady: ping, wall: command.ping_wall }, age, lease);
        return belief.holds(command.incarnation, { steady: at, wall: command.at_wall });
      }
      case "pause":
        return pause(command.failures, command.chance);
      default: {
        const { kind, advice } = fromServer(command.text, command.status);
        return { kind, advice };
      }
    }
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  void (async () => commands[command.do](command))().then(
    (ok) => say({ id: command.id, ok: ok ?? null }),
    (error) => {
      const { kind, advice } = error instanceof ProfileError ? error : { kind: "raised" };
      say({ id: command.id, error: { kind, advice: advice ?? "fix", message: String(error) } });
    },
  );
}
process.exit(0);
