//! Whole changes of a lease: the one place that decides which of them raise the epoch.

use super::lease::{self, Asker, Take};
use crate::{
    data_store::{Change, KeyState, LeaseState, RequestId, ServerId},
    key::ProfileKey,
};

/// A key's lease as it was read. A change that is built on it is refused once the lease is another
/// one.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) key: &'a ProfileKey,
    pub(crate) revision: u64,
    pub(crate) lease: &'a LeaseState,
}

impl<'a> Seen<'a> {
    pub(crate) fn of(state: &'a KeyState) -> Self {
        Self { key: &state.key, revision: state.lease_revision, lease: &state.lease }
    }

    fn change(self, lease: LeaseState, epoch: Epoch) -> Change {
        Change::Lease {
            key: self.key.clone(),
            revision: self.revision,
            lease,
            raise_epoch: epoch == Epoch::Raised,
            seal: false,
        }
    }
}

/// What becomes of the epoch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Epoch {
    /// The session that may write stays the same, or there is none.
    Kept,
    /// The session that could write until then no longer can.
    Raised,
}

/// A start takes the profile.
pub(crate) fn taken(state: &KeyState, how: Take, asker: &Asker, now_ms: i64) -> Change {
    Seen::of(state).change(lease::taken(&state.lease, how, asker, now_ms), Epoch::Raised)
}

/// A start asks the holder for the profile.
pub(crate) fn asked(state: &KeyState, asker: &Asker, now_ms: i64) -> Change {
    Seen::of(state).change(lease::asked(&state.lease, asker, now_ms), Epoch::Kept)
}

/// A start that has asked no longer wants the profile. None when nothing of it is left.
pub(crate) fn withdrawn(state: &KeyState, request: RequestId) -> Option<Change> {
    Some(Seen::of(state).change(lease::withdrawn(&state.lease, request)?, Epoch::Kept))
}

/// The holder lets go, in the commit of its last save. The last version is sealed: a later write
/// keeps it.
pub(crate) fn released(seen: Seen<'_>, now_ms: i64) -> Change {
    Change::Lease {
        key: seen.key.clone(),
        revision: seen.revision,
        lease: lease::released(seen.lease, now_ms),
        raise_epoch: false,
        seal: true,
    }
}

/// The holder's game server was declared dead and is back under another identity, and no other
/// server took the profile.
pub(crate) fn adopted(seen: Seen<'_>, server: ServerId) -> Change {
    let mut lease = seen.lease.clone();
    if let Some(holder) = &mut lease.holder {
        holder.server = Some(server);
    }
    seen.change(lease, Epoch::Kept)
}

/// A write without a session ends the session that holds the profile.
pub(crate) fn cleared(state: &KeyState) -> Change {
    Seen::of(state).change(lease::cleared(&state.lease), Epoch::Raised)
}

/// A write without a session where none is: the lease stays, and its revision counts up, so that a
/// start that has read the profile before begins anew.
pub(crate) fn touched(state: &KeyState) -> Change {
    Seen::of(state).change(state.lease.clone(), Epoch::Kept)
}

/// An import writes a key's versions one by one, each with the lease that it had. The last one is
/// the profile as it is from then on.
#[cfg(feature = "transfer")]
pub(crate) fn imported(
    key: &ProfileKey,
    revision: u64,
    lease: LeaseState,
    is_last: bool,
) -> Change {
    Change::Lease { key: key.clone(), revision, lease, raise_epoch: is_last, seal: false }
}

/// A document of the published modules is written, which says itself who holds the profile.
/// `same_session`: the holder, if there is one, is the one of before.
#[cfg(feature = "roblox")]
pub(crate) fn by_document(state: &KeyState, lease: LeaseState, same_session: bool) -> Change {
    Seen::of(state).change(lease, if same_session { Epoch::Kept } else { Epoch::Raised })
}

/// A store's list of standing edits was changed. It has no holder: its epoch is a stamp, which
/// tells a start whether the list that it went by is still the current one.
pub(crate) fn stamped(key: &ProfileKey, revision: u64) -> Change {
    Change::Lease {
        key: key.clone(),
        revision,
        lease: LeaseState::default(),
        raise_epoch: true,
        seal: false,
    }
}
