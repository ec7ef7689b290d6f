//! The audit log: what operators did to which profiles, when, in whose name and why.
//!
//! An entry is a value under a key of its own in a reserved store
//! ([`RESERVED_STORE`](crate::key::RESERVED_STORE)). It is written in the same commit as the change
//! that it books, so what is booked was done, and what was done is booked. The key follows from the
//! operation's identity and the profiles it is about, and an entry is written under the condition
//! that there is none yet: so it is also what makes an operation happen once. Keys begin with the
//! time turned round, hence the newest entry is the first of a listing.
//!
//! To be found by what they are about, entries have *tags*: negative numbers among the users of
//! their keys, where no user has one. A tag is a digest of a profile's name, so a search by it
//! reads the entries about that profile, however many others there are. The rows of a bulk edit lie
//! together behind its operation, so a listing steps over them.
//!
//! Entries stay for good: retention concerns superseded versions, and the current version of a key
//! is never one. A change that another server has to carry out (the holder of a live profile) is
//! booked as [`AuditOutcome::Pending`] when it is asked for, and that version is superseded by the
//! outcome.
//!
//! An operation is undone once: [`undoing`] tells whether it is, and by which other one, for every
//! program alike.

mod entry;
mod keys;
mod query;
#[cfg(test)]
mod tests;
mod undone;

pub use crate::data_store::rules::MAX_AUTHOR_BYTES;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use entry::tags_of_value;
pub use entry::{Attribution, AuditEntry, AuditOutcome, MAX_REASON_BYTES};
pub(crate) use entry::{ERASE, ERASED_MS};
pub use keys::AUDIT_SCOPE;
pub(crate) use keys::{entry_key, operation_of_order, order_id};
pub use query::{AuditPage, AuditQuery, UnreadableEntry, audit_entries};
pub(crate) use query::{audit_entries_within, unredacted_erasures_within};
pub use undone::{Undo, Undoing, undoing};
