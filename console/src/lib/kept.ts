// What was typed and is not sent yet. It outlives its page, so that neither the end of a log-in nor
// a look at another page loses it. It stays in memory, and is for one person.

const forms = new Map<string, unknown>();
let owner = "";

/** From now on it is this person who types. What another one typed is forgotten. */
export function keepFor(who: string) {
  if (who !== owner) forms.clear();
  owner = who;
}

/** What is kept in this browser beyond the visit, for this person and no other one. */
export function mine<T>(name: string): T[] {
  try {
    const told: unknown = JSON.parse(localStorage.getItem(`${name} of ${owner}`) ?? "[]");
    return Array.isArray(told) ? (told as T[]) : [];
  } catch {
    return [];
  }
}

/** Keeps it. Where a browser keeps nothing, it stays for the visit. */
export function keepMine<T>(name: string, all: T[]) {
  try {
    localStorage.setItem(`${name} of ${owner}`, JSON.stringify(all));
  } catch {
    // It is full, or switched off.
  }
}

/** The form of this name, as it was left; or a new one. */
export function kept<T>(name: string, make: () => T): T {
  if (!forms.has(name)) forms.set(name, make());
  return forms.get(name) as T;
}

/** The form is done with. */
export function forget(name: string) {
  forms.delete(name);
}
