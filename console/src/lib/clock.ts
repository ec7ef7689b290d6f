// The server's time. The browser's clock may be wrong, or be set while the page is open; a switch
// that goes by it would show what is not so.

class Clock {
  /** The server's time when `performance.now()` was 0; unknown until the server has answered. */
  #zero: number | null = null;

  /** An answer came whose header `Date` says this; its request was sent at `sent` on the timer. */
  heard(date: string | null, sent: number) {
    const told = Date.parse(date ?? "");
    if (Number.isNaN(told)) return;
    // The header has whole seconds: the answer was made within the second that it names.
    const least = told - performance.now();
    const most = told + 999 - sent;
    const guess = this.#zero ?? Date.now() - performance.now();
    this.#zero = Math.max(least, Math.min(most, guess));
  }

  now(): number {
    return this.#zero === null ? Date.now() : Math.round(this.#zero + performance.now());
  }
}

export const clock = new Clock();
