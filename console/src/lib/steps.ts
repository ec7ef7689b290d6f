// What is typed on the page Edit, as steps of an edit. Each step says what the place has to be, so
// that nothing that happened meanwhile is overwritten.

import { find, type Json, kind, Malformed, Num, parse, same, sum, write } from "./json";

export interface Draft {
  path: string;
  type: string;
  text: string;
}

/** The kinds of value that can be typed. */
export const TYPES = ["number", "text", "yes/no", "null", "JSON", "remove"];

/** Whether a field of one line leaves a text as it is. A browser takes line breaks out of it. */
export const fitsOneLine = (text: string) => !/[\r\n]/.test(text);

/** A draft for a place, from what is there. A text with line breaks is JSON, which escapes them. */
export function draft(path: string, value: Json | undefined): Draft {
  if (value instanceof Num) return { path, type: "number", text: value.text };
  if (typeof value === "string" && fitsOneLine(value)) return { path, type: "text", text: value };
  if (typeof value === "boolean") return { path, type: "yes/no", text: String(value) };
  if (value === null) return { path, type: "null", text: "" };
  return { path, type: "JSON", text: value === undefined ? "" : write(value, "  ") };
}

export type Step = Map<string, Json>;

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

/** What a draft says; or why it says nothing. */
export function meant(one: Draft): { value?: Json; by?: Num; remove?: true; wrong?: string } {
  const text = one.text.trim();
  switch (one.type) {
    case "remove":
      return { remove: true };
    case "null":
      return { value: null };
    case "text":
      return { value: one.text };
    case "yes/no":
      return text === "true" || text === "false"
        ? { value: text === "true" }
        : { wrong: "type true or false" };
    case "number":
      if (text.startsWith("+") && NUMBER.test(text.slice(1))) return { by: new Num(text.slice(1)) };
      return NUMBER.test(text) ? { value: new Num(text) } : { wrong: "this is no number" };
    default:
      try {
        return { value: parse(one.text) };
      } catch (error) {
        return { wrong: error instanceof Malformed ? error.message : String(error) };
      }
  }
}

/** Why a draft cannot be sent. */
export function wrong(one: Draft, base: Json): string | undefined {
  if (one.path !== "" && !one.path.startsWith("/")) return "a place begins with /, such as /coins";
  const { wrong, by, remove } = meant(one);
  if (wrong) return wrong;
  const there = find(base, one.path);
  if (by && !(there instanceof Num)) return "there is no number to add to";
  if (remove && there === undefined) return "there is nothing to remove";
  if (remove && one.path === "") return "the data as a whole cannot be removed";
  return undefined;
}

/** Whether a draft would change something. */
export function changes(one: Draft, base: Json): boolean {
  const { value, by, remove, wrong } = meant(one);
  if (wrong) return false;
  return by !== undefined || remove === true || !same(find(base, one.path), value);
}

/** What a place would be. */
export function after(one: Draft, base: Json): Json | undefined {
  const { value, by, remove } = meant(one);
  if (remove) return undefined;
  if (by === undefined) return value;
  const there = find(base, one.path);
  const text = there instanceof Num ? sum(there.text, by.text) : undefined;
  return text === undefined ? `what is there, and ${by.text} more` : new Num(text);
}

/** The steps of the API for the drafts. Adding to a number needs no look at what it was. */
export function steps(drafts: Draft[], base: Json): Step[] {
  return drafts.flatMap((one): Step[] => {
    const { value, by, remove } = meant(one);
    const step = (op: string, rest: [string, Json][]): Step =>
      new Map<string, Json>([["op", op], ["path", one.path], ...rest]);
    if (by) return [step("increase", [["by", by]])];
    const there = find(base, one.path);
    if (remove) return [step("test", [["value", there ?? null]]), step("remove", [])];
    if (value === undefined) return [];
    // `restore` without `is` holds only where nothing is.
    if (there === undefined) return [step("restore", [["was", value]])];
    return [step("test", [["value", there]]), step("set", [["value", value]])];
  });
}

/** The outermost list that a place lies in. An edit takes back a list as a whole. */
export function listAround(data: Json | undefined, pointer: string): string | undefined {
  const parts = pointer.split("/").slice(1);
  for (let many = 0; many < parts.length; many++) {
    const above = parts
      .slice(0, many)
      .map((part) => `/${part}`)
      .join("");
    if (Array.isArray(find(data, above))) return above;
  }
  return undefined;
}

/** For people: `number`, `object` and so on as a draft calls them. */
export const typeOf = (value: Json | undefined) => kind(value);
