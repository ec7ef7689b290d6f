//! Transactions and the end: what keeps a live profile's data from being edited.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::time::Instant;

use super::{EndBegun, Live, Phase, Refusal};
use crate::{
    error::Result,
    key::ProfileKey,
    session::{
        editing::{Editing, is_editing},
        snapshot::Snapshot,
    },
};

impl Live {
    // --- transactions ---------------------------------------------------------------------------

    /// Notes that a transaction was called: an end that is called later comes behind it. False once
    /// the session ends.
    pub(crate) fn line_up(&self) -> bool {
        let mut state = self.state.lock();
        let open = state.phase == Phase::Open;
        state.lined_up += usize::from(open);
        open
    }

    /// A transaction that was called is over.
    pub(crate) fn leave_line(&self) {
        self.state.lock().lined_up -= 1;
    }

    /// True while a transaction that was called is not over, and once an end was called.
    pub(crate) fn is_wanted_by_what_goes_first(&self) -> bool {
        let state = self.state.lock();
        state.lined_up > 0 || state.phase != Phase::Open
    }

    /// Opens a transaction that has lined up, after the edit under way. Fails once the session is
    /// over; an end that was called later than the transaction waits for it.
    pub(crate) fn begin_transaction(&self, key: &ProfileKey, now: Instant) -> Result<Snapshot> {
        let mut state = self.settled();
        if state.phase == Phase::Over
            || (state.phase != Phase::Open && defect!(EndOvertakesTransaction))
        {
            return Err(Refusal::Over.error(key));
        }
        debug_assert!(state.transaction.is_none(), "it holds its turn in the key's queue");
        state.transaction = Some(now);
        Ok(state.snapshot())
    }

    /// Since when a transaction is open, if one is.
    pub(crate) fn frozen_since(&self) -> Option<Instant> {
        self.state.lock().transaction
    }

    /// Closes the transaction. What it made becomes the data if its commit was applied.
    pub(crate) fn end_transaction(&self, applied: Option<&Snapshot>) {
        {
            let mut state = self.state.lock();
            state.transaction = None;
            if let Some(applied) = applied {
                state.data = applied.data.clone();
                state.generation = applied.generation;
            }
        }
        self.freed.notify_waiters();
    }

    // --- the end --------------------------------------------------------------------------------

    /// Claims the right to end the session. None when it is claimed already.
    pub(crate) fn begin_end(&self) -> Option<EndBegun> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return None;
        }
        state.phase = Phase::Ending;
        let called_before = state.transaction.is_some()
            || (state.lined_up > 0 && !defect!(EndOvertakesTransaction));
        Some(if called_before || is_editing() { EndBegun::Behind } else { EndBegun::Now })
    }

    /// The same for an operation in the key's queue, which holds the turn that a transaction would
    /// need.
    pub(crate) fn begin_end_in_turn(&self) -> bool {
        let mut state = self.state.lock();
        debug_assert!(state.transaction.is_none(), "it holds the turn that this runs in");
        let open = state.phase == Phase::Open;
        if open {
            state.phase = Phase::Ending;
        }
        open
    }

    /// Refuses the program's edits from now on; those of the last hooks are still to come. For the
    /// caller that may end the session.
    pub(crate) fn refuse_edits(&self) {
        self.state.lock().phase = Phase::Closing;
        // Edits that wait for the transaction's end need not.
        self.freed.notify_waiters();
    }

    /// Whether an end waits for its turn behind what was called before it. Its last hooks are still
    /// to come.
    pub(crate) fn is_closing(&self) -> bool {
        self.state.lock().phase == Phase::Closing
    }

    /// Closes the data for good, if `check` agrees to what it is then; edits wait for that.
    /// Otherwise it is open again. None when it was closed before.
    pub(crate) fn close_if<E>(
        &self,
        check: impl FnOnce(&Snapshot) -> Result<(), E>,
    ) -> Result<Option<Snapshot>, E> {
        let last = {
            let mut state = self.settled();
            if state.phase == Phase::Over {
                return Ok(None);
            }
            (state.editing, state.taken) = (true, true);
            state.snapshot()
        };
        let checked = catch_unwind(AssertUnwindSafe(|| {
            // The check may call the program, whose edits would wait for this.
            let _editing = Editing::begin();
            check(&last)
        }));
        let mut state = self.state.lock();
        (state.editing, state.taken) = (false, false);
        state.phase = if matches!(checked, Ok(Ok(()))) { Phase::Over } else { Phase::Open };
        self.edited.notify_all();
        drop(state);
        match checked {
            Ok(checked) => checked.map(|()| Some(last)),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Takes back an end that was claimed.
    pub(crate) fn reopen(&self) {
        let mut state = self.state.lock();
        if state.phase != Phase::Over {
            state.phase = Phase::Open;
        }
    }
}
