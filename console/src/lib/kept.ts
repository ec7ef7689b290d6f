// What was typed and is not sent yet. It outlives its page, so that neither the end of a log-in nor
// a look at another page loses it. It stays in memory, and is for one person.

const forms = new Map<string, unknown>();
let owner = "";

/** From now on it is this person who types. What another one typed is forgotten. */
export function keepFor(who: string) {
  if (who !== owner) forms.clear();
  owner = who;
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
