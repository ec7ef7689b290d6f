//! The driver that keeps this server's lease, and brings notices and hints to the sessions.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::table::Table;
use crate::{
    link::{
        Link,
        renew::{Confirmation, RETRY, Renewal, Renewed},
    },
    messenger::Hint,
};

/// Renews until the engine is shut down, and hands on hints as they come.
pub(super) async fn run(link: Arc<Link>, table: Arc<Table>, mut hints: mpsc::Receiver<Hint>) {
    let mut renewal = Renewal::default();
    let mut open = true;
    let mut next = link.env.after(link.settings().renew_period);
    loop {
        tokio::select! {
            biased;
            () = link.env.sleep_until(next) => {
                next = match renewal.renew(&link).await {
                    Renewed::Yes(confirmation) => {
                        confirmed(&link, &table, &confirmation);
                        link.env.after(link.settings().renew_period)
                    }
                    Renewed::NotNow => link.env.now() + RETRY.min(link.settings().renew_period),
                    Renewed::Over(found) => {
                        if let Some(new_hints) = renewal.begin_anew(&link, found.is_some()).await {
                            begun_anew(&table, found.is_some());
                            hints = new_hints;
                            open = true;
                            link.env.after(link.settings().renew_period)
                        } else {
                            link.env.now() + RETRY
                        }
                    }
                };
                link.health.judge(link.env.now(), &link.settings());
            }
            // What a call met need not wait for the period's end.
            () = link.renew_now.notified() => next = link.env.now(),
            hint = hints.recv(), if open => match hint {
                Some(Hint::Look(key)) => {
                    if defect!(HintTakenAsTruth)
                        && let Some(session) = table.live(&key)
                    {
                        session.queue_lose("a hint came");
                    }
                    table.look(&key);
                }
                Some(Hint::Gap) => {
                    table.wake_all_starts();
                    // Notices tell what the lost hints were about.
                    next = link.env.now();
                }
                // The messenger is gone; notices remain.
                None => open = false,
            },
        }
    }
}

/// The lease is renewed. The sessions that the notices are about are held back first, then look.
///
/// A confirmation must not make a session active when a notice in the same answer may tell of its
/// end. Until it has looked, only what was confirmed before counts for it.
fn confirmed(link: &Link, table: &Table, confirmation: &Confirmation) {
    if !defect!(ConfirmedBeforeNotices) {
        let before = link.confirmed_at();
        for session in confirmation.notices().iter().filter_map(|notice| table.live(&notice.key)) {
            session.unseen.note(before);
        }
    }
    link.confirm(confirmation);
    for notice in confirmation.notices() {
        table.look(&notice.key);
    }
}

/// A new incarnation of this server has begun. It adopts the sessions that no other server took. In
/// a restored backup there is nothing to adopt.
fn begun_anew(table: &Table, replaced: bool) {
    let sessions = table.sessions();
    tracing::info!(sessions = sessions.len(), "a new incarnation of this server has begun");
    for session in sessions {
        if replaced {
            session.queue_lose("the store's contents were replaced by a backup");
        } else {
            session.queue_adopt();
        }
    }
}
