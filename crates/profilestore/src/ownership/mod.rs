//! Who may take and keep a profile: the rule, and the one place that decides by it.
//!
//! **The rule.** Each key has an epoch, a number that only grows. A session remembers the epoch
//! that its start made, and names it in every commit. The store applies a commit only while the
//! key's epoch is the one that the commit names. So of all sessions that ever were on a key, only
//! the one that the last raise made can write; every other one is refused, however late its commit
//! comes.
//!
//! **The fence.** The store itself compares the epochs: `data_store::rules::judge`, which every
//! backend calls inside of the commit. What is decided here does not protect the data. A wrong
//! decision here ends a session too early or keeps a player waiting; it never mixes two writers.
//!
//! **The lease.** Beside the epoch a key has a lease: which session holds it (the holder), which
//! start asks for it (the request), and for which start it was let go (the offer). A commit that
//! changes the lease names the revision that it was built on, and is refused when another commit
//! was faster. [`changes`] makes all such commits, each for one event, and alone decides which of
//! them raise the epoch: those after which the session of before must not write any more.
//!
//! **Taking a profile.** [`start`] tells a start what to do about what it found:
//! * no holder and no offer, or an offer to this start: take it;
//! * a holder on this very server that no session here stands for: take it;
//! * a holder whose server is dead ([`death`]): take it;
//! * any other holder: write a request and wait. The holder saves, lets go and offers the profile
//!   to the start that asked last. An earlier request gives up. A holder that does not answer
//!   within `session_steal` loses the profile and what it has not saved.
//!
//! **Being dead.** A game server renews its row every few seconds. Another server may call it dead
//! once the row is older than its lease time, but only if the observer itself has been in contact
//! with the store all that time, with the store's clock in step with its own: otherwise the store,
//! its clock or the observer may have stood still.
//!
//! **Holding a profile.** [`held`] tells a session what it finds about itself: all is well, another
//! start asks for the profile, or the epoch is another one and the session is over.
//!
//! Everything here is pure: what the store holds, which server asks and how long it has waited go
//! in; a decision or a change comes out. There is no I/O, no clock and no chance.

use std::time::Duration;

use crate::settings::Settings;

mod asking;
mod changes;
mod death;
mod lease;
#[cfg(test)]
mod tests;

pub(crate) use asking::{Blocker, Held, Start, blocker, held, patience, start};
#[cfg(feature = "roblox")]
pub(crate) use changes::by_document;
#[cfg(feature = "transfer")]
pub(crate) use changes::imported;
pub(crate) use changes::{
    Seen, adopted, asked, cleared, released, stamped, taken, touched, withdrawn,
};
pub(crate) use death::{Contact, Death, is_confirmed, judge};
pub(crate) use lease::{Asker, Take};

/// Periods that the rules use. See `Settings`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Periods {
    pub(crate) session_steal: Duration,
    pub(crate) assume_dead: Duration,
    pub(crate) offer_time: Duration,
    /// The longest silence of the store that still counts as uninterrupted contact.
    pub(crate) max_gap: Duration,
}

impl Periods {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            session_steal: settings.session_steal,
            assume_dead: settings.assume_dead,
            offer_time: settings.offer_time,
            max_gap: settings.lease_time / 2,
        }
    }
}
