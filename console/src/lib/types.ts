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
}

export interface Profile {
  store: string;
  scope: string;
  key: string;
  version: number;
  etag: string | null;
  data: Json;
  user_ids: number[];
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
}

export interface Message {
  index: number;
  id: string;
  sent_ms: number;
  message: Json;
}
