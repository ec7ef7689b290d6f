/** The frames of `profilestore.v1+json`. Documents stay text. */
import { failure, type Problem } from "./errors.js";
import { members } from "./json.js";
import type { Table } from "./session/beside.js";
import type { User } from "./session/users.js";

export const PROTOCOL = "profilestore.v1+json";

/** A game server, as others see it. */
export interface ByServer {
  readonly job: string;
  readonly place: number;
}

/** Who asked for a profile. */
export type Asker = { server: ByServer } | { operator: { name: string; reason: string } };

/** What is stored beside a profile's data. */
export interface Meta {
  readonly user_ids: readonly User[];
  readonly tags: Table;
  readonly metadata: Table;
  readonly load_count: number;
  readonly created_s: number;
}

export type ResumedAs = "same" | "anew" | "replaced";

/** What the server says, by the frame's name. `data`, `meta`, `body` and `changes` are texts. */
export interface ServerFrames {
  welcome: {
    incarnation: string;
    token: string;
    store: string;
    lease_ms: number;
    max_frame: number;
    resumed: ResumedAs | null;
  };
  resumed: { s: number; version: number };
  lost: { s: number; by: ByServer | null };
  pong: { n: number; incarnation: string; age: number };
  heard: { n: number };
  started: { i: number; s: number; epoch: number; version: number; data: string; meta: string };
  saved: { i: number; s: number; n: number; version: number | null };
  ended: { i: number };
  done: { i: number; versions: number[] };
  sent: { i: number; stored_now: boolean };
  error: { i: number | null; problem: Problem };
  overloaded: { i: number; retry_after_ms: number };
  release: { s: number; by: Asker; deadline_ms: number };
  closed: { s: number; n: number | null; why: string; by: ByServer | null };
  message: { s: number; index: number; id: string; sent_ms: number; body: string };
  edit: { s: number; op: string; changes: string; by: string; reason: string };
  goaway: { after_ms: number };
  stopped: { why: string };
}

export type ServerFrame = {
  [Name in keyof ServerFrames]: [Name, ServerFrames[Name]];
}[keyof ServerFrames];

/** What belongs to one session and is no answer to a request. */
export type SessionFrame = Extract<
  ServerFrame,
  ["resumed" | "lost" | "release" | "closed" | "message" | "edit", unknown]
>;

const TEXTS = new Set(["data", "meta", "body", "changes"]);

/** Reads a frame. One with a name from the future is none of the names above. */
export function read(text: string): ServerFrame {
  for (const [name, content] of members(text)) {
    const body: Record<string, unknown> = {};
    for (const [member, value] of members(content)) {
      body[member] = TEXTS.has(member) ? value : (JSON.parse(value) as unknown);
    }
    return [name, body] as unknown as ServerFrame;
  }
  throw failure("invalid", "the server sent an empty frame");
}

/** One frame. `raw` are members that are JSON texts already; undefined is left out. */
export function compose(
  name: string,
  body: object,
  raw: Record<string, string | undefined> = {},
): string {
  const known = JSON.stringify(body).slice(1, -1);
  const told = Object.entries(raw).filter(([, text]) => text !== undefined);
  const texts = told.map(([member, text]) => `"${member}":${text}`);
  return `{"${name}":{${[...(known === "" ? [] : [known]), ...texts].join(",")}}}`;
}
