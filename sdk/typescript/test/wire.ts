/** A session on a connection that the test answers. */
import assert from "node:assert/strict";
import { after } from "node:test";
import type { Outcome } from "../dist/connection.js";
import type { ServerFrame } from "../dist/frames.js";
import { Beside } from "../dist/session/beside.js";
import { Document } from "../dist/session/document.js";
import { Profile } from "../dist/session/profile.js";

const plain = { bigint: false };

export interface Save {
  i: number;
  n: number;
  data: { coins: number };
  processed: number[];
  user_ids?: (number | string)[];
  tags?: unknown;
  metadata?: unknown;
  edits_done: { op: string; refused?: string }[];
}

/** Takes frames, and answers when the test says so. */
export class Wire {
  #i = 0;
  readonly frames: [string, Save][] = [];
  readonly outcomes: Outcome[] = [];
  /** All frames of the last request. */
  all: readonly string[] = [];
  isOver = false;

  number(): number {
    return ++this.#i;
  }

  request(_i: number, frames: readonly string[], outcome: Outcome): void {
    this.all = frames;
    const [entry] = Object.entries(JSON.parse(frames[0] ?? "") as Record<string, Save>);
    if (entry !== undefined) this.frames.push(entry);
    this.outcomes.push(outcome);
  }

  isActive(): boolean {
    return true;
  }

  over(): void {
    this.isOver = true;
  }

  /** The last frame. */
  get last(): Save {
    return (this.frames.at(-1) as [string, Save])[1];
  }

  answer(version: number): void {
    const saved: ServerFrame = ["saved", { i: 0, s: 1, n: 0, version }];
    this.outcomes.at(-1)?.done(saved);
  }
}

export function session(
  meta = "{}",
  check?: () => void,
  saveWithinMs = 60_000,
): { wire: Wire; profile: Profile<{ coins: number }> } {
  const wire = new Wire();
  const beside = new Beside(meta, plain);
  const document = new Document<{ coins: number }>('{"coins":0}', plain, check, beside);
  const opened = { s: 1, store: "S", scope: "global", key: "k", epoch: 1, version: 1, meta };
  const thrown = (fault: unknown) => assert.fail(String(fault));
  const profile = new Profile(opened, document, wire, saveWithinMs, thrown);
  // Otherwise the save that is due in a minute keeps the process until then.
  after(() => profile.abandon());
  return { wire, profile };
}

export const turn = () => new Promise((done) => setImmediate(done));
