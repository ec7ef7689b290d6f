//! Commits of one statement beside a store in memory, which has nothing but the rules.

use profilestore::{
    MessageId,
    data_store::{
        Change, Commit, CommitId, DataStore, DataStoreExt as _, HostId, Incarnation, KeyState,
        LeaseState, MemoryStore, NewMessage, NewValue, Order, PostgresStore, Returning, ServerId,
        VersionQuery, VersionRef,
    },
    env::{Env, ManualClock},
};

use super::{
    commits::{holder, key, state, write},
    made, timed,
};

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

    /// A commit of one profile's lease, with what goes with it.
    fn changes(&self, now: &KeyState, servers: &[ServerId], host: HostId) -> Vec<Change> {
        let lease = self.lease(now, servers);
        match self.draw(6) {
            0 => vec![lease],
            1 => vec![Change::Check { key: now.key.clone(), epoch: now.epoch }, lease],
            2 => vec![lease, Change::Check { key: now.key.clone(), epoch: now.epoch }],
            3 => {
                let host = if self.draw(3) == 0 { HostId(self.drawn.uuid()) } else { host };
                let id = servers[usize::try_from(self.draw(2)).unwrap()];
                vec![self.save(now), lease, Change::CheckHost { id, host }]
            }
            4 => vec![Change::Check { key: now.key.clone(), epoch: now.epoch + self.draw(3) / 2 }],
            _ => vec![self.save(now), lease],
        }
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
        let holder = server.map(|id| holder(*id));
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
    as_the_rules_say(1).await;
}

/// The same of changes of the lease, on rows that this process or another one has changed since.
#[tokio::test]
async fn a_lone_change_of_the_lease_does_what_the_rules_say() {
    as_the_rules_say(12).await;
}

/// `leases`: how many of twenty commits change the lease.
async fn as_the_rules_say(leases: u64) {
    for seed in 0..6 {
        let clock = ManualClock::default();
        let both = Both::made(&clock, seed).await;
        let servers = [1, 2].map(|_| ServerId(both.drawn.uuid()));
        let host = HostId(both.drawn.uuid());
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
                host: (id == servers[1]).then_some(host),
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
            let drawn = both.draw(20);
            let mut next = match drawn.saturating_sub(leases - 1) {
                0 => commit(both.changes(&now, &servers, host), from, returning),
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
                    // One by the holder, without a fingerprint, cannot be aborted.
                    let next = commit(vec![both.save(&now)], from, returning);
                    let next = Commit { fingerprint: Some(both.draw(3)), ..next };
                    let abort = Change::Abort { commit: next.id };
                    both.commit(&commit(vec![abort], None, Returning::HEAD)).await;
                    next
                }
                _ => commit(vec![both.save(&now)], from, returning),
            };
            if next.fingerprint.is_none() && both.draw(5) == 0 {
                next.fingerprint = Some(both.draw(3));
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
