//! Calls that need no session: each waits for its turn in its key's queue, by one deadline.

use std::sync::Arc;

use super::{Link, queue::Turn};
use crate::{
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
};

impl Link {
    fn queue_limit(&self) -> usize {
        self.settings().max_key_queue
    }

    /// Runs a call in the key's queue at once; the answer comes when it is done, by the call's
    /// deadline at the latest. One that is being done then goes on, and its outcome is not known.
    pub(crate) fn call<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        self: &Arc<Self>,
        key: &ProfileKey,
        call: F,
    ) -> impl Future<Output = Result<T>> + Send + 'static + use<T, F> {
        self.call_with(key, 0, call)
    }

    /// The same for a call that has so many bytes of the caller's with it.
    pub(crate) fn call_with<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        self: &Arc<Self>,
        key: &ProfileKey,
        bytes: usize,
        call: F,
    ) -> impl Future<Output = Result<T>> + Send + 'static + use<T, F> {
        let late = Error::new(
            ErrorKind::Unknown,
            "the store has not answered in time; the call may yet take effect",
        );
        self.call_or(key, Turn::with(bytes), late, call)
    }

    /// The same for a call that changes nothing.
    pub(crate) fn look_up<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        self: &Arc<Self>,
        key: &ProfileKey,
        call: F,
    ) -> impl Future<Output = Result<T>> + Send + 'static + use<T, F> {
        self.call_or(
            key,
            Turn::default(),
            Error::new(
                ErrorKind::Unavailable,
                "the store has not answered in \
            time",
            ),
            call,
        )
    }

    fn call_or<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        self: &Arc<Self>,
        key: &ProfileKey,
        turn: Turn,
        late: Error,
        call: F,
    ) -> impl Future<Output = Result<T>> + Send + 'static + use<T, F> {
        let about = key.clone();
        let held_up = || {
            Error::new(
                ErrorKind::Unavailable,
                "its turn did not come in time: an earlier operation on the profile waits for the \
                store, or this game server has too much to do; nothing was done",
            )
        };
        let (env, deadline) = (self.env.clone(), self.deadline());
        let queues = self.queues.clone();
        let queued = self.check_open(key).and_then(|()| {
            let call = deadline.scope(call);
            self.queues.run_unless_given_up(key, self.queue_limit(), &turn, call)
        });
        async move {
            let answer = match env.timeout_at(deadline.at(), queued?.wait()).await {
                Ok(answer) => answer.and_then(|answer| answer),
                Err(_) if queues.give_up(&about, &turn) => Err(held_up()),
                Err(_) => Err(late),
            };
            answer.map_err(|error| error.about(&about))
        }
    }
}
