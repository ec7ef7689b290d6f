//! Two processes on LISTEN/NOTIFY and on NATS: hand-overs, messages and bare hints.

use std::{
    collections::HashMap,
    process::Command,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use profilestore::{
    GameServer, ProfileStore,
    data_store::{PostgresOptions, PostgresStore, ServerId},
    env::Env,
    messenger::{Hint, Messenger, NatsMessenger, NatsOptions, PostgresMessenger},
};

use crate::{Player, at, options, value::key};

const MESSAGES: usize = 300;

pub(super) fn run(runtime: &tokio::runtime::Runtime, url: &str, schema: &str) {
    let program = std::env::current_exe().expect("this program");
    for (messenger, name) in [("notify", "LISTEN/NOTIFY"), ("nats", "NATS")] {
        println!("two processes, {name}");
        for parts in [["hand-over", "hand-over"], ["receive", "send"]] {
            let children = parts.map(|part| {
                Command::new(&program)
                    .args([part, schema, messenger])
                    .spawn()
                    .expect("this program again")
            });
            for mut child in children {
                assert!(child.wait().expect("its end").success());
            }
        }
        runtime.block_on(hints(&options(url, schema), messenger));
    }
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

/// Bare hints from one connection to another, each about a key of its own.
async fn hints(options: &PostgresOptions, name: &str) {
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
    match part {
        "hand-over" => hand_over(&players).await,
        "receive" => receive(&players).await,
        _ => send(&players).await,
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

/// One of two that take a profile from each other.
async fn hand_over(players: &ProfileStore<Player>) {
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
    }
    let count = times.len();
    println!(
        "  {count} hand-overs: p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms",
        at(&mut times, 0.5),
        at(&mut times, 0.9),
        at(&mut times, 0.99)
    );
}
