//! What every client was told: success, failure, or nothing. Unknown counts as neither.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use profilestore::{Profile, SessionEnd};
use tokio::time::Instant;

use crate::{
    data::{Label, Player},
    world::life::Life,
};

/// A session that a client was given.
pub struct SessionTold {
    pub key: String,
    /// The store's name for it, if the store still said so when the client got it.
    pub store_name: Option<String>,
    pub life: Arc<Life>,
    pub profile: Profile<Player>,
    /// Edits that the client made.
    pub edits: u64,
    /// How it ended, and the edits at that moment.
    pub ended: Option<(SessionEnd, u64)>,
}

/// A start that a client has under way, or had.
pub struct StartTold {
    pub key: String,
    pub life: Arc<Life>,
    pub since: Instant,
    pub until: Option<Instant>,
    pub steal: bool,
    pub overwrite: bool,
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
    /// Somebody was told that it stands.
    pub standing: bool,
    /// Somebody wants it undone.
    pub undoing: bool,
    /// Somebody was told that it is undone everywhere.
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
    next_label: Label,
    next_item: u64,
    pub sessions: BTreeMap<Label, SessionTold>,
    /// Writes of operators: whose label on which key.
    pub operators: BTreeMap<Label, String>,
    pub starts: Vec<StartTold>,
    /// Removals that were asked for.
    pub removals: BTreeMap<String, u64>,
    pub letters: Vec<LetterTold>,
    pub trades: Vec<TradeTold>,
    pub edits: Vec<EditTold>,
}

/// For how long after it ended a call may still take effect: a request that arrives late.
pub const AFTERMATH: Duration = Duration::from_secs(120);

impl Told {
    pub fn label(&mut self) -> Label {
        self.next_label += 1;
        self.next_label
    }

    /// The number of a new item.
    pub fn item(&mut self) -> u64 {
        self.next_item += 1;
        self.next_item
    }

    /// A backup was put in the store's place: what stood, was refused or undone may not be so in it.
    pub fn restored(&mut self) {
        for edit in &mut self.edits {
            (edit.refused, edit.standing, edit.undone) = (false, false, false);
            // What was asked before may take effect in it when somebody asks again.
            edit.unknown = true;
        }
    }

    /// The session that the store calls so.
    pub fn by_store_name(&self, name: &str) -> Option<(Label, &SessionTold)> {
        let mut newest_first = self.sessions.iter().rev();
        newest_first.find(|(_, session)| session.store_name.as_deref() == Some(name)).map(|(label, session)| (*label, session))
    }

    pub fn is_operator(&self, label: Label) -> bool {
        self.operators.contains_key(&label)
    }

    /// A start has returned.
    pub fn start_ended(&mut self, key: &str, since: Instant, life: &Arc<Life>) {
        let mine = |start: &&mut StartTold| start.key == key && start.since == since && Arc::ptr_eq(&start.life, life);
        if let Some(start) = self.starts.iter_mut().find(mine) {
            start.until = Some(Instant::now());
        }
    }

    /// Starts on a key that can take effect now, those of late requests included.
    pub fn starts_on<'a>(&'a self, key: &'a str, now: Instant) -> impl Iterator<Item = &'a StartTold> {
        self.starts.iter().filter(move |start| start.key == key && start.until.is_none_or(|until| now - until < AFTERMATH))
    }
}
