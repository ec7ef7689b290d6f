//! The rules of sessions: who may take a profile, when to ask for it, when to let it go. The one place for them.
//!
//! Pure: what the store holds, who asks and how long it has waited go in, a decision comes out. No I/O, no clock, no chance.
//! None of these decisions protects the data: the store checks epoch and lease revision of whatever is then committed.

use std::time::Duration;

use crate::data_store::{Holder, KeyState, LeaseState, Offer, Request, RequestId, ServerId, ServerRow};

/// Periods that the rules use. See `Settings`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Periods {
    pub(crate) session_steal: Duration,
    pub(crate) assume_dead: Duration,
    pub(crate) offer_time: Duration,
}

/// Who wants to start a session.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) server: ServerId,
    pub(crate) place_id: i64,
    pub(crate) job_id: String,
    /// The identity that the session will have.
    pub(crate) session: String,
    /// The identity that a request of this start has.
    pub(crate) request: RequestId,
    /// How long ago the request was written; None before it was.
    pub(crate) asked_for: Option<Duration>,
    /// Take the profile from whoever holds it, without asking.
    pub(crate) steal: bool,
}

/// How a profile can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// Nobody holds it.
    Free,
    /// The holder let it go for this asker.
    Offered,
    /// This very server holds it, but no session of it is left: a start whose caller had gone.
    Own,
    /// The holder's server is dead.
    Dead,
    /// The holder is alive, or may be, and loses what it has not saved.
    Stolen,
}

/// What a start does next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Start {
    /// Commit [`taken`].
    Take(Take),
    /// Commit [`asked`]; then look again.
    Ask,
    /// Look again at a hint, or after this long at the latest if it is less than the usual period.
    Wait(Duration),
    /// Another server asked later: give up.
    TakenElsewhere,
}

/// How long a server has been in uninterrupted contact with the store, during which the store's clock went in step with its own.
pub(crate) type ContactTime = Duration;

/// Whether a server is dead, and if not, when to judge again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    Dead,
    NotKnown { again_in: Duration },
}

/// How far the store's clock may run ahead of ours within a lease time without being noticed: a few small steps, each below what
/// counts as a step.
const CLOCK_MARGIN: Duration = Duration::from_millis(500);

/// Judges a server's row. A row is only too old when the observer itself was in contact all that time: otherwise it may be the
/// store, its clock, or the observer that stood still.
pub(crate) fn judge(row: &ServerRow, now_ms: i64, contact: Option<ContactTime>) -> Death {
    if row.dead {
        return Death::Dead;
    }
    let lease = millis(row.lease_ms);
    let lease = lease + CLOCK_MARGIN;
    let age = apart(now_ms, row.renewed_ms);
    let contact = contact.unwrap_or_default();
    if age > lease && contact >= lease {
        return Death::Dead;
    }
    let missing = (lease + Duration::from_millis(1)).saturating_sub(age).max(lease.saturating_sub(contact));
    Death::NotKnown { again_in: missing.max(Duration::from_millis(1)) }
}

/// What a start does, given what the store holds.
pub(crate) fn start(state: &KeyState, now_ms: i64, contact: Option<ContactTime>, asker: &Asker, periods: &Periods) -> Start {
    let lease = &state.lease;
    if let Some(holder) = &lease.holder {
        if holder.server == Some(asker.server) {
            return Start::Take(Take::Own);
        }
        let again_in = match liveness(state, holder, now_ms, contact, periods) {
            Death::Dead => return Start::Take(Take::Dead),
            Death::NotKnown { again_in } => again_in,
        };
        if asker.steal {
            return Start::Take(Take::Stolen);
        }
        return ask(lease, asker, periods, again_in);
    }
    let Some(offer) = &lease.offer else { return Start::Take(Take::Free) };
    if offer.to == asker.request {
        return Start::Take(Take::Offered);
    }
    let left = periods.offer_time.saturating_sub(apart(now_ms, offer.at_ms));
    if (left.is_zero() && !defect!(OfferNeverExpires)) || asker.steal {
        return Start::Take(Take::Free);
    }
    // The one it is offered to will find our request and hand the profile on.
    match ask(lease, asker, periods, left) {
        Start::Take(_) => Start::Wait(left),
        other => other,
    }
}

/// How long a start that has just written its request may wait before it looks again: the next moment at which its holder may
/// turn out to be dead, or the profile free.
pub(crate) fn patience(
    mut state: KeyState,
    now_ms: i64,
    contact: Option<ContactTime>,
    mut asker: Asker,
    periods: &Periods,
) -> Duration {
    state.lease = asked(&state.lease, &asker, now_ms);
    asker.asked_for = Some(Duration::ZERO);
    match start(&state, now_ms, contact, &asker, periods) {
        Start::Wait(at_most) => at_most,
        _ => Duration::ZERO,
    }
}

/// Who stands in the way of a write from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody.
    Free,
    /// A session whose server is dead.
    Dead,
    /// A session that is alive, or may be.
    Held,
}

/// Whether somebody else's session, or one of `own`, stands in the way of a write from outside.
pub(crate) fn standing(
    state: &KeyState,
    own: ServerId,
    now_ms: i64,
    contact: Option<ContactTime>,
    periods: &Periods,
) -> Standing {
    match &state.lease.holder {
        None => Standing::Free,
        Some(holder) if holder.server != Some(own) && liveness(state, holder, now_ms, contact, periods) == Death::Dead => {
            Standing::Dead
        }
        Some(_) => Standing::Held,
    }
}

/// A live session is in the way: ask for it, wait, or take it in the end.
fn ask(lease: &LeaseState, asker: &Asker, periods: &Periods, again_in: Duration) -> Start {
    let Some(waited) = asker.asked_for else { return Start::Ask };
    match &lease.request {
        Some(request) if request.id != asker.request => Start::TakenElsewhere,
        // Somebody took the profile without answering our request, a thief or the taker of an offer we missed: ask again.
        None => Start::Ask,
        Some(_) => {
            let left = periods.session_steal.saturating_sub(waited);
            if left.is_zero() { Start::Take(Take::Stolen) } else { Start::Wait(left.min(again_in)) }
        }
    }
}

/// Whether a holder's server is dead. A session that no row vouches for follows its record's last update; when there is none,
/// only the steps of asking and waiting lead to it. A row that is gone was swept long after its death.
fn liveness(state: &KeyState, holder: &Holder, now_ms: i64, contact: Option<ContactTime>, periods: &Periods) -> Death {
    match (holder.server, &state.holder_server, holder.last_update_ms) {
        (Some(_), Some(row), _) => judge(row, now_ms, contact),
        (Some(_), None, _) => Death::Dead,
        (None, _, Some(last)) => {
            let left = periods.assume_dead.saturating_sub(millis(now_ms.saturating_sub(last)));
            if left.is_zero() { Death::Dead } else { Death::NotKnown { again_in: left } }
        }
        (None, _, None) => Death::NotKnown { again_in: periods.session_steal },
    }
}

/// The lease once the asker has taken the profile. The epoch is to be raised with it.
pub(crate) fn taken(lease: &LeaseState, how: Take, asker: &Asker, now_ms: i64) -> LeaseState {
    // Asked for after it was offered to us: the new session hands it on at once. Every other request has had its time.
    let request = lease.request.clone().filter(|r| how == Take::Offered && r.id != asker.request && r.server.is_some());
    LeaseState {
        load_count: lease.load_count + 1,
        holder: Some(Holder {
            server: Some(asker.server),
            place_id: asker.place_id,
            job_id: asker.job_id.clone(),
            session: asker.session.clone(),
            since_ms: now_ms,
            last_update_ms: None,
            document: None,
        }),
        request,
        offer: None,
    }
}

/// The lease with the asker's request in it. The newest request wins.
pub(crate) fn asked(lease: &LeaseState, asker: &Asker, now_ms: i64) -> LeaseState {
    let request = Request {
        id: asker.request,
        server: Some(asker.server),
        place_id: asker.place_id,
        job_id: asker.job_id.clone(),
        at_ms: now_ms,
        document: None,
    };
    LeaseState { request: Some(request), ..lease.clone() }
}

/// The lease once its holder has let go: offered to whoever asked for it.
pub(crate) fn released(lease: &LeaseState, now_ms: i64) -> LeaseState {
    let offer = lease.request.as_ref().and_then(|request| Some(Offer { to: request.id, server: request.server?, at_ms: now_ms }));
    LeaseState { load_count: lease.load_count, holder: None, request: None, offer }
}

/// The lease once a write without a session has ended whatever session there was.
pub(crate) fn cleared(lease: &LeaseState) -> LeaseState {
    LeaseState { load_count: lease.load_count, ..LeaseState::default() }
}

/// The lease without an asker's request and without an offer to it; None when there is neither.
pub(crate) fn withdrawn(lease: &LeaseState, request: RequestId) -> Option<LeaseState> {
    let asked = lease.request.as_ref().is_some_and(|r| r.id == request);
    let offered = lease.offer.as_ref().is_some_and(|o| o.to == request);
    (asked || offered).then(|| LeaseState {
        request: lease.request.clone().filter(|_| !asked),
        offer: lease.offer.clone().filter(|_| !offered),
        ..lease.clone()
    })
}

/// What a live session finds about itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Held {
    /// The epoch is another one: it is over.
    Lost,
    /// Somebody asks for the profile.
    Asked(Request),
    /// All is well.
    Keep,
}

/// What a live session finds about itself in what the store holds.
pub(crate) fn held(state: &KeyState, epoch: u64) -> Held {
    if state.epoch != epoch {
        return Held::Lost;
    }
    match &state.lease.request {
        // Also one that a document brought: imported ones went when the session began.
        Some(request) => Held::Asked(request.clone()),
        None => Held::Keep,
    }
}

/// How far apart two readings of the store's clock are. A time in the future was read before the clock stepped back.
fn apart(a_ms: i64, b_ms: i64) -> Duration {
    Duration::from_millis(a_ms.abs_diff(b_ms))
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(ms.max(0).cast_unsigned())
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
