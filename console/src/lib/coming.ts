// Edits of a profile that are yet to be made.

import { ask } from "./api.svelte";
import { find, type Json } from "./json";

/** An edit that waits for the holder, or stands for new profiles. */
export interface Coming {
  operation: string;
  author: string;
  reason: string;
  /** When it was handed to the holder. */
  sent_ms: number | null;
  /** None: they cannot be read. */
  steps: Json[];
}

export interface AllComing {
  waiting: Coming[];
  /** What the profile gets when it begins. */
  standing: Coming[];
}

/** Reads them; no number of a step is rounded. */
export async function readComing(base: string, signal: AbortSignal): Promise<AllComing> {
  const { body, json } = await ask<AllComing>({ path: `${base}/edits`, signal });
  const withSteps = (list: "waiting" | "standing") =>
    body[list].map((one, at) => {
      const steps = find(json, `/${list}/${at}/operations`);
      return { ...one, steps: Array.isArray(steps) ? steps : [] };
    });
  return { waiting: withSteps("waiting"), standing: withSteps("standing") };
}
