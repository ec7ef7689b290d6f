//! What every client was told: success, failure, or nothing. Unknown counts as neither.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use profilestore::SessionEnd;
use tokio::time::Instant;

use crate::{data::Label, seat::Seat, world::life::Life};

/// A session that a client was given.
pub struct SessionTold {
    pub key: String,
    /// The store's name for it, if the store still said so when the client got it.
    pub store_name: Option<String>,
    pub life: Arc<Life>,
    pub seat: Seat,
    /// Edits that the client made.
    pub edits: u64,
    /// How it ended, and the edits at that moment.
    pub ended: Option<(SessionEnd, u64)>,
    /// The number of the client's first call that ended it.
    pub end_called: Option<u64>,
    /// Others took it, ended it or rewrote its profile: what becomes of its calls is their doing.
    pub disturbed: bool,
}

impl SessionTold {
    /// True when the session may have been over before the turn of a call with this number: its
    /// client or a shutdown ended it by an earlier call, or others did.
    pub fn may_be_over_before(&self, call: u64) -> bool {
        let others = matches!(
            self.ended,
            Some((SessionEnd::External | SessionEnd::Operator { .. } | SessionEnd::Lost, _))
        );
        self.disturbed || others || self.was_ended_before(call)
    }

    /// True when a call with a smaller number ends it.
    pub fn was_ended_before(&self, call: u64) -> bool {
        self.end_called.is_some_and(|end| end < call) || self.life.is_closing_before(call)
    }
}

/// A start that a client has under way, or had.
pub struct StartTold {
    /// The number of its call.
    pub number: u64,
    pub key: String,
    pub life: Arc<Life>,
    pub since: Instant,
    pub until: Option<Instant>,
    pub steal: bool,
    pub overwrite: bool,
    /// Its caller may call it off, by a function of its own.
    pub may_be_cancelled: bool,
    /// After how long it gives up. None: never by time.
    pub limit: Option<Duration>,
}

/// What is known about a message.
#[derive(Debug, Clone, Default)]
pub struct LetterTold {
    pub to: String,
    pub coins: i64,
    pub gift: bool,
    /// Calls that have not returned.
    pub under_way: u32,
    /// A call was told nothing certain.
    pub unknown: bool,
    /// A call was told that it is stored.
    pub stored: bool,
}

impl LetterTold {
    /// True when the sender knows for certain that it was not sent.
    pub fn failed(&self) -> bool {
        self.under_way == 0 && !self.unknown && !self.stored
    }
}

/// What is known about an operator's edit.
#[derive(Debug, Clone, Default)]
pub struct EditTold {
    /// None: every profile.
    pub to: Option<String>,
    /// Profiles that begin get it too.
    pub stands: bool,
    /// Calls that have not returned.
    pub under_way: u32,
    /// A call was told nothing certain.
    pub unknown: bool,
    /// A call was told that it is done.
    pub done: bool,
    /// A call was told that it is refused for good.
    pub refused: bool,
    /// An operator was told that it stands.
    pub standing: bool,
    /// An operator wants it undone.
    pub undoing: bool,
    /// An operator was told that it is undone everywhere.
    pub undone: bool,
}

impl EditTold {
    /// True when the operator knows for certain that it took no effect.
    pub fn failed(&self) -> bool {
        self.to.is_some() && self.under_way == 0 && !self.unknown && !self.done
    }
}

/// What is known about a trade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TradeTold {
    /// Its call has not returned, or nobody can tell.
    Unknown,
    Done,
    /// Its client was told that nothing was done.
    Failed,
}

/// The oracle.
#[derive(Default)]
pub struct Told {
    next_call: u64,
    next_label: Label,
    next_item: u64,
    pub sessions: BTreeMap<Label, SessionTold>,
    /// Writes of operators: whose label on which key.
    pub operators: BTreeMap<Label, String>,
    pub starts: Vec<StartTold>,
    /// Removals that were asked for.
    pub removals: BTreeMap<String, u64>,
    /// How often each profile was rewritten from outside its sessions.
    rewritten: BTreeMap<String, u64>,
    pub letters: Vec<LetterTold>,
    pub trades: Vec<TradeTold>,
    /// What is known about each transaction, by the number of its call.
    pub transactions: BTreeMap<u64, TradeTold>,
    pub edits: Vec<EditTold>,
    /// For how long a request may wait at the store, in a world in which the store is too slow.
    pub backlog: Duration,
}

/// For how long after it ended a call may still take effect: a request that arrives late.
const AFTERMATH: Duration = Duration::from_secs(120);

impl Told {
    /// Whether a call that ended then may still take effect.
    fn may_arrive(&self, ended: Option<Instant>, now: Instant) -> bool {
        ended.is_none_or(|ended| now - ended < AFTERMATH + self.backlog)
    }

    /// Forgets starts that can take no effect any more.
    pub fn forget_old_starts(&mut self) {
        let mut starts = std::mem::take(&mut self.starts);
        starts.retain(|start| self.may_arrive(start.until, Instant::now()));
        self.starts = starts;
    }

    /// The number of a call that is made now: calls are numbered in call order.
    pub fn call(&mut self) -> u64 {
        self.next_call += 1;
        self.next_call
    }

    pub fn label(&mut self) -> Label {
        self.next_label += 1;
        self.next_label
    }

    /// The number of a new item.
    pub fn item(&mut self) -> u64 {
        self.next_item += 1;
        self.next_item
    }

    /// A backup was put in the store's place: what stood, was refused or undone may not be so in
    /// it.
    pub fn restored(&mut self) {
        for edit in &mut self.edits {
            (edit.refused, edit.standing, edit.undone) = (false, false, false);
            // What was asked before may take effect in it when an operator asks again.
            edit.unknown = true;
        }
        for session in self.sessions.values_mut() {
            session.disturbed = true;
        }
    }

    /// The session that the store calls so.
    pub fn by_store_name(&self, name: &str) -> Option<(Label, &SessionTold)> {
        let mut newest_first = self.sessions.iter().rev();
        newest_first
            .find(|(_, session)| session.store_name.as_deref() == Some(name))
            .map(|(label, session)| (*label, session))
    }

    pub fn is_operator(&self, label: Label) -> bool {
        self.operators.contains_key(&label)
    }

    /// A profile was rewritten from outside its sessions.
    pub fn was_rewritten(&mut self, key: &str) {
        *self.rewritten.entry(key.to_owned()).or_default() += 1;
    }

    /// How often a profile was.
    pub fn rewritten(&self, key: &str) -> u64 {
        self.rewritten.get(key).copied().unwrap_or_default()
    }

    /// Others have something to do with the session that the store calls so.
    pub fn disturb(&mut self, name: &str) {
        let mut newest_first = self.sessions.values_mut().rev();
        if let Some(session) =
            newest_first.find(|session| session.store_name.as_deref() == Some(name))
        {
            session.disturbed = true;
        }
    }

    /// A start has returned, or its caller has gone.
    pub fn start_ended(&mut self, number: u64) {
        if let Some(start) = self.starts.iter_mut().find(|start| start.number == number) {
            start.until = Some(Instant::now());
        }
    }

    /// Starts on a key that can take effect now, those of late requests included.
    pub fn starts_on<'a>(
        &'a self,
        key: &'a str,
        now: Instant,
    ) -> impl Iterator<Item = &'a StartTold> {
        self.starts
            .iter()
            .filter(move |start| start.key == key && self.may_arrive(start.until, now))
    }
}
