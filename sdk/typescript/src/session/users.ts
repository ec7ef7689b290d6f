/** Users that a profile is associated with, for search, export and erasure. */
import { failure } from "../errors.js";
import { wrong } from "../options.js";

/** A number, as Roblox has them, or a name. A number beyond 2^53, as Steam has, is a text. */
export type User = number | string;

const MAX_BYTES = 100;
const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);
const MAX_NUMBER = 2n ** 63n - 1n;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const WHOLE = /^(0|-?[1-9]\d*)$/;

/** A user in the one spelling that the server has too. */
export function userOf(user: User | bigint): User {
  const isText = typeof user === "string" || typeof user === "bigint";
  if (!isText && !Number.isSafeInteger(user)) {
    throw wrong("user", "a whole number up to 2^53, a bigint or a text", user);
  }
  const text = String(user);
  // A longer text of digits is a name.
  if (typeof user !== "string" || (text.length <= 20 && WHOLE.test(text))) {
    const number = BigInt(text);
    if (number < 0n) throw wrong("user", "not negative", user);
    if (number <= MAX_NUMBER) return number <= MAX_SAFE ? Number(number) : text;
    if (typeof user !== "string") throw wrong("user", "a number of up to 63 bits", user);
  }
  const bytes = Buffer.byteLength(text);
  if (bytes === 0 || bytes > MAX_BYTES || text.includes("\0") || /\p{Surrogate}/u.test(text)) {
    throw failure("invalid", `the name of a user has 1 to ${MAX_BYTES} bytes and no NUL`);
  }
  return UUID.test(text) ? text.toLowerCase() : text;
}
