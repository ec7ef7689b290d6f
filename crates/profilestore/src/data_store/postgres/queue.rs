//! Commits that wait for a connection, and which of them may share a transaction.
//!
//! A batch holds no two commits of which one changes what the other touches, and none that touches
//! what a batch under way changes: so each sees what was there before the batch, whatever their
//! order, and batches under way at once do not wait for each other's rows. A commit that has to
//! wait keeps its place: what comes behind it and touches the same waits too.

use std::{
    collections::{HashMap, HashSet, VecDeque},
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

    /// Puts commits at the end, behind each other, and says whether another writer is to be
    /// started. None: there was no room for the commit before the deadline.
    pub(super) async fn push(
        &self,
        commits: Vec<Commit>,
        now: Instant,
        deadline: Option<Instant>,
    ) -> (Vec<Option<Answer>>, bool) {
        let mut answers = Vec::with_capacity(commits.len());
        let mut start = false;
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
            let mut waiting = self.waiting.lock();
            if urgent {
                waiting.urgent.push_back(job)
            } else {
                waiting.others.push_back(job)
            }
            if !start && waiting.writing < self.writers {
                waiting.writing += 1;
                start = true;
            }
        }
        (answers, start)
    }

    /// The next transaction; None when nothing may be written now, and the writer that asks is to
    /// end.
    pub(super) fn take(self: &Arc<Self>) -> Option<Taken> {
        let mut waiting = self.waiting.lock();
        let Waiting { urgent, others, in_use, writing } = &mut *waiting;
        metrics::gauge!("profilestore_postgres_queue_commits")
            .set((urgent.len() + others.len()) as f64);
        let mut taken = Taken { jobs: Vec::new(), touches: Vec::new(), queue: self.clone() };
        let (mut bytes, mut alone, mut passed_over) = (0, InUse::default(), HashSet::new());
        for queue in [urgent, others] {
            let mut kept = Vec::new();
            for _ in 0..self.batch * LOOK_AT {
                if taken.jobs.len() == self.batch || bytes >= BATCH_BYTES {
                    break;
                }
                let Some(job) = queue.pop_front() else { break };
                let free = in_use.admits(&job.touches)
                    && alone.admits(&job.touches)
                    && !job.touches.iter().any(|(thing, _)| passed_over.contains(thing))
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
                    passed_over.extend(job.touches.iter().map(|(thing, _)| thing.clone()));
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
            Change::RegisterServer { id, .. }
            | Change::RenewServer { id, .. }
            | Change::RehostServer { id, .. } => add(Thing::Server(*id), Use::Alone),
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
