//! Lone saves: one statement where nothing is special, and the judgement of the rules where
//! anything is.

use std::time::Duration;

use profilestore::{
    MessageId,
    data_store::{
        Change, Commit, CommitId, ConflictKind, DataStore, DataStoreExt as _, Holder, Incarnation,
        KeyState, LeaseState, MemoryStore, NewMessage, NewValue, Order, PostgresClock,
        PostgresOptions, PostgresStore, Returning, ServerId, StoreError, VersionQuery, VersionRef,
    },
    env::{Env, ManualClock},
};
use profilestore_testbed::{Link, PostgresServer, Proxy};

use super::{
    commits::{
        end_those_that_wait, key, make, server_of_its_own, state, wait_for_a_standby, write,
    },
    made, opened, timed,
};

/// Writes the first version, which is no plain save.
async fn begun(store: &PostgresStore, name: &str) -> KeyState {
    let first = write(&KeyState::absent(key(name)), "1");
    store.commit_one(make(store, vec![first]).await).await.unwrap().states.remove(0)
}

fn keeping(mut change: Change) -> Change {
    if let Change::Write { keep_previous, .. } = &mut change {
        *keep_previous = true;
    }
    change
}

/// A server of the test's own that writes each statement down, and a store there whose time stands
/// still.
struct Watched {
    server: PostgresServer,
    store: PostgresStore,
    seen: usize,
}

impl Watched {
    async fn start(clock: &ManualClock) -> Self {
        let server = PostgresServer::start().unwrap();
        let mut options: PostgresOptions = server.url().parse().unwrap();
        PostgresStore::migrate(&options, None).await.unwrap();
        server.sql("ALTER ROLE postgres SET log_statement = 'all'").unwrap();
        (options.clock, options.env) = (PostgresClock::Env, clock.env(1));
        let store = PostgresStore::open(options).await.unwrap();
        Self { server, store, seen: 0 }
    }

    /// The statements since this was last asked.
    fn statements(&mut self) -> Vec<String> {
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
    let store = watched.store.clone();
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

/// A lone save waits once for the database, a transaction of several changes twice. Answers take
/// their time here, so that what is sent together is not counted twice.
#[tokio::test]
async fn round_trips_are_counted() {
    let server = PostgresServer::start().unwrap();
    let proxy = Proxy::to_port(server.port()).await.unwrap();
    PostgresStore::migrate(&server.url().parse().unwrap(), None).await.unwrap();
    let mut options: PostgresOptions = server.url_through(proxy.port()).parse().unwrap();
    (options.clock, options.env) = (PostgresClock::Env, ManualClock::default().env(1));
    let store = PostgresStore::open(options).await.unwrap();
    let (mut p, mut q) = (begun(&store, "p").await, begun(&store, "q").await);
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
        let id = MessageId::new(p.created_ms, &format!("gift {round}")).unwrap();
        let message = NewMessage { id, payload: "1".into() };
        let gift = Change::AppendMessage { key: key("r"), message, cap: 9 };
        let trade = vec![write(&saved[0], "3"), write(&q, "3"), gift];
        let (states, trade) = counting(make(&store, trade).await).await;
        if counted {
            assert_eq!((lone, trade), (1, 2));
        }
        (p, q) = (states[0].clone(), states[1].clone());
    }
}

/// Two stores as two processes would use one, and one in memory, which only has the rules.
struct Both {
    postgres: [PostgresStore; 2],
    memory: MemoryStore,
    incarnations: [Incarnation; 2],
    drawn: Env,
}

impl Both {
    async fn made(clock: &ManualClock, seed: u64) -> Self {
        let schema = made().await;
        let a = PostgresStore::open(timed(&schema, clock, 1)).await.unwrap();
        let b = PostgresStore::open(timed(&schema, clock, 2)).await.unwrap();
        let memory = MemoryStore::new(clock.env(3));
        let of = async |store: &dyn DataStore| store.identity().await.unwrap().incarnation;
        let incarnations = [of(&a).await, of(&memory).await];
        Self { postgres: [a, b], memory, incarnations, drawn: clock.env(seed) }
    }

    fn draw(&self, below: u64) -> u64 {
        self.drawn.uuid().as_u128() as u64 % below
    }

    /// Makes the same commit in both, and finds the same answer.
    async fn commit(&self, commit: &Commit) {
        let at = self.draw(4) / 3;
        let of = |incarnation| Commit { incarnation, ..commit.clone() };
        let found =
            self.postgres[usize::try_from(at).unwrap()].commit_one(of(self.incarnations[0])).await;
        let wanted = self.memory.commit_one(of(self.incarnations[1])).await;
        assert_eq!(format!("{found:?}"), format!("{wanted:?}"), "{commit:?}");
    }

    /// A save as a session makes it, or nearly so.
    fn save(&self, state: &KeyState) -> Change {
        let mut change = write(state, &format!("{}", self.draw(1000)));
        if let Change::Write { epoch, version, user_ids, keep_previous, seal, value, .. } =
            &mut change
        {
            match self.draw(16) {
                0 => *epoch += 1,
                1 => *version -= 1,
                2 => user_ids.push(8),
                3 | 4 => *keep_previous = true,
                5 => *seal = true,
                6 => *value = NewValue::Tombstone,
                _ => {}
            }
        }
        change
    }

    fn lease(&self, state: &KeyState, servers: &[ServerId]) -> Change {
        let server = servers.get(usize::try_from(self.draw(3)).unwrap());
        let holder = server.map(|id| Holder {
            server: Some(*id),
            place_id: 1,
            job_id: "job".into(),
            session: "session".into(),
            since_ms: 1,
            last_update_ms: None,
            document: None,
        });
        let load_count = state.lease.load_count + self.draw(2);
        Change::Lease {
            key: state.key.clone(),
            revision: state.lease_revision,
            lease: LeaseState { load_count, holder, ..LeaseState::default() },
            raise_epoch: self.draw(2) == 0,
            seal: self.draw(3) == 0,
        }
    }
}

/// Whatever a lone save meets (another version, epoch, holder or user, a message, a pin, a seal, a
/// new hour, an id that is known or aborted), its answer and what it leaves are those of a store
/// that only knows the rules.
#[tokio::test]
async fn a_lone_save_does_what_the_rules_say() {
    for seed in 0..6 {
        let clock = ManualClock::default();
        let both = Both::made(&clock, seed).await;
        let servers = [1, 2].map(|_| ServerId(both.drawn.uuid()));
        let commit = |changes: Vec<Change>, from: Option<ServerId>, returning: Returning| Commit {
            id: CommitId(both.drawn.uuid()),
            incarnation: both.incarnations[0],
            from,
            changes,
            returning,
            fingerprint: None,
        };
        for id in servers {
            let register = Change::RegisterServer {
                id,
                place_id: 1,
                job_id: "job".into(),
                lease_ms: 20_000,
                host: None,
                owner: None,
            };
            both.commit(&commit(vec![register], None, Returning::HEAD)).await;
        }
        let at = key("p");
        let first = write(&KeyState::absent(at.clone()), "0");
        both.commit(&commit(vec![first], None, Returning::HEAD)).await;
        let mut made: Vec<Commit> = Vec::new();
        for step in 0..120 {
            let now = state(&both.memory, &at).await;
            let holder = now.lease.holder.as_ref().and_then(|holder| holder.server);
            let from = if both.draw(6) == 0 { Some(servers[0]) } else { holder };
            let returning = [
                Returning::HEAD,
                Returning::ALL,
                Returning { value: false, inbox_unless: Some(now.inbox_revision) },
                Returning { value: true, inbox_unless: Some(now.inbox_revision) },
            ][usize::try_from(both.draw(4)).unwrap()];
            let mut next = match both.draw(20) {
                0 => commit(vec![both.lease(&now, &servers)], from, returning),
                1 => {
                    let id = MessageId::new(clock.env(0).unix_ms(), &format!("m{step}")).unwrap();
                    let message = NewMessage { id, payload: "1".into() };
                    let append = Change::AppendMessage { key: at.clone(), message, cap: 100 };
                    commit(vec![append], from, returning)
                }
                2 => {
                    let pin = Change::Pin { key: at.clone(), version: now.version, pinned: true };
                    commit(vec![pin], from, returning)
                }
                3 if !made.is_empty() => {
                    let again = usize::try_from(both.draw(made.len() as u64)).unwrap();
                    let fingerprint = (both.draw(2) == 0).then_some(7);
                    Commit { fingerprint, ..made[again].clone() }
                }
                4 => {
                    let next = commit(vec![both.save(&now)], from, returning);
                    let abort = Change::Abort { commit: next.id };
                    both.commit(&commit(vec![abort], None, Returning::HEAD)).await;
                    next
                }
                _ => commit(vec![both.save(&now)], from, returning),
            };
            if both.draw(5) == 0 {
                next.fingerprint = next.fingerprint.or(Some(both.draw(3)));
            }
            both.commit(&next).await;
            made.push(next);
            clock.advance([0, 1, 1000, 60_000, 3_600_000][usize::try_from(both.draw(5)).unwrap()]);
        }
        let [a, _] = &both.postgres;
        assert_eq!(state(a, &at).await, state(&both.memory, &at).await, "seed {seed}");
        let query = VersionQuery {
            key: at.clone(),
            order: Order::Ascending,
            from_ms: None,
            to_ms: None,
            after: None,
            limit: 1000,
        };
        let versions = a.versions(&query).await.unwrap();
        assert_eq!(versions, both.memory.versions(&query).await.unwrap(), "seed {seed}");
        for info in versions {
            let number = VersionRef::Number(info.number);
            let (found, wanted) =
                (a.version(&at, &number).await, both.memory.version(&at, &number).await);
            assert_eq!(found.unwrap().unwrap().value, wanted.unwrap().unwrap().value);
        }
    }
}

/// Of two writers of one version, in two processes, one gets through and the other is told what is
/// there.
#[tokio::test]
async fn of_two_lone_saves_of_one_version_one_is_applied() {
    let schema = made().await;
    let stores = [opened(&schema).await, opened(&schema).await];
    let mut before = begun(&stores[0], "p").await;
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
}

/// A holder that was taken the profile from goes on saving.
#[tokio::test]
async fn a_lone_save_of_an_earlier_holder_is_refused() {
    let schema = made().await;
    let (old, new) = (opened(&schema).await, opened(&schema).await);
    begun(&old, "p").await;
    let saved = make(&old, vec![write(&state(&old, &key("p")).await, "2")]).await;
    let held = old.commit_one(saved).await.unwrap().states.remove(0);
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
    assert_eq!(state(&new, &key("p")).await.value.as_deref(), Some(&b"2"[..]));
}

/// What the rules do not judge in memory, the statement has to look at: the contents.
#[tokio::test]
async fn a_lone_save_for_other_contents_is_refused() {
    let schema = made().await;
    let store = opened(&schema).await;
    let before = begun(&store, "p").await;
    let late = make(&store, vec![write(&before, "late")]).await;
    PostgresStore::renew_incarnation(&super::owners(&schema)).await.unwrap();
    let err = store.commit_one(late).await.unwrap_err();
    assert!(matches!(err, StoreError::Replaced { .. }), "{err}");
    assert_eq!(state(&store, &key("p")).await.version, 1);
}

/// The time of a version is the server's, and no version is older than the one before it.
#[tokio::test]
async fn a_lone_save_is_stored_at_a_time_of_the_servers_clock() {
    let schema = made().await;
    let stores = [opened(&schema).await, opened(&schema).await];
    let mut before = begun(&stores[0], "p").await;
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
}

/// A lone save that stands at the primary but not at its standby is neither applied nor refused,
/// until the same id tells.
#[tokio::test]
async fn a_lone_save_that_its_standby_does_not_confirm_is_indeterminate() {
    let (mut server, store, mut options) = server_of_its_own(Duration::from_secs(1)).await;
    (options.clock, options.env) = (PostgresClock::Env, ManualClock::default().env(1));
    let mut all = Vec::new();
    for (name, cancelled, limit, told) in
        [("p", false, 1, "in time"), ("q", true, 60, "synchronous replication")]
    {
        options.statement_timeout = Duration::from_secs(limit);
        let waiting = PostgresStore::open(options.clone()).await.unwrap();
        let first = begun(&waiting, name).await;
        let commit = make(&waiting, vec![write(&first, "2")]).await;
        all.push((waiting, first.key, commit, cancelled, told));
    }
    wait_for_a_standby(&mut server);
    for (waiting, key, commit, cancelled, told) in all {
        // Until its connections are those to the server that was started again.
        while waiting.identity().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let waits = "application_name = 'waits' AND wait_event = 'SyncRep' AND query LIKE 'WITH %'";
        let cancel = async {
            let sql = format!("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {waits}");
            while cancelled && server.sql(&sql).unwrap().trim().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::join!(waiting.commit_one(commit.clone()), cancel).0 {
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

/// The connection breaks instead of carrying the answer, and does so again for each that tells of
/// the author. The commit is unknown, and was applied once.
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
    let mut change = write(&before, "2");
    if let Change::Write { author, .. } = &mut change {
        "the one whose answers are lost".clone_into(author);
    }
    let commit = make(&far, vec![change]).await;
    proxy.set(Link::LosingAnswersWith(b"the one whose answers are lost".to_vec()));
    let err = far.commit_one(commit.clone()).await.unwrap_err();
    assert!(matches!(err, StoreError::Indeterminate { .. }), "{err}");
    assert!(proxy.lost_answers() > 1, "it was asked again, on another connection");
    proxy.set(Link::Open);
    for store in [&near, &far] {
        assert!(store.commit_one(commit.clone()).await.unwrap().already_applied);
    }
    assert_eq!(state(&near, &key("p")).await.version, 2);
}

/// The connection breaks instead of carrying the answer. Another one tells what became of the save.
#[tokio::test]
async fn a_lone_save_whose_connection_breaks_is_asked_for_on_another_one() {
    let server = PostgresServer::start().unwrap();
    let proxy = Proxy::to_port(server.port()).await.unwrap();
    PostgresStore::migrate(&server.url().parse().unwrap(), None).await.unwrap();
    let mut options: PostgresOptions = server.url_through(proxy.port()).parse().unwrap();
    (options.clock, options.env) = (PostgresClock::Env, ManualClock::default().env(1));
    let store = PostgresStore::open(options).await.unwrap();
    let before = begun(&store, "p").await;
    let commit = make(&store, vec![write(&before, "2")]).await;
    proxy.set(Link::losing_lone_answers());
    let reply = store.commit_one(commit).await.unwrap();
    proxy.set(Link::Open);
    assert!(reply.already_applied, "it had been applied");
    assert_eq!((reply.states[0].version, proxy.lost_answers()), (2, 1));
}
