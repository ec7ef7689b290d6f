// What stands in the box of the page Find.

export type Sought = { query: Record<string, string> & { prefix?: string } } | { wrong: string };

const UNITS: Record<string, number> = { m: 60_000, h: 3_600_000, d: 86_400_000 };

const BEGINNING =
  "A search has one beginning of a key, and filters such as held: or user:12. A key with spaces, " +
  'or one that looks like a filter, stands between quotes: "user:12".';

const quotes = (text: string) => `"${text.replaceAll('"', '""')}"`;

/** The filter for a user's profiles. */
export const typedUser = (user: number | string) =>
  `user:${/[\s"]/.test(String(user)) ? quotes(String(user)) : user}`;

/** A word: something between quotes, which a name may stand before, or whatever has no spaces. */
const WORDS = /(?:[a-z]+:)?"(?:[^"]|"")*"(?=\s|$)|\S+/g;

const WORD = /^(?:(user|held|since|inbox)[:>])?(?:"((?:[^"]|"")*)"|(.*))$/s;

/** The parameters of the API that a text means. */
export function understood(text: string, now: number): Sought {
  const query: Record<string, string> = {};
  for (const word of text.trim().match(WORDS) ?? []) {
    const [, name, quoted, plain = ""] = WORD.exec(word) ?? [];
    const value = quoted === undefined ? plain : quoted.replaceAll('""', '"');
    if (name === undefined) {
      if (query["prefix"] !== undefined) return { wrong: BEGINNING };
      query["prefix"] = value;
    } else if (name === "user") {
      if (!value) return { wrong: "user: is followed by the number or the name of a user." };
      query["user"] = value;
    } else if (name === "held") query["held"] = "true";
    else if (name === "inbox") {
      if (value !== "" && value !== "0") return { wrong: "Messages that wait are inbox>0." };
      query["messages_waiting"] = "true";
    } else {
      const since = moment(value, now);
      if (since === undefined)
        return {
          wrong: "since: is followed by 30m, 2h, 3d, or a time such as 2026-11-20T18:30:00Z.",
        };
      query["updated_since"] = since;
    }
  }
  return { query };
}

/** A time as the API takes it: so long ago, in whole minutes so that an address means the same for
 * a while; or the time itself. */
function moment(value: string, now: number): string | undefined {
  const [, amount, unit = ""] = /^(\d+)([mhd])$/.exec(value) ?? [];
  if (amount === undefined) return /^\d{4}-\d\d-\d\dT/.test(value) ? value : undefined;
  return String(Math.floor((now - Number(amount) * UNITS[unit]!) / 60_000) * 60_000);
}
