//! People: who they are, what their role allows, and where they are logged in.
//!
//! A member has a name and a password, of which the store keeps an argon2id hash. A log-in is a
//! secret in a cookie, of which the store keeps a digest; so it counts at every server process, can
//! be ended at any moment, and ends by itself. It begins read-only.

mod guesses;
mod logins;
mod members;
mod passwords;
mod roles;
mod setup;

pub(crate) use guesses::{Guesses, Try};
pub(crate) use logins::{LASTS_MS, Login, Logins};
pub(crate) use members::{Changes, Member, MemberRecord, Members, NewMember, by_member};
pub(crate) use roles::Role;
pub(crate) use setup::Setup;
