//! Looks at one profile, and lone changes of one whose row is remembered: one round trip each, and
//! the judgement of the rules where the row is another by now.

use profilestore::{
    MessageId,
    data_store::{
        Change, Commit, CommitId, ConflictKind, DataStore as _, DataStoreExt as _, HostId,
        KeyState, LeaseState, NewMessage, PostgresClock, PostgresOptions, PostgresStore, Returning,
        ServerId, StoreError, VersionRef,
    },
    env::{Env, ManualClock},
};
use profilestore_testbed::{Link, PostgresServer, Proxy};

use super::{
    commits::{holder, key, make, state, write},
    lone::{Watched, begun},
    made, owner, timed,
};

/// A lease by a server, or by nobody.
pub(super) fn lease(before: &KeyState, server: Option<ServerId>) -> Change {
    let lease = LeaseState {
        load_count: before.lease.load_count + 1,
        holder: server.map(holder),
        ..LeaseState::default()
    };
    let (key, revision) = (before.key.clone(), before.lease_revision);
    Change::Lease { key, revision, lease, raise_epoch: server.is_some(), seal: server.is_none() }
}

/// A commit whose answer shows no value: one that is not written would be read first.
async fn brief(store: &PostgresStore, changes: Vec<Change>) -> Commit {
    Commit { returning: Returning::HEAD, ..make(store, changes).await }
}

pub(super) async fn registered(store: &PostgresStore, host: Option<HostId>) -> ServerId {
    let id = ServerId(Env::system().uuid());
    let register = Change::RegisterServer {
        id,
        place_id: 1,
        job_id: "job".into(),
        lease_ms: 20_000,
        host,
        owner: None,
    };
    store.commit_one(make(store, vec![register]).await).await.unwrap();
    id
}

/// Makes a commit that must take one statement, and finds the answer true, also once more.
async fn one_statement(watched: &mut Watched, changes: Vec<Change>, returning: Returning) {
    let store = watched.stores[0].clone();
    let mut commit = make(&store, changes).await;
    commit.returning = returning;
    watched.statements();
    let reply = store.commit_one(commit.clone()).await.unwrap();
    let said = watched.statements();
    assert!(said.len() == 1 && said[0].contains(": WITH seen AS MATERIALIZED ("), "{said:?}");
    let (_, now) = store.read_one(&key("p"), returning).await.unwrap();
    assert_eq!(reply.states, [now]);
    let again = store.commit_one(commit).await.unwrap();
    assert!(again.already_applied);
    assert_eq!(again.states, reply.states);
}

/// Also of a profile that is not there; but the messages that wait are read with the row.
#[tokio::test]
async fn a_look_is_one_round_trip() {
    let clock = ManualClock::default();
    let mut watched = Watched::start(&clock).await;
    let store = watched.stores[0].clone();
    let commit = make(&store, Vec::new()).await;
    for round in 0..3 {
        let now = match round {
            0 => KeyState::absent(key("p")),
            1 => begun(&store, "p").await,
            _ => {
                let id = MessageId::new(clock.env(1).unix_ms(), "gift").unwrap();
                let message = NewMessage { id, payload: "1".into() };
                let gift = Change::AppendMessage { key: key("p"), message, cap: 9 };
                let gift = make(&store, vec![gift]).await;
                store.commit_one(gift).await.unwrap().states.remove(0)
            }
        };
        let check = |epoch| {
            let changes = vec![Change::Check { key: key("p"), epoch }];
            Commit { id: CommitId(Env::system().uuid()), changes, ..commit.clone() }
        };
        watched.statements();
        let found = state(&store, &key("p")).await;
        let looked = watched.statements().len();
        let checked = store.commit_one(check(0)).await.unwrap();
        let checks = watched.statements().len();
        assert_eq!(found, KeyState { inbox: found.inbox.clone(), ..now });
        assert_eq!(checked.states, std::slice::from_ref(&found));
        assert_eq!(found.inbox.map(|inbox| inbox.len()), Some(round / 2));
        if round < 2 {
            // Without a transaction around them.
            assert_eq!((looked, checks), (2, 2));
        }
        let err = store.commit_one(check(1)).await.unwrap_err();
        assert_eq!(err.conflict(), Some(&ConflictKind::Epoch), "{err}");
    }
}

/// A session that begins, and one that ends with a save.
#[tokio::test]
async fn a_change_of_a_profile_that_was_looked_at_is_one_statement() {
    let clock = ManualClock::default();
    let mut watched = Watched::start(&clock).await;
    let store = watched.stores[0].clone();
    let server = registered(&store, None).await;
    begun(&store, "p").await;
    for (round, returning) in (1..).zip([Returning::HEAD, Returning::ALL]) {
        let found = state(&store, &key("p")).await;
        let check = Change::Check { key: key("p"), epoch: found.epoch };
        let begin = vec![check, lease(&found, Some(server))];
        one_statement(&mut watched, begin, Returning::INBOX).await;
        let held = state(&store, &key("p")).await;
        let end = vec![write(&held, "saved"), lease(&held, None)];
        one_statement(&mut watched, end, returning).await;
        assert_eq!(state(&store, &key("p")).await.version, 1 + round);
    }
    // The end of the first session sealed its version, so that it stays.
    let kept = async |number| {
        let version = store.version(&key("p"), &VersionRef::Number(number)).await.unwrap();
        version.and_then(|version| version.value)
    };
    assert_eq!(kept(1).await, None);
    assert_eq!(kept(2).await.as_deref(), Some(&b"saved"[..]));
}

/// One flag stood for both statements: after that, no lone change of a lease was sent as one.
#[tokio::test]
async fn where_the_engine_does_not_know_the_statement_of_an_end_a_take_is_one_statement() {
    let mut watched = Watched::start(&ManualClock::default()).await;
    let store = watched.stores[0].clone();
    let server = registered(&store, None).await;
    begun(&store, "p").await;
    watched.do_not_know("%, version = $33,%");
    for tried in [true, false] {
        let found = state(&store, &key("p")).await;
        let end = make(&store, vec![write(&found, "saved"), lease(&found, None)]).await;
        watched.statements();
        let ended = store.commit_one(end).await.unwrap().states.remove(0);
        let said = watched.statements();
        assert_eq!(said[0].contains(", version = $33,"), tried, "{said:?}");
        assert_eq!(ended.version, found.version + 1);
    }
    let found = state(&store, &key("p")).await;
    one_statement(&mut watched, vec![lease(&found, Some(server))], Returning::HEAD).await;
}

/// The holder hears of another server's request, and only of that.
#[tokio::test]
async fn a_change_by_one_statement_leaves_notices() {
    let mut watched = Watched::start(&ManualClock::default()).await;
    let store = watched.stores[0].clone();
    let server = registered(&store, None).await;
    let first = begun(&store, "p").await;
    let held = make(&store, vec![lease(&first, Some(server))]).await;
    assert_eq!(store.commit_one(held).await.unwrap().notified, []);
    let held = state(&store, &key("p")).await;
    watched.statements();
    let taken = brief(&store, vec![lease(&held, None)]).await;
    let reply = store.commit_one(taken.clone()).await.unwrap();
    assert_eq!(watched.statements().len(), 2, "its incarnation was asked for, then one statement");
    assert_eq!(reply.notified, [(server, key("p"))]);
    let renewal =
        Change::RenewServer { id: server, revision: 1, host: None, acknowledged: Vec::new() };
    let heard = store.commit_one(make(&store, vec![renewal]).await).await.unwrap().notices;
    let heard: Vec<_> = heard.into_iter().map(|notice| (notice.key, notice.commit)).collect();
    assert_eq!(heard, [(key("p"), taken.id)]);
}

/// Another process has changed the row since it was seen here: what it is then is judged.
#[tokio::test]
async fn a_change_judged_on_an_old_row_is_judged_again() {
    let mut watched = Watched::start(&ManualClock::default()).await;
    let [near, far] = watched.stores.clone();
    let server = registered(&near, None).await;
    begun(&near, "p").await;
    let seen = state(&near, &key("p")).await;
    let other = brief(&far, vec![lease(&seen, Some(server))]).await;
    let now = far.commit_one(other).await.unwrap().states.remove(0);
    // One that does not know of it is refused, and told what is there.
    let late = brief(&near, vec![lease(&seen, None)]).await;
    watched.statements();
    match near.commit_one(late).await.unwrap_err() {
        StoreError::Conflict(conflict) => {
            assert_eq!(conflict.kind, ConflictKind::Lease);
            assert_eq!(conflict.state.unwrap(), now);
        }
        other => panic!("expected a conflict, found {other:?}"),
    }
    let tried = |said: &String| said.contains(": WITH seen AS MATERIALIZED (");
    assert!(watched.statements().iter().any(tried), "the short way was tried");
    // One that does is applied.
    let change = lease(&now, None);
    let reply = near.commit_one(brief(&near, vec![change]).await).await.unwrap();
    assert_eq!(reply.states[0].lease_revision, now.lease_revision + 1);
    // One for other contents is not.
    let seen = state(&near, &key("p")).await;
    let late = brief(&near, vec![lease(&seen, Some(server))]).await;
    PostgresStore::renew_incarnation(&watched.server.url().parse().unwrap()).await.unwrap();
    let err = near.commit_one(late).await.unwrap_err();
    assert!(matches!(err, StoreError::Replaced { .. }), "{err}");
    assert!(!state(&near, &key("p")).await.lease.is_held());
}

/// A commit that asks for the host of a game server is refused once there is another.
#[tokio::test]
async fn a_change_by_one_statement_is_of_the_host() {
    let mut watched = Watched::start(&ManualClock::default()).await;
    let [near, far] = watched.stores.clone();
    let (first, second) = (HostId(Env::system().uuid()), HostId(Env::system().uuid()));
    let server = registered(&near, Some(first)).await;
    begun(&near, "p").await;
    let found = state(&near, &key("p")).await;
    let ask = Change::CheckHost { id: server, host: first };
    let begin = vec![lease(&found, Some(server)), ask.clone()];
    one_statement(&mut watched, begin, Returning::INBOX).await;
    let held = state(&near, &key("p")).await;
    assert_eq!(held.holder_server.as_ref().and_then(|row| row.host), Some(first));
    let rehost = Change::RehostServer { id: server, host: second, generation: 2 };
    far.commit_one(make(&far, vec![rehost]).await).await.unwrap();
    let late = make(&near, vec![write(&held, "late"), lease(&held, None), ask]).await;
    let err = near.commit_one(late).await.unwrap_err();
    assert_eq!(err.conflict(), Some(&ConflictKind::Hosted), "{err}");
    assert_eq!(state(&near, &key("p")).await.version, held.version);
}

/// The connection breaks instead of carrying the answer, and does so again for each that tells of
/// the server. The commit is unknown, and was applied once.
#[tokio::test]
async fn a_change_whose_answer_is_lost_is_indeterminate() {
    let server = PostgresServer::start().unwrap();
    let proxy = Proxy::to_port(server.port()).await.unwrap();
    PostgresStore::migrate(&server.url().parse().unwrap(), None).await.unwrap();
    let near = PostgresStore::open(server.url().parse().unwrap()).await.unwrap();
    let mut options: PostgresOptions = server.url_through(proxy.port()).parse().unwrap();
    (options.clock, options.env) = (PostgresClock::Env, ManualClock::default().env(1));
    let far = PostgresStore::open(options).await.unwrap();
    begun(&far, "p").await;
    let id = registered(&far, None).await;
    let before = state(&far, &key("p")).await;
    let commit = brief(&far, vec![lease(&before, Some(id))]).await;
    proxy.set(Link::LosingAnswersWith(id.0.as_bytes().to_vec()));
    let err = far.commit_one(commit.clone()).await.unwrap_err();
    assert!(matches!(err, StoreError::Indeterminate { .. }), "{err}");
    proxy.set(Link::Open);
    assert!(near.commit_one(commit).await.unwrap().already_applied);
    assert_eq!(state(&near, &key("p")).await.epoch, before.epoch + 1);
}

/// The store kept no time at which such a profile was created.
#[tokio::test]
async fn the_first_version_of_a_profile_that_was_looked_at_tells_when_it_was_created() {
    let (schema, clock) = (made().await, ManualClock::default());
    let store = PostgresStore::open(timed(&schema, &clock, 1)).await.unwrap();
    let id = MessageId::new(clock.env(1).unix_ms(), "gift").unwrap();
    let message = NewMessage { id, payload: "1".into() };
    let gift = Change::AppendMessage { key: key("p"), message, cap: 9 };
    store.commit_one(make(&store, vec![gift]).await).await.unwrap();
    let found = state(&store, &key("p")).await;
    let mut first = write(&found, "1");
    if let Change::Write { user_ids, .. } = &mut first {
        user_ids.clear();
    }
    let commit = brief(&store, vec![first, lease(&found, None)]).await;
    let left = store.commit_one(commit).await.unwrap().states.remove(0);
    let (now_ms, now) = store.read_one(&key("p"), Returning::HEAD).await.unwrap();
    assert_eq!(now.created_ms, now_ms);
    assert_eq!(left, now);
}

/// The answer told of the damage, and the lease had been changed.
#[tokio::test]
async fn a_change_whose_answer_would_show_a_damaged_value_is_not_applied() {
    let (schema, clock) = (made().await, ManualClock::default());
    let store = PostgresStore::open(timed(&schema, &clock, 1)).await.unwrap();
    begun(&store, "p").await;
    let found = state(&store, &key("p")).await;
    let damage = "SET value = set_byte(value, 0, 255 - get_byte(value, 0))";
    owner().await.batch_execute(&format!("UPDATE {schema}.head {damage}")).await.unwrap();
    let commit = make(&store, vec![lease(&found, None)]).await;
    let err = store.commit_one(commit).await.unwrap_err();
    assert!(matches!(err, StoreError::Damaged { .. }), "{err}");
    let (_, now) = store.read_one(&key("p"), Returning::HEAD).await.unwrap();
    assert_eq!(now.lease_revision, found.lease_revision);
}
