//! The data of a live profile, and how it is edited.
//!
//! The data is an immutable snapshot behind an `Arc`. An edit works on a copy that takes the
//! snapshot's place when it is done, so a panic leaves the data as it was, a save takes the
//! snapshot without stopping an edit, and readers never wait. Edits follow one another; an edit
//! from inside an edit is refused, since it could not be part of the copy.
//!
//! While a transaction is open nothing edits: its own copy takes the snapshot's place when its
//! commit is known to be applied.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, LazyLock},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use serde_json::value::RawValue;
use tokio::{sync::Notify, time::Instant};

use super::{
    editing::{Editing, check_not_editing, is_editing},
    handlers::Handled,
    snapshot::{Mark, Processed, Snapshot},
};
use crate::{
    audit::AuditEntry,
    data::Data,
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    record::Record,
    session::collect::AnyCollected,
};

mod ending;

static NO_DATA: LazyLock<Box<RawValue>> = LazyLock::new(|| RawValue::NULL.to_owned());

pub(crate) struct Live {
    state: Mutex<State>,
    edited: Condvar,
    /// Told when a transaction is over.
    freed: Notify,
}

struct State {
    data: Arc<dyn Data>,
    /// Everything of the record but its data.
    meta: Arc<Record>,
    /// Counts the edits.
    generation: u64,
    processed: Processed,
    /// Messages that the next save is to lock.
    locked: BTreeSet<u64>,
    /// An edit is under way.
    editing: bool,
    /// Since when a transaction is open, if one is.
    transaction: Option<Instant>,
    /// Transactions that were called and are not over, the open one included.
    lined_up: usize,
    phase: Phase,
    /// The end has taken what there is, and looks at it.
    taken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// A call has the right to end the session; the last hooks run.
    Ending,
    /// The program's edits are refused already; the last hooks run once what was called before the
    /// end is over.
    Closing,
    Over,
}

/// Why an edit was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The session is over.
    Over,
    /// A transaction is open.
    Busy,
    /// The message was processed before.
    Processed,
}

impl Refusal {
    fn error(self, key: &ProfileKey) -> Error {
        match self {
            Self::Busy => Error::new(
                ErrorKind::Busy,
                "a transaction is open; the change was not made, try again when it is over, or \
                wait with `update_when_free`",
            ),
            Self::Over | Self::Processed => Error::new(
                ErrorKind::SessionEnded,
                "the session is over; the change was not made and would not be saved",
            ),
        }
        .about(key)
    }
}

/// When the caller that may end a session can do so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndBegun {
    Now,
    /// Behind the transactions that were called before it, or the edit from inside which it was
    /// called.
    Behind,
}

impl State {
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            data: self.data.clone(),
            meta: self.meta.clone(),
            generation: self.generation,
            processed: self.processed.clone(),
            locked: self.locked.clone(),
        }
    }

    /// Whether the program may edit.
    fn admits(&self) -> Result<(), Refusal> {
        match self.phase {
            Phase::Closing | Phase::Over => Err(Refusal::Over),
            Phase::Open | Phase::Ending if self.transaction.is_some() => Err(Refusal::Busy),
            Phase::Open | Phase::Ending => Ok(()),
        }
    }
}

impl Live {
    /// Generation 0 is what the store holds.
    pub(crate) fn new(data: Arc<dyn Data>, mut record: Record) -> Self {
        record.data = NO_DATA.clone();
        record.origin = None;
        let state = State {
            data,
            meta: Arc::new(record),
            generation: 0,
            processed: Processed::new(),
            locked: BTreeSet::new(),
            editing: false,
            transaction: None,
            lined_up: 0,
            phase: Phase::Open,
            taken: false,
        };
        Self { state: Mutex::new(state), edited: Condvar::new(), freed: Notify::new() }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.state.lock().snapshot()
    }

    pub(crate) fn data(&self) -> Arc<dyn Data> {
        self.state.lock().data.clone()
    }

    pub(crate) fn meta(&self) -> Arc<Record> {
        self.state.lock().meta.clone()
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Closing | Phase::Over)
    }

    /// Waits for the edit under way.
    fn settled(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        while state.editing {
            self.edited.wait(&mut state);
        }
        state
    }

    /// Edits the data as the program asks: fails once the session is over, and while a transaction
    /// is open. An error of the edit leaves the data as it was.
    pub(crate) fn edit<R, E: From<Error>>(
        &self,
        key: &ProfileKey,
        edit: impl FnOnce(&mut dyn Data) -> Result<R, E>,
    ) -> Result<R, E> {
        check_not_editing(key)?;
        self.edit_unless_err(edit).map_err(|refusal| refusal.error(key))?
    }

    /// The same, but waits while a transaction is open.
    pub(crate) async fn edit_when_free<R, E: From<Error>>(
        &self,
        key: &ProfileKey,
        edit: impl FnOnce(&mut dyn Data) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut edit = Some(edit);
        loop {
            let freed = self.freed.notified();
            check_not_editing(key)?;
            let edited = self.edit_unless_err(|data| {
                let edit = edit.take().expect("an edit that was made ends this");
                edit(data)
            });
            match edited {
                Err(Refusal::Busy) => freed.await,
                edited => return edited.map_err(|refusal| refusal.error(key))?,
            }
        }
    }

    fn edit_unless_err<R, E>(
        &self,
        edit: impl FnOnce(&mut dyn Data) -> Result<R, E>,
    ) -> Result<Result<R, E>, Refusal> {
        let replace = |base: &Arc<dyn Data>| {
            let mut copy = base.duplicate();
            let _editing = Editing::begin();
            let answer = edit(&mut *copy);
            let copy = answer.is_ok().then(|| Arc::from(copy));
            (answer, copy)
        };
        self.replace_then(State::admits, replace, |_, _| ())
    }

    /// Edits the data for a hook, also while the last hooks run.
    pub(crate) fn edit_anyhow(&self, edit: impl FnOnce(&mut dyn Data)) {
        let open =
            |state: &State| if state.phase == Phase::Over { Err(Refusal::Over) } else { Ok(()) };
        let _ = self.edit_then(open, edit, |_, ()| ());
    }

    /// Lets a handler work on a message, unless another one has processed it. `waits` says whether
    /// the message is still in the inbox: a mark goes once its message is out of that, so neither
    /// tells alone. A handling that is spoiled leaves the data as it was.
    pub(crate) fn edit_for_message(
        &self,
        index: u64,
        waits: impl FnOnce() -> bool,
        handle: impl FnOnce(&mut dyn Data) -> Handled,
    ) -> Result<Handled, Refusal> {
        let admit = |state: &State| {
            state.admits()?;
            if !state.processed.contains_key(&index) && waits() {
                Ok(())
            } else {
                Err(Refusal::Processed)
            }
        };
        let replace = |base: &Arc<dyn Data>| {
            let mut copy = base.duplicate();
            let _editing = Editing::begin();
            match handle(&mut *copy) {
                Handled::Spoiled(fault) => (Handled::Spoiled(fault), None),
                handled => (handled, Some(Arc::from(copy))),
            }
        };
        let mark = |state: &mut State, handled: &Handled| {
            if let Handled::Processed(gifts) = handled {
                state.processed.insert(index, Mark { entry: None, gifts: gifts.clone() });
            }
        };
        self.replace_then(admit, replace, mark)
    }

    /// How many gifts go out with the next save.
    pub(super) fn pending_gifts(&self) -> usize {
        self.state.lock().processed.values().map(|mark| mark.gifts.len()).sum()
    }

    /// Replaces the data as an operator's edit wants it, unless that was done already; None leaves
    /// it as it is. The message is processed in any case. Answers with what is to be booked. See
    /// [`Live::edit_for_message`].
    pub(crate) fn edit_for_operator(
        &self,
        index: u64,
        waits: impl FnOnce() -> bool,
        apply: impl FnOnce(&dyn Data) -> (Option<Arc<dyn Data>>, AuditEntry),
    ) -> Result<Arc<AuditEntry>, Refusal> {
        let admit = |state: &State| {
            state.admits()?;
            if !state.processed.contains_key(&index) && waits() {
                Ok(())
            } else {
                Err(Refusal::Processed)
            }
        };
        let replace = |base: &Arc<dyn Data>| {
            let _editing = Editing::begin();
            let (data, entry) = apply(&**base);
            (Arc::new(entry), Some(data.unwrap_or_else(|| base.clone())))
        };
        let mark = |state: &mut State, entry: &Arc<AuditEntry>| {
            let mark = Mark { entry: Some(entry.clone()), gifts: Vec::new() };
            state.processed.insert(index, mark);
        };
        self.replace_then(admit, replace, mark)
    }

    /// Runs an edit if `admit` agrees; `then` completes it under the same lock that makes it
    /// visible.
    fn edit_then<R>(
        &self,
        admit: impl FnOnce(&State) -> Result<(), Refusal>,
        edit: impl FnOnce(&mut dyn Data) -> R,
        then: impl FnOnce(&mut State, &R),
    ) -> Result<R, Refusal> {
        let replace = |base: &Arc<dyn Data>| {
            let mut copy = base.duplicate();
            let _editing = Editing::begin();
            let answer = edit(&mut *copy);
            (answer, Some(Arc::from(copy)))
        };
        self.replace_then(admit, replace, then)
    }

    /// The same for an edit that makes other data of what there is; None: it changes nothing.
    fn replace_then<R>(
        &self,
        admit: impl FnOnce(&State) -> Result<(), Refusal>,
        replace: impl FnOnce(&Arc<dyn Data>) -> (R, Option<Arc<dyn Data>>),
        then: impl FnOnce(&mut State, &R),
    ) -> Result<R, Refusal> {
        let base = {
            let mut state = self.settled();
            admit(&state)?;
            state.editing = true;
            state.data.clone()
        };
        let result = catch_unwind(AssertUnwindSafe(|| replace(&base)));
        let mut state = self.state.lock();
        state.editing = false;
        self.edited.notify_all();
        match result {
            Ok((answer, changed)) => {
                if let Some(changed) = changed {
                    state.data = changed;
                    state.generation += 1;
                    then(&mut state, &answer);
                }
                Ok(answer)
            }
            Err(panic) => {
                drop(state);
                resume_unwind(panic)
            }
        }
    }

    /// Changes what is beside the data: user ids, metadata.
    pub(crate) fn edit_meta<R>(
        &self,
        key: &ProfileKey,
        edit: impl FnOnce(&mut Record) -> Result<R>,
    ) -> Result<R> {
        // Not while the end takes the last of it; but from inside an edit, which would wait for
        // itself.
        let mut state = if is_editing() { self.state.lock() } else { self.settled() };
        if state.taken {
            return Err(Refusal::Over.error(key));
        }
        state.admits().map_err(|refusal| refusal.error(key))?;
        let mut meta = Record::clone(&state.meta);
        let answer = edit(&mut meta).map_err(|error| error.about(key))?;
        state.meta = Arc::new(meta);
        state.generation += 1;
        Ok(answer)
    }

    /// Takes over what the keeper of the data has handed over; also what comes after the close, for
    /// the last save.
    pub(crate) fn accept(&self, mut handed: AnyCollected) -> Snapshot {
        let mut state = self.settled();
        let beside = handed.apply_meta(&mut state.meta);
        if beside || handed.data.is_some() {
            state.generation += 1;
        }
        if let Some(data) = handed.data {
            state.data = data;
        }
        for index in handed.processed {
            state.processed.entry(index).or_default();
        }
        state.locked = handed.locked.into_iter().collect();
        state.snapshot()
    }

    /// A snapshot of what is here, with other data, and with what is beside it changed. It counts
    /// only once [`Live::replace_with_stored`] is called with it.
    pub(crate) fn with(
        &self,
        data: Arc<dyn Data>,
        change: impl FnOnce(&mut Record),
        processed: Processed,
    ) -> Snapshot {
        let mut snapshot = self.settled().snapshot();
        let mut meta = Record::clone(&snapshot.meta);
        change(&mut meta);
        if meta != *snapshot.meta {
            snapshot.meta = Arc::new(meta);
        }
        Snapshot { data, generation: snapshot.generation + 1, processed, ..snapshot }
    }

    /// Puts a snapshot that is stored in the place of what is here.
    pub(crate) fn replace_with_stored(&self, stored: &Snapshot) {
        let mut state = self.settled();
        state.data = stored.data.clone();
        state.meta = stored.meta.clone();
        state.generation = stored.generation;
    }

    /// Takes over members that this program does not know, from a document that was written over
    /// the profile.
    pub(crate) fn keep_unknown(&self, said: &Record) {
        let mut state = self.state.lock();
        let meta = Record {
            extra: said.extra.clone(),
            extra_meta: said.extra_meta.clone(),
            ..Record::clone(&state.meta)
        };
        state.meta = Arc::new(meta);
    }

    /// The messages in `indexes` are out of the store.
    pub(crate) fn forget_processed(&self, indexes: &Processed) {
        self.state.lock().processed.retain(|index, _| !indexes.contains_key(index));
    }

    pub(crate) fn is_processed(&self, index: u64) -> bool {
        self.state.lock().processed.contains_key(&index)
    }
}

#[cfg(test)]
mod tests;
