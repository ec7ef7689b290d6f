/** What players can do, and what it does to their data. It knows nothing of connections. */
export const PRICE = 30;
export const SECOND_HAND = 20;

/** The data of a player who begins. `mined` and `bought` count, so that coins can be audited. */
export const template = { coins: 0, swords: [], mined: 0, bought: 0 };

/** Resolves when it is stored. */
export async function mine(profile) {
  profile.update((player) => {
    player.coins += 10;
    player.mined += 1;
  });
  await profile.save();
}

/** Resolves with the sword's name when it is stored. */
export async function buy(profile) {
  const sword = profile.update((player) => {
    if (player.coins < PRICE) throw new Error(`a sword costs ${PRICE} coins`);
    player.coins -= PRICE;
    player.bought += 1;
    player.swords.push(`${profile.key}-${player.bought}`);
    return player.swords.at(-1);
  });
  await profile.save();
  return sword;
}

/** A sword for coins: both get what they were promised, or nothing happens. */
export async function sell(server, seller, buyer) {
  await server.transaction([seller, buyer], ([giver, taker]) => {
    if (giver.swords.length === 0) throw new Error("there is no sword to sell");
    if (taker.coins < SECOND_HAND) throw new Error(`the other has less than ${SECOND_HAND} coins`);
    taker.coins -= SECOND_HAND;
    giver.coins += SECOND_HAND;
    taker.swords.push(giver.swords.pop());
  });
}
