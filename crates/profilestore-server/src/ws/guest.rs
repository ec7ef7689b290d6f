//! One game server that this process hosts, whichever connection it has at the moment.
//!
//! Its connections come and go; its sessions and what it waits for stay. An answer goes to the
//! connection that counts. When there is none, or it is cut off, the game server sends the request
//! again, and the same identity finds what was done.

mod sessions;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::{ProfileKey, hosting::HostedServer};
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};
use uuid::Uuid;

use super::{
    frames::{Instance, ServerFrame},
    outbox::Outbox,
};
use crate::{problem::Problem, secret::hex};
use sessions::Entry;
pub(crate) use sessions::LettingGo;

/// A request that is under way.
struct Pending {
    fingerprint: u64,
    start: Option<UnderWay>,
    /// A start that has come to its end: it is answered, and cannot be called off any more.
    is_kept: bool,
    /// A start that is called off. It is answered when nothing of it is left.
    is_off: bool,
    has: Vec<(u64, Brings)>,
}

/// A start that is under way.
struct UnderWay {
    task: AbortHandle,
    /// Tells the task that the start is called off.
    off: Arc<Notify>,
}

/// What a request brings of a session: a document. Of each kind one is unanswered at most, since
/// nothing else bounds how much of them waits here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Brings {
    Save,
    End,
    Part,
}

#[derive(Default)]
struct State {
    connection: u64,
    outbox: Option<Outbox>,
    sessions: HashMap<u64, Entry>,
    numbers: HashMap<ProfileKey, u64>,
    pending: HashMap<u64, Pending>,
    answered: Answered,
    /// The sessions of which something is unanswered.
    brought: HashSet<(u64, Brings)>,
    staged: HashMap<(u64, u64), Box<RawValue>>,
    staged_bytes: usize,
    waiting: usize,
    /// Another run of the SDK has resumed the game server here.
    has_made_way: bool,
    /// The profiles that are let go because their start was called off.
    letting_go: HashSet<ProfileKey>,
}

/// How much is kept of what a game server tells of its SDK.
const MAX_SDK_CHARS: usize = 100;

/// How many requests may be under way besides three of each session: starts, messages, and those of
/// sessions that are over, about which the store is asked.
const MOST_BESIDES: usize = 4000;

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
    /// The SDK and its version, as the game server told.
    pub(crate) sdk: Option<String>,
    /// Another host had the game server before: starts may have left something behind there.
    pub(crate) is_taken_over: bool,
    state: Mutex<State>,
    /// Whether it has a connection that is not silent.
    heard: watch::Sender<bool>,
    /// One connection at a time takes what is to be told.
    pub(crate) telling: tokio::sync::Mutex<()>,
    pub(crate) more_room: Notify,
    /// A profile is not being let go any more.
    let_go: Notify,
    /// Whether a frame is to be taken may be another thing now: less is under way, there are more
    /// sessions, or another connection counts.
    less_full: Notify,
}

impl Guest {
    pub(crate) fn new(
        server: HostedServer,
        instance: Instance,
        token: String,
        sdk: Option<&str>,
    ) -> Self {
        Self {
            server,
            instance,
            token,
            sdk: sdk.map(|sdk| sdk.chars().take(MAX_SDK_CHARS).collect()),
            is_taken_over: false,
            state: Mutex::default(),
            heard: watch::Sender::new(false),
            telling: tokio::sync::Mutex::default(),
            more_room: Notify::new(),
            let_go: Notify::new(),
            less_full: Notify::new(),
        }
    }

    /// The same, of a game server that another host had before.
    pub(crate) fn taken_over(self) -> Self {
        Self { is_taken_over: true, ..self }
    }

    pub(crate) fn incarnation(&self) -> Uuid {
        self.server.incarnation().0
    }

    // --- connections ---------------------------------------------------------------------------

    /// From now on this connection counts, and the one before is closed. Answers with its number.
    /// It is welcomed first: what is told meanwhile, also by the connection before, comes behind.
    pub(crate) fn attach(&self, outbox: Outbox, welcome: &ServerFrame) -> u64 {
        let mut state = self.state.lock();
        state.connection += 1;
        if state.has_made_way {
            outbox.replaced();
            return state.connection;
        }
        outbox.send(welcome);
        if let Some(before) = state.outbox.replace(outbox) {
            before.replaced();
        }
        // It comes again, before the transaction that it is for.
        state.staged.clear();
        state.staged_bytes = 0;
        // Everything that was not answered is told again.
        state.sessions.values_mut().for_each(Entry::forget_told);
        self.heard.send_replace(true);
        self.less_full.notify_waiters();
        state.connection
    }

    pub(crate) fn detach(&self, connection: u64) {
        let mut state = self.state.lock();
        if state.connection == connection {
            state.outbox = None;
            self.heard.send_replace(false);
        }
    }

    /// Another run of the SDK has resumed the game server here. The connection ends, and no other
    /// one of this run begins. When this is over, nothing is told to it any more: what there is to
    /// tell is for the run that goes on.
    pub(crate) async fn make_way(&self) {
        if self.server.stopped().is_some() {
            // It was of an earlier hosting, and is told so.
            return self.give_up();
        }
        // First, so that no start begins behind those that are given up.
        self.leave_connection();
        self.give_up();
        drop(self.telling.lock().await);
    }

    fn leave_connection(&self) {
        let mut state = self.state.lock();
        state.has_made_way = true;
        state.connection += 1;
        if let Some(outbox) = state.outbox.take() {
            outbox.replaced();
            self.heard.send_replace(false);
        }
    }

    pub(crate) fn has_made_way(&self) -> bool {
        self.state.lock().has_made_way
    }

    /// The connection has fallen silent, or was heard of again.
    pub(crate) fn note_heard(&self, connection: u64, is_heard: bool) {
        let state = self.state.lock();
        if state.connection == connection && state.outbox.is_some() {
            self.heard.send_replace(is_heard);
        }
    }

    /// Waits until the game server is heard of, or until it is not.
    pub(crate) async fn until_heard(&self, is_heard: bool) {
        // It fails without a sender only, and that is here.
        let _ = self.heard.subscribe().wait_for(|now| *now == is_heard).await;
    }

    pub(crate) fn is_current(&self, connection: u64) -> bool {
        let state = self.state.lock();
        state.connection == connection && !state.has_made_way
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
                let pending = Pending {
                    fingerprint,
                    start: None,
                    is_kept: false,
                    is_off: false,
                    has: Vec::new(),
                };
                state.pending.insert(i, pending);
                Begun::New
            }
        }
    }

    /// Notes what a request brings. Fails when the same of one of its sessions is unanswered, or
    /// the session has not begun.
    pub(crate) fn bring(
        &self,
        i: u64,
        sessions: impl IntoIterator<Item = u64>,
        what: Brings,
    ) -> Result<(), Problem> {
        let mut state = self.state.lock();
        let State { pending, brought, sessions: entries, .. } = &mut *state;
        let Some(pending) = pending.get_mut(&i) else { return Ok(()) };
        for s in sessions {
            if entries.get(&s).is_some_and(Entry::is_starting) {
                let detail = format!("the session has not begun; wait for `started`: s=`{s}`");
                return Err(Problem::invalid(detail));
            }
            if !brought.insert((s, what)) {
                let name = match what {
                    Brings::Save => "save",
                    Brings::End => "end",
                    Brings::Part => "transaction",
                };
                let detail =
                    format!("the session's last {name} is unanswered; wait for that: s=`{s}`");
                return Err(Problem::new("busy", detail));
            }
            pending.has.push((s, what));
        }
        Ok(())
    }

    /// Whether so much is under way that no frame is to be taken before something is answered.
    fn is_full(&self) -> bool {
        let state = self.state.lock();
        state.pending.len() > 3 * state.sessions.len() + MOST_BESIDES
    }

    /// Waits until a frame is to be taken from this connection, or until another one counts.
    pub(crate) async fn until_less_full(&self, connection: u64) {
        loop {
            // It begins before the look, so that nothing is missed that happens behind the look.
            let change = self.less_full.notified();
            if !self.is_full() || !self.is_current(connection) {
                return;
            }
            change.await;
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
        self.less_full.notify_waiters();
    }

    /// A start is done by this task, which hears by `off` that it is called off.
    pub(crate) fn note_start(&self, i: u64, task: AbortHandle, off: Arc<Notify>) {
        let mut state = self.state.lock();
        if state.has_made_way {
            // Its answer could reach no connection any more.
            return task.abort();
        }
        if let Some(pending) = state.pending.get_mut(&i) {
            if pending.is_off {
                // By another connection, just before.
                off.notify_one();
            }
            pending.start = Some(UnderWay { task, off });
        }
    }

    /// Calls a start off. Its task answers it when nothing of it is left. Does nothing when it is
    /// not under way, or has come to its end.
    pub(crate) fn cancel(&self, i: u64) {
        let mut state = self.state.lock();
        let Some(pending) = state.pending.get_mut(&i).filter(|pending| !pending.is_kept) else {
            return;
        };
        pending.is_off = true;
        if let Some(start) = &pending.start {
            start.off.notify_one();
        }
    }

    /// A start has come to its end. False: it was called off just before, and is answered so.
    pub(crate) fn keep_start(&self, i: u64) -> bool {
        let mut state = self.state.lock();
        let pending = state.pending.get_mut(&i).filter(|pending| !pending.is_off);
        let Some(pending) = pending else { return false };
        pending.is_kept = true;
        true
    }

    /// Nothing is done for the game server here any more: its starts are called off. One that is
    /// sent again begins again, since no answer comes to the first.
    pub(crate) fn give_up(&self) {
        let mut starts = Vec::new();
        self.state.lock().pending.retain(|_, pending| {
            let start = pending.start.take();
            let is_other = start.is_none();
            starts.extend(start);
            is_other
        });
        self.less_full.notify_waiters();
        starts.iter().for_each(|start| start.task.abort());
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
            for has in pending.has {
                state.brought.remove(&has);
            }
        }
        drop(state);
        self.less_full.notify_waiters();
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
}

/// A new token: 256 random bits.
pub(crate) fn new_token() -> Result<String, Problem> {
    let mut bytes = [0; 32];
    #[expect(clippy::disallowed_methods, reason = "a secret is drawn from the system alone")]
    let drawn = getrandom::fill(&mut bytes);
    drawn.map_err(|error| Problem::new("internal", format!("no randomness: {error}")))?;
    Ok(hex(&bytes))
}

/// How long a stopping process waits for its game servers to resume elsewhere.
pub(crate) const GOAWAY_TIME: Duration = Duration::from_secs(5);
