//! Acting on profiles while a game server holds them.

use std::{fs, time::Duration};

use profilestore::{
    GameServer, Profile,
    data_store::{SqliteMessenger, SqliteOptions, SqliteStore},
};
use serde_json::{Value, json};

use crate::{Place, line, lines, profile};

/// A game server on the store that the program uses by default.
async fn game(place: &Place) -> GameServer {
    let file = SqliteStore::open(place.path("profiles.db"), SqliteOptions::default()).unwrap();
    let messenger = SqliteMessenger::new(&file);
    GameServer::builder(file).messenger(messenger).job_id("game").start().await.unwrap()
}

async fn open(game: &GameServer, key: &str) -> Profile<Value> {
    game.store::<Value>("PlayerData").unwrap().start_session(key).await.unwrap()
}

/// A live profile with one coin saved and ninety-nine that are not.
async fn playing(game: &GameServer, key: &str, users: &[i64]) -> Profile<Value> {
    let profile = open(game, key).await;
    users.iter().for_each(|user| profile.add_user_id(*user).unwrap());
    profile.update(|data| *data = json!({ "Coins": 1 })).unwrap();
    profile.save().await.unwrap();
    profile.update(|data| data["Coins"] = 100.into()).unwrap();
    profile
}

/// Waits until a live profile knows that its session is over.
async fn told(profile: &Profile<Value>) {
    while !profile.is_over() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn coins(place: &Place, key: &str) -> Value {
    place.json(&["get", &format!("PlayerData/{key}"), "--json"])["document"]["Data"]["Coins"]
        .clone()
}

fn booked(place: &Place) -> Vec<Value> {
    lines(&place.ok(&["audit", "--json"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_players_that_play_and_players_that_do_not() {
    let place = Place::new();
    let game = game(&place).await;
    let live = open(&game, "live").await;
    let (got, mut gifts) = tokio::sync::mpsc::unbounded_channel();
    live.message_handler(move |_, message| {
        got.send(message.parse::<Value>().unwrap()).unwrap();
        message.processed();
    });
    let text = place.ok(&["send", "PlayerData/live", r#"{"coins":5}"#, "--reason", "refund"]);
    assert!(text.starts_with("sent to PlayerData/live: id "), "{text}");
    assert_eq!(gifts.recv().await, Some(json!({ "coins": 5 })));

    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let id = format!("{now}:order-4711");
    let args = ["send", "PlayerData/offline", "7", "--id", &id, "--yes", "--json"];
    assert_eq!(place.json(&args)["stored_now"], true);
    assert_eq!(place.json(&args)["stored_now"], false);
    let send = ["send", "PlayerData/offline", "--yes", "--json"];
    let other = place.run(&[&send[..], &["8", "--id", &id]].concat());
    assert_eq!((other.code, other.stderr.lines().count()), (1, 1), "{other:?}");
    assert_eq!(place.run(&["send", "PlayerData/offline", "not json"]).code, 2);
    let half = place.run(&[&send[..], &[r#"{"a":"\ud800"}"#]].concat());
    assert_eq!((half.code, half.stderr.matches("at `/a`: ").count()), (2, 1), "{half:?}");
    let old = place.run(&[&send[..], &["8", "--id", "1:order"]].concat());
    assert!(old.code == 2 && !old.stderr.contains("--yes"), "{old:?}");
    let profile = open(&game, "offline").await;
    assert_eq!(profile.waiting_messages().len(), 1);
    let entries = booked(&place);
    assert_eq!(entries.len(), 2, "{entries:?}");
    assert_eq!(
        (&entries[1]["reason"], &entries[0]["details"]["message"]),
        (&json!("refund"), &json!(id))
    );
    assert!(game.shutdown().await.is_complete());
}

/// A gift for a mistyped key waited for ever for a player who does not exist, silently.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_to_a_profile_that_is_not_there_is_asked_about() {
    let place = Place::new();
    let game = game(&place).await;
    let live = open(&game, "user-1").await;
    place.ok(&["send", "PlayerData/user-1", "1"]);
    let refused = |key: &str, said: &str| {
        let ran = place.run(&["send", key, "1"]);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "there is no terminal: {ran:?}");
        assert!(ran.stderr.contains(said) && ran.stderr.contains("Say --yes"), "{ran:?}");
    };
    refused("PlayerData/user-l", "there never was a profile PlayerData/user-l; ");
    assert_eq!(place.run(&["messages", "PlayerData/user-l"]).code, 4, "nothing was sent");
    live.end_session().await.unwrap();
    place.ok(&["remove", "PlayerData/user-1", "--yes"]);
    refused("PlayerData/user-1", "the profile PlayerData/user-1 was removed; ");
    // A player who has never played.
    let ran = place.run(&["send", "PlayerData/new", "1", "--yes"]);
    assert!(ran.code == 0 && ran.stdout.starts_with("sent to PlayerData/new: id "), "{ran:?}");
    let said = "there never was a profile PlayerData/new; a message waits there until a player \
        begins under this key\n";
    assert_eq!(ran.stderr, said);
    let sent = place.json(&["send", "PlayerData/new", "1", "--yes", "--json"]);
    assert_eq!((&sent["stored_now"], &sent["profile"]), (&json!(true), &json!(false)));
    let new = open(&game, "new").await;
    assert_eq!(new.waiting_messages().len(), 2);
    let sent = place.json(&["send", "PlayerData/new", "1", "--json"]);
    assert_eq!(sent["profile"], true);
    assert!(game.shutdown().await.is_complete());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_when_it_is_asked_to_and_when_it_is_taken() {
    let place = Place::new();
    let game = game(&place).await;
    let asked = playing(&game, "asked", &[]).await;
    let ran = place.run(&["end-session", "PlayerData/asked"]);
    assert_eq!((ran.code, &*ran.stdout), (0, "PlayerData/asked is free\n"), "{ran:?}");
    assert_eq!(ran.stderr, "PlayerData/asked is held by game (place 0); asking it to let go\n");
    told(&asked).await;
    assert_eq!(coins(&place, "asked"), 100, "it saved first");

    let stolen = playing(&game, "stolen", &[]).await;
    let done =
        place.json(&["end-session", "PlayerData/stolen", "--steal", "--json", "--author", "ann"]);
    assert_eq!(done["done"], true);
    told(&stolen).await;
    assert_eq!(coins(&place, "stolen"), 1, "what was not saved is lost");
    assert!(stolen.save().await.is_err());
    assert_eq!(place.ok(&["sessions"]), "no profile is held\n");

    let free = place.ok(&["end-session", "PlayerData/asked"]);
    assert_eq!(free, "PlayerData/asked is free already: no session holds it\n");
    assert_eq!(place.json(&["end-session", "PlayerData/asked", "--json"])["done"], false);
    assert_eq!(place.run(&["end-session", "PlayerData/nobody"]).code, 4);
    let entries = booked(&place);
    let facts: Vec<_> =
        entries.iter().map(|e| (&e["action"], &e["outcome"], &e["details"]["steal"])).collect();
    assert_eq!(
        facts,
        [
            (&json!("end-session"), &json!("done"), &json!(true)),
            (&json!("end-session"), &json!("done"), &json!(false))
        ]
    );
    assert!(game.shutdown().await.is_complete());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_servers_session_is_not_ended_before_its_time() {
    let place = Place::new();
    // A server of another process that is gone silently.
    let game = game(&place).await;
    let live = playing(&game, "p", &[]).await;
    drop(live);
    drop(game);
    let ran = place.run(&["end-session", "PlayerData/p", "--timeout", "1"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.lines().last().unwrap().starts_with("error: "), "{ran:?}");
    assert_eq!(booked(&place)[0]["outcome"], "refused");
    place.run(&["end-session", "PlayerData/p", "--steal"]);
    assert_eq!(
        (place.ok(&["sessions"]), coins(&place, "p")),
        ("no profile is held\n".into(), json!(1))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_profile_takes_its_session_along_and_can_come_back() {
    let place = Place::new();
    let game = game(&place).await;
    let live = playing(&game, "p", &[]).await;
    place.ok(&["send", "PlayerData/p", "1"]);
    let asked = place.run(&["remove", "PlayerData/p"]);
    assert_eq!(asked.code, 2, "{asked:?}");
    assert!(
        asked.stderr.contains(
            "remove PlayerData/p at version 2, with 1 waiting messages, ending the session on game"
        ),
        "{asked:?}"
    );
    let done =
        place.json(&["remove", "PlayerData/p", "--yes", "--json", "--reason", "asked for it"]);
    assert_eq!(done["done"], true);
    told(&live).await;
    assert_eq!(place.json(&["get", "PlayerData/p", "--json"])["content"], "removed");
    let again = place.run(&["remove", "PlayerData/p", "--yes"]);
    assert_eq!(
        (again.code, &*again.stderr),
        (4, "error: there is no such profile: key=`PlayerData/p`\n")
    );
    assert_eq!(booked(&place)[0]["reason"], "asked for it");
    place.ok(&["rollback", "PlayerData/p", "2", "--yes"]);
    assert_eq!(coins(&place, "p"), 1);
    assert!(game.shutdown().await.is_complete());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_ends_a_live_session() {
    let place = Place::new();
    let game = game(&place).await;
    let live = playing(&game, "p", &[]).await;
    let text = place.ok(&["rollback", "PlayerData/p", "2", "--yes"]);
    assert!(text.starts_with("PlayerData/p is at version 3, which is version 2 (20"), "{text}");
    assert!(text.ends_with(", save by game) again; the session on game is over\n"), "{text}");
    told(&live).await;
    assert_eq!(coins(&place, "p"), 1);
    assert!(game.shutdown().await.is_complete());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_exported_and_erased() {
    const SECRET: &str = "a secret that stands in a message as it is";
    let place = Place::new();
    let game = game(&place).await;
    let live = playing(&game, "live", &[7]).await;
    playing(&game, "offline", &[7]).await.end_session().await.unwrap();
    playing(&game, "guild", &[7, 8]).await.end_session().await.unwrap();
    playing(&game, "another's", &[8]).await.end_session().await.unwrap();
    playing(&game, "removed", &[7]).await.end_session().await.unwrap();
    place.ok(&["remove", "PlayerData/removed", "--yes"]);
    place.ok(&["send", "PlayerData/offline", &json!(SECRET).to_string()]);
    let file = || {
        let read = |name: &str| fs::read(place.path(name)).unwrap_or_default();
        [read("profiles.db"), read("profiles.db-wal")].concat()
    };
    let has_secret = || file().windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
    assert!(has_secret());

    let keys = |args: &[&str]| -> Vec<String> {
        let mut keys: Vec<_> = lines(&place.run(args).stdout)
            .iter()
            .map(|row| row["key"].as_str().unwrap().to_owned())
            .collect();
        keys.dedup();
        keys
    };
    let all = ["guild", "live", "offline", "removed"];
    assert_eq!(keys(&["list", "--user", "7", "--json"]), all);
    assert_eq!(keys(&["export", "--user", "7"]), all);
    let exported = place.run(&["export", "--user", "7"]).stdout;
    assert!(exported.contains(SECRET) && exported.lines().count() == 5, "{exported}");
    assert_eq!(place.run(&["export", "--user", "7", "--prefix", "a"]).code, 2);

    let asked = place.run(&["erase", "--user", "7"]);
    assert_eq!(asked.code, 2, "{asked:?}");
    assert!(asked.stderr.contains("erase user 7, associated with 4 profiles"), "{asked:?}");
    let ran =
        place.run(&["erase", "--user", "7", "--yes", "--author", "ann", "--reason", "request"]);
    assert_eq!((ran.code, &*ran.stderr), (1, ""), "a shared profile is left: {ran:?}");
    assert!(ran.stdout.starts_with("erased          3 profiles\n"), "{ran:?}");
    assert!(
        ran.stdout.contains("left PlayerData/guild, shared by users 7, 8; --shared erases it\n"),
        "{ran:?}"
    );
    told(&live).await;
    assert!(!has_secret());
    assert_eq!(keys(&["list", "--user", "7", "--json"]), ["guild"]);
    assert_eq!(place.json(&["get", "PlayerData/live", "--json"])["content"], "removed");
    assert_eq!(lines(&place.ok(&["history", "PlayerData/offline", "--json"])).len(), 1);

    let report = place.json(&["erase", "--user", "7", "--shared", "--yes", "--json"]);
    assert_eq!(
        (&report["erased"][0]["key"], &report["bytes_gone"]),
        (&json!("guild"), &json!(true))
    );
    let nothing = place.ok(&["erase", "--user", "7", "--yes", "--no-vacuum"]);
    assert!(nothing.starts_with("erased          0 profiles\n"), "{nothing}");
    assert_eq!(coins(&place, "another's"), 100);
    assert_eq!(place.run(&["export", "--user", "7"]).stdout, "");
    let erasures = booked(&place).into_iter().filter(|entry| entry["action"] == "erase").count();
    assert_eq!(erasures, 4);
    let entries = booked(&place);
    // Each vacuum is booked for itself.
    let vacuums = entries.iter().filter(|entry| entry["action"] == "vacuum");
    let vacuums: Vec<_> = vacuums.map(|entry| &entry["outcome"]).collect();
    assert_eq!(vacuums, ["done", "done"]);
    let sent = entries.iter().find(|entry| entry["action"] == "send").unwrap();
    assert_eq!((&sent["details"], &sent["author"]), (&json!({}), &sent["author"]));
    assert_eq!(place.ok(&["check"]).lines().next(), Some("result          all is well"));
    assert!(game.shutdown().await.is_complete());
}

#[test]
fn an_import_is_booked_with_its_reason() {
    let place = Place::new();
    fs::write(place.path("in.jsonl"), line("a", 1, &profile(1))).unwrap();
    place.ok(&["import", "in.jsonl", "--author", "ann", "--reason", "moving in"]);
    let [entry] = booked(&place).try_into().unwrap();
    assert_eq!(
        (&entry["action"], &entry["outcome"], &entry["reason"]),
        (&json!("import"), &json!("done"), &json!("moving in"))
    );
    assert_eq!(entry["details"], json!({ "file": "in.jsonl", "keys": 1, "versions": 1 }));
    assert_eq!(lines(&place.ok(&["history", "PlayerData/a", "--json"]))[0]["author"], "ann");
}
