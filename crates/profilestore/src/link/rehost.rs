//! Taking over the hosting of a game server that runs in another process: its row names this host
//! from then on, and every earlier host is refused.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{Link, Parts, hosting::Hosting, lease::Lease, renew::RETRY};
use crate::{
    data_store::{
        Change, Commit, CommitId, CommitReply, ConflictKind, DataStoreExt, Incarnation, Returning,
        ServerId, ServerRow, StoreError,
    },
    error::{Error, ErrorKind, Result},
    messenger::Hint,
    ownership::Contact,
};

/// How often it is tried while the store fails, and while other hosts take it too.
const ATTEMPTS: u32 = 6;

/// What became of it.
pub(crate) enum Rehosted {
    Yes(Box<Lease>, mpsc::Receiver<Hint>),
    /// The row is dead: the game server takes a new incarnation.
    Dead,
    /// The store's contents are others than those that the game server knew.
    Replaced,
    /// There is no such row for this owner.
    Unknown,
}

/// Takes a game server over that is registered in `incarnation`, and makes `parts` what its row
/// says.
pub(crate) async fn rehost(
    parts: &mut Parts,
    hosting: &Hosting,
    server: ServerId,
    incarnation: Incarnation,
) -> Result<Rehosted> {
    // First, so that no hint is lost between the take-over and subscribing.
    let hints = parts.messenger.subscribe(server).await;
    // No row has a lesser one: the first refusal shows the row, whose owner is looked at before it
    // is taken.
    let mut generation = 0;
    for _ in 0..ATTEMPTS {
        let commit = Commit {
            id: CommitId(parts.env.uuid()),
            incarnation,
            from: Some(server),
            fingerprint: None,
            changes: vec![Change::RehostServer { id: server, generation, host: hosting.host }],
            returning: Returning::HEAD,
        };
        let sent = parts.env.now();
        match settle(parts, &commit).await {
            Ok(reply) => match reply.server.clone() {
                Some(row) if row.host == Some(hosting.host) => {
                    let lease = lease_of(parts, &row, incarnation, sent, &reply);
                    take_over_parts(parts, row);
                    return Ok(Rehosted::Yes(Box::new(lease), hints));
                }
                // A later host was faster than the answer.
                _ => return Err(contended()),
            },
            Err(StoreError::Replaced { .. }) => return Ok(Rehosted::Replaced),
            Err(StoreError::Conflict(conflict)) => {
                let Some(row) = conflict.server else { return Ok(Rehosted::Unknown) };
                if row.owner.as_ref() != Some(&hosting.owner) && !defect!(OwnerUnchecked) {
                    return Ok(Rehosted::Unknown);
                }
                if conflict.kind != ConflictKind::Hosted || row.dead {
                    return Ok(Rehosted::Dead);
                }
                generation = row.generation + 1;
            }
            Err(error) => {
                let message = "the game server could not be taken over from its earlier host";
                return Err(Error::new(ErrorKind::Unavailable, message).caused_by(error));
            }
        }
    }
    Err(contended())
}

/// Tries one commit for as long as the store fails.
async fn settle(parts: &Parts, commit: &Commit) -> Result<CommitReply, StoreError> {
    let mut attempts = 0;
    loop {
        match parts.store.commit_one(commit.clone()).await {
            Err(error) if error.is_transient() && attempts + 1 < ATTEMPTS => {
                attempts += 1;
                tokio::time::sleep(RETRY).await;
            }
            other => return other,
        }
    }
}

fn contended() -> Error {
    let message = "other processes host the game server at the same moment; try again";
    Error::new(ErrorKind::Unavailable, message)
}

fn lease_of(
    parts: &Parts,
    row: &ServerRow,
    incarnation: Incarnation,
    sent: tokio::time::Instant,
    reply: &CommitReply,
) -> Lease {
    let mut contact = Contact::default();
    contact.observe(sent, parts.env.now(), reply.now_ms, Link::max_gap(&parts.settings));
    Lease {
        server: row.id,
        incarnation,
        revision: row.revision,
        lease_time: lease_time(row),
        confirmed_at: sent,
        contact,
        renewals: contact,
    }
}

/// The engine is the one of the game server that the row describes.
fn take_over_parts(parts: &mut Parts, row: ServerRow) {
    parts.settings.lease_time = lease_time(&row);
    (parts.place_id, parts.job_id) = (row.place_id, row.job_id);
}

fn lease_time(row: &ServerRow) -> Duration {
    Duration::from_millis(row.lease_ms.max(0).unsigned_abs())
}
