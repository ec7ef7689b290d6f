//! What the simulation found when operators came into its world.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use profilestore::{
    Attribution, Edit, ErrorKind, GameServer, ProfileKey,
    audit::{AuditOutcome, AuditQuery, audit_entries},
    data_store::{DataStoreExt, MemoryStore, MessageId, Returning, VersionRef},
    env::{Env, SystemRng},
};

use serde_json::{Value, value::RawValue};

use crate::{
    conditional::seen,
    regressions::{Detour, clocks::Stepping},
    world::{Fault, World, coins, earn, on_command, open, players, settle},
};

fn key() -> ProfileKey {
    ProfileKey::new("PlayerData", "global", "p").unwrap()
}

fn more_coins(by: i64) -> Edit {
    Edit::new().increase("/coins", by.into()).unwrap()
}

async fn edit(server: &GameServer, edit: &Edit) -> Result<(), ErrorKind> {
    server
        .operator(Attribution::new("ann"))
        .edit(&key(), edit)
        .await
        .map(drop)
        .map_err(|error| error.kind())
}

/// A start looked at the store's clock when it read a profile; an edit did not, and took a step for
/// the holder's death.
#[tokio::test(start_paused = true)]
async fn an_edit_after_a_step_of_the_stores_clock_ends_no_living_session() {
    let mut world = World::new();
    let clock = Arc::new(Stepping(world.env.clone(), 0.into()));
    world.store = on_command(MemoryStore::new(Env::new(clock.clone(), Arc::new(SystemRng))));
    let (a, b) = (world.server("a").await, world.server("b").await);
    let on_a = open(&a, "p").await;
    earn(&on_a, 7);
    tokio::time::sleep(Duration::from_secs(42)).await;
    clock.1.fetch_add(240_000, Ordering::SeqCst);
    edit(&b, &more_coins(5)).await.unwrap();
    settle().await;
    assert!(on_a.is_active());
    assert_eq!(on_a.data().coins, 12);
}

/// It was reported as unavailable, which means that nothing was done, and took effect later.
#[tokio::test(start_paused = true)]
async fn the_outcome_of_an_edit_that_was_sent_is_unknown_when_the_store_goes_away() {
    let world = World::new();
    let on_the_way = world.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", on_the_way.clone()).await);
    let profile = open(&a, "p").await;
    // The holder cannot save for a while.
    world.store.plan().fail(Fault::Refused, u64::MAX);
    let editing = tokio::spawn({
        let b = b.clone();
        async move { edit(&b, &more_coins(5)).await }
    });
    settle().await;
    on_the_way.plan().cut_off();
    assert_eq!(editing.await.unwrap(), Err(ErrorKind::Unknown));
    world.store.plan().heal();
    on_the_way.plan().heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(profile.data().coins, 5);
    assert_eq!(coins(&b, "p").await, 5);
}

/// It had found its version when another server erased the profile, and wrote it over the
/// tombstone.
#[tokio::test(start_paused = true)]
async fn a_rollback_that_found_its_version_before_an_erasure_brings_nothing_back() {
    let world = World::new();
    let slow = world.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", slow.clone()).await);
    let profile = open(&a, "p").await;
    profile.add_user_id(7).unwrap();
    earn(&profile, 5);
    profile.end_session().await.unwrap();
    let current = world.store.read_one(&key(), Returning::HEAD).await.unwrap().1.version;
    slow.plan().delay_reads(100);
    let ann = || Attribution::new("ann");
    let rolling_back = tokio::spawn(async move {
        b.operator(ann()).restore(&key(), VersionRef::Number(current)).await
    });
    // Between its look for the version and the one before its commit, if there was another.
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(a.operator(ann()).erase_user(7, false).await.unwrap().erased.len(), 1);
    let refused = rolling_back.await.unwrap().map(drop).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::NotFound));
    assert!(!world.store.read_one(&key(), Returning::HEAD).await.unwrap().1.exists());
}

/// Two stores that hold the same numbers and other data, and a server that is led from one to the
/// other while `call` waits for its first look.
async fn call_during_a_restore<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    call: impl FnOnce(GameServer) -> F,
) -> (GameServer, T) {
    let world = World::new();
    let backup = on_command(MemoryStore::new(world.env.clone()));
    for (store, coins) in [(&world.store, 7), (&backup, 50)] {
        let server = world.server_on("first", store.clone()).await;
        let profile = open(&server, "p").await;
        earn(&profile, coins);
        profile.end_session().await.unwrap();
    }
    let detour = Detour::new(world.store.clone());
    let b = world.server_on("b", detour.clone()).await;
    // It renews its lease every five seconds.
    tokio::time::sleep(Duration::from_secs(4)).await;
    detour.read_late(Duration::from_secs(3));
    let calling = tokio::spawn(call(b.clone()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    detour.lead_to(backup);
    let answer = calling.await.unwrap();
    detour.read_late(Duration::ZERO);
    (b, answer)
}

/// A rollback that the simulation saw (seed 572) wrote a version of before a restore into the
/// restored contents: the server had registered there between look and commit, so nothing refused
/// what was built on the look.
#[tokio::test(start_paused = true)]
async fn an_edit_that_looked_before_a_restore_is_made_of_what_was_restored() {
    let (b, edited) =
        call_during_a_restore(|b| async move { edit(&b, &more_coins(5)).await }).await;
    edited.unwrap();
    assert_eq!(coins(&b, "p").await, 55);
}

/// What it is built on is what the backup holds.
#[tokio::test(start_paused = true)]
async fn a_removal_that_looked_before_a_restore_removes_what_was_restored() {
    let (b, removed) =
        call_during_a_restore(|b| async move { players(&b).remove("p").await }).await;
    assert!(removed.unwrap());
    assert!(players(&b).get("p").await.unwrap().is_none());
}

/// A backup has other versions under the same numbers, so a call that names one is not made again.
#[tokio::test(start_paused = true)]
async fn a_rollback_that_looked_before_a_restore_is_refused() {
    let rollback = |b: GameServer| async move {
        b.operator(Attribution::new("ann")).restore(&key(), VersionRef::Number(2)).await
    };
    let (b, refused) = call_during_a_restore(rollback).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Replaced);
    assert_eq!(coins(&b, "p").await, 50);
}

/// Seed 10579: the store applied the edit after the server that had sent it had given up on the
/// answer, and by then that server held the profile. No notice is left for a commit's own sender,
/// so the edit waited for the next autosave.
#[tokio::test(start_paused = true)]
async fn an_edit_that_arrives_late_is_seen_within_a_renewal_by_the_server_that_sent_it() {
    let world = World::new();
    let on_the_way = world.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", on_the_way.clone()).await);
    let on_a = open(&a, "p").await;
    on_the_way.plan().fail(Fault::Late(Duration::from_secs(40)), u64::MAX);
    assert_eq!(edit(&b, &more_coins(5)).await, Err(ErrorKind::Unknown));
    on_the_way.plan().heal();
    on_a.end_session().await.unwrap();
    let on_b = open(&b, "p").await;
    assert_eq!(on_b.data().coins, 0, "the edit has not arrived yet");
    tokio::time::sleep(Duration::from_secs(40) + 2 * world.settings.renew_period).await;
    assert_eq!(on_b.data().coins, 5);
}

/// The call went on for as long as the store took no save, whatever limit the operator gave.
#[tokio::test(start_paused = true)]
async fn an_operators_end_is_unknown_when_the_last_save_is_not_stored_in_time() {
    let world = World::new();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    earn(&profile, 7);
    // The entry of the audit log is written, and nothing after it.
    world.store.plan().fail(Fault::RequestLost, u64::MAX);
    world.store.plan().spare(1);
    let began = tokio::time::Instant::now();
    let operator = a.operator(Attribution::new("ann"));
    let limit = a.settings().call_timeout + Duration::from_secs(5);
    let error = operator.end_session(&key(), false, limit).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Unknown, limit));
    world.store.plan().heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(profile.is_over());
    assert_eq!(coins(&a, "p").await, 7);
}

/// Other calls of operators judged by a clock that had stepped, as edits did.
#[tokio::test(start_paused = true)]
async fn no_operators_call_after_a_step_of_the_stores_clock_ends_a_living_session() {
    for call in ["put", "edit_if", "cancel_message"] {
        let mut world = World::new();
        let clock = Arc::new(Stepping(world.env.clone(), 0.into()));
        world.store = on_command(MemoryStore::new(Env::new(clock.clone(), Arc::new(SystemRng))));
        let (a, b) = (world.server("a").await, world.server("b").await);
        let on_a = open(&a, "p").await;
        let message = MessageId::new(world.env.unix_ms(), "gift").unwrap();
        players(&b).send_message_as("p", &message, &1).await.unwrap();
        earn(&on_a, 7);
        let expected = seen(&world, &b, "p").await;
        tokio::time::sleep(Duration::from_secs(42)).await;
        clock.1.fetch_add(240_000, Ordering::SeqCst);
        let ann = b.operator(Attribution::new("ann"));
        let refused = match call {
            "put" => ann.put(&key(), expected, RawValue::NULL).await.map(drop),
            "edit_if" => ann.edit_if(&key(), expected, &more_coins(5)).await.map(drop),
            _ => ann.cancel_message(&key(), &message).await.map(drop),
        };
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Held, "{call}");
        settle().await;
        assert!(on_a.is_active(), "{call}");
    }
}

/// The first look went on for as long as any call may.
#[tokio::test(start_paused = true)]
async fn an_edit_answers_within_its_patience_while_the_store_is_away() {
    let world = World::new();
    let a = world.server("a").await;
    open(&a, "p").await.end_session().await.unwrap();
    world.store.plan().cut_off();
    let began = tokio::time::Instant::now();
    let ann = a.operator(Attribution::new("ann"));
    let patience = Duration::from_secs(2);
    let operation = world.env.uuid();
    let error = ann.edit_as(operation, &key(), &more_coins(1), patience).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(began.elapsed() <= patience, "{:?}", began.elapsed());
}

/// It was told as unavailable, which means that nothing was done.
#[tokio::test(start_paused = true)]
async fn an_operators_end_that_cannot_be_booked_is_not_told_as_undone() {
    let world = World::new();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    earn(&profile, 7);
    let store = world.store.clone();
    profile.on_after_save(move |_| store.plan().cut_off());
    let operator = a.operator(Attribution::new("ann"));
    let error = operator.end_session(&key(), false, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    assert!(profile.is_over());
    world.store.plan().heal();
    assert_eq!(coins(&a, "p").await, 7);
}

/// Its last pause went beyond its end, by up to a quarter of a second.
#[tokio::test(start_paused = true)]
async fn an_edit_that_waits_for_the_holder_answers_when_its_patience_is_over() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let _held = open(&a, "p").await;
    a.crash();
    let began = tokio::time::Instant::now();
    let patience = Duration::from_millis(2_800);
    let ann = b.operator(Attribution::new("ann"));
    let edit = ann.edit_as(world.env.uuid(), &key(), &more_coins(1), patience);
    assert_eq!(edit.await.unwrap_err().kind(), ErrorKind::Unknown);
    assert_eq!(began.elapsed(), patience);
}

/// Its last look had no time left, and that counted as an error of the store.
#[tokio::test(start_paused = true)]
async fn an_edit_that_waits_for_a_silent_holder_is_no_error_of_the_store() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let _held = open(&a, "p").await;
    a.crash();
    let errors = Arc::new(AtomicUsize::new(0));
    let count = errors.clone();
    b.on_error(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    world.store.plan().slow(Duration::from_millis(20));
    let ann = b.operator(Attribution::new("ann"));
    let patience = Duration::from_millis(2_800);
    let edit = ann.edit_as(world.env.uuid(), &key(), &more_coins(1), patience);
    assert_eq!(edit.await.unwrap_err().kind(), ErrorKind::Unknown);
    assert_eq!(errors.load(Ordering::SeqCst), 0);
}

/// The log said that it was refused, and when the store was back the session was stolen.
#[tokio::test(start_paused = true)]
async fn an_operators_end_that_is_booked_as_refused_steals_nothing_later() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", own_way.clone()).await);
    let held = open(&a, "p").await;
    earn(&held, 7);
    // The entry of the audit log is written, and nothing after it.
    own_way.plan().fail(Fault::RequestLost, u64::MAX);
    own_way.plan().spare(1);
    let ann = b.operator(Attribution::new("ann"));
    let ending = tokio::spawn(ann.end_session(&key(), true, Duration::from_secs(5)));
    tokio::time::sleep(Duration::from_secs(10)).await;
    own_way.plan().heal();
    assert_eq!(ending.await.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
    let log = audit_entries(&world.store, &AuditQuery::default()).await.unwrap().entries;
    let outcomes: Vec<_> = log.iter().map(|entry| &entry.outcome).collect();
    assert!(matches!(outcomes[..], [AuditOutcome::Refused { .. }]), "{outcomes:?}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(held.is_active());
    held.save().await.unwrap();
    assert_eq!(coins(&b, "p").await, 7);
}

/// The steal was done and its answer lost, and the log said that it was refused.
#[tokio::test(start_paused = true)]
async fn an_operators_end_whose_answer_was_lost_until_its_time_was_over_is_booked_as_done() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", own_way.clone()).await);
    let held = open(&a, "p").await;
    own_way.plan().fail(Fault::AnswerLost, u64::MAX);
    own_way.plan().spare(1);
    let ann = b.operator(Attribution::new("ann"));
    let ending = tokio::spawn(ann.end_session(&key(), true, Duration::from_secs(5)));
    tokio::time::sleep(Duration::from_secs(10)).await;
    own_way.plan().heal();
    assert_eq!(ending.await.unwrap().unwrap().as_deref(), Some("a"));
    let log = audit_entries(&world.store, &AuditQuery::default()).await.unwrap().entries;
    let outcomes: Vec<_> = log.iter().map(|entry| &entry.outcome).collect();
    assert_eq!(outcomes, [&AuditOutcome::Done]);
    assert!(held.is_over());
}

/// The same for one whose place another call took before its answer came.
#[tokio::test(start_paused = true)]
async fn an_operators_end_that_was_done_when_another_start_took_its_place_is_booked_as_done() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", own_way.clone()).await);
    let held = open(&a, "p").await;
    own_way.plan().fail(Fault::AnswerLost, u64::MAX);
    own_way.plan().spare(1);
    let ann = b.operator(Attribution::new("ann"));
    let ending = tokio::spawn(ann.end_session(&key(), true, Duration::from_secs(60)));
    settle().await;
    // Of the type that the operator's start has.
    let as_json = b.store::<Value>("PlayerData").unwrap();
    let later = tokio::spawn(as_json.start_session("p"));
    settle().await;
    own_way.plan().heal();
    assert_eq!(ending.await.unwrap().unwrap().as_deref(), Some("a"));
    let log = audit_entries(&world.store, &AuditQuery::default()).await.unwrap().entries;
    let outcomes: Vec<_> = log.iter().map(|entry| &entry.outcome).collect();
    assert_eq!(outcomes, [&AuditOutcome::Done]);
    assert!(later.await.unwrap().unwrap().is_active());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(held.is_over());
}
