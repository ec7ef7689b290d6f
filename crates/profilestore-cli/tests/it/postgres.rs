//! The program on PostgreSQL: every command as on a file, as a role of few rights, and saying nothing
//! about its password.

use profilestore::env::Env;

use super::*;

const ROLE: &str = "profilestore_cli";

/// A server, and a schema of its own on it.
struct Database {
    place: Place,
    /// For the role that makes the tables.
    owner: String,
    /// For game servers and operators.
    url: String,
}

impl Database {
    fn new() -> Self {
        let server = std::env::var("PROFILESTORE_TEST_POSTGRES").unwrap_or_else(|_| {
            panic!("PROFILESTORE_TEST_POSTGRES is not set: run ./test, or scripts/servers.sh COMMAND, which start a PostgreSQL server")
        });
        let schema = format!("cli_{}", Env::system().uuid().simple());
        let (_, host) = server.split_once('@').unwrap();
        let url = format!("postgres://{ROLE}:hush@{host}?schema={schema}");
        Self { place: Place::new(), owner: format!("{server}?schema={schema}"), url }
    }

    /// With its tables.
    fn made() -> Self {
        let database = Self::new();
        // The role belongs to the whole server, and the demonstration's test runs beside.
        let program = fs::read_dir("/usr/lib/postgresql")
            .unwrap()
            .map(|entry| entry.unwrap().path().join("bin/psql"));
        let psql =
            program.filter(|path| path.exists()).max().expect("psql beside the server's programs");
        let sql = format!(
            "DO $$ BEGIN CREATE ROLE {ROLE} LOGIN PASSWORD 'hush'; EXCEPTION WHEN \
                duplicate_object OR unique_violation THEN NULL; END $$"
        );
        let server = database.owner.split('?').next().unwrap();
        assert!(Command::new(psql).args([server, "-qc", &sql]).status().unwrap().success());
        let ran = Ran::from(
            database
                .command(&["migrate", "--grant", ROLE, "--json"], &database.owner)
                .output()
                .unwrap(),
        );
        assert_eq!((ran.code, lines_of(&ran)), (0, json!({ "made": true })), "{ran:?}");
        database
    }

    fn command(&self, args: &[&str], url: &str) -> Command {
        let mut command = self.place.command(args);
        command.env("PROFILESTORE_STORE", url);
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Ran {
        let ran = Ran::from(self.command(args, &self.url).output().unwrap());
        assert!(!format!("{ran:?}").contains("hush"), "{ran:?}");
        ran
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--json"]].concat());
        assert_eq!((ran.code, &*ran.stderr), (0, ""), "{args:?}");
        lines_of(&ran)
    }
}

/// Without the times at which the store took it.
fn timeless(ran: &Ran) -> Vec<Value> {
    fn without(value: &mut Value) {
        for (name, member) in value.as_object_mut().into_iter().flatten() {
            match &**name {
                "stored_ms" | "superseded_ms" => *member = json!(member.is_null()),
                _ => without(member),
            }
        }
    }
    let mut found = lines(&ran.stdout);
    found.iter_mut().for_each(without);
    found
}

fn lines_of(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

#[test]
fn every_command_works_on_a_database() {
    let database = Database::made();
    let report = database.json(&["import", records().to_str().unwrap()]);
    assert_eq!(report["versions"], 1959);
    let listed = database.run(&["list", "--json"]);
    assert_eq!(
        listed.stdout.lines().count(),
        Place::with_records().ok(&["list", "--json"]).lines().count()
    );
    // Whatever is read is what a file gives.
    let on_file = Place::with_records();
    let first: Value = serde_json::from_str(listed.stdout.lines().next().unwrap()).unwrap();
    let [store, scope, name] = ["store", "scope", "key"].map(|part| first[part].as_str().unwrap());
    let key = &*format!("{store}/{scope}/{name}");
    for command in ["get", "history"] {
        let (here, there) =
            (database.run(&[command, key, "--json"]), on_file.run(&[command, key, "--json"]));
        assert_eq!((here.code, timeless(&here)), (0, timeless(&there)), "{command} {key}");
        assert!(!here.stdout.is_empty());
    }
    let key = "PlayerData/Player_1";
    let imported = line("Player_1", 1, &profile(5));
    fs::write(database.place.path("one.jsonl"), imported).unwrap();
    assert_eq!(database.json(&["import", "one.jsonl", "--author", "me"])["versions"], 1);
    let backlog = || {
        let status = database.run(&["status", "--json"]);
        lines_of(&status)["backlog"].take()
    };
    // It said how large a file is, and nothing of a database.
    let status = lines_of(&database.run(&["status", "--json"]));
    assert!(status["table_bytes"].as_u64() > Some(100_000), "{status}");
    let before = backlog();
    let sent = database.run(&["send", key, r#"{"gift":1}"#, "--author", "me"]);
    assert_eq!((sent.code, &*sent.stderr), (0, ""), "{sent:?}");
    let waits = database.json(&["messages", key]);
    assert_eq!(waits["message"], json!({ "gift": 1 }));
    let after = backlog();
    assert_eq!(after["messages"].as_u64(), before["messages"].as_u64().map(|count| count + 1));
    assert!(after["oldest"]["sent_ms"].is_i64() && after["edits"] == 0, "{after}");
    let id = waits["id"].as_str().unwrap();
    let taken_back = database.json(&["messages", key, "--cancel", id, "--author", "me"]);
    assert_eq!(taken_back["cancelled"], true);
    let edited = database.run(&["edit", key, "--set", "/Coins=7", "--author", "me", "--json"]);
    assert_eq!((edited.code, &*edited.stderr), (0, ""), "{edited:?}");
    let shown = database.run(&["get", key, "--json"]);
    assert!(
        shown.stdout.contains("\"Coins\":7") || shown.stdout.contains("\"Coins\": 7"),
        "{shown:?}"
    );
    let booked = database.run(&["audit", "--json"]);
    assert!(booked.stdout.contains("\"edit\"") && booked.stdout.contains("\"send\""), "{booked:?}");
    let removed = database.run(&["remove", key, "--yes", "--author", "me"]);
    assert_eq!(removed.code, 0, "{removed:?}");
    let checked = database.json(&["check"]);
    assert_eq!(
        (&checked["ok"], checked["problems"].as_array().map(Vec::len)),
        (&json!(true), Some(0))
    );
    let exported = database.run(&["export", "--user", "1"]);
    assert_eq!(exported.code, 0, "{exported:?}");
}

#[test]
fn what_is_for_files_only_says_so() {
    let database = Database::made();
    for args in [&["backup", "copy.db"][..], &["restore", "copy.db"]] {
        let ran = database.run(args);
        assert_eq!((ran.code, ran.stderr.lines().count()), (2, 1), "{ran:?}");
        assert!(ran.stderr.contains("migrate --restored"), "{ran:?}");
    }
    let ran = Place::new().run(&["migrate", "--restored"]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (2, 1), "{ran:?}");
}

#[test]
fn a_database_is_made_by_migrate_only_and_once() {
    let database = Database::new();
    let ran = Ran::from(database.command(&["list"], &database.owner).output().unwrap());
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("profilestore migrate"), "{ran:?}");
    for made in [true, false] {
        let ran =
            Ran::from(database.command(&["migrate", "--json"], &database.owner).output().unwrap());
        assert_eq!((ran.code, lines_of(&ran)), (0, json!({ "made": made })), "{ran:?}");
    }
    let ran = Ran::from(
        database.command(&["migrate", "--restored", "--json"], &database.owner).output().unwrap(),
    );
    assert!(lines_of(&ran)["incarnation"].is_string(), "{ran:?}");
}

#[test]
fn a_wrong_database_is_explained_without_its_password() {
    let place = Place::new();
    for url in [
        "postgres://me:hush@127.0.0.1:1/game",
        "postgres://me:hush@127.0.0.1:hush/game",
        "postgres:/me:hush@localhost/game",
        "postgres://me:hush@db.example/game?sslmode=prefer",
        "postgres://me:hush@localhost/game?schema=public",
        "postgres://me:hush@localhost/game?sslmode=require&sslrootcert=/nonexistent.pem",
    ] {
        for ran in [
            place.run(&["list", "--store", url]),
            Ran::from(place.command(&["list"]).env("PROFILESTORE_STORE", url).output().unwrap()),
        ] {
            assert_eq!((ran.code, ran.stderr.lines().count()), (3, 1), "{ran:?}");
            assert!(!format!("{ran:?}").contains("hush"), "{ran:?}");
        }
    }
    let mut command = place.command(&["list", "--help"]);
    let help = Ran::from(
        command.env("PROFILESTORE_STORE", "postgres://me:hush@localhost/game").output().unwrap(),
    );
    assert!(
        help.stdout.contains("PROFILESTORE_STORE") && !help.stdout.contains("hush"),
        "{help:?}"
    );
}

#[test]
fn a_password_comes_from_where_libpq_has_it() {
    let database = Database::made();
    let url = database.url.replace(":hush@", "@");
    let file = database.place.path("pgpass");
    fs::write(&file, format!("*:*:*:{ROLE}:hush\n")).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    for (name, value) in [("PGPASSWORD", "hush"), ("PGPASSFILE", file.to_str().unwrap())] {
        let ran = Ran::from(database.command(&["list"], &url).env(name, value).output().unwrap());
        assert_eq!(ran.code, 0, "{name}: {ran:?}");
    }
}

#[test]
fn servers_that_are_killed_lose_nothing_on_a_database() {
    let database = Database::made();
    let args = [
        "demo",
        "--servers",
        "3",
        "--players",
        "20",
        "--seconds",
        "6",
        "--complete",
        "--kill",
        "--lease-seconds",
        "2",
    ];
    // Demonstrations without a store of their own take a file: this one is named.
    let ran = database.run(&[&args[..], &["--json", "--store", &database.url]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    let report = lines_of(&ran);
    assert_eq!(report["audit"]["passed"], true);
    for figure in [
        "/figures/kills",
        "/figures/saves/count",
        "/figures/hand_overs/count",
        "/figures/items/traded",
    ] {
        assert!(
            report.pointer(figure).and_then(Value::as_u64).unwrap_or(0) > 0,
            "{figure}: {report:#}"
        );
    }
}

/// A script's profiles, handed over between two of its servers.
#[cfg(feature = "luau")]
#[test]
fn a_luau_game_plays_on_a_database() {
    let database = Database::made();
    fs::write(database.place.path("game.luau"), super::run::GAME).unwrap();
    let args = [
        "run",
        "game.luau",
        "--servers",
        "2",
        "--players",
        "1:join@0s,hop@500ms,leave@1500ms",
        "--store",
        &database.url,
    ];
    let ran = database.run(&args);
    assert_eq!((ran.code, &*ran.stdout), (0, "[server 1] 1 5\n[server 2] 1 10\n"), "{ran:?}");
    let profile = database.json(&["get", "PlayerData/1"]);
    assert_eq!(profile.pointer("/document/Data/Coins"), Some(&json!(10)), "{profile}");
}

/// As on SQLite: see `serve_bulk`.
#[cfg(feature = "serve")]
#[tokio::test]
async fn an_edit_of_many_profiles_goes_on_after_kills_and_edits_no_profile_twice() {
    let database = Database::made();
    let stage =
        crate::serve_bulk::Stage { place: &database.place, store: Some(database.url.as_str()) };
    crate::serve_bulk::goes_on_after_kills(&stage).await;
}
