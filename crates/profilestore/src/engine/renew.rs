//! The task that keeps this server's lease, brings notices and hints to the sessions, and recovers when the lease was lost.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use super::{Engine, Parts, lease::Contact, lease::Lease};
use crate::{
    data_store::{Change, Commit, CommitId, ConflictKind, DataStoreExt, Incarnation, Notice, Returning, ServerId, StoreError},
    error::{Error, ErrorKind, Result},
    messenger::Hint,
};

/// How soon a renewal that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Registers a new incarnation of this server. Fails when the store cannot be reached.
pub(crate) async fn register(parts: &Parts) -> Result<(Lease, mpsc::Receiver<Hint>)> {
    let refused = |error: StoreError| {
        Error::new(ErrorKind::Unavailable, "the game server could not register in the store").caused_by(error)
    };
    let mut attempts = 0;
    let identity = loop {
        match parts.store.identity().await {
            Err(error) if error.is_transient() && attempts < 5 => {
                attempts += 1;
                tokio::time::sleep(RETRY).await;
            }
            other => break other.map_err(refused)?,
        }
    };
    let server = ServerId(parts.env.uuid());
    // First, so that no hint is lost between registering and subscribing.
    let hints = parts.messenger.subscribe(server).await;
    let commit = Commit {
        id: CommitId(parts.env.uuid()),
        incarnation: identity.incarnation,
        from: Some(server),
        changes: vec![registration(server, parts.place_id, &parts.job_id, parts.settings.lease_time)],
        returning: Returning::HEAD,
    };
    let sent = parts.env.now();
    let reply = loop {
        match parts.store.commit_one(commit.clone()).await {
            Err(error) if error.is_transient() && attempts < 5 => {
                attempts += 1;
                tokio::time::sleep(RETRY).await;
            }
            other => break other.map_err(refused)?,
        }
    };
    let mut contact = Contact::default();
    contact.observe(sent, parts.env.now(), reply.now_ms, Engine::max_gap(&parts.settings));
    let revision = reply.server.map_or(1, |row| row.revision);
    let lease_time = parts.settings.lease_time;
    let renewals = contact;
    Ok((Lease { server, incarnation: identity.incarnation, revision, lease_time, confirmed_at: sent, contact, renewals }, hints))
}

fn registration(id: ServerId, place_id: i64, job_id: &str, lease_time: Duration) -> Change {
    Change::RegisterServer {
        id,
        place_id,
        job_id: job_id.to_owned(),
        lease_ms: i64::try_from(lease_time.as_millis()).unwrap_or(i64::MAX),
    }
}

/// Renews until the engine is shut down, and hands on hints as they come.
pub(crate) async fn run(engine: Arc<Engine>, mut hints: mpsc::Receiver<Hint>) {
    let mut renewal = Renewal::default();
    let mut open = true;
    let mut next = engine.env.after(engine.settings().renew_period);
    loop {
        tokio::select! {
            biased;
            () = engine.env.sleep_until(next) => {
                next = match renewal.renew(&engine).await {
                    Renewed::Yes => engine.env.after(engine.settings().renew_period),
                    Renewed::NotNow => engine.env.now() + RETRY.min(engine.settings().renew_period),
                    Renewed::Over(found) => {
                        if let Some(new_hints) = renewal.begin_anew(&engine, found).await {
                            hints = new_hints;
                            open = true;
                            engine.env.after(engine.settings().renew_period)
                        } else {
                            engine.env.now() + RETRY
                        }
                    }
                };
                engine.health.judge(engine.env.now(), &engine.settings());
            }
            // What a call met need not wait for the period's end.
            () = engine.renew_now.notified() => next = engine.env.now(),
            hint = hints.recv(), if open => match hint {
                Some(Hint::Look(key)) => {
                    if defect!(HintTakenAsTruth)
                        && let Some(session) = engine.live(&key)
                    {
                        session.queue_lose("a hint came");
                    }
                    engine.look(&key);
                }
                Some(Hint::Gap) => {
                    engine.wake_all_starts();
                    // Notices hold whatever the lost hints were about.
                    next = engine.env.now();
                }
                // The messenger is gone; notices remain.
                None => open = false,
            },
        }
    }
}

enum Renewed {
    Yes,
    NotNow,
    /// The row is dead, or the store's contents were replaced by these.
    Over(Option<Incarnation>),
}

impl Engine {
    /// A confirmation must not make a session active that a notice in the same answer may tell the end of: until it has
    /// looked, only what was confirmed before counts for it.
    fn hold_back(&self, notices: &[Notice]) {
        let before = self.lease.lock().confirmed_at;
        for session in notices.iter().filter_map(|notice| self.live(&notice.key)) {
            session.unseen.note(before);
        }
    }
}

#[derive(Default)]
struct Renewal {
    /// A renewal whose outcome is not known, and when it was first sent: only the same one again tells.
    pending: Option<(Commit, Instant)>,
    acknowledged: Vec<Notice>,
}

impl Renewal {
    async fn renew(&mut self, engine: &Arc<Engine>) -> Renewed {
        let (commit, sent) = self.pending.take().unwrap_or_else(|| {
            let (id, revision) = {
                let lease = engine.lease.lock();
                (lease.server, lease.revision)
            };
            let change = Change::RenewServer { id, revision, acknowledged: std::mem::take(&mut self.acknowledged) };
            (engine.new_commit(vec![change], Returning::HEAD), engine.env.now())
        });
        // A store that does not answer must not keep the next attempt from being made.
        let patience = Engine::max_gap(&engine.settings());
        let asked = engine.env.now();
        let answer = tokio::time::timeout(patience, engine.try_commit(&commit)).await;
        match answer {
            Ok(Ok(reply)) => {
                let received = engine.env.now();
                let max_gap = Engine::max_gap(&engine.settings());
                if !defect!(ConfirmedBeforeNotices) {
                    engine.hold_back(&reply.notices);
                }
                {
                    let mut lease = engine.lease.lock();
                    lease.confirmed_at = sent;
                    lease.contact.observe(asked, received, reply.now_ms, max_gap);
                    lease.renewals.observe(asked, received, reply.now_ms, max_gap);
                    if let Some(row) = &reply.server {
                        lease.revision = row.revision;
                    }
                }
                for notice in &reply.notices {
                    engine.look(&notice.key);
                }
                self.acknowledged = reply.notices;
                Renewed::Yes
            }
            Ok(Err(StoreError::Conflict(conflict))) if conflict.kind == ConflictKind::Server => match conflict.server {
                Some(row) if !row.dead => {
                    engine.lease.lock().revision = row.revision;
                    Renewed::NotNow
                }
                _ => Renewed::Over(None),
            },
            Ok(Err(StoreError::Replaced { found, .. })) => Renewed::Over(Some(found)),
            Ok(Err(StoreError::Unavailable { .. })) => {
                if let Some(Change::RenewServer { acknowledged, .. }) = commit.changes.into_iter().next() {
                    self.acknowledged = acknowledged;
                }
                Renewed::NotNow
            }
            Ok(Err(StoreError::Indeterminate { .. })) | Err(_) => {
                self.pending = Some((commit, sent));
                Renewed::NotNow
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the server's lease could not be renewed");
                Renewed::NotNow
            }
        }
    }

    /// This server was declared dead while it was away: registers a new incarnation and adopts the sessions that nobody took.
    async fn begin_anew(&mut self, engine: &Arc<Engine>, found: Option<Incarnation>) -> Option<mpsc::Receiver<Hint>> {
        tracing::warn!(server = %engine.server(), replaced = found.is_some(), "this server was declared dead; taking a new incarnation");
        metrics::counter!("profilestore_server_deaths_total").increment(1);
        let parts = Parts {
            store: engine.store.clone(),
            messenger: engine.messenger.clone(),
            env: engine.env.clone(),
            settings: (*engine.settings()).clone(),
            place_id: engine.place_id,
            job_id: engine.job_id.clone(),
            health: engine.health.clone(),
        };
        let (lease, hints) = match register(&parts).await {
            Ok(registered) => registered,
            Err(error) => {
                tracing::warn!(%error, "no new incarnation yet");
                return None;
            }
        };
        self.pending = None;
        self.acknowledged.clear();
        *engine.lease.lock() = lease;
        engine.begun_anew.notify_waiters();
        let sessions = engine.sessions();
        tracing::info!(sessions = sessions.len(), "a new incarnation of this server has begun");
        for session in sessions {
            if found.is_some() {
                session.queue_lose("the store's contents were replaced by a backup");
            } else {
                session.queue_adopt();
            }
        }
        Some(hints)
    }
}
