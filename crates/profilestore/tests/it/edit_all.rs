//! One edit for many profiles: each is edited once, whatever server holds it, however often the
//! operation is broken off; and undone again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use profilestore::{
    Attribution, Edit, Error, ErrorKind, GameServer, Operator, Profile, ProfileKey,
    audit::{AuditEntry, AuditOutcome, AuditQuery, audit_entries},
    data_store::{
        Cause, Change, Commit, CommitId, DataStore as _, DataStoreExt as _, NewValue, Returning,
        fault::LineState,
    },
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

fn first_item() -> Edit {
    Edit::new().remove("/items/0").unwrap()
}

/// A saved profile with or without an item.
async fn with_item(server: &GameServer, name: &str, has_one: bool) -> Profile<Player> {
    let profile = open(server, name).await;
    profile.update(|data| data.items.extend(has_one.then(|| "crown".into()))).unwrap();
    profile.save().await.unwrap();
    profile
}

/// What the log says of all runs of an operation together.
async fn booked(world: &World, edit: &BulkEdit) -> [serde_json::Value; 2] {
    let header = all_of(world, edit.operation()).await.unwrap();
    assert_eq!(header.outcome, AuditOutcome::Done);
    ["edited", "refused"].map(|name| header.details[name].clone())
}

/// When the look that found it was one that judges anew, it counted as done.
#[tokio::test(start_paused = true)]
async fn a_refusal_between_two_looks_is_counted_once_and_not_as_done() {
    let world = World::new();
    let way = world.another_way();
    let slow = world.server_on("slow", way.clone()).await;
    let (quick, operator) = (world.server("quick").await, world.server("operator").await);
    let mut held = Vec::new();
    for (server, name) in [(&slow, "slow"), (&quick, "quick"), (&operator, "free")] {
        for has_one in [true, false] {
            held.push(with_item(server, &format!("{name}-{has_one}"), has_one).await);
        }
    }
    for free in held.split_off(4) {
        free.end_session().await.unwrap();
    }
    // One holder answers at once. The other one does after the first second, from which on every
    // look judges anew.
    way.line().set(LineState::Held);
    let edit = bulk(&world, first_item());
    let last = Arc::new(Mutex::new(None));
    let running = tokio::spawn({
        let (ann, edit, last) = (ann(&operator), edit.clone(), last.clone());
        async move { ann.edit_all(&edit, move |progress| *last.lock() = Some(progress)).await }
    });
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let shown = last.lock().unwrap();
    assert_eq!((shown.passed, shown.settled, shown.waiting), (6, 4, 2));
    way.line().set(LineState::Open);
    let report = running.await.unwrap().unwrap();
    assert_eq!((report.done, report.by_holders, report.before), (3, 2, 0), "{report:?}");
    let mut refused: Vec<_> = report.refused.iter().map(|(key, _)| key.key()).collect();
    refused.sort_unstable();
    assert_eq!(refused, ["free-false", "quick-false", "slow-false"]);
    assert!(report.waiting.is_empty() && report.unmatched == 0, "{report:?}");
    let shown = last.lock().unwrap();
    assert_eq!((shown.passed, shown.settled, shown.waiting), (6, 6, 0));
    assert_eq!(booked(&world, &edit).await, [3, 3]);
    assert!(held.iter().all(|profile| profile.is_active() && profile.data().items.is_empty()));
}

/// The log called it edited.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_refused_is_not_booked_as_edited() {
    let world = World::new();
    let (game, operator) = (world.server("game").await, world.server("operator").await);
    with_item(&game, "held", true).await;
    with_item(&operator, "free", false).await.end_session().await.unwrap();
    game.crash();
    let mut edit = bulk(&world, first_item());
    edit.patience = Duration::ZERO;
    let report = run(&operator, &edit).await.unwrap();
    assert_eq!((report.refused.len(), report.waiting.len()), (1, 1));
    let resumed = BulkEdit::resume(&world.store, edit.operation()).await.unwrap();
    let report = run(&operator, &resumed).await.unwrap();
    assert_eq!((report.done, report.before, report.refused.len()), (1, 1, 0), "{report:?}");
    assert_eq!(booked(&world, &edit).await, [1, 1]);
}

/// Where an operation has its entry about a profile.
async fn entry_of(edit: &BulkEdit, name: &str) -> ProfileKey {
    let world = World::new();
    let server = world.server("a").await;
    with_item(&server, name, true).await.end_session().await.unwrap();
    run(&server, edit).await.unwrap();
    let query = AuditQuery { operation: Some(edit.operation()), ..Default::default() };
    let entries = audit_entries(&world.store, &query).await.unwrap().entries;
    entries.iter().find(|entry| !entry.keys.is_empty()).unwrap().key()
}

/// Another program writes something else there, over this version.
async fn spoil(world: &World, entry: ProfileKey, version: u64) {
    let change = Change::Write {
        key: entry,
        epoch: 0,
        version,
        value: NewValue::Bytes(b"7".as_slice().into()),
        user_ids: vec![],
        cause: Cause::Set,
        author: "mallory".into(),
        keep_previous: false,
        seal: false,
        imported: None,
    };
    let commit = Commit {
        id: CommitId(world.env.uuid()),
        incarnation: world.store.identity().await.unwrap().incarnation,
        from: None,
        changes: vec![change],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    world.store.commit_one(commit).await.unwrap();
}

/// The operation failed as a whole, and again whenever it was resumed.
#[tokio::test(start_paused = true)]
async fn an_entry_that_cannot_be_read_keeps_no_other_profile_from_being_edited() {
    let world = World::new();
    let (game, operator) = (world.server("game").await, world.server("operator").await);
    for name in ["fine", "spoilt"] {
        with_item(&operator, name, true).await.end_session().await.unwrap();
    }
    with_item(&game, "held", true).await;
    game.crash();
    let edit = bulk(&world, first_item());
    spoil(&world, entry_of(&edit, "spoilt").await, 0).await;
    let held = entry_of(&edit, "held").await;
    let running = tokio::spawn({
        let edit = edit.clone();
        async move { run(&operator, &edit).await }
    });
    // The edit waits for its holder by then.
    tokio::time::sleep(Duration::from_millis(100)).await;
    spoil(&world, held, 1).await;
    let report = running.await.unwrap().unwrap();
    let mut refused: Vec<_> = report.refused.iter().map(|(key, _)| key.key()).collect();
    refused.sort_unstable();
    assert_eq!((report.done, &refused[..]), (1, &["held", "spoilt"][..]), "{report:?}");
    assert_eq!(booked(&world, &edit).await, [1, 2]);
}

/// What it read page by page had no time of its own: it waited for as long as the store did.
#[tokio::test(start_paused = true)]
async fn a_bulk_edit_ends_in_a_calls_time_when_the_store_does_not_answer() {
    let world = World::new();
    let way = world.another_way();
    let operator = world.server_on("operator", way.clone()).await;
    open(&operator, "p").await.end_session().await.unwrap();
    way.plan().delay_reads(600_000);
    let began = tokio::time::Instant::now();
    let error = run(&operator, &bulk(&world, more_coins(1))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(began.elapsed(), world.settings.call_timeout);
}

/// All reads of a page had one call's time together, so an undo ended at the same page for ever.
#[tokio::test(start_paused = true)]
async fn an_undo_may_take_longer_for_a_page_of_the_log_than_for_a_call() {
    let world = World::new();
    let operator = world.server("operator").await;
    open(&operator, "p").await.end_session().await.unwrap();
    let edit = bulk(&world, more_coins(1));
    run(&operator, &edit).await.unwrap();
    let way = world.another_way();
    let slow = world.server_on("slow", way.clone()).await;
    way.plan().delay_reads(20_000);
    let undo = BulkEdit::undo(world.env.uuid(), edit.operation());
    assert_eq!(run(&slow, &undo).await.unwrap().done, 1);
    assert_eq!(coins(&operator, "p").await, 0);
}

/// An edit of one profile came under the identity of an edit of many, and was taken back with it.
#[tokio::test(start_paused = true)]
async fn the_undoing_of_an_edit_of_many_leaves_an_edit_of_one_under_its_key_alone() {
    let world = World::new();
    let server = world.server("A").await;
    for n in 0..3 {
        open(&server, &name(n)).await.end_session().await.unwrap();
    }
    let edit = bulk(&world, more_coins(1000));
    let key = ProfileKey::new("PlayerData", "global", &name(0)).unwrap();
    let minute = Duration::from_secs(60);
    ann(&server).edit_as(edit.operation(), &key, &more_coins(5), minute).await.unwrap();
    run(&server, &edit).await.unwrap();
    assert_eq!((coins(&server, &name(0)).await, coins(&server, &name(1)).await), (5, 1000));

    let undo = BulkEdit::undo(world.env.uuid(), edit.operation());
    let report = run(&server, &undo).await.unwrap();
    assert_eq!((report.done, report.refused.len()), (2, 0));
    assert_eq!((coins(&server, &name(0)).await, coins(&server, &name(1)).await), (5, 0));
}

/// They were taken for edits of one that had come under its key: nothing was undone.
#[tokio::test(start_paused = true)]
async fn an_operation_that_is_made_of_edits_of_one_is_undone() {
    let world = World::new();
    let server = world.server("A").await;
    let operation = world.env.uuid();
    // As where places of many profiles are put back.
    let own = AuditEntry::new(operation, "put back", Vec::new(), Attribution::new("ann"));
    own.book(&world.store, &world.env, 0).await.unwrap();
    let minute = Duration::from_secs(60);
    for n in 0..3 {
        open(&server, &name(n)).await.end_session().await.unwrap();
        let key = ProfileKey::new("PlayerData", "global", &name(n)).unwrap();
        ann(&server).edit_as(operation, &key, &more_coins(5), minute).await.unwrap();
    }
    let undo = BulkEdit::undo(world.env.uuid(), operation);
    let report = run(&server, &undo).await.unwrap();
    assert_eq!((report.done, report.refused.len()), (3, 0));
    for n in 0..3 {
        assert_eq!(coins(&server, &name(n)).await, 0, "{n}");
    }
}
