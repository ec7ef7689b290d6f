//! What very many sessions cost when each of them changes.

use std::time::Duration;

use profilestore::{GameServer, Profile, ProfileStore, Settings, data_store::SqliteStore};

use crate::{
    Phases,
    common::{Outcome, Player, open_all, percentiles, player, resident_bytes, server_on},
    edit_all, hand_over,
};

pub(super) async fn run(sessions: usize) -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = SqliteStore::open(folder.path().join("p.db"), Default::default())?;
    live_on(sessions, async |job| server_on(&file, job, player()).await).await
}

#[cfg(feature = "postgres")]
pub(super) async fn run_on_postgres(sessions: usize) -> Outcome {
    use profilestore::{
        data_store::{PostgresOptions, PostgresStore},
        messenger::PostgresMessenger,
    };

    let url = std::env::var("PROFILESTORE_TEST_POSTGRES")
        .map_err(|_| "PROFILESTORE_TEST_POSTGRES names the server: see scripts/servers.sh")?;
    let schema = format!("many_{}", profilestore::env::Env::system().uuid().simple());
    let options: PostgresOptions = format!("{url}?schema={schema}").parse()?;
    PostgresStore::migrate(&options, None).await?;
    live_on(sessions, async |job| {
        let store = PostgresStore::open(options.clone()).await?;
        let messenger = PostgresMessenger::new(options.clone())?;
        let server = GameServer::builder(store).messenger(messenger).job_id(job).start().await?;
        let players = server.store_builder("PlayerData").template(player()).build()?;
        Ok((server, players))
    })
    .await
}

async fn live_on(
    sessions: usize,
    server_on: impl AsyncFn(&str) -> Outcome<(GameServer, ProfileStore<Player>)>,
) -> Outcome {
    let settings = |settings: &mut Settings| settings.shutdown_timeout = Duration::from_secs(120);
    let (a, players) = server_on("a").await?;
    a.change_settings(settings)?;
    println!(
        "\n{sessions} live sessions in one process, data of {} bytes of JSON each",
        serde_json::to_vec(&player())?.len()
    );
    let before = resident_bytes()?;
    let mut phases = Phases::begin()?;
    let profiles = open_all(&players, "p", sessions).await?;
    phases.end("opening them all, 256 at a time")?;
    let memory = resident_bytes()? - before;
    println!(
        "  memory {:.0} MB, {:.0} bytes a session (the store's caches in this process included)",
        memory / 1e6,
        memory / sessions as f64
    );
    let copies: Vec<Player> = (0..sessions).map(|_| player()).collect();
    println!("  of it the data's own {:.0} MB", (resident_bytes()? - before - memory) / 1e6);
    drop(copies);

    phases = Phases::begin()?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    phases.end("ten seconds of doing nothing")?;

    a.change_settings(|settings| settings.autosave_period = Duration::from_secs(30))?;
    phases = Phases::begin()?;
    edit_all(&profiles)?;
    phases.end("one edit of each")?;
    let unsaved = |profiles: &[Profile<Player>]| {
        profiles.iter().filter(|profile| profile.key_info().number < 2).count()
    };
    let mut left = vec![unsaved(&profiles)];
    phases = Phases::begin()?;
    while left.last() != Some(&0) && left.len() < 60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        left.push(unsaved(&profiles));
    }
    phases.end("autosaves of all, spread over 30 s")?;
    let mut per_second: Vec<usize> = left.windows(2).map(|pair| pair[0] - pair[1]).collect();
    per_second.sort_unstable();
    println!(
        "  saves a second: median {}, most {}",
        per_second[per_second.len() / 2],
        per_second[per_second.len() - 1]
    );
    a.change_settings(|settings| settings.autosave_period = Duration::from_secs(300))?;

    edit_all(&profiles)?;
    let (b, there) = server_on("b").await?;
    b.change_settings(settings)?;
    let moved = sessions / 10;
    phases = Phases::begin()?;
    let mut took = hand_over(&there, moved).await?;
    phases.end(&format!("handing over {moved} of them, 64 at a time"))?;
    let (p50, p99) = percentiles(&mut took);
    println!("  each p50 {p50:.1} ms, p99 {p99:.1} ms");

    phases = Phases::begin()?;
    let report = a.shutdown().await;
    phases.end(&format!("shutdown, {} of them with unsaved changes", sessions - moved))?;
    println!("  not saved: {}", report.not_saved.len());
    let _ = b.shutdown().await;
    Ok(())
}
