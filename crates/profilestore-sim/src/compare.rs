//! The rows in which the two published modules were measured, measured here: the library's game
//! servers on a store whose calls take 50 ms, in virtual time, so that the figures do not depend on
//! the machine.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::{
    GameServer, Message, Profile, ProfileStore, Settings,
    data_store::{
        DataStore, MemoryStore,
        fault::{Call, Fate, Fault, FaultyStore, LineState, StorePlan},
    },
    env::{Clock, Env},
    messenger::{
        LocalMessenger,
        fault::{FaultyMessenger, HintChances},
    },
};
use tokio::time::Instant;

use crate::{data::Player, dice::Dice};

/// The time of a whole call of the store.
const LATENCY: Duration = Duration::from_millis(50);

/// A hint takes up to this long, evenly spread.
const HINT: Duration = Duration::from_millis(100);

/// What is different in a series of runs.
#[derive(Clone, Copy, Default)]
struct Terms {
    /// No hint ever arrives.
    deaf: bool,
    /// Of each call: half of those that fail take effect all the same.
    failing: f64,
    /// See `Settings::save_changes_within`.
    save_within: Option<Duration>,
}

/// Time of the store and of all servers.
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn unix_ms(&self) -> i64 {
        1_795_000_000_000 + self.0.elapsed().as_millis() as i64
    }
}

struct Calls(Dice, f64);

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Calls").field(&self.1).finish()
    }
}

impl StorePlan for Calls {
    fn fate(&self, _: Call<'_>) -> Fate {
        let fault =
            self.0.chance(self.1).then(|| *self.0.pick(&[Fault::AnswerLost, Fault::RequestLost]));
        Fate { there: LATENCY / 2, back: LATENCY / 2, fault }
    }
}

/// One run's world.
struct Place {
    dice: Dice,
    env: Env,
    store: Arc<MemoryStore>,
    messenger: Arc<LocalMessenger>,
    terms: Terms,
}

struct Server {
    server: GameServer,
    players: ProfileStore<Player>,
    way: FaultyStore<Calls>,
}

impl Place {
    async fn server(&self, job: &str) -> Server {
        let plan = Calls(Dice::new(self.dice.below(1 << 30) as u64, 1), self.terms.failing);
        let way = FaultyStore::new(self.store.clone() as Arc<dyn DataStore>, plan);
        let lost = if self.terms.deaf { 1.0 } else { 0.0 };
        let hints = HintChances { lost, delayed: 1.0, delay: HINT, ..HintChances::default() };
        let messenger = FaultyMessenger::new(
            self.messenger.clone(),
            way.line().clone(),
            self.dice.rng(),
            hints,
        );
        let settings =
            Settings { save_changes_within: self.terms.save_within, ..Settings::default() };
        let server = loop {
            let builder = GameServer::builder(way.clone())
                .job_id(job)
                .env(self.env.clone())
                .settings(settings.clone());
            match builder.messenger(messenger.clone()).start().await {
                Ok(server) => break server,
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        };
        let players = server
            .store_builder("PlayerData")
            .template(Player::default())
            .build()
            .expect("the template is right");
        Server { server, players, way }
    }

    /// Two servers that have been there for a while.
    async fn two(&self) -> (Server, Server) {
        let servers = (self.server("a").await, self.server("b").await);
        tokio::time::sleep(self.dice.seconds(60.0, 70.0)).await;
        servers
    }
}

impl Server {
    async fn open(&self, key: &str) -> Profile<Player> {
        loop {
            if let Ok(profile) = self.players.start_session(key).await {
                return profile;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn crash(&self) {
        self.way.line().set(LineState::Severed);
        self.server.crash();
    }
}

/// Plays until the session is over: a coin a second, counted when the edit was accepted.
fn play(profile: &Profile<Player>) -> Arc<AtomicI64> {
    let (played, profile) = (Arc::new(AtomicI64::new(0)), profile.clone());
    let counts = played.clone();
    tokio::spawn(async move {
        while profile.update(|data| data.coins += 1).is_ok() {
            counts.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    played
}

/// Runs something in worlds of their own.
fn runs<T, F: Future<Output = T>>(count: u64, terms: Terms, run: impl Fn(Place) -> F) -> Vec<T> {
    let one = |seed| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime without I/O can be built").block_on(async {
            let dice = Dice::new(seed, 40_000);
            let env = Env::new(Arc::new(VirtualClock(Instant::now())), Arc::new(dice.rng()));
            let store = Arc::new(MemoryStore::new(env.clone()));
            run(Place { dice, env, store, messenger: Arc::default(), terms }).await
        })
    };
    (0..count).map(one).collect()
}

/// What came of a hand-over.
struct HandOver {
    took: Duration,
    lost: bool,
    both: bool,
}

/// A player plays on one server for some minutes and goes to the other one.
async fn hand_over(place: Place) -> HandOver {
    let (a, b) = place.two().await;
    let on_a = a.open("p").await;
    let played = play(&on_a);
    tokio::time::sleep(place.dice.seconds(10.0, 400.0)).await;
    let began = Instant::now();
    let on_b = b.open("p").await;
    let took = began.elapsed();
    let mut both = false;
    // Whatever the first server learns late, it learns by then.
    for _ in 0..400 {
        both |= on_a.is_active() && on_b.is_active();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    HandOver { took, lost: on_b.read(|data| data.coins) != played.load(Ordering::Relaxed), both }
}

async fn after_an_end(place: Place) -> Duration {
    let (a, b) = place.two().await;
    let _ = a.open("p").await.end_session().await;
    let began = Instant::now();
    b.open("p").await;
    began.elapsed()
}

/// How long a crashed server's player is kept out, and how many seconds of play are gone.
async fn crash(place: Place) -> (Duration, Duration) {
    let (a, b) = place.two().await;
    let played = play(&a.open("p").await);
    tokio::time::sleep(place.dice.seconds(300.0, 900.0)).await;
    a.crash();
    let (began, played) = (Instant::now(), played.load(Ordering::Relaxed));
    let profile = b.open("p").await;
    let left = profile.read(|data| data.coins);
    (began.elapsed(), Duration::from_secs((played - left).max(0).cast_unsigned()))
}

/// How long each of some messages takes to the handler of a profile that is active on the other
/// server.
async fn messages(place: Place, count: u32) -> Vec<Duration> {
    let (a, b) = place.two().await;
    let profile = a.open("p").await;
    let arrived = Arc::new(Mutex::new(Vec::new()));
    let (base, arrivals) = (Instant::now(), arrived.clone());
    profile.message_handler(move |data, message: &Message<'_>| {
        data.coins += 1;
        message.processed();
        let sent: u64 = message.parse().expect("it is a time");
        arrivals.lock().push(base.elapsed().saturating_sub(Duration::from_micros(sent)));
    });
    for _ in 0..count {
        let (players, sent) = (b.players.clone(), base.elapsed().as_micros() as u64);
        tokio::spawn(async move { players.send_message("p", &sent).await });
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    tokio::time::sleep(Duration::from_secs(400)).await;
    let arrived = arrived.lock().clone();
    assert_eq!(arrived.len(), count as usize, "every message arrives");
    arrived
}

/// A trade of an item during which, or shortly after which, the server crashes. How many of the
/// item each of the two has.
async fn trade(place: Place) -> (usize, usize) {
    let (a, b) = place.two().await;
    let (one, other) = (a.open("p").await, a.open("q").await);
    one.update(|data| data.items.push(7)).expect("the session is new");
    one.save().await.expect("the store answers");
    let (giver, taker) = (one.clone(), other.clone());
    let trade = a.server.transaction().with(&one).with(&other).run(move |tx| {
        let item = tx.edit(&giver, |data| data.items.pop())?;
        tx.edit(&taker, |data| data.items.extend(item))
    });
    let crash_in = place.dice.seconds(0.0, 0.2);
    let _ = tokio::time::timeout(crash_in, trade).await;
    a.crash();
    let (one, other) = (b.open("p").await, b.open("q").await);
    (one.read(|data| data.items.len()), other.read(|data| data.items.len()))
}

/// Measures everything and prints it as a table.
pub fn compare(count: u64) {
    let plain = Terms::default();
    println!("| | here |\n| --- | --- |");
    let live = runs(count, plain, hand_over);
    row("hand-over from a live server, p50 / max", &times(live.iter().map(|run| run.took)));
    row(
        "the same when the other server had already ended its session",
        &times(runs(count, plain, after_an_end)),
    );
    let crashes = runs(count, plain, crash);
    row("take-over after a crash, p50 / max", &times(crashes.iter().map(|run| run.0)));
    row("play lost in a crash, p50 / max", &times(crashes.iter().map(|run| run.1)));
    let bounded = Terms { save_within: Some(Duration::from_secs(5)), ..plain };
    row(
        "the same with `save_changes_within` 5 s",
        &times(runs(count, bounded, crash).iter().map(|run| run.1)),
    );
    row(
        "message to an active profile on another server, p50 / max",
        &times(runs(count, plain, |place| messages(place, 1)).concat()),
    );
    row(
        "20 messages at 2 a second, p50 / max",
        &times(runs(count, plain, |place| messages(place, 20)).concat()),
    );
    let deaf = Terms { deaf: true, ..plain };
    row(
        "messaging down: hand-over, p50 / max; play lost; both active",
        &handed(&runs(count, deaf, hand_over)),
    );
    row(
        "messaging down: 20 messages, p50 / max",
        &times(runs(count, deaf, |place| messages(place, 20)).concat()),
    );
    let failing = Terms { failing: 0.05, ..plain };
    row(
        "5 % failing calls, half of them applied: hand-over, p50 / max; play lost; both active",
        &handed(&runs(count, failing, hand_over)),
    );
    let items = runs(5 * count, plain, trade);
    let of =
        |wanted: fn(&(usize, usize)) -> bool| items.iter().filter(|items| wanted(items)).count();
    let (doubled, gone, done) =
        (of(|(a, b)| a + b > 1), of(|(a, b)| a + b == 0), of(|items| *items == (0, 1)));
    let said = format!("{doubled} / {gone} of {}, {done} of which were done", items.len());
    row("trade on one server and a crash within 200 ms: item doubled / gone", &said);
}

fn row(what: &str, said: &str) {
    println!("| {what} | {said} |");
}

fn handed(runs: &[HandOver]) -> String {
    let of = |wanted: fn(&&HandOver) -> bool| runs.iter().filter(wanted).count();
    let (lost, both) = (of(|run| run.lost), of(|run| run.both));
    format!("{}; {lost} of {}; {both}", times(runs.iter().map(|run| run.took)), runs.len())
}

/// Median and maximum.
fn times(times: impl IntoIterator<Item = Duration>) -> String {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
    format!("{:.2} s / {:.2} s", middle.as_secs_f64(), last.as_secs_f64())
}
