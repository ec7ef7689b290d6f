//! Operators at work: rolling back, pinning, ending sessions, erasing a user; all of it booked with
//! the change.

use std::time::Duration;

use profilestore::{
    Attribution, ErrorKind, GameServer, MessageId, Operator, Profile, ProfileKey, Sent,
    audit::{AuditEntry, AuditOutcome, AuditQuery, audit_entries},
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt, KeyFilter, KeyQuery, NewValue,
        Returning, VersionRef,
    },
    key::RESERVED_STORE,
};
use serde_json::json;

use crate::world::{Fault, Player, World, coins, earn, open, players, settle};

fn key(name: &str) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", name).unwrap()
}

fn ann(server: &GameServer) -> Operator {
    server.operator(Attribution::new("ann").because("ticket 17"))
}

/// The audit log, newest first, as action, profile and outcome.
async fn booked(world: &World) -> Vec<AuditEntry> {
    audit_entries(&world.store, &AuditQuery::default()).await.unwrap().entries
}

async fn actions(world: &World) -> Vec<String> {
    booked(world).await.into_iter().map(|entry| entry.action).collect()
}

/// A profile with a version for each number of coins, the last one current.
async fn played(server: &GameServer, name: &str, coins: &[i64]) {
    for coins in coins {
        let profile = open(server, name).await;
        profile.update(|data| data.coins = *coins).unwrap();
        profile.end_session().await.unwrap();
    }
}

async fn owned(server: &GameServer, name: &str, users: &[i64]) -> Profile<Player> {
    let profile = open(server, name).await;
    users.iter().for_each(|user| profile.add_user_id(*user).unwrap());
    earn(&profile, 1);
    profile.save().await.unwrap();
    profile
}

#[tokio::test(start_paused = true)]
async fn a_roll_back_ends_the_session_and_is_booked_with_the_change() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    played(&a, "p", &[10, 20]).await;
    players(&a).send_message("p", &1).await.unwrap();
    let live = open(&a, "p").await;
    earn(&live, 1000);

    let done = ann(&b).restore(&key("p"), VersionRef::Number(2)).await.unwrap();
    assert_eq!(
        (done.restored, done.replaced, done.version, done.held_by.as_deref()),
        (2, 3, 4, Some("a"))
    );
    settle().await;
    assert!(live.is_over());
    let view = players(&b).get("p").await.unwrap().unwrap();
    assert_eq!((view.data.coins, view.waiting_messages().len()), (10, 1));
    assert_eq!(players(&b).get_version("p", VersionRef::Number(3)).await.unwrap().data.coins, 20);
    let head = world.store.read_one(&key("p"), Returning::HEAD).await.unwrap().1.head.unwrap();
    assert_eq!((head.cause, &*head.author), (Cause::Restore, "ann"));
    let [entry] = booked(&world).await.try_into().unwrap();
    assert_eq!(
        (&*entry.action, &entry.outcome, &entry.keys),
        ("rollback", &AuditOutcome::Done, &vec![key("p")])
    );
    assert_eq!(
        (entry.by, &entry.details["restored"]),
        (Attribution::new("ann").because("ticket 17"), &json!(2))
    );

    let gone = ann(&b).restore(&key("p"), VersionRef::Number(99)).await;
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);
    players(&b).remove("p").await.unwrap();
    assert_eq!(
        ann(&b).restore(&key("p"), VersionRef::Number(5)).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let back = ann(&b).restore(&key("p"), VersionRef::Number(3)).await.unwrap();
    assert_eq!((back.replaced, coins(&a, "p").await), (5, 20), "a removed profile comes back");
    assert_eq!(actions(&world).await, ["rollback", "rollback"], "what was refused is not booked");
}

#[tokio::test(start_paused = true)]
async fn a_roll_back_whose_answer_is_lost_is_done_and_booked_once() {
    let world = World::new();
    let a = world.server("a").await;
    played(&a, "p", &[10, 20]).await;
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        world.store.plan().fail(fault, 2);
        ann(&a).restore(&key("p"), VersionRef::Number(2)).await.unwrap();
    }
    assert_eq!(players(&a).get("p").await.unwrap().unwrap().key_info().unwrap().number, 5);
    assert_eq!(actions(&world).await, ["rollback", "rollback"]);
}

#[tokio::test(start_paused = true)]
async fn a_pinned_version_outlives_its_time() {
    let mut world = World::new();
    world.settings.history_retention = Duration::from_secs(3600);
    world.settings.sweep_period = Some(Duration::from_secs(600));
    let a = world.server("a").await;
    played(&a, "p", &[10, 20, 30]).await;
    let pinned = ann(&a).pin(&key("p"), VersionRef::Number(2), true).await.unwrap();
    assert!(pinned.pinned && pinned.number == 2);
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    let version = |number| players(&a).get_version("p", VersionRef::Number(number));
    assert_eq!(version(2).await.unwrap().data.coins, 10);
    assert_eq!(version(3).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!ann(&a).pin(&key("p"), VersionRef::Number(2), false).await.unwrap().pinned);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(version(2).await.unwrap_err().kind(), ErrorKind::NotFound);
    let refused = ann(&a).pin(&key("p"), VersionRef::Number(2), true).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(actions(&world).await, ["unpin", "pin"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_is_taken_back_once_but_not_under_a_live_holder() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let id = |name: &str| MessageId::new(world.env.unix_ms(), name).unwrap();
    let (wrong, right) = (id("wrong"), id("right"));
    let live = open(&a, "p").await;
    for id in [&wrong, &right] {
        ann(&b).send(&key("p"), id, &json!({ "coins": 5 })).await.unwrap();
    }
    let held = ann(&b).cancel_message(&key("p"), &wrong).await.unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Held);
    live.end_session().await.unwrap();
    world.store.plan().fail(Fault::AnswerLost, 1);
    assert!(ann(&b).cancel_message(&key("p"), &wrong).await.unwrap(), "though the answer was lost");
    assert!(!ann(&b).cancel_message(&key("p"), &wrong).await.unwrap());
    let again = ann(&b).send(&key("p"), &wrong, &json!({ "coins": 5 })).await.unwrap();
    assert_eq!(again, Sent::Before);
    let view = players(&b).get("p").await.unwrap().unwrap();
    let waiting: Vec<_> = view.waiting_messages().iter().map(|message| &message.id).collect();
    assert_eq!(waiting, [&right]);
    // The server of a holder that died is not asked.
    let _dead = open(&a, "p").await;
    a.crash();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(ann(&b).cancel_message(&key("p"), &right).await.unwrap());
    let cancelled = |entry: &AuditEntry| entry.action == "cancel message";
    let booked: Vec<_> = booked(&world).await.into_iter().filter(cancelled).collect();
    let ids: Vec<_> = booked.iter().map(|entry| entry.details["message"].clone()).collect();
    assert_eq!(ids, [json!(right.to_string()), json!(wrong.to_string())]);
}

#[tokio::test(start_paused = true)]
async fn messages_and_removals_of_operators_are_booked_once() {
    let world = World::new();
    let a = world.server("a").await;
    let id = MessageId::new(world.env.unix_ms(), "order").unwrap();
    assert_eq!(ann(&a).send(&key("p"), &id, &json!({ "coins": 5 })).await.unwrap(), Sent::Now);
    assert_eq!(ann(&a).send(&key("p"), &id, &json!({ "coins": 5 })).await.unwrap(), Sent::Before);
    assert_eq!(players(&a).get("p").await.unwrap().unwrap().waiting_messages()[0].id, id);
    settle().await;
    assert!(ann(&a).remove(&key("p")).await.unwrap());
    assert!(!ann(&a).remove(&key("p")).await.unwrap());
    assert_eq!(actions(&world).await, ["remove", "send"]);

    let books = ProfileKey::new(RESERVED_STORE, "audit", "x").unwrap();
    assert_eq!(ann(&a).remove(&books).await.unwrap_err().kind(), ErrorKind::Invalid);
    let nobody = a.operator(Attribution::new(""));
    assert_eq!(nobody.erase_user(7, false).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn an_operator_ends_sessions_by_asking_and_by_taking() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let minute = Duration::from_secs(60);
    for (steal, kept) in [(false, 5), (true, 0)] {
        let name = if steal { "stolen" } else { "asked" };
        let live = open(&a, name).await;
        earn(&live, 5);
        let ended = ann(&b).end_session(&key(name), steal, minute).await.unwrap();
        assert_eq!(ended.as_deref(), Some("a"));
        settle().await;
        assert!(live.is_over());
        let view = players(&b).get(name).await.unwrap().unwrap();
        assert_eq!((view.data.coins, view.session()), (kept, None));
    }
    assert_eq!(ann(&b).end_session(&key("asked"), false, minute).await.unwrap(), None);
    let own = open(&b, "own").await;
    earn(&own, 5);
    ann(&b).end_session(&key("own"), false, minute).await.unwrap();
    assert!(own.is_over() && coins(&a, "own").await == 5);

    let entries = booked(&world).await;
    assert_eq!(
        entries.iter().map(|entry| &entry.details["steal"]).collect::<Vec<_>>(),
        [&json!(false), &json!(true), &json!(false)]
    );
    assert!(
        entries
            .iter()
            .all(|entry| entry.action == "end-session" && entry.outcome == AuditOutcome::Done)
    );
}

#[tokio::test(start_paused = true)]
async fn an_order_to_end_one_session_does_not_end_a_later_one() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let minute = Duration::from_secs(60);
    let epoch = async || {
        let (_, state) = world.store.read_one(&key("p"), Returning::HEAD).await.unwrap();
        state.epoch
    };
    open(&a, "p").await.end_session().await.unwrap();
    let seen = epoch().await;
    let later = open(&a, "p").await;
    for (server, steal) in [(&a, false), (&b, false), (&b, true)] {
        let ended = ann(server).end_session_of(&key("p"), seen, steal, minute).await;
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Changed);
    }
    settle().await;
    assert!(!later.is_over() && booked(&world).await.is_empty());
    let ended = ann(&b).end_session_of(&key("p"), epoch().await, false, minute).await.unwrap();
    assert_eq!(ended.as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_end_is_booked_as_refused() {
    let world = World::without_messenger();
    let (a, b) = (world.server_on("a", world.another_way()).await, world.server("b").await);
    let live = open(&a, "p").await;
    let short = ann(&b).end_session(&key("p"), false, Duration::from_secs(1)).await;
    assert_eq!(short.unwrap_err().kind(), ErrorKind::TimedOut);
    let [entry] = booked(&world).await.try_into().unwrap();
    assert!(
        matches!(&entry.outcome, AuditOutcome::Refused { why } if why.contains("PlayerData/p")),
        "{entry:?}"
    );
    drop(live);
}

#[tokio::test(start_paused = true)]
async fn erasing_a_user_leaves_nothing_and_no_session_writes_it_back() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let live = owned(&a, "live", &[7]).await;
    earn(&live, 100);
    owned(&a, "offline", &[7]).await.end_session().await.unwrap();
    played(&a, "offline", &[5]).await;
    owned(&a, "removed", &[7]).await.end_session().await.unwrap();
    players(&a).remove("removed").await.unwrap();
    owned(&a, "another's", &[8]).await.end_session().await.unwrap();
    owned(&a, "guild", &[7, 8]).await.end_session().await.unwrap();
    let id = MessageId::new(world.env.unix_ms(), "gift").unwrap();
    players(&b).send_message_as("offline", &id, &json!({ "secret": 1 })).await.unwrap();
    ann(&b).pin(&key("offline"), VersionRef::Number(2), true).await.unwrap();
    settle().await;
    ann(&b).pin(&key("guild"), VersionRef::Number(2), true).await.unwrap();

    let report = ann(&b).erase_user(7, false).await.unwrap();
    let erased: Vec<_> = report
        .erased
        .iter()
        .map(|e| (e.key.key(), e.versions, e.messages, e.held_by.as_deref()))
        .collect();
    assert_eq!(
        erased,
        [("live", 1, 0, Some("a")), ("offline", 2, 1, None), ("removed", 2, 0, None)]
    );
    assert_eq!(
        report.shared.iter().map(|s| (s.key.key(), &*s.user_ids)).collect::<Vec<_>>(),
        [("guild", &[7.into(), 8.into()][..])]
    );
    assert!(report.failed.is_empty() && !report.is_complete());
    assert_eq!(report.audit_entries, 1, "the pin's");

    settle().await;
    assert!(live.is_over(), "the holder is told");
    assert_eq!(live.save().await.unwrap_err().kind(), ErrorKind::SessionEnded);
    for name in ["live", "offline", "removed"] {
        assert!(players(&b).get(name).await.unwrap().is_none());
        let mut versions = players(&b).versions(name).unwrap();
        let only = versions.next().await.unwrap().unwrap().info;
        assert!(
            only.removed && only.author == "ann" && versions.next().await.unwrap().is_none(),
            "{only:?}"
        );
    }
    assert_eq!(
        players(&b).send_message_as("offline", &id, &json!({ "secret": 1 })).await.unwrap(),
        Sent::Before
    );
    assert!(players(&b).get("offline").await.unwrap().is_none(), "a retry revives nothing");
    assert_eq!((coins(&b, "another's").await, coins(&b, "guild").await), (1, 1));
    assert_eq!(open(&b, "offline").await.data(), Player::default());

    let entries = booked(&world).await;
    let erasures: Vec<_> =
        entries.iter().filter(|entry| entry.operation == report.operation).collect();
    assert_eq!(erasures.len(), 3);
    assert_eq!(
        erasures.iter().map(|entry| &entry.details["versions"]).filter(|n| **n == json!(2)).count(),
        2
    );
    let pins: Vec<_> = entries
        .iter()
        .filter(|entry| entry.action == "pin")
        .map(|e| (e.keys[0].key(), e.details.len()))
        .collect();
    assert_eq!(pins, [("guild", 1), ("offline", 0)]);

    let again = ann(&b).erase_user(7, true).await.unwrap();
    assert_eq!(again.erased.iter().map(|e| e.key.key()).collect::<Vec<_>>(), ["guild"]);
    assert!(again.is_complete());
    let left =
        KeyQuery { store: None, scope: None, filter: KeyFilter::User(7), after: None, limit: 9 };
    assert_eq!(world.store.keys(&left).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_read_before_an_erasure_is_not_written_over_the_users_new_profile() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    owned(&a, "p", &[7]).await.end_session().await.unwrap();
    let copy = players(&a).get("p").await.unwrap().unwrap();
    assert_eq!(ann(&b).erase_user(7, false).await.unwrap().erased.len(), 1);
    open(&b, "p").await.end_session().await.unwrap();
    assert_eq!(copy.set().await.unwrap_err().kind(), ErrorKind::Removed);
    assert_eq!(coins(&b, "p").await, 0);
    let fresh = players(&a).get("p").await.unwrap().unwrap();
    let live = open(&b, "p").await;
    fresh.set().await.unwrap();
    settle().await;
    assert!(live.is_over(), "over a session that began since it is written");
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_was_removed_twice_is_still_its_users() {
    let world = World::new();
    let a = world.server("a").await;
    owned(&a, "p", &[7]).await.end_session().await.unwrap();
    assert!(players(&a).remove("p").await.unwrap());
    players(&a).send_message("p", &1).await.unwrap();
    assert!(players(&a).remove("p").await.unwrap(), "the message");
    let report = ann(&a).erase_user(7, false).await.unwrap();
    assert_eq!(report.erased.len(), 1);
    let mut versions = players(&a).versions("p").unwrap();
    assert!(
        versions.next().await.unwrap().unwrap().info.removed
            && versions.next().await.unwrap().is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_is_removed_while_an_operator_ends_its_session_stays_removed() {
    let world = World::without_messenger();
    let (a, b, c) = (world.server("a").await, world.server("b").await, world.server("c").await);
    let _live = open(&a, "p").await;
    let operator = ann(&b);
    let ending = tokio::spawn(async move {
        operator.end_session(&key("p"), false, Duration::from_secs(60)).await
    });
    settle().await;
    assert!(players(&c).remove("p").await.unwrap());
    assert_eq!(ending.await.unwrap().unwrap().as_deref(), Some("a"));
    assert!(players(&c).get("p").await.unwrap().is_none());
    assert_eq!(open(&c, "p").await.data(), Player::default());
}

#[tokio::test(start_paused = true)]
async fn an_erased_users_old_server_cannot_write_him_back_after_an_outage() {
    let world = World::new();
    let way = world.another_way();
    let (a, b) = (world.server_on("a", way.clone()).await, world.server("b").await);
    let live = owned(&a, "p", &[7]).await;
    way.plan().cut_off();
    earn(&live, 100);
    let saving = live.save();
    let _ = ann(&b).erase_user(7, false).await.unwrap();
    way.plan().heal();
    assert_eq!(saving.await.unwrap_err().kind(), ErrorKind::SessionEnded);
    assert!(live.is_over());
    assert!(players(&b).get("p").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn many_profiles_of_one_user_are_erased_and_one_that_cannot_be_read_is_named() {
    let world = World::new();
    let a = world.server("a").await;
    for n in 0..600 {
        owned(&a, &format!("p{n:03}"), &[7]).await.end_session().await.unwrap();
    }
    let state = world.store.read_one(&key("p300"), Returning::HEAD).await.unwrap().1;
    let damaged = Change::Write {
        key: state.key.clone(),
        epoch: state.epoch,
        version: state.version,
        value: NewValue::Bytes(b"\x01\x09{}".to_vec().into()),
        user_ids: vec![7],
        cause: Cause::Set,
        author: "test".into(),
        keep_previous: true,
        seal: false,
        imported: None,
    };
    let incarnation = world.store.identity().await.unwrap().incarnation;
    let id = CommitId(world.env.uuid());
    let commit = Commit {
        id,
        incarnation,
        from: None,
        changes: vec![damaged],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    world.store.commit_one(commit).await.unwrap();

    let report = ann(&a).erase_user(7, false).await.unwrap();
    assert_eq!((report.erased.len(), report.failed.len()), (599, 1));
    assert_eq!(report.failed[0].key, key("p300"));
    assert!(report.failed[0].why.contains("cannot be read"), "{:?}", report.failed);
}

#[tokio::test(start_paused = true)]
async fn an_erasure_that_was_broken_off_is_completed_by_the_next_one() {
    let world = World::new();
    let a = world.server("a").await;
    owned(&a, "p", &[7]).await.end_session().await.unwrap();
    ann(&a).pin(&key("p"), VersionRef::Number(2), true).await.unwrap();
    // As if the erasing process had died right after the profile's commit: only the log of it is
    // there.
    let entry = AuditEntry::new(world.env.uuid(), "erase", vec![key("p")], Attribution::new("ann"));
    let incarnation = world.store.identity().await.unwrap().incarnation;
    let changes = vec![entry.change().unwrap()];
    let commit = Commit {
        id: CommitId(world.env.uuid()),
        incarnation,
        from: None,
        changes,
        returning: Returning::HEAD,
        fingerprint: None,
    };
    world.store.commit_one(commit).await.unwrap();
    assert_eq!(ann(&a).erase_user(9, false).await.unwrap().audit_entries, 1);
    assert_eq!(ann(&a).erase_user(9, false).await.unwrap().audit_entries, 0);
}
