//! An end that is broken off: its outcome is recorded all the same.

use std::sync::Arc;

use super::Session;
use crate::{
    error::{Error, ErrorKind},
    link::queue::runtime_gone,
};

/// Records an outcome of the end even if that is broken off.
pub(super) struct Ending {
    session: Arc<Session>,
    begun: bool,
    complete: bool,
}

impl Ending {
    /// Of an end that waits for its turn.
    pub(super) fn queued(session: &Arc<Session>) -> Self {
        Self { session: session.clone(), begun: false, complete: false }
    }

    pub(super) fn begin(&mut self) {
        self.begun = true;
    }

    /// Its outcome is recorded, or it was refused and the session goes on.
    pub(super) fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.complete {
            return;
        }
        let broken_off =
            || Error::new(ErrorKind::Unknown, "the last save was broken off; see the log");
        let error = if self.begun { broken_off() } else { runtime_gone() };
        self.session.note_outcome(&Err(error.about(&self.session.key)));
    }
}
