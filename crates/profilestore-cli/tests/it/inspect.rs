use crate::{Place, lines};

#[test]
fn list_shows_what_there_is() {
    let place = Place::with_records();
    let text = place.ok(&["list"]);
    assert_eq!(text.lines().count(), 210);
    let head = text.lines().next().unwrap();
    assert!(head.starts_with("KEY ") && head.ends_with("SESSION"), "{head}");
    assert_eq!(
        text.lines().nth(1).unwrap().split_whitespace().next(),
        Some("LegacyData/Season1/Player_1")
    );

    let rows = |args: &[&str]| lines(&place.ok(&[&["list", "--json"], args].concat()));
    assert_eq!(rows(&[]).len(), 209);
    assert_eq!(rows(&["--held"]).len(), 50);
    assert_eq!(rows(&["--limit", "3"]).len(), 3);
    assert_eq!(rows(&["--store-name", "LegacyData", "--prefix", "Player_3"]).len(), 11);
    let of_user = rows(&["--user", "7"]);
    assert!(
        of_user.iter().any(|row| row["store"] == "PlayerData" && row["key"] == "7"),
        "{of_user:?}"
    );
    let row = &rows(&["--store-name", "PlayerData", "--prefix", "8003"])[0];
    assert_eq!(
        (&row["version"], &row["cause"], &row["updated_ms"]),
        (&1.into(), &"import".into(), &1_790_004_505_139_u64.into())
    );
}

#[test]
fn get_shows_a_profile() {
    let place = Place::with_records();
    let text = place.ok(&["get", "LegacyData/Season1/Player_34"]);
    assert!(
        text.contains("version   64 (current)  000001A0C49591A5.0000000151.000001A0C4506C3B.01"),
        "{text}"
    );
    assert!(
        text.contains(
            "session   held by D8205237-4941-4231-A3D6-2BF921EB11C1 since 2026-09-21T14:57:21."
        ),
        "{text}"
    );
    assert!(text.contains("\n{\n  \"Data\": {\n"), "{text}");

    let found = place.json(&["get", "LegacyData/Player_34", "--scope", "Season1", "--json"]);
    assert_eq!(
        (&found["document"]["Data"]["Cash"], &found["content"]),
        (&340.into(), &"profile".into())
    );
    assert_eq!(found["session"]["server_state"], "unknown");
    let by_number =
        place.json(&["get", "LegacyData/Season1/Player_34", "--json", "--version", "12"]);
    assert_eq!(
        (&by_number["current"], &by_number["version"]["version"]),
        (&false.into(), &12.into())
    );
    let label = by_number["version"]["label"].as_str().unwrap();
    assert!(label.ends_with(".000001A0C4506C3B.01"), "{label}");
    assert_eq!(
        place.json(&["get", "LegacyData/Season1/Player_34", "--json", "--version", label]),
        by_number
    );

    assert!(
        place.ok(&["get", "PlayerData/8003"]).contains("content   no profile; kept as it came")
    );
    let waiting = place.ok(&["get", "LegacyData/Season1/Player_900"]);
    assert!(
        waiting.contains("nothing but messages")
            && waiting.contains("messages  2 waiting, 0 locked"),
        "{waiting}"
    );

    for (args, said) in [
        (
            &["get", "PlayerData/nobody"][..],
            "error: there is no such profile: key=`PlayerData/nobody`\n",
        ),
        (
            &["get", "PlayerData/7", "--version", "99"],
            "error: there is no such version, see history: key=`PlayerData/7` version=`99`\n",
        ),
        (
            &["history", "PlayerData/nobody"],
            "error: there is no such profile: key=`PlayerData/nobody`\n",
        ),
    ] {
        let ran = place.run(args);
        assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (4, "", said));
    }
}

#[test]
fn history_lists_versions_newest_first() {
    let place = Place::with_records();
    let text = place.ok(&["history", "LegacyData/Season1/Player_34"]);
    assert_eq!(text.lines().count(), 65);
    assert!(text.lines().nth(1).unwrap().starts_with("64 ") && text.ends_with(".01\n"), "{text}");
    let rows =
        lines(&place.ok(&["history", "LegacyData/Season1/Player_34", "--limit", "2", "--json"]));
    assert_eq!(
        rows.iter().map(|row| row["version"].as_u64().unwrap()).collect::<Vec<_>>(),
        [64, 63]
    );
    assert_eq!(rows[0]["load_count"], 1);
}

#[test]
fn sessions_shows_who_holds_what() {
    let place = Place::with_records();
    let text = place.ok(&["sessions"]);
    assert_eq!(text.lines().count(), 51);
    let rows = lines(&place.ok(&["sessions", "--json"]));
    assert_eq!(rows.len(), 50);
    assert_eq!(rows.iter().filter(|row| !row["request"].is_null()).count(), 5);
    assert!(
        rows.iter().all(|row| row["server_state"] == "unknown" && row["last_seen_ms"].is_u64())
    );
    assert_eq!(lines(&place.ok(&["sessions", "--json", "--scope", "Season1"])).len(), 10);
    assert_eq!(place.ok(&["sessions", "--store-name", "Nothing"]), "no profile is held\n");
}

#[test]
fn a_listing_can_be_counted_gone_on_with_and_begun_with_the_newest() {
    let place = Place::with_records();
    let all = lines(&place.ok(&["list", "--json"]));
    let counted = place.ok(&["list", "--count"]);
    assert_eq!(counted, format!("{} profiles\n", all.len()));
    assert_eq!(place.json(&["list", "--count", "--held", "--json"])["count"], 50);
    let name = place.ok(&["list", "--limit", "10"]);
    let last = name.lines().last().unwrap().split_whitespace().next().unwrap().to_owned();
    assert_eq!(lines(&place.ok(&["list", "--json", "--after", &last])), all[10..]);
    let newest = lines(&place.ok(&["list", "--newest", "--limit", "5", "--json"]));
    let mut times: Vec<_> = all.iter().map(|row| row["updated_ms"].as_i64()).collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    let found: Vec<_> = newest.iter().map(|row| row["updated_ms"].as_i64()).collect();
    assert_eq!(found, times[..5]);
    assert_eq!(place.run(&["list", "--newest", "--after", &last]).code, 2);
}

#[test]
fn status_says_what_is_wrong_and_what_to_type() {
    let place = Place::with_records();
    let ran = place.run(&["status"]);
    assert_eq!((ran.code, &*ran.stderr), (1, ""), "{ran:?}");
    for part in [
        "held         50 profiles\n",
        "last backup  none booked\n",
        "profilestore backup --to ./backups ",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
    assert!(ran.stdout.lines().all(|line| line.chars().count() <= 120), "{ran:?}");
    place.ok(&["backup", "copy.db", "--author", "ann"]);
    let found = place.json(&["status", "--json"]);
    assert_eq!((&found["held_by_unknown"], &found["wrong"]), (&50.into(), &serde_json::json!([])));
    assert!(found["last_backup_ms"].is_i64() && found["file_bytes"].as_u64() > Some(100_000));
    let booked = lines(&place.ok(&["audit", "--action", "backup", "--json"]));
    assert_eq!((booked.len(), &booked[0]["author"]), (1, &"ann".into()));
    assert!(place.ok(&["status"]).contains("result       all is well"));
}
