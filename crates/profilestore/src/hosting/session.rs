//! A session of a game server that is hosted here, and what goes to and from it.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Map, Number, Value, value::RawValue};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    audit::Attribution,
    data_store::MessageId,
    edit::Edit,
    engine::options::{StartOptions, WhenHeld},
    error::Result,
    key::ProfileKey,
    link::hosting::{Request, Stop},
    migration::DataVersion,
    record::{Record, UserId},
    session::{
        Session,
        document::DocumentCodec,
        handed::Save,
        info::{SessionEnd, SessionInfo},
        remote::{By, Told},
    },
};

/// A session of a game server that is hosted here. Cheap to clone. It goes on without any handle of
/// it: dropping this does nothing.
#[derive(Clone)]
pub struct HostedSession {
    pub(super) session: Arc<Session>,
}

impl fmt::Debug for HostedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.session.fmt(f)
    }
}

impl HostedSession {
    /// The profile.
    pub fn key(&self) -> &ProfileKey {
        &self.session.key
    }

    /// What the session's writes are fenced by: by it the game server names the session when it
    /// resumes.
    pub fn epoch(&self) -> u64 {
        self.session.known.lock().epoch
    }

    /// The version that is stored, as far as is known.
    pub fn version(&self) -> u64 {
        self.session.known.lock().version
    }

    /// True once the session has ended, in whatever way.
    pub fn is_over(&self) -> bool {
        self.session.is_over()
    }

    /// Saves a whole document; the answer comes when it is durable, with the version that it is.
    /// None: the request had been done before, and which version it made then is not known.
    /// Under way at once, in call order; dropping the future does not stop it. Waits for as long as
    /// the store does not answer.
    ///
    /// What cannot be stored is refused by [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) or
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge), which say where and why, and the
    /// session goes on. [`ErrorKind::SessionEnded`](crate::ErrorKind::SessionEnded): it is over.
    /// [`ErrorKind::Unknown`](crate::ErrorKind::Unknown): this host has lost its place, and the
    /// request is to be made again at the next one.
    pub fn save(
        &self,
        request: Request,
        save: Save,
    ) -> impl Future<Output = Result<Option<u64>>> + Send + 'static + use<> {
        let save = save.check().map(|handed| self.session.save_handed(request, handed));
        let key = self.session.key.clone();
        async move {
            match save {
                Ok(save) => save.await,
                Err(error) => Err(error),
            }
            .map_err(|error| error.about(&key))
        }
    }

    /// Saves for the last time, if there is something to save, and releases the profile, in one
    /// commit. As [`HostedSession::save`] otherwise: what cannot be stored leaves the session open.
    ///
    /// A session that is over by other means than this is answered Ok when what is brought is what
    /// is stored already.
    pub fn end(
        &self,
        request: Request,
        last: Option<Save>,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let last = last.map(Save::check).transpose();
        let end = last.map(|last| self.session.end_handed(request, last));
        let key = self.session.key.clone();
        async move {
            match end {
                Ok(end) => end.await,
                Err(error) => Err(error),
            }
            .map_err(|error| error.about(&key))
        }
    }
}

/// How a session is to be started for a game server. `Default` is the usual way.
#[derive(Debug, Clone)]
pub struct HostedStart {
    /// The data of a profile that begins. Without it a profile that is not there is an error.
    pub template: Option<Box<RawValue>>,
    /// What to do when a live session elsewhere holds the profile.
    pub when_held: WhenHeld,
    /// Give up after this long instead of [`crate::Settings::start_session_timeout`].
    pub timeout: Option<Duration>,
    /// See [`StartOptions::overwrite`].
    pub overwrite: bool,
    /// The data version that the game server's program knows: judged before the profile is taken,
    /// and noted with each save. None: it has none.
    pub data_version: Option<DataVersion>,
}

impl Default for HostedStart {
    fn default() -> Self {
        Self {
            template: None,
            when_held: WhenHeld::Ask,
            timeout: None,
            overwrite: false,
            data_version: None,
        }
    }
}

impl HostedStart {
    pub(super) fn codec(&self) -> Result<DocumentCodec> {
        DocumentCodec::new(self.template.as_deref(), self.data_version)
    }

    pub(super) fn options(&self, request: Request) -> StartOptions {
        let when_held = self.when_held;
        let asks = when_held == WhenHeld::Ask;
        StartOptions {
            steal: when_held == WhenHeld::Steal,
            overwrite: self.overwrite,
            when_held: (!asks).then(|| Arc::new(move |_: &SessionInfo| when_held) as _),
            timeout: self.timeout,
            identity: Some(identity(request)),
            ..StartOptions::new()
        }
    }
}

/// The identity of a start's request and session. Of version 7: another one would name an
/// operator's order.
fn identity(request: Request) -> Uuid {
    let mut bytes = request.id.0.into_bytes();
    bytes[6] = (bytes[6] & 0x0f) | 0x70;
    Uuid::from_bytes(bytes)
}

/// A session that has begun.
#[derive(Debug)]
pub struct Started {
    /// The session.
    pub session: HostedSession,
    /// What is stored. This is the only time that it is handed out.
    pub document: Document,
}

/// A profile as it is stored.
#[derive(Debug, Clone)]
pub struct Document {
    /// The session's epoch.
    pub epoch: u64,
    /// The version that this is.
    pub version: u64,
    /// The data.
    pub data: Box<RawValue>,
    /// What is stored beside it.
    pub meta: Meta,
}

/// What is stored beside a profile's data.
#[derive(Debug, Clone)]
pub struct Meta {
    /// The users associated with the profile.
    pub users: Vec<UserId>,
    /// The game's tags, the data version included.
    pub tags: Map<String, Value>,
    /// The profile's metadata.
    pub metadata: Map<String, Value>,
    /// Sessions started on the profile so far, this one included.
    pub load_count: u64,
    /// When the profile was created, Unix seconds.
    pub created_s: Number,
}

impl Meta {
    pub(super) fn new(record: &Record, load_count: u64) -> Self {
        Self {
            users: record.users(),
            tags: record.meta_tags.clone(),
            metadata: record.roblox_metadata.clone(),
            load_count,
            created_s: record.created_s.clone(),
        }
    }
}

/// What has become of a session that a game server had before it was hosted here.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Adopted {
    /// It goes on.
    Held {
        /// The session.
        session: HostedSession,
        /// The version that is stored.
        version: u64,
    },
    /// It is over: taken, released, removed, or of other contents of the store.
    Lost {
        /// Who holds the profile now, if a session does.
        by: Option<SessionInfo>,
    },
}

/// What one session brings into a transaction.
#[derive(Debug, Clone)]
pub struct Part {
    /// The session.
    pub session: HostedSession,
    /// Its whole document, and what goes with it. No operator's edits.
    pub save: Save,
}

/// A message to a profile.
#[derive(Debug, Clone)]
pub struct Gift {
    /// The receiver.
    pub to: ProfileKey,
    /// Its identity: a message is sent once under it.
    pub id: MessageId,
    /// What it says.
    pub body: Box<RawValue>,
}

/// What a game server is to be told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// Nothing is done for it here any more. The last event.
    Stopped(Stop),
    /// A session ended otherwise than by its game server: what was not stored is lost.
    Closed {
        /// The session.
        session: HostedSession,
        /// Why: [`SessionEnd::External`] when the game server did not let go in time,
        /// [`SessionEnd::Operator`], or [`SessionEnd::Lost`].
        why: SessionEnd,
        /// Who holds the profile now, as far as is known.
        by: Option<SessionInfo>,
    },
    /// The game server is to let a profile go: to end the session until the deadline.
    Release {
        /// The session.
        session: HostedSession,
        /// In whose favour.
        by: By,
        /// When it is closed otherwise.
        deadline: Instant,
    },
    /// An operator's edit, to be applied alone and saved with [`Save::edits_done`], or refused
    /// there.
    Edit {
        /// The session.
        session: HostedSession,
        /// The edit's index among the messages.
        index: u64,
        /// Its operation.
        operation: Uuid,
        /// What is to be changed.
        edit: Edit,
        /// In whose name, and why.
        by: Attribution,
    },
    /// A message that waits: its effect and its index belong in the next save.
    Message {
        /// The session.
        session: HostedSession,
        /// Its number within the profile, never reused.
        index: u64,
        /// Its sender's identity for it.
        id: MessageId,
        /// When it was sent, by the store's clock, Unix milliseconds.
        sent_ms: i64,
        /// What it says, JSON.
        body: Bytes,
    },
}

impl Event {
    pub(super) fn of(session: Arc<Session>, told: Told) -> Self {
        let session = HostedSession { session };
        match told {
            Told::Closed { why, by } => Self::Closed { session, why, by },
            Told::Release { by, deadline } => Self::Release { session, by, deadline },
            Told::Edit { index, operation, edit, by } => {
                Self::Edit { session, index, operation, edit, by }
            }
            Told::Message(message) => Self::Message {
                session,
                index: message.index,
                id: message.id,
                sent_ms: message.sent_ms,
                body: message.payload,
            },
        }
    }
}
