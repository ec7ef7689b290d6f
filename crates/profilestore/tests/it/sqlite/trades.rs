//! Two processes trade and give unique items on one file and are killed at random moments: no item
//! is ever doubled or gone, and what was acknowledged is there.
//!
//! `PROFILESTORE_KILL_RUNS` says how many runs at least, 20 otherwise; `PROFILESTORE_KILL_SEED`
//! repeats the choice of moments.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use profilestore::{
    Error, GameServer, Profile, ProfileStore, StartOptions,
    data_store::{SqliteMessenger, SqliteOptions, SqliteStore},
    env::Env,
};
use serde::{Deserialize, Serialize};

use super::{
    folder, path,
    processes::{Process, command},
};

const RUNS: &str = "PROFILESTORE_KILL_RUNS";
const SEED: &str = "PROFILESTORE_KILL_SEED";
/// Which half of the owners a child has.
const HALF: &str = "PROFILESTORE_KILL_HALF";
const OWNERS: u64 = 8;
const ITEMS: u64 = 32;
/// Killed at the latest this long after both processes have begun to trade.
const LATEST: Duration = Duration::from_millis(60);

/// Its items, each with the number of times it has moved.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Owner {
    items: BTreeMap<u64, u64>,
    /// Items that arrived while they were here.
    doubled: Vec<u64>,
}

impl Owner {
    fn take(&mut self, chance: u64) -> Option<(u64, u64)> {
        let at = usize::try_from(chance).unwrap() % self.items.len().max(1);
        let item = *self.items.keys().nth(at)?;
        Some((item, self.items.remove(&item)? + 1))
    }

    fn put(&mut self, (item, moves): (u64, u64)) {
        if self.items.insert(item, moves).is_some() {
            self.doubled.push(item);
        }
    }
}

/// Splitmix64, shared by tasks.
struct Chance(AtomicU64);

impl Chance {
    fn below(&self, end: u64) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

fn owner(number: u64) -> String {
    format!("owner-{number}")
}

async fn start(file: &Path) -> (GameServer, ProfileStore<Owner>) {
    let store = SqliteStore::open(file, SqliteOptions::default()).unwrap();
    let server = GameServer::builder(store.clone())
        .messenger(SqliteMessenger::new(&store))
        .start()
        .await
        .unwrap();
    let owners = server.store_builder("Owners").template(Owner::default()).build().unwrap();
    (server, owners)
}

/// What a child does: says of each item that moved how often it has moved, once that is
/// acknowledged.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn trade_for_ever(file: &Path) {
    let (server, owners) = start(file).await;
    let half: u64 = std::env::var(HALF).unwrap().parse().unwrap();
    let chance = std::sync::Arc::new(Chance(AtomicU64::new(Env::system().uuid().as_u64_pair().0)));
    let mut mine = Vec::new();
    for number in (0..OWNERS).filter(|number| number % 2 == half) {
        // Its last holder was killed.
        let profile =
            owners.start_session_with(&owner(number), StartOptions::new().steal()).await.unwrap();
        profile.message_handler(|data, message| {
            data.put(message.parse().unwrap());
            message.processed();
        });
        mine.push(profile);
    }
    println!("\nbegins");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (server, owners, mine, chance) =
            (server.clone(), owners.clone(), mine.clone(), chance.clone());
        tasks.spawn(async move {
            let one = |chance: &Chance| usize::try_from(chance.below(OWNERS / 2)).unwrap();
            loop {
                let (from, to) = (one(&chance), one(&chance));
                let moved = if chance.below(3) == 0 {
                    give(
                        &server,
                        &owners,
                        &mine[from],
                        owner(chance.below(OWNERS)),
                        chance.below(99),
                    )
                    .await
                } else if from != to {
                    swap(&server, &mine[from], &mine[to], chance.below(99)).await
                } else {
                    mine[from].save().await.map(|()| Vec::new())
                };
                for (item, moves) in moved.unwrap() {
                    // One write a line, so that lines do not mix.
                    std::io::stdout()
                        .write_all(format!("moved {item} {moves}\n").as_bytes())
                        .unwrap();
                }
            }
        });
    }
    tasks.join_next().await.unwrap().unwrap();
}

type Moved = Result<Vec<(u64, u64)>, Error>;

async fn swap(
    server: &GameServer,
    one: &Profile<Owner>,
    other: &Profile<Owner>,
    chance: u64,
) -> Moved {
    let sides = [one.clone(), other.clone()];
    let run = server.transaction().with(one).with(other).run(move |tx| {
        let mut taken = Vec::new();
        for side in &sides {
            taken.extend(tx.edit(side, |data| data.take(chance))?);
        }
        // One of them may have had nothing: then it is a present.
        for (side, item) in sides.iter().rev().zip(&taken) {
            tx.edit(side, |data| data.put(*item))?;
        }
        Ok(taken)
    });
    run.await
}

async fn give(
    server: &GameServer,
    owners: &ProfileStore<Owner>,
    from: &Profile<Owner>,
    to: String,
    chance: u64,
) -> Moved {
    let (giver, owners) = (from.clone(), owners.clone());
    let run = server.transaction().with(from).run(move |tx| {
        let taken = tx.edit(&giver, |data| data.take(chance))?;
        if let Some(item) = taken {
            tx.gift(&owners, &to, &item)?;
        }
        Ok(taken.into_iter().collect())
    });
    run.await
}

/// Two processes trade, and each is killed at a random moment. Gives what they said until then.
async fn said_by_killed_traders(file: &Path, chance: &Chance, run: u64) -> Vec<String> {
    let mut traders =
        ["0", "1"].map(|half| Process(command("trade", file).env(HALF, half).spawn().unwrap()));
    let outputs = traders.each_mut().map(|trader| {
        let mut lines = trader.lines();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let reader = std::thread::spawn(move || {
            let begins = lines.any(|line| line == "begins");
            let _ = begun.send(begins);
            lines.collect::<Vec<_>>()
        });
        (begins, reader)
    });
    let mut readers = Vec::new();
    for (begins, reader) in outputs {
        assert!(begins.await.unwrap(), "a trader of run {run} has not begun");
        readers.push(reader);
    }
    for trader in &mut traders {
        let moment = chance.below(u64::try_from(LATEST.as_micros()).unwrap());
        tokio::time::sleep(Duration::from_micros(moment)).await;
        assert!(trader.0.try_wait().unwrap().is_none(), "a trader of run {run} ended by itself");
        trader.0.kill().unwrap();
    }
    drop(traders);
    readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
}

/// Where each item is, in data and waiting messages: how often it has moved, at each place.
async fn places_of_items(owners: &ProfileStore<Owner>, run: u64) -> BTreeMap<u64, Vec<u64>> {
    let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for number in 0..OWNERS {
        let profile = owners.get(&owner(number)).await.unwrap().unwrap();
        assert_eq!(profile.data.doubled, [0; 0], "run {run}: {} got what it had", owner(number));
        let waiting = profile
            .waiting_messages()
            .iter()
            .map(|message| serde_json::from_slice(&message.payload).unwrap());
        for (item, moves) in profile.data.items.clone().into_iter().chain(waiting) {
            found.entry(item).or_default().push(moves);
        }
    }
    found
}

#[tokio::test]
async fn no_item_is_doubled_or_gone_when_traders_are_killed() {
    let runs: u64 = std::env::var(RUNS).map_or(20, |runs| runs.parse().unwrap());
    let seed = std::env::var(SEED)
        .map_or_else(|_| Env::system().uuid().as_u64_pair().1, |seed| seed.parse().unwrap());
    println!("{SEED}={seed}");
    let chance = Chance(AtomicU64::new(seed));
    let dir = folder();
    let file = path(&dir);
    let (server, owners) = start(&file).await;
    for number in 0..OWNERS {
        let profile = owners.start_session(&owner(number)).await.unwrap();
        profile
            .update(|data| {
                (0..ITEMS / OWNERS).for_each(|n| data.put((number * (ITEMS / OWNERS) + n, 0)))
            })
            .unwrap();
        profile.end_session().await.unwrap();
    }
    let mut acknowledged: BTreeMap<u64, u64> = (0..ITEMS).map(|item| (item, 0)).collect();
    let mut trades = 0_u64;
    let mut run = 0;
    // A busy machine may need more runs until enough was traded.
    while run < runs || trades <= runs {
        run += 1;
        for line in said_by_killed_traders(&file, &chance, run).await {
            // The last line may be cut off by the kill: then it says less than was acknowledged,
            // never more.
            let Some((item, moves)) =
                line.strip_prefix("moved ").and_then(|line| line.split_once(' '))
            else {
                continue;
            };
            let (Ok(item), Ok(moves)) = (item.parse::<u64>(), moves.parse::<u64>()) else {
                continue;
            };
            let known = acknowledged.get_mut(&item).expect("an item that there is");
            *known = (*known).max(moves);
            trades += 1;
        }
        let mut found = places_of_items(&owners, run).await;
        for (item, known) in &acknowledged {
            let places = found.remove(item).unwrap_or_default();
            assert!(places.len() == 1, "run {run}: item {item} is in {} places", places.len());
            assert!(
                places[0] >= *known,
                "run {run}: item {item} has moved {} times, acknowledged were {known}",
                places[0]
            );
        }
        assert!(found.is_empty(), "run {run}: items out of nowhere: {found:?}");
    }
    println!("{run} runs, {trades} acknowledged moves, 0 items doubled, 0 gone");
    assert!(server.shutdown().await.is_complete());
}
