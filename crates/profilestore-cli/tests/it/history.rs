use std::fs;

use profilestore::{
    MessageId, ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt, NewMessage, NewValue, Returning,
        SqliteOptions, SqliteStore, StoreError,
    },
    env::Env,
};
use serde_json::{Value, json};

use crate::{Place, line, lines, profile};

/// One profile with three versions, 10, 20 and 30 coins.
fn with_versions() -> Place {
    let place = Place::new();
    let text: String =
        [(1, 10), (2, 20), (3, 30)].map(|(n, coins)| line("a", n, &profile(coins))).concat();
    fs::write(place.path("in.jsonl"), text).unwrap();
    place.ok(&["import", "in.jsonl", "--author", "mover"]);
    place
}

fn versions(place: &Place, args: &[&str]) -> Vec<Value> {
    let rows = lines(&place.ok(&[&["history", "PlayerData/a", "--json"], args].concat()));
    rows.iter().map(|row| row["version"].clone()).collect()
}

fn coins(place: &Place) -> Value {
    place.json(&["get", "PlayerData/a", "--json"])["document"]["Data"]["Coins"].clone()
}

#[test]
fn history_is_listed_in_both_directions_and_between_times() {
    let place = with_versions();
    assert_eq!(versions(&place, &[]), [3, 2, 1]);
    assert_eq!(versions(&place, &["--oldest-first"]), [1, 2, 3]);
    assert_eq!(versions(&place, &["--oldest-first", "--limit", "2"]), [1, 2]);
    // They were written at 1,790,000,000,001 ms and right after: 2026-09-21 14:13:20.001.
    assert_eq!(versions(&place, &["--since", "2026-09-21T14:13:20.002Z"]), [3, 2]);
    assert_eq!(versions(&place, &["--until", "2026-09-21T14:13:20.002Z"]), [2, 1]);
    assert_eq!(versions(&place, &["--since", "2026-09-22"]), [0; 0]);
    assert_eq!(
        place.ok(&["history", "PlayerData/a", "--since", "2026-09-22"]),
        "no version was written in that time\n"
    );
    let row = &lines(&place.ok(&["history", "PlayerData/a", "--json", "--limit", "1"]))[0];
    assert_eq!(
        (&row["cause"], &row["author"], &row["pinned"]),
        (&json!("import"), &json!("mover"), &json!(false))
    );
    assert!(row["superseded_ms"].is_null() && row["bytes"].as_u64() > Some(0), "{row}");
    let wrong = place.run(&["history", "PlayerData/a", "--since", "yesteryear"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
}

#[test]
fn a_time_to_the_second_includes_what_was_written_in_that_second() {
    let place = with_versions();
    let at = |time: &str| {
        let found = place.json(&["get", "PlayerData/a", "--version", time, "--json"]);
        found["version"]["version"].clone()
    };
    for time in [
        "2026-09-21T14:13:20Z",
        "2026-09-21 14:13:20Z",
        "2026-09-21 14:13:20",
        "2026-09-21 14:13",
        "2026-09-21",
    ] {
        assert_eq!(at(time), 3, "{time}");
        assert_eq!(versions(&place, &["--until", time]), [3, 2, 1], "{time}");
        assert_eq!(versions(&place, &["--since", time]), [3, 2, 1], "{time}");
    }
    for (time, number) in [("2026-09-21 14:13:20.001Z", 1), ("2026-09-21T14:13:20.002Z", 2)] {
        assert_eq!(at(time), number, "{time}");
    }
    let same = place.json(&["diff", "PlayerData/a", "3", "2026-09-21 14:13:20", "--json"]);
    assert_eq!(same["differences"], json!([]));
    let which = "version 2 (2026-09-21T14:13:20.002Z, import by mover)";
    let asked = place.run(&["rollback", "PlayerData/a", "2026-09-21 14:13:20.002"]);
    assert!(asked.code == 2 && asked.stderr.contains(which), "{asked:?}");
    let done = place.ok(&["rollback", "PlayerData/a", "2026-09-21 14:13:20.002", "--yes"]);
    assert_eq!(done, format!("PlayerData/a is at version 4, which is {which} again\n"));
    assert_eq!(coins(&place), 20);
    let history = place.ok(&["history", "PlayerData/a", "--limit", "1"]);
    assert!(history.contains("  rollback  "), "in the word of the command: {history}");
    for wrong in ["2026-09-21 25:00", "2026-13-01", "2026-09-21T14:13:20+"] {
        let ran = place.run(&["rollback", "PlayerData/a", wrong, "--yes"]);
        assert_eq!(ran.code, 2, "{ran:?}");
    }
}

#[test]
fn a_diff_shows_what_changed() {
    let place = with_versions();
    let text = place.ok(&["diff", "PlayerData/a"]);
    assert!(
        text.starts_with(
            "PlayerData/a: version 2 (2026-09-21T14:13:20.002Z, import by mover) -> version 3 ("
        ),
        "{text}"
    );
    assert!(
        text.contains("~  /Data/Coins  20 -> 30\n") && text.ends_with("1 difference\n"),
        "{text}"
    );

    let found = place.json(&["diff", "PlayerData/a", "1", "--json"]);
    assert_eq!(found["differences"], json!([{ "path": "/Data/Coins", "before": 10, "after": 30 }]));
    assert_eq!((&found["before"]["version"], &found["after"]["version"]), (&json!(1), &json!(3)));
    let back = place.json(&["diff", "PlayerData/a", "a-3", "2026-09-21T14:13:20.001Z", "--json"]);
    assert_eq!(back["differences"], json!([{ "path": "/Data/Coins", "before": 30, "after": 10 }]));
    assert!(place.ok(&["diff", "PlayerData/a", "2", "2"]).ends_with("0 differences\n"));

    place.ok(&["remove", "PlayerData/a", "--yes"]);
    assert!(place.ok(&["diff", "PlayerData/a"]).contains("(all of it)"), "a removal");
    for args in [
        &["PlayerData/a", "99"][..],
        &["PlayerData/a", "2020-01-01"],
        &["PlayerData/nobody"],
        &["PlayerData/a", "1", "x"],
    ] {
        let ran = place.run(&[&["diff"], args].concat());
        assert_eq!((ran.code, ran.stderr.lines().count()), (4, 1), "{ran:?}");
    }
    fs::write(place.path("one.jsonl"), line("one", 1, &profile(1))).unwrap();
    place.ok(&["import", "one.jsonl"]);
    let ran = place.run(&["diff", "PlayerData/one"]);
    assert_eq!(
        (ran.code, &*ran.stderr),
        (4, "error: no earlier version is kept: key=`PlayerData/one` version=`1`\n")
    );
}

#[test]
fn a_rollback_can_itself_be_rolled_back() {
    let place = with_versions();
    let asked = place.run(&["rollback", "PlayerData/a", "1"]);
    assert_eq!(asked.code, 2, "nobody is there to answer: {asked:?}");
    assert!(
        asked.stderr.contains("roll PlayerData/a back from version 3 (2026-09-21T14:13:20.003Z, ")
            && asked.stderr.contains(" to version 1 (2026-09-21T14:13:20.001Z, import by mover), ")
            && asked.stderr.contains("1 difference"),
        "{asked:?}"
    );
    assert_eq!(coins(&place), 30);

    let text = place.ok(&[
        "rollback",
        "PlayerData/a",
        "a-1",
        "--yes",
        "--author",
        "ann",
        "--reason",
        "lost items",
    ]);
    assert_eq!(
        text,
        "PlayerData/a is at version 4, which is version 1 (2026-09-21T14:13:20.001Z, import by \
            mover) again\n"
    );
    assert_eq!(coins(&place), 10);
    let done = place.json(&["rollback", "PlayerData/a", "3", "--yes", "--author", "ann", "--json"]);
    assert_eq!(
        (&done["restored"], &done["replaced"], &done["version"]),
        (&json!(3), &json!(4), &json!(5))
    );
    assert_eq!(coins(&place), 30);
    assert_eq!(versions(&place, &[]), [5, 4, 3, 2, 1]);
    let row = &lines(&place.ok(&["history", "PlayerData/a", "--json", "--limit", "1"]))[0];
    assert_eq!((&row["cause"], &row["author"]), (&json!("restore"), &json!("ann")));
    let booked = lines(&place.ok(&["audit", "--key", "PlayerData/a", "--json"]));
    assert_eq!(
        booked.iter().map(|entry| &entry["reason"]).collect::<Vec<_>>(),
        [&Value::Null, &json!("lost items")]
    );
    assert!(
        booked.iter().all(|entry| entry["action"] == "rollback" && entry["author"] == "ann"),
        "{booked:?}"
    );

    place.ok(&["remove", "PlayerData/a", "--yes"]);
    let refused = place.run(&["rollback", "PlayerData/a", "6", "--yes"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    place.ok(&["rollback", "PlayerData/a", "2", "--yes"]);
    assert_eq!(coins(&place), 20, "a removed profile comes back");
    for args in [&["PlayerData/a", "99"][..], &["PlayerData/nobody", "1"]] {
        assert_eq!(place.run(&[&["rollback"], args, &["--yes"]].concat()).code, 4);
    }
    let long = place.run(&["rollback", "PlayerData/a", "1", "--yes", "--author", &"x".repeat(201)]);
    assert_eq!(long.code, 2, "{long:?}");
}

#[test]
fn a_pin_is_shown_and_taken_off() {
    let place = with_versions();
    assert_eq!(
        place.ok(&["pin", "PlayerData/a", "2"]),
        "version 2 (2026-09-21T14:13:20.002Z, import by mover) of PlayerData/a is pinned\n"
    );
    let text = place.ok(&["history", "PlayerData/a"]);
    let first_words: Vec<_> =
        text.lines().map(|line| line.split("  ").next().unwrap().to_owned()).collect();
    assert_eq!(first_words, ["VERSION", "3 current", "2 pinned", "1"]);
    let row = place.json(&["pin", "PlayerData/a", "a-2", "--remove", "--json"]);
    assert_eq!((&row["version"], &row["pinned"]), (&json!(2), &json!(false)));
    assert!(!place.ok(&["history", "PlayerData/a"]).contains("pinned"));
    assert_eq!(place.run(&["pin", "PlayerData/a", "9"]).code, 4);
    let booked = lines(&place.ok(&["audit", "--key", "PlayerData/a", "--json"]));
    assert_eq!(booked.iter().map(|entry| &entry["action"]).collect::<Vec<_>>(), ["unpin", "pin"]);
    let me =
        String::from_utf8(std::process::Command::new("id").arg("-un").output().unwrap().stdout)
            .unwrap();
    assert_eq!(booked[0]["author"], me.trim(), "the operating system's user by default");
}

/// Profile `a` trades with `b`, and sends `c` a gift, in its fourth version.
#[tokio::main(flavor = "current_thread")]
async fn trade_and_give(place: &Place) -> Result<MessageId, StoreError> {
    let store = SqliteStore::open(place.path("profiles.db"), SqliteOptions::default())?;
    let [a, b, c] =
        ["a", "b", "c"].map(|name| ProfileKey::new("PlayerData", "global", name).unwrap());
    let id = MessageId::new(Env::system().unix_ms(), "gift-1").unwrap();
    let payload = b"{}".to_vec().into();
    let message = NewMessage { id: id.clone(), payload };
    let mut changes = vec![Change::AppendMessage { key: c, message, cap: 10 }];
    for key in [a, b] {
        let state = store.read_one(&key, Returning::ALL).await?.1;
        changes.push(Change::Write {
            key,
            epoch: state.epoch,
            version: state.version,
            value: state.value.map_or(NewValue::Tombstone, NewValue::Bytes),
            user_ids: vec![],
            cause: Cause::Transaction,
            author: "test".into(),
            keep_previous: true,
            seal: false,
            imported: None,
        });
    }
    let incarnation = store.identity().await?.incarnation;
    let commit = CommitId(Env::system().uuid());
    let returning = Returning::HEAD;
    store
        .commit_one(Commit {
            id: commit,
            incarnation,
            from: None,
            changes,
            returning,
            fingerprint: None,
        })
        .await?;
    Ok(id)
}

#[test]
fn a_rollback_lists_what_it_does_not_undo_before_and_after() {
    let place = with_versions();
    fs::write(place.path("b.jsonl"), line("b", 1, &profile(1))).unwrap();
    place.ok(&["import", "b.jsonl"]);
    let id = trade_and_give(&place).unwrap();
    let asked = place.run(&["rollback", "PlayerData/a", "3"]);
    let preview = place.ok(&["rollback", "PlayerData/a", "3", "--dry-run"]);
    assert!(preview.starts_with("PlayerData/a would go back from version 4 ("), "{preview}");
    let answered = place.ok(&["rollback", "PlayerData/a", "3", "--yes"]);
    for text in [&asked.stderr, &preview, &answered] {
        for part in [
            "does not undo",
            "version 4, ",
            &format!("sent the message {id} to PlayerData/c\n"),
            "traded with PlayerData/b in the transaction ",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let done = place.json(&["rollback", "PlayerData/b", "1", "--yes", "--json"]);
    let commits = &done["not_undone"]["commits"];
    assert_eq!(commits[0]["version"], 2);
    assert_eq!(commits[0]["trade"]["with"][0]["key"], "a");
    assert_eq!(commits[0]["sent"][0]["id"], id.to_string());
    assert!(
        !place.ok(&["rollback", "PlayerData/a", "5", "--yes"]).contains("undo"),
        "nothing since"
    );
}

/// A player's name is pasted into a shell with the command that is printed.
#[test]
fn a_command_that_is_printed_is_safe_to_type_whatever_the_key_is() {
    let place = Place::new();
    let name = "$(touch pwn) it's";
    fs::write(place.path("in.jsonl"), line(name, 1, &profile(1))).unwrap();
    place.ok(&["import", "in.jsonl"]);
    let key = format!("PlayerData/{name}");
    place.ok(&["edit", &key, "--set", "/coins=2"]);
    let preview = place.ok(&["rollback", &key, "1", "--dry-run"]);
    let (_, command) = preview.lines().next().unwrap().split_once("see: profilestore ").unwrap();
    assert_eq!(command, r"diff 'PlayerData/$(touch pwn) it'\''s' 1");
}
