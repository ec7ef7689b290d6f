/** Until when a game server may believe in its sessions. Pure: the caller brings the clocks. */

/** A moment by two clocks, in milliseconds: one that only grows, and the wall's. */
export interface Moment {
  readonly steady: number;
  readonly wall: number;
}

/** The longest that one answer counts. */
export const LONGEST_MS = 6000;

/** How much further the wall's clock may go than the steady one, which stops in a suspend. */
export const MAX_GAP_MS = 1000;

/**
 * The moment until which sessions may be believed in. `ping` is when the ping was sent, `ageMs` how
 * old the confirmation was that its answer named. One percent is for the clocks' difference.
 */
export function activeUntil(ping: number, ageMs: number, leaseMs: number): number {
  return Math.min(ping - ageMs + leaseMs - leaseMs / 100 - 500, ping + LONGEST_MS);
}

/** What the last pong allows. */
export class Belief {
  #incarnation = "";
  #ping: Moment = { steady: 0, wall: 0 };
  #until = -Infinity;

  /** Takes a pong for what it says about an incarnation. */
  note(incarnation: string, ping: Moment, ageMs: number, leaseMs: number): void {
    this.#incarnation = incarnation;
    this.#ping = ping;
    this.#until = activeUntil(ping.steady, ageMs, leaseMs);
  }

  /** The same, which later pongs do not change. */
  copy(): Belief {
    const copy = new Belief();
    copy.#incarnation = this.#incarnation;
    copy.#ping = this.#ping;
    copy.#until = this.#until;
    return copy;
  }

  /** Whether sessions of an incarnation may be believed in. */
  holds(incarnation: string, now: Moment): boolean {
    const passed = now.steady - this.#ping.steady;
    const slept = now.wall - this.#ping.wall - passed > MAX_GAP_MS;
    return this.#incarnation === incarnation && now.steady < this.#until && !slept;
  }
}

/** Milliseconds by a clock that only grows. All threads of the process have the same. */
export function steady(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

export function now(): Moment {
  return { steady: steady(), wall: Date.now() };
}
