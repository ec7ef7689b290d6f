//! One game server that this process hosts, whichever connection it has at the moment.
//!
//! Its connections come and go; its sessions and what it waits for stay. An answer goes to the
//! connection that counts. When there is none, or it is cut off, the game server sends the request
//! again, and the same identity finds what was done.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::extract::ws::{CloseFrame, Message};
use parking_lot::Mutex;
use profilestore::{
    ProfileKey,
    data_store::CommitId,
    hosting::{HostedServer, HostedSession},
};
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
};
use uuid::Uuid;

use super::frames::{Instance, ServerFrame};
use crate::{problem::Problem, secret::hex};

/// How many bytes of messages may be on their way to a game server, unanswered.
const MESSAGE_ROOM: usize = 1 << 20;

/// How many bytes may wait for a connection that does not read. Then it is closed.
const MOST_QUEUED: usize = 256 << 20;

/// How many bytes of documents may be staged.
const MOST_STAGED: usize = 64 << 20;

/// What is to be sent over one connection, in order.
#[derive(Clone)]
pub(crate) struct Outbox {
    frames: mpsc::UnboundedSender<Message>,
    pub(crate) queued: Arc<AtomicUsize>,
    /// The connection is to be given up.
    pub(crate) over: Arc<Notify>,
    /// The connection, as the log names it: the id of the request that opened it.
    instance: Arc<str>,
}

impl Outbox {
    pub(crate) fn new(instance: Arc<str>) -> (Self, mpsc::UnboundedReceiver<Message>) {
        let (frames, sent) = mpsc::unbounded_channel();
        (Self { frames, queued: Arc::default(), over: Arc::default(), instance }, sent)
    }

    /// Tells what is wrong, with the request `i` if it is about one.
    pub(crate) fn complain(&self, i: Option<u64>, problem: &Problem) {
        tracing::debug!(id = &*self.instance, i, %problem, "refused");
        self.send(&ServerFrame::Error { i, problem: problem.members(&self.instance) });
    }

    pub(crate) fn send(&self, frame: &ServerFrame) {
        let Ok(text) = serde_json::to_string(frame) else {
            tracing::error!("a frame could not be written");
            return self.over.notify_one();
        };
        let queued = self.queued.fetch_add(text.len(), Ordering::Relaxed) + text.len();
        if queued > MOST_QUEUED || self.frames.send(Message::Text(text.into())).is_err() {
            self.over.notify_one();
        }
    }

    /// Closes the connection behind what was sent before.
    pub(crate) fn close(&self, code: u16, reason: &'static str) {
        let close = CloseFrame { code, reason: reason.into() };
        if self.frames.send(Message::Close(Some(close))).is_err() {
            self.over.notify_one();
        }
    }
}

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
    numbered: Option<(u64, u64)>,
    /// The size of each message that this connection was told and that is not processed yet.
    messages: HashMap<u64, usize>,
    /// The operators' edits that this connection was told.
    edits: HashSet<Uuid>,
    /// What came before the session's beginning was told.
    early: Vec<ServerFrame>,
    phase: Phase,
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
            edits: HashSet::new(),
            early: Vec::new(),
            phase,
        }
    }

    /// A new connection: all that is so is told to it again, but for the end of a session.
    fn forget_told(&mut self) {
        self.messages.clear();
        self.edits.clear();
        self.early.retain(|frame| matches!(frame, ServerFrame::Closed { .. }));
        if self.started_by.is_some() && self.phase == Phase::Open {
            // It may not have heard of the session yet. Then it asks again.
            self.phase = Phase::Starting;
        }
    }
}

/// A request that is under way.
struct Pending {
    fingerprint: u64,
    start: Option<AbortHandle>,
}

#[derive(Default)]
struct State {
    connection: u64,
    outbox: Option<Outbox>,
    sessions: HashMap<u64, Entry>,
    numbers: HashMap<ProfileKey, u64>,
    pending: HashMap<u64, Pending>,
    answered: Answered,
    staged: HashMap<(u64, u64), Box<RawValue>>,
    staged_bytes: usize,
    message_bytes: usize,
    waiting: usize,
}

/// How many answered requests are remembered.
const REMEMBERED: usize = 10_000;

/// The last requests that were answered, so that a number which comes again with another content is
/// refused and not taken for done.
#[derive(Default)]
struct Answered {
    fingerprints: HashMap<u64, u64>,
    order: VecDeque<u64>,
}

impl Answered {
    fn note(&mut self, i: u64, fingerprint: u64) {
        if self.fingerprints.insert(i, fingerprint).is_none() {
            self.order.push_back(i);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.fingerprints.remove(&oldest);
        }
    }
}

/// What a request that has come means.
pub(crate) enum Begun {
    New,
    /// It is under way. Its answer will come.
    Pending,
    /// It was another request, which is under way or was answered.
    Reused,
}

pub(crate) struct Guest {
    pub(crate) server: HostedServer,
    pub(crate) instance: Instance,
    pub(crate) token: String,
    state: Mutex<State>,
    /// One connection at a time takes what is to be told.
    pub(crate) telling: tokio::sync::Mutex<()>,
    pub(crate) more_room: Notify,
}

impl Guest {
    pub(crate) fn new(server: HostedServer, instance: Instance, token: String) -> Self {
        Self {
            server,
            instance,
            token,
            state: Mutex::default(),
            telling: tokio::sync::Mutex::default(),
            more_room: Notify::new(),
        }
    }

    pub(crate) fn incarnation(&self) -> Uuid {
        self.server.incarnation().0
    }

    // --- connections ---------------------------------------------------------------------------

    /// From now on this connection counts, and the one before is closed. Answers with its number.
    pub(crate) fn attach(&self, outbox: Outbox) -> u64 {
        let mut state = self.state.lock();
        state.connection += 1;
        if let Some(before) = state.outbox.replace(outbox) {
            before.close(4000, "another connection took this one's place");
            before.over.notify_one();
        }
        // Everything that was not answered is told again.
        state.message_bytes = 0;
        state.sessions.values_mut().for_each(Entry::forget_told);
        state.connection
    }

    pub(crate) fn detach(&self, connection: u64) {
        let mut state = self.state.lock();
        if state.connection == connection {
            state.outbox = None;
        }
    }

    pub(crate) fn is_current(&self, connection: u64) -> bool {
        self.state.lock().connection == connection
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.state.lock().outbox.is_some()
    }

    /// Sends to the connection that counts, if there is one.
    pub(crate) fn tell(&self, frame: &ServerFrame) {
        let outbox = self.state.lock().outbox.clone();
        if let Some(outbox) = outbox {
            outbox.send(frame);
        }
    }

    /// Tells the connection that counts what is wrong.
    pub(crate) fn complain(&self, i: Option<u64>, problem: &Problem) {
        let outbox = self.state.lock().outbox.clone();
        if let Some(outbox) = outbox {
            outbox.complain(i, problem);
        }
    }

    pub(crate) fn close(&self, code: u16, reason: &'static str) {
        if let Some(outbox) = self.state.lock().outbox.clone() {
            outbox.close(code, reason);
        }
    }

    // --- requests ------------------------------------------------------------------------------

    /// Notes that a request has begun.
    pub(crate) fn begin(&self, i: u64, fingerprint: u64) -> Begun {
        let mut state = self.state.lock();
        if state.answered.fingerprints.get(&i).is_some_and(|before| *before != fingerprint) {
            return Begun::Reused;
        }
        match state.pending.get(&i) {
            Some(pending) if pending.fingerprint == fingerprint => Begun::Pending,
            Some(_) => Begun::Reused,
            None => {
                state.pending.insert(i, Pending { fingerprint, start: None });
                Begun::New
            }
        }
    }

    /// Whether there is room for one more start or message; takes it.
    pub(crate) fn take_window(&self, window: usize) -> bool {
        let mut state = self.state.lock();
        let free = state.waiting < window;
        state.waiting += usize::from(free);
        free
    }

    pub(crate) fn give_window_back(&self) {
        self.state.lock().waiting -= 1;
    }

    pub(crate) fn forget(&self, i: u64) {
        self.state.lock().pending.remove(&i);
    }

    /// A start can be called off by this from now on.
    pub(crate) fn note_start(&self, i: u64, start: AbortHandle) {
        if let Some(pending) = self.state.lock().pending.get_mut(&i) {
            pending.start = Some(start);
        }
    }

    /// Calls a start off. False: it is not under way.
    pub(crate) fn cancel(&self, i: u64) -> bool {
        let mut state = self.state.lock();
        let start = state.pending.get_mut(&i).and_then(|pending| pending.start.take());
        let Some(start) = start else { return false };
        start.abort();
        state.pending.remove(&i);
        drop(state);
        true
    }

    pub(crate) fn answer(&self, i: u64, frame: &ServerFrame) {
        self.note_answered(i);
        self.tell(frame);
    }

    /// Answers that a request failed, unless nothing is done here any more: then the game server
    /// resumes and sends it again.
    pub(crate) fn refuse(&self, i: u64, problem: &Problem) {
        self.note_answered(i);
        if self.server.stopped().is_none() {
            self.complain(Some(i), problem);
        }
    }

    fn note_answered(&self, i: u64) {
        let mut state = self.state.lock();
        if let Some(pending) = state.pending.remove(&i) {
            state.answered.note(i, pending.fingerprint);
        }
    }

    /// Notes the number of a save that comes with a request. Fails when it has not grown. A request
    /// that comes again has the number that it had.
    pub(crate) fn number_grows(&self, i: u64, s: u64, n: u64) -> Result<(), Problem> {
        let mut state = self.state.lock();
        let Some(entry) = state.sessions.get_mut(&s) else { return Ok(()) };
        match entry.numbered {
            Some((last_i, _)) if i <= last_i => Ok(()),
            Some((_, last)) if n <= last => {
                let detail = format!(
                    "the number of a save grows with each one of the session: s=`{s}` n=`{n}` \
                     last=`{last}`"
                );
                Err(Problem::invalid(detail))
            }
            _ => {
                entry.numbered = Some((i, n));
                Ok(())
            }
        }
    }

    // --- sessions ------------------------------------------------------------------------------

    /// Forgets the sessions that a game server did not name when it resumed, or that the key of its
    /// connection may not hold. Those whose start it has not heard of yet stay.
    pub(crate) fn keep_named(&self, is_named: impl Fn(u64) -> bool) {
        let mut state = self.state.lock();
        let known = |s: &u64, entry: &mut Entry| {
            is_named(*s) || entry.session.is_none() || entry.started_by.is_some()
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
        Ok(())
    }

    /// The session that this start opened before.
    pub(crate) fn started_before(&self, s: u64, by: CommitId) -> Option<HostedSession> {
        let state = self.state.lock();
        let entry = state.sessions.get(&s).filter(|entry| entry.started_by == Some(by))?;
        entry.session.clone()
    }

    /// A session is open from now on. True when its profile had another number until now.
    pub(crate) fn opened(&self, s: u64, session: HostedSession, by: Option<CommitId>) -> bool {
        let mut state = self.state.lock();
        let key = session.key().clone();
        let phase = if by.is_some() { Phase::Starting } else { Phase::Adopting };
        let entry = state.sessions.entry(s).or_insert_with(|| Entry::new(key.clone(), phase));
        entry.session = Some(session);
        entry.started_by = by.or(entry.started_by);
        state.numbers.insert(key, s).is_some_and(|before| before != s)
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

    /// The number of a profile's session.
    pub(crate) fn number(&self, key: &ProfileKey) -> Option<u64> {
        self.state.lock().numbers.get(key).copied()
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
        state.message_bytes = state.message_bytes.saturating_sub(freed);
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
        let freed: usize = entry.messages.values().sum();
        state.message_bytes = state.message_bytes.saturating_sub(freed);
        drop(state);
        self.more_room.notify_one();
    }

    // --- messages and staged documents -----------------------------------------------------------

    /// How many bytes of messages may be handed out now.
    pub(crate) fn room(&self) -> usize {
        MESSAGE_ROOM.saturating_sub(self.state.lock().message_bytes)
    }

    /// Notes that a message is told. False: this connection was told it before.
    pub(crate) fn hand_out(&self, s: u64, index: u64, bytes: usize) -> bool {
        let mut state = self.state.lock();
        let Some(entry) = state.sessions.get_mut(&s) else { return true };
        if entry.messages.insert(index, bytes).is_some() {
            return false;
        }
        state.message_bytes += bytes;
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

/// A new token: 256 random bits.
pub(crate) fn new_token() -> Result<String, Problem> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::new("internal", format!("no randomness: {error}")))?;
    Ok(hex(&bytes))
}

/// How long a stopping process waits for its game servers to resume elsewhere.
pub(crate) const GOAWAY_TIME: Duration = Duration::from_secs(5);
