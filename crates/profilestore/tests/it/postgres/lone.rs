//! Lone saves: one statement where nothing is special, and the judgement of the rules where
//! anything is.

use std::time::Duration;

use profilestore::{
    MessageId,
    data_store::{
        Change, Commit, ConflictKind, DataStore as _, DataStoreExt as _, KeyState, LeaseState,
        NewMessage, PostgresClock, PostgresOptions, PostgresStore, Returning, StoreError,
        VersionRef,
    },
    env::{Env, ManualClock},
};
use profilestore_testbed::{Link, PostgresServer, Proxy};

use super::{
    commits::{
        end_those_that_wait, key, make, server_of_its_own, state, wait_for_a_standby, write,
    },
    own_saves::held,
};

/// After how long a test gives up waiting for what has to happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes the first version, which is no plain save.
pub(super) async fn begun(store: &PostgresStore, name: &str) -> KeyState {
    let first = write(&KeyState::absent(key(name)), "1");
    store.commit_one(make(store, vec![first]).await).await.unwrap().states.remove(0)
}

pub(super) fn keeping(mut change: Change) -> Change {
    if let Change::Write { keep_previous, .. } = &mut change {
        *keep_previous = true;
    }
    change
}

/// A server of the test's own that writes each statement down, and two stores there, as two
/// processes would use it.
pub(super) struct Watched {
    pub(super) server: PostgresServer,
    pub(super) stores: [PostgresStore; 2],
    seen: usize,
}

impl Watched {
    /// With stores whose time stands still.
    pub(super) async fn start(clock: &ManualClock) -> Self {
        Self::with([1, 2].map(|seed| (PostgresClock::Env, clock.env(seed)))).await
    }

    async fn with(clocks: [(PostgresClock, Env); 2]) -> Self {
        let server = PostgresServer::start().unwrap();
        let options: PostgresOptions = server.url().parse().unwrap();
        PostgresStore::migrate(&options, None).await.unwrap();
        server.sql("ALTER ROLE postgres SET log_statement = 'all'").unwrap();
        let open = async |(clock, env): (PostgresClock, Env)| {
            let mut options = options.clone();
            (options.clock, options.env) = (clock, env);
            PostgresStore::open(options).await.unwrap()
        };
        let [a, b] = clocks;
        let stores = [open(a).await, open(b).await];
        Self { server, stores, seen: 0 }
    }

    /// Lets the statements that are `like` this fail from now on, as where the engine does not know
    /// them.
    pub(super) fn do_not_know(&self, like: &str) {
        let sql = format!(
            "CREATE FUNCTION profilestore.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF current_query() LIKE '{like}' THEN \
             RAISE EXCEPTION 'not known' USING ERRCODE = '0A000'; END IF; RETURN NEW; END $$; \
             CREATE TRIGGER refuse BEFORE UPDATE ON profilestore.head FOR EACH ROW \
             EXECUTE FUNCTION profilestore.refuse()"
        );
        self.server.sql(&sql).unwrap();
    }

    /// How many lone saves were sent as one statement since statements were last asked for.
    fn lone_saves(&mut self) -> usize {
        let begin = [
            ": WITH wrote AS (",
            ": WITH seen AS MATERIALIZED (",
            ": UPDATE head h SET version = h.version + 1,",
        ];
        let is_lone = |said: &&String| begin.iter().any(|begin| said.contains(begin));
        self.statements().iter().filter(is_lone).count()
    }

    /// The statements since this was last asked.
    pub(super) fn statements(&mut self) -> Vec<String> {
        let log = self.server.log();
        let said = log[self.seen..].lines().filter_map(|line| line.split_once("LOG:  "));
        let said = said.map(|(_, said)| said.to_owned()).collect();
        self.seen = log.len();
        said
    }
}

#[tokio::test]
async fn a_lone_save_is_one_statement() {
    let clock = ManualClock::default();
    let mut watched = Watched::start(&clock).await;
    let store = watched.stores[0].clone();
    let mut before = begun(&store, "p").await;
    // The first that is kept begins a new hour.
    for (value, hours, keep) in [("2", 0, false), ("3", 1, false), ("4", 0, false), ("5", 0, true)]
    {
        clock.advance(hours * 60 * 60 * 1000);
        let change = write(&before, value);
        let change = if keep { keeping(change) } else { change };
        let commit = make(&store, vec![change]).await;
        watched.statements();
        let reply = store.commit_one(commit.clone()).await.unwrap();
        let said = watched.statements();
        assert!(said.len() == 1 && said[0].contains(": WITH "), "{said:?}");
        // With its value, which is the one that was written.
        assert_eq!(reply.states[0], state(&store, &key("p")).await);
        assert_eq!(reply.states[0].value.as_deref(), Some(value.as_bytes()));
        let again = store.commit_one(commit).await.unwrap();
        assert!(again.already_applied);
        assert_eq!(again.states, reply.states);
        before = reply.states.into_iter().next().unwrap();
    }
    for (number, value) in [(2, Some("2")), (3, None), (4, Some("4")), (5, Some("5"))] {
        let kept = store.version(&key("p"), &VersionRef::Number(number)).await.unwrap();
        let found = kept.map(|version| version.value.unwrap());
        assert_eq!(found.as_deref(), value.map(str::as_bytes), "version {number}");
    }
}

/// A lone save waits once for the database, as do a look, the check of a holder and a lone change
/// of a lease behind it; a transaction of several changes waits twice. Answers take their time here,
/// so that what is sent together is not counted twice.
#[tokio::test]
async fn round_trips_are_counted() {
    let server = PostgresServer::start().unwrap();
    let proxy = Proxy::to_port(server.port()).await.unwrap();
    PostgresStore::migrate(&server.url().parse().unwrap(), None).await.unwrap();
    let mut options: PostgresOptions = server.url_through(proxy.port()).parse().unwrap();
    (options.clock, options.env) = (PostgresClock::Env, ManualClock::default().env(1));
    let store = PostgresStore::open(options).await.unwrap();
    let (mut p, mut q) = (begun(&store, "p").await, begun(&store, "q").await);
    let (server_id, mut s) = held(&store, "s").await;
    // The first ones prepare the statements.
    for (round, counted) in [false, false, true].into_iter().enumerate() {
        let link = if counted { Link::Late(Duration::from_millis(400)) } else { Link::Open };
        let counting = async |commit: Commit| {
            proxy.set(link.clone());
            let before = proxy.round_trips();
            let states = store.commit_one(commit).await.unwrap().states;
            let trips = proxy.round_trips() - before;
            proxy.set(Link::Open);
            (states, trips)
        };
        let (saved, lone) = counting(make(&store, vec![write(&p, "2")]).await).await;
        let own = make(&store, vec![write(&s, "3")]).await;
        let (kept, own) = counting(Commit { from: Some(server_id), ..own }).await;
        let id = MessageId::new(p.created_ms, &format!("gift {round}")).unwrap();
        let message = NewMessage { id, payload: "1".into() };
        let gift = Change::AppendMessage { key: key("r"), message, cap: 9 };
        let trade = vec![write(&saved[0], "3"), write(&q, "3"), gift];
        let (states, trade) = counting(make(&store, trade).await).await;
        let check = Change::Check { key: key("p"), epoch: states[0].epoch };
        let (_, checked) = counting(make(&store, vec![check]).await).await;
        proxy.set(link.clone());
        let before = proxy.round_trips();
        let found = state(&store, &key("p")).await;
        let looked = proxy.round_trips() - before;
        proxy.set(Link::Open);
        let change = Change::Lease {
            key: key("p"),
            revision: found.lease_revision,
            lease: LeaseState { load_count: round as u64 + 1, ..LeaseState::default() },
            raise_epoch: false,
            seal: false,
        };
        let mut change = make(&store, vec![change]).await;
        change.returning = Returning::HEAD;
        let (changed, lease) = counting(change).await;
        if counted {
            assert_eq!((lone, own, trade), (1, 1, 2));
            assert_eq!((checked, looked, lease), (1, 1, 1));
        }
        (p, q, s) = (changed[0].clone(), states[1].clone(), kept[0].clone());
    }
}

/// Of two writers of one version, in two processes, one gets through and the other is told what is
/// there.
#[tokio::test]
async fn of_two_lone_saves_of_one_version_one_is_applied() {
    let mut watched = Watched::start(&ManualClock::default()).await;
    let stores = watched.stores.clone();
    let mut before = begun(&stores[0], "p").await;
    watched.statements();
    for round in 0..40_u64 {
        let commit = async |store: &PostgresStore, value: &str| {
            let change = write(&before, value);
            let change = if round % 2 == 0 { keeping(change) } else { change };
            make(store, vec![change]).await
        };
        let commits = [commit(&stores[0], "10").await, commit(&stores[1], "20").await];
        let [a, b] = commits.clone();
        let (a, b) = tokio::join!(stores[0].commit_one(a), stores[1].commit_one(b));
        let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
        let won = won.unwrap().states.remove(0);
        assert_eq!(won.version, before.version + 1);
        match lost.unwrap_err() {
            StoreError::Conflict(conflict) => {
                assert_eq!(conflict.kind, ConflictKind::Version);
                assert_eq!(conflict.state.unwrap(), won);
            }
            other => panic!("expected a conflict, found {other:?}"),
        }
        // The one that was refused was not applied and never will be.
        for (store, commit) in stores.iter().zip(commits) {
            match store.commit_one(commit).await {
                Ok(reply) => assert!(reply.already_applied),
                Err(err) => assert_eq!(err.conflict(), Some(&ConflictKind::Version), "{err}"),
            }
        }
        assert_eq!(state(&stores[1], &key("p")).await, won);
        before = won;
    }
    assert!(watched.lone_saves() > 0, "the short way was tried");
}

/// A holder that was taken the profile from goes on saving.
#[tokio::test]
async fn a_lone_save_of_an_earlier_holder_is_refused() {
    let mut watched = Watched::start(&ManualClock::default()).await;
    let [old, new] = watched.stores.clone();
    begun(&old, "p").await;
    let saved = make(&old, vec![write(&state(&old, &key("p")).await, "2")]).await;
    let held = old.commit_one(saved).await.unwrap().states.remove(0);
    assert_eq!(watched.lone_saves(), 1, "the short way was taken");
    let take = Change::Lease {
        key: key("p"),
        revision: held.lease_revision,
        lease: LeaseState { load_count: 1, ..LeaseState::default() },
        raise_epoch: true,
        seal: false,
    };
    new.commit_one(make(&new, vec![take]).await).await.unwrap();
    let late = make(&old, vec![write(&held, "late")]).await;
    let err = old.commit_one(late).await.unwrap_err();
    assert_eq!(err.conflict(), Some(&ConflictKind::Epoch), "{err}");
    assert_eq!(watched.lone_saves(), 1, "the short way was tried");
    assert_eq!(state(&new, &key("p")).await.value.as_deref(), Some(&b"2"[..]));
}

/// What the rules do not judge in memory, the statement has to look at: the contents.
#[tokio::test]
async fn a_lone_save_for_other_contents_is_refused() {
    let mut watched = Watched::start(&ManualClock::default()).await;
    let store = watched.stores[0].clone();
    let before = begun(&store, "p").await;
    let late = make(&store, vec![write(&before, "late")]).await;
    PostgresStore::renew_incarnation(&watched.server.url().parse().unwrap()).await.unwrap();
    let err = store.commit_one(late).await.unwrap_err();
    assert!(matches!(err, StoreError::Replaced { .. }), "{err}");
    assert_eq!(watched.lone_saves(), 1, "the short way was tried");
    assert_eq!(state(&store, &key("p")).await.version, 1);
}

/// The time of a version is the server's, and no version is older than the one before it.
#[tokio::test]
async fn a_lone_save_is_stored_at_a_time_of_the_servers_clock() {
    let of_the_server = [1, 2].map(|_| (PostgresClock::Server, Env::system()));
    let mut watched = Watched::with(of_the_server).await;
    let stores = watched.stores.clone();
    let mut before = begun(&stores[0], "p").await;
    watched.statements();
    for round in 0..40 {
        let store = &stores[round / 3 % 2];
        let commit = make(store, vec![write(&before, "2")]).await;
        let earlier = store.identity().await.unwrap().now_ms;
        let reply = store.commit_one(commit).await.unwrap();
        let after = store.identity().await.unwrap().now_ms;
        let stored_ms = |state: &KeyState| state.head.as_ref().unwrap().stored_ms;
        let now = reply.states.into_iter().next().unwrap();
        assert!(stored_ms(&before) <= stored_ms(&now) && stored_ms(&now) <= reply.now_ms);
        assert!(earlier - 1000 <= stored_ms(&now) && reply.now_ms <= after);
        before = now;
    }
    assert!(watched.lone_saves() > 0, "the short way was taken");
}

/// A lone save that stands at the primary but not at its standby is neither applied nor refused,
/// until the same id tells.
#[tokio::test]
async fn a_lone_save_that_its_standby_does_not_confirm_is_indeterminate() {
    let (mut server, store, mut options) = server_of_its_own(Duration::from_secs(1)).await;
    (options.clock, options.env) = (PostgresClock::Env, ManualClock::default().env(1));
    let mut all = Vec::new();
    for (name, cancelled, limit, told) in
        [("p", false, 4, "in time"), ("q", true, 60, "synchronous replication")]
    {
        options.statement_timeout = Duration::from_secs(limit);
        let waiting = PostgresStore::open(options.clone()).await.unwrap();
        let first = begun(&waiting, name).await;
        let commit = make(&waiting, vec![write(&first, "2")]).await;
        all.push((waiting, first.key, commit, cancelled, told));
    }
    wait_for_a_standby(&mut server);
    for (waiting, key, commit, cancelled, told) in all {
        let connected = async {
            while waiting.identity().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Until its connections are those to the server that was started again.
        tokio::time::timeout(PATIENCE, connected).await.expect("it answers again");
        let waits = "application_name = 'waits' AND wait_event = 'SyncRep' AND query LIKE 'WITH %'";
        let cancel = async {
            let sql = format!("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {waits}");
            while cancelled && server.sql(&sql).unwrap().trim().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let cancelling = tokio::time::timeout(PATIENCE, cancel);
        let (answer, cancelled_in_time) =
            tokio::join!(waiting.commit_one(commit.clone()), cancelling);
        cancelled_in_time.expect("the lone save waits for its standby");
        match answer {
            Err(StoreError::Indeterminate { commit: id, reason }) => {
                assert_eq!(id, commit.id);
                assert!(reason.contains(told), "{reason}");
            }
            other => panic!("expected an unknown outcome, found {other:?}"),
        }
        if !cancelled {
            let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE {waits}");
            assert_eq!(server.sql(&sql).unwrap().trim(), "1", "the lone save itself waits");
        }
        end_those_that_wait(&server);
        assert!(store.commit_one(commit).await.unwrap().already_applied);
        assert_eq!(state(&store, &key).await.version, 2);
    }
}

/// The connection breaks instead of carrying the answer, and does so again for each that shows the
/// lease. The commit is unknown, and was applied once.
#[tokio::test]
async fn a_lone_save_whose_answer_is_lost_is_indeterminate() {
    let server = PostgresServer::start().unwrap();
    let proxy = Proxy::to_port(server.port()).await.unwrap();
    PostgresStore::migrate(&server.url().parse().unwrap(), None).await.unwrap();
    let near = PostgresStore::open(server.url().parse().unwrap()).await.unwrap();
    let mut options: PostgresOptions = server.url_through(proxy.port()).parse().unwrap();
    (options.clock, options.env) = (PostgresClock::Env, ManualClock::default().env(1));
    let far = PostgresStore::open(options).await.unwrap();
    let before = begun(&far, "p").await;
    let commit = make(&far, vec![write(&before, "2")]).await;
    proxy.set(Link::LosingAnswersWith(b"{\"load_count\":0".to_vec()));
    let err = far.commit_one(commit.clone()).await.unwrap_err();
    assert!(matches!(err, StoreError::Indeterminate { .. }), "{err}");
    assert!(proxy.lost_answers() > 1, "it was asked again, on another connection");
    proxy.set(Link::Open);
    for store in [&near, &far] {
        assert!(store.commit_one(commit.clone()).await.unwrap().already_applied);
    }
    assert_eq!(state(&near, &key("p")).await.version, 2);
}

/// The connection breaks instead of carrying the answer. Another one tells what became of the save,
/// also of one by the holder, which has a statement of its own.
#[tokio::test]
async fn a_lone_save_whose_connection_breaks_is_asked_for_on_another_one() {
    let server = PostgresServer::start().unwrap();
    let proxy = Proxy::to_port(server.port()).await.unwrap();
    PostgresStore::migrate(&server.url().parse().unwrap(), None).await.unwrap();
    let mut options: PostgresOptions = server.url_through(proxy.port()).parse().unwrap();
    (options.clock, options.env) = (PostgresClock::Env, ManualClock::default().env(1));
    let store = PostgresStore::open(options).await.unwrap();
    let (server_id, held) = held(&store, "q").await;
    for (from, before) in [(None, begun(&store, "p").await), (Some(server_id), held)] {
        let commit = make(&store, vec![write(&before, "2")]).await;
        let (commit, lost) = (Commit { from, ..commit }, proxy.lost_answers());
        proxy.set(Link::losing_lone_answers());
        let reply = store.commit_one(commit).await.unwrap();
        proxy.set(Link::Open);
        assert!(reply.already_applied, "it had been applied");
        assert_eq!(reply.states[0].version, before.version + 1);
        assert_eq!(proxy.lost_answers(), lost + 1);
    }
}
