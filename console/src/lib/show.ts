// Times, sizes and spans for people.

const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

const hours = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** A local time of day. */
export const localClock = (ms: number) => hours.format(ms);

/** No calendar reaches further. What was imported may have any number as its time. */
const LAST_MS = 8.64e15;

const isTime = (ms: number) => Math.abs(ms) <= LAST_MS;

/** A local time. */
export const localTime = (ms: number) => (isTime(ms) ? clock.format(ms) : `at ${ms} ms`);

/** The same moment in UTC. */
export const utcTime = (ms: number) =>
  isTime(ms) ? new Date(ms).toISOString().replace(/\.\d+Z$/, "Z") : `at ${ms} ms`;

/** A local time as a field of the browser has it. */
export function localInput(ms: number): string {
  const date = new Date(ms);
  return new Date(ms - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

/** How long ago, in one unit. */
export function ago(ms: number, now: number): string {
  return `${span(Math.max(0, now - ms))} ago`;
}

export function span(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} days`;
}

export function size(bytes: number | null): string {
  if (bytes === null) return "";
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1 << 20) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${(bytes / (1 << 20)).toFixed(1)} MiB`;
}

/** What has no shape of its own, or turns the order of what stands beside it: control characters,
 * marks of direction, spaces without a width. Joiners are left: letters and emoji need them. */
const UNSEEN = /[\p{Cc}\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu;

/** Spaces that a page leaves out, or draws as fewer: at an end, and several of them. */
const LOST = /^ +| +$| {2,}/g;

const asEscapes = (text: string) =>
  text.replace(/./gs, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** A text in which each character can be seen. The escapes are those of JSON. */
export const visible = (text: string) => text.replace(UNSEEN, asEscapes);

/** A name in which each character can be seen, spaces as well. */
export const visibleName = (name: string) => visible(name.replace(LOST, asEscapes));

export const count = (number: number) => number.toLocaleString("en");
