// What stands in the box of the page Find.

export type Sought = { query: Record<string, string> & { prefix?: string } } | { wrong: string };

const UNITS: Record<string, number> = { m: 60_000, h: 3_600_000, d: 86_400_000 };

/** The parameters of the API that a text means. */
export function understood(text: string, now: number): Sought {
  const query: Record<string, string> = {};
  for (const word of text.trim().split(/\s+/).filter(Boolean)) {
    const [, name, value = ""] = /^(user|held|since):(.*)$/.exec(word) ?? [];
    if (name === undefined) {
      if (query["prefix"] !== undefined)
        return {
          wrong: "A search has one beginning of a key, and filters such as held: or user:12.",
        };
      query["prefix"] = word;
    } else if (name === "user") {
      if (!value) return { wrong: "user: is followed by the number or the name of a user." };
      query["user"] = value;
    } else if (name === "held") query["held"] = "true";
    else {
      const [, amount, unit = ""] = /^(\d+)([mhd])$/.exec(value) ?? [];
      if (amount !== undefined)
        // Whole minutes, so that the address means the same for a while.
        query["updated_since"] = String(
          Math.floor((now - Number(amount) * UNITS[unit]!) / 60_000) * 60_000,
        );
      else if (/^\d{4}-\d\d-\d\dT/.test(value)) query["updated_since"] = value;
      else
        return {
          wrong: "since: is followed by 30m, 2h, 3d, or a time such as 2026-11-20T18:30:00Z.",
        };
    }
  }
  return { query };
}
