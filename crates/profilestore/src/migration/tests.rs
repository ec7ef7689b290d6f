use serde_json::json;

use super::*;

fn add(number: i64) -> impl StepFn {
    move |data: &mut Value| {
        data.as_array_mut().ok_or("no list")?.push(json!(number));
        Ok(())
    }
}

fn tags(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

const SEED: u128 = 0xf9b6_57f9_ef5a_3ef5_dd76_1891_ff16_2f29;

fn key() -> ProfileKey {
    ProfileKey::new("PlayerData", "global", "p").unwrap()
}

fn from_3() -> Migrations {
    Migrations::starting_at(3).step(3, add(3)).step(4, add(4)).readable_step(5, add(5))
}

#[test]
fn exactly_the_missing_steps_run_in_order() {
    let run = |found: Value| from_3().migrate(&key(), "[]", &tags(found)).unwrap();
    assert_eq!(run(json!({ "DataVersion": 2 })), Some(json!([3, 4, 5])));
    assert_eq!(run(json!({ "DataVersion": 4.0 })), Some(json!([5])));
    assert_eq!(run(json!({ "DataVersion": 5, "DataVersionReadableFrom": 4 })), None);
    assert_eq!(
        run(json!({ "DataVersion": 9, "DataVersionReadableFrom": 5 })),
        None,
        "newer, and readable"
    );
    assert_eq!(run(json!({ "DataVersion": u64::MAX, "DataVersionReadableFrom": 5 })), None);
}

#[test]
fn what_cannot_be_opened_says_why() {
    let kind = |migrations: &Migrations, found: Value| {
        migrations.migrate(&key(), "[]", &tags(found)).unwrap_err().kind()
    };
    assert_eq!(
        kind(&from_3(), json!({ "DataVersion": 6, "DataVersionReadableFrom": 6 })),
        ErrorKind::NewerData
    );
    assert_eq!(
        kind(&Migrations::new(), json!({ "DataVersionReadableFrom": 1 })),
        ErrorKind::NewerData
    );
    assert_eq!(
        kind(&from_3(), json!({ "DataVersion": 6 })),
        ErrorKind::NewerData,
        "nobody says that it is readable"
    );
    assert_eq!(kind(&from_3(), json!({ "DataVersion": 1 })), ErrorKind::Undecodable, "too old");
    assert_eq!(kind(&from_3(), json!({ "DataVersion": "two" })), ErrorKind::Undecodable);
    let failing = Migrations::new().step(1, |_: &mut Value| Err("no".into()));
    assert!(
        failing
            .migrate(&key(), "{}", &Map::new())
            .unwrap_err()
            .to_string()
            .contains("no: step=`1`")
    );
    let panicking = Migrations::new().step(1, |_: &mut Value| panic!("on purpose"));
    assert_eq!(
        panicking.migrate(&key(), "{}", &Map::new()).unwrap_err().kind(),
        ErrorKind::Undecodable
    );
}

#[test]
fn the_marks_say_what_older_servers_may_do() {
    let mut found = tags(json!({ "Mine": 1 }));
    from_3().stamp(&mut found);
    assert_eq!(
        Value::from(found.clone()),
        json!({ "Mine": 1, "DataVersion": 5, "DataVersionReadableFrom": 4 })
    );
    Migrations::new().stamp(&mut found);
    assert_eq!(Value::from(found), json!({ "Mine": 1 }));
    let mut dropped = tags(json!({}));
    Migrations::starting_at(5).readable_step(5, add(5)).stamp(&mut dropped);
    assert_eq!(dropped["DataVersionReadableFrom"], 4, "who knows what the steps before were");
    let mut own = tags(json!({ "DataVersion": 2 }));
    Migrations::new().stamp(&mut own);
    assert_eq!(Value::from(own), json!({ "DataVersion": 2 }), "a game's own tag");
}

#[test]
fn numbers_with_gaps_are_refused() {
    assert_eq!((from_3().problem(), Migrations::new().problem()), (None, None));
    let says = |migrations: Migrations, words: &str| {
        let problem = migrations.problem().unwrap();
        assert!(problem.contains(words), "{problem}");
    };
    says(Migrations::new().step(0, add(0)), "numbered from 1");
    says(Migrations::starting_at(0).step(0, add(0)), "numbered from 1");
    says(Migrations::new().step(1, add(1)).step(3, add(3)), "step=`3` expected=`2`");
    says(Migrations::starting_at(3).step(2, add(2)), "step=`2` expected=`3`");
    says(Migrations::starting_at(3), "there is no step");
}

#[test]
fn a_first_step_that_leaves_every_old_player_outside_is_refused() {
    let problem = Migrations::new().step(2, add(2)).problem().unwrap();
    for words in ["the first step of the migrations is `2`", "version 0", "starting_at(2)"] {
        assert!(problem.contains(words), "{problem}");
    }
}

/// Stored data depends on it.
#[test]
fn a_seed_follows_from_name_and_step_alone_and_stays_what_it_is() {
    let seed = |key: &ProfileKey, step| StepContext { key, step }.seed();
    assert_eq!(seed(&key(), 1), SEED);
    assert_ne!(seed(&key(), 2), SEED);
    let elsewhere = ProfileKey::new("PlayerDat", "aglobal", "p").unwrap();
    assert_ne!(seed(&elsewhere, 1), SEED);
}
