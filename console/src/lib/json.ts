// JSON without rounding: a number stays the text that it is in the source, from the server to the
// page and back. Objects are maps, so that every name is a name, `__proto__` too.

/** A number as it is written. */
export class Num {
  constructor(readonly text: string) {}
}

export type Json = null | boolean | string | Num | Json[] | Map<string, Json>;

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
export const parse = (text: string): Json => new Reader(text, false).all();

/** The value of a server's answer. Its large lists and objects are read when something looks into
 * them: a profile of 4 MiB is there at once, and most pages look at a few places of it. */
export const parseAnswer = (text: string): Json => new Reader(text, true).all();

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const MAX_DEPTH = 512;

/** A list or an object whose text is at least so long waits until something looks into it. */
const LARGE = 1 << 16;
/** Deeper ones do not wait, so that no text is gone through often. */
const DEEP = 4;

const [QUOTE, BACKSLASH, COLON, COMMA] = [34, 92, 58, 44];
const [LIST, LIST_END, OBJECT, OBJECT_END] = [91, 93, 123, 125];

type Whole = Json[] | Map<string, Json>;

/** A text of its own. A longer slice keeps all of what it was cut from in memory, in V8. */
const own = (slice: string) =>
  slice.length < 13 ? slice : (JSON.parse(`"${slice}"`) as string);

/** Reads a text from a place on. */
class Reader {
  /** Which name came after which one: in a list of objects the names repeat. */
  private readonly following = new Map<string, string>();

  constructor(
    private readonly text: string,
    private readonly mayWait: boolean,
    private at = 0,
  ) {}

  all(): Json {
    const value = this.value(0, this.mayWait);
    this.code();
    if (this.at < this.text.length) throw this.wrong();
    return value;
  }

  private wrong(): Malformed {
    return new Malformed(this.at, this.text);
  }

  /** The next character that is no space. It is not passed. */
  private code(): number {
    for (; ; this.at++) {
      const code = this.text.charCodeAt(this.at);
      if (code !== 32 && code !== 10 && code !== 13 && code !== 9) return code;
    }
  }

  private value(depth: number, mayWait: boolean): Json {
    const code = this.code();
    if (depth > MAX_DEPTH) throw this.wrong();
    if (code === QUOTE) return this.string();
    if (code === LIST) return this.whole([], depth, mayWait);
    if (code === OBJECT) return this.whole(new Map<string, Json>(), depth, mayWait);
    // t, f, n
    if (code === 116) return this.word("true", true);
    if (code === 102) return this.word("false", false);
    if (code === 110) return this.word("null", null);
    NUMBER.lastIndex = this.at;
    if (!NUMBER.test(this.text)) throw this.wrong();
    const from = this.at;
    this.at = NUMBER.lastIndex;
    return new Num(own(this.text.slice(from, this.at)));
  }

  private word(word: string, meaning: Json): Json {
    if (!this.text.startsWith(word, this.at)) throw this.wrong();
    this.at += word.length;
    return meaning;
  }

  private whole(empty: Whole, depth: number, mayWait: boolean): Whole {
    if (!mayWait || depth === 0 || depth > DEEP) return this.fill(empty, depth, mayWait);
    const from = this.at;
    const { end, size } = this.extent();
    // What lies in a small one is small.
    if (end - from < LARGE) return this.fill(empty, depth, false);
    this.at = end;
    return waiting(empty, size, () => new Reader(this.text, true, from).fill(empty, depth, true));
  }

  /** Where the list or object that begins here ends, and how many members it has: one at least. */
  private extent(): { end: number; size: number } {
    const { text } = this;
    let [open, size] = [0, 1];
    for (let at = this.at; at < text.length; at++) {
      const code = text.charCodeAt(at);
      if (code === QUOTE) {
        for (at++; at < text.length && text.charCodeAt(at) !== QUOTE; at++)
          if (text.charCodeAt(at) === BACKSLASH) at++;
      } else if (code === COMMA) size += open === 1 ? 1 : 0;
      else if (code === LIST || code === OBJECT) open++;
      else if ((code === LIST_END || code === OBJECT_END) && --open === 0)
        return { end: at + 1, size };
    }
    throw this.wrong();
  }

  /** Reads the members of the list or object that begins here. */
  private fill(empty: Whole, depth: number, mayWait: boolean): Whole {
    const end = Array.isArray(empty) ? LIST_END : OBJECT_END;
    let name = "";
    this.at++;
    if (this.code() !== end) {
      for (;;) {
        if (!Array.isArray(empty)) name = this.name(name);
        const member = this.value(depth + 1, mayWait);
        if (Array.isArray(empty)) empty.push(member);
        else empty.set(name, member);
        const code = this.code();
        if (code === end) break;
        if (code !== COMMA) throw this.wrong();
        this.at++;
      }
    }
    this.at++;
    return empty;
  }

  /** A name and its colon. `before`: the name that stood before it. */
  private name(before: string): string {
    if (this.code() !== QUOTE) throw this.wrong();
    const from = this.at + 1;
    let name = this.following.get(before);
    const end = from + (name?.length ?? 0);
    if (name !== undefined && this.text.startsWith(name, from) && this.isQuote(end))
      this.at = end + 1;
    else {
      name = this.string();
      // One with escapes stands there in another way.
      if (this.at === from + name.length + 1) this.following.set(before, name);
    }
    if (this.code() !== COLON) throw this.wrong();
    this.at++;
    return name;
  }

  private isQuote(at: number): boolean {
    return this.text.charCodeAt(at) === QUOTE;
  }

  private string(): string {
    const { text } = this;
    const start = this.at;
    let isPlain = true;
    for (let at = start + 1; at < text.length; at++) {
      const code = text.charCodeAt(at);
      if (code === QUOTE) {
        const value = isPlain ? own(text.slice(start + 1, at)) : this.decoded(start, at + 1);
        this.at = at + 1;
        return value;
      }
      if (code === BACKSLASH) at++;
      if (code === BACKSLASH || code < 32) isPlain = false;
    }
    throw this.wrong();
  }

  /** A string with escapes, or with what no string may have. */
  private decoded(start: number, end: number): string {
    try {
      return JSON.parse(this.text.slice(start, end)) as string;
    } catch {
      throw this.wrong();
    }
  }
}

/** A list or an object that is filled when something looks into it; its size is known before. */
function waiting(empty: Whole, size: number, fill: () => Whole): Whole {
  const sizeName = Array.isArray(empty) ? "length" : "size";
  // Forgotten with the text that it reads, once it is done.
  let rest: typeof fill | undefined = fill;
  const filled = () => {
    rest?.();
    rest = undefined;
    return empty;
  };
  return new Proxy(empty, {
    get(_, name) {
      if (name === sizeName && rest) return size;
      // A map does not work through a proxy.
      const member: unknown = Reflect.get(filled(), name, empty);
      return typeof member === "function" ? member.bind(empty) : member;
    },
    has: (_, name) => Reflect.has(filled(), name),
    ownKeys: () => Reflect.ownKeys(filled()),
    getOwnPropertyDescriptor: (_, name) => Reflect.getOwnPropertyDescriptor(filled(), name),
  });
}

/** The text of a value; with an indent, on lines of its own. It may end early when it has more
 * than `most` characters, and has more than these then. */
export function write(value: Json, indent = "", most = Infinity): string {
  const pieces: string[] = [];
  let length = 0;
  const add = (piece: string) => {
    pieces.push(piece);
    length += piece.length;
  };
  const put = (value: Json, before: string): void => {
    if (value instanceof Num) return add(value.text);
    if (typeof value === "string" && value.length > most)
      return add(JSON.stringify(value.slice(0, most)));
    if (value === null || typeof value !== "object") return add(JSON.stringify(value));
    const open = Array.isArray(value) ? "[" : "{";
    const close = Array.isArray(value) ? "]" : "}";
    const inner = before + indent;
    let between: string = open;
    for (const [name, member] of value.entries()) {
      if (length > most) return;
      add(indent ? `${between}\n${inner}` : between);
      if (typeof name === "string") add(`${JSON.stringify(name)}:${indent && " "}`);
      put(member, inner);
      between = ",";
    }
    if (between === open) add(open + close);
    else add(indent ? `\n${before}${close}` : close);
  };
  put(value, "");
  return pieces.join("");
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
  typeof part === "number" ? String(part) : part.replaceAll("~", "~0").replaceAll("/", "~1");

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
  const text = write(value, "", most);
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

/** The sum of two whole numbers as texts; nothing when one of them is none. */
export function sum(a: string, b: string): string | undefined {
  const whole = /^[+-]?\d+$/;
  return whole.test(a) && whole.test(b) ? (BigInt(a) + BigInt(b)).toString() : undefined;
}
