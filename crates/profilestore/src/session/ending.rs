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

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use serde_json::Value;

    use super::*;
    use crate::{GameServer, data_store::MemoryStore, env::ManualClock, session::info::SessionEnd};

    /// They were told when the end behind it had its turn, which the store held up: perhaps behind
    /// the shutdown.
    #[tokio::test(start_paused = true)]
    async fn listeners_hear_at_once_that_a_session_is_lost_whose_end_waits_behind_a_transaction() {
        let env = ManualClock::default().env(1);
        let store = MemoryStore::new(env.clone());
        let server = GameServer::builder(store).env(env).start().await.unwrap();
        let profile = server.store::<Value>("Players").unwrap().start_session("p").await.unwrap();
        let ends = Arc::new(Mutex::new(Vec::new()));
        let noted = ends.clone();
        profile.on_session_end(move |end| noted.lock().push(end));
        let engine = &server.inner.engine;
        let session = engine.table.live(profile.key()).unwrap();
        // A transaction's turn, which waits for the store.
        let turn = engine.link.queues.run(profile.key(), 1, std::future::pending::<()>()).unwrap();
        assert!(session.live.line_up());
        drop(profile.end_session());
        assert!(ends.lock().is_empty(), "it comes behind the transaction");
        session.lose("for this test").await;
        assert_eq!(*ends.lock(), [SessionEnd::Lost]);
        drop(turn);
        server.crash();
    }
}
