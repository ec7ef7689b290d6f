/** What is stored beside a session's data: users, tags, and the metadata of its key. Pure. */
import { failure } from "../errors.js";
import { members, parse, stringify, type Numbers } from "../json.js";
import { userOf, type User } from "./users.js";

/** Names and what they say, as a game has chosen them. */
export type Table = Readonly<Record<string, unknown>>;

/** What is to be stored beside the data. undefined: what is stored already. */
export interface BesideDraft {
  /** All users associated with the profile. */
  readonly users?: readonly User[] | undefined;
  /** All tags, as a text. */
  readonly tags?: string | undefined;
  /** The metadata, as a text. */
  readonly metadata?: string | undefined;
}

/** Limits of the metadata, in characters of JSON: docs/storable.md. */
const MAX_NAME = 50;
const MAX_VALUE = 250;
const MAX_METADATA = 300;

export class Beside {
  #users: readonly User[];
  #tags: string;
  #metadata: string;
  #stored: { users: readonly User[]; tags: string; metadata: string };

  /** `meta` is what the start was told, as a text. */
  constructor(
    meta: string,
    readonly numbers: Numbers,
  ) {
    const told = members(meta);
    this.#users = JSON.parse(told.get("user_ids") ?? "[]") as User[];
    this.#tags = told.get("tags") ?? "{}";
    this.#metadata = told.get("metadata") ?? "{}";
    this.#stored = { users: this.#users, tags: this.#tags, metadata: this.#metadata };
  }

  get users(): readonly User[] {
    return this.#users;
  }

  /** Fails when they have a number that cannot be held. */
  get tags(): Table {
    return parse(this.#tags, this.numbers) as Table;
  }

  /** Fails when it has a number that cannot be held. */
  get metadata(): Table {
    return parse(this.#metadata, this.numbers) as Table;
  }

  /** Whether there is something that is not stored. */
  get isChanged(): boolean {
    const { users, tags, metadata } = this.#stored;
    return this.#users !== users || this.#tags !== tags || this.#metadata !== metadata;
  }

  addUser(given: User | bigint): void {
    const user = userOf(given);
    if (!this.#users.includes(user)) this.#users = [...this.#users, user];
  }

  removeUser(given: User | bigint): void {
    const user = userOf(given);
    if (this.#users.includes(user)) this.#users = this.#users.filter((one) => one !== user);
  }

  setTags(tags: Table): void {
    this.#tags = textOf(tags, "the tags", this.numbers);
  }

  setMetadata(metadata: Table): void {
    const text = textOf(metadata, "the metadata", this.numbers);
    checkMetadata(text);
    this.#metadata = text;
  }

  draft(): BesideDraft {
    const { users, tags, metadata } = this.#stored;
    return {
      users: this.#users === users ? undefined : this.#users,
      tags: this.#tags === tags ? undefined : this.#tags,
      metadata: this.#metadata === metadata ? undefined : this.#metadata,
    };
  }

  /** A draft is stored. */
  stored({ users, tags, metadata }: BesideDraft): void {
    const before = this.#stored;
    this.#stored = {
      users: users ?? before.users,
      tags: tags ?? before.tags,
      metadata: metadata ?? before.metadata,
    };
  }
}

function textOf(table: Table, what: string, numbers: Numbers): string {
  if (typeof table !== "object" || table === null || Array.isArray(table)) {
    throw failure("invalid", `${what}: they are an object with names and what these say`);
  }
  return stringify(table, numbers);
}

/** The server refuses a larger one, and with it everything else that was to be stored. */
function checkMetadata(text: string): void {
  const check = (what: string, said: string, limit: number) => {
    const characters = [...said].length;
    if (characters <= limit) return;
    const detail = `the metadata is too long: ${what} characters=\`${characters}\``;
    throw failure("too-large", `${detail} limit=\`${limit}\``);
  };
  for (const [name, value] of members(text)) {
    check("a key", name, MAX_NAME);
    check("a value", value.startsWith('"') ? (JSON.parse(value) as string) : value, MAX_VALUE);
  }
  check("all of it", text, MAX_METADATA);
}
