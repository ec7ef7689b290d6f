/** Checked by `tsc`, never run: what must be an error is one. */
import type { Kind, Profile, ProfileError, StartOptions, Store } from "../dist/index.js";
import type { Server } from "../dist/index.js";

interface Player {
  coins: number;
  items: string[];
}

type Same<A, B> =
  (<X>() => X extends A ? 1 : 2) extends <X>() => X extends B ? 1 : 2 ? true : false;

/** Known kinds are offered, and one from a later server is no error. */
export function login(error: ProfileError): boolean {
  const kinds: Kind[] = ["taken-elsewhere", "of-a-later-server"];
  // @ts-expect-error There is no such advice.
  return error.advice === "panic" || kinds.includes(error.kind);
}

export async function typed(server: Server, guild: Profile<{ gold: bigint }>): Promise<void> {
  const players = server.store("PlayerData", { template: { coins: 0, items: [] as string[] } });
  const same: Same<typeof players, Store<Player>> = true;
  const profile = await players.start("user-1");
  const coins: number = profile.data.coins;
  const taken: string | undefined = profile.update((data) => data.items.pop());
  // @ts-expect-error The data is for reading; `update` changes it.
  profile.data.coins = 1;
  // @ts-expect-error A list of it too.
  profile.data.items.push("sword");
  // @ts-expect-error The template has no such member.
  profile.update((data) => (data.gems = 1));
  // @ts-expect-error Coins are a number.
  profile.update((data) => (data.coins = "1"));
  const placed = server.store("P", { template: { at: [0, "north"] as [number, string] } });
  const [x, side] = (await placed.start("user-2")).data.at;
  const place: readonly [number, string] = [x, side];
  // @ts-expect-error A place in a tuple is for reading too.
  (await placed.start("user-2")).data.at[0] = 1;
  profile.setTags({ ...profile.tags, vip: true });
  // @ts-expect-error Tags have names.
  profile.setTags(["vip"]);
  // @ts-expect-error `setTags` changes them.
  profile.tags["vip"] = true;
  profile.onMessage("gift", (data, gift: { coins: number }) => void (data.coins += gift.coins));
  profile.on("end", ({ reason }) => {
    const known: "ended" | "released" | "external" | "operator" | "lost" = reason;
    return known;
  });
  // @ts-expect-error There is no such event.
  profile.on("ended", () => {});
  const paid = await server.transaction([profile, guild], ([player, bank]) => {
    player.coins -= 1;
    bank.gold += 1n;
    // @ts-expect-error Each profile has its own type.
    bank.coins = 1;
    return player.items.length;
  });
  const count: number = paid;
  const stored = await players.get("user-1");
  // @ts-expect-error There may be none.
  stored.data.coins;
  // What is not given may be given as undefined.
  const how: StartOptions = { signal: undefined, timeoutMs: undefined, whenHeld: undefined };
  await server.store("P", { template: {}, scope: undefined, check: undefined }).start("a", how);
  await server.transaction([profile], () => {}, { gifts: undefined, deadlineMs: undefined });
  await server.http.call("GET", "/", { query: undefined, body: undefined, type: undefined });
  return void [same, coins, taken, count, place];
}
