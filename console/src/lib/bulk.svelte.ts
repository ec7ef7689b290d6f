// Edits of many profiles: their steps, and what they would do.

import { ask } from "./api.svelte";
import { type Json, Malformed, parse, write } from "./json";
import { type Draft, meant, type Step } from "./steps";
import type { Counts, Preview } from "./types";

/** How many profiles are shown with their changes. */
const SAMPLES = 20;

/** The steps that the drafts say, or why they say none. Every profile gets the same ones. */
export function bulkSteps(drafts: Draft[]): { steps: Step[] } | { wrong: string } {
  const steps: Step[] = [];
  for (const one of drafts) {
    if (!one.path.startsWith("/")) return { wrong: "a place begins with /, such as /coins" };
    const { value, by, remove, wrong } = meant(one);
    if (wrong) return { wrong: `${one.path}: ${wrong}` };
    const path: [string, Json] = ["path", one.path];
    if (by) steps.push(new Map<string, Json>([["op", "increase"], path, ["by", by]]));
    else if (remove) steps.push(new Map<string, Json>([["op", "remove"], path]));
    else if (value !== undefined)
      steps.push(new Map<string, Json>([["op", "set"], path, ["value", value]]));
  }
  return steps.length > 0 ? { steps } : { wrong: "say what is to be changed" };
}

/** A step, for people. */
export function stepText(step: Json): string {
  if (!(step instanceof Map)) return write(step);
  const text = (name: string) => {
    const value = step.get(name);
    return value === undefined ? "" : typeof value === "string" ? value : write(value);
  };
  const json = (name: string) => write(step.get(name) ?? null);
  switch (step.get("op")) {
    case "set":
      return `${text("path")} becomes ${json("value")}`;
    case "increase": {
      const by = text("by");
      return by.startsWith("-") ? `${text("path")} − ${by.slice(1)}` : `${text("path")} + ${by}`;
    }
    case "remove":
      return `${text("path")} is removed`;
    default:
      return write(step);
  }
}

/** Steps as an address has them. */
export function stepsOf(text: string): Json[] | { wrong: string } {
  try {
    const json = parse(text);
    return Array.isArray(json) ? json : { wrong: "steps are a list" };
  } catch (error) {
    return { wrong: error instanceof Malformed ? error.message : String(error) };
  }
}

export const noCounts = (): Counts => ({
  changed: 0,
  unchanged: 0,
  refused: 0,
  unmatched: 0,
  skipped: 0,
  before: 0,
});

/** What an edit would do, as far as it was tried. Nothing is changed by it. */
export class DryRun {
  counts = $state.raw<Counts>(noCounts());
  held = $state(0);
  refused = $state.raw<Preview["refused"]>([]);
  samples = $state.raw<Preview["samples"]>([]);
  scanned = $state(0);
  took = $state(0);
  error = $state<unknown>(null);
  busy = $state(false);
  isComplete = $state(false);
  /** The request that it is about; empty: none was tried yet. */
  about = $state("");
  #token: string | null = null;
  #stop = new AbortController();

  /** Tries the request: for one answer, which takes two seconds, or on all profiles. */
  async run(request: Record<string, unknown>, steps: string, all: boolean) {
    const about = JSON.stringify([request, steps]);
    if (about !== this.about || this.isComplete) this.#clear(about);
    const stop = (this.#stop = new AbortController());
    const [began, before] = [performance.now(), this.took];
    this.busy = true;
    this.error = null;
    try {
      do {
        const body = withSteps({ ...request, dry_run: true, page_token: this.#token }, steps);
        const call = { method: "POST", path: "/v1/edits", body, signal: stop.signal } as const;
        const { body: told } = await ask<Preview>(call);
        if (stop.signal.aborted) return;
        this.#add(told);
        this.took = before + performance.now() - began;
      } while (all && !this.isComplete);
    } catch (error) {
      if (!stop.signal.aborted) this.error = error;
    } finally {
      if (stop === this.#stop) this.busy = false;
    }
  }

  cancel() {
    this.#stop.abort();
    this.busy = false;
  }

  #clear(about: string) {
    this.about = about;
    this.counts = noCounts();
    this.held = this.scanned = this.took = 0;
    this.refused = [];
    this.samples = [];
    this.isComplete = false;
    this.#token = null;
  }

  #add(told: Preview) {
    const sum = (name: keyof Counts) => this.counts[name] + told.counts[name];
    this.counts = {
      changed: sum("changed"),
      unchanged: sum("unchanged"),
      refused: sum("refused"),
      unmatched: sum("unmatched"),
      skipped: sum("skipped"),
      before: sum("before"),
    };
    this.held += told.held;
    this.scanned += told.scanned;
    this.samples = this.samples.concat(told.samples).slice(0, SAMPLES);
    const refused = new Map(this.refused.map((one) => [one.reason, one]));
    for (const one of told.refused) {
      const known = refused.get(one.reason);
      refused.set(one.reason, known ? { ...known, count: known.count + one.count } : one);
    }
    this.refused = [...refused.values()];
    this.#token = told.next_page_token;
    this.isComplete = told.next_page_token === null;
  }
}

/** A request with steps whose numbers stay as they are written; without any where it has none. */
export function withSteps(request: Record<string, unknown>, steps: string): string {
  const given = Object.entries(request).filter(([, value]) => value !== null && value !== "");
  const whole = JSON.stringify(Object.fromEntries(given));
  if (!steps) return whole;
  const rest = whole.slice(0, -1);
  return `${rest}${rest === "{" ? "" : ","}"operations":${steps}}`;
}
