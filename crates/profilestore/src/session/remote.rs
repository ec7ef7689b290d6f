//! What a session has to tell the game server that it belongs to, when that runs in another
//! process.
//!
//! Nothing is queued here: what is to be told follows from the state of the session and from what
//! was told before. So a game server that does not listen costs no memory, and one that comes back
//! is told again whatever is still so.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::info::{SessionEnd, SessionInfo};
use crate::{
    audit::{Attribution, AuditEntry},
    data_store::{RequestId, StoredMessage},
    edit::Edit,
};

/// For how long a game server believes in a confirmation after it has asked for it, at most, and a
/// margin for clocks that run apart.
const BELIEF: Duration = Duration::from_millis(6500);

/// How long a game server has at least to answer a request.
const SHORTEST: Duration = Duration::from_secs(2);

/// In whose favour a session is to let go.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum By {
    /// Another game server asks for the profile.
    Server(SessionInfo),
    /// An operator ordered it: the entry in the audit log.
    Operator(Arc<AuditEntry>),
}

/// What the game server is told about one of its sessions.
pub(crate) enum Told {
    Closed { why: SessionEnd, by: Option<SessionInfo> },
    Release { by: By, deadline: Instant },
    Edit { index: u64, operation: Uuid, edit: Edit, by: Attribution },
    Message(StoredMessage),
}

/// What comes next of the messages.
pub(crate) enum Next {
    Told(Box<Told>),
    /// A message that is larger than the room that there is.
    TooLarge,
    Nothing,
}

/// What was told, and what is to be.
#[derive(Default)]
pub(crate) struct Remote(Mutex<State>);

#[derive(Default)]
struct State {
    release: Option<Release>,
    /// Until it is told.
    closed: Option<SessionEnd>,
    /// The newest message or edit that was told.
    told: u64,
    /// How many ends that its game server asked for wait or are under way.
    ends: usize,
}

struct Release {
    by: By,
    /// The request of that one.
    request: RequestId,
    asked_at: Instant,
    /// When it was told, and the last confirmation that the game server had got by then.
    told_behind: Option<Instant>,
}

impl Release {
    /// When the session is closed if the game server has not ended it: not while it may believe
    /// that it holds the profile and does not know better. `confirmed`: when it was told of a
    /// confirmation last.
    fn deadline(&self, confirmed: Instant) -> Instant {
        let at_least = self.asked_at + SHORTEST;
        if defect!(BeliefCutShort) {
            return at_least;
        }
        at_least.max(self.told_behind.unwrap_or(confirmed) + BELIEF)
    }
}

impl Remote {
    /// The session is to be let go. False: it is being let go already, in favour of this one now.
    pub(super) fn begin_release(&self, by: By, request: RequestId, asked_at: Instant) -> bool {
        let mut state = self.0.lock();
        if let Some(release) = &mut state.release {
            (release.by, release.request) = (by, request);
            return false;
        }
        state.release = Some(Release { by, request, asked_at, told_behind: None });
        true
    }

    /// Whether it is being let go for this request.
    pub(super) fn is_releasing_for(&self, request: RequestId) -> bool {
        self.0.lock().release.as_ref().is_some_and(|release| release.request == request)
    }

    pub(super) fn is_releasing(&self) -> bool {
        self.0.lock().release.is_some()
    }

    /// When the release under way ends, if there is one.
    pub(super) fn deadline(&self, confirmed: Instant) -> Option<Instant> {
        self.0.lock().release.as_ref().map(|release| release.deadline(confirmed))
    }

    /// How a session ends whose game server has not answered. None: it was not to be let go.
    pub(super) fn end_of_release(&self) -> Option<SessionEnd> {
        Some(match &self.0.lock().release.as_ref()?.by {
            By::Server(_) => SessionEnd::External,
            By::Operator(entry) => SessionEnd::Operator { entry: entry.clone(), saves: true },
        })
    }

    /// Nobody asks any more.
    pub(super) fn forget_release(&self) {
        self.0.lock().release = None;
    }

    /// The session is over, and not by its game server.
    pub(super) fn note_closed(&self, end: &SessionEnd) {
        self.0.lock().closed = Some(end.clone());
    }

    /// Everything that is still so is to be told again.
    pub(crate) fn tell_again(&self) {
        let mut state = self.0.lock();
        state.told = 0;
        if let Some(release) = &mut state.release {
            release.told_behind = None;
        }
    }

    /// Its game server has asked for an end, which has its place in the profile's queue.
    pub(super) fn begin_end(&self) {
        self.0.lock().ends += 1;
    }

    /// An end was made, refused or broken off.
    pub(super) fn leave_end(&self) {
        self.0.lock().ends -= 1;
    }

    /// Whether its game server has asked for an end that is not decided yet.
    pub(crate) fn is_ending(&self) -> bool {
        self.0.lock().ends > 0
    }

    /// The end that is to be told, told with this.
    pub(super) fn tell_closed(&self) -> Option<SessionEnd> {
        self.0.lock().closed.take()
    }

    /// The release that is to be told, told with this. `confirmed`: when the game server was told
    /// of a confirmation last.
    pub(super) fn tell_release(&self, confirmed: Instant) -> Option<Told> {
        let mut state = self.0.lock();
        let release = state.release.as_mut().filter(|release| release.told_behind.is_none())?;
        release.told_behind = Some(confirmed);
        Some(Told::Release { by: release.by.clone(), deadline: release.deadline(confirmed) })
    }

    /// The newest message or edit that was told.
    pub(super) fn told(&self) -> u64 {
        self.0.lock().told
    }

    /// Everything up to this index was told.
    pub(super) fn note_told(&self, index: u64) {
        self.0.lock().told = index;
    }

    /// True while something is to be told that cannot wait.
    pub(crate) fn is_urgent(&self) -> bool {
        let state = self.0.lock();
        state.closed.is_some()
            || state.release.as_ref().is_some_and(|release| release.told_behind.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(asked_at: Instant) -> Release {
        let info = SessionInfo { place_id: 0, job_id: "other".into(), written: None };
        let request = RequestId(Uuid::nil());
        Release { by: By::Server(info), request, asked_at, told_behind: None }
    }

    #[test]
    fn a_game_server_has_until_it_no_longer_believes_and_two_seconds_at_least() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let mut release = release(now + ms(60_000));
        assert_eq!(release.deadline(now), now + ms(62_000), "it has long stopped believing");
        assert_eq!(release.deadline(now + ms(59_000)), now + ms(65_500));
        release.told_behind = Some(now + ms(59_000));
        let later = now + ms(61_000);
        assert_eq!(release.deadline(later), now + ms(65_500), "it knew when it was confirmed");
    }
}
