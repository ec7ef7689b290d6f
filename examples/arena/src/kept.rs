//! Profiles that are not players': one server holds each, and every server changes it by messages.
//!
//! Each server that needs such a profile tries to hold it. One gets it. The others try again now
//! and then, so when the holder stops or dies one of them goes on. Messages wait meanwhile.

use std::{collections::BTreeSet, time::Duration};

use parking_lot::Mutex;
use profilestore::{Message, ProfileData, ProfileStore, StartOptions, WhenHeld};
use tokio::time::sleep;

/// How long a server waits before it tries again.
const PAUSE: Duration = Duration::from_secs(5);

/// What this server keeps, or tries to.
#[derive(Debug, Default)]
pub struct Kept(Mutex<BTreeSet<String>>);

impl Kept {
    /// From now on keeps the profile whenever no other server does. `receive` handles its messages.
    pub fn keep<T: ProfileData>(
        &self,
        store: ProfileStore<T>,
        key: &str,
        receive: impl Fn(&mut T, &Message<'_>) + Clone + Send + Sync + 'static,
    ) {
        let key = key.to_owned();
        if !self.0.lock().insert(format!("{}/{key}", store.name())) {
            return;
        }
        tokio::spawn(async move {
            while !store.server().is_closing() {
                let options = StartOptions::new().when_held(|_| WhenHeld::GiveUp);
                if let Ok(profile) = store.start_session_with(&key, options).await {
                    profile.message_handler(receive.clone());
                    while !profile.is_over() {
                        sleep(PAUSE).await;
                    }
                }
                sleep(PAUSE).await;
            }
        });
    }
}
