//! This server's row in the store: registering it, renewing it, and registering anew after a death.
//!
//! Answers with what it found. The driver in `engine/notices.rs` tells the sessions of it.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};

use super::{Link, Parts, hosting::Hosting, lease::Lease};
use crate::{
    data_store::{
        Change, Commit, CommitId, CommitReply, ConflictKind, DataStoreExt, Incarnation, Notice,
        Returning, ServerId, StoreError,
    },
    error::{Error, ErrorKind, Result},
    messenger::Hint,
    ownership::Contact,
};

/// How soon a renewal that failed is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// Registers a new incarnation of this server. Fails when the store cannot be reached, or does not
/// answer within a call's time.
///
/// `hosting`: for a game server that runs in another process.
pub(crate) async fn register(
    parts: &Parts,
    hosting: Option<&Hosting>,
) -> Result<(Lease, mpsc::Receiver<Hint>)> {
    let deadline = parts.env.after(parts.settings.call_timeout);
    let registering = Box::pin(try_to_register(parts, hosting));
    let registered = parts.env.timeout_at(deadline, registering).await;
    registered.unwrap_or_else(|_| {
        let message = "the game server could not register: the store has not answered in time";
        Err(Error::new(ErrorKind::Unavailable, message))
    })
}

async fn try_to_register(
    parts: &Parts,
    hosting: Option<&Hosting>,
) -> Result<(Lease, mpsc::Receiver<Hint>)> {
    let refused = |error: StoreError| {
        Error::new(
            ErrorKind::Unavailable,
            "the game server could not register in the \
            store",
        )
        .caused_by(error)
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
        changes: vec![registration(server, parts, hosting)],
        returning: Returning::HEAD,
        fingerprint: None,
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
    contact.observe(sent, parts.env.now(), reply.now_ms, Link::max_gap(&parts.settings));
    let revision = reply.server.map_or(1, |row| row.revision);
    let lease_time = parts.settings.lease_time;
    let renewals = contact;
    Ok((
        Lease {
            server,
            incarnation: identity.incarnation,
            revision,
            lease_time,
            confirmed_at: sent,
            contact,
            renewals,
        },
        hints,
    ))
}

fn registration(id: ServerId, parts: &Parts, hosting: Option<&Hosting>) -> Change {
    Change::RegisterServer {
        id,
        place_id: parts.place_id,
        job_id: parts.job_id.clone(),
        lease_ms: i64::try_from(parts.settings.lease_time.as_millis()).unwrap_or(i64::MAX),
        host: hosting.map(|hosting| hosting.host),
        owner: hosting.map(|hosting| hosting.owner.clone()),
    }
}

/// How a renewal ended.
pub(crate) enum Renewed {
    /// The store has renewed the row. Nothing is confirmed yet: see [`Link::confirm`].
    Yes(Box<Confirmation>),
    NotNow,
    /// The row is dead, or the store's contents were replaced by this incarnation.
    Over(Option<Incarnation>),
}

/// What the store answered to a renewal.
pub(crate) struct Confirmation {
    /// When the renewal was sent first, when this attempt was, and when its answer came.
    sent: Instant,
    asked: Instant,
    received: Instant,
    reply: CommitReply,
}

impl Confirmation {
    /// What this server has yet to look at.
    pub(crate) fn notices(&self) -> &[Notice] {
        &self.reply.notices
    }
}

impl Link {
    /// When the lease was confirmed last.
    pub(crate) fn confirmed_at(&self) -> Instant {
        self.lease.lock().confirmed_at
    }

    /// Makes a renewal count. Before that, the sessions that its notices are about are held back:
    /// otherwise one of them would be active on a confirmation that came with news of its end.
    pub(crate) fn confirm(&self, confirmation: &Confirmation) {
        let Confirmation { sent, asked, received, reply } = confirmation;
        let max_gap = Self::max_gap(&self.settings());
        let mut lease = self.lease.lock();
        lease.confirmed_at = *sent;
        lease.contact.observe(*asked, *received, reply.now_ms, max_gap);
        lease.renewals.observe(*asked, *received, reply.now_ms, max_gap);
        if let Some(row) = &reply.server {
            lease.revision = row.revision;
        }
        drop(lease);
        self.renewals.end();
        self.renewed.notify_waiters();
    }

    /// Waits until a renewal gets through, or for as long as an attempt is apart from the next.
    pub(crate) async fn renewed_or_tried(&self) {
        let _ = tokio::time::timeout(RETRY, self.renewed.notified()).await;
    }
}

/// The renewals of one server, one after the other.
#[derive(Default)]
pub(crate) struct Renewal {
    /// A renewal whose outcome is not known, and when it was first sent: only the same one again
    /// tells.
    pending: Option<(Commit, Instant)>,
    acknowledged: Vec<Notice>,
}

impl Renewal {
    /// Renews once. The notices of an answer are acknowledged by the next renewal.
    pub(crate) async fn renew(&mut self, link: &Link) -> Renewed {
        if self.pending.is_none() {
            link.renewals.begin();
        }
        let renewed = self.renew_once(link).await;
        if self.pending.is_none() && !matches!(renewed, Renewed::Yes(_)) {
            link.renewals.end();
        }
        renewed
    }

    async fn renew_once(&mut self, link: &Link) -> Renewed {
        let (commit, sent) = self.pending.take().unwrap_or_else(|| {
            let (id, revision) = {
                let lease = link.lease.lock();
                (lease.server, lease.revision)
            };
            let change = Change::RenewServer {
                id,
                revision,
                host: link.hosting.as_ref().map(|hosting| hosting.host),
                acknowledged: std::mem::take(&mut self.acknowledged),
            };
            (link.new_commit(vec![change], Returning::HEAD), link.env.now())
        });
        // A store that does not answer must not keep the next attempt from being made.
        let patience = Link::max_gap(&link.settings());
        let asked = link.env.now();
        let answer = tokio::time::timeout(patience, link.try_commit(&commit)).await;
        match answer {
            Ok(Ok(reply)) => {
                self.acknowledged = reply.notices.clone();
                let received = link.env.now();
                Renewed::Yes(Box::new(Confirmation { sent, asked, received, reply }))
            }
            Ok(Err(StoreError::Conflict(conflict))) if conflict.kind == ConflictKind::Server => {
                match conflict.server {
                    Some(row) if !row.dead => {
                        link.lease.lock().revision = row.revision;
                        Renewed::NotNow
                    }
                    _ => Renewed::Over(None),
                }
            }
            // The hosting has stopped.
            Ok(Err(error)) if error.conflict() == Some(&ConflictKind::Hosted) => Renewed::NotNow,
            Ok(Err(StoreError::Replaced { found, .. })) => Renewed::Over(Some(found)),
            Ok(Err(StoreError::Unavailable { .. })) => {
                if let Some(Change::RenewServer { acknowledged, .. }) =
                    commit.changes.into_iter().next()
                {
                    self.acknowledged = acknowledged;
                }
                Renewed::NotNow
            }
            Ok(Err(StoreError::Indeterminate { .. })) => {
                self.pending = Some((commit, sent));
                Renewed::NotNow
            }
            Err(_) => {
                // An attempt that is answered notes its errors itself.
                let reason = "it has not answered a renewal in time".into();
                link.note_error(&StoreError::Unavailable { reason }, None);
                self.pending = Some((commit, sent));
                Renewed::NotNow
            }
            // It is logged already, and not every second.
            Ok(Err(StoreError::TakenAway { .. })) => Renewed::NotNow,
            Ok(Err(error)) => {
                tracing::error!(%error, "the server's lease could not be renewed");
                Renewed::NotNow
            }
        }
    }

    /// This server was declared dead while it was away, or its store was replaced: registers a new
    /// incarnation of it. None: not yet.
    pub(crate) async fn begin_anew(
        &mut self,
        link: &Link,
        replaced: bool,
    ) -> Option<mpsc::Receiver<Hint>> {
        tracing::warn!(server = %link.server(), replaced, "this server was declared dead; taking \
            a new incarnation");
        metrics::counter!("profilestore_server_deaths_total").increment(1);
        let (lease, hints) = match register(&link.parts(), None).await {
            Ok(registered) => registered,
            Err(error) => {
                tracing::warn!(%error, "no new incarnation yet");
                return None;
            }
        };
        self.pending = None;
        self.acknowledged.clear();
        *link.lease.lock() = lease;
        link.begun_anew.notify_waiters();
        link.renewed.notify_waiters();
        Some(hints)
    }
}
