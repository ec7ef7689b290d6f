//! Lone saves by the holder of a profile, which have a statement of their own, and what else is
//! saved of a held profile.

use profilestore::{
    data_store::{
        Change, Commit, CommitId, ConflictKind, DataStore as _, DataStoreExt as _, KeyState,
        PostgresStore, Returning, ServerId, VersionRef,
    },
    env::ManualClock,
};

use super::{
    commits::{key, make, state, write},
    lone::{Watched, begun, keeping},
    made,
    meetings::waits_for_a_lock,
    opened, owner,
    remembered::{lease, registered},
};

const OWN: &str = ": UPDATE head h SET version = h.version + 1,";
const OF_ANYBODY: &str = ": WITH wrote AS (";
const KEEPING: &str = ": WITH seen AS MATERIALIZED (";

/// A profile that a server holds, and of which the store has seen a save: the statement of the
/// first save of a session may keep the version before.
pub(super) async fn held(store: &PostgresStore, name: &str) -> (ServerId, KeyState) {
    let server = registered(store, None).await;
    let first = begun(store, name).await;
    let begin = make(store, vec![lease(&first, Some(server))]).await;
    let taken = store.commit_one(begin).await.unwrap().states.remove(0);
    let saved = store.commit_one(own(store, server, write(&taken, "2")).await).await.unwrap();
    (server, saved.states.into_iter().next().unwrap())
}

async fn own(store: &PostgresStore, server: ServerId, change: Change) -> Commit {
    Commit { from: Some(server), ..make(store, vec![change]).await }
}

/// Makes a commit, and finds that it was one statement of this kind.
async fn one_statement(watched: &mut Watched, commit: &Commit, kind: &str) -> KeyState {
    watched.statements();
    let reply = watched.stores[0].commit_one(commit.clone()).await.unwrap();
    let said = watched.statements();
    assert!(said.len() == 1 && said[0].contains(kind), "{kind} {said:?}");
    assert!(!reply.already_applied);
    reply.states.into_iter().next().unwrap()
}

/// Whether the table of outcomes has a commit.
fn is_in_settled(watched: &Watched, commit: CommitId) -> bool {
    let sql = format!("SELECT count(*) FROM profilestore.settled WHERE id = '{}'", commit.0);
    watched.server.sql(&sql).unwrap().trim() == "1"
}

#[tokio::test]
async fn a_holders_own_save_is_a_plain_update() {
    let clock = ManualClock::default();
    let mut watched = Watched::start(&clock).await;
    let [store, far] = watched.stores.clone();
    let (server, mut before) = held(&store, "p").await;
    for (value, hours, keep, kind) in [
        ("3", 0, false, OWN),
        ("4", 0, false, OWN),
        // The first of an hour keeps the one before.
        ("5", 1, false, KEEPING),
        ("6", 0, false, OWN),
        ("7", 0, true, KEEPING),
        ("8", 0, false, OWN),
    ] {
        clock.advance(hours * 60 * 60 * 1000);
        let change = write(&before, value);
        let change = if keep { keeping(change) } else { change };
        let commit = own(&store, server, change).await;
        let now = one_statement(&mut watched, &commit, kind).await;
        // With its server, and its value, which is the one that was written.
        assert_eq!(now, state(&store, &key("p")).await);
        assert_eq!(now.value.as_deref(), Some(value.as_bytes()));
        assert_eq!(now.holder_server.as_ref().map(|row| row.id), Some(server));
        assert!(!is_in_settled(&watched, commit.id), "the head knows the commit");
        let again = far.commit_one(commit).await.unwrap();
        assert!(again.already_applied);
        assert_eq!(again.states, std::slice::from_ref(&now));
        before = now;
    }
    for number in 2..=8 {
        let found = store.version(&key("p"), &VersionRef::Number(number)).await.unwrap();
        assert_eq!(found.is_some(), [4, 6, 8].contains(&number), "version {number}");
    }
}

/// As the next statement needs it, whose condition is all of the row: a change of the lease.
#[tokio::test]
async fn the_row_that_a_lone_save_leaves_is_remembered() {
    let mut watched = Watched::start(&ManualClock::default()).await;
    let store = watched.stores[0].clone();
    let (server, held) = held(&store, "p").await;
    let free = begun(&store, "q").await;
    for (from, before, kind) in [(Some(server), held, OWN), (None, free, OF_ANYBODY)] {
        let save = make(&store, vec![write(&before, "3")]).await;
        let saved = one_statement(&mut watched, &Commit { from, ..save }, kind).await;
        let end = make(&store, vec![write(&saved, "4"), lease(&saved, None)]).await;
        let ended = one_statement(&mut watched, &Commit { from, ..end }, KEEPING).await;
        assert_eq!(ended, state(&store, &saved.key).await);
        assert_eq!(ended.version, saved.version + 1);
    }
}

/// Nothing of it was applied, and then it is judged by the rules. The next one is one statement
/// again, which does not ask for that row.
#[tokio::test]
async fn an_own_save_whose_servers_row_is_gone_is_saved() {
    let mut watched = Watched::start(&ManualClock::default()).await;
    let store = watched.stores[0].clone();
    let (server, before) = held(&store, "p").await;
    watched.server.sql("DELETE FROM profilestore.server").unwrap();
    let commit = own(&store, server, write(&before, "3")).await;
    watched.statements();
    let saved = store.commit_one(commit.clone()).await.unwrap().states.remove(0);
    let said = watched.statements();
    assert!(said.len() > 1 && said[0].contains(OWN), "{said:?}");
    assert_eq!((saved.version, &saved.holder_server), (before.version + 1, &None));
    let commit = own(&store, server, write(&saved, "4")).await;
    let saved = one_statement(&mut watched, &commit, OF_ANYBODY).await;
    assert_eq!(saved, state(&store, &key("p")).await);
    assert!(!is_in_settled(&watched, commit.id), "it is the holder's all the same");
}

/// One flag stood for all three statements: after that, no lone save was sent as one statement.
#[tokio::test]
async fn a_statement_that_the_engine_does_not_know_keeps_no_other_from_being_sent() {
    let mut watched = Watched::start(&ManualClock::default()).await;
    let store = watched.stores[0].clone();
    let (server, mut before) = held(&store, "p").await;
    let free = begun(&store, "q").await;
    watched.do_not_know("WITH seen AS MATERIALIZED%");
    for tried in [true, false] {
        let commit = own(&store, server, keeping(write(&before, "3"))).await;
        watched.statements();
        before = store.commit_one(commit).await.unwrap().states.remove(0);
        let said = watched.statements();
        assert_eq!(said[0].contains(KEEPING), tried, "{said:?}");
    }
    let commit = own(&store, server, write(&before, "4")).await;
    one_statement(&mut watched, &commit, OWN).await;
    let commit = make(&store, vec![write(&free, "2")]).await;
    one_statement(&mut watched, &commit, OF_ANYBODY).await;
}

/// The rules judge it: its holder is to hear of it.
#[tokio::test]
async fn a_save_of_a_profile_that_another_server_holds_is_no_plain_one() {
    let mut watched = Watched::start(&ManualClock::default()).await;
    let store = watched.stores[0].clone();
    let (server, mut before) = held(&store, "p").await;
    for from in [Some(registered(&store, None).await), None] {
        let save = make(&store, vec![write(&before, "3")]).await;
        let save = Commit { from, ..save };
        watched.statements();
        let reply = store.commit_one(save.clone()).await.unwrap();
        let said = watched.statements();
        assert!(said.len() > 1 && !said[0].contains(OWN), "{said:?}");
        assert_eq!(reply.notified, [(server, key("p"))]);
        assert!(is_in_settled(&watched, save.id), "the head knows none but the holder's");
        // The holder's next save does not make it unknown.
        let saved = reply.states.into_iter().next().unwrap();
        let commit = own(&store, server, write(&saved, "4")).await;
        before = one_statement(&mut watched, &commit, OWN).await;
        assert!(store.commit_one(save).await.unwrap().already_applied);
    }
}

/// One for a request can be aborted, whichever server makes it. It meets its id where it keeps it.
#[tokio::test]
async fn a_lone_save_that_was_aborted_is_refused() {
    let mut watched = Watched::start(&ManualClock::default()).await;
    let store = watched.stores[0].clone();
    let (server, held) = held(&store, "p").await;
    let free = begun(&store, "q").await;
    for (from, before) in [(Some(server), held), (None, free)] {
        for keep in [false, true] {
            let change = write(&before, "late");
            let change = if keep { keeping(change) } else { change };
            let late = make(&store, vec![change]).await;
            let late = Commit { from, fingerprint: Some(1), ..late };
            let abort = make(&store, vec![Change::Abort { commit: late.id }]).await;
            store.commit_one(Commit { returning: Returning::HEAD, ..abort }).await.unwrap();
            watched.statements();
            let err = store.commit_one(late).await.unwrap_err();
            assert_eq!(err.conflict(), Some(&ConflictKind::Aborted), "{err}");
            let said = watched.statements();
            assert!(said[0].contains(if keep { KEEPING } else { OF_ANYBODY }), "{said:?}");
            assert_eq!(state(&store, &before.key).await, before);
        }
    }
}

/// What another transaction makes of the row while a holder's save waits for it is what the save
/// meets.
#[tokio::test]
async fn an_own_save_that_waited_is_judged_on_the_row_as_it_is_then() {
    let schema = made().await;
    // The other one tells of a commit, and the first remembers nothing of that.
    let (store, far) = (opened(&schema).await, opened(&schema).await);
    let owner = owner().await;
    // Nothing, a release and a take, by another program.
    for (name, change, is_held) in [
        ("p", "waiting = waiting", Some(true)),
        ("q", "holder = NULL, held = false, lease = '{\"load_count\":1}'", Some(false)),
        ("r", "epoch = epoch + 1", None),
    ] {
        let (server, before) = held(&store, name).await;
        let commit = own(&store, server, write(&before, "3")).await;
        let sql = format!("BEGIN; UPDATE {schema}.head SET {change} WHERE key = '{name}'");
        owner.batch_execute(&sql).await.unwrap();
        let task = tokio::spawn({
            let (store, commit) = (store.clone(), commit.clone());
            async move { store.commit_one(commit).await }
        });
        waits_for_a_lock(&super::owner().await, &schema, 0, &task).await;
        owner.batch_execute("COMMIT").await.unwrap();
        match (task.await.unwrap(), is_held) {
            (Ok(reply), Some(is_held)) => {
                assert_eq!(reply.states[0].version, before.version + 1);
                assert_eq!(reply.states[0].holder_server.is_some(), is_held, "{change}");
                assert!(far.commit_one(commit).await.unwrap().already_applied);
            }
            (Err(err), None) => {
                assert_eq!(err.conflict(), Some(&ConflictKind::Epoch), "{err}");
                assert_eq!(state(&store, &before.key).await.version, before.version);
            }
            (found, _) => panic!("{change}: {found:?}"),
        }
    }
}
