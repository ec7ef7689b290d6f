// The public HTTP API, and nothing else.

import { clock } from "./clock";
import { type Json, parse, parseAnswer, plain } from "./json";

/** Why a request did not do what it should. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly kind: string,
    detail: string,
    readonly advice: string,
    readonly instance: string | undefined,
    readonly retryAfter: number | undefined,
    /** Of a profile that is there and cannot be read: for If-Match. */
    readonly etag?: string,
  ) {
    super(detail);
  }

  /** Nothing came back: whether the request took effect is not known. */
  get isOffline(): boolean {
    return this.status === 0;
  }
}

export interface Call {
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  path: string;
  query?: Record<string, string | undefined>;
  headers?: Record<string, string>;
  body?: string;
  media?: string;
  signal?: AbortSignal;
  /** It has a password in it: that one may be wrong, and the log-in goes on. */
  guesses?: true;
}

export interface Answer<T> {
  status: number;
  headers: Headers;
  /** The answer with plain objects; what is the game's stays `Json`. */
  body: T;
  /** The same, with nothing rounded. */
  json: Json;
}

/** A change that was made from this page, as a line for a shell. */
export interface Made {
  at: number;
  what: string;
  line: string;
}

export const connection = $state({
  key: sessionStorage.getItem("key") ?? "",
  /** Since when the server has not answered; 0 while it does. */
  silentSince: 0,
  made: [] as Made[],
});

/** Called when the server does not know the caller any more. */
export const onUnauthorized = { run: () => {} };

/** Called when changes turn out to be off, perhaps since another tab switched them off. */
export const onReadOnly = { run: () => {} };

export function useKey(key: string) {
  connection.key = key;
  if (key) sessionStorage.setItem("key", key);
  else sessionStorage.removeItem("key");
}

function target({ path, query = {} }: Call): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) params.set(name, value);
  const text = params.toString();
  return path + (text && `?${text}`);
}

const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

/** The same request for a shell. The key itself is not in it. */
export function curl(call: Call): string {
  const words = ["curl"];
  if (call.method && call.method !== "GET") words.push("-X", call.method);
  words.push(quoted(location.origin + target(call)), "-H", '"Authorization: Bearer $KEY"');
  for (const [name, value] of Object.entries(headers(call)))
    if (name !== "Authorization") words.push("-H", quoted(`${name}: ${value}`));
  if (call.body !== undefined) words.push("-d", quoted(call.body));
  return words.join(" ");
}

function headers(call: Call): Record<string, string> {
  const all: Record<string, string> = { ...call.headers };
  if (connection.key) all["Authorization"] = `Bearer ${connection.key}`;
  if (call.body !== undefined) all["Content-Type"] = call.media ?? "application/json";
  return all;
}

/** A browser takes such parts out of an address, and would ask for something else. */
function checkPath(path: string) {
  if (!path.split("/").some((part) => part === "." || part === "..")) return;
  const detail =
    "a name that is “.” or “..” cannot be asked for by a browser: use the program, " +
    "such as profilestore get";
  throw new Refusal(400, "invalid", detail, "fix", undefined, undefined);
}

/** Why nothing came back, or not all of an answer. */
function silence(call: Call, error: unknown): unknown {
  if (call.signal?.aborted) return error;
  connection.silentSince ||= clock.now();
  const detail = "the server does not answer";
  return new Refusal(0, "offline", detail, "retry-as", undefined, undefined);
}

/** The text of an answer. Fails as `fetched` does when the answer is broken off. */
export async function textOf(response: Response, call: Call): Promise<string> {
  try {
    return await response.text();
  } catch (error) {
    throw silence(call, error);
  }
}

/** Sends a request. Fails with `Refusal`, or as an abort does. */
export async function fetched(call: Call): Promise<Response> {
  checkPath(call.path);
  let response: Response;
  const sent = performance.now();
  try {
    response = await fetch(target(call), {
      method: call.method ?? "GET",
      headers: headers(call),
      body: call.body ?? null,
      signal: call.signal ?? null,
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch (error) {
    throw silence(call, error);
  }
  connection.silentSince = 0;
  clock.heard(response.headers.get("Date"), sent);
  if (response.ok || response.status === 304) return response;
  throw await refusal(response, call);
}

async function refusal(response: Response, call: Call): Promise<Refusal> {
  const text = await response.text().catch(() => "");
  let told: Record<string, unknown> = {};
  try {
    told = plain(parse(text)) as Record<string, unknown>;
  } catch {
    // A proxy's page, perhaps.
  }
  const word = (name: string) => (typeof told[name] === "string" ? told[name] : undefined);
  const detail = word("detail") ?? `the server answered ${response.status} ${response.statusText}`;
  const after = Number(response.headers.get("Retry-After")) || undefined;
  const advice = word("advice") ?? (response.status >= 500 ? "retry" : "fix");
  const kind = word("kind") ?? "";
  if (response.status === 401 && !call.guesses) onUnauthorized.run();
  if (kind === "read-only") onReadOnly.run();
  const [instance, etag] = [word("instance"), word("etag")];
  return new Refusal(response.status, kind, detail, advice, instance, after, etag);
}

/** Sends a request and reads its answer. */
export async function ask<T>(call: Call): Promise<Answer<T>> {
  const response = await fetched(call);
  const text = await textOf(response, call);
  const json = text === "" ? null : parseAnswer(text);
  return { status: response.status, headers: response.headers, body: plain(json) as T, json };
}

/** Sends a request that changes something, and notes it for the list of what was done. */
export async function change<T>(what: string, call: Call): Promise<Answer<T>> {
  const answer = await ask<T>(call);
  connection.made = [{ at: clock.now(), what, line: curl(call) }, ...connection.made].slice(0, 50);
  return answer;
}

/** Hands a text to the browser as a file. */
export function download(name: string, text: Blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(text);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
