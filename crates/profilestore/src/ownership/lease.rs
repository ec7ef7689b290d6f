//! What becomes of a lease. [`super::changes`] makes changes of it.

use std::time::Duration;

use crate::data_store::{Holder, LeaseState, Offer, Request, RequestId, ServerId};

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
    /// Take the profile from its holder, without asking.
    pub(crate) steal: bool,
}

/// How a profile can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// It has no holder.
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

/// The lease once the asker has taken the profile. The epoch is to be raised with it.
pub(super) fn taken(lease: &LeaseState, how: Take, asker: &Asker, now_ms: i64) -> LeaseState {
    // Asked for after it was offered to us: the new session hands it on at once. Every other
    // request has had its time.
    let request = lease
        .request
        .clone()
        .filter(|r| how == Take::Offered && r.id != asker.request && r.server.is_some());
    LeaseState {
        load_count: lease.load_count.saturating_add(1),
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
pub(super) fn asked(lease: &LeaseState, asker: &Asker, now_ms: i64) -> LeaseState {
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

/// The lease once its holder has let go: offered to the server that asked for it.
pub(super) fn released(lease: &LeaseState, now_ms: i64) -> LeaseState {
    let offer = lease
        .request
        .as_ref()
        .and_then(|request| Some(Offer { to: request.id, server: request.server?, at_ms: now_ms }));
    LeaseState { load_count: lease.load_count, holder: None, request: None, offer }
}

/// The lease once a write without a session has ended the session that held the profile.
pub(super) fn cleared(lease: &LeaseState) -> LeaseState {
    LeaseState { load_count: lease.load_count, ..LeaseState::default() }
}

/// The lease without an asker's request and without an offer to it; None when there is neither.
pub(super) fn withdrawn(lease: &LeaseState, request: RequestId) -> Option<LeaseState> {
    let asked = lease.request.as_ref().is_some_and(|r| r.id == request);
    let offered = lease.offer.as_ref().is_some_and(|o| o.to == request);
    (asked || offered).then(|| LeaseState {
        request: lease.request.clone().filter(|_| !asked),
        offer: lease.offer.clone().filter(|_| !offered),
        ..lease.clone()
    })
}
