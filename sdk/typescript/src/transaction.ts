/** Several profiles of this game server change together, and gifts go with them: all or nothing. */
import { failure, isPromise, quiet, type ProfileError } from "./errors.js";
import { compose } from "./frames.js";
import { parse, stringify } from "./json.js";
import { calls, fields, frameMs, list } from "./options.js";
import { framed, type Draft } from "./session/document.js";
import { Profile } from "./session/profile.js";
import type { Wire } from "./session/saver.js";

/** A message that goes with a transaction. `Store.gift` makes it. */
export interface Gift {
  readonly store: string;
  readonly scope: string;
  readonly key: string;
  /** TIME:NAME. A message is stored once under it. */
  readonly id: string;
  /** The message's JSON text. */
  readonly message: string;
}

/** What goes with a transaction. */
export interface TransactionOptions {
  readonly gifts?: readonly Gift[] | undefined;
  /** After how many milliseconds it is given up, if it has not taken effect. */
  readonly deadlineMs?: number | undefined;
}

/** A profile of any store: only `any` stands for a type that is both read and written. */
export type AnyProfile = Profile<any>;

/** The data of profiles, in their order. */
export type DataOf<Profiles extends readonly AnyProfile[]> = {
  [At in keyof Profiles]: Profiles[At] extends Profile<infer T> ? T : never;
};

/** One gift as a frame has it. */
export function giftText({ message, ...gift }: Gift): string {
  return compose("gift", gift, { message }).slice('{"gift":'.length, -1);
}

/** The connection's side of a transaction. */
export interface Bench extends Wire {
  readonly maxFrame: number;
}

/** A profile of a transaction: its text at the beginning, and the one that is to be. */
type Frozen = { profile: Profile<unknown>; before: string; text: string };

/** Makes the change, and resolves once all of it is stored. */
export async function transact<R>(
  bench: Bench,
  profiles: readonly Profile<unknown>[],
  change: (data: unknown[]) => R,
  options: TransactionOptions,
): Promise<R> {
  const { gifts = [], deadlineMs } = fields("options", options);
  list("gifts", gifts);
  gifts.forEach((gift, at) => fields(`gifts[${at}]`, gift));
  calls("change", change);
  const deadline = frameMs("deadlineMs", deadlineMs);
  const { parts, result } = prepare(profiles, change);
  const thaw = () => parts.forEach(({ profile }) => profile.thaw(undefined, undefined));
  await Promise.all(profiles.map((profile) => profile.settled()));
  const over = profiles.find((profile) => profile.ended !== undefined);
  if (over !== undefined) {
    thaw();
    throw failure("session-ended", `nothing was done, the session is over: ${over.key}`);
  }
  const moved = parts.find(({ profile, before }) => profile.pending().text !== before);
  if (moved !== undefined) {
    thaw();
    const { key } = moved.profile;
    throw failure("busy", `nothing was done, an operator's edit was taken back: ${key}`);
  }
  const drafts: Draft[] = parts.map(({ profile, text }) => ({ ...profile.pending(), text }));
  let versions: number[];
  try {
    versions = await send(bench, parts, drafts, gifts, deadline);
  } catch (error) {
    thaw();
    throw error;
  }
  parts.forEach(({ profile }, at) => profile.thaw(drafts[at], versions[at]));
  return result;
}

/** Freezes the profiles and makes the change on copies. When it fails, nothing is frozen. */
function prepare<R>(
  profiles: readonly Profile<unknown>[],
  change: (data: unknown[]) => R,
): { parts: Frozen[]; result: R } {
  const isList = Array.isArray(profiles) && profiles.every((one) => one instanceof Profile);
  if (!isList || profiles.length === 0) {
    throw failure("invalid", "a transaction has a list of at least one profile");
  }
  if (new Set(profiles).size !== profiles.length) {
    throw failure("invalid", "a profile is named twice");
  }
  const frozen: Profile<unknown>[] = [];
  try {
    const documents = profiles.map((profile) => {
      const document = profile.freeze();
      frozen.push(profile);
      return document;
    });
    const before = documents.map(({ text }) => text);
    const data = documents.map((document) => parse(document.text, document.numbers));
    const result = change(data);
    if (isPromise(result)) {
      void quiet(Promise.resolve(result));
      throw failure("invalid", "a change is made at once: its function must not be async");
    }
    const parts = profiles.map((profile, at) => {
      const text = stringify(data[at], documents[at]?.numbers ?? { bigint: false });
      return { profile, before: before[at] ?? "", text };
    });
    return { parts, result };
  } catch (error) {
    frozen.forEach((profile) => profile.thaw(undefined, undefined));
    throw error;
  }
}

function send(
  bench: Bench,
  parts: readonly Frozen[],
  drafts: readonly Draft[],
  gifts: readonly Gift[],
  deadline_ms: number | undefined,
): Promise<number[]> {
  const i = bench.number();
  const named = parts.map(({ profile }, at) => {
    const draft = drafts[at] as Draft;
    const [s, n] = [profile.opened.s, profile.nextSave()];
    const { body, texts } = framed(draft);
    return { s, n, body, texts };
  });
  const giftTexts = `[${gifts.map(giftText).join(",")}]`;
  const whole = (isStaged: boolean) => {
    const all = named.map(({ s, n, body, texts: { data, ...others } }) => {
      const part = compose("part", { s, n, ...body }, isStaged ? others : { ...others, data });
      return part.slice('{"part":'.length, -1);
    });
    return compose("tx", { i, deadline_ms }, { parts: `[${all.join(",")}]`, gifts: giftTexts });
  };
  let frames = [whole(false)];
  if (Buffer.byteLength(frames[0] ?? "") > bench.maxFrame) {
    const staged = named.map(({ s, n, texts }) =>
      compose("stage", { s, n }, { data: texts["data"] }),
    );
    frames = [...staged, whole(true)];
  }
  return new Promise((done, failed: (error: ProfileError) => void) => {
    bench.request(i, frames, {
      done: (answer) => done(answer[0] === "done" ? answer[1].versions : []),
      failed,
    });
  });
}
