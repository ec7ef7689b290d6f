//! Profiles that are not players': one server holds each, and every server changes it by messages.
//!
//! Each server that needs such a profile tries to hold it. One gets it. The others try again now
//! and then, so when the holder stops or dies one of them goes on. Messages wait meanwhile.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::{Message, ProfileData, ProfileStore, StartOptions, WhenHeld};
use serde_json::Value;
use tokio::time::sleep;

/// How long a server waits before it tries again, or looks again.
const PAUSE: Duration = Duration::from_secs(3);

/// What this server keeps, or tries to, with the data as it was seen last.
#[derive(Debug, Clone, Default)]
pub struct Kept(Arc<Mutex<BTreeMap<String, Value>>>);

impl Kept {
    /// From now on keeps the profile whenever no other server does. `receive` handles its messages.
    pub fn keep<T: ProfileData>(
        &self,
        store: ProfileStore<T>,
        key: &str,
        receive: impl Fn(&mut T, &Message<'_>) + Clone + Send + Sync + 'static,
    ) {
        let (key, name) = (key.to_owned(), format!("{}/{key}", store.name()));
        match self.0.lock().entry(name.clone()) {
            Entry::Occupied(_) => return,
            Entry::Vacant(place) => place.insert(Value::Null),
        };
        let (kept, server) = (self.clone(), store.server().clone());
        tokio::spawn(async move {
            while !server.is_closing() {
                let options = StartOptions::new().when_held(|_| WhenHeld::GiveUp);
                if let Ok(profile) = store.start_session_with(&key, options).await {
                    profile.message_handler(receive.clone());
                    while !profile.is_over() && !server.is_closing() {
                        kept.note(&name, &profile.data());
                        sleep(PAUSE).await;
                    }
                } else {
                    if let Ok(Some(read)) = store.get(&key).await {
                        kept.note(&name, &read.data);
                    }
                    sleep(PAUSE).await;
                }
            }
        });
    }

    fn note<T: ProfileData>(&self, name: &str, data: &T) {
        if let Ok(data) = serde_json::to_value(data) {
            self.0.lock().insert(name.to_owned(), data);
        }
    }

    /// The data as this server saw it last, some seconds ago. Waits for nothing, so players see it
    /// in an outage too.
    pub fn seen(&self, store: &str, key: &str) -> Value {
        self.0.lock().get(&format!("{store}/{key}")).cloned().unwrap_or_default()
    }
}
