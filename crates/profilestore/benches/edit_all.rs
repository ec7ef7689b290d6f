//! One edit for all profiles of a store while some of them are played on by a game server in
//! another process, and undone again.
//!
//! `cargo bench -p profilestore --bench edit_all -- [PROFILES [ONLINE]]`, 100,000 and 2,000 by
//! default. It checks what it did: that nothing was missed, nobody thrown out, and nothing of what
//! was played meanwhile lost. A change that does not pass is a panic.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use profilestore::{
    Attribution, Edit, GameServer,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt, NewValue, Returning,
        SqliteMessenger, SqliteOptions, SqliteStore,
    },
    operator::{BulkEdit, BulkReport, EditScope},
    record::{Record, Stored},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::to_raw_value};
use tokio::time::Instant;

const STORE: &str = "PlayerData";
const BATCH: usize = 256;

#[derive(Clone, Default, Serialize, Deserialize)]
struct Player {
    coins: i64,
    played: i64,
    items: Vec<String>,
    filler: Vec<String>,
}

fn name(n: usize) -> String {
    format!("p{n:07}")
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let args: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let [first, path, online] = &args[..]
        && first == "play"
    {
        return runtime.block_on(play(Path::new(path), online.parse().expect("a number")));
    }
    let number =
        |at: usize, default| args.get(at).map_or(default, |text| text.parse().expect("a number"));
    runtime.block_on(measure(number(0, 100_000), number(1, 2_000)));
}

/// The game server: holds profiles and plays on until its input ends; then says what was played on
/// each.
async fn play(path: &Path, online: usize) {
    let store = SqliteStore::open(path, SqliteOptions::default()).expect("the store");
    let server = GameServer::builder(store.clone())
        .messenger(SqliteMessenger::new(&store))
        .start()
        .await
        .expect("a server");
    let players = server.store::<Player>(STORE).expect("a store");
    let ended = Arc::new(AtomicUsize::new(0));
    let mut held = Vec::new();
    for n in 0..online {
        // Spread over all of them.
        let profile = players.start_session(&name(n * 50)).await.expect("a session");
        let ended = ended.clone();
        profile.on_session_end(move |_| _ = ended.fetch_add(1, Ordering::SeqCst));
        held.push((n * 50, profile));
    }
    println!("ready");
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().lines().count();
        let _ = stop.send(());
    });
    let mut rounds = 0_i64;
    while stopped.try_recv().is_err() {
        for (_, profile) in &held {
            profile.update(|data| data.played += 1).expect("a live profile");
        }
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let thrown_out = ended.load(Ordering::SeqCst);
    assert!(server.shutdown().await.is_complete());
    println!("{thrown_out} {rounds}");
}

async fn measure(profiles: usize, online: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("profiles.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store");
    let online = online.min(profiles.div_ceil(50));
    fill(&store, profiles).await;
    println!("{profiles} profiles stored, {online} of them online in another process");
    let (mut game, mut says) = start_game(&path, online);

    let server = GameServer::builder(store.clone())
        .messenger(SqliteMessenger::new(&store))
        .start()
        .await
        .expect("a server");
    let operation = profilestore::env::Env::system().uuid();
    let edit = Edit::new()
        .increase("/coins", 100.into())
        .and_then(|edit| edit.set("/items/-", "crown".into()))
        .expect("an edit");
    let edit = BulkEdit::new(operation, EditScope::all(STORE), edit);
    let report = timed("edit --all", &server, &edit, profiles).await;
    assert_eq!((report.done, report.by_holders), (profiles as u64, online as u64), "{report:?}");
    let stored = data(&store).await;
    assert!(
        stored.len() == profiles
            && stored.iter().all(|(n, data)| data.coins == n + 100 && data.items.len() == 2)
    );

    let undo = BulkEdit::undo(profilestore::env::Env::system().uuid(), operation);
    let report = timed("undone", &server, &undo, profiles).await;
    assert_eq!(
        (report.done, report.by_holders, report.refused.len()),
        (profiles as u64, online as u64, 0),
        "{report:?}"
    );

    drop(game.stdin.take());
    let mut last = String::new();
    says.read_line(&mut last).expect("a report");
    assert!(game.wait().expect("an end").success());
    let (thrown_out, rounds) = last.trim().split_once(' ').expect("two numbers");
    let rounds: i64 = rounds.parse().expect("a number");
    let stored = data(&store).await;
    assert!(
        stored.len() == profiles
            && stored.iter().all(|(n, data)| data.coins == *n && data.items.len() == 1)
    );
    let kept = stored.values().filter(|data| data.played == rounds).count();
    assert_eq!((thrown_out, kept), ("0", online));
    println!(
        "nothing missed, nobody thrown out, all {rounds} rounds of each of the {online} \
        players are kept"
    );
    assert!(server.shutdown().await.is_complete());
}

async fn timed(what: &str, server: &GameServer, bulk: &BulkEdit, profiles: usize) -> BulkReport {
    let began = Instant::now();
    let held_from = Arc::new(OnceLock::new());
    let noted = held_from.clone();
    let report = server
        .operator(Attribution::new("bench"))
        .edit_all(bulk, move |progress| {
            if progress.passed == profiles as u64 {
                let _ = noted.set(began.elapsed());
            }
        })
        .await
        .expect("an edit");
    let took = began.elapsed();
    let waited = took.saturating_sub(held_from.get().copied().unwrap_or(took));
    let rate = profiles as f64 / took.as_secs_f64();
    println!(
        "{what}: {:.1} s, {rate:.0} profiles a second; {:.2} s of it at the end for holders' \
            answers",
        took.as_secs_f64(),
        waited.as_secs_f64()
    );
    report
}

fn start_game(path: &PathBuf, online: usize) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut game = Command::new(env::current_exe().expect("this program"))
        .arg("play")
        .arg(path)
        .arg(online.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut says = BufReader::new(game.stdout.take().expect("its output"));
    let mut ready = String::new();
    says.read_line(&mut ready).expect("a word");
    assert_eq!(ready.trim(), "ready");
    std::io::stdout().flush().expect("an output");
    (game, says)
}

/// Profiles of about 1 KB with as many coins as their number.
async fn fill(store: &SqliteStore, profiles: usize) {
    let env = profilestore::env::Env::system();
    let incarnation = store.identity().await.expect("a store").incarnation;
    let filler: Vec<String> =
        (0..80_u32).map(|n| format!("{:08x}", n.wrapping_mul(0x9e37_79b9))).collect();
    for first in (0..profiles).step_by(BATCH) {
        let commits = (first..profiles.min(first + BATCH)).map(|n| {
            let data = serde_json::json!({ "coins": n, "played": 0, "items": ["sword"], "filler": filler });
            let record = Record::new(1_795_000_000, to_raw_value(&data).expect("JSON"));
            let key = profilestore::ProfileKey::new(STORE, profilestore::key::DEFAULT_SCOPE, &name(n)).expect("a key");
            let write = Change::Write {
                key,
                epoch: 0,
                version: 0,
                value: NewValue::Bytes(record.encode().expect("a value")),
                user_ids: vec![],
                cause: Cause::Set,
                author: "bench".into(),
                keep_previous: false,
                seal: false,
                imported: None,
            };
            Commit { id: CommitId(env.uuid()), incarnation, from: None, changes: vec![write], returning: Returning::HEAD, fingerprint: None }
        });
        for result in store.commit(commits.collect()).await {
            result.expect("a stored profile");
        }
    }
}

/// The coins that each profile began with, and its data.
async fn data(store: &SqliteStore) -> BTreeMap<i64, Player> {
    let mut query = profilestore::data_store::KeyQuery {
        store: Some(STORE.into()),
        scope: None,
        filter: profilestore::data_store::KeyFilter::All,
        after: None,
        limit: BATCH,
    };
    let mut all = BTreeMap::new();
    loop {
        let (page, next) = store.profiles(&query).await.expect("a page");
        let keys: Vec<_> = page.into_iter().map(|state| state.key).collect();
        for state in store
            .read(&keys, Returning { value: true, inbox_unless: None })
            .await
            .expect("profiles")
            .states
        {
            let Ok(Stored::Profile(record)) = Stored::decode(&state.value.expect("a value")) else {
                panic!("no profile")
            };
            let data: Value = serde_json::from_str(record.data.get()).expect("JSON");
            let n = state.key.key()[1..].parse().expect("a number");
            all.insert(n, serde_json::from_value(data).expect("a player"));
        }
        query.after = next;
        if query.after.is_none() {
            return all;
        }
    }
}
