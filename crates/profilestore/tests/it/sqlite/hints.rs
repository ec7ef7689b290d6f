//! Hints between the processes that share a file.

use std::time::Duration;

use profilestore::{
    data_store::{Holder, LeaseState, ServerId, SqliteMessenger},
    messenger::{HINT_QUEUE, Hint, Messenger as _},
};
use tokio::time::timeout;

use super::*;

/// What a busy machine may take for anything.
const SOON: Duration = Duration::from_secs(100);

async fn register(store: &SqliteStore) -> ServerId {
    let id = ServerId(Env::system().uuid());
    let register = Change::RegisterServer {
        id,
        place_id: 1,
        job_id: "job".into(),
        lease_ms: 20_000,
        host: None,
        owner: None,
    };
    store.commit_one(make(store, vec![register]).await).await.unwrap();
    id
}

async fn hold(store: &SqliteStore, key: &ProfileKey, server: ServerId) {
    let holder = Holder {
        server: Some(server),
        place_id: 1,
        job_id: "job".into(),
        session: "s".into(),
        since_ms: 0,
        last_update_ms: None,
        document: None,
    };
    let lease = LeaseState { holder: Some(holder), ..LeaseState::default() };
    let change =
        Change::Lease { key: key.clone(), revision: 0, lease, raise_epoch: true, seal: false };
    store.commit_one(make(store, vec![change]).await).await.unwrap();
}

/// A commit through one store is heard by a listener at the other, once for each notice, though
/// nobody sent a hint.
#[tokio::test]
async fn a_commit_is_heard_in_the_other_process() {
    let dir = folder();
    let [here, there] = [open(&path(&dir)), open(&path(&dir))];
    let server = register(&here).await;
    for name in ["a", "b"] {
        hold(&here, &key(name), server).await;
    }
    let messenger = SqliteMessenger::new(&here);
    let mut hints = messenger.subscribe(server).await;
    for name in ["a", "b", "a"] {
        put(&there, &key(name), "1").await.unwrap();
        assert_eq!(timeout(SOON, hints.recv()).await.unwrap(), Some(Hint::Look(key(name))));
    }
    put(&there, &key("of nobody"), "1").await.unwrap();
    let silence = timeout(Duration::from_millis(100), hints.recv()).await;
    assert!(silence.is_err(), "notices that were told are not told again: {silence:?}");
}

/// What was left before a server listened is heard as well; a second messenger hears of its own
/// servers only.
#[tokio::test]
async fn notices_from_before_a_server_listened_are_heard() {
    let dir = folder();
    let store = open(&path(&dir));
    let [one, two] = [register(&store).await, register(&store).await];
    hold(&store, &key("a"), one).await;
    hold(&store, &key("b"), two).await;
    put(&store, &key("a"), "1").await.unwrap();
    put(&store, &key("b"), "1").await.unwrap();
    let messenger = SqliteMessenger::new(&store);
    let mut first = messenger.subscribe(one).await;
    assert_eq!(timeout(SOON, first.recv()).await.unwrap(), Some(Hint::Look(key("a"))));
    let mut second = messenger.clone().subscribe(two).await;
    assert_eq!(timeout(SOON, second.recv()).await.unwrap(), Some(Hint::Look(key("b"))));
    drop(first);
    put(&store, &key("b"), "2").await.unwrap();
    assert_eq!(timeout(SOON, second.recv()).await.unwrap(), Some(Hint::Look(key("b"))));
}

/// A hint goes straight to a listener in this process, and a slow one is told of the gap.
#[tokio::test]
async fn hints_within_the_process_go_straight() {
    let dir = folder();
    let messenger = SqliteMessenger::new(&open(&path(&dir)));
    let server = ServerId(Env::system().uuid());
    messenger.hint(server, &key("nobody listens")).await;
    let mut hints = messenger.subscribe(server).await;
    for _ in 0..HINT_QUEUE + 3 {
        messenger.hint(server, &key("a")).await;
    }
    for _ in 0..HINT_QUEUE {
        assert_eq!(hints.recv().await, Some(Hint::Look(key("a"))));
    }
    messenger.hint(server, &key("b")).await;
    assert_eq!(hints.recv().await, Some(Hint::Gap));
    assert_eq!(hints.recv().await, Some(Hint::Look(key("b"))));
}

/// The thread and its connection end with the messenger: the file is closed.
#[tokio::test]
async fn the_thread_ends_with_the_messenger() {
    let dir = folder();
    let store = open(&path(&dir));
    put(&store, &key("a"), "1").await.unwrap();
    let messenger = SqliteMessenger::new(&store);
    let hints = messenger.subscribe(ServerId(Env::system().uuid())).await;
    drop((hints, messenger, store));
    let log = dir.path().join("players.db-wal");
    // For ever if anything keeps the file open: then the test's time limit ends it.
    while log.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Within the process; between processes the commits' notices are the hints.
mod conformance {
    use std::sync::Arc;

    use profilestore::messenger::conformance::Subject;

    use super::*;

    async fn subject() -> Subject {
        let dir = folder();
        let messenger = Arc::new(SqliteMessenger::new(&open(&path(&dir))));
        Subject::new(messenger.clone(), messenger).keeping(dir)
    }

    profilestore::messenger_conformance!(subject);
}
