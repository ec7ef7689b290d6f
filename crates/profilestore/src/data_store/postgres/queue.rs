//! Commits that wait for a connection, and which of them may share a transaction.
//!
//! A batch holds no two commits of which one changes what the other touches, and none that touches
//! what a batch under way changes: so each sees what was there before the batch, whatever their
//! order, and batches under way at once do not wait for each other's rows. A commit that has to
//! wait keeps its place: what comes behind it and touches the same waits too, unless both share it.
//!
//! Renewals share no batch with anything else. A batch waits for every row that one of its commits
//! needs, and a lock that another program holds on a profile must not keep a server from renewing.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

use crate::{
    data_store::{Change, Commit, CommitId, CommitReply, ServerId, StoreError, rules},
    key::ProfileKey,
};

/// How many bytes of commits may wait; beyond that callers wait for room. Renewals do not.
const ROOM_BYTES: usize = 64 << 20;

/// How many bytes of values may share a transaction, besides one commit that has more by itself.
const BATCH_BYTES: usize = 8 << 20;

/// How many waiting commits are looked at for each one that a batch may hold.
const LOOK_AT: usize = 4;

pub(super) type Reply = Result<CommitReply, StoreError>;

/// A commit that waits.
pub(super) struct Job {
    pub(super) commit: Commit,
    pub(super) since: Instant,
    bytes: usize,
    touches: Vec<(Thing, Use)>,
    turn: Turn,
    reply: oneshot::Sender<Reply>,
    _room: Option<OwnedSemaphorePermit>,
}

/// Who decides about a commit that waits: the first to ask, which is either the transaction that
/// takes it, or its caller when the caller's time is up.
#[derive(Debug, Clone, Default)]
pub(super) struct Turn(Arc<AtomicBool>);

impl Turn {
    /// True for the first to ask.
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, SeqCst)
    }
}

/// The answer to come to a commit.
pub(super) struct Answer {
    pub(super) reply: oneshot::Receiver<Reply>,
    pub(super) turn: Turn,
}

impl Job {
    pub(super) fn answer(self, reply: Reply) {
        // The caller may have gone.
        drop(self.reply.send(reply));
    }
}

/// What commits meet in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Thing {
    Key(ProfileKey),
    Server(ServerId),
    /// The renewal of a server's row: one at a time, beside what only needs the row to be there.
    Renewal(ServerId),
    Commit(CommitId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Together with others that share it.
    Shared,
    Alone,
}

/// What is in use, by how many; None: by one alone.
#[derive(Default)]
struct InUse(HashMap<Thing, Option<usize>>);

impl InUse {
    fn admits(&self, touches: &[(Thing, Use)]) -> bool {
        touches.iter().all(|(thing, way)| match self.0.get(thing) {
            None => true,
            Some(users) => users.is_some() && *way == Use::Shared,
        })
    }

    fn add(&mut self, touches: &[(Thing, Use)]) {
        for (thing, way) in touches {
            match way {
                Use::Alone => {
                    self.0.insert(thing.clone(), None);
                }
                Use::Shared => {
                    *self.0.entry(thing.clone()).or_insert(Some(0)) = Some(self.users(thing) + 1)
                }
            }
        }
    }

    fn users(&self, thing: &Thing) -> usize {
        self.0.get(thing).copied().flatten().unwrap_or(0)
    }

    fn remove(&mut self, touches: &[(Thing, Use)]) {
        for (thing, _) in touches {
            match self.users(thing) {
                0 | 1 => drop(self.0.remove(thing)),
                users => drop(self.0.insert(thing.clone(), Some(users - 1))),
            }
        }
    }
}

/// What commits touch that keep their place because they have to wait.
#[derive(Default)]
struct PassedOver(HashMap<Thing, Use>);

impl PassedOver {
    /// Whether a commit behind them may go first.
    fn lets_by(&self, touches: &[(Thing, Use)]) -> bool {
        touches.iter().all(|(thing, way)| match self.0.get(thing) {
            None => true,
            Some(before) => (*before, *way) == (Use::Shared, Use::Shared),
        })
    }

    fn add(&mut self, touches: &[(Thing, Use)]) {
        for (thing, way) in touches {
            let before = self.0.entry(thing.clone()).or_insert(*way);
            if *way == Use::Alone {
                *before = Use::Alone;
            }
        }
    }
}

/// The waiting commits, and how many tasks serve them.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    room: Arc<Semaphore>,
    writers: usize,
    batch: usize,
}

#[derive(Default)]
struct Waiting {
    /// Those with a renewal.
    urgent: VecDeque<Job>,
    others: VecDeque<Job>,
    in_use: InUse,
    writing: usize,
}

/// The commits of a transaction. Dropped, it frees what they touch.
pub(super) struct Taken {
    pub(super) jobs: Vec<Job>,
    touches: Vec<(Thing, Use)>,
    queue: Arc<Queue>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.queue.waiting.lock().in_use.remove(&self.touches);
    }
}

impl Queue {
    pub(super) fn new(writers: usize, batch: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            room: Arc::new(Semaphore::new(ROOM_BYTES)),
            writers: writers.max(1),
            batch: batch.max(1),
        }
    }

    /// Puts commits at the end, behind each other. Another writer is started with the first of
    /// them, if there may be one more: the others may have to wait for the room that it makes, and
    /// their caller may give up meanwhile. None: there was no room for the commit before the
    /// deadline.
    pub(super) async fn push(
        &self,
        commits: Vec<Commit>,
        now: Instant,
        deadline: Option<Instant>,
        start: impl Fn() + Send,
    ) -> Vec<Option<Answer>> {
        let mut answers = Vec::with_capacity(commits.len());
        let mut started = false;
        for commit in commits {
            let urgent = rules::renewed(&commit).is_some();
            let bytes = commit.bytes();
            let room = if urgent {
                None
            } else {
                let permits = u32::try_from(bytes.min(ROOM_BYTES)).unwrap_or(1);
                match by(deadline, self.room.clone().acquire_many_owned(permits)).await {
                    Some(room) => room.ok(),
                    None => {
                        answers.push(None);
                        continue;
                    }
                }
            };
            let ((reply, answer), turn, touches) =
                (oneshot::channel(), Turn::default(), touches(&commit));
            answers.push(Some(Answer { reply: answer, turn: turn.clone() }));
            let job = Job { commit, since: now, bytes, touches, turn, reply, _room: room };
            let starts = {
                let mut waiting = self.waiting.lock();
                if urgent {
                    waiting.urgent.push_back(job)
                } else {
                    waiting.others.push_back(job)
                }
                // The one that was started may have ended before the rest waited.
                let needed = !started || waiting.writing == 0;
                let starts = needed && waiting.writing < self.writers;
                waiting.writing += usize::from(starts);
                starts
            };
            if starts {
                // Outside of the lock: a runtime that is shutting down drops the writer at once.
                start();
                started = true;
            }
        }
        answers
    }

    /// The next transaction, of renewals alone while some wait that may be written. None when
    /// nothing may be written now, and the writer that asks is to end.
    pub(super) fn take(self: &Arc<Self>) -> Option<Taken> {
        let mut waiting = self.waiting.lock();
        let Waiting { urgent, others, in_use, writing } = &mut *waiting;
        metrics::gauge!("profilestore_postgres_queue_commits")
            .set((urgent.len() + others.len()) as f64);
        let mut taken = Taken { jobs: Vec::new(), touches: Vec::new(), queue: self.clone() };
        let (mut bytes, mut alone, mut passed_over) = (0, InUse::default(), PassedOver::default());
        for queue in [urgent, others] {
            if !taken.jobs.is_empty() {
                break;
            }
            let mut kept = Vec::new();
            for _ in 0..self.batch * LOOK_AT {
                if taken.jobs.len() == self.batch || bytes >= BATCH_BYTES {
                    break;
                }
                let Some(job) = queue.pop_front() else { break };
                let free = in_use.admits(&job.touches)
                    && alone.admits(&job.touches)
                    && passed_over.lets_by(&job.touches)
                    && (taken.jobs.is_empty() || bytes + job.bytes <= BATCH_BYTES);
                if free && !job.turn.take() {
                    // Its caller has given up.
                    continue;
                }
                if free {
                    bytes += job.bytes;
                    alone.add(&job.touches);
                    taken.touches.extend(job.touches.iter().cloned());
                    taken.jobs.push(job);
                } else {
                    passed_over.add(&job.touches);
                    kept.push(job);
                }
            }
            kept.into_iter().rev().for_each(|job| queue.push_front(job));
        }
        in_use.add(&taken.touches);
        if taken.jobs.is_empty() {
            *writing -= 1;
            drop(waiting);
            return None;
        }
        Some(taken)
    }

    /// A writer ends before its time, by a panic or because the runtime shuts down.
    pub(super) fn writer_lost(&self) {
        let lost: Vec<Job> = {
            let mut waiting = self.waiting.lock();
            waiting.writing -= 1;
            if waiting.writing > 0 {
                return;
            }
            let urgent: Vec<_> = waiting.urgent.drain(..).collect();
            urgent.into_iter().chain(waiting.others.drain(..)).collect()
        };
        for job in lost {
            job.answer(Err(StoreError::Unavailable {
                reason: "the writer stopped before the commit's turn".into(),
            }));
        }
    }
}

/// Waits for something until a deadline; None: it came too late.
pub(super) async fn by<T>(deadline: Option<Instant>, wait: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, wait).await.ok(),
        None => Some(wait.await),
    }
}

/// What a commit touches, each thing once.
fn touches(commit: &Commit) -> Vec<(Thing, Use)> {
    let mut touches: Vec<(Thing, Use)> = vec![(Thing::Commit(commit.id), Use::Alone)];
    let mut add =
        |thing: Thing, way: Use| match touches.iter_mut().find(|(other, _)| *other == thing) {
            Some((_, other)) if way == Use::Alone => *other = way,
            Some(_) => {}
            None => touches.push((thing, way)),
        };
    for change in &commit.changes {
        match change {
            Change::Check { key, .. } => add(Thing::Key(key.clone()), Use::Shared),
            Change::RegisterServer { id, .. } | Change::RehostServer { id, .. } => {
                add(Thing::Server(*id), Use::Alone)
            }
            Change::RenewServer { id, .. } => {
                add(Thing::Server(*id), Use::Shared);
                add(Thing::Renewal(*id), Use::Alone);
            }
            // Many profiles of one server begin and end at once, or are taken over when it is dead.
            Change::CheckHost { id, .. } | Change::MarkDead { id, .. } => {
                add(Thing::Server(*id), Use::Shared)
            }
            Change::Abort { commit } => add(Thing::Commit(*commit), Use::Alone),
            Change::Lease { key, lease, .. } => {
                add(Thing::Key(key.clone()), Use::Alone);
                if let Some(server) = lease.holder.as_ref().and_then(|holder| holder.server) {
                    add(Thing::Server(server), Use::Shared);
                }
            }
            change => {
                if let Some(key) = change.key() {
                    add(Thing::Key(key.clone()), Use::Alone);
                }
            }
        }
    }
    touches
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::FutureExt as _;
    use uuid::Uuid;

    use super::*;
    use crate::data_store::{Cause, Holder, Incarnation, LeaseState, NewValue, Returning};

    const SERVER: ServerId = ServerId(Uuid::from_u128(7));

    fn commit(n: u128, change: Change) -> Commit {
        Commit {
            id: CommitId(Uuid::from_u128(n)),
            incarnation: Incarnation(Uuid::nil()),
            from: None,
            changes: vec![change],
            returning: Returning::HEAD,
            fingerprint: None,
        }
    }

    fn key(name: &str) -> ProfileKey {
        ProfileKey::new("PlayerData", "global", name).expect("a valid name")
    }

    fn save(name: &str) -> Change {
        Change::Write {
            key: key(name),
            epoch: 1,
            version: 1,
            value: NewValue::Tombstone,
            user_ids: Vec::new(),
            cause: Cause::Save,
            author: String::new(),
            keep_previous: false,
            seal: false,
            imported: None,
        }
    }

    /// One that takes all the room.
    fn large(name: &str) -> Change {
        let mut large = save(name);
        if let Change::Write { value, .. } = &mut large {
            *value = NewValue::Bytes(vec![0u8; ROOM_BYTES].into());
        }
        large
    }

    /// The start of a session, which needs its server alive.
    fn start(name: &str) -> Change {
        let holder = Holder {
            server: Some(SERVER),
            place_id: 1,
            job_id: "job".into(),
            session: name.into(),
            since_ms: 0,
            last_update_ms: None,
            document: None,
        };
        let lease = LeaseState { holder: Some(holder), ..LeaseState::default() };
        Change::Lease { key: key(name), revision: 0, lease, raise_epoch: true, seal: false }
    }

    async fn waiting(changes: Vec<Change>) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(4, 100));
        let commits = (1..).zip(changes).map(|(n, change)| commit(n, change)).collect();
        let now = crate::env::Env::system().now();
        drop(queue.push(commits, now, None, || ()).await);
        queue
    }

    fn ids(taken: &Taken) -> Vec<u128> {
        taken.jobs.iter().map(|job| job.commit.id.0.as_u128()).collect()
    }

    /// A lock on a profile held up the renewal of the server that saved it.
    #[tokio::test]
    async fn renewals_share_no_transaction_with_saves() {
        let renewal =
            Change::RenewServer { id: SERVER, revision: 1, host: None, acknowledged: Vec::new() };
        let queue = waiting(vec![save("a"), renewal, save("b")]).await;
        let first = queue.take().expect("something waits");
        assert_eq!(ids(&first), [2]);
        let second = queue.take().expect("something waits");
        assert_eq!(ids(&second), [1, 3]);
    }

    /// A start that had to wait for its profile held up every other start of its server.
    #[tokio::test]
    async fn a_start_that_waits_holds_up_no_other_start() {
        let queue = waiting(vec![save("a"), start("a"), start("b"), save("b")]).await;
        let first = queue.take().expect("something waits");
        assert_eq!(ids(&first), [1, 3], "and what comes behind the second waits for it");
        assert!(queue.take().is_none());
        drop(first);
        let second = queue.take().expect("something waits");
        assert_eq!(ids(&second), [2, 4]);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_by_its_bytes() {
        let queue = waiting(vec![large("a")]).await;
        let commits = vec![commit(2, save("b"))];
        let mut small = Box::pin(queue.push(commits, Instant::now(), None, || ()));
        assert!(small.as_mut().now_or_never().is_none());
        assert_eq!(queue.take().map(|taken| ids(&taken)), Some(vec![1]));
        assert!(small.as_mut().now_or_never().is_some(), "there is room again");
    }

    /// Its writer was counted and never started: when that had happened to each of them, nothing
    /// was written any more.
    #[tokio::test]
    async fn a_call_that_gives_up_while_it_waits_for_room_has_started_its_writer() {
        let queue = Arc::new(Queue::new(4, 100));
        let started = AtomicUsize::new(0);
        let start = || {
            started.fetch_add(1, SeqCst);
        };
        let commits = vec![commit(1, large("a")), commit(2, save("b"))];
        let now = crate::env::Env::system().now();
        let mut pushed = Box::pin(queue.push(commits, now, None, start));
        assert!(pushed.as_mut().now_or_never().is_none());
        assert_eq!(started.load(SeqCst), 1);
        let first = queue.take().expect("something waits");
        assert_eq!(ids(&first), [1]);
        // That writer ends before the rest waits: another one is started for it.
        drop(first);
        assert!(queue.take().is_none());
        assert!(pushed.as_mut().now_or_never().is_some());
        assert_eq!(started.load(SeqCst), 2);
        assert_eq!(ids(&queue.take().expect("something waits")), [2]);
    }
}
