//! `edit` and `audit` beside a live game server in another process: this one.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use profilestore::{
    GameServer, Profile,
    data_store::{SqliteMessenger, SqliteOptions, SqliteStore},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Place, line, lines, profile};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Player {
    coins: i64,
    played: i64,
}

const PROFILES: usize = 300;
const ONLINE: usize = 30;

struct Game {
    server: GameServer,
    online: Vec<Profile<Player>>,
    ended: Arc<AtomicUsize>,
}

impl Game {
    /// Profiles with five coins each, the first of them online.
    async fn start(place: &Place) -> Self {
        let store = SqliteStore::open(place.path("profiles.db"), SqliteOptions::default()).unwrap();
        let server = GameServer::builder(store.clone())
            .messenger(SqliteMessenger::new(&store))
            .job_id("game")
            .start()
            .await
            .unwrap();
        let players = server
            .store_builder("PlayerData")
            .template(Player { coins: 5, played: 0 })
            .build()
            .unwrap();
        let ended = Arc::new(AtomicUsize::new(0));
        let mut online = Vec::new();
        for n in 0..PROFILES {
            let profile = players.start_session(&format!("p{n:03}")).await.unwrap();
            if n < ONLINE {
                let ended = ended.clone();
                profile.on_session_end(move |_| _ = ended.fetch_add(1, Ordering::SeqCst));
                online.push(profile);
            } else {
                profile.end_session().await.unwrap();
            }
        }
        Self { server, online, ended }
    }

    /// Plays on until `work` in another thread is done.
    async fn play_while<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let done = Arc::new(AtomicBool::new(false));
        let over = done.clone();
        let work = tokio::task::spawn_blocking(move || {
            let answer = work();
            over.store(true, Ordering::SeqCst);
            answer
        });
        while !done.load(Ordering::SeqCst) {
            for profile in &self.online {
                profile.update(|data| data.played += 1).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        work.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_profile_is_edited_while_it_is_played_and_the_log_tells() {
    let place = Arc::new(Place::new());
    let game = Game::start(&place).await;
    let run = |args: &'static [&'static str]| {
        let place = place.clone();
        game.play_while(move || place.run(args))
    };
    let edited = run(&[
        "edit",
        "PlayerData/p000",
        "--add",
        "/coins=7",
        "--reason",
        "a crash",
        "--author",
        "ann",
    ])
    .await;
    assert_eq!((edited.code, edited.stderr.as_str()), (0, ""), "{edited:?}");
    assert!(
        edited
            .stdout
            .starts_with("PlayerData/p000 was edited by game, who holds it, and saved as version "),
        "{edited:?}"
    );
    assert_eq!(game.online[0].data().coins, 12);

    let refused =
        run(&["edit", "PlayerData/p000", "--set", "/coins=\"many\"", "--author", "ann"]).await;
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("does not fit the program's type"), "{refused:?}");
    let preview = run(&["edit", "PlayerData/p299", "--set", "/coins=1", "--dry-run"]).await;
    assert_eq!((preview.code, preview.stdout.as_str()), (0, "  /coins: 5 -> 1\n"), "{preview:?}");
    let offline = run(&[
        "edit",
        "PlayerData/p299",
        "--test",
        "/coins=5",
        "--add",
        "/coins=-1",
        "--author",
        "bob",
        "--json",
    ])
    .await;
    let entry: serde_json::Value = serde_json::from_str(&offline.stdout).unwrap();
    assert_eq!((&entry["outcome"], &entry["details"]["held_by"]), (&json!("done"), &json!(null)));
    for (wrong, code) in [
        (&["edit", "PlayerData/p000", "--add", "/coins"][..], 2),
        (&["edit", "PlayerData/p000", "--set", "/coins=many"], 2),
        (&["edit", "PlayerData/p000"], 2),
        (&["edit", "PlayerData/nobody", "--set", "/coins=1"], 4),
        (&["edit", "PlayerData/p299", "--remove", "/gone"], 1),
    ] {
        assert_eq!(place.run(wrong).code, code, "{wrong:?}");
    }

    let log = lines(&place.ok(&["audit", "--json"]));
    let shown: Vec<_> = log
        .iter()
        .map(|entry| (&entry["author"], &entry["outcome"], &entry["keys"][0]["key"]))
        .collect();
    assert_eq!(
        shown[1..],
        [
            (&json!("bob"), &json!("done"), &json!("p299")),
            (&json!("ann"), &json!("refused"), &json!("p000")),
            (&json!("ann"), &json!("done"), &json!("p000")),
        ]
    );
    assert_eq!(
        lines(&place.ok(&["audit", "--json", "--author", "ann", "--key", "PlayerData/p000"])).len(),
        2
    );
    assert_eq!(lines(&place.ok(&["audit", "--json", "--since", "2100-01-01"])).len(), 0);
    assert!(place.ok(&["audit", "--limit", "9"]).contains("a crash"));
    assert_eq!(lines(&place.ok(&["list", "--json"])).len(), PROFILES, "the log is no profile");

    assert_eq!(game.ended.load(Ordering::SeqCst), 0, "nobody was thrown out");
    assert!(game.server.shutdown().await.is_complete());
    assert_eq!(place.json(&["get", "PlayerData/p000", "--json"])["document"]["Data"]["coins"], 12);
    assert_eq!(place.json(&["get", "PlayerData/p299", "--json"])["document"]["Data"]["coins"], 4);
    place.ok(&["check"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_profiles_get_an_edit_that_stands_until_it_is_undone() {
    let place = Arc::new(Place::new());
    let game = Game::start(&place).await;
    let players = game
        .server
        .store_builder("PlayerData")
        .template(Player { coins: 5, played: 0 })
        .build()
        .unwrap();
    let run = |args: &'static [&'static str]| {
        let place = place.clone();
        game.play_while(move || place.run(args))
    };
    let edited = run(&[
        "edit",
        "--all",
        "--new-too",
        "--store-name",
        "PlayerData",
        "--add",
        "/coins=100",
        "--yes",
        "--json",
        "--reason",
        "birthday",
        "--author",
        "ann",
    ])
    .await;
    let report: serde_json::Value =
        serde_json::from_str(&edited.stdout).unwrap_or_else(|_| panic!("{edited:?}"));
    assert_eq!((&report["done"], &report["refused"]), (&json!(PROFILES), &json!([])));
    let new = players.start_session("new").await.unwrap();
    assert_eq!(new.data().coins, 105, "in another process, which nobody told");
    let standing = lines(&place.ok(&["edit", "--standing", "--json"]));
    assert_eq!(standing.len(), 1);
    assert_eq!(
        (&standing[0]["operation"], &standing[0]["store"], &standing[0]["author"]),
        (&report["operation"], &json!("PlayerData"), &json!("ann"))
    );
    assert!(
        place.ok(&["edit", "--standing", "--store-name", "PlayerData"]).contains("PlayerData/*/*")
    );
    assert_eq!(place.ok(&["edit", "--standing", "--store-name", "Other", "--json"]), "");
    assert_eq!(place.run(&["edit", "PlayerData/p000", "--new-too", "--add", "/coins=1"]).code, 2);
    assert_eq!(place.run(&["edit", "--standing", "--add", "/coins=1"]).code, 2);
    assert_eq!(
        lines(&place.ok(&["list", "--json"])).len(),
        PROFILES + 1,
        "the list of what stands is no profile"
    );

    let operation = report["operation"].as_str().unwrap().to_owned();
    let undoing = place.clone();
    let undone = game
        .play_while(move || undoing.run(&["edit", "--undo", &operation, "--yes", "--json"]))
        .await;
    let report: serde_json::Value =
        serde_json::from_str(&undone.stdout).unwrap_or_else(|_| panic!("{undone:?}"));
    assert_eq!((&report["done"], &report["refused"]), (&json!(PROFILES + 1), &json!([])));
    assert_eq!(
        (new.data().coins, players.start_session("newer").await.unwrap().data().coins),
        (5, 5)
    );
    assert_eq!(place.ok(&["edit", "--standing", "--json"]), "");
    assert_eq!(game.ended.load(Ordering::SeqCst), 0, "nobody was thrown out");
    assert!(game.server.shutdown().await.is_complete());
    place.ok(&["check"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_profiles_are_edited_while_some_are_played_and_that_is_undone() {
    let place = Arc::new(Place::new());
    let game = Game::start(&place).await;
    let run = |args: Vec<String>| {
        let place = place.clone();
        game.play_while(move || place.run(&args.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let preview = run(words("edit --all --store-name PlayerData --add /coins=100 --dry-run")).await;
    assert!(preview.stdout.contains("PlayerData/p000\n  /coins: 5 -> 105\n"), "{preview:?}");
    assert!(preview.stdout.contains("300 profiles would be edited"), "{preview:?}");
    let edited = run(words(
        "edit --all --store-name PlayerData --add /coins=100 --yes --json --reason birthday",
    ))
    .await;
    let report: serde_json::Value =
        serde_json::from_str(&edited.stdout).unwrap_or_else(|_| panic!("{edited:?}"));
    assert_eq!(
        (&report["done"], &report["by_holders"], &report["refused"]),
        (&json!(PROFILES), &json!(ONLINE), &json!([]))
    );
    for profile in &game.online {
        assert_eq!(profile.data().coins, 105);
    }
    let resumed =
        run(vec!["edit".into(), "--resume".into(), report["operation"].as_str().unwrap().into()])
            .await;
    assert!(resumed.code == 2 && resumed.stderr.contains("is complete"), "{resumed:?}");
    let undone = run(vec![
        "edit".into(),
        "--undo".into(),
        report["operation"].as_str().unwrap().into(),
        "--yes".into(),
    ])
    .await;
    assert!(
        undone.code == 0 && undone.stdout.starts_with("300 profiles edited, 30 of them online"),
        "{undone:?}"
    );
    assert_eq!(game.ended.load(Ordering::SeqCst), 0, "nobody was thrown out");
    let played: i64 = game.online.iter().map(|profile| profile.data().played).sum();
    assert!(played >= 3 * ONLINE as i64, "they played on: {played}");
    assert!(game.server.shutdown().await.is_complete());
    // The last line of a key is its newest version.
    let newest: BTreeMap<String, serde_json::Value> = lines(&place.run(&["export"]).stdout)
        .into_iter()
        .map(|line| (line["key"].to_string(), line["value"]["Data"]["coins"].clone()))
        .collect();
    assert_eq!(newest.len(), PROFILES);
    assert!(newest.values().all(|coins| *coins == 5), "{newest:?}");
    assert_eq!(lines(&place.ok(&["audit", "--json"])).len(), 2 * (PROFILES + 1));
    place.ok(&["check"]);
}

/// A profile whose data is a number could not be opened by any game; the edit was taken where no
/// server held the profile.
#[test]
fn no_edit_leaves_data_that_no_game_can_open() {
    let place = Place::new();
    fs::write(place.path("in.jsonl"), line("a", 1, &profile(10))).unwrap();
    place.ok(&["import", "in.jsonl"]);
    let all = ["edit", "--all", "--store-name", "PlayerData"];
    for step in [["--set", "=1"], ["--merge", "null"], ["--merge", "\"text\""]] {
        for args in [
            [&["edit", "PlayerData/a"], &step[..]].concat(),
            [&["edit", "PlayerData/a"], &step[..], &["--dry-run"]].concat(),
            [&all[..], &step[..], &["--dry-run"]].concat(),
            [&all[..], &step[..], &["--yes"]].concat(),
        ] {
            let ran = place.run(&args);
            assert_eq!(ran.code, 1, "{args:?}: {ran:?}");
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert!(said.contains("neither object nor list"), "{args:?}: {ran:?}");
        }
    }
    let coins = |place: &Place| {
        place.json(&["get", "PlayerData/a", "--json"])["document"]["Data"]["Coins"].clone()
    };
    assert_eq!(coins(&place), 10);
}

/// The dry run counted other profiles as refused than the edit itself, which skipped some without a
/// word. A test that does not match is not a refusal.
#[test]
fn a_dry_run_and_the_edit_itself_count_alike() {
    let place = Place::new();
    let profiles: String = (1..=6).map(|n| line(&format!("p{n}"), 1, &profile(n))).collect();
    let foreign = line("foreign", 1, &json!("no profile"));
    let text = json!({ "Data": { "Coins": "many" }, "GlobalUpdates": [0, []],
        "MetaData": { "SessionLoadCount": 1, "MetaTags": {} } });
    fs::write(place.path("in.jsonl"), profiles + &foreign + &line("text", 1, &text)).unwrap();
    place.ok(&["import", "in.jsonl"]);
    place.ok(&["remove", "PlayerData/p6", "--yes"]);
    place.ok(&["send", "PlayerData/waiting", "1", "--yes", "--json"]);
    let edit = ["edit", "--all", "--store-name", "PlayerData", "--json"];
    let numbers = |ran: &crate::Ran| {
        let row: serde_json::Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"));
        let refused =
            row["refused"].as_array().map_or(row["refused"].clone(), |list| json!(list.len()));
        let edited = row["edited"]
            .as_u64()
            .unwrap_or_else(|| row["done"].as_u64().unwrap() - row["unchanged"].as_u64().unwrap());
        let rest = ["unchanged", "unmatched", "skipped"].map(|name| row[name].clone());
        (ran.code, edited, refused, rest)
    };
    for (steps, expected) in [
        // `foreign` and `text` are refused; `p6` and `waiting` are no profiles.
        (&["--add", "/Coins=0"][..], (1, 0, json!(2), [json!(5), json!(0), json!(2)])),
        (&["--add", "/Coins=10"], (1, 5, json!(2), [json!(0), json!(0), json!(2)])),
        // Of p1 to p5 only p3 has 13 coins; `text` is not meant either.
        (
            &["--test", "/Coins=13", "--add", "/Coins=1"],
            (1, 1, json!(1), [json!(0), json!(5), json!(2)]),
        ),
    ] {
        let dry = numbers(&place.run(&[&edit[..], steps, &["--dry-run"]].concat()));
        let done = numbers(&place.run(&[&edit[..], steps, &["--yes"]].concat()));
        assert_eq!((&dry, &done), (&expected, &expected), "{steps:?}");
    }
    let all = ["edit", "--all", "--store-name", "PlayerData", "--prefix", "p"];
    let tested = ["--test", "/Coins=11", "--add", "/Coins=1"];
    let dry = place.ok(&[&all[..], &tested, &["--dry-run"]].concat());
    let line = "0 unchanged, 4 passed over, 0 refused, 1 without a profile\n";
    assert!(
        dry.ends_with(&format!(
            "1 profile would be edited, 0 of those looked at are online\n{line}"
        )),
        "{dry}"
    );
    let done = place.run(&[&all[..], &tested, &["--yes"]].concat());
    assert!(done.code == 0 && done.stdout.contains(line), "{done:?}");
}

/// The game server is in this thread, which waits for the program: so it does not answer, and the
/// edit waits for it.
#[cfg(unix)]
#[tokio::test]
async fn a_bulk_edit_that_is_interrupted_says_how_to_go_on() {
    use std::{
        io::{BufRead, BufReader, Read},
        process::{Command, Stdio},
    };

    let place = Place::new();
    let store = SqliteStore::open(place.path("profiles.db"), SqliteOptions::default()).unwrap();
    let server = GameServer::builder(store).job_id("game").start().await.unwrap();
    let builder = server.store_builder("PlayerData").template(Player::default());
    let players = builder.build().unwrap();
    let held = players.start_session("held").await.unwrap();
    let mut child = place
        .command(&["edit", "--all", "--store-name", "PlayerData", "--add", "/coins=1", "--yes"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut first = String::new();
    stderr.read_line(&mut first).unwrap();
    let operation = first.split_whitespace().last().unwrap().to_owned();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest}");
    assert!(rest.starts_with("error: broken off; 0 profiles are edited"), "{rest}");
    for how in ["--resume", "--undo"] {
        assert!(rest.contains(&format!("profilestore edit {how} {operation}")), "{rest}");
    }
    held.end_session().await.unwrap();
    assert!(server.shutdown().await.is_complete());
    // It is taken up wherever it was broken off: also before it was booked.
    let resumed = place.run(&["edit", "--resume", &operation]);
    assert!([0, 4].contains(&resumed.code), "{resumed:?}");
}

#[test]
fn an_undo_of_an_operation_that_is_not_there_says_so() {
    let place = Place::new();
    fs::write(place.path("in.jsonl"), line("a", 1, &profile(10))).unwrap();
    place.ok(&["import", "in.jsonl"]);
    let unknown = "01999d5c-2f1e-7a52-9df4-1c6f8a3b2d10";
    let undone = place.run(&["edit", "--undo", unknown, "--yes"]);
    assert_eq!(undone.code, 4, "{undone:?}");
    assert!(undone.stderr.contains("no such operation"), "{undone:?}");
}
