// JSON without rounding: a number stays the text that it is in the source, from the server to the
// page and back. Objects are maps, so that every name is a name, `__proto__` too.

/** A number as it is written. */
export class Num {
  constructor(readonly text: string) {}
}

export type Json = null | boolean | string | Num | Json[] | Map<string, Json>;

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const MAX_DEPTH = 512;

/** Why a text is no JSON, and where. */
export class Malformed extends Error {
  constructor(
    readonly at: number,
    text: string,
  ) {
    const line = text.slice(0, at).split("\n").length;
    const column = at - text.lastIndexOf("\n", at - 1);
    super(`this is no JSON: line ${line}, column ${column}`);
  }
}

/** The value of a text. Fails with `Malformed`. */
export function parse(text: string): Json {
  let at = 0;
  const fail = () => new Malformed(at, text);
  const space = () => {
    for (; ; at++) {
      const code = text.charCodeAt(at);
      if (code !== 32 && code !== 10 && code !== 13 && code !== 9) return;
    }
  };
  const string = (): string => {
    const start = at;
    for (let end = at + 1; ; end++) {
      end = text.indexOf('"', end);
      if (end < 0) throw fail();
      let back = end - 1;
      while (text.charCodeAt(back) === 92) back--;
      if ((end - back) % 2 === 0) continue;
      at = end + 1;
      try {
        return JSON.parse(text.slice(start, at)) as string;
      } catch {
        at = start;
        throw fail();
      }
    }
  };
  const value = (depth: number): Json => {
    space();
    if (depth > MAX_DEPTH) throw fail();
    const first = text[at];
    if (first === '"') return string();
    if (first === "{") {
      const members = new Map<string, Json>();
      at++;
      space();
      if (text[at] === "}") return (at++, members);
      for (;;) {
        space();
        if (text[at] !== '"') throw fail();
        const name = string();
        space();
        if (text[at] !== ":") throw fail();
        at++;
        members.set(name, value(depth + 1));
        space();
        if (text[at] === "}") return (at++, members);
        if (text[at] !== ",") throw fail();
        at++;
      }
    }
    if (first === "[") {
      const items: Json[] = [];
      at++;
      space();
      if (text[at] === "]") return (at++, items);
      for (;;) {
        items.push(value(depth + 1));
        space();
        if (text[at] === "]") return (at++, items);
        if (text[at] !== ",") throw fail();
        at++;
      }
    }
    for (const [word, meaning] of WORDS) {
      if (text.startsWith(word, at)) return ((at += word.length), meaning);
    }
    NUMBER.lastIndex = at;
    const number = NUMBER.exec(text)?.[0];
    if (number === undefined) throw fail();
    at += number.length;
    return new Num(number);
  };
  const all = value(0);
  space();
  if (at < text.length) throw fail();
  return all;
}

const WORDS: [string, Json][] = [
  ["true", true],
  ["false", false],
  ["null", null],
];

/** The text of a value; with an indent, on lines of its own. */
export function write(value: Json, indent = "", before = ""): string {
  if (value instanceof Num) return value.text;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const inner = before + indent;
  const isList = Array.isArray(value);
  const parts = isList
    ? value.map((item) => write(item, indent, inner))
    : [...value].map(
        ([name, member]) =>
          `${JSON.stringify(name)}:${indent && " "}${write(member, indent, inner)}`,
      );
  const [open, close] = isList ? "[]" : "{}";
  if (parts.length === 0) return `${open}${close}`;
  if (!indent) return `${open}${parts.join(",")}${close}`;
  return `${open}\n${inner}${parts.join(`,\n${inner}`)}\n${before}${close}`;
}

/** Members whose values are the game's, and stay `Json`. */
const GAMES = new Set(["data", "message", "before", "after", "tags", "metadata", "value"]);

const NONE = new Set<string>();

/** A number; as text where it would be rounded, such as that of a user. */
function number(text: string): number | string {
  const value = Number(text);
  return /^-?\d+$/.test(text) && !Number.isSafeInteger(value) ? text : value;
}

/** The plain objects of an answer. What belongs to the game stays as it is written. */
export function plain(value: Json, games = GAMES): unknown {
  if (value instanceof Num) return number(value.text);
  if (Array.isArray(value)) return value.map((one) => plain(one, games));
  if (value instanceof Map) {
    const members = [...value].map(([name, member]) => [
      name,
      // Counts of a bulk edit are the server's, the one that is called `before` too.
      games.has(name) ? member : plain(member, name === "counts" ? NONE : games),
    ]);
    return Object.fromEntries(members) as unknown;
  }
  return value;
}

// --- places ------------------------------------------------------------------------------------

export const escaped = (part: string | number) =>
  String(part).replaceAll("~", "~0").replaceAll("/", "~1");

/** The parts of a JSON pointer (RFC 6901). */
export function parts(pointer: string): string[] {
  const found = pointer.split("/").slice(1);
  return found.map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
}

/** What is at a pointer. */
export function find(value: Json | undefined, pointer: string): Json | undefined {
  let here = value;
  for (const part of parts(pointer)) {
    if (here instanceof Map) here = here.get(part);
    else if (Array.isArray(here) && /^(0|[1-9]\d*)$/.test(part)) here = here[Number(part)];
    else return undefined;
  }
  return here;
}

/** A number's digits and exponent: 1, 1.0 and 10e-1 are the same. */
function normal(text: string): string {
  const [, sign = "", whole = "", fraction = "", exponent = "0"] =
    /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text) ?? [];
  const digits = (whole + fraction).replace(/^0+/, "");
  const short = digits.replace(/0+$/, "");
  if (short === "") return "0";
  return `${sign}${short}e${Number(exponent) - fraction.length + digits.length - short.length}`;
}

/** Whether two values are the same. */
export function same(a: Json | undefined, b: Json | undefined): boolean {
  if (a instanceof Num && b instanceof Num) return normal(a.text) === normal(b.text);
  if (Array.isArray(a) && Array.isArray(b))
    return a.length === b.length && a.every((item, index) => same(item, b[index]));
  if (a instanceof Map && b instanceof Map)
    return (
      a.size === b.size && [...a].every(([name, item]) => b.has(name) && same(item, b.get(name)))
    );
  return a === b;
}

/** What a value is, in a word. */
export function kind(value: Json | undefined): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (value instanceof Num) return "number";
  if (value instanceof Map) return "object";
  if (Array.isArray(value)) return "list";
  return typeof value === "string" ? "text" : "yes/no";
}

/** A value on one line, cut where it is long. */
export function short(value: Json | undefined, most = 80): string {
  if (value === undefined) return "";
  if (value instanceof Map && value.size > 20) return `{ ${value.size} members }`;
  if (Array.isArray(value) && value.length > 20) return `[ ${value.length} items ]`;
  const text = write(value);
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

/** The sum of two whole numbers as texts; nothing when one of them is none. */
export function sum(a: string, b: string): string | undefined {
  const whole = /^[+-]?\d+$/;
  return whole.test(a) && whole.test(b) ? (BigInt(a) + BigInt(b)).toString() : undefined;
}
