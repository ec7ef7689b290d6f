/** Until when a game server may believe in its sessions. Pure: the caller brings the clocks. */

/** A moment by two clocks, in milliseconds: one that only grows, and the wall's. */
export interface Moment {
  readonly steady: number;
  readonly wall: number;
}

/** How often a game server pings. */
export const PING_MS = 2000;

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

/**
 * How far this thread's steady clock is ahead of the one of the thread that gives it orders. In Bun
 * and Deno each thread's begins at its own start. An order takes its time, so the distance is never
 * taken for less than it is, and a moment here never for a later one there.
 */
export class Ahead {
  #by = Infinity;

  /** An order came, at `here` by this thread's clock, that was given at `there` by the other's. */
  note(there: number, here: number): void {
    this.#by = Math.min(this.#by, here - there);
  }

  /** A moment of this thread, as the other one's clock has it. */
  there({ steady, wall }: Moment): Moment {
    return { steady: steady - this.#by, wall };
  }
}

/** The longest time that a timer has. With a longer one it would go off at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** A time for a timer. */
export function timerMs(ms: number): number {
  return Math.min(ms, LONGEST_TIMER_MS);
}

/** Milliseconds by a clock that only grows. Another thread's may have begun at another time. */
export function steady(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

export function now(): Moment {
  return { steady: steady(), wall: Date.now() };
}
