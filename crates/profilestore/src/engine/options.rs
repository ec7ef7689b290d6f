//! How a session is to be started.

use std::{fmt, sync::Arc, time::Duration};

use uuid::Uuid;

use crate::{
    error::{Error, ErrorKind},
    session::info::SessionInfo,
};

/// The shortest period of autosaves that a session may have.
const SHORTEST_PERIOD: Duration = Duration::from_millis(100);

/// What a start does about a profile that a live session elsewhere holds. See
/// [`StartOptions::when_held`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenHeld {
    /// Ask the holder to let go, as usual. Specification: `"ForceLoad"`.
    Ask,
    /// Look again after [`crate::Settings::load_repeat_period`], without asking. Specification:
    /// `"Repeat"`.
    Wait,
    /// Give up and leave no trace: [`crate::ErrorKind::Cancelled`]. Specification: `"Cancel"`.
    GiveUp,
    /// Take the profile at once; what the holder has not saved is lost. Specification: `"Steal"`.
    Steal,
}

/// See [`StartOptions::when_held`].
pub type DecideHeld = dyn Fn(&SessionInfo) -> WhenHeld + Send + Sync;

/// How a session is to be started. See [`crate::ProfileStore::start_session_with`].
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct StartOptions {
    /// Called several times before the profile is there, from the library's tasks and, with
    /// [`StartOptions::supersede`], from the call itself; it must not block. Once it says true the
    /// start ends with [`crate::ErrorKind::Cancelled`] and leaves nothing behind. With it the start
    /// has no time limit of its own. Specification: `Cancel`.
    pub cancel: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
    /// Take the profile at once from its holder; what that session has not saved is lost. For
    /// debugging and for locks known to be dead. Specification: `Steal`.
    pub steal: bool,
    /// Take the place of this server's own session, if it has a live one of this profile, instead
    /// of failing with [`crate::ErrorKind::AlreadyLoaded`]: for a player who connects a second
    /// time.
    /// The earlier session ends as by [`crate::Profile::end_session`], with
    /// [`crate::SessionEnd::Superseded`]; what it changed is saved, and the new session begins with
    /// that. When its last save is refused, that session goes on and the start fails with the
    /// reason. An earlier start that is still waiting fails with
    /// [`crate::ErrorKind::Superseded`], as it does without this option.
    pub supersede: bool,
    /// Begin anew where something is stored that is not a profile. The stored value stays in the
    /// history. Without this the start fails with [`crate::ErrorKind::Foreign`]. A Roblox document
    /// whose data or message is only too large is left alone, and the start fails with
    /// [`crate::ErrorKind::TooLarge`].
    pub overwrite: bool,
    /// Asked at every attempt that finds the profile held by a live session elsewhere, from the
    /// library's tasks; it must not block. Without it the holder is asked to let go. Specification:
    /// `not_released_handler`.
    pub when_held: Option<Arc<DecideHeld>>,
    /// Give up after this long instead of [`crate::Settings::start_session_timeout`]. Of no effect
    /// with a cancel function.
    pub timeout: Option<Duration>,
    /// How often this profile is saved, instead of [`crate::Settings::autosave_period`]. At least
    /// 100 ms: a shorter one counts as that.
    pub autosave_period: Option<Duration>,
    /// An operator's operation that wants the profile let go.
    pub(crate) operation: Option<Uuid>,
    /// The profile is taken from the session with this epoch only. From another one that holds it
    /// by then it is neither asked nor taken: [`crate::ErrorKind::Changed`].
    pub(crate) only_from: Option<u64>,
    /// What the request and the session are called: a start that is made again, at another host,
    /// finds what it has left behind.
    pub(crate) identity: Option<Uuid>,
}

impl StartOptions {
    /// The usual way.
    pub fn new() -> Self {
        Self::default()
    }

    /// See [`StartOptions::cancel`].
    #[must_use]
    pub fn cancel(mut self, cancel: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.cancel = Some(Arc::new(cancel));
        self
    }

    /// See [`StartOptions::steal`].
    #[must_use]
    pub fn steal(mut self) -> Self {
        self.steal = true;
        self
    }

    /// See [`StartOptions::supersede`].
    #[must_use]
    pub fn supersede(mut self) -> Self {
        self.supersede = true;
        self
    }

    /// See [`StartOptions::overwrite`].
    #[must_use]
    pub fn overwrite(mut self) -> Self {
        self.overwrite = true;
        self
    }

    /// See [`StartOptions::when_held`].
    #[must_use]
    pub fn when_held(
        mut self,
        decide: impl Fn(&SessionInfo) -> WhenHeld + Send + Sync + 'static,
    ) -> Self {
        self.when_held = Some(Arc::new(decide));
        self
    }

    /// See [`StartOptions::timeout`].
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// See [`StartOptions::autosave_period`].
    #[must_use]
    pub fn autosave_period(mut self, period: Duration) -> Self {
        self.autosave_period = Some(period);
        self
    }

    /// The same with a period that a schedule can keep.
    pub(super) fn in_range(mut self) -> Self {
        self.autosave_period = self.autosave_period.map(|period| period.max(SHORTEST_PERIOD));
        self
    }
}

/// The error of what was meant for an earlier session than the one that holds the profile.
pub(crate) fn another_session(epoch: u64) -> Error {
    let message =
        format!("another session holds the profile by now; it was left alone: its epoch=`{epoch}`");
    Error::new(ErrorKind::Changed, message)
}

impl fmt::Debug for StartOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartOptions")
            .field("cancel", &self.cancel.is_some())
            .field("steal", &self.steal)
            .field("supersede", &self.supersede)
            .field("when_held", &self.when_held.is_some())
            .field("overwrite", &self.overwrite)
            .field("timeout", &self.timeout)
            .field("autosave_period", &self.autosave_period)
            .finish()
    }
}
