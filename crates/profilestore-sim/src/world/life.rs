//! One life of a game server: from its start to its crash or shutdown, and the trouble it has on
//! the way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::data_store::fault::{Call, Chances, Drawn, Fate, Line, LineState, StorePlan};
use tokio::{sync::Notify, time::Instant};

use crate::slow::Bytes;

/// A call that takes longer than this is trouble.
pub const SLOW: Duration = Duration::from_secs(2);

/// One life of a game server.
#[derive(Debug)]
pub struct Life {
    pub job: String,
    pub line: Line,
    pub plan: Plan,
    /// What it has sent to the store and not had answered.
    pub under_way: Bytes,
    over: AtomicBool,
    ended: Notify,
    /// The number of the call that shuts it down; 0: none.
    closing: AtomicU64,
}

impl Life {
    pub fn new(job: String, line: Line, plan: Plan, under_way: Bytes) -> Arc<Self> {
        Arc::new(Self {
            job,
            line,
            plan,
            under_way,
            over: AtomicBool::new(false),
            ended: Notify::new(),
            closing: 0.into(),
        })
    }

    /// True once the process is gone.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Notes the number of the call that shuts the server down.
    pub fn closes(&self, call: u64) {
        self.closing.store(call, Ordering::Relaxed);
    }

    /// True when a call with a smaller number shuts the server down.
    pub fn is_closing_before(&self, call: u64) -> bool {
        let closing = self.closing.load(Ordering::Relaxed);
        closing != 0 && closing < call
    }

    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.ended.notify_waiters();
    }

    /// Changes the line, and notes that as trouble.
    pub fn set_line(&self, state: LineState) {
        self.plan.trouble();
        self.line.set(state);
    }

    /// Waits as a client on this server does: None when the process is gone first; a process that
    /// is stopped answers later.
    pub async fn wait<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        let answer = tokio::select! {
            biased;
            () = self.gone() => return None,
            answer = what => answer,
        };
        self.runs().await.then_some(answer)
    }

    /// Waits while the process is stopped. False when it is gone.
    pub async fn runs(&self) -> bool {
        while !self.is_over() {
            if self.line.state() != LineState::Held {
                return true;
            }
            tokio::select! {
                biased;
                () = self.gone() => return false,
                _ = self.line.passes() => {}
            }
        }
        false
    }

    async fn gone(&self) {
        let ended = self.ended.notified();
        if !self.is_over() {
            ended.await;
        }
    }

    /// True when something went wrong between this server and the store since then.
    pub fn troubled_since(&self, since: Instant) -> bool {
        self.is_over()
            || self.line.state() != LineState::Open
            || self.plan.trouble.lock().is_some_and(|last| last >= since)
    }
}

/// The fates of one life's calls, and when the last bad one was.
#[derive(Debug, Clone)]
pub struct Plan {
    drawn: Arc<Drawn>,
    trouble: Arc<Mutex<Option<Instant>>>,
}

impl Plan {
    pub fn new(drawn: Drawn) -> Self {
        Self { drawn: Arc::new(drawn), trouble: Arc::default() }
    }

    pub fn set(&self, chances: Chances) {
        self.drawn.set(chances);
    }

    pub fn trouble(&self) {
        self.trouble_until(Instant::now());
    }

    /// Trouble that lasts until then.
    pub fn trouble_until(&self, at: Instant) {
        let mut trouble = self.trouble.lock();
        *trouble = (*trouble).max(Some(at));
    }
}

impl StorePlan for Plan {
    fn fate(&self, call: Call<'_>) -> Fate {
        let fate = self.drawn.fate(call);
        if fate.fault.is_some() || fate.there + fate.back > SLOW {
            // It lasts until the call is over.
            let lasts = fate.there + fate.back;
            self.trouble_until(Instant::now() + lasts);
        }
        fate
    }
}
