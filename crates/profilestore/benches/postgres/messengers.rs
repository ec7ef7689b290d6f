//! Two processes on LISTEN/NOTIFY and on NATS: hand-overs, messages and bare hints; beside the
//! hand-overs what they are made of at least, which is three bare commits and two bare hints.

use std::{
    collections::HashMap,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use profilestore::{
    GameServer, ProfileKey, ProfileStore,
    data_store::{
        DataStore as _, DataStoreExt as _, KeyState, PostgresOptions, PostgresStore, ServerId,
    },
    env::Env,
    messenger::{Hint, Messenger, NatsMessenger, NatsOptions, PostgresMessenger},
};

use crate::{
    Player, at, options,
    value::{commit, key, save},
};

const MESSAGES: usize = 300;

/// How two processes take a profile from each other: the part of each, what is said before the
/// median, and for how long the holder keeps the profile.
const HAND_OVERS: [(&str, &str, Duration); 2] = [
    ("hand-over", " hand-overs at once: p50 ", Duration::ZERO),
    ("paused", " hand-overs behind a pause: p50 ", Duration::from_millis(10)),
];

pub(super) fn run(runtime: &tokio::runtime::Runtime, url: &str, schema: &str) {
    let program = std::env::current_exe().expect("this program");
    for (messenger, name) in [("notify", "LISTEN/NOTIFY"), ("nats", "NATS")] {
        println!("two processes, {name}");
        let [at_once, paused] = HAND_OVERS.map(|(part, said, _)| {
            let printed = in_two_processes(&program, [part, part], schema, messenger);
            mean_of_medians(&printed, said)
        });
        in_two_processes(&program, ["receive", "send"], schema, messenger);
        let hint = runtime.block_on(hints(&options(url, schema), messenger));
        let commit = runtime.block_on(bare_commits(&options(url, schema), messenger));
        let parts = 3.0 * commit + 2.0 * hint;
        println!(
            "  3 bare commits (p50 {commit:.2} ms each) + 2 bare hints: {parts:.2} ms; a \
             hand-over at once takes {:.2} times that, behind a pause {:.2} times",
            at_once / parts,
            paused / parts
        );
    }
}

/// Each of two processes says its median.
fn mean_of_medians(printed: &str, said: &str) -> f64 {
    let medians: Vec<f64> = printed
        .split(said)
        .skip(1)
        .filter_map(|rest| rest.split(' ').next()?.parse().ok())
        .collect();
    medians.iter().sum::<f64>() / medians.len() as f64
}

/// What two processes print, each with its part; it is printed here too.
fn in_two_processes(program: &Path, parts: [&str; 2], schema: &str, messenger: &str) -> String {
    let children = parts.map(|part| {
        Command::new(program)
            .args([part, schema, messenger])
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program again")
    });
    let mut printed = String::new();
    for child in children {
        let output = child.wait_with_output().expect("its end");
        assert!(output.status.success());
        printed.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    print!("{printed}");
    printed
}

async fn messenger(name: &str, options: &PostgresOptions) -> Arc<dyn Messenger> {
    if name == "notify" {
        return Arc::new(PostgresMessenger::new(options.clone()).expect("a messenger"));
    }
    let address = std::env::var("PROFILESTORE_TEST_NATS")
        .expect("PROFILESTORE_TEST_NATS names the server: see scripts/servers.sh");
    let options: NatsOptions = address.parse().expect("an address");
    Arc::new(NatsMessenger::connect(options).await.expect("a messenger"))
}

/// Bare hints from one connection to another, each about a key of its own. Gives the median time in
/// milliseconds.
async fn hints(options: &PostgresOptions, name: &str) -> f64 {
    const HINTS: usize = 12_500;
    const EVERY: Duration = Duration::from_micros(400);
    let (near, far) = (messenger(name, options).await, messenger(name, options).await);
    let to = ServerId(Env::system().uuid());
    let mut heard = far.subscribe(to).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    while heard.try_recv().is_ok() {}
    let listening = tokio::spawn(async move {
        let mut at = Vec::with_capacity(HINTS);
        while let Ok(Some(hint)) = tokio::time::timeout(Duration::from_secs(3), heard.recv()).await
        {
            if let Hint::Look(key) = hint {
                at.push((key, Instant::now()));
            }
        }
        at
    });
    let mut sent = HashMap::new();
    let began = Instant::now();
    for n in 0..HINTS {
        let due = began + EVERY * u32::try_from(n).expect("a small number");
        tokio::time::sleep_until(due.into()).await;
        sent.insert(key(n), Instant::now());
        near.hint(to, &key(n)).await;
    }
    let rate = HINTS as f64 / began.elapsed().as_secs_f64();
    let heard = listening.await.expect("a task that ends");
    let mut times: Vec<Duration> = heard.iter().map(|(key, at)| *at - sent[key]).collect();
    println!(
        "  bare hints at {rate:.0} /s: {} of {HINTS} heard, p50 {:.2} ms, p99 {:.2} ms",
        times.len(),
        at(&mut times, 0.5),
        at(&mut times, 0.99)
    );
    at(&mut times, 0.5)
}

/// The median time, in milliseconds, of a commit of one small value on a key of its own.
async fn bare_commits(options: &PostgresOptions, name: &str) -> f64 {
    let store = PostgresStore::open(options.clone()).await.expect("a store");
    let incarnation = store.identity().await.expect("who it is").incarnation;
    let key = ProfileKey::new("Bare", "global", name).expect("a name");
    let (mut state, mut times) = (KeyState::absent(key), Vec::new());
    for _ in 0..300 {
        let commit = commit(incarnation, save(&state, Bytes::from_static(&[1, 0])));
        let began = Instant::now();
        state = store.commit_one(commit).await.expect("saved").states.remove(0);
        times.push(began.elapsed());
    }
    at(&mut times, 0.5)
}

/// The part of one of the two processes.
pub(super) async fn play(part: &str, options: &PostgresOptions, name: &str) {
    let store = PostgresStore::open(options.clone()).await.expect("a store");
    let server = GameServer::builder(store)
        .messenger(messenger(name, options).await)
        .start()
        .await
        .expect("a game server");
    let players: ProfileStore<Player> = server
        .store_builder(&format!("Play {name}"))
        .template(Player::default())
        .build()
        .expect("a store");
    match HAND_OVERS.iter().find(|(name, ..)| *name == part) {
        Some((_, said, pause)) => hand_over(&players, said, *pause).await,
        None if part == "receive" => receive(&players).await,
        None => send(&players).await,
    }
    let _ = server.shutdown().await;
}

/// Holds a profile, and measures how long ago each message to it was sent.
async fn receive(players: &ProfileStore<Player>) {
    let profile = players.start_session("receiver").await.expect("opened");
    let (report, mut times) = tokio::sync::mpsc::unbounded_channel();
    profile.message_handler(move |_, message| {
        let sent: u64 = message.parse().expect("a time");
        let _ = report.send(wall().saturating_sub(sent));
        message.processed();
    });
    let mut took = Vec::new();
    while took.len() < MESSAGES {
        took.push(Duration::from_nanos(times.recv().await.expect("a message")));
    }
    println!(
        "  {MESSAGES} messages: p50 {:.2} ms, p99 {:.2} ms until the handler runs",
        at(&mut took, 0.5),
        at(&mut took, 0.99)
    );
    profile.end_session().await.expect("ended");
}

async fn send(players: &ProfileStore<Player>) {
    // Until the other one holds the profile and listens.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..MESSAGES {
        players.send_message("receiver", &wall()).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The time that both processes see, in nanoseconds.
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    u64::try_from(since.as_nanos()).expect("a time before 2554")
}

/// One of two that take a profile from each other. At once, the next start comes while the other
/// process is taking the profile.
async fn hand_over(players: &ProfileStore<Player>, said: &str, pause: Duration) {
    // Until both listen.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut times = Vec::new();
    while times.len() < 300 {
        let began = Instant::now();
        let profile = players.start_session("p").await.expect("handed over");
        times.push(began.elapsed());
        // The other one may have asked for it already.
        let _ = profile.update(|data| data.coins += 1);
        // Until the other one has taken it, or has gone.
        let held = Instant::now();
        while !profile.is_over() && held.elapsed() < Duration::from_millis(500) {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        if !profile.is_over() {
            let _ = profile.end_session().await;
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    let count = times.len();
    println!(
        "  {count}{said}{:.2} ms, p90 {:.2} ms, p99 {:.2} ms",
        at(&mut times, 0.5),
        at(&mut times, 0.9),
        at(&mut times, 0.99)
    );
}
