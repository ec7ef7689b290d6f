//! Hints between game servers: fast, and free to fail.
//!
//! A hint says "something about this key changed, look at the store". It may be lost, repeated,
//! delayed or reordered. What must not be lost is in the store, and the next renewal of the
//! server's lease brings it. So without any messenger the system is correct, and at most one
//! renewal period slower.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::{data_store::ServerId, key::ProfileKey};

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
#[cfg(any(test, feature = "fault"))]
pub mod fault;
mod local;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "nats")]
mod wire;

pub use local::LocalMessenger;
#[cfg(feature = "nats")]
pub use nats::{NatsMessenger, NatsOptions};
#[cfg(feature = "postgres")]
pub use postgres::PostgresMessenger;

/// How many hints may wait for a slow receiver. Beyond that they are dropped and a [`Hint::Gap`]
/// takes their place.
pub const HINT_QUEUE: usize = 4096;

/// What a subscriber hears.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// Something about this key changed.
    Look(ProfileKey),
    /// Hints may have been lost: after a reconnect, or because the receiver was slow.
    Gap,
}

/// Carries hints to game servers.
///
/// # Contract
///
/// To be correct, an implementation never blocks for longer than handing the hint over takes, and
/// reports a gap whenever it knows or suspects that hints were lost, the first time after a
/// subscription was made included only if some could have been. While nothing is wrong, hints
/// arrive; nothing else is promised, and nothing else is relied on. [`conformance`] tests it.
#[async_trait]
pub trait Messenger: fmt::Debug + Send + Sync + 'static {
    /// Begins to receive the hints for one server. Ends when the receiver is dropped.
    async fn subscribe(&self, server: ServerId) -> mpsc::Receiver<Hint>;

    /// Sends a hint. Failures are not reported: no caller waits for the hint's arrival.
    async fn hint(&self, to: ServerId, key: &ProfileKey);
}

/// No messenger: every hint is lost.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMessenger;

#[async_trait]
impl Messenger for NoMessenger {
    async fn subscribe(&self, _server: ServerId) -> mpsc::Receiver<Hint> {
        // Nobody sends anything, so nothing is kept for it.
        mpsc::channel(1).1
    }

    async fn hint(&self, _to: ServerId, _key: &ProfileKey) {}
}

/// A messenger that was chosen at run time.
#[async_trait]
impl Messenger for Arc<dyn Messenger> {
    async fn subscribe(&self, server: ServerId) -> mpsc::Receiver<Hint> {
        (**self).subscribe(server).await
    }

    async fn hint(&self, to: ServerId, key: &ProfileKey) {
        (**self).hint(to, key).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sender was kept for ever for each server that was there once.
    #[tokio::test]
    async fn without_a_messenger_nothing_is_kept_for_a_server() {
        let mut hints = NoMessenger.subscribe(ServerId(uuid::Uuid::nil())).await;
        assert_eq!(hints.recv().await, None);
    }
}
