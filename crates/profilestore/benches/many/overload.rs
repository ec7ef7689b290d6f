//! A store that takes 100 saves a second.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use profilestore::{
    GameServer,
    data_store::{
        SqliteStore,
        fault::{FaultyStore, Throttled},
    },
};

use crate::common::{Outcome, open_all, player, resident_bytes};

/// Every session is edited all the time, autosaves are due once in 30 s, and the store takes 100
/// saves a second. Prints the memory, and how long ends and trades take.
pub(super) async fn run(sessions: usize, minutes: usize) -> Outcome {
    // What is stored lies in a file, so the memory is the engine's. Opened at full speed.
    let folder = tempfile::tempdir()?;
    let file = SqliteStore::open(folder.path().join("p.db"), Default::default())?;
    let store = FaultyStore::new(Arc::new(file), Throttled::default());
    let server = GameServer::builder(store.clone()).start().await?;
    let players = server.store_builder("PlayerData").template(player()).build()?;
    let mut profiles = open_all(&players, "p", sessions).await?;
    println!(
        "\n{sessions} sessions, all edited all the time, autosaves of 30 s, a store of 100 \
        saves a second"
    );
    let before = resident_bytes()?;
    server.change_settings(|settings| settings.autosave_period = Duration::from_secs(30))?;
    store.plan().set(100);
    let mut others = profiles.split_off(sessions.saturating_sub(1000));
    let began = Instant::now();
    let mut edits = 0_u64;
    for sample in 1..=minutes * 6 {
        let until = began + Duration::from_secs(10 * u64::try_from(sample)?);
        while Instant::now() < until {
            for profile in &profiles {
                profile.update(|player| player.coins += 1)?;
                edits += 1;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let end = others.pop().ok_or("no session is left to end")?;
        let at = Instant::now();
        end.end_session().await?;
        let ended = at.elapsed();
        let pair =
            [others.pop().ok_or("no session is left")?, others.pop().ok_or("no session is left")?];
        let at = Instant::now();
        let [from, to] = pair.clone();
        let trade = server.transaction().with(&pair[0]).with(&pair[1]);
        trade
            .run(move |tx| {
                tx.edit(&from, |player| player.coins += 1)?;
                tx.edit(&to, |player| player.coins += 1)
            })
            .await?;
        println!(
            "  {:>4} s: {:>6.0} MB more than before, {edits} edits, an end {:>6.0} ms, a trade \
                {:>6.0} ms",
            began.elapsed().as_secs(),
            (resident_bytes()? - before) / 1e6,
            ended.as_secs_f64() * 1e3,
            at.elapsed().as_secs_f64() * 1e3
        );
    }
    Ok(())
}
