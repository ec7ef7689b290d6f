// Who is logged in, what that allows, and whether changes are switched on. The API enforces all of
// it; the console only does not offer what it would refuse.

import {
  ask,
  connection,
  fetched,
  onReadOnly,
  onUnauthorized,
  Refusal,
  useKey,
} from "./api.svelte";
import { clock } from "./clock";
import { keepFor } from "./kept";
import { live } from "./live.svelte";

/** How long the switch stays on, for a visit with a key. */
const ARMED_MS = 15 * 60_000;

/** How often a server that does not answer is asked whether it is there again. */
const LOOK_MS = 3000;

export interface Me {
  kind: "member" | "key";
  name: string;
  id: string;
  role: string | null;
  scopes: string[];
  stores: string[] | null;
  prefix: string | null;
  armed_until_ms: number | null;
}

type State = "asking" | "out" | "in" | "offline";

class Session {
  state = $state<State>("asking");
  me = $state<Me | null>(null);
  /** Why there is no session, for the page that asks for one. */
  why = $state("");
  /** Whether the first member is yet to be made. */
  isOpen = $state(false);
  /** The server's time, as far as known. It ticks once a second. */
  now = $state(clock.now());
  #armedUntil = $state(0);

  /** Tabs of one browser share the cookie of a log-in: who logs in or out there does so here. */
  #tabs = new BroadcastChannel("profilestore: log-in");

  constructor() {
    setInterval(() => this.#tick(), 1000);
    onUnauthorized.run = () => this.#lost();
    onReadOnly.run = () => (this.#armedUntil = 0);
    this.#tabs.onmessage = () => {
      if (!connection.key) void this.#again();
    };
  }

  /** Another tab has logged in or out. */
  async #again() {
    const before = this.me?.name;
    await this.begin(true);
    if (this.state === "in" && before !== undefined && before !== this.me?.name)
      connection.made = [];
  }

  #tick() {
    this.now = clock.now();
    if (connection.silentSince && this.state === "in") void this.#look();
  }

  #looked = 0;
  #isLooking = false;

  /** Whether a server that did not answer is there again, without waiting for a click. */
  async #look() {
    if (this.#isLooking || performance.now() - this.#looked < LOOK_MS) return;
    this.#isLooking = true;
    await fetched({ path: "/healthz" }).catch(() => null);
    this.#looked = performance.now();
    this.#isLooking = false;
  }

  #lost() {
    if (this.state !== "in") return;
    useKey("");
    connection.made = [];
    this.state = "out";
    this.why =
      "The server does not know this key or log-in any more. Sign in again: what you typed is " +
      "still there.";
  }

  /** Finds out who is there; quietly, while the page stays. */
  async begin(quietly = false) {
    if (!quietly) this.state = "asking";
    try {
      this.isOpen = (await ask<{ is_open: boolean }>({ path: "/v1/setup" })).body.is_open;
      const me = await this.#who();
      if (me === null) this.state = "out";
      else this.enter(me);
    } catch (error) {
      // The page tells by itself that nothing answers.
      if (quietly && error instanceof Refusal && error.isOffline) return;
      if (error instanceof Refusal && error.isOffline) this.state = "offline";
      else if (error instanceof Refusal && error.status === 401) this.state = "out";
      else {
        this.state = "out";
        this.why = error instanceof Error ? error.message : String(error);
      }
    }
  }

  async #who(): Promise<Me | null> {
    try {
      return (await ask<Me>({ path: "/v1/me" })).body;
    } catch (error) {
      if (!(error instanceof Refusal) || error.status !== 401) throw error;
      if (connection.key) this.why = `The server refuses this key: ${error.message}.`;
      useKey("");
      return null;
    }
  }

  enter(me: Me) {
    this.#tick();
    if (me.name !== this.me?.name) live.forget();
    keepFor(`${me.kind} ${me.name} ${me.kind === "key" ? me.id : ""}`);
    this.me = me;
    this.why = "";
    this.#armedUntil = me.armed_until_ms ?? 0;
    this.state = "in";
  }

  async signInWithKey(key: string) {
    useKey(key);
    await this.begin();
    if (this.state !== "in") useKey("");
  }

  async signInWithPassword(name: string, password: string) {
    const body = JSON.stringify({ name, password });
    const me = await ask<Me>({ method: "POST", path: "/v1/login", body });
    this.enter(me.body);
    this.#tabs.postMessage("in");
  }

  async signOut() {
    if (this.me?.kind === "member") {
      await ask({ method: "POST", path: "/v1/logout" }).catch(none);
      this.#tabs.postMessage("out");
    }
    useKey("");
    keepFor("");
    connection.made = [];
    this.me = null;
    this.why = "";
    this.#armedUntil = 0;
    this.state = "out";
  }

  /** Whether the API lets the caller use one of these scopes somewhere; `member` is who logs in. */
  may(...scopes: string[]): boolean {
    const me = this.me;
    if (me === null) return false;
    const has = (scope: string) =>
      scope === "member" ? me.kind === "member" : me.scopes.includes(scope);
    return scopes.some((scope) => has(scope) || (scope !== "member" && has("admin")));
  }

  /** Whether the caller reaches some profiles only, and so nothing that crosses stores. */
  get isNarrowed(): boolean {
    return this.me !== null && (this.me.stores !== null || this.me.prefix !== null);
  }

  /** Whether the caller reads the audit log. It crosses stores. */
  get mayAudit(): boolean {
    return this.may("audit:read") && !this.isNarrowed;
  }

  /** Whether the caller may change anything at all. */
  get mayChange(): boolean {
    return this.may(...CHANGING);
  }

  get armedFor(): number {
    return Math.max(0, this.#armedUntil - this.now);
  }

  /** Whether changes are switched on. */
  get armed(): boolean {
    return this.armedFor > 0;
  }

  async arm() {
    if (this.me?.kind === "member") {
      const answer = await ask<{ armed_until_ms: number }>({ method: "POST", path: "/v1/arm" });
      this.#armedUntil = answer.body.armed_until_ms;
    } else this.#armedUntil = clock.now() + ARMED_MS;
    this.#tick();
  }

  async disarm() {
    if (this.me?.kind === "member") await ask({ method: "DELETE", path: "/v1/arm" });
    this.#armedUntil = 0;
  }
}

const CHANGING = [
  "profiles:write",
  "messages:send",
  "edits:single",
  "edits:bulk",
  "history:restore",
  "users:erase",
  "sessions:end",
  "admin",
];

const none = (error: unknown) => {
  if (error instanceof Refusal && error.isOffline) throw error;
  return null;
};

export const session = new Session();
