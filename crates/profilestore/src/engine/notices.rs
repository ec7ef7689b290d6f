//! The driver that keeps this server's lease, and brings notices and hints to the sessions.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::table::Table;
use crate::{
    data_store::{Change, CommitId, Returning, StoreError},
    key::ProfileKey,
    link::{
        Link,
        deadline::Unless,
        hosting::{Hosting, Request, Stop},
        renew::{Confirmation, RETRY, Renewal, Renewed},
    },
    messenger::Hint,
    ownership,
};

/// Renews until the engine is shut down, or has lost its place as a host, and hands on hints as
/// they come.
pub(super) async fn run(link: Arc<Link>, table: Arc<Table>, hints: mpsc::Receiver<Hint>) {
    tokio::select! {
        biased;
        () = link.until_stopped() => table.drop_all(),
        () = drive(&link, &table, hints) => {}
    }
}

async fn drive(link: &Arc<Link>, table: &Arc<Table>, mut hints: mpsc::Receiver<Hint>) {
    let mut renewal = Renewal::default();
    let mut open = true;
    let mut next = link.env.after(link.settings().renew_period);
    loop {
        tokio::select! {
            biased;
            () = link.env.sleep_until(next) => {
                if let Some(quiet) = link.hosting.as_ref().and_then(|h| h.quiet_for(link.env.now())) {
                    if defect!(SilentServerReleased) {
                        end_all(link, table);
                    }
                    // Its row runs out, and others find it dead. A call of it brings this forward.
                    if quiet > link.lease_time() {
                        link.stop(Stop::Quiet);
                    }
                    next = link.env.now() + RETRY;
                    continue;
                }
                next = match renewal.renew(link).await {
                    Renewed::Yes(confirmation) => {
                        confirmed(link, table, &confirmation);
                        let next = link.env.after(link.settings().renew_period);
                        let hosting = link.hosting.as_ref();
                        hosting.map_or(next, |hosting| hosting.renewal_at(next, link.env.now()))
                    }
                    Renewed::NotNow => link.env.now() + RETRY.min(link.settings().renew_period),
                    Renewed::Over(found) if link.hosting.is_some() => {
                        // It resumes, here or elsewhere, and that finds what has become of its row.
                        link.stop(if found.is_some() { Stop::Replaced } else { Stop::Dead });
                        continue;
                    }
                    Renewed::Over(found) => {
                        if let Some(new_hints) = renewal.begin_anew(link, found.is_some()).await {
                            begun_anew(table, found.is_some());
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
                    release_orphan(link, table, &key);
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

/// A deliberate defect: nothing is ever released because its game server is silent.
fn end_all(link: &Link, table: &Table) {
    for session in table.sessions() {
        let request = Request { id: CommitId(link.env.uuid()), fingerprint: 0 };
        drop(session.end_handed(request, None));
    }
}

/// The lease is renewed. The sessions that the notices are about, and those that are being started,
/// are held back first, then look.
///
/// A confirmation must not make a session active when a notice in the same answer may tell of its
/// end. Until it has looked, only what was confirmed before counts for it.
fn confirmed(link: &Arc<Link>, table: &Arc<Table>, confirmation: &Confirmation) {
    if !defect!(ConfirmedBeforeNotices) {
        let before = link.confirmed_at();
        for notice in confirmation.notices() {
            table.hold_back(&notice.key, before, link.hosting.is_some());
        }
    }
    link.confirm(confirmation);
    // Also for a recorder that was installed since.
    table.report(&table.slots.lock());
    for notice in confirmation.notices() {
        table.look(&notice.key);
        release_orphan(link, table, &notice.key);
    }
    let earlier = link.hosting.as_ref().map(Hosting::take_to_look_at);
    earlier.iter().flatten().for_each(|key| release_orphan(link, table, key));
}

/// Something about a key has changed. A profile that is held in the name of this server, and of
/// which this host knows no session, is let go if it is asked for: an earlier host began to start
/// a session that nobody waited for any more. While the game server may name one yet, it waits.
fn release_orphan(link: &Arc<Link>, table: &Arc<Table>, key: &ProfileKey) {
    let Some(hosting) = &link.hosting else { return };
    if table.has(key) || defect!(OrphanKept) {
        return;
    }
    if hosting.may_have_more(key) && !defect!(OrphanTakenTooSoon) {
        return hosting.note_to_look_at(key);
    }
    let (link_, table, key_) = (link.clone(), table.clone(), key.clone());
    let turn = async move {
        if table.has(&key_) {
            return;
        }
        if let Err(error) = release_orphan_now(&link_, &key_).await {
            tracing::debug!(key = %key_, %error, "a profile without a session stays held for now");
        }
    };
    // It is asked again when another server asks again.
    let _ = link.queues.run(key, link.settings().max_key_queue, turn);
}

async fn release_orphan_now(link: &Link, key: &ProfileKey) -> Result<(), StoreError> {
    let incarnation = link.incarnation();
    let (now_ms, state) = link.read_settled(key, Returning::HEAD).await?;
    let holder = state.lease.holder.as_ref().and_then(|holder| holder.server);
    let asker = state.lease.request.as_ref().and_then(|request| request.server);
    if holder != Some(link.server()) || state.lease.request.is_none() {
        return Ok(());
    }
    let changes = vec![
        Change::Check { key: key.clone(), epoch: state.epoch },
        ownership::released(ownership::Seen::of(&state), now_ms),
    ];
    let commit = link.commit_in(incarnation, changes, Returning::HEAD);
    link.settle_for(asker, key, &commit, Unless(|| link.is_closing())).await?;
    tracing::info!(%key, "a profile that was held without a session is released");
    Ok(())
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
