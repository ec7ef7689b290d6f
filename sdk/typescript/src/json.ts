/**
 * JSON without rounding. A number that JavaScript cannot hold is an error, or a `bigint` where the
 * store says `bigint: true`. What cannot be stored is an error that names its place.
 */
import { failure } from "./errors.js";

/** As the server has them: docs/storable.md. */
const MAX_DEPTH = 100;
const LEAST_WHOLE = -(2n ** 63n);
const MOST_WHOLE = 2n ** 64n - 1n;
const RESERVED_NAME = "$serde_json::private::RawValue";

/** Whether every whole number is a `bigint`. Then a `number` is written with a fraction. */
export interface Numbers {
  readonly bigint: boolean;
}

type Path = readonly (string | number)[];

/** Halves of characters (lone surrogates). No text that leaves this process can have one. */
export const HALVES = /\p{Surrogate}/gu;

/** A JSON pointer, in which a half of a character is shown as `\ud800`. */
function pointer(path: Path): string {
  const parts = path.map((part) => String(part).replaceAll("~", "~0").replaceAll("/", "~1"));
  const text = parts.map((part) => `/${part}`).join("");
  return text.replace(HALVES, (half) => `\\u${half.charCodeAt(0).toString(16)}`);
}

function wrong(path: Path, why: string): Error {
  return failure("invalid", `${why}: path=\`${pointer(path)}\``);
}

// --- writing ---------------------------------------------------------------------------------

/** The text of a value. */
export function stringify(value: unknown, numbers: Numbers): string {
  return write(value, numbers, []);
}

function write(value: unknown, numbers: Numbers, path: (string | number)[]): string {
  switch (typeof value) {
    case "string":
      return writeText(value, path);
    case "boolean":
      return value ? "true" : "false";
    case "number":
      return writeNumber(value, numbers, path);
    case "bigint":
      if (value < LEAST_WHOLE || value > MOST_WHOLE)
        throw wrong(path, `a whole number has at most 64 bits: ${value}`);
      if (numbers.bigint) return value.toString();
      throw wrong(path, "a bigint can be stored only in a store with `bigint: true`");
    case "object":
      break;
    default:
      throw wrong(path, `a ${typeof value} cannot be stored`);
  }
  if (value === null) return "null";
  if (path.length >= MAX_DEPTH)
    throw wrong(path.slice(0, 5), "it is nested too deep, or in itself");
  if (Array.isArray(value)) {
    const items: string[] = [];
    for (let index = 0; index < value.length; index++) {
      path.push(index);
      items.push(write(value[index], numbers, path));
      path.pop();
    }
    return `[${items.join(",")}]`;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== null && prototype !== Object.prototype) {
    const name = (value as object).constructor?.name ?? "class";
    throw wrong(path, `only plain objects can be stored, and this is a ${name}`);
  }
  const members: string[] = [];
  for (const [name, member] of Object.entries(value)) {
    if (member === undefined) continue;
    if (name === RESERVED_NAME) throw wrong(path, `a member cannot be called ${name}`);
    path.push(name);
    members.push(`${writeText(name, path)}:${write(member, numbers, path)}`);
    path.pop();
  }
  return `{${members.join(",")}}`;
}

function writeText(value: string, path: Path): string {
  if (value.search(HALVES) >= 0) {
    throw wrong(path, "half of a character (a lone surrogate) cannot be stored");
  }
  return JSON.stringify(value);
}

function writeNumber(value: number, numbers: Numbers, path: Path): string {
  if (!Number.isFinite(value)) throw wrong(path, `${value} cannot be stored`);
  const text = Object.is(value, -0) ? "-0.0" : String(value);
  if (/[.e]/.test(text)) return text;
  if (numbers.bigint) return `${text}.0`;
  if (Number.isSafeInteger(value)) return text;
  throw wrong(path, `a whole number beyond 2^53 needs \`bigint: true\`: ${text}`);
}

// --- reading ---------------------------------------------------------------------------------

/** The value of a text. */
export function parse(text: string, numbers: Numbers): unknown {
  if (numbers.bigint || hasLossyNumber(text)) return new Reader(text, numbers).all();
  return JSON.parse(text) as unknown;
}

/** The same value, of which no part can be changed. */
export function frozen<T>(value: T): T {
  if (typeof value !== "object" || value === null) return value;
  Object.values(value).forEach(frozen);
  return Object.freeze(value);
}

/** A decimal number's digits and exponent, so that different spellings of it are the same. */
function decimal(token: string): string {
  const [, sign = "", whole = "", fraction = "", exponent = "0"] =
    /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(token) ?? [];
  const digits = (whole + fraction).replace(/^0+/, "");
  const short = digits.replace(/0+$/, "");
  if (short === "") return `${sign}0`;
  return `${sign}${short}e${Number(exponent) - fraction.length + digits.length - short.length}`;
}

/** Whether a `number` holds exactly what a token says. */
function isExact(token: string): boolean {
  if (token.length <= 15 && !/[eE]/.test(token)) return true;
  const value = Number(token);
  if (!Number.isFinite(value)) return false;
  if (/^-?\d+$/.test(token))
    return Number.isSafeInteger(value) && decimal(String(value)) === decimal(token);
  return decimal(Object.is(value, -0) ? "-0" : String(value)) === decimal(token);
}

const isNumberPart = (code: number) =>
  (code >= 48 && code <= 57) ||
  code === 46 ||
  code === 45 ||
  code === 43 ||
  code === 101 ||
  code === 69;

function endOfNumber(text: string, start: number): number {
  let at = start;
  while (at < text.length && isNumberPart(text.charCodeAt(at))) at++;
  return at;
}

/** Behind the closing quote of the string that begins at `start`. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; ; at++) {
    at = text.indexOf('"', at);
    if (at < 0) throw failure("invalid", "a string of the JSON does not end");
    let back = at - 1;
    while (text.charCodeAt(back) === 92) back--;
    if ((at - back) % 2 === 1) return at + 1;
  }
}

function hasLossyNumber(text: string): boolean {
  for (let at = 0; at < text.length;) {
    const code = text.charCodeAt(at);
    if (code === 34) {
      at = endOfString(text, at);
    } else if (code === 45 || (code >= 48 && code <= 57)) {
      const end = endOfNumber(text, at);
      if (end - at > 4 && !isExact(text.slice(at, end))) return true;
      at = end;
    } else {
      at++;
    }
  }
  return false;
}

class Reader {
  #at = 0;
  readonly #path: (string | number)[] = [];

  constructor(
    readonly text: string,
    readonly numbers: Numbers,
  ) {}

  all(): unknown {
    const value = this.#value();
    if (this.#next() !== "") throw this.#malformed();
    return value;
  }

  #malformed(): Error {
    return failure("invalid", `this is no JSON: position ${this.#at}`);
  }

  /** The next character that is no space. */
  #next(): string {
    while (/^[ \t\r\n]$/.test(this.text.charAt(this.#at))) this.#at++;
    return this.text.charAt(this.#at);
  }

  #take(expected: string): boolean {
    if (this.#next() !== expected) return false;
    this.#at++;
    return true;
  }

  #value(): unknown {
    if (this.#path.length > 2 * MAX_DEPTH) throw wrong([], "it is nested too deep");
    const next = this.#next();
    if (next === "{") return this.#object();
    if (next === "[") return this.#array();
    if (next === '"') return this.#string();
    for (const [word, value] of [
      ["true", true],
      ["false", false],
      ["null", null],
    ] as const) {
      if (this.text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    }
    return this.#number();
  }

  #string(): string {
    const start = this.#at;
    this.#at = endOfString(this.text, start);
    return JSON.parse(this.text.slice(start, this.#at)) as string;
  }

  #number(): number | bigint {
    const end = endOfNumber(this.text, this.#at);
    const token = this.text.slice(this.#at, end);
    if (!/^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(token)) throw this.#malformed();
    this.#at = end;
    if (this.numbers.bigint && /^-?\d+$/.test(token) && token !== "-0") return BigInt(token);
    if (isExact(token)) return Number(token);
    const shown = token.length > 40 ? `${token.slice(0, 40)}…` : token;
    const remedy = this.numbers.bigint ? "" : "; whole ones need `bigint: true`";
    throw wrong(this.#path, `JavaScript cannot hold the number ${shown} without rounding${remedy}`);
  }

  #array(): unknown[] {
    this.#at++;
    const items: unknown[] = [];
    if (this.#take("]")) return items;
    do {
      this.#path.push(items.length);
      items.push(this.#value());
      this.#path.pop();
    } while (this.#take(","));
    if (!this.#take("]")) throw this.#malformed();
    return items;
  }

  #object(): object {
    this.#at++;
    const members = {};
    if (this.#take("}")) return members;
    do {
      if (this.#next() !== '"') throw this.#malformed();
      const name = this.#string();
      if (!this.#take(":")) throw this.#malformed();
      this.#path.push(name);
      const member = { value: this.#value(), writable: true, enumerable: true, configurable: true };
      Object.defineProperty(members, name, member);
      this.#path.pop();
    } while (this.#take(","));
    if (!this.#take("}")) throw this.#malformed();
    return members;
  }
}

/** The members of an object as the texts that they are. */
export function members(text: string): Map<string, string> {
  const found = new Map<string, string>();
  let at = text.indexOf("{") + 1;
  while (at > 0) {
    const name = text.indexOf('"', at);
    if (name < 0) break;
    const end = endOfString(text, name);
    const start = text.indexOf(":", end) + 1;
    at = endOfValue(text, start);
    found.set(JSON.parse(text.slice(name, end)) as string, text.slice(start, at).trim());
    if (text.charAt(at) !== ",") break;
    at++;
  }
  return found;
}

/** The comma or bracket behind the value that begins at `start`. */
function endOfValue(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length;) {
    const code = text.charCodeAt(at);
    if (code === 34) {
      at = endOfString(text, at);
      continue;
    }
    if (code === 123 || code === 91) depth++;
    else if (code === 125 || code === 93) {
      if (depth === 0) return at;
      depth--;
    } else if (code === 44 && depth === 0) return at;
    at++;
  }
  return text.length;
}
