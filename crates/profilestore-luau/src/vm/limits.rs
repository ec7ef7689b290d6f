//! What a script may use: memory, and time without a pause.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use mlua::{Lua, VmState};
use parking_lot::Mutex;

use super::scheduler::{HEADING, without_own_code};

/// What the scripts of one server may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of memory; an allocation beyond it fails with an error in the script. 4 GiB.
    pub memory: usize,
    /// How long scripts may run without waiting for anything; then the thread that runs is ended
    /// with an error. 10 s.
    pub step: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 4 << 30, step: Duration::from_secs(10) }
    }
}

/// The time that the current step has left, and how full the memory is between steps.
pub(crate) struct Budget {
    step: Duration,
    memory: usize,
    /// How much was in use after garbage was collected because the memory was nearly full.
    kept: AtomicUsize,
    running: AtomicBool,
    until: Mutex<Option<Instant>>,
    /// Looking at the clock is dear: only every so many interrupts.
    looks: AtomicU64,
    /// The step has taken too long; whatever runs on is ended, also what catches errors.
    over: AtomicBool,
    /// What the first one that was ended is told, with its place.
    stopped: Mutex<Option<String>>,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            step: limits.step,
            memory: limits.memory,
            kept: AtomicUsize::new(0),
            running: AtomicBool::new(false),
            until: Mutex::new(None),
            looks: AtomicU64::new(0),
            over: AtomicBool::new(false),
            stopped: Mutex::new(None),
        }
    }

    /// Has a machine's scripts stopped that run for too long.
    pub(crate) fn watch(self: &Arc<Self>, lua: &Lua) {
        let budget = self.clone();
        lua.set_interrupt(move |lua| {
            if budget.allows() {
                return Ok(VmState::Continue);
            }
            let text = format!(
                "the script ran for {:?} without waiting for anything, and was stopped",
                budget.step
            );
            // Thrown from here, it comes without the place.
            let traced = lua.traceback(Some(&text), 0);
            let traced = traced.map_or(text, |traced| traced.to_string_lossy());
            Err(mlua::Error::RuntimeError(budget.with_place(&traced)))
        });
    }

    /// What a thread is told that is stopped. One that was stopped in the machine's own code, which
    /// caught the error of a script, is told the place of that one.
    fn with_place(&self, traced: &str) -> String {
        let shown = without_own_code(traced);
        let mut first = self.stopped.lock();
        if shown.contains(HEADING) {
            first.get_or_insert_with(|| shown.clone());
            shown
        } else {
            first.clone().unwrap_or(shown)
        }
    }

    /// Begins a step, unless one is under way; says whether it did.
    pub(crate) fn enter(&self) -> bool {
        if self.running.swap(true, Ordering::Relaxed) {
            return false;
        }
        *self.until.lock() = Some(now() + self.step);
        true
    }

    /// Ends the step.
    pub(crate) fn leave(&self) {
        self.running.store(false, Ordering::Relaxed);
        if self.over.swap(false, Ordering::Relaxed) {
            *self.stopped.lock() = None;
        }
        *self.until.lock() = None;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// False when the step has taken too long.
    pub(crate) fn allows(&self) -> bool {
        if self.over.load(Ordering::Relaxed) {
            return false;
        }
        if !self.looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(256) {
            return true;
        }
        let in_time = self.until.lock().is_none_or(|until| now() < until);
        self.over.store(!in_time, Ordering::Relaxed);
        in_time
    }

    /// Collects the garbage between two steps when the memory is nearly full. Luau itself fails at
    /// the limit without collecting: what one thread left behind would fail all others.
    pub(crate) fn make_room(&self, lua: &Lua) {
        if self.memory == 0 || self.is_running() {
            return;
        }
        let used = lua.used_memory();
        let grown = self.kept.load(Ordering::Relaxed).saturating_add(self.memory / 16);
        // However much is kept, the last of the memory is looked after.
        let last = self.memory - self.memory / 32;
        if used > self.memory / 4 * 3 && used > grown.min(last) {
            // What cannot be collected now is looked at before the next step.
            let _ = lua.gc_collect();
            self.kept.store(lua.used_memory(), Ordering::Relaxed);
        }
    }
}

/// Does work of the host that makes values of at most so many bytes, and runs no script. As long as
/// there is a limit of memory, each allocation goes through a protected call, which costs several
/// times as much and leaves garbage behind. So there is none for work that certainly fits below it.
pub(super) fn with_room<R>(lua: &Lua, bytes: usize, work: impl FnOnce() -> R) -> R {
    struct Limited<'a> {
        lua: &'a Lua,
        limit: usize,
    }

    impl Drop for Limited<'_> {
        fn drop(&mut self) {
            // It was set before, so it can be.
            let _ = self.lua.set_memory_limit(self.limit);
        }
    }

    let Ok(limit) = lua.set_memory_limit(0) else { return work() };
    let limited = Limited { lua, limit };
    let fits = limit == 0 || lua.used_memory().saturating_add(bytes) <= limit;
    if !fits {
        drop(limited);
        return work();
    }
    work()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the computer's time is what a runaway script uses up, virtual time stands still"
)]
fn now() -> Instant {
    Instant::now()
}
