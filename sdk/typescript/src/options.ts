/** What a game gives, looked at where it is given. An error names it, and what it is to be. */
import { failure, type ProfileError } from "./errors.js";

function shown(given: unknown): string {
  if (typeof given === "bigint") return `the bigint ${String(given).slice(0, 50)}`;
  if (typeof given === "number") return `the number ${given}`;
  if (typeof given === "string") return `the text ${JSON.stringify(given.slice(0, 50))}`;
  return given === null ? "null" : `of the type ${typeof given}`;
}

/** What is wrong with something that a game gave. */
export function wrong(what: string, meant: string, given: unknown): ProfileError {
  return failure("invalid", `\`${what}\` is ${meant}, and this is ${shown(given)}`);
}

/** A text, such as a key. */
export function text(what: string, given: unknown): string {
  if (typeof given === "string") return given;
  throw wrong(what, "a text", given);
}

/** A whole number. undefined: the default. */
export function whole(what: string, given: unknown): number | undefined {
  if (given === undefined) return undefined;
  if (typeof given === "number" && Number.isSafeInteger(given)) return given;
  throw wrong(what, "a whole number", given);
}

/** A time for a timer. It may be without an end. */
export function timeMs(what: string, given: unknown): number {
  if (typeof given === "number" && given >= 0) return given;
  throw wrong(what, "a number of milliseconds", given);
}

/** A time for a frame, which has whole milliseconds. undefined: the server's default. */
export function frameMs(what: string, given: unknown): number | undefined {
  if (given === undefined) return undefined;
  const ms = Math.ceil(timeMs(what, given));
  if (Number.isSafeInteger(ms)) return ms;
  throw wrong(what, "a number of milliseconds with an end", given);
}

/** An object with options. */
export function fields<T>(what: string, given: T): T {
  if (typeof given === "object" && given !== null) return given;
  throw wrong(what, "an object", given);
}

/** A list. */
export function list(what: string, given: unknown): void {
  if (!Array.isArray(given)) throw wrong(what, "a list", given);
}

/** A function. */
export function calls(what: string, given: unknown): void {
  if (typeof given !== "function") throw wrong(what, "a function", given);
}

/** One of some names. */
export function oneOf(what: string, names: readonly string[], given: unknown): void {
  if (!names.some((name) => name === given)) throw wrong(what, `one of ${names.join(", ")}`, given);
}
