//! Order: what one server is asked to do with a profile takes effect in the order of the calls,
//! whether or not a caller waits for it. Scripted, and as random sequences whose model is the order
//! of the calls.
//!
//! Sequences: `PROFILESTORE_ORDER_SEEDS`, 300 otherwise; one alone: `PROFILESTORE_ORDER_SEED=17`.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use profilestore::{Error, ErrorKind, GameServer, Profile, Result};

use crate::world::{Fault, Player, World, earn, open, players, settle};

fn give(
    server: &GameServer,
    from: &Profile<Player>,
    coins: i64,
) -> impl Future<Output = Result<i64>> + Send + 'static {
    let giver = from.clone();
    server.transaction().with(from).run(move |tx| {
        tx.edit(&giver, |data| {
            data.coins -= coins;
            data.coins
        })
    })
}

#[tokio::test(start_paused = true)]
async fn an_end_comes_behind_a_transaction_that_was_called_before_it() {
    let world = World::new();
    let server = world.server("a").await;
    let profile = open(&server, "p").await;
    earn(&profile, 100);
    let (traded, ended) = (give(&server, &profile, 30), profile.end_session());
    assert_eq!(profile.update(|_| ()).unwrap_err().kind(), ErrorKind::SessionEnded);
    let (traded, ended) = tokio::join!(traded, ended);
    assert_eq!(traded.unwrap(), 70);
    ended.unwrap();
    assert_eq!(players(&server).get("p").await.unwrap().unwrap().data.coins, 70);
}

#[tokio::test(start_paused = true)]
async fn also_behind_a_save_that_waits_and_when_nobody_waits_for_either() {
    let world = World::new();
    let server = world.server("a").await;
    let profile = open(&server, "p").await;
    earn(&profile, 100);
    world.store.plan().fail(Fault::Refused, 1);
    drop((profile.save(), give(&server, &profile, 30), profile.end_session()));
    // Called after the end, so it sees all of it.
    assert_eq!(players(&server).get("p").await.unwrap().unwrap().data.coins, 70);
    let again = open(&server, "p").await;
    assert_eq!(again.data().coins, 70);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_comes_behind_what_was_called_before_it_and_is_under_way_when_it_is_called() {
    let world = World::new();
    let (server, other) = (world.server("a").await, world.server("b").await);
    let profile = open(&server, "p").await;
    earn(&profile, 100);
    let traded = give(&server, &profile, 30);
    let sent = players(&server).send_message("q", &1);
    let report = server.shutdown();
    assert_eq!(profile.update(|_| ()).unwrap_err().kind(), ErrorKind::SessionEnded);
    let late = give(&server, &profile, 1);
    let (traded, sent, late, report) = tokio::join!(traded, sent, late, report);
    assert_eq!(traded.unwrap(), 70);
    sent.unwrap();
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Closing);
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(players(&other).get("p").await.unwrap().unwrap().data.coins, 70);
    assert_eq!(players(&other).get("q").await.unwrap().unwrap().waiting_messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_nobody_waits_for_saves_all_the_same() {
    let world = World::new();
    let (server, other) = (world.server("a").await, world.server("b").await);
    let profile = open(&server, "p").await;
    earn(&profile, 100);
    drop(give(&server, &profile, 30));
    drop(server.shutdown());
    settle().await;
    assert_eq!(players(&other).get("p").await.unwrap().unwrap().data.coins, 70);
    assert!(open(&other, "p").await.is_active());
}

#[tokio::test(start_paused = true)]
async fn an_end_called_from_inside_an_edit_comes_behind_that_edit() {
    let world = World::new();
    let server = world.server("a").await;
    let (profile, other) = (open(&server, "p").await, open(&server, "q").await);
    profile
        .update(|data| {
            data.coins = 7;
            drop(profile.end_session());
            drop(other.end_session());
        })
        .unwrap();
    assert!(profile.is_over() && other.is_over());
    assert_eq!(open(&server, "p").await.data().coins, 7);
    assert!(open(&server, "q").await.is_active());
}

#[tokio::test(start_paused = true)]
async fn an_edit_from_inside_another_ones_edit_says_what_to_do() {
    let world = World::new();
    let server = world.server("a").await;
    let (profile, other) = (open(&server, "p").await, open(&server, "q").await);
    let refused = profile.update(|_| other.update(|data| data.coins = 1).unwrap_err()).unwrap();
    assert_eq!((refused.kind(), refused.key()), (ErrorKind::Busy, Some(other.key())));
    assert!(refused.to_string().contains("transaction"), "{refused}");
    other.end_session().await.unwrap();
    assert_eq!(open(&server, "q").await.data().coins, 0);
}

// --- random sequences ---------------------------------------------------------------------------

/// Numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

const KEYS: [&str; 3] = ["p", "q", "r"];

/// What the order of the calls says about one profile.
#[derive(Default)]
struct Expected {
    profile: Option<Profile<Player>>,
    /// A start was called that nobody has called off.
    starting: Option<u64>,
    /// What was done with it in its sessions, in the order in which it must be found. Edits take
    /// effect at once, transactions in their turn, so each kind has an order of its own.
    edits: Vec<String>,
    trades: Vec<String>,
    /// Edits up to here are durable for calls that come now.
    edits_durable: usize,
    sent: Vec<i64>,
}

/// A start that is waited for.
type Start = BoxFuture<'static, Result<Profile<Player>>>;

/// What a call is to come to.
type Check = BoxFuture<'static, Result<(), String>>;

struct Game {
    server: GameServer,
    expected: BTreeMap<&'static str, Expected>,
    /// Calls that are waited for, by their number.
    waits: Vec<(u64, Check)>,
    starts: Vec<(u64, &'static str, Start)>,
    calls: u64,
    dice: Dice,
    /// What was called, for the reader of a failure.
    log: Vec<String>,
}

fn expect<T: Send + 'static>(
    what: String,
    call: impl Future<Output = Result<T>> + Send + 'static,
    wanted: Option<ErrorKind>,
) -> Check {
    async move {
        let kind = call.await.err().map(|error| error.kind());
        if kind == wanted { Ok(()) } else { Err(format!("{what}: {kind:?} instead of {wanted:?}")) }
    }
    .boxed()
}

/// True if one is found in the other in this order, maybe with something between.
fn in_order(wanted: &[String], found: &[String]) -> bool {
    let mut found = found.iter();
    wanted.iter().all(|wanted| found.any(|found| found == wanted))
}

impl Game {
    /// Waits for a call or lets go of its future.
    fn wait_or_drop(&mut self, check: Check) {
        if self.dice.below(3) > 0 {
            self.waits.push((self.calls, check));
        }
    }

    async fn settle(&mut self) -> Result<(), String> {
        for (number, key, start) in std::mem::take(&mut self.starts) {
            let started = start.await;
            let expected = self.expected.get_mut(key).unwrap();
            match started {
                Ok(profile) if expected.starting == Some(number) => {
                    expected.profile = Some(profile)
                }
                Err(error)
                    if expected.starting != Some(number)
                        && error.kind() == ErrorKind::Superseded =>
                {
                    continue;
                }
                other => return Err(format!("start {number} of {key}: {:?}", other.err())),
            }
            expected.starting = None;
        }
        for (_, check) in std::mem::take(&mut self.waits) {
            check.await?;
        }
        Ok(())
    }

    async fn call(&mut self) -> Result<(), String> {
        self.calls += 1;
        let number = self.calls;
        let key = KEYS[self.dice.below(KEYS.len() as u64) as usize];
        let profile = self.expected[key].profile.clone();
        let store = players(&self.server);
        let kind = self.dice.below(16);
        self.log.push(format!(
            "{number}: kind {kind} on {key}, {} there",
            if profile.is_some() { "a session is" } else { "none" }
        ));
        match (kind, profile) {
            (0..=1, _) => self.settle().await?,
            (2, _) => {
                // A start that is delivered while nobody waits for it has the profile all the same.
                self.settle().await?;
                tokio::time::sleep(Duration::from_millis(self.dice.below(30))).await;
            }
            (3..=5, None) => self.start(key, number),
            (3..=4, Some(profile)) => {
                let refused = expect(
                    format!("start {number} of a live {key}"),
                    store.start_session(key),
                    Some(ErrorKind::AlreadyLoaded),
                );
                drop(profile);
                self.wait_or_drop(refused);
            }
            (5..=7, Some(profile)) => {
                let name = format!("edit {number}");
                // A transaction that is open refuses it.
                if profile.update(|data| data.items.push(name.clone())).is_ok() {
                    self.expected.get_mut(key).unwrap().edits.push(name);
                }
            }
            (8, Some(profile)) => self.save(key, number, &profile).await?,
            (9..=11, Some(profile)) => self.trade(key, number, profile),
            (12, Some(profile)) => self.end(key, number, &profile)?,
            (13..=14, _) => {
                let value = number as i64;
                self.expected.get_mut(key).unwrap().sent.push(value);
                let sent = expect(
                    format!("message {number} to {key}"),
                    store.send_message(key, &value),
                    None,
                );
                self.wait_or_drop(sent);
            }
            (15, _) => {
                let check = self.read(key, number);
                self.wait_or_drop(check);
            }
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, key: &'static str, number: u64) {
        let start = players(&self.server).start_session(key);
        let expected = self.expected.get_mut(key).unwrap();
        if self.dice.below(4) == 0 {
            drop(start);
            // It has taken the place of the one before it all the same.
            expected.starting = None;
        } else {
            expected.starting = Some(number);
            self.starts.push((number, key, start.boxed()));
        }
    }

    async fn save(
        &mut self,
        key: &'static str,
        number: u64,
        profile: &Profile<Player>,
    ) -> Result<(), String> {
        let edits = self.expected[key].edits.len();
        let saved = expect(format!("save {number} of {key}"), profile.save(), None);
        if self.dice.below(2) == 0 {
            self.settle().await?;
            saved.await?;
            self.expected.get_mut(key).unwrap().edits_durable = edits;
        } else {
            // If an end is called before its turn comes, the last save does its work: reads that
            // are called between the two need not see it.
            self.wait_or_drop(saved);
        }
        Ok(())
    }

    fn trade(&mut self, key: &'static str, number: u64, profile: Profile<Player>) {
        let other = KEYS[self.dice.below(KEYS.len() as u64) as usize];
        self.log.push(format!("{number}: with {other}"));
        let name = format!("trade {number}");
        let mut sessions = vec![(key, profile)];
        if other != key
            && let Some(profile) = self.expected[other].profile.clone()
        {
            sessions.push((other, profile));
        }
        let builder = sessions
            .iter()
            .fold(self.server.transaction(), |builder, (_, profile)| builder.with(profile));
        let parts: Vec<_> = sessions.iter().map(|(_, profile)| profile.clone()).collect();
        let item = name.clone();
        let trade = builder.run(move |tx| {
            parts
                .iter()
                .try_for_each(|profile| tx.edit(profile, |data| data.items.push(item.clone())))?;
            Ok::<_, Error>(())
        });
        for (key, _) in &sessions {
            let expected = self.expected.get_mut(key).unwrap();
            expected.trades.push(name.clone());
            expected.edits_durable = expected.edits.len();
        }
        let traded = expect(format!("{name} on {key}"), trade, None);
        self.wait_or_drop(traded);
    }

    fn end(
        &mut self,
        key: &'static str,
        number: u64,
        profile: &Profile<Player>,
    ) -> Result<(), String> {
        let expected = self.expected.get_mut(key).unwrap();
        expected.edits_durable = expected.edits.len();
        expected.profile = None;
        let ended = expect(format!("end {number} of {key}"), profile.end_session(), None);
        let late = profile.update(|_| ()).err().map(|error| error.kind());
        if late != Some(ErrorKind::SessionEnded) {
            return Err(format!("an edit after end {number} of {key}: {late:?}"));
        }
        self.wait_or_drop(ended);
        Ok(())
    }

    /// A read sees everything that was called before it.
    fn read(&self, key: &'static str, number: u64) -> Check {
        let expected = &self.expected[key];
        let edits = expected.edits[..expected.edits_durable].to_vec();
        let (trades, sent) = (expected.trades.clone(), expected.sent.clone());
        let read = players(&self.server).get(key);
        async move {
            let (items, waiting) = match read.await {
                Ok(Some(read)) => {
                    let waiting = read
                        .waiting_messages()
                        .iter()
                        .map(|message| message.payload.clone())
                        .collect();
                    (read.data.items, waiting)
                }
                Ok(None) => (Vec::new(), Vec::new()),
                Err(error) => return Err(format!("read {number} of {key}: {error}")),
            };
            let waiting: Vec<i64> =
                waiting.iter().map(|payload| serde_json::from_slice(payload).unwrap()).collect();
            let right = in_order(&edits, &items) && in_order(&trades, &items) && waiting == sent;
            let wrong = || {
                format!(
                    "read {number} of {key}: {items:?} {waiting:?} lacks some of \
                {edits:?} {trades:?} {sent:?}"
                )
            };
            if right { Ok(()) } else { Err(wrong()) }
        }
        .boxed()
    }
}

/// Every call takes effect in the order of the calls, whatever becomes of its future.
async fn play(seed: u64) -> Result<(), String> {
    let world = World::new();
    let server = world.server("a").await;
    let mut game = Game {
        server: server.clone(),
        expected: KEYS.iter().map(|key| (*key, Expected::default())).collect(),
        waits: Vec::new(),
        starts: Vec::new(),
        calls: 0,
        dice: Dice(seed),
        log: Vec::new(),
    };
    if game.dice.below(2) == 0 {
        world.store.plan().delay_reads(game.dice.below(20));
    }
    for _ in 0..20 + game.dice.below(60) {
        if let Err(wrong) = game.call().await {
            return Err(format!("{wrong}; called were {:#?}", game.log));
        }
    }
    // What is called now fails; what was called before is done.
    let report = server.shutdown();
    for (number, _, start) in std::mem::take(&mut game.starts) {
        let started = start.now_or_never();
        if matches!(started, Some(Err(ref error)) if error.kind() == ErrorKind::Invalid) {
            return Err(format!("start {number}"));
        }
    }
    let report = report.await;
    if !report.is_complete() {
        return Err(format!("not saved: {report:?}"));
    }
    for (_, check) in std::mem::take(&mut game.waits) {
        check.await?;
    }
    let last = world.server("last").await;
    for (key, expected) in &game.expected {
        let Expected { edits, trades, sent, .. } = expected;
        let read = players(&last).get(key).await;
        if edits.is_empty() && trades.is_empty() && sent.is_empty() {
            continue;
        }
        let read = read.map_err(|error| format!("{key} at the end: {error}"))?;
        let read = read.ok_or_else(|| format!("{key} is gone at the end"))?;
        let waiting = read
            .waiting_messages()
            .iter()
            .map(|message| serde_json::from_slice::<i64>(&message.payload).unwrap());
        let (items, waiting) = (read.data.items.clone(), waiting.collect::<Vec<_>>());
        let complete = items.len() == edits.len() + trades.len();
        if !complete || !in_order(edits, &items) || !in_order(trades, &items) || waiting != *sent {
            return Err(format!(
                "{key} at the end: {items:?} {waiting:?} instead of {edits:?} {trades:?} {sent:?}"
            ));
        }
    }
    Ok(())
}

#[test]
fn calls_take_effect_in_the_order_in_which_they_are_made() {
    let number =
        |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("PROFILESTORE_ORDER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PROFILESTORE_ORDER_SEEDS").unwrap_or(300),
    };
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        if let Err(wrong) = runtime.block_on(play(seed)) {
            panic!("PROFILESTORE_ORDER_SEED={seed}: {wrong}");
        }
    }
}
