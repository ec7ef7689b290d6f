//! Hints between the game servers of one process.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{HINT_QUEUE, Hint, Messenger};
use crate::{data_store::ServerId, key::ProfileKey};

/// Hints between the game servers of one process that share it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LocalMessenger {
    subscribers: Arc<Mutex<BTreeMap<ServerId, Subscriber>>>,
}

#[derive(Debug)]
struct Subscriber {
    sender: mpsc::Sender<Hint>,
    /// Hints were dropped since the last one that went through.
    gap: bool,
}

impl LocalMessenger {
    /// A messenger without subscribers.
    pub fn new() -> Self {
        Self::default()
    }

    /// True when it listens here.
    #[cfg(feature = "postgres")]
    pub(crate) fn listens(&self, server: ServerId) -> bool {
        self.subscribers
            .lock()
            .get(&server)
            .is_some_and(|subscriber| !subscriber.sender.is_closed())
    }

    /// The current listeners.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn subscribed(&self) -> Vec<ServerId> {
        let mut subscribers = self.subscribers.lock();
        subscribers.retain(|_, subscriber| !subscriber.sender.is_closed());
        subscribers.keys().copied().collect()
    }

    /// Hands a hint over, if its receiver listens here. Otherwise false.
    pub(crate) fn deliver(&self, to: ServerId, hint: Hint) -> bool {
        let mut subscribers = self.subscribers.lock();
        let Some(subscriber) = subscribers.get_mut(&to) else { return false };
        if subscriber.gap && subscriber.sender.try_send(Hint::Gap).is_ok() {
            subscriber.gap = false;
        }
        match subscriber.sender.try_send(hint) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => subscriber.gap = true,
            Err(TrySendError::Closed(_)) => {
                subscribers.remove(&to);
                return false;
            }
        }
        true
    }
}

#[async_trait]
impl Messenger for LocalMessenger {
    async fn subscribe(&self, server: ServerId) -> mpsc::Receiver<Hint> {
        let (sender, receiver) = mpsc::channel(HINT_QUEUE);
        let mut subscribers = self.subscribers.lock();
        // Those that are gone: nobody may ever send them a hint.
        subscribers.retain(|_, subscriber| !subscriber.sender.is_closed());
        subscribers.insert(server, Subscriber { sender, gap: false });
        receiver
    }

    async fn hint(&self, to: ServerId, key: &ProfileKey) {
        self.deliver(to, Hint::Look(key.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[tokio::test]
    async fn a_full_queue_becomes_a_gap() {
        let messenger = LocalMessenger::new();
        let me = ServerId(Uuid::from_u128(1));
        let mut hints = messenger.subscribe(me).await;
        let key = ProfileKey::new("s", "g", "k").unwrap();
        for _ in 0..HINT_QUEUE + 5 {
            messenger.hint(me, &key).await;
        }
        for _ in 0..HINT_QUEUE {
            assert_eq!(hints.recv().await, Some(Hint::Look(key.clone())));
        }
        messenger.hint(me, &key).await;
        assert_eq!(hints.recv().await, Some(Hint::Gap));
        assert_eq!(hints.recv().await, Some(Hint::Look(key)));
    }

    /// Each server that was there once stayed in the map, unless a hint was sent to it later.
    #[tokio::test]
    async fn servers_that_are_gone_take_no_memory() {
        let messenger = LocalMessenger::new();
        let stays = messenger.subscribe(ServerId(Uuid::from_u128(0))).await;
        for n in 1..1000 {
            drop(messenger.subscribe(ServerId(Uuid::from_u128(n))).await);
        }
        assert_eq!(messenger.subscribers.lock().len(), 2, "one may have left just now");
        drop(stays);
    }
}

#[cfg(test)]
mod conformance {
    use super::*;
    use crate::messenger::conformance::Subject;

    async fn subject() -> Subject {
        let messenger = Arc::new(LocalMessenger::new());
        Subject::new(messenger.clone(), messenger)
    }

    crate::messenger_conformance!(subject);
}
