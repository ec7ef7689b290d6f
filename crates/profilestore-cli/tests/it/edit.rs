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
        undone.code == 0
            && undone.stdout.starts_with("300 profiles edited, 30 profiles of them online"),
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
