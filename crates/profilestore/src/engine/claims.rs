//! Who gets a profile that is being opened: the calls that wait for it, and what is done for them.
//!
//! There is at most one load a key on this server. A later call takes over the load's claim, so of
//! several calls only the last one gets the profile. Each claim has a number. An outcome (a
//! refusal, data decoded for the claim's type, a profile taken) names that number and reaches that
//! claim only: finding the claim there and handing it the outcome is one step under the load's
//! lock.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::options::StartOptions;
use crate::{
    data::Codec,
    data_store::RequestId,
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::{Link, queue::Answer},
    session::{Session, Taken, unseen::Unseen},
};

/// What one look at the store came to.
pub(super) enum Attempt {
    /// The profile is ours.
    Taken(Box<Taken>),
    /// Our request has just been written: look again after this long at the latest.
    Asked(Duration),
    /// Our request waits for an answer: look again after this long at the latest.
    Wait(Duration),
    /// The store does not answer.
    Outage,
    /// The claim that it was made for has gone.
    Stale,
    Failed(Error),
}

/// One key being loaded.
pub(super) struct Load {
    pub(super) key: ProfileKey,
    pub(super) request: RequestId,
    pub(super) session: String,
    /// Whose place in the table it took: a session that was closed, or about to be.
    before: Option<Arc<Session>>,
    pub(super) claims: Mutex<Claims>,
    /// Told after a claim has gone, and before its caller hears of it.
    gone: Notify,
    pub(super) wake: Arc<Notify>,
    /// Notices that came since the last look at the key. They may be about a thief of what is being
    /// taken: the session begins with them.
    pub(super) unseen: Unseen,
}

/// Who gets the outcome, and what has been done for it.
#[derive(Default)]
pub(super) struct Claims {
    pub(super) current: Option<Claim>,
    /// How many there have been.
    pub(super) count: u64,
    /// Attempts that were queued and that the load has yet to see through, with the claims that
    /// they are for. Each is seen through, also when its claim has gone: it may have taken the
    /// profile.
    pub(super) attempts: VecDeque<(u64, Answer<Attempt>)>,
    /// When the holder was last asked to let go.
    pub(super) asked_at: Option<Instant>,
    /// A request of ours may be in the lease.
    pub(super) asked: bool,
}

pub(super) struct Claim {
    pub(super) terms: Terms,
    pub(super) reply: oneshot::Sender<Result<Arc<Session>>>,
}

/// What one call of a start asks for.
#[derive(Clone)]
pub(super) struct Terms {
    pub(super) number: u64,
    pub(super) options: StartOptions,
    pub(super) codec: Arc<dyn Codec>,
    pub(super) since: Instant,
}

/// The wait for a start. Dropping it calls the start off: at once if it is under way, and by ending
/// the session if that has been delivered and not been taken.
pub(super) struct Started {
    pub(super) load: Arc<Load>,
    pub(super) number: u64,
    pub(super) answer: oneshot::Receiver<Result<Arc<Session>>>,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.load.call_off(self.number);
        if let Ok(Ok(session)) = self.answer.try_recv() {
            session.finish_unclaimed();
        }
    }
}

/// Asks the program's function. One that panics has no caller that still wants the session.
fn says_cancelled(cancel: &(dyn Fn() -> bool + Send + Sync)) -> bool {
    catch_unwind(AssertUnwindSafe(cancel)).unwrap_or_else(|_| {
        tracing::error!("a cancel function panicked; its start is called off");
        true
    })
}

pub(super) fn count_failed(key: &ProfileKey, error: &Error) {
    tracing::debug!(%key, %error, "a session was not started");
    let kind = format!("{:?}", error.kind());
    metrics::counter!("profilestore_starts_failed_total", "kind" => kind).increment(1);
}

/// Why a start is no longer wanted that was called then, if so. Runs the program's function, hence
/// never under our lock.
pub(super) fn refusal(link: &Link, options: &StartOptions, since: Instant) -> Option<Error> {
    if link.is_closing() {
        return Some(Error::new(ErrorKind::Closing, "this game server is shutting down"));
    }
    match &options.cancel {
        Some(cancel) => says_cancelled(&**cancel).then(|| {
            Error::new(
                ErrorKind::Cancelled,
                "the session is no longer needed, says the cancel function",
            )
        }),
        None => {
            let timeout = options.timeout.unwrap_or(link.settings().start_session_timeout);
            (link.env.now().saturating_duration_since(since) >= timeout).then(|| {
                Error::new(ErrorKind::TimedOut, "the session could not be started in time")
            })
        }
    }
}

impl Load {
    /// A load of a key, with identities of its own for its request and its session.
    pub(super) fn new(
        key: &ProfileKey,
        request: RequestId,
        session: String,
        before: Option<Arc<Session>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            key: key.clone(),
            request,
            session,
            before,
            claims: Mutex::default(),
            gone: Notify::new(),
            wake: Arc::default(),
            unseen: Unseen::default(),
        })
    }

    /// The session whose place this took, if it goes on after all: its end was refused. To be asked
    /// in the key's queue, where that end has had its turn.
    pub(super) fn goes_on(&self) -> Option<&Arc<Session>> {
        self.before.as_ref().filter(|session| !session.is_known_to_be_over())
    }

    pub(super) fn terms(&self) -> Option<Terms> {
        self.claims.lock().current.as_ref().map(|claim| claim.terms.clone())
    }

    /// The terms of a claim, if it is still the one that gets the outcome.
    pub(super) fn terms_of(&self, number: u64) -> Option<Terms> {
        self.terms().filter(|terms| terms.number == number)
    }

    pub(super) fn next_attempt(&self) -> Option<(u64, Answer<Attempt>)> {
        self.claims.lock().attempts.pop_front()
    }

    /// Takes a claim away, if it is still the one that gets the outcome.
    fn take_claim(&self, number: u64) -> Option<Claim> {
        let claim = self.claims.lock().current.take_if(|claim| claim.terms.number == number);
        self.note_gone();
        claim
    }

    /// A claim was taken away, or another one took its place.
    pub(super) fn note_gone(&self) {
        self.gone.notify_waiters();
    }

    /// Waits until a claim has gone.
    pub(super) async fn gone(&self, number: u64) {
        loop {
            // From here on nothing that goes is missed.
            let gone = self.gone.notified();
            if self.terms_of(number).is_none() {
                return;
            }
            gone.await;
        }
    }

    /// Refuses a claim that is no longer wanted. True if it is gone.
    pub(super) fn judge(&self, link: &Link, number: u64) -> bool {
        let Some(terms) = self.terms().filter(|terms| terms.number == number) else { return true };
        match self.refusal(link, &terms) {
            Some(error) => {
                self.refuse(number, error);
                true
            }
            None => false,
        }
    }

    fn refusal(&self, link: &Link, terms: &Terms) -> Option<Error> {
        refusal(link, &terms.options, terms.since)
    }

    /// Tells a claim, and no other, why there is no session for it.
    pub(super) fn refuse(&self, number: u64, error: Error) {
        if let Some(claim) = self.take_claim(number) {
            self.answer_refused(claim, error);
        }
    }

    pub(super) fn answer_refused(&self, claim: Claim, error: Error) {
        count_failed(&self.key, &error);
        let _ = claim.reply.send(Err(error.about(&self.key)));
    }

    /// The caller has gone.
    fn call_off(&self, number: u64) {
        if self.take_claim(number).is_some() {
            count_failed(&self.key, &Error::new(ErrorKind::Cancelled, "the caller has gone"));
            self.wake.notify_one();
        }
    }

    // --- requests -------------------------------------------------------------------------------

    pub(super) fn asked_at(&self) -> Option<Instant> {
        self.claims.lock().asked_at
    }

    /// Notes that the holder is being asked.
    pub(super) fn note_asking(&self) {
        self.claims.lock().asked = true;
    }

    /// Notes since when the holder is asked; None: a later claim is to ask anew.
    pub(super) fn note_asked(&self, at: Option<Instant>) {
        self.claims.lock().asked_at = at;
    }

    /// The terms of the claim, if it is there and still wanted.
    pub(super) fn wanted(&self, link: &Link, number: u64) -> Option<Terms> {
        self.terms_of(number).filter(|terms| self.refusal(link, terms).is_none())
    }
}
