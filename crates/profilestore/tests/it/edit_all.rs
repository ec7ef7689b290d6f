//! One edit for many profiles: each is edited once, whatever server holds it, however often the
//! operation is broken off; and undone again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use profilestore::{
    Attribution, Edit, Error, ErrorKind, GameServer, Operator, Profile,
    audit::{AuditOutcome, AuditQuery, audit_entries},
    operator::{BulkEdit, BulkReport, EditScope},
};
use serde_json::json;

use crate::world::{Fault, Player, World, coins, earn, open, players};

const PROFILES: i64 = 600;

fn name(n: i64) -> String {
    format!("p{n:03}")
}

fn more_coins(by: i64) -> Edit {
    Edit::new().increase("/coins", by.into()).unwrap()
}

/// Profiles with as many coins as their number, of which `server` holds every hundredth.
async fn populated(world: &World, server: &GameServer) -> BTreeMap<i64, Profile<Player>> {
    let first = world.server("first").await;
    for n in 0..PROFILES {
        let profile = open(&first, &name(n)).await;
        earn(&profile, n);
        profile.end_session().await.unwrap();
    }
    assert!(first.shutdown().await.is_complete());
    let mut held = BTreeMap::new();
    for n in (0..PROFILES).step_by(100) {
        held.insert(n, open(server, &name(n)).await);
    }
    held
}

fn ann(server: &GameServer) -> Operator {
    server.operator(Attribution::new("ann").because("an event"))
}

async fn run(server: &GameServer, bulk: &BulkEdit) -> Result<BulkReport, Error> {
    ann(server).edit_all(bulk, |_| {}).await
}

fn bulk(world: &World, edit: Edit) -> BulkEdit {
    BulkEdit::new(world.env.uuid(), EditScope::all("PlayerData"), edit)
}

async fn expect(server: &GameServer, added: impl Fn(i64) -> i64) {
    for n in 0..PROFILES {
        assert_eq!(coins(server, &name(n)).await, n + added(n), "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_profile_is_edited_the_held_ones_by_their_holders_and_all_is_undone() {
    let world = World::new();
    let (game, operator) = (world.server("game").await, world.server("operator").await);
    let held = populated(&world, &game).await;
    players(&game).send_message("only-messages", &json!(1)).await.unwrap();
    let edit = bulk(&world, more_coins(1000));
    let last = Arc::new(Mutex::new(None));
    let noted = last.clone();
    let report = ann(&operator)
        .edit_all(&edit, move |progress| *noted.lock() = Some(progress))
        .await
        .unwrap();
    assert_eq!((report.done, report.by_holders, report.skipped), (600, 6, 1));
    assert!(report.refused.is_empty() && report.waiting.is_empty(), "{report:?}");
    let last = last.lock().unwrap();
    assert_eq!((last.passed, last.settled, last.waiting), (600, 600, 0));
    expect(&operator, |_| 1000).await;
    for (n, profile) in &held {
        assert!(profile.is_active());
        assert_eq!(profile.data().coins, n + 1000);
        // They play on.
        earn(profile, 1);
    }
    assert_eq!(
        run(&operator, &edit).await.unwrap_err().kind(),
        ErrorKind::Invalid,
        "it is complete"
    );

    let undo = BulkEdit::undo(world.env.uuid(), edit.operation());
    let report = run(&operator, &undo).await.unwrap();
    assert_eq!((report.done, report.by_holders, report.refused.len()), (600, 6, 0));
    expect(&operator, |n| i64::from(n % 100 == 0)).await;
    let headers = audit_entries(
        &world.store,
        &AuditQuery { operation: Some(undo.operation()), ..Default::default() },
    )
    .await
    .unwrap();
    let header = headers.entries.iter().find(|entry| entry.keys.is_empty());
    let header = header.cloned().or(all_of(&world, undo.operation()).await).unwrap();
    assert_eq!(
        (header.action.as_str(), &header.outcome, &header.details["edited"]),
        ("undo", &AuditOutcome::Done, &json!(600))
    );
    for profile in held.values() {
        assert!(profile.is_active());
    }
}

/// The operation's own entry, on whichever page it is.
async fn all_of(world: &World, operation: uuid::Uuid) -> Option<profilestore::audit::AuditEntry> {
    let mut query = AuditQuery { operation: Some(operation), ..Default::default() };
    loop {
        let page = audit_entries(&world.store, &query).await.unwrap();
        if let Some(entry) = page.entries.into_iter().find(|entry| entry.keys.is_empty()) {
            return Some(entry);
        }
        query.after = page.next;
        query.after.as_ref()?;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_changed_since_is_not_undone_and_is_reported() {
    let world = World::new();
    let (game, operator) = (world.server("game").await, world.server("operator").await);
    let held = populated(&world, &game).await;
    let edit = bulk(
        &world,
        Edit::new().set("/items", json!(["crown"])).unwrap().test("/coins", json!(7)).unwrap(),
    );
    let report = run(&operator, &edit).await.unwrap();
    assert_eq!(
        (report.done, report.unmatched, report.refused.len()),
        (1, 599, 0),
        "those that a test does not match are passed over"
    );
    let edit = bulk(&world, Edit::new().set("/items", json!(["crown"])).unwrap());
    assert_eq!(run(&operator, &edit).await.unwrap().done, 600);
    held[&100].update(|data| data.items.push("sword".into())).unwrap();
    let undo = BulkEdit::undo(world.env.uuid(), edit.operation());
    let report = run(&operator, &undo).await.unwrap();
    // One had the crown already: there is nothing to undo.
    assert_eq!((report.done, report.skipped, report.refused.len()), (598, 1, 1), "{report:?}");
    let (key, why) = &report.refused[0];
    assert!(key.key() == "p100" && why.contains("changed since"), "{key} {why}");
    assert_eq!(held[&100].data().items, ["crown", "sword"]);
    assert_eq!(held[&200].data().items, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_is_broken_off_is_resumed_without_doing_anything_twice() {
    for outage_after in [0, 1, 2, 3] {
        let world = World::new();
        let way = world.another_way();
        let game = world.server("game").await;
        let held = populated(&world, &game).await;
        let edit = bulk(&world, more_coins(1000));
        let first = world.server_on("operator", way.clone()).await;
        // So many calls get through, of up to 256 commits each, the answers of the next are lost,
        // and then the operator is gone.
        way.plan().fail(Fault::AnswerLost, u64::MAX);
        way.plan().spare(outage_after);
        let running = tokio::spawn({
            let (first, edit) = (first.clone(), edit.clone());
            async move { run(&first, &edit).await }
        });
        tokio::time::sleep(Duration::from_millis(800)).await;
        first.crash();
        running.abort();
        let second = world.server("second").await;
        let resumed = BulkEdit::resume(&world.store, edit.operation()).await.unwrap();
        let report = run(&second, &resumed).await.unwrap();
        assert_eq!(report.done + report.before, 600, "{outage_after}: {report:?}");
        expect(&second, |_| 1000).await;
        assert!(held.values().all(Profile::is_active));
        assert_eq!(
            BulkEdit::resume(&world.store, edit.operation()).await.unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }
}

#[tokio::test(start_paused = true)]
async fn two_runs_of_one_operation_and_sessions_that_come_and_go_leave_one_effect_each() {
    let world = World::new();
    let (game, one, two) =
        (world.server("game").await, world.server("one").await, world.server("two").await);
    let held = populated(&world, &game).await;
    let edit = bulk(&world, more_coins(1000));
    let coming_and_going = async {
        for n in (1..PROFILES).step_by(7).filter(|n| n % 100 != 0) {
            let profile = open(&game, &name(n)).await;
            tokio::time::sleep(Duration::from_micros(300)).await;
            profile.end_session().await.unwrap();
        }
    };
    let (first, second, ()) = tokio::join!(run(&one, &edit), run(&two, &edit), coming_and_going);
    for report in [first, second] {
        match report {
            Ok(report) => assert_eq!(report.done + report.before, 600),
            Err(error) => assert_eq!(
                error.kind(),
                ErrorKind::Invalid,
                "the other one was done before: {error}"
            ),
        }
    }
    expect(&one, |_| 1000).await;
    assert!(held.values().all(Profile::is_active));
}

#[tokio::test(start_paused = true)]
async fn profiles_whose_holder_does_not_answer_are_named_and_told_apart_later() {
    let world = World::new();
    let (game, operator) = (world.server("game").await, world.server("operator").await);
    let _held = populated(&world, &game).await;
    game.crash();
    let mut edit = bulk(&world, more_coins(1000));
    edit.patience = Duration::from_secs(3);
    let report = run(&operator, &edit).await.unwrap();
    assert_eq!((report.done, report.waiting.len()), (594, 6));
    let mut resumed = BulkEdit::resume(&world.store, edit.operation()).await.unwrap();
    resumed.patience = Duration::from_secs(60);
    let report = run(&operator, &resumed).await.unwrap();
    assert_eq!(
        (report.done + report.before, report.waiting.len()),
        (600, 0),
        "once the holder is dead: {report:?}"
    );
    expect(&operator, |_| 1000).await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_waited_for_a_profile_that_was_erased_is_refused() {
    let world = World::new();
    let (game, operator) = (world.server("game").await, world.server("operator").await);
    let profile = open(&game, "p").await;
    profile.add_user_id(7).unwrap();
    profile.save().await.unwrap();
    game.crash();
    let mut edit = bulk(&world, more_coins(1));
    edit.patience = Duration::ZERO;
    assert_eq!(run(&operator, &edit).await.unwrap().waiting.len(), 1);
    let ann = operator.operator(Attribution::new("ann"));
    assert_eq!(ann.erase_user(7, false).await.unwrap().erased.len(), 1);
    // The player comes back, as a new one.
    open(&operator, "p").await.end_session().await.unwrap();
    let resumed = BulkEdit::resume(&world.store, edit.operation()).await.unwrap();
    assert_eq!(run(&operator, &resumed).await.unwrap().before, 1);
    assert_eq!(coins(&operator, "p").await, 0);
    let query = AuditQuery {
        key: Some(profile.key().clone()),
        operation: Some(edit.operation()),
        ..AuditQuery::default()
    };
    let entries = audit_entries(&world.store, &query).await.unwrap().entries;
    assert!(
        matches!(&entries[..], [entry] if matches!(entry.outcome, AuditOutcome::Refused { .. })),
        "{entries:?}"
    );
}
