//! Wild play from a seed: hops, crashes, lost answers, gifts, trades and a guild at once. Whatever
//! happens, no item is there twice, and no coin comes or goes.

use std::{collections::BTreeSet, time::Duration};

use profilestore::env::{Rng, SeededRng};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Client, Host, host, world};

const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// Longer than the library goes on with any call of the game.
const LONG: Duration = Duration::from_secs(300);

#[tokio::test(start_paused = true)]
async fn no_item_is_doubled_and_no_coin_is_lost_in_wild_play() {
    for seed in 0..6 {
        play(seed).await;
    }
}

async fn play(seed: u64) {
    let dice = SeededRng::new(seed);
    let roll = |below: usize| (dice.bits() % below as u128) as usize;
    let world = world();
    let mut hosts = [host(&world, "0").await, host(&world, "1").await];
    let mut seats: [Option<(usize, Client)>; 4] = [const { None }; 4];
    let mut crashes = 0;
    for _ in 0..80 {
        let who = roll(4);
        let at = roll(2);
        match (roll(8), &seats[who]) {
            (0, _) | (_, None) => seats[who] = Some((at, hosts[at].login(NAMES[who]).await)),
            (1, Some(_)) => {
                let (_, client) = seats[who].take().unwrap();
                // A seat that was lost says so.
                let _ = client.game.leave(&client.seated).await;
            }
            (2, _) => hosts[at].server.lose_answers(1),
            (3, _) => hosts[at].server.lose_requests(1),
            (kind, Some((on, client))) => {
                let command = command(client, NAMES[roll(4)], roll(6), 1 + roll(9));
                let crash = kind == 4 && roll(2) == 0;
                let play = timeout(LONG, client.ask(command));
                if crash {
                    let (on, after) = (*on, Duration::from_millis(roll(4) as u64));
                    tokio::join!(play, async {
                        world.pass(after).await;
                        hosts[on].server.crash();
                    })
                    .0
                    .ok();
                    crashes += 1;
                    hosts[on] = host(&world, &format!("{}", 1 + crashes)).await;
                    seats
                        .iter_mut()
                        .filter(|seat| seat.as_ref().is_some_and(|s| s.0 == on))
                        .for_each(|seat| *seat = None);
                } else {
                    play.await.ok();
                }
            }
        }
        world.pass(Duration::from_millis(roll(1500) as u64)).await;
    }
    world.heal();
    audit(seed, &hosts[0], &world).await;
}

fn command(client: &Client, other: &str, kind: usize, coins: usize) -> Value {
    let item = client.data().items.first().map(|item| item.id.clone()).unwrap_or_default();
    match kind {
        0 => json!({ "do": "buy", "kind": "hat" }),
        1 => json!({ "do": "gift", "to": other, "coins": coins }),
        2 => json!({ "do": "give_item", "to": other, "item": item }),
        3 => json!({ "do": "join", "guild": "owls" }),
        4 => json!({ "do": "deposit", "coins": coins }),
        _ => json!({ "do": "withdraw", "coins": coins }),
    }
}

/// All players come to one server. Each began with 100 coins, and a hat is worth 10.
async fn audit(seed: u64, host: &Host, world: &profilestore::testing::World) {
    let mut players = Vec::new();
    for name in NAMES {
        players.push(host.login(name).await);
    }
    // A guild that a dead server held is taken up after its lease, and pays what it owes.
    world.pass(Duration::from_secs(60)).await;
    players[0].ask(json!({ "do": "join", "guild": "owls" })).await.unwrap();
    world.pass(Duration::from_secs(60)).await;
    let guild = host.game.guilds.get("owls").await.unwrap().unwrap().data;
    let (mut value, mut items) = (guild.bank, BTreeSet::new());
    for player in &players {
        let data = player.data();
        value += data.coins;
        for item in data.items {
            value += 10;
            assert!(items.insert(item.id), "seed {seed}: an item is there twice");
        }
    }
    assert_eq!(value, 400, "seed {seed}: coins came or went; {} items", items.len());
}
