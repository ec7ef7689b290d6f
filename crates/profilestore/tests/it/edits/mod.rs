//! Operators' edits: whatever server holds the profile, and whatever dies on the way, an edit's
//! effect is there once if it was confirmed, and at most once otherwise. The session goes on.

mod meetings;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use profilestore::{
    Attribution, Edit, Error, ErrorKind, GameServer, MessageId, Profile, ProfileKey, SessionEnd,
    StartOptions,
    audit::{AuditEntry, AuditOutcome, AuditQuery, audit_entries},
    data_store::{Cause, DataStore, DataStoreExt, Returning, VersionInfo, VersionQuery},
};
use serde_json::json;

use crate::world::{Fault, Player, World, coins, earn, open, players, settle};

fn key() -> ProfileKey {
    ProfileKey::new("PlayerData", "global", "p").unwrap()
}

fn ann() -> Attribution {
    Attribution::new("ann").because("lost in a crash")
}

fn more_coins(by: i64) -> Edit {
    Edit::new().increase("/coins", by.into()).unwrap()
}

async fn edit(server: &GameServer, edit: &Edit) -> Result<AuditEntry, Error> {
    server.operator(ann()).edit(&key(), edit).await
}

/// A profile with five coins that nobody holds.
async fn saved(world: &World) {
    let a = world.server("first").await;
    let profile = open(&a, "p").await;
    earn(&profile, 5);
    profile.end_session().await.unwrap();
    assert!(a.shutdown().await.is_complete());
}

async fn versions(world: &World) -> Vec<VersionInfo> {
    let query = VersionQuery {
        key: key(),
        order: profilestore::data_store::Order::Ascending,
        from_ms: None,
        to_ms: None,
        after: None,
        limit: 100,
    };
    world.store.versions(&query).await.unwrap()
}

async fn log(world: &World) -> Vec<AuditEntry> {
    audit_entries(&world.store, &AuditQuery::default()).await.unwrap().entries
}

/// The ends of a session as they come.
fn ends(profile: &Profile<Player>) -> Arc<Mutex<Vec<SessionEnd>>> {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let seen = ends.clone();
    profile.on_session_end(move |end| seen.lock().push(end));
    ends
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_nobody_holds_is_edited_without_a_session() {
    let world = World::new();
    saved(&world).await;
    let (_, before) = world.store.read_one(&key(), Returning::HEAD).await.unwrap();
    let operator = world.server("operator").await;
    let entry = edit(&operator, &more_coins(7)).await.unwrap();
    assert_eq!(coins(&operator, "p").await, 12);
    let (_, after) = world.store.read_one(&key(), Returning::HEAD).await.unwrap();
    assert_eq!(
        (after.epoch, after.lease, after.version),
        (before.epoch, before.lease, before.version + 1)
    );
    let head = after.head.unwrap();
    assert_eq!((head.cause, head.author.as_str()), (Cause::Edit, "ann"));
    assert_eq!(
        versions(&world).await.iter().filter(|info| info.number == before.version).count(),
        1,
        "what was there stays"
    );
    let booked = log(&world).await;
    assert_eq!((booked.len(), &booked[0].by, &booked[0].outcome), (1, &ann(), &AuditOutcome::Done));
    assert_eq!(booked[0].details["version"], after.version);
    assert_eq!((booked[0].keys.clone(), booked[0].operation), (vec![key()], entry.operation));
    // What undoes it is in the entry.
    let undo: Edit = serde_json::from_value(booked[0].details["undo"].clone()).unwrap();
    edit(&operator, &undo).await.unwrap();
    assert_eq!(coins(&operator, "p").await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_live_profile_is_edited_by_its_holder_and_stays_live() {
    for own in [false, true] {
        let world = World::new();
        let (a, b) = (world.server("a").await, world.server("b").await);
        let profile = open(&a, "p").await;
        let ends = ends(&profile);
        let offered = Arc::new(Mutex::new(0));
        let count = offered.clone();
        profile.message_handler(move |_, _| *count.lock() += 1);
        earn(&profile, 5);
        let entry = edit(if own { &a } else { &b }, &more_coins(7)).await.unwrap();
        assert_eq!(profile.data().coins, 12);
        assert_eq!(coins(&b, "p").await, 12, "it is saved when it is confirmed");
        assert_eq!(
            (entry.details["held_by"].as_str(), *offered.lock(), ends.lock().len()),
            (Some("a"), 0, 0)
        );
        assert!(profile.is_active() && profile.waiting_messages().is_empty());
        let head = versions(&world).await.pop().unwrap();
        assert_eq!((head.cause, head.author.as_str()), (Cause::Edit, "ann"));
        assert_eq!(entry.details["version"], head.number);
        earn(&profile, 1);
        profile.end_session().await.unwrap();
        assert_eq!(coins(&b, "p").await, 13);
        assert_eq!(log(&world).await.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_messenger_an_edit_takes_a_renewal() {
    let world = World::without_messenger();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    let began = tokio::time::Instant::now();
    edit(&b, &more_coins(7)).await.unwrap();
    assert!(began.elapsed() <= Duration::from_millis(5500), "{:?}", began.elapsed());
    assert_eq!(profile.data().coins, 7);
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_does_not_fit_is_refused_with_the_reason_and_changes_nothing() {
    let set = |path: &str, value| Edit::new().set(path, value).unwrap();
    let wrong = [
        (set("/bag/x", json!(1)), "there is nothing at `/bag`", true),
        (set("/coins", json!("many")), "does not fit the program's type", false),
        (
            set("/guild", json!("eagles")),
            "the program's data type does not keep it: path=`/guild`",
            false,
        ),
        (
            set("/items", json!(["x".repeat(60_000)])).then(Edit::from_patch(&doubled()).unwrap()),
            "the data grows to",
            true,
        ),
    ];
    for (edit_, why, offline_too) in wrong {
        let world = World::new();
        saved(&world).await;
        let (a, b) = (world.server("a").await, world.server("b").await);
        if offline_too {
            let error = edit(&b, &edit_).await.unwrap_err();
            assert!(
                error.kind() == ErrorKind::EditRefused && error.to_string().contains(why),
                "{error}"
            );
        }
        let profile = open(&a, "p").await;
        let error = edit(&b, &edit_).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::EditRefused && error.to_string().contains(why),
            "{error}"
        );
        assert!(profile.is_active());
        assert_eq!(profile.data(), Player { coins: 5, items: vec![] });
        assert!(
            log(&world)
                .await
                .iter()
                .all(|entry| matches!(entry.outcome, AuditOutcome::Refused { .. }))
        );
        assert_eq!(coins(&b, "p").await, 5);
        edit(&b, &more_coins(1)).await.unwrap();
        assert_eq!(profile.data().coins, 6, "the next one fits");
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_does_not_make_data_of_a_profile_that_only_some_could_open() {
    let world = World::new();
    saved(&world).await;
    let (a, before) = (world.server("a").await, versions(&world).await);
    for value in [json!(5), json!(null), json!("text"), json!(true)] {
        for edit_it in
            [Edit::new().set("", value.clone()).unwrap(), Edit::new().merge(value.clone())]
        {
            let entry = edit(&a, &edit_it).await;
            let why = entry.unwrap_err().to_string();
            assert!(why.contains("neither object nor list any more"), "{value}: {why}");
        }
    }
    assert_eq!(versions(&world).await, before);
    let whole = Edit::new().set("", json!({ "coins": 7 })).unwrap();
    edit(&a, &whole).await.unwrap();
    assert_eq!(coins(&a, "p").await, 7);
}

fn doubled() -> String {
    let ops: Vec<_> =
        (0..8).map(|n| json!({ "op": "copy", "from": "", "path": format!("/c{n}") })).collect();
    json!(ops).to_string()
}

#[tokio::test(start_paused = true)]
async fn there_is_nothing_to_edit_where_no_profile_is() {
    let world = World::new();
    let a = world.server("a").await;
    assert_eq!(edit(&a, &more_coins(1)).await.unwrap_err().kind(), ErrorKind::NotFound);
    players(&a).send_message("p", &json!({"coins": 5})).await.unwrap();
    assert_eq!(edit(&a, &more_coins(1)).await.unwrap_err().kind(), ErrorKind::NotFound);
    let reserved = ProfileKey::new(profilestore::key::RESERVED_STORE, "audit", "x").unwrap();
    assert_eq!(
        a.operator(ann()).edit(&reserved, &more_coins(1)).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(
        a.operator(ann()).edit(&key(), &Edit::new()).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(
        a.operator(Attribution::new("")).edit(&key(), &more_coins(1)).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_can_forge_the_message_that_carries_an_edit() {
    assert_eq!(MessageId::new(5, "~edit/0197b1c0-0000-7000-8000-000000000000"), None);
    assert!("5:~edit/0197b1c0-0000-7000-8000-000000000000".parse::<MessageId>().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_edit_under_an_unknown_outcome_takes_effect_once() {
    // The faults hit the commits that come next: the operator's, the holder's look, its save.
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        for hits in 1..5 {
            for held in [false, true] {
                let world = World::new();
                saved(&world).await;
                let (a, b) = (world.server("a").await, world.server("b").await);
                let profile = if held { Some(open(&a, "p").await) } else { None };
                world.store.plan().fail(fault, hits);
                let entry = edit(&b, &more_coins(7)).await.unwrap();
                assert_eq!(entry.outcome, AuditOutcome::Done);
                world.store.plan().heal();
                if let Some(profile) = profile {
                    assert_eq!(profile.data().coins, 12, "{fault:?} {hits}");
                    profile.end_session().await.unwrap();
                }
                assert_eq!(coins(&b, "p").await, 12, "{fault:?} {hits} {held}");
                assert_eq!(log(&world).await.len(), 1);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn repeating_an_edit_under_its_identity_does_nothing() {
    for held in [false, true] {
        let world = World::new();
        saved(&world).await;
        let (a, b) = (world.server("a").await, world.server("b").await);
        let profile = if held { Some(open(&a, "p").await) } else { None };
        let operation = world.env.uuid();
        let again = || {
            b.operator(ann()).edit_as(operation, &key(), &more_coins(7), Duration::from_secs(30))
        };
        let (first, second) = tokio::join!(
            again(),
            a.operator(ann()).edit_as(operation, &key(), &more_coins(7), Duration::from_secs(30))
        );
        assert_eq!(first.unwrap().details, second.unwrap().details);
        // Also when the profile is held by then, or no longer.
        let later = if held {
            profile.unwrap().end_session().await.unwrap();
            None
        } else {
            Some(open(&a, "p").await)
        };
        again().await.unwrap();
        settle().await;
        assert_eq!(coins(&b, "p").await, 12);
        assert!(later.is_none_or(|profile| profile.data().coins == 12));
        assert_eq!(log(&world).await.len(), 1);
    }
}
#[tokio::test(start_paused = true)]
async fn a_removal_refuses_the_edits_that_wait() {
    let world = World::new();
    saved(&world).await;
    let (a, b) = (world.server("a").await, world.server("b").await);
    let _profile = open(&a, "p").await;
    a.crash();
    let operation = world.env.uuid();
    let ask =
        || b.operator(ann()).edit_as(operation, &key(), &more_coins(7), Duration::from_secs(2));
    assert_eq!(ask().await.unwrap_err().kind(), ErrorKind::Unknown);
    players(&b).remove("p").await.unwrap();
    let error = ask().await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::EditRefused
            && error.to_string().contains("the profile was removed"),
        "{error}"
    );
    let anew = open(&b, "p").await;
    assert_eq!(anew.data().coins, 0);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_another_writer_wrote_does_not_keep_a_session_from_saving() {
    use profilestore::data_store::{Commit, CommitId};
    let world = World::new();
    saved(&world).await;
    let way = world.another_way();
    let (a, b) = (world.server_on("a", way.clone()).await, world.server("b").await);
    let profile = open(&a, "p").await;
    way.plan().cut_off();
    let operation = world.env.uuid();
    let sent =
        b.operator(ann()).edit_as(operation, &key(), &more_coins(7), Duration::from_secs(1)).await;
    assert_eq!(sent.unwrap_err().kind(), ErrorKind::Unknown);
    let book = log(&world).await.remove(0).key();
    let incarnation = world.store.identity().await.unwrap().incarnation;
    let (_, state) = world.store.read_one(&book, Returning::ALL).await.unwrap();
    let forged = profilestore::data_store::Change::Write {
        key: book,
        epoch: 0,
        version: 1,
        value: profilestore::data_store::NewValue::Bytes(state.value.unwrap()),
        user_ids: vec![],
        cause: Cause::Set,
        author: "mallory".into(),
        keep_previous: false,
        seal: false,
        imported: None,
    };
    let commit = Commit {
        id: CommitId(world.env.uuid()),
        incarnation,
        from: None,
        changes: vec![forged],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    world.store.commit_one(commit).await.unwrap();
    way.plan().heal();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(profile.is_active());
    earn(&profile, 1);
    profile.save().await.unwrap();
    assert_eq!(coins(&b, "p").await, 13);
}

#[tokio::test(start_paused = true)]
async fn edits_and_transactions_of_one_profile_leave_both_effects() {
    for fault in [None, Some(Fault::AnswerLost), Some(Fault::RequestLost)] {
        for hits in 1..4 {
            let world = World::new();
            saved(&world).await;
            let (a, b) = (world.server("a").await, world.server("b").await);
            let (profile, other) = (open(&a, "p").await, open(&a, "other").await);
            if let Some(fault) = fault {
                world.store.plan().fail(fault, hits);
            }
            let (giver, taker) = (profile.clone(), other.clone());
            let trade = a.transaction().with(&profile).with(&other).run(move |tx| {
                tx.edit(&giver, |data| data.coins -= 2)?;
                tx.edit(&taker, |data| data.coins += 2)
            });
            let add = more_coins(7);
            let (edited, traded) = tokio::join!(edit(&b, &add), trade);
            assert_eq!(edited.unwrap().outcome, AuditOutcome::Done);
            traded.unwrap();
            assert_eq!((profile.data().coins, other.data().coins), (10, 2), "{fault:?} {hits}");
            profile.end_session().await.unwrap();
            other.end_session().await.unwrap();
            assert_eq!(
                (coins(&b, "p").await, coins(&b, "other").await),
                (10, 2),
                "{fault:?} {hits}"
            );
            assert_eq!(log(&world).await.len(), 1);
        }
    }
}

/// The removal had looked before the edit came. It was reported as not done, and waited for the
/// profile that came next under that name.
#[tokio::test(start_paused = true)]
async fn an_edit_that_came_during_a_removal_does_not_wait_for_the_next_profile() {
    let world = World::new();
    let (game_way, operator_way) = (world.another_way(), world.another_way());
    let game = world.server_on("game", game_way.clone()).await;
    let operator = world.server_on("operator", operator_way.clone()).await;
    open(&game, "p").await;
    operator_way.plan().delay_reads(20);
    game_way.plan().delay_reads(20);
    let removing = async {
        // The removal looks while the edit is on its way, and commits behind it.
        tokio::time::sleep(Duration::from_millis(10)).await;
        players(&game).remove("p").await.unwrap();
    };
    let (edited, ()) = tokio::join!(edit_for(operator.clone()), removing);
    let error = edited.unwrap_err();
    assert!(
        error.kind() == ErrorKind::EditRefused
            && error.to_string().contains("there is no such profile"),
        "{error}"
    );
    let (_, state) = world.store.read_one(&key(), Returning::INBOX).await.unwrap();
    assert_eq!(state.inbox.unwrap(), []);
    let anew = open(&game, "p").await;
    settle().await;
    assert_eq!(anew.data().coins, 0);
    assert!(matches!(
        log(&world).await[..],
        [AuditEntry { outcome: AuditOutcome::Refused { .. }, .. }]
    ));
}

async fn edit_for(server: GameServer) -> Result<AuditEntry, Error> {
    edit(&server, &more_coins(7)).await
}

fn editing_done(answer: Result<Result<AuditEntry, Error>, tokio::task::JoinError>) {
    assert_eq!(answer.unwrap().unwrap().outcome, AuditOutcome::Done);
}
