//! A live profile, with its tags, its global updates and the two words about its end.

use std::{fmt, ops::Deref, sync::Arc};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{identify, updates::GlobalUpdates};
use crate::{
    api::profile::Profile as Live,
    data::ProfileData,
    error::{Error, ErrorKind, Result},
    session::info::{SessionEnd, SessionInfo},
    signal::Connection,
};

/// A live profile of ProfileService. Cheap to clone; all clones are the same session. It is a
/// [`crate::Profile`] with what that API has beyond it; [`crate::Profile::keep`] is taken by the
/// global updates.
pub struct Profile<T> {
    live: Live<T>,
    updates: GlobalUpdates<T>,
}

impl<T> Clone for Profile<T> {
    fn clone(&self) -> Self {
        Self { live: self.live.clone(), updates: self.updates.clone() }
    }
}

impl<T> fmt::Debug for Profile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.live.fmt(f)
    }
}

impl<T> Deref for Profile<T> {
    type Target = Live<T>;
    fn deref(&self) -> &Live<T> {
        &self.live
    }
}

impl<T: ProfileData> Profile<T> {
    pub(super) fn new(live: Live<T>) -> Self {
        let updates = GlobalUpdates::of(&live);
        Self { live, updates }
    }

    /// Its global updates. Specification: `GlobalUpdates`.
    pub fn global_updates(&self) -> &GlobalUpdates<T> {
        &self.updates
    }

    /// One of its tags. Specification: `GetMetaTag`.
    pub fn meta_tag(&self, name: &str) -> Option<Value> {
        self.live.session.live.meta().meta_tags.get(name).cloned()
    }

    /// Sets a tag, which is saved with the next save and can be read from
    /// [`Profile::meta_tags_latest`] then. Fails with [`ErrorKind::SessionEnded`] once the profile
    /// is released, with [`ErrorKind::Invalid`] for a value that is no JSON. Specification:
    /// `SetMetaTag`.
    pub fn set_meta_tag(&self, name: &str, value: impl Serialize) -> Result<()> {
        let session = &self.live.session;
        let value = serde_json::to_value(value).map_err(|error| {
            Error::new(ErrorKind::Invalid, "the tag cannot be stored as JSON")
                .about(&session.key)
                .caused_by(error)
        })?;
        session.live.edit_meta(&session.key, |meta| {
            meta.meta_tags.insert(name.to_owned(), value);
            Ok(())
        })?;
        session.note_change();
        Ok(())
    }

    /// The tags as they were saved last. Specification: `MetaTagsLatest`.
    pub fn meta_tags_latest(&self) -> Map<String, Value> {
        self.live.saved_meta_tags()
    }

    /// Calls `listener` with [`Profile::meta_tags_latest`] after every save, the last one included,
    /// whether or not a tag changed. Specification: `MetaTagsUpdated`.
    pub fn on_meta_tags_updated(
        &self,
        listener: impl Fn(&Map<String, Value>) + Send + Sync + 'static,
    ) -> Connection {
        let session = Arc::downgrade(&self.live.session);
        self.live.on_after_save(move |_| {
            if let Some(session) = session.upgrade() {
                let saved = session.known.lock().saved.meta.clone();
                listener(&saved.meta_tags);
            }
        })
    }

    /// Calls `listener` once when the profile is released, with whose it is then as far as that is
    /// known: this server's when it let go by itself, the thief's when it was stolen, None when
    /// another server asked for it. Called at once, with None, when it is released already.
    /// Specification: `ListenToRelease`.
    pub fn listen_to_release(
        &self,
        listener: impl Fn(Option<&SessionInfo>) + Send + Sync + 'static,
    ) -> Option<Connection> {
        if self.live.is_over() {
            listener(None);
            return None;
        }
        let session = Arc::downgrade(&self.live.session);
        let own = self.live.session();
        Some(self.live.on_session_end(move |end| {
            let of = match end {
                SessionEnd::Manual | SessionEnd::Shutdown | SessionEnd::Superseded => {
                    Some(own.clone())
                }
                SessionEnd::External | SessionEnd::Operator { saves: true, .. } => None,
                SessionEnd::Lost | SessionEnd::Operator { saves: false, .. } => {
                    session.upgrade().and_then(|session| session.taken_by())
                }
            };
            listener(of.as_ref());
        }))
    }

    /// Releases the profile: saves it for the last time. As [`crate::Profile::end_session`].
    /// Specification: `Release`.
    pub fn release(&self) -> impl Future<Output = Result<()>> + Send + 'static + use<T> {
        self.live.end_session()
    }

    /// Calls `listener` once when the profile was released and that is durable, so that another
    /// server gets it at once; right away when that is so already. Not called when the last save
    /// failed or the profile was lost. Specification: `ListenToHopReady`.
    pub fn listen_to_hop_ready(&self, listener: impl FnOnce() + Send + 'static) {
        let session = self.live.session.clone();
        let ready = async move {
            // An end that is refused leaves the session to the program; the next one may go
            // through.
            let mut ended = session.ended().await;
            while ended.is_err() && !session.is_over() {
                ended = session.ended().await;
            }
            if ended.is_ok() {
                listener();
            }
        };
        drop(self.live.session.link.runtime.spawn(ready));
    }

    /// Its name, as `[Store:"GameData";Scope:"Live";Key:"Player_2312310"]`. Specification:
    /// `Identify`.
    pub fn identify(&self) -> String {
        identify(self.live.key())
    }
}
