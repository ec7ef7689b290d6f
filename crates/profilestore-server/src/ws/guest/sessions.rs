//! The sessions of a game server: from their start or adoption to their end, and what is told of
//! them when.

use std::collections::{HashMap, HashSet};

use profilestore::{ProfileKey, data_store::CommitId, hosting::HostedSession};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Guest, State};
use crate::{problem::Problem, ws::frames::ServerFrame};

/// How many bytes of a session's messages may be on their way to a game server, unanswered.
const MESSAGE_ROOM: usize = 1 << 20;

/// How many bytes of documents may be staged.
const MOST_STAGED: usize = 64 << 20;

/// A session, by the number that the game server gave it.
pub(crate) struct Entry {
    pub(crate) key: ProfileKey,
    /// None while it is being started or adopted.
    pub(crate) session: Option<HostedSession>,
    /// The start that opened it, as long as the game server may ask for its answer again.
    pub(crate) started_by: Option<CommitId>,
    /// The last save that is stored.
    pub(crate) stored_n: Option<u64>,
    /// The last request of it that has a number of a save, and that number.
    pub(super) numbered: Option<(u64, u64)>,
    /// The size of each message that this connection was told and that is not processed yet.
    messages: HashMap<u64, usize>,
    /// The sum of these.
    message_bytes: usize,
    /// The operators' edits that this connection was told.
    edits: HashSet<Uuid>,
    /// What came before the session's beginning was told.
    early: Vec<ServerFrame>,
    phase: Phase,
}

/// Whether a profile may be let go whose start was called off.
pub(crate) enum LettingGo<'a> {
    /// From now on, and until this is dropped, no start of the profile begins.
    Turn(Turn<'a>),
    /// A start or a resume of the profile is under way, which may want it.
    NotNow,
    /// The game server has a session of the profile.
    Kept,
}

/// A profile's turn to be let go.
pub(crate) struct Turn<'a> {
    guest: &'a Guest,
    key: &'a ProfileKey,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.guest.state.lock().letting_go.remove(self.key);
        self.guest.let_go.notify_waiters();
    }
}

/// What the game server knows of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It waits for the answer to its start.
    Starting,
    /// The same, and the session is over by now.
    StartedAndOver,
    /// It waits to hear that the session goes on.
    Adopting,
    Open,
}

impl Entry {
    fn new(key: ProfileKey, phase: Phase) -> Self {
        Self {
            key,
            session: None,
            started_by: None,
            stored_n: None,
            numbered: None,
            messages: HashMap::new(),
            message_bytes: 0,
            edits: HashSet::new(),
            early: Vec::new(),
            phase,
        }
    }

    /// Whether its start is under way.
    pub(super) fn is_starting(&self) -> bool {
        self.session.is_none() && self.phase != Phase::Adopting
    }

    /// A new connection: all that is so is told to it again, but for the end of a session.
    pub(super) fn forget_told(&mut self) {
        self.messages.clear();
        self.message_bytes = 0;
        self.edits.clear();
        self.early.retain(|frame| matches!(frame, ServerFrame::Closed { .. }));
        if self.started_by.is_some() && self.phase == Phase::Open {
            // It may not have heard of the session yet. Then it asks again.
            self.phase = Phase::Starting;
        }
    }
}

impl Guest {
    /// Forgets the sessions that a game server did not name when it resumed, or that the key of its
    /// connection may not hold. Those whose start it has not heard of yet stay; one that an earlier
    /// resume did not come to does not.
    pub(crate) fn keep_named(&self, is_named: impl Fn(u64) -> bool) {
        let mut state = self.state.lock();
        let known = |s: &u64, entry: &mut Entry| {
            is_named(*s) || entry.is_starting() || entry.started_by.is_some()
        };
        state.sessions.retain(known);
        let State { sessions, numbers, .. } = &mut *state;
        numbers.retain(|_, s| sessions.contains_key(s));
    }

    /// Notes a session that is to be adopted. Its events may come at once.
    pub(crate) fn expect(&self, s: u64, key: &ProfileKey) {
        let mut state = self.state.lock();
        state.numbers.insert(key.clone(), s);
        let entry = state.sessions.entry(s);
        let entry = entry.or_insert_with(|| Entry::new(key.clone(), Phase::Adopting));
        entry.phase = Phase::Adopting;
        self.less_full.notify_waiters();
    }

    /// Notes a session that is being started. Err: the number has another profile.
    pub(crate) fn starting(&self, s: u64, key: &ProfileKey) -> Result<(), Problem> {
        let mut state = self.state.lock();
        let entry =
            state.sessions.entry(s).or_insert_with(|| Entry::new(key.clone(), Phase::Starting));
        if entry.key != *key || (entry.session.is_some() && entry.started_by.is_none()) {
            let detail = format!("the session's number is in use: s=`{s}`");
            return Err(Problem::invalid(detail));
        }
        state.numbers.entry(key.clone()).or_insert(s);
        self.less_full.notify_waiters();
        Ok(())
    }

    /// The session that this start opened before.
    pub(crate) fn started_before(&self, s: u64, by: CommitId) -> Option<HostedSession> {
        let state = self.state.lock();
        let entry = state.sessions.get(&s).filter(|entry| entry.started_by == Some(by))?;
        entry.session.clone()
    }

    /// A session is open from now on. True when its profile had another number until now, or none:
    /// what came meanwhile is told again.
    pub(crate) fn opened(&self, s: u64, session: HostedSession, by: Option<CommitId>) -> bool {
        let mut state = self.state.lock();
        let key = session.key().clone();
        let phase = if by.is_some() { Phase::Starting } else { Phase::Adopting };
        let entry = state.sessions.entry(s).or_insert_with(|| Entry::new(key.clone(), phase));
        entry.session = Some(session);
        entry.started_by = by.or(entry.started_by);
        self.less_full.notify_waiters();
        state.numbers.insert(key, s) != Some(s)
    }

    /// The game server knows of a session from now on: what came before is told behind that.
    pub(crate) fn tell_early(&self, s: u64) {
        let mut state = self.state.lock();
        let State { sessions, outbox, .. } = &mut *state;
        let Some(entry) = sessions.get_mut(&s) else { return };
        let is_over = entry.phase == Phase::StartedAndOver;
        entry.phase = Phase::Open;
        let early = std::mem::take(&mut entry.early);
        if let Some(outbox) = outbox {
            early.iter().for_each(|frame| outbox.send(frame));
        }
        drop(state);
        if is_over {
            self.over(s);
        }
    }

    /// The number of a profile's session. None also while the profile is being let go: what is said
    /// then is of a session that the game server does not know.
    pub(crate) fn number(&self, key: &ProfileKey) -> Option<u64> {
        let state = self.state.lock();
        state.numbers.get(key).filter(|_| !state.letting_go.contains(key)).copied()
    }

    /// Begins to let a profile go that no session of the game server may have.
    pub(crate) fn begin_letting_go<'a>(&'a self, key: &'a ProfileKey) -> LettingGo<'a> {
        let mut state = self.state.lock();
        let mut sessions = state.sessions.values().filter(|entry| entry.key == *key).peekable();
        if sessions.peek().is_some() {
            let is_open = sessions.any(|entry| entry.session.is_some());
            return if is_open { LettingGo::Kept } else { LettingGo::NotNow };
        }
        if state.letting_go.insert(key.clone()) {
            LettingGo::Turn(Turn { guest: self, key })
        } else {
            LettingGo::NotNow
        }
    }

    /// Waits while a profile is being let go.
    pub(crate) async fn until_let_go(&self, key: &ProfileKey) {
        loop {
            let over = self.let_go.notified();
            if !self.state.lock().letting_go.contains(key) {
                return;
            }
            over.await;
        }
    }

    pub(crate) fn session(&self, s: u64) -> Option<HostedSession> {
        self.state.lock().sessions.get(&s)?.session.clone()
    }

    /// Tells something about a session, behind its beginning. What asks for a session that is held
    /// already is told at once: the next pong comes behind it.
    pub(crate) fn tell_of(&self, s: u64, frame: ServerFrame) {
        let mut state = self.state.lock();
        let waits = |phase| match phase {
            Phase::Open => false,
            Phase::Adopting => !matches!(frame, ServerFrame::Release { .. }),
            Phase::Starting | Phase::StartedAndOver => true,
        };
        match state.sessions.get_mut(&s) {
            Some(entry) if waits(entry.phase) => entry.early.push(frame),
            _ => {
                if let Some(outbox) = &state.outbox {
                    outbox.send(&frame);
                }
            }
        }
    }

    /// Tells that a session was closed, behind the answer to its start.
    pub(crate) fn closed(&self, s: u64, frame: ServerFrame) {
        let mut state = self.state.lock();
        if let Some(entry) = state.sessions.get_mut(&s)
            && entry.phase == Phase::Starting
        {
            entry.phase = Phase::StartedAndOver;
            return entry.early.push(frame);
        }
        if let Some(outbox) = &state.outbox {
            outbox.send(&frame);
        }
        drop(state);
        self.over(s);
    }

    pub(crate) fn stored_n(&self, s: u64) -> Option<u64> {
        self.state.lock().sessions.get(&s)?.stored_n
    }

    /// A save is stored: its messages are answered, and the start's answer has arrived.
    pub(crate) fn stored(&self, s: u64, n: u64, processed: &[u64]) {
        let mut state = self.state.lock();
        let Some(entry) = state.sessions.get_mut(&s) else { return };
        entry.stored_n = entry.stored_n.max(Some(n));
        entry.started_by = None;
        let freed: usize = processed.iter().filter_map(|index| entry.messages.remove(index)).sum();
        entry.message_bytes = entry.message_bytes.saturating_sub(freed);
        drop(state);
        self.more_room.notify_one();
    }

    /// A session is over.
    pub(crate) fn over(&self, s: u64) {
        let mut state = self.state.lock();
        let Some(entry) = state.sessions.remove(&s) else { return };
        if state.numbers.get(&entry.key) == Some(&s) {
            state.numbers.remove(&entry.key);
        }
    }
}

/// Messages that were handed out, and documents that are staged.
impl Guest {
    /// How many bytes of a profile's messages may be handed out now. What one session leaves
    /// unanswered holds up no other.
    pub(crate) fn room(&self, key: &ProfileKey) -> usize {
        let state = self.state.lock();
        let entry = state.numbers.get(key).and_then(|s| state.sessions.get(s));
        MESSAGE_ROOM.saturating_sub(entry.map_or(0, |entry| entry.message_bytes))
    }

    /// Notes that a message is told. False: this connection was told it before.
    pub(crate) fn hand_out(&self, s: u64, index: u64, bytes: usize) -> bool {
        let mut state = self.state.lock();
        let Some(entry) = state.sessions.get_mut(&s) else { return true };
        if entry.messages.insert(index, bytes).is_some() {
            return false;
        }
        entry.message_bytes += bytes;
        true
    }

    /// The same of an operator's edit.
    pub(crate) fn hand_out_edit(&self, s: u64, operation: Uuid) -> bool {
        let mut state = self.state.lock();
        state.sessions.get_mut(&s).is_none_or(|entry| entry.edits.insert(operation))
    }

    pub(crate) fn stage(&self, s: u64, n: u64, data: Box<RawValue>) -> Result<(), Problem> {
        let mut state = self.state.lock();
        let bytes = data.get().len();
        if state.staged_bytes + bytes > MOST_STAGED {
            let detail = format!("too much is staged: limit=`{MOST_STAGED}`");
            return Err(Problem::new("too-large", detail));
        }
        state.staged_bytes += bytes;
        if let Some(before) = state.staged.insert((s, n), data) {
            state.staged_bytes -= before.get().len();
        }
        Ok(())
    }

    pub(crate) fn staged(&self, s: u64, n: u64) -> Option<Box<RawValue>> {
        let mut state = self.state.lock();
        let data = state.staged.remove(&(s, n))?;
        state.staged_bytes -= data.get().len();
        Some(data)
    }
}
