// What the API answers, as far as the console reads it.

import type { Json } from "./json";

export interface Page<T> {
  items: T[];
  next_page_token: string | null;
}

export interface Holder {
  job: string;
  place: number;
  since_ms: number;
  server: "alive" | "silent" | "dead" | "unknown";
  asked_for_by: string | null;
}

export interface Row {
  store: string;
  scope: string;
  key: string;
  version: number;
  created_ms: number;
  stored_ms: number | null;
  bytes: number | null;
  author: string | null;
  held: Holder | null;
  /** Where it was asked for. */
  messages_waiting: number | null;
}

/** A page of a search. */
export interface Found extends Page<Row> {
  found_by: "index" | "scan";
  scanned: number;
  unreadable: { profile: string; why: string }[];
}

export interface Profile {
  store: string;
  scope: string;
  key: string;
  version: number;
  etag: string | null;
  data: Json;
  user_ids: (number | string)[];
  tags: Json;
  metadata: Json;
  created_ms: number;
  stored_ms: number;
  cause: string;
  author: string;
  held: Holder | null;
  messages_waiting: number;
}

export interface Version {
  version: number;
  label: string;
  written_ms: number;
  stored_ms: number;
  superseded_ms: number | null;
  removed: boolean;
  cause: string;
  author: string;
  load_count: number;
  pinned: boolean;
  bytes: number;
}

export interface Difference {
  path: string;
  before?: Json;
  after?: Json;
}

export interface Entry {
  operation: string;
  began_ms: number;
  stored_ms: number;
  action: string;
  keys: { store: string; scope: string; key: string }[];
  author: string;
  reason?: string;
  outcome: "pending" | "done" | "refused";
  why?: string;
  details: Record<string, unknown>;
}

export interface Server {
  id: string;
  job: string;
  place: number;
  state: "alive" | "silent" | "dead";
  started_ms: number;
  renewed_ms: number;
  lease_ms: number;
  /** The process that hosts it; none: it hosts itself. */
  host: string | null;
  hosted_here: boolean;
  /** Known to the process that hosts it. */
  sdk: string | null;
}

export interface Message {
  index: number;
  id: string;
  sent_ms: number;
  message: Json;
}

/** What the commit of a version did beyond the profile. */
export interface Exchange {
  version: number;
  at_ms: number;
  /** Ids of messages. */
  taken?: string[];
  sent?: { to: { store: string; scope: string; key: string }; id: string }[];
  trade?: { id: string; with: { store: string; scope: string; key: string }[] };
  /** How many more messages there were. */
  left_out?: number;
}

/** What became, or would become, of the profiles of a bulk edit. */
export interface Counts {
  changed: number;
  unchanged: number;
  refused: number;
  unmatched: number;
  skipped: number;
  before: number;
}

/** An edit of many profiles. */
export interface Bulk {
  operation: string;
  state: "running" | "paused" | "done" | "undone";
  store: string;
  scope: string | null;
  prefix: string | null;
  where: string | null;
  operations: unknown;
  back_to: { at_ms: number; paths: string[] } | null;
  undoes: string | null;
  undone_by: string | null;
  author: string;
  reason: string;
  began_ms: number;
  total: number | null;
  done: number;
  waiting: number;
  counts: Counts | null;
  refused: { profile: string; why: string }[];
  error: string | null;
}

/** What a bulk edit would do to the profiles that were looked at. */
export interface Preview {
  counts: Counts;
  held: number;
  refused: { reason: string; count: number; example: string }[];
  samples: { profile: string; changes: Difference[] }[];
  scanned: number;
  next_page_token: string | null;
}

/** What a server process does at a moment. */
export interface LiveView {
  at_ms: number;
  sessions: number;
  connections: number;
  servers: number | null;
  starts: number;
  saves: number;
  hand_overs: number;
  /** Of about the last minute; none: nothing was handed over. */
  hand_over_p50_ms: number | null;
  hand_over_p99_ms: number | null;
  messages: number;
  errors: Record<string, number>;
  is_critical: boolean;
}

export interface Member {
  name: string;
  role: string;
  stores: string[] | null;
  disabled: boolean;
  created_ms: number;
  last_login_ms: number | null;
}

export interface Key {
  id: string;
  name: string;
  scopes: string[];
  store?: string;
  prefix?: string;
  created_ms: number;
  expires_ms?: number;
  revoked_ms?: number;
  last_used_ms?: number;
}

export interface Role {
  role: string;
  scopes: string[];
}

export interface Login {
  id: string;
  name: string;
  since_ms: number;
  expires_ms: number;
  address: string;
  armed_until_ms: number | null;
  current: boolean;
}
