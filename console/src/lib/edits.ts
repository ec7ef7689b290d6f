// Sending an edit, and waiting for what becomes of it.

import { ask, change, Refusal } from "./api.svelte";
import { type Json, write } from "./json";
import type { Entry } from "./types";

const PATCH = "application/json-patch+json";

/** Makes an edit. Resolves with its entry in the audit log once its outcome is known. */
export async function edit(
  base: string,
  operation: string,
  steps: Json,
  reason: string,
  pending: () => void,
): Promise<Entry> {
  const body = write(steps);
  const headers = { "Idempotency-Key": operation };
  const call = {
    method: "POST",
    path: `${base}/edits`,
    query: { reason },
    headers,
    body,
    media: PATCH,
  } as const;
  const answer = await change<Entry>("made an edit", call);
  if (answer.status !== 202) return answer.body;
  for (;;) {
    pending();
    await new Promise((done) => setTimeout(done, 1500));
    const { body } = await ask<Entry>({ path: `${base}/edits/${operation}` });
    if (body.outcome === "pending") continue;
    if (body.outcome === "refused")
      throw new Refusal(
        422,
        "edit-refused",
        body.why ?? "it does not fit",
        "fix",
        undefined,
        undefined,
      );
    return body;
  }
}

/** The steps that take an edit back, if the store knows them. Numbers are as they were written. */
export function undoing(entry: Json): Json | undefined {
  const details = entry instanceof Map ? entry.get("details") : undefined;
  const undo = details instanceof Map ? details.get("undo") : undefined;
  const ops = undo instanceof Map ? undo.get("ops") : undefined;
  return Array.isArray(ops) && ops.length > 0 ? ops : undefined;
}

/** An edit's entry as it is written in the log. It is asked for at the profile, which those reach
 * too who may not read the log of all stores. */
export async function entryOf(base: string, operation: string): Promise<Json> {
  return (await ask({ path: `${base}/edits/${operation}` })).json;
}

/** Whether the profile moved on since it was read, so that an edit did not fit. */
export const overtaken = (error: unknown) =>
  error instanceof Refusal && error.kind === "edit-refused";
