//! Hosting: this process does the library's work for game servers that run in other processes, in
//! any language, and speak to it over a wire.
//!
//! **The game server holds its sessions; the host works for it.** The game server has a row in the
//! store of its own, and the leases of its profiles name it. A [`Host`] renews that row, makes the
//! commits, and passes requests, messages and operators' edits on. It keeps no play that the store
//! does not have: the document comes whole with each save, and is durable when the save is
//! answered. So a host may die at any moment. The game server resumes at another one, or at the
//! same one started again, names its sessions by their epochs, and goes on.
//!
//! * [`Host::register`] and [`Host::resume`] give a [`HostedServer`]; its calls start, adopt and
//!   settle what the game server asks for.
//! * [`HostedServer::next_event`] says what the game server is to be told.
//! * Each save, end and transaction has an identity that the game server chose ([`Request`]). It
//!   takes effect once, however often and through however many hosts it is asked for.
//! * [`HostedServer::pong`] says how old the confirmation is that the game server may go by. Two
//!   hosts never renew the row of one game server side by side, and one that has lost its place
//!   stops at once ([`Stop::Hosted`]): it releases nothing and writes nothing.
//!
//! What the wire looks like is not decided here.

mod host;
mod server;
mod session;

pub use crate::{
    link::hosting::{Request, Stop},
    migration::DataVersion,
    session::{
        handed::{EditDone, Save},
        remote::By,
    },
};
pub use host::{Host, HostParts, Registration, Resume, Resumed};
pub use server::HostedServer;
pub use session::{
    Adopted, Document, Event, Gift, HostedSession, HostedStart, Meta, Part, Started,
};
