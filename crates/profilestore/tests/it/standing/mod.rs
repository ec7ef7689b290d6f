//! Edits that stand: every profile that begins later gets them once, whichever server creates it
//! and whatever that server knew, and none is kept from beginning.

mod gone;

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use profilestore::{
    Attribution, Edit, Error, ErrorKind, GameServer, MessageId, ProfileKey, StartOptions,
    audit::{AuditEntry, AuditOutcome, AuditQuery, audit_entries},
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt, KeyFilter, KeyQuery, KeyState,
        LeaseState, NewValue, Order, Returning, VersionQuery,
    },
    key::RESERVED_STORE,
    operator::{BulkEdit, BulkReport, EditScope, Expected, MAX_STANDING_EDITS, standing_edits},
    record::{Foreign, Stored},
};
use serde_json::{Map, Value, json, value::to_raw_value};

use crate::world::{Fault, Player, World, coins, earn, open, players, settle};

fn key(name: &str) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", name).unwrap()
}

fn more_coins(by: i64) -> Edit {
    Edit::new().increase("/coins", by.into()).unwrap()
}

fn standing(world: &World, edit: Edit) -> BulkEdit {
    BulkEdit::new(world.env.uuid(), EditScope::all("PlayerData"), edit).new_too()
}

async fn run(server: &GameServer, bulk: &BulkEdit) -> Result<BulkReport, Error> {
    let by = Attribution::new("ann").because("a birthday");
    server.operator(by).edit_all(bulk, |_| {}).await
}

async fn undo(world: &World, server: &GameServer, of: &BulkEdit) -> BulkReport {
    let undo = BulkEdit::undo(world.env.uuid(), of.operation());
    server.operator(Attribution::new("bob")).edit_all(&undo, |_| {}).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_an_operator_makes_begins_with_the_edits_that_stand() {
    let world = World::new();
    let desk = world.server("desk").await;
    let operator = desk.operator(Attribution::new("ann"));
    let make = async |name: &str, text: &str| {
        let data = serde_json::value::RawValue::from_string(text.to_owned()).unwrap();
        operator.put(&key(name), Expected::Absent, &data).await.unwrap()
    };
    // Before there is such an edit, and the list is known from then on.
    make("early", r#"{"coins":1}"#).await;
    let bulk =
        BulkEdit::new(world.env.uuid(), EditScope::all("PlayerData"), more_coins(5)).new_too();
    let other = world.server("other").await;
    run(&other, &bulk).await.unwrap();
    let made = make("new", r#"{"coins":9223372036854775000}"#).await;
    assert_eq!(made.version, 1);
    assert_eq!(coins(&desk, "new").await, 9_223_372_036_854_775_005);
    let entries = log(&world, "new").await;
    let outcomes: Vec<_> = entries.iter().map(|entry| (&*entry.action, &entry.outcome)).collect();
    assert!(outcomes.contains(&("edit", &AuditOutcome::Done)), "{outcomes:?}");
    assert!(outcomes.contains(&("put", &AuditOutcome::Done)), "{outcomes:?}");
    // One that is there is written as it was sent.
    let data = serde_json::value::RawValue::from_string(r#"{"coins":2}"#.to_owned()).unwrap();
    operator.put(&key("new"), made.now, &data).await.unwrap();
    assert_eq!(coins(&desk, "new").await, 2);
}

/// What the log says about a profile, newest operation first.
async fn log(world: &World, name: &str) -> Vec<AuditEntry> {
    let query = AuditQuery { key: Some(key(name)), ..Default::default() };
    audit_entries(&world.store, &query).await.unwrap().entries
}

/// Writes a value under any key, as another version of the library might have.
async fn put(world: &World, key: ProfileKey, value: Value) {
    let (_, state) = world.store.read_one(&key, Returning::HEAD).await.unwrap();
    let value = Stored::Foreign(Foreign {
        user_ids: vec![],
        metadata: Map::new(),
        value: to_raw_value(&value).unwrap(),
    });
    let value = NewValue::Bytes(value.encode().unwrap());
    commit(world, vec![write(&state, value, "a newer version")]).await;
}

fn write(state: &KeyState, value: NewValue, author: &str) -> Change {
    Change::Write {
        key: state.key.clone(),
        epoch: state.epoch,
        version: state.version,
        value,
        user_ids: vec![],
        cause: Cause::Set,
        author: author.into(),
        keep_previous: false,
        seal: false,
        imported: None,
    }
}

async fn commit(world: &World, changes: Vec<Change>) {
    let incarnation = world.store.identity().await.unwrap().incarnation;
    let commit = Commit {
        id: CommitId(world.env.uuid()),
        incarnation,
        from: None,
        changes,
        returning: Returning::HEAD,
        fingerprint: None,
    };
    world.store.commit_one(commit).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_begins_later_is_edited_before_the_program_sees_it() {
    let world = World::new();
    let (game, operator) = (world.server("game").await, world.server("operator").await);
    let old = open(&game, "old").await;
    let edit = standing(&world, more_coins(1000));
    assert_eq!(run(&operator, &edit).await.unwrap().done, 1);
    assert_eq!(old.data().coins, 1000);
    let new = open(&game, "new").await;
    assert_eq!(new.data().coins, 1000, "at once, not with a message");
    let (_, state) = world.store.read_one(&key("new"), Returning::ALL).await.unwrap();
    let head = state.head.unwrap();
    assert_eq!((head.number, head.cause, state.inbox.unwrap().len()), (1, Cause::Start, 0));
    let booked = log(&world, "new").await;
    assert_eq!(
        (booked.len(), booked[0].operation, &booked[0].outcome),
        (1, edit.operation(), &AuditOutcome::Done)
    );
    assert_eq!(
        (&booked[0].details["new"], &booked[0].details["version"]),
        (&json!(true), &json!(1))
    );
    earn(&new, 1);
    new.end_session().await.unwrap();
    assert_eq!(open(&operator, "new").await.data().coins, 1001, "once");
    let listed = standing_edits(&world.store, None).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].operation, listed[0].by.author.as_str()), (edit.operation(), "ann"));
    assert_eq!(standing_edits(&world.store, Some("PlayerData")).await.unwrap(), listed);
    assert_eq!(standing_edits(&world.store, Some("Other")).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_list_is_out_of_date_finds_out_when_it_creates_a_profile_and_pays_nothing_otherwise()
 {
    let world = World::new();
    let way = world.another_way();
    let (game, operator) =
        (world.server_on("game", way.clone()).await, world.server("operator").await);
    let count = || (way.plan().reads(), way.plan().commits());
    let cost = async |name: &str| {
        let (reads, commits) = count();
        let profile = open(&game, name).await;
        let after = count();
        profile.end_session().await.unwrap();
        settle().await;
        ((after.0 - reads, after.1 - commits), profile.data().coins)
    };
    assert_eq!(cost("first").await, ((2, 1), 0), "the list is read once");
    assert_eq!(cost("second").await, ((1, 1), 0));
    let edit = standing(&world, more_coins(1000));
    run(&operator, &edit).await.unwrap();
    assert_eq!(cost("first").await, ((1, 1), 1000), "a profile that exists is not concerned");
    assert_eq!(
        cost("third").await,
        ((4, 2), 1000),
        "one commit is refused; then profile, list and log are read"
    );
    assert_eq!(cost("fourth").await, ((2, 1), 1000));
    undo(&world, &operator, &edit).await;
    assert_eq!(cost("fifth").await.1, 0);
}

#[tokio::test(start_paused = true)]
async fn at_every_moment_of_the_registration_a_profile_begins_with_the_edit_once() {
    let mut how = BTreeSet::new();
    for moment in 0..40 {
        let world = World::new();
        let (game_way, operator_way) = (world.another_way(), world.another_way());
        let game = world.server_on("game", game_way.clone()).await;
        let operator = world.server_on("operator", operator_way.clone()).await;
        // Half of the time the game knows the list already.
        if moment % 2 == 0 {
            open(&game, "warm").await;
        }
        game_way.plan().delay_reads(4);
        operator_way.plan().delay_reads(10);
        let edit = standing(&world, more_coins(1000));
        let starting = async {
            tokio::time::sleep(Duration::from_millis(moment)).await;
            let profile = open(&game, "new").await;
            earn(&profile, 1);
            if moment % 3 == 0 {
                profile.end_session().await.unwrap();
            }
            profile
        };
        let (report, profile) = tokio::join!(run(&operator, &edit), starting);
        let report = report.unwrap();
        assert!(report.refused.is_empty() && report.waiting.is_empty(), "{moment}: {report:?}");
        settle().await;
        if profile.is_active() {
            assert_eq!(profile.data().coins, 1001, "{moment}");
            profile.save().await.unwrap();
        }
        assert_eq!(coins(&operator, "new").await, 1001, "{moment}");
        let booked = log(&world, "new").await;
        assert_eq!((booked.len(), &booked[0].outcome), (1, &AuditOutcome::Done), "{moment}");
        how.insert(booked[0].details.contains_key("new"));
        undo(&world, &operator, &edit).await;
        assert_eq!(coins(&operator, "new").await, 1, "{moment}");
    }
    assert_eq!(how.len(), 2, "some began before it, others after it");
}

#[tokio::test(start_paused = true)]
async fn two_servers_that_create_profiles_while_edits_come_and_go_never_leave_one_out_or_edit_it_twice()
 {
    let world = World::new();
    let (a, b, operator) =
        (world.server("a").await, world.server("b").await, world.server("operator").await);
    let over = AtomicBool::new(false);
    let create = async |server: &GameServer, side: &str| {
        let mut created = 0;
        while !over.load(Ordering::SeqCst) {
            let profile = open(server, &format!("{side}{created}")).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
            profile.end_session().await.unwrap();
            created += 1;
        }
        created
    };
    let edits = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let ended = standing(&world, more_coins(1000));
        run(&operator, &ended).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        run(&operator, &standing(&world, more_coins(7))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        undo(&world, &operator, &ended).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        over.store(true, Ordering::SeqCst);
    };
    let (by_a, by_b, ()) = tokio::join!(create(&a, "a"), create(&b, "b"), edits);
    assert!(by_a > 20 && by_b > 20, "{by_a} {by_b}");
    for (side, created) in [("a", by_a), ("b", by_b)] {
        for n in 0..created {
            assert_eq!(coins(&operator, &format!("{side}{n}")).await, 7, "{side}{n}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_booked_as_refused_and_the_profile_begins_without_it() {
    let world = World::new();
    let (game, operator) = (world.server("game").await, world.server("operator").await);
    let edits = [
        more_coins(1).test("/coins", json!(5)).unwrap().then(more_coins(1)),
        Edit::new().set("/coins", json!("many")).unwrap(),
        Edit::new().set("/unknown", json!(1)).unwrap(),
        Edit::new().set("/items", json!(["x".repeat(60_000)])).unwrap(),
        more_coins(1000),
    ];
    for edit in edits {
        run(&operator, &standing(&world, edit)).await.unwrap();
        // The log orders operations by the millisecond.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let new = open(&game, "new").await;
    assert_eq!((new.data().coins, new.data().items.len()), (1000, 1));
    let outcomes: Vec<bool> = log(&world, "new")
        .await
        .iter()
        .map(|entry| matches!(entry.outcome, AuditOutcome::Refused { .. }))
        .collect();
    assert_eq!(outcomes, [false, false, true, true, true], "newest first");
    new.end_session().await.unwrap();
    assert_eq!(open(&operator, "new").await.data().coins, 1000);
}

#[tokio::test(start_paused = true)]
async fn undoing_ends_it_first_and_undoes_it_in_profiles_that_began_with_it() {
    let world = World::new();
    let (game, operator) = (world.server("game").await, world.server("operator").await);
    open(&game, "old").await.end_session().await.unwrap();
    let edit = standing(&world, more_coins(1000));
    run(&operator, &edit).await.unwrap();
    let (held, left) = (open(&game, "held").await, open(&game, "left").await);
    left.end_session().await.unwrap();
    earn(&held, 5);
    let report = undo(&world, &operator, &edit).await;
    assert_eq!((report.done, report.skipped, report.refused.len()), (3, 0, 0), "{report:?}");
    assert_eq!(held.data().coins, 5);
    assert_eq!((coins(&operator, "old").await, coins(&operator, "left").await), (0, 0));
    assert_eq!(open(&game, "later").await.data().coins, 0);
    assert_eq!(standing_edits(&world.store, None).await.unwrap(), []);
    let everything = audit_entries(&world.store, &AuditQuery::default()).await.unwrap().entries;
    let count = |action: &str| everything.iter().filter(|entry| entry.action == action).count();
    assert_eq!((count("stand"), count("end standing")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_is_undone_before_its_edit_stands_never_stands() {
    let world = World::new();
    let way = world.another_way();
    let (first, second) =
        (world.server_on("first", way.clone()).await, world.server("second").await);
    let edit = standing(&world, more_coins(1000));
    // Only the operation's own entry gets through.
    way.plan().fail(Fault::RequestLost, u64::MAX);
    way.plan().spare(1);
    assert_eq!(run(&first, &edit).await.unwrap_err().kind(), ErrorKind::Unknown);
    undo(&world, &second, &edit).await;
    let resumed = BulkEdit::resume(&world.store, edit.operation()).await.unwrap();
    let error = run(&second, &resumed).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Invalid && error.to_string().contains("was undone"),
        "{error}"
    );
    assert_eq!(open(&second, "new").await.data().coins, 0);
}

#[tokio::test(start_paused = true)]
async fn unknown_outcomes_of_registration_and_creation_leave_one_effect() {
    for fault in [Fault::Refused, Fault::AnswerLost, Fault::RequestLost] {
        for spared in 0..5 {
            let world = World::new();
            let (game_way, way) = (world.another_way(), world.another_way());
            let game = world.server_on("game", game_way.clone()).await;
            let first = world.server_on("first", way.clone()).await;
            open(&game, "old").await.end_session().await.unwrap();
            let edit = standing(&world, more_coins(1000));
            way.plan().spare(spared);
            way.plan().fail(fault, u64::MAX);
            let broken = run(&first, &edit).await;
            first.crash();
            way.plan().heal();
            let second = world.server("second").await;
            match BulkEdit::resume(&world.store, edit.operation()).await {
                Ok(resumed) => drop(run(&second, &resumed).await.unwrap()),
                // It had not begun, or was complete.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    drop(run(&second, &edit).await.unwrap())
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "{broken:?}"),
            }
            assert_eq!(
                standing_edits(&world.store, None).await.unwrap().len(),
                1,
                "{fault:?} {spared}"
            );
            game_way.plan().spare(0);
            game_way.plan().fail(fault, 1 + spared.min(2));
            // A store that is unavailable does not even count calls: it has to come back by itself.
            let healed = async {
                tokio::time::sleep(Duration::from_secs(10)).await;
                game_way.plan().heal();
            };
            let (new, ()) = tokio::join!(open(&game, "new"), healed);
            assert_eq!(new.data().coins, 1000, "{fault:?} {spared}");
            settle().await;
            assert_eq!(
                (coins(&second, "old").await, coins(&second, "new").await),
                (1000, 1000),
                "{fault:?} {spared}"
            );
            assert_eq!(log(&world, "new").await.len(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn removed_overwritten_and_messaged_profiles_begin_with_it_too() {
    let world = World::new();
    let (game, operator) = (world.server("game").await, world.server("operator").await);
    open(&game, "removed").await.end_session().await.unwrap();
    put(&world, key("foreign"), json!([1, 2])).await;
    let id = MessageId::new(world.env.unix_ms(), "gift").unwrap();
    players(&game).send_message_as("messaged", &id, &json!("hello")).await.unwrap();
    let edit = standing(&world, more_coins(1000));
    let report = run(&operator, &edit).await.unwrap();
    assert_eq!((report.done, report.skipped, report.refused.len()), (1, 1, 1), "{report:?}");
    for _ in 0..2 {
        assert!(players(&game).remove("removed").await.unwrap());
        let again = open(&game, "removed").await;
        assert_eq!(again.data().coins, 1000, "it is a new one");
        again.end_session().await.unwrap();
    }
    let overwriting = StartOptions::default().overwrite();
    let overwritten = players(&game).start_session_with("foreign", overwriting).await.unwrap();
    let messaged = open(&game, "messaged").await;
    assert_eq!((overwritten.data().coins, messaged.data().coins), (1000, 1000));
    let (_, state) = world.store.read_one(&key("messaged"), Returning::ALL).await.unwrap();
    assert_eq!(state.inbox.unwrap().len(), 1, "its message still waits");
    // Again, now that all of them are there.
    let report = undo(&world, &operator, &edit).await;
    assert_eq!((report.done, report.refused.len()), (3, 0), "{report:?}");
    assert_eq!(
        (overwritten.data().coins, messaged.data().coins, coins(&operator, "removed").await),
        (0, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_standing_edit_keeps_to_its_scope_and_prefix_and_leaves_mock_stores_alone() {
    let world = World::new();
    let game = world.server("game").await;
    let profiles = EditScope {
        scope: Some("season-2".into()),
        prefix: Some("user-".into()),
        ..EditScope::all("PlayerData")
    };
    let edit = BulkEdit::new(world.env.uuid(), profiles, more_coins(1000)).new_too();
    run(&game, &edit).await.unwrap();
    let season = game
        .store_builder("PlayerData")
        .scope("season-2")
        .template(Player::default())
        .build()
        .unwrap();
    let other =
        game.store_builder("Other").scope("season-2").template(Player::default()).build().unwrap();
    assert_eq!(season.start_session("user-1").await.unwrap().data().coins, 1000);
    assert_eq!(season.start_session("guest-1").await.unwrap().data().coins, 0);
    assert_eq!(other.start_session("user-1").await.unwrap().data().coins, 0);
    assert_eq!(open(&game, "user-1").await.data().coins, 0);
    assert_eq!(season.mock().start_session("user-2").await.unwrap().data().coins, 0);
    assert_eq!(season.start_session("user-2").await.unwrap().data().coins, 1000);
}

#[tokio::test(start_paused = true)]
async fn a_store_has_room_for_so_many_and_one_too_many_edits_nothing() {
    let world = World::new();
    let game = world.server("game").await;
    open(&game, "old").await.end_session().await.unwrap();
    let mut last = None;
    for _ in 0..MAX_STANDING_EDITS {
        let edit = standing(&world, more_coins(1));
        run(&game, &edit).await.unwrap();
        last = Some(edit);
    }
    let all = i64::try_from(MAX_STANDING_EDITS).unwrap();
    assert_eq!(open(&game, "new").await.data().coins, all);
    let one_too_many = standing(&world, more_coins(1));
    assert_eq!(run(&game, &one_too_many).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(coins(&game, "old").await, all);
    undo(&world, &game, &last.unwrap()).await;
    let resumed = BulkEdit::resume(&world.store, one_too_many.operation()).await.unwrap();
    run(&game, &resumed).await.unwrap();
    assert_eq!(open(&game, "later").await.data().coins, all, "once there is room");
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_version_left_standing_locks_nobody_out() {
    let world = World::new();
    let (first, operator) = (world.server("first").await, world.server("operator").await);
    run(&operator, &standing(&world, more_coins(7))).await.unwrap();
    let registry = ProfileKey::new(RESERVED_STORE, "standing", "PlayerData").unwrap();
    let known =
        serde_json::to_value(&standing_edits(&world.store, None).await.unwrap()[0]).unwrap();
    let mut newer = known.clone();
    tokio::time::sleep(Duration::from_millis(1)).await;
    newer["operation"] = json!(world.env.uuid());
    newer["edit"] = json!({"v": 2, "ops": [{"op": "shuffle", "path": "/items"}]});
    put(&world, registry.clone(), json!({"v": 1, "edits": [newer, known]})).await;
    assert_eq!(open(&first, "new").await.data().coins, 7, "the one that is known");
    let refused = log(&world, "new").await;
    assert!(
        matches!(&refused[0].outcome, AuditOutcome::Refused { why } if why.contains("older version")),
        "{refused:?}"
    );
    assert_eq!(refused.len(), 2);

    put(&world, registry, json!({"v": 2, "lists": {}})).await;
    let second = world.server("second").await;
    let told = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
    let hears = told.clone();
    let _connection = second.on_error(move |error, _| hears.lock().push(error.to_owned()));
    assert_eq!(open(&second, "newest").await.data().coins, 0);
    settle().await;
    assert!(told.lock().iter().any(|error| error.contains("standing edits")), "{:?}", told.lock());
}
