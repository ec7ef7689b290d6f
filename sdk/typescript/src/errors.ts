/** What to do about an error. */
export type Advice = "retry" | "retry-as" | "leave" | "ignore" | "fix";

/**
 * What happened. These are the kinds that are known now, in the server's order; a later server may
 * have more. `docs/errors.md` and the server's page `/errors/KIND` say what each means.
 */
export type Kind =
  | "already-loaded"
  | "superseded"
  | "taken-elsewhere"
  | "cancelled"
  | "timed-out"
  | "closing"
  | "session-ended"
  | "busy"
  | "unconfirmed"
  | "done-before"
  | "not-found"
  | "foreign"
  | "removed"
  | "changed"
  | "held"
  | "newer-data"
  | "undecodable"
  | "inbox-full"
  | "message-id-reused"
  | "request-id-reused"
  | "message-id-expired"
  | "too-large"
  | "edit-refused"
  | "refused"
  | "invalid"
  | "unavailable"
  | "unknown"
  | "replaced"
  | "taken-away"
  | "corrupt"
  | "damaged"
  | "overloaded"
  | "unauthorized"
  | "forbidden"
  | "read-only"
  | "cross-site"
  | "too-many-tries"
  | "too-many-requests"
  | "already-undone"
  | "already-set-up"
  | "name-taken"
  | "last-admin"
  | "no-such-resource"
  | "method-not-allowed"
  | "unsupported-media-type"
  | "misdirected"
  | "run-replaced"
  | "upgrade-required"
  | "idempotency-key-reused"
  | "precondition-required"
  | "internal"
  | (string & {});

/** An error as the server describes it (RFC 9457). */
export interface Problem {
  readonly kind: Kind;
  readonly advice: Advice;
  readonly title?: string;
  readonly detail?: string;
  readonly status?: number;
  readonly instance?: string;
  readonly [member: string]: unknown;
}

/**
 * Every error of this package. `kind` says what happened, such as `taken-elsewhere`; the server
 * has a page for each at `/errors/KIND`. `advice` says what to do: `retry` the call, `retry-as`
 * (the same call under the same id), `leave` (let the player go), `ignore`, or `fix` the program.
 */
export class ProfileError extends Error {
  readonly kind: Kind;
  readonly advice: Advice;
  /** All that the server said. */
  readonly problem: Problem;

  constructor(problem: Problem, options?: { cause?: unknown }) {
    super(`${problem.kind}: ${problem.detail ?? problem.title ?? ""}`, options);
    this.name = "ProfileError";
    this.kind = problem.kind;
    this.advice = problem.advice;
    this.problem = problem;
  }
}

const ADVICE: { readonly [kind: string]: Advice } = {
  busy: "retry",
  cancelled: "ignore",
  closing: "retry",
  overloaded: "retry",
  "session-ended": "leave",
  "timed-out": "retry",
  unavailable: "retry",
  unknown: "retry-as",
};

/** An error that this side found. */
export function failure(kind: Kind, detail: string, cause?: unknown): ProfileError {
  const problem = { kind, advice: ADVICE[kind] ?? "fix", detail };
  return new ProfileError(problem, cause === undefined ? undefined : { cause });
}

/** The error that a server's text describes, or one about the text. */
export function fromServer(text: string, status: number): ProfileError {
  try {
    const problem = JSON.parse(text) as Partial<Problem>;
    if (typeof problem.kind === "string" && typeof problem.advice === "string") {
      return new ProfileError(problem as Problem);
    }
  } catch {
    // It is no JSON: a proxy's page perhaps.
  }
  const kind = status >= 500 ? "unavailable" : "invalid";
  return failure(kind, `the answer is none of profilestore: status ${status}`);
}

/** What was thrown, in words. */
export function inWords(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** Whether it is to be waited for, whichever library or realm made it. */
export function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}

/** The same promise, which may be left alone: its failure is no unhandled rejection. */
export function quiet<R>(promise: Promise<R>): Promise<R> {
  promise.catch(() => {});
  return promise;
}
