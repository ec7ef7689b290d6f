/** One-shot work over HTTP: web shops, bots and operators need no session. */
import { randomBytes, randomUUID } from "node:crypto";
import { failure, fromServer, inWords, ProfileError, quiet } from "./errors.js";
import { HALVES, members, parse, stringify, type Numbers } from "./json.js";
import { fields, text, whole, wrong } from "./options.js";
import type { Table } from "./session/beside.js";
import type { User } from "./session/users.js";

/** Which profile. The scope is `global` by default. */
export interface Address {
  readonly store: string;
  readonly scope?: string | undefined;
  readonly key: string;
}

/** Who holds a profile. */
export interface HeldBy {
  readonly job: string;
  readonly place: number;
  readonly since_ms: number;
  readonly server: "alive" | "silent" | "dead" | "unknown";
  readonly asked_for_by: string | null;
}

/** A profile as it is stored. What a holder has not saved yet is not in it. */
export interface StoredProfile<T = unknown> {
  readonly store: string;
  readonly scope: string;
  readonly key: string;
  readonly version: number;
  /** For `If-Match`. */
  readonly etag: string | null;
  readonly data: T;
  readonly user_ids: readonly User[];
  readonly tags: Table;
  readonly metadata: Table;
  readonly created_ms: number;
  readonly stored_ms: number;
  readonly cause: string;
  readonly author: string;
  readonly held: HeldBy | null;
  readonly messages_waiting: number;
}

/** One of a profile's versions, without its data. `label` is a name that stays when it is moved. */
export interface Version {
  readonly version: number;
  readonly label: string;
  readonly written_ms: number;
  readonly stored_ms: number;
  readonly superseded_ms: number | null;
  readonly removed: boolean;
  readonly cause: string;
  readonly author: string;
  readonly load_count: number;
  readonly pinned: boolean;
  readonly bytes: number;
}

/** What a rollback did. */
export interface Restored {
  /** The version that was made current again, the one until then, and the new one. */
  readonly restored: number;
  readonly replaced: number;
  readonly version: number;
  /** For `If-Match`. Null when the same request had been answered before. */
  readonly etag: string | null;
  /** The job whose session was ended. */
  readonly held_by: string | null;
}

/** A message that waits in an inbox. */
export interface Waiting {
  /** Its number in the inbox. */
  readonly index: number;
  /** TIME:NAME. */
  readonly id: string;
  readonly sent_ms: number;
  readonly message: unknown;
}

/** The session on a profile. */
export interface Holding {
  readonly held: HeldBy | null;
  /** It grows with each session. */
  readonly epoch: number;
  /** How many sessions have been started. */
  readonly load_count: number;
  /** It was let go for a server that asked, which has not taken it yet. */
  readonly offered: boolean;
}

/** Some of a list. With `next_page_token` as `page_token` of the next call the list goes on. */
export interface Page<Item> {
  readonly items: readonly Item[];
  readonly next_page_token: string | null;
}

/** What a call brings beside its path. */
export interface Call {
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>> | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** The body's JSON text, and its media type if that is not `application/json`. */
  readonly body?: string | undefined;
  readonly type?: string | undefined;
}

/** What the audit log is told, and the operation's id: the same one again does nothing twice. */
export interface Why {
  readonly reason?: string | undefined;
  readonly operation?: string | undefined;
}

/** How a session is ended. */
export interface Ending {
  readonly steal?: boolean | undefined;
  readonly epoch?: number | undefined;
  readonly reason?: string | undefined;
}

const CALL_MS = 60_000;

/** The key sends more than it may. The server says when to try again. */
const TOO_MANY = "too-many-requests";
const PLAIN: Numbers = { bigint: false };
/** What a game has put there, so that its numbers are the store's. */
const OF_GAME = new Set(["data", "tags", "metadata"]);

/** The id of an operation: a UUID of version 7. The same one again does nothing twice. */
export function operationId(): string {
  const time = Date.now().toString(16).padStart(12, "0");
  const random = randomBytes(10).toString("hex");
  const variant = (8 + (parseInt(random.charAt(3), 16) % 4)).toString(16);
  return [
    time.slice(0, 8),
    time.slice(8),
    `7${random.slice(0, 3)}`,
    variant + random.slice(4, 7),
    random.slice(7, 19),
  ].join("-");
}

/** The id of a message: when, and what for. The same one again sends nothing twice. */
export function messageId(name: string = randomUUID(), at: number = Date.now()): string {
  return `${whole("at", at)}:${name}`;
}

/** Calls to a server process. A key with the scopes that the calls need is enough. */
export class Http {
  constructor(
    /** Such as `http://127.0.0.1:7400`. */
    readonly url: string,
    readonly key: string,
  ) {
    if (!/^https?:\/\/\S+$/.test(text("url", url)) || !URL.canParse(url)) {
      const told = "an address begins with http:// or https://, and has no space";
      throw failure("invalid", `${told}: given=\`${url}\``);
    }
    // Such as one from a file, with the end of its line.
    if (!/^[\x21-\x7e]+$/.test(text("key", key))) {
      throw failure("invalid", "a key has letters, digits and underscores, and no space");
    }
  }

  /**
   * Any resource that `/docs` of the server names. Answers with the text. When the key sends more
   * than it may, it waits as long as the server says, for 60 s at most.
   */
  call(method: string, path: string, call: Call = {}): Promise<string> {
    return quiet(this.#call(method, path, call));
  }

  async #call(method: string, path: string, call: Call): Promise<string> {
    const { query = {}, headers, body, type } = fields("call", call);
    text("method", method);
    // Spaces at its end, tabs and line breaks are taken away by a URL.
    if (!/^\/[^\0-\x20]*$/.test(text("path", path))) {
      const detail = "a path begins with `/`, and its parts are encoded (encodeURIComponent)";
      throw failure("invalid", `${detail}: ${JSON.stringify(path)}`);
    }
    refuseDots(unhalved("path", path));
    const url = new URL(this.url.replace(/\/+$/, "") + path);
    for (const [name, value] of Object.entries(fields("query", query))) {
      if (value !== undefined) url.searchParams.set(name, unhalved(name, String(value)));
    }
    const how: RequestInit = {
      method,
      headers: {
        Authorization: `Bearer ${this.key}`,
        ...(body === undefined ? {} : { "Content-Type": type ?? "application/json" }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: unhalved("body", text("body", body)) }),
    };
    try {
      new Request(url, how);
    } catch (thrown) {
      // Such as a header with a line break: it never can be sent.
      throw failure("invalid", `${method} ${path}: ${inWords(thrown)}`, thrown);
    }
    const until = Date.now() + CALL_MS;
    for (;;) {
      let response: Response;
      let answer: string;
      try {
        response = await fetch(url, { ...how, signal: AbortSignal.timeout(CALL_MS) });
        answer = await response.text();
      } catch (thrown) {
        throw failure("unavailable", `${method} ${path}: ${inWords(thrown)}`, thrown);
      }
      if (response.status < 400) return answer;
      const refused = fromServer(answer, response.status);
      const wait = retryAfterMs(response);
      // Nothing was done, so whatever the request is, it can be sent again.
      if (refused.kind !== TOO_MANY || Date.now() + wait > until) throw refused;
      await new Promise((done) => setTimeout(done, wait));
    }
  }

  async #json<R>(method: string, path: string, call: Call = {}, data: Numbers = PLAIN): Promise<R> {
    const body: Record<string, unknown> = {};
    for (const [name, value] of members(await this.#call(method, path, call))) {
      body[name] = parse(value, OF_GAME.has(name) ? data : PLAIN);
    }
    return body as R;
  }

  /** A profile, or undefined when there is none. */
  get<T = unknown>(at: Address, numbers: Numbers = PLAIN): Promise<StoredProfile<T> | undefined> {
    const read = this.#json<StoredProfile<T>>("GET", path(at), {}, numbers);
    return quiet(
      read.catch((error: unknown) => {
        if (error instanceof ProfileError && error.kind === "not-found") return undefined;
        throw error;
      }),
    );
  }

  /** Writes a profile that no session holds, if it is still the one with this ETag. */
  put(
    at: Address,
    data: unknown,
    etag: string | undefined,
    numbers: Numbers = PLAIN,
  ): Promise<unknown> {
    const headers = expected(etag);
    const body = `{"data":${stringify(data, numbers)}}`;
    return quiet(this.#json("PUT", path(at), { headers, body }));
  }

  /** The profiles of a store. The query's members are in the server's `/docs`. */
  list(store: string, query: Call["query"] = {}): Promise<Page<Record<string, unknown>>> {
    return quiet(this.#json("GET", `/v1/stores/${part("store", store)}/profiles`, { query }));
  }

  /** A profile's versions, the newest first. */
  versions(at: Address, query: Call["query"] = {}): Promise<Page<Version>> {
    return quiet(this.#json("GET", `${path(at)}/versions`, { query }));
  }

  /** An earlier version: by its number, its label, or as it was at a time. */
  version<T = unknown>(
    at: Address,
    which: number | string | Date,
    numbers: Numbers = PLAIN,
  ): Promise<StoredProfile<T>> {
    const name = part("which", named(which));
    return quiet(this.#json("GET", `${path(at)}/versions/${name}`, {}, numbers));
  }

  /**
   * Makes an earlier version current again, if the profile is still the one with this ETag;
   * undefined: if there is none now. What a session has not saved is lost.
   */
  restore(
    at: Address,
    which: number | string | Date,
    etag: string | undefined,
    { reason, operation = operationId() }: Why = {},
  ): Promise<Restored> {
    const body = JSON.stringify({ version: named(which) });
    return quiet(
      this.#json("POST", `${path(at)}/restores`, {
        body,
        query: { reason },
        headers: { "Idempotency-Key": operation, ...expected(etag) },
      }),
    );
  }

  /** A JSON Patch, made by the game server that holds the profile, in the middle of play. */
  edit(
    at: Address,
    patch: readonly object[],
    { reason, operation = operationId() }: Why = {},
    numbers: Numbers = PLAIN,
  ): Promise<unknown> {
    return quiet(
      this.#json("POST", `${path(at)}/edits`, {
        body: stringify(patch, numbers),
        type: "application/json-patch+json",
        query: { reason },
        headers: { "Idempotency-Key": operation },
      }),
    );
  }

  /** Sends a message. With the same id again it sends nothing twice. */
  send(
    at: Address,
    message: unknown,
    id: string = messageId(),
    numbers: Numbers = PLAIN,
  ): Promise<{ readonly id: string; readonly stored_now: boolean }> {
    const body = `{"message":${stringify(message, numbers)}}`;
    const headers = { "Idempotency-Key": id };
    return quiet(this.#json("POST", `${path(at)}/messages`, { body, headers }));
  }

  /** The messages that wait in a profile's inbox, the oldest first. */
  messages(at: Address): Promise<{ readonly items: readonly Waiting[] }> {
    return quiet(this.#json("GET", `${path(at)}/messages`));
  }

  /** Who holds a profile, and how often it has changed hands. */
  session(at: Address): Promise<Holding> {
    return quiet(this.#json("GET", `${path(at)}/session`));
  }

  /**
   * Asks the holder to save and let go. With `steal` it is not asked, and its play is lost. With
   * `epoch`, as `session` gives it, only that session is ended: a later one is left alone, which is
   * an error of the kind `changed`.
   */
  endSession(
    at: Address,
    { steal, epoch, reason }: Ending = {},
  ): Promise<{ readonly held_by: string | null }> {
    const query = { steal, epoch: whole("epoch", epoch), reason };
    return quiet(this.#json("DELETE", `${path(at)}/session`, { query }));
  }
}

/** A part of a path. */
function part(what: string, name: unknown): string {
  return encodeURIComponent(unhalved(what, text(what, name)));
}

/** The same text, which has whole characters only: half of one would become another one. */
function unhalved(what: string, given: string): string {
  if (given.search(HALVES) < 0) return given;
  throw failure("invalid", `half of a character (a lone surrogate) is in \`${what}\``);
}

function path(at: Address): string {
  const { store, scope, key } = fields("at", at);
  const within = scope === undefined ? "" : `/scopes/${part("scope", scope)}`;
  const of = `/v1/stores/${part("store", store)}${within}/profiles/${part("key", key)}`;
  refuseDots(of);
  return of;
}

/** A URL takes the parts `.` and `..` away, and would name something else. */
function refuseDots(path: string): void {
  const [resource = ""] = path.split(/[?#]/);
  const dots = resource.split(/[/\\]/).find((one) => /^(\.|%2e){1,2}$/i.test(one));
  if (dots === undefined) return;
  const detail = `over HTTP no store, scope or key is called \`${dots}\``;
  throw failure("invalid", `${detail}; the program \`profilestore\` takes such names`);
}

function retryAfterMs(response: Response): number {
  const told = response.headers.get("Retry-After") ?? "";
  return /^\d+$/.test(told) ? Number(told) * 1000 : 1000;
}

function expected(etag: string | undefined): Record<string, string> {
  return etag === undefined ? { "If-None-Match": "*" } : { "If-Match": text("etag", etag) };
}

function named(which: number | string | Date): string {
  if (typeof which === "string") return which;
  if (Number.isSafeInteger(which)) return String(which);
  if (which instanceof Date && !Number.isNaN(which.getTime())) return `@${which.toISOString()}`;
  throw wrong("which", "a version's number, its label, or a time", which);
}
