//! The lease of a live profile, as its session knows it.
//!
//! Nearly always it says that this session holds the profile, and nothing else. Then only the parts
//! of it that the session does not have anyway are kept: there may be a hundred thousand sessions.

use std::borrow::Cow;

use crate::data_store::{Holder, LeaseState, Request, ServerId};

/// How a session names itself in a lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own<'a> {
    pub(super) place_id: i64,
    pub(super) job_id: &'a str,
    pub(super) session: &'a str,
}

/// A lease as the store had it last.
#[derive(Debug)]
pub(crate) enum KnownLease {
    /// The session holds the profile in the name of this server. No other server asks for it.
    Plain { server: ServerId, load_count: u64, since_ms: i64 },
    /// It says more, or something else.
    Whole(Box<LeaseState>),
}

impl KnownLease {
    pub(super) fn new(lease: LeaseState, own: Own<'_>) -> Self {
        Self::plain(&lease, own).unwrap_or_else(|| Self::Whole(Box::new(lease)))
    }

    fn plain(lease: &LeaseState, own: Own<'_>) -> Option<Self> {
        // With all their members: what leases may hold in times to come is not left out.
        let LeaseState { load_count, holder: Some(holder), request: None, offer: None } = lease
        else {
            return None;
        };
        let Holder {
            server: Some(server),
            place_id,
            job_id,
            session,
            since_ms,
            last_update_ms: None,
            document: None,
        } = holder
        else {
            return None;
        };
        let is_own = *place_id == own.place_id && job_id == own.job_id && session == own.session;
        let (server, load_count, since_ms) = (*server, *load_count, *since_ms);
        is_own.then_some(Self::Plain { server, load_count, since_ms })
    }

    /// The lease as the store has it. `own`: of the session that it was seen by.
    pub(super) fn whole(&self, own: Own<'_>) -> Cow<'_, LeaseState> {
        match self {
            Self::Plain { server, load_count, since_ms } => Cow::Owned(LeaseState {
                load_count: *load_count,
                holder: Some(Holder {
                    server: Some(*server),
                    place_id: own.place_id,
                    job_id: own.job_id.to_owned(),
                    session: own.session.to_owned(),
                    since_ms: *since_ms,
                    last_update_ms: None,
                    document: None,
                }),
                request: None,
                offer: None,
            }),
            Self::Whole(lease) => Cow::Borrowed(&**lease),
        }
    }

    /// Who asks for the profile.
    pub(crate) fn request(&self) -> Option<&Request> {
        match self {
            Self::Plain { .. } => None,
            Self::Whole(lease) => lease.request.as_ref(),
        }
    }

    pub(super) fn load_count(&self) -> u64 {
        match self {
            Self::Plain { load_count, .. } => *load_count,
            Self::Whole(lease) => lease.load_count,
        }
    }

    /// When the session that holds the profile began, if one does.
    pub(super) fn since_ms(&self) -> Option<i64> {
        match self {
            Self::Plain { since_ms, .. } => Some(*since_ms),
            Self::Whole(lease) => lease.holder.as_ref().map(|holder| holder.since_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::data_store::{Offer, RequestId};

    #[test]
    fn a_lease_is_known_as_it_is_whatever_it_holds() {
        let (server, to) = (ServerId(Uuid::from_u128(1)), RequestId(Uuid::from_u128(2)));
        let own = Own { place_id: 7, job_id: "job", session: "session" };
        let holder = Holder {
            server: Some(server),
            place_id: 7,
            job_id: "job".into(),
            session: "session".into(),
            since_ms: 1000,
            last_update_ms: None,
            document: None,
        };
        let held_by =
            |holder| LeaseState { load_count: 3, holder: Some(holder), ..LeaseState::default() };
        let plain = held_by(holder.clone());
        let known = KnownLease::new(plain.clone(), own);
        assert!(matches!(known, KnownLease::Plain { .. }), "{known:?}");
        assert_eq!(*known.whole(own), plain);
        assert_eq!((known.load_count(), known.since_ms()), (3, Some(1000)));
        assert_eq!(known.request(), None);

        let request = Request {
            id: to,
            server: Some(server),
            place_id: 7,
            job_id: "other".into(),
            at_ms: 2000,
            document: None,
        };
        let document = Some(serde_json::json!([1, "job"]));
        for lease in [
            LeaseState::default(),
            LeaseState { request: Some(request), ..plain.clone() },
            LeaseState { offer: Some(Offer { to, server, at_ms: 2000 }), ..plain },
            held_by(Holder { server: None, ..holder.clone() }),
            held_by(Holder { place_id: 8, ..holder.clone() }),
            held_by(Holder { job_id: "other".into(), ..holder.clone() }),
            held_by(Holder { session: "other".into(), ..holder.clone() }),
            held_by(Holder { last_update_ms: Some(1), ..holder.clone() }),
            held_by(Holder { document, ..holder }),
        ] {
            let known = KnownLease::new(lease.clone(), own);
            assert!(matches!(known, KnownLease::Whole(_)), "{known:?}");
            assert_eq!(*known.whole(own), lease);
            assert_eq!(known.load_count(), lease.load_count);
            assert_eq!(known.since_ms(), lease.holder.as_ref().map(|holder| holder.since_ms));
            assert_eq!(known.request(), lease.request.as_ref());
        }
    }
}
