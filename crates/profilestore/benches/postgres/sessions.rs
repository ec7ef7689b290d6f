//! Starts and ends of sessions, and trades between two of them.

use std::time::{Duration, Instant};

use profilestore::{
    GameServer, ProfileStore,
    data_store::{PostgresOptions, PostgresStore},
};

use crate::{Player, at};

pub(super) async fn run(options: &PostgresOptions, time: Duration) {
    const PROFILES: usize = 2000;
    let store = PostgresStore::open(options.clone()).await.expect("a store");
    let server = GameServer::builder(store).job_id("bench").start().await.expect("a game server");
    let players: ProfileStore<Player> = server
        .store_builder("Sessions")
        .template(Player { coins: 1000, notes: "x".repeat(1000) })
        .build()
        .expect("a store");
    for round in ["new profiles", "known profiles"] {
        let began = Instant::now();
        let opened = join_all((0..PROFILES).map(|n| {
            let starting = players.start_session(&format!("p{n}"));
            async move { starting.await.expect("opened") }
        }))
        .await;
        let starts = PROFILES as f64 / began.elapsed().as_secs_f64();
        if round == "known profiles" {
            let began = Instant::now();
            let (mut count, mut times) = (0_usize, Vec::new());
            while began.elapsed() < time {
                let trades = opened.chunks(2).take(64).map(|pair| {
                    let begun = Instant::now();
                    let (one, other) = (pair[0].clone(), pair[1].clone());
                    let trade = server.transaction().with(&one).with(&other).run(move |tx| {
                        tx.edit(&one, |data| data.coins -= 1)?;
                        tx.edit(&other, |data| data.coins += 1)
                    });
                    async move {
                        trade.await.expect("traded");
                        begun.elapsed()
                    }
                });
                times.extend(join_all(trades).await);
                count += 64;
            }
            println!(
                "trades between two profiles, 64 at once: {:.0} /s, p50 {:.2} ms",
                count as f64 / began.elapsed().as_secs_f64(),
                at(&mut times, 0.5)
            );
        }
        let began = Instant::now();
        join_all(
            opened
                .into_iter()
                .map(|profile| async move { profile.end_session().await.expect("ended") }),
        )
        .await;
        let ends = PROFILES as f64 / began.elapsed().as_secs_f64();
        println!(
            "sessions of {PROFILES} {round} at once: {starts:.0} starts /s, {ends:.0} ends /s"
        );
    }
    let _ = server.shutdown().await;
}

async fn join_all<T: Send + 'static>(
    work: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = work.map(tokio::spawn).collect();
    let mut done = Vec::with_capacity(tasks.len());
    for task in tasks {
        done.push(task.await.expect("a task that ends"));
    }
    done
}
