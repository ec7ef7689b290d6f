//! Sweeping now and then what is past its time: old versions, receipts, outcomes, and the rows of
//! dead servers.

use std::{sync::Arc, time::Duration};

use crate::{
    data_store::{Change, ConflictKind, Retention, Returning, ServerRow},
    link::Link,
    ownership::{self, Death},
};

/// How soon after its start a server sweeps for the first time, so that short-lived servers do
/// their part.
pub(crate) const FIRST_SWEEP: Duration = Duration::from_secs(600);

/// Sweeps until the engine is stopped.
pub(super) async fn run(link: Arc<Link>) {
    let mut longest = FIRST_SWEEP;
    loop {
        let Some(period) = link.settings().sweep_period else {
            // It may be set later.
            tokio::time::sleep(FIRST_SWEEP).await;
            continue;
        };
        tokio::time::sleep(period.min(longest)).await;
        longest = Duration::MAX;
        once(&link).await;
    }
}

/// Sweeps now.
pub(crate) async fn once(link: &Link) {
    bury_the_dead(link).await;
    sweep_store(link).await;
}

/// Declares every server dead whose row says so, by the rule that a start goes by. No start does so
/// when no other server wants one of its profiles; the store deletes such rows, with their notices,
/// some days later.
async fn bury_the_dead(link: &Link) {
    let sent = link.env.now();
    let (now_ms, rows) = match link.store.servers().await {
        Ok(found) => found,
        Err(error) => return link.note_error(&error, None),
    };
    // The clock that is about to be judged by may have stepped since the last renewal.
    link.observe(sent, now_ms);
    for row in rows.iter().filter(|row| !row.dead && row.id != link.server()) {
        if ownership::judge(row, now_ms, link.contact(), &link.periods()) == Death::Dead {
            bury(link, row).await;
        }
    }
}

async fn bury(link: &Link, row: &ServerRow) {
    let change = Change::MarkDead { id: row.id, revision: row.revision };
    let commit = link.new_commit(vec![change], Returning::HEAD);
    match link.try_commit(&commit).await {
        Ok(_) => {
            metrics::counter!("profilestore_dead_servers_found_total").increment(1);
            tracing::info!(server = %row.id, job_id = row.job_id, "a server that has not renewed its lease is dead");
        }
        // It has renewed, or another server was faster.
        Err(error) if error.conflict() == Some(&ConflictKind::Server) => {}
        // The next sweep finds it again.
        Err(error) => {
            tracing::debug!(%error, server = %row.id, "a dead server's row stays for now")
        }
    }
}

async fn sweep_store(link: &Link) {
    let history_ms =
        i64::try_from(link.settings().history_retention.as_millis()).unwrap_or(i64::MAX);
    let mut cursor = None;
    loop {
        match link.store.sweep(Retention { history_ms }, cursor).await {
            Ok(report) => {
                metrics::counter!("profilestore_swept_versions_total").increment(report.versions);
                cursor = report.next;
            }
            Err(error) => return link.note_error(&error, None),
        }
        if cursor.is_none() {
            return;
        }
    }
}
