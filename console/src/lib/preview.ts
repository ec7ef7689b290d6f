// What a rollback to a version would do, as far as it can be told.

import { ask, Refusal } from "./api.svelte";
import type { Json } from "./json";
import type { Difference, Exchange, Page, Profile, Version } from "./types";

export interface Preview {
  /** As the API takes it. */
  version: number | string;
  /** The version that is there now; none: it is damaged, and nothing can be compared with it. */
  current: number | null;
  /** For If-Match; none when there is no such profile now, or changes are off. */
  etag: string | null;
  differences: Difference[];
  /** The data of both versions; none where there is no profile. */
  then: Json | undefined;
  now: Json | undefined;
  /** What the profile did to others since; none when that was not asked for. */
  since: { commits: Exchange[]; more: boolean } | null;
}

/** For callers who may roll back. */
export async function tried(base: string, to: string, signal: AbortSignal): Promise<Preview> {
  const body = JSON.stringify({ version: to, dry_run: true });
  const call = { method: "POST", path: `${base}/restores`, body, signal } as const;
  try {
    const { body: told } = await ask<{
      would_restore: number;
      would_replace: number;
      etag: string | null;
      differences: Difference[];
      not_undone: { commits: Exchange[]; more: boolean };
    }>(call);
    const [then, now] = await data(base, [told.would_restore, told.would_replace], signal);
    return {
      version: told.would_restore,
      current: told.would_replace,
      etag: told.etag,
      differences: told.differences,
      then,
      now,
      since: told.not_undone,
    };
  } catch (error) {
    return unseen(base, to, signal, error);
  }
}

/** For callers who may only read, or have changes off. */
export async function compared(base: string, to: string, signal: AbortSignal): Promise<Preview> {
  // The profile itself may be gone, or be none; its history is there.
  const newest = { path: `${base}/versions`, query: { page_size: "1" }, signal };
  const [head] = (await ask<Page<Version>>(newest)).body.items;
  const query = { from: head && String(head.version), to };
  const { body: told } = await ask<{ from: number; to: number; differences: Difference[] }>({
    path: `${base}/diff`,
    query,
    signal,
  });
  const [then, now] = await data(base, [told.to, told.from], signal);
  const { from: current, to: version, differences } = told;
  return { version, current, etag: null, differences, then, now, since: null };
}

/** A version in which there is no profile: it was removed, or something else is stored. */
function isNone(error: unknown): boolean {
  return error instanceof Refusal && ["not-found", "foreign"].includes(error.kind);
}

function data(base: string, versions: number[], signal: AbortSignal) {
  return Promise.all(
    versions.map(async (version): Promise<Json | undefined> => {
      try {
        return (await ask<Profile>({ path: `${base}/versions/${version}`, signal })).body.data;
      } catch (error) {
        if (isNone(error)) return undefined;
        throw error;
      }
    }),
  );
}

/** What is stored now is damaged: a rollback is the way out of that, and shows nothing before. */
async function unseen(
  base: string,
  to: string,
  signal: AbortSignal,
  error: unknown,
): Promise<Preview> {
  if (error instanceof Refusal && error.kind === "not-found") throw error;
  const why = await ask<Profile>({ path: base, signal }).then(
    () => undefined,
    (caught: unknown) => caught,
  );
  // Where the profile can be read, the other version is what cannot.
  const etag = why instanceof Refusal ? why.etag : undefined;
  if (!etag) throw error;
  const [then, now] = [undefined, undefined];
  return { version: to, current: null, etag, differences: [], then, now, since: null };
}
