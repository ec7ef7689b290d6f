//! Whole games in the manner of those that are played on Roblox, as trees of files: each is run as
//! its developer would run it, and what it saved is read from the store.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Place;

/// A game in the tests of the crate that plays it.
fn game(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../profilestore-luau/tests/games").join(name)
}

/// A game that has been played for some time, with nothing to complain of.
struct Played {
    place: Place,
    stdout: String,
}

impl Played {
    #[track_caller]
    fn new(name: &str, options: &[&str]) -> Self {
        let (place, folder) = (Place::new(), game(name));
        let path = folder.to_str().unwrap();
        let args = ["run", path, "--time", "virtual", "--store", "game.db"];
        let ran = place.run(&[&args[..], options].concat());
        assert_eq!((ran.code, &*ran.stderr), (0, ""), "{name}: {}", ran.stdout);
        Self { place, stdout: ran.stdout }
    }

    /// What is stored under a key, when no session holds it any more.
    fn stored(&self, key: &str) -> Value {
        let entry = self.place.json(&["get", key, "--store", "game.db", "--json"]);
        assert_eq!(entry["session"], Value::Null, "{entry}");
        entry
    }

    fn data(&self, key: &str) -> Value {
        self.stored(key)["document"]["Data"].take()
    }
}

/// A player who comes twice.
const TWICE: [&str; 4] = ["--players", "1:join@1s,leave@10s,join@20s,leave@40s", "--until", "60"];

#[test]
fn a_game_of_knits_kind_with_packages_as_wally_lays_them_out_is_played_and_saves() {
    let client = game("knit").join("player.luau");
    let played =
        Played::new("knit", &[&TWICE[..], &["--client", client.to_str().unwrap()]].concat());
    for line in ["Knit started", "points can be earned", "Player1 sees 10", "Player1 has 20"] {
        assert!(played.stdout.lines().any(|printed| printed == line), "{line}: {}", played.stdout);
    }
    let entry = played.stored("Knit/Player_1");
    assert_eq!(entry["user_ids"], json!([1]));
    assert_eq!(
        entry["document"]["Data"],
        json!({ "Points": 20, "Badges": [], "Settings": { "Music": true } })
    );
}

#[test]
fn a_game_of_one_script_with_leaderstats_is_played_and_saves() {
    let players = ["--players", "1:join@1s,leave@35s;2:join@5s", "--until", "60"];
    let played = Played::new("leaderstats", &players);
    assert_eq!(played.stdout, "Player1 comes with 0\nPlayer2 comes with 0\n");
    assert_eq!(played.data("PlayerStore/1"), json!({ "Cash": 115, "Items": ["Hat"] }));
    // Who is there when the servers shut down is saved by that.
    assert_eq!(played.data("PlayerStore/2"), json!({ "Cash": 125, "Items": ["Hat"] }));
}

#[test]
fn a_game_whose_state_is_replicated_to_clients_is_played_and_saves() {
    let client = game("replicas").join("player.luau");
    let played =
        Played::new("replicas", &[&TWICE[..], &["--client", client.to_str().unwrap()]].concat());
    for line in ["created PlayerData 2", "cash 20", "Player1 is shown 2 20"] {
        assert!(played.stdout.lines().any(|printed| printed == line), "{line}: {}", played.stdout);
    }
    let rex = json!({ "Level": 2, "Name": "Rex" });
    assert_eq!(
        played.data("Replicas/Player_1"),
        json!({ "Cash": 20, "Pets": { "pet10": rex.clone(), "pet20": rex } })
    );
}

#[test]
fn a_game_that_roblox_ts_compiled_is_played_and_saves() {
    let played = Played::new("roblox_ts", &TWICE);
    assert_eq!(played.stdout, "coins 7 Wallet\nPlayer1 true\ncoins 14 Wallet\nPlayer1 true\n");
    assert_eq!(
        played.data("compiled/player_1"),
        json!({ "coins": 14, "visits": ["Player1 0", "Player1 1"] })
    );
}

#[test]
fn a_game_of_nevermores_kind_finds_its_modules_by_name_and_saves() {
    let played = Played::new("nevermore", &TWICE);
    assert_eq!(
        played.stdout,
        "GameServiceServer starts with CoinsService\nPlayer1 has 125\nPlayer1 has 150\n"
    );
    // It has no profiles, but locks entries of a data store by itself.
    let entry = played.stored("PlayerData/SaveData/1");
    assert_eq!(entry["document"], json!({ "version": 1, "data": { "coins": 150 } }));
    assert_eq!(
        (&entry["user_ids"], &entry["metadata"]["source"]),
        (&json!([1]), &"playerdata".into())
    );
}

#[test]
fn a_game_of_services_is_played_from_its_folder_and_saves() {
    let played = Played::new("services", &TWICE);
    assert_eq!(
        played.stdout,
        "started ServerScriptService.Server.Main\ngift Player1 125\ngift Player1 150\n"
    );
    assert_eq!(
        played.data("PlayerData/1"),
        json!({ "Coins": 150, "Visits": 2, "Settings": { "Music": true } })
    );
}
