//! Whether a start may take a profile, when it asks for it, and what a live session finds about
//! itself.

use std::time::Duration;

use super::{
    Periods,
    death::{ContactTime, Death, apart, liveness, unnoticed},
    lease::{Asker, Take, asked},
};
use crate::data_store::{KeyState, LeaseState, Request, ServerId};

/// What a start does next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Start {
    /// Commit [`super::taken`].
    Take(Take),
    /// Commit [`super::asked`]; then look again.
    Ask,
    /// Look again at a hint, or after this long at the latest if it is less than the usual period.
    Wait(Duration),
    /// Another server asked later: give up.
    TakenElsewhere,
}

/// What a start does, given what the store holds.
pub(crate) fn start(
    state: &KeyState,
    now_ms: i64,
    contact: Option<ContactTime>,
    asker: &Asker,
    periods: &Periods,
) -> Start {
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
        return ask(lease, asker, contact, periods, again_in);
    }
    let Some(offer) = &lease.offer else { return Start::Take(Take::Free) };
    if offer.to == asker.request {
        return Start::Take(Take::Offered);
    }
    let offered_for =
        if defect!(OfferNeverExpires) { Duration::ZERO } else { apart(now_ms, offer.at_ms) };
    let left = periods.offer_time.saturating_sub(offered_for);
    if left.is_zero() || asker.steal {
        return Start::Take(Take::Free);
    }
    // The one it is offered to will find our request and hand the profile on.
    match ask(lease, asker, contact, periods, left) {
        Start::Take(_) => Start::Wait(left),
        other => other,
    }
}

/// How long a start that has just written its request may wait before it looks again: the next
/// moment at which its holder may turn out to be dead, or the profile free.
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

/// What prevents a write from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocker {
    /// Nothing.
    Free,
    /// A session whose server is dead.
    Dead,
    /// A session that is alive, or may be.
    Held,
}

/// Whether another server's session, or one of `own`, prevents a write from outside.
pub(crate) fn blocker(
    state: &KeyState,
    own: ServerId,
    now_ms: i64,
    contact: Option<ContactTime>,
    periods: &Periods,
) -> Blocker {
    match &state.lease.holder {
        None => Blocker::Free,
        Some(holder)
            if holder.server != Some(own)
                && liveness(state, holder, now_ms, contact, periods) == Death::Dead =>
        {
            Blocker::Dead
        }
        Some(_) => Blocker::Held,
    }
}

/// A live session is in the way: ask for it, wait, or take it in the end. While the store was away
/// the holder could not answer either, so only time in contact with the store counts.
fn ask(
    lease: &LeaseState,
    asker: &Asker,
    contact: Option<ContactTime>,
    periods: &Periods,
    again_in: Duration,
) -> Start {
    let Some(waited) = asker.asked_for else { return Start::Ask };
    match &lease.request {
        Some(request) if request.id != asker.request => Start::TakenElsewhere,
        // Another server took the profile without answering our request, a thief or the taker of an
        // offer we missed: ask again.
        None => Start::Ask,
        Some(_) => {
            let waited = waited.min(contact.unwrap_or_default());
            let patience = periods.session_steal;
            let left = (patience + unnoticed(periods, patience / 4)).saturating_sub(waited);
            if left.is_zero() { Start::Take(Take::Stolen) } else { Start::Wait(left.min(again_in)) }
        }
    }
}

/// What a live session finds about itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Held {
    /// The epoch is another one: it is over.
    Lost,
    /// Another server asks for the profile.
    Asked(Request),
    /// All is well.
    Keep,
}

/// What a live session finds about itself in what the store holds. `server`: the holder that it
/// knows, if that counts too. A session may have been released in the name of its server, by a host
/// that has another one's place by now; the epoch stays then.
pub(crate) fn held(state: &KeyState, epoch: u64, server: Option<ServerId>) -> Held {
    let holder = || state.lease.holder.as_ref().and_then(|holder| holder.server);
    if state.epoch != epoch || (server.is_some() && holder() != server) {
        return Held::Lost;
    }
    match &state.lease.request {
        // Also one that a document brought: imported ones went when the session began.
        Some(request) => Held::Asked(request.clone()),
        None => Held::Keep,
    }
}
