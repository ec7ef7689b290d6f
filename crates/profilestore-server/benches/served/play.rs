//! Saves, starts, hand-overs and memory: of the library's own sessions, and of remote ones.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use profilestore_testbed::LoadClient;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Barrier,
};

use crate::{Outcome, child::Other, own, own_bytes, percentiles, player, text_of};

/// How many game servers make the load.
const GAME_SERVERS: usize = 4;

/// For how long saves are counted.
pub(crate) const TIME: Duration = Duration::from_secs(5);

/// How many profiles are started at once.
pub(crate) const AT_ONCE: usize = 64;

pub(crate) const STARTS: usize = 3000;
const HELD: usize = 10_000;
const HAND_OVERS: usize = 300;
const ROUND_TRIPS: usize = 2000;

pub(crate) async fn connect(server: &Other, job: &str) -> Outcome<LoadClient> {
    Ok(LoadClient::connect(server.address, &server.key, job).await.ok_or("no connection")?)
}

async fn start(game: &LoadClient, s: usize, key: &str, template: &str) -> Outcome {
    let answer = game.ask(|i| {
        format!(
            "{{\"start\":{{\"i\":{i},\"s\":{s},\"store\":\"PlayerData\",\"key\":\"{key}\",\
             \"template\":{template}}}}}"
        )
    });
    expect(answer.await, "started")
}

fn expect(answer: Option<String>, wanted: &str) -> Outcome {
    match answer {
        Some(answer) if answer == wanted => Ok(()),
        other => Err(format!("{wanted} was expected: {other:?}").into()),
    }
}

/// Saves of one session, one after the other, until the time is over: how long each took.
async fn save_on(
    game: Arc<LoadClient>,
    s: usize,
    begin: Arc<Barrier>,
    template: Arc<str>,
) -> Outcome<Vec<Duration>> {
    start(&game, s, &format!("p{s}"), &template).await?;
    begin.wait().await;
    let (until, mut took) = (Instant::now() + TIME, Vec::new());
    for n in 1.. {
        let began = Instant::now();
        if began >= until {
            break;
        }
        let data = text_of(n, &template);
        let answer =
            game.ask(|i| format!("{{\"save\":{{\"i\":{i},\"s\":{s},\"n\":{n},\"data\":{data}}}}}"));
        expect(answer.await, "saved")?;
        took.push(began.elapsed());
    }
    let n = took.len() + 1;
    let end = game.ask(|i| format!("{{\"end\":{{\"i\":{i},\"s\":{s},\"n\":{n}}}}}"));
    expect(end.await, "ended")?;
    Ok(took)
}

async fn remote_saves(folder: &Path, sessions: usize) -> Outcome<Vec<Duration>> {
    let folder = folder.join(format!("saves-{sessions}"));
    std::fs::create_dir(&folder)?;
    saves_at(&Other::start("serve", &folder)?, sessions, GAME_SERVERS).await
}

/// How long each save took of so many sessions of so many game servers.
pub(crate) async fn saves_at(
    server: &Other,
    sessions: usize,
    game_servers: usize,
) -> Outcome<Vec<Duration>> {
    let template: Arc<str> = serde_json::to_string(&player())?.into();
    let begin = Arc::new(Barrier::new(sessions));
    let mut games = Vec::new();
    for at in 0..game_servers.min(sessions) {
        games.push(Arc::new(connect(server, &format!("game-{sessions}-{at}")).await?));
    }
    let tasks: Vec<_> = (0..sessions)
        .zip(games.iter().cycle())
        .map(|(s, game)| {
            tokio::spawn(save_on(game.clone(), s + 1, begin.clone(), template.clone()))
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    Ok(took)
}

async fn own_saves(folder: &Path, sessions: usize) -> Outcome<Vec<Duration>> {
    let (server, players) = own(folder, &format!("own-{sessions}.db"), "bench").await?;
    let begin = Arc::new(Barrier::new(sessions));
    let tasks: Vec<_> = (0..sessions)
        .map(|s| {
            let (players, begin) = (players.clone(), begin.clone());
            tokio::spawn(async move {
                let profile = players.start_session(&format!("p{s}")).await?;
                begin.wait().await;
                let (until, mut took) = (Instant::now() + TIME, Vec::new());
                while Instant::now() < until {
                    let began = Instant::now();
                    profile.update(|data| data.coins += 1)?;
                    profile.save().await?;
                    took.push(began.elapsed());
                }
                profile.end_session().await?;
                Ok::<_, profilestore::Error>(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    let _ = server.shutdown().await;
    Ok(took)
}

pub(crate) async fn saves(folder: &Path) -> Outcome {
    println!("\ndurable saves a second of changed profiles");
    println!(
        "{:>9} {:>12} {:>12} {:>7} {:>22} {:>22}",
        "sessions", "own", "remote", "ratio", "own p50, p99 ms", "remote p50, p99 ms"
    );
    for sessions in [1, 32, 256] {
        let mut own = own_saves(folder, sessions).await?;
        let mut remote = remote_saves(folder, sessions).await?;
        let rate = |took: &[Duration]| took.len() as f64 / TIME.as_secs_f64();
        let ratio = rate(&remote) / rate(&own);
        let (rates, of_own, of_remote) =
            ((rate(&own), rate(&remote)), percentiles(&mut own), percentiles(&mut remote));
        println!(
            "{sessions:>9} {:>12.0} {:>12.0} {ratio:>7.2} {:>13.2}, {:>7.2} {:>13.2}, {:>7.2}",
            rates.0, rates.1, of_own.0, of_own.1, of_remote.0, of_remote.1
        );
    }
    Ok(())
}

/// Starts so many new profiles over one connection. Answers how many a second.
pub(crate) async fn remote_starts(game: &LoadClient, prefix: &str, count: usize) -> Outcome<f64> {
    let template = serde_json::to_string(&player())?;
    let template = template.as_str();
    let began = Instant::now();
    let started: Vec<Outcome> = stream::iter(1..=count)
        .map(|s| async move { start(game, s, &format!("{prefix}{s}"), template).await })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    started.into_iter().collect::<Outcome<Vec<()>>>()?;
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

pub(crate) async fn starts(folder: &Path) -> Outcome {
    let (server, players) = own(folder, "own-starts.db", "bench").await?;
    let began = Instant::now();
    let profiles: Vec<_> = stream::iter(1..=STARTS)
        .map(|s| {
            let players = players.clone();
            async move { players.start_session(&format!("p{s}")).await }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let own_rate = STARTS as f64 / began.elapsed().as_secs_f64();
    let profiles = profiles.into_iter().collect::<Result<Vec<_>, _>>()?;
    drop(profiles);
    let _ = server.shutdown().await;

    let folder = folder.join("starts");
    std::fs::create_dir(&folder)?;
    let server = Other::start("serve", &folder)?;
    let game = connect(&server, "game").await?;
    let remote = remote_starts(&game, "p", STARTS).await?;
    println!(
        "\nstarts a second of new profiles, {AT_ONCE} at once: own {own_rate:.0}, remote \
         {remote:.0}, ratio {:.2}",
        remote / own_rate
    );
    Ok(())
}

/// Lets go of what it is asked for, after a last save.
async fn let_go(mut game: LoadClient, template: Arc<str>, mut orders: Orders) -> Outcome {
    loop {
        tokio::select! {
            released = game.release() => {
                let Some(s) = released else { return Ok(()) };
                let data = text_of(s + 1, &template);
                let answer = game.ask(|i| {
                    format!("{{\"end\":{{\"i\":{i},\"s\":{s},\"n\":1,\"data\":{data}}}}}")
                });
                expect(answer.await, "ended")?;
            }
            order = orders.recv() => {
                let Some((s, done)) = order else { return Ok(()) };
                let began = Instant::now();
                start(&game, s, "p", &template).await?;
                let _ = done.send(began.elapsed());
            }
        }
    }
}

type Orders = tokio::sync::mpsc::UnboundedReceiver<(usize, tokio::sync::oneshot::Sender<Duration>)>;

async fn remote_hand_overs(folder: &Path) -> Outcome<Vec<Duration>> {
    let folder = folder.join("handover");
    std::fs::create_dir(&folder)?;
    let server = Other::start("serve", &folder)?;
    let template: Arc<str> = serde_json::to_string(&player())?.into();
    let mut games = Vec::new();
    for job in ["a", "b"] {
        let (orders, received) = tokio::sync::mpsc::unbounded_channel();
        let game = connect(&server, job).await?;
        tokio::spawn(let_go(game, template.clone(), received));
        games.push(orders);
    }
    let mut took = Vec::new();
    for (round, game) in (0..HAND_OVERS).zip(games.iter().cycle()) {
        let (done, answer) = tokio::sync::oneshot::channel();
        game.send((round + 1, done))?;
        took.push(answer.await?);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(took.split_off(1))
}

async fn own_hand_overs(folder: &Path) -> Outcome<Vec<Duration>> {
    let mut stores = Vec::new();
    for job in ["a", "b"] {
        let (server, players) = own(folder, "own-handover.db", job).await?;
        stores.push((players, server));
    }
    let mut took = Vec::new();
    for (_, (players, _)) in (0..HAND_OVERS).zip(stores.iter().cycle()) {
        let began = Instant::now();
        let profile = players.start_session("p").await?;
        took.push(began.elapsed());
        profile.update(|data| data.coins += 1)?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for (_, server) in &stores {
        let _ = server.shutdown().await;
    }
    Ok(took.split_off(1))
}

/// A bare round trip over loopback: half of them take at most so many milliseconds.
async fn round_trip() -> Outcome<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut near = TcpStream::connect(listener.local_addr()?).await?;
    let (mut far, _) = listener.accept().await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = tokio::spawn(async move {
        let mut byte = [0];
        while far.read_exact(&mut byte).await.is_ok() && far.write_all(&byte).await.is_ok() {}
    });
    let (mut took, mut byte) = (Vec::new(), [0]);
    for _ in 0..ROUND_TRIPS {
        let began = Instant::now();
        near.write_all(&byte).await?;
        near.read_exact(&mut byte).await?;
        took.push(began.elapsed());
    }
    drop(near);
    echo.await?;
    Ok(percentiles(&mut took).0)
}

pub(crate) async fn hand_over(folder: &Path) -> Outcome {
    let mut own = own_hand_overs(folder).await?;
    let mut remote = remote_hand_overs(folder).await?;
    println!("\nhand-over from a live holder that has unsaved changes, hints through SQLite");
    for (who, took) in [("own game servers", &mut own), ("remote game servers", &mut remote)] {
        let (p50, p99) = percentiles(took);
        println!("  between two {who:<20} p50 {p50:.2} ms, p99 {p99:.2} ms");
    }
    println!("  a loopback round trip, a bare echo: p50 {:.3} ms", round_trip().await?);
    Ok(())
}

pub(crate) async fn memory(folder: &Path) -> Outcome {
    let (server, players) = own(folder, "own-memory.db", "bench").await?;
    let mut held = Vec::new();
    let mut open = async |prefix: &str| {
        for s in 0..HELD {
            held.push(players.start_session(&format!("{prefix}{s}")).await?);
        }
        Ok::<_, profilestore::Error>(())
    };
    // So many that pools, buffers and the page cache are full.
    open("warm").await?;
    let before = own_bytes("self")?;
    open("p").await?;
    let local = (own_bytes("self")? - before) / HELD as f64;
    let _ = server.shutdown().await;

    let folder = folder.join("memory");
    std::fs::create_dir(&folder)?;
    let server = Other::start("serve", &folder)?;
    let (warm, game) = (connect(&server, "warm").await?, connect(&server, "game").await?);
    remote_starts(&warm, "warm", HELD).await?;
    let before = own_bytes(&server.id())?;
    remote_starts(&game, "p", HELD).await?;
    let remote = (own_bytes(&server.id())? - before) / HELD as f64;
    println!(
        "\nmemory a session, {HELD} more of them: own {:.1} KiB with the game's data, remote \
         {:.1} KiB in the server process, which keeps no data",
        local / 1024.0,
        remote / 1024.0
    );
    Ok(())
}
