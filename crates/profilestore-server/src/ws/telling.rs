//! What a game server is told of its sessions, and when: in order, and before the pong that says
//! that it may go on.

use std::{sync::Arc, time::Duration};

use profilestore::{
    SessionEnd,
    hosting::{By, Event, Stop},
};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::{
    frames::{Asker, ByServer, ServerFrame},
    guest::Guest,
    outbox::Outbox,
};

/// Hands out what is to be told, and answers pings behind it.
pub(super) async fn tell(
    guest: Arc<Guest>,
    mut pings: mpsc::UnboundedReceiver<u64>,
    outbox: Outbox,
) {
    let _alone = guest.telling.lock().await;
    if guest.has_made_way() {
        return;
    }
    if let Some(why) = guest.server.stopped() {
        // The connection before may have been told, which is over: it is told once otherwise.
        tell_event(&guest, Event::Stopped(why));
        return;
    }
    guest.server.tell_again();
    loop {
        let event = tokio::select! {
            biased;
            ping = pings.recv() => {
                let Some(n) = ping else { return };
                while let Some(event) = guest.server.try_next_event(|_| 0) {
                    if !tell_event(&guest, event) {
                        return;
                    }
                }
                let incarnation = guest.incarnation();
                outbox.send(&match guest.server.pong() {
                    Some(age) => ServerFrame::Pong { n, incarnation, age: millis(age) },
                    None => ServerFrame::Heard { n },
                });
                continue;
            }
            event = guest.server.next_event(|key| guest.room(key)) => event,
            () = guest.more_room.notified() => continue,
        };
        if !tell_event(&guest, event) {
            return;
        }
    }
}

/// False: it was the last one.
fn tell_event(guest: &Guest, event: Event) -> bool {
    match event {
        Event::Stopped(why) => {
            guest.tell(&ServerFrame::Stopped { why: stop_word(why) });
            guest.close(4001, "resume");
            return false;
        }
        Event::Closed { session, why, by } => {
            let Some(s) = guest.number(session.key()) else { return true };
            let n = guest.stored_n(s);
            let by = by.map(by_server);
            guest.closed(s, ServerFrame::Closed { s, n, why: end_word(&why), by });
        }
        Event::Release { session, by, deadline } => {
            let Some(s) = guest.number(session.key()) else { return true };
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let by = asker(by);
            guest.tell_of(s, ServerFrame::Release { s, by, deadline_ms: millis(left) });
        }
        Event::Edit { session, operation, edit, by, .. } => {
            let Some(s) = guest.number(session.key()) else { return true };
            if !guest.hand_out_edit(s, operation) {
                return true;
            }
            let changes = serde_json::to_value(&edit).unwrap_or_default()["ops"].take();
            let (by, reason) = (by.author, by.reason);
            guest.tell_of(s, ServerFrame::Edit { s, op: operation, changes, by, reason });
        }
        Event::Message { session, index, id, sent_ms, body } => {
            let Some(s) = guest.number(session.key()) else { return true };
            if !guest.hand_out(s, index, body.len()) {
                return true;
            }
            let body: Box<RawValue> =
                serde_json::from_slice(&body).unwrap_or_else(|_| RawValue::NULL.to_owned());
            let id = id.to_string();
            guest.tell_of(s, ServerFrame::Message { s, index, id, sent_ms, body });
        }
        _ => {}
    }
    true
}

pub(super) fn by_server(by: profilestore::SessionInfo) -> ByServer {
    ByServer { job: by.job_id, place: by.place_id }
}

fn asker(by: By) -> Asker {
    match by {
        By::Operator(entry) => {
            Asker::Operator { name: entry.by.author.clone(), reason: entry.by.reason.clone() }
        }
        By::Server(server) => Asker::Server(by_server(server)),
        _ => Asker::Operator { name: String::new(), reason: String::new() },
    }
}

fn end_word(why: &SessionEnd) -> &'static str {
    match why {
        SessionEnd::External => "external",
        SessionEnd::Operator { .. } => "operator",
        _ => "lost",
    }
}

fn stop_word(why: Stop) -> &'static str {
    match why {
        Stop::Hosted => "hosted",
        Stop::Dead => "dead",
        Stop::Replaced => "replaced",
        Stop::Quiet => "quiet",
        _ => "left",
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
