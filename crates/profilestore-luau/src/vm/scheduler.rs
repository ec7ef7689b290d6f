//! The threads of one virtual machine: who runs now, who waits for a time, who waits for the host.
//!
//! A function of the host that takes time yields the thread that called it, and resumes it with the
//! answer. So it can be called from any coroutine, also one that a script made and resumes itself:
//! the resumer gets control back at the first yield, as on Roblox. Waits end at frames, sixty a
//! second, in the order in which they were asked for.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Thread, Value, WeakLua};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::limits::Budget;
use crate::output::{Line, Output};

/// What a host function answers: values, or the text of the error that the script is to see.
pub(crate) type Answer<T> = Result<T, String>;

/// What the names of the machine's own chunks begin with. They are left out of tracebacks: scripts'
/// authors have no use for them.
pub(crate) const OWN_CODE: &str = "profilestore/";

/// What is between an error's text and its places.
pub(super) const HEADING: &str = "\nstack traceback:";

/// How many places of a long traceback are shown: the innermost, where the error was, and the
/// outermost. That of a stack overflow has twenty thousand.
const SHOWN_PLACES: (usize, usize) = (20, 10);

/// How many finished threads are kept for the machine's own calls.
const SPARE_THREADS: usize = 8;

/// The time between two frames.
const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 60);

pub(crate) struct Scheduler {
    lua: WeakLua,
    server: usize,
    output: Arc<dyn Output>,
    budget: Arc<Budget>,
    /// Frames are counted from here.
    began: Instant,
    timers: Mutex<Timers>,
    timers_changed: Notify,
    /// Threads to be resumed at the end of the current step (`task.defer`).
    deferred: Mutex<Vec<Waiter>>,
    frame_listener: Mutex<Option<Function>>,
    /// Finished threads, for the machine's own calls: a new one takes more than a kilobyte.
    spare: Mutex<Vec<Thread>>,
    failed: AtomicU64,
    /// The test during which the thread that runs was started, or the one that started it; 0 when
    /// there is none. It goes along with what waits.
    test: Arc<AtomicUsize>,
    /// Calls of the host that are not answered yet.
    unanswered: AtomicU64,
    /// How often calls were dropped, and when they last were.
    dropped: Mutex<(u64, Option<Instant>)>,
    closed: AtomicBool,
    me: Weak<Scheduler>,
}

#[derive(Default)]
struct Timers {
    next: u64,
    waiting: BTreeMap<(Instant, u64), Waiter>,
}

struct Waiter {
    thread: Thread,
    args: Args,
    /// As the scheduler has it while the thread runs.
    test: usize,
}

enum Args {
    Values(MultiValue),
    /// How long it has really waited is what it gets.
    Elapsed(Instant),
}

impl Scheduler {
    pub(crate) fn new(
        lua: &Lua,
        server: usize,
        output: Arc<dyn Output>,
        budget: Arc<Budget>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            lua: lua.weak(),
            server,
            output,
            budget,
            began: Instant::now(),
            timers: Mutex::default(),
            timers_changed: Notify::new(),
            deferred: Mutex::default(),
            frame_listener: Mutex::default(),
            spare: Mutex::default(),
            failed: AtomicU64::new(0),
            test: Arc::default(),
            unanswered: AtomicU64::new(0),
            dropped: Mutex::default(),
            closed: AtomicBool::new(false),
            me: me.clone(),
        })
    }

    /// Runs a thread until it ends or yields. An error that ends it is reported. One that cannot be
    /// resumed, because the script closed it meanwhile, is left alone.
    pub(crate) fn resume(&self, thread: &Thread, args: impl IntoLuaMulti) {
        if self.is_closed() || !thread.is_resumable() {
            return;
        }
        if let Some(lua) = self.lua.try_upgrade() {
            self.budget.make_room(&lua);
        }
        let outermost = self.budget.enter();
        let test = self.test();
        if let Err(error) = thread.resume::<MultiValue>(args) {
            self.report(&error);
        }
        self.test.store(test, Ordering::Relaxed);
        if outermost {
            self.run_deferred();
            self.budget.leave();
        }
    }

    /// Calls a script's function that must not wait, in a thread of its own, and gives what it
    /// returns.
    pub(crate) fn call(
        &self,
        function: &Function,
        args: impl IntoLuaMulti,
    ) -> mlua::Result<MultiValue> {
        self.run(&self.open()?.create_thread(function.clone())?, args)
    }

    /// The same for a function of the machine's own, which does not keep the thread that it runs
    /// in.
    pub(crate) fn call_own(
        &self,
        function: &Function,
        args: impl IntoLuaMulti,
    ) -> mlua::Result<MultiValue> {
        let lua = self.open()?;
        let spare = self.spare.lock().pop();
        let thread = match spare.filter(|spare| spare.reset(function.clone()).is_ok()) {
            Some(thread) => thread,
            None => lua.create_thread(function.clone())?,
        };
        let returned = self.run(&thread, args)?;
        let mut spare = self.spare.lock();
        if spare.len() < SPARE_THREADS {
            spare.push(thread);
        }
        Ok(returned)
    }

    /// The machine, as long as it is not closed.
    fn open(&self) -> mlua::Result<Lua> {
        let lua = self.lua.try_upgrade().filter(|_| !self.is_closed());
        let lua =
            lua.ok_or_else(|| mlua::Error::RuntimeError("the server is closed".to_owned()))?;
        self.budget.make_room(&lua);
        Ok(lua)
    }

    /// Runs a thread to its end, and gives what it returns.
    fn run(&self, thread: &Thread, args: impl IntoLuaMulti) -> mlua::Result<MultiValue> {
        let outermost = self.budget.enter();
        let result = thread.resume::<MultiValue>(args);
        if outermost {
            self.run_deferred();
            self.budget.leave();
        }
        if result.is_ok() && thread.is_resumable() {
            return Err(mlua::Error::RuntimeError(
                "a function that must not wait did so; it will not go on".to_owned(),
            ));
        }
        result
    }

    /// Runs a function in a thread of its own.
    pub(crate) fn spawn(&self, function: Function, args: impl IntoLuaMulti) -> Option<Thread> {
        let lua = self.lua.try_upgrade()?;
        self.budget.make_room(&lua);
        match lua.create_thread(function) {
            Ok(thread) => {
                self.resume(&thread, args);
                Some(thread)
            }
            Err(error) => {
                self.report(&error);
                None
            }
        }
    }

    /// Runs a function after so long, unless the machine is closed by then. The game does not go on
    /// for this alone.
    pub(crate) fn spawn_later(&self, wait: Duration, function: Function) {
        let me = self.me.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(me) = me.upgrade() {
                me.spawn(function, ());
            }
        });
    }

    /// Runs a thread at the end of the current step.
    pub(crate) fn defer(&self, thread: Thread, args: MultiValue) {
        let waiter = Waiter { thread, args: Args::Values(args), test: self.test() };
        self.deferred.lock().push(waiter);
        if !self.budget.is_running() {
            self.run_deferred();
        }
    }

    fn run_deferred(&self) {
        loop {
            let waiters = std::mem::take(&mut *self.deferred.lock());
            if waiters.is_empty() {
                return;
            }
            for waiter in waiters {
                self.resume_waiter(waiter);
            }
        }
    }

    fn resume_waiter(&self, Waiter { thread, args, test }: Waiter) {
        match args {
            Args::Values(values) => self.resume_for(test, &thread, values),
            Args::Elapsed(since) => self.resume_for(test, &thread, since.elapsed().as_secs_f64()),
        }
    }

    /// Resumes a thread that was started during this test.
    fn resume_for(&self, test: usize, thread: &Thread, args: impl IntoLuaMulti) {
        let before = self.test.swap(test, Ordering::Relaxed);
        self.resume(thread, args);
        self.test.store(before, Ordering::Relaxed);
    }

    fn test(&self) -> usize {
        self.test.load(Ordering::Relaxed)
    }

    /// Resumes a thread at the first frame after so many seconds, with the values, or with the
    /// seconds that it took.
    pub(crate) fn wake_after(&self, thread: Thread, seconds: f64, args: Option<MultiValue>) {
        let now = Instant::now();
        let args = args.map_or(Args::Elapsed(now), Args::Values);
        let at = self.frame_after(now, seconds);
        {
            let mut timers = self.timers.lock();
            timers.next += 1;
            let order = timers.next;
            timers.waiting.insert((at, order), Waiter { thread, args, test: self.test() });
        }
        self.timers_changed.notify_one();
    }

    /// The first frame that is later than `now` and no earlier than so many seconds from now.
    fn frame_after(&self, now: Instant, seconds: f64) -> Instant {
        const FAR: f64 = 1e9;
        let seconds = if seconds.is_finite() { seconds.clamp(0.0, FAR) } else { FAR };
        let since = (now - self.began) + Duration::from_secs_f64(seconds);
        let (since, frame) = (since.as_nanos(), FRAME.as_nanos());
        let frames = since.div_ceil(frame).max((now - self.began).as_nanos() / frame + 1);
        self.began + Duration::from_nanos(u64::try_from(frames * frame).unwrap_or(u64::MAX))
    }

    /// Calls `listener` with the seconds since the frame before, at every frame; None for nobody.
    pub(crate) fn listen_to_frames(&self, listener: Option<Function>) {
        *self.frame_listener.lock() = listener;
        self.timers_changed.notify_one();
    }

    /// Wakes who waits. Runs until the machine is closed.
    pub(crate) async fn drive(self: Arc<Self>) {
        let mut last_frame = Instant::now();
        while !self.is_closed() {
            let changed = self.timers_changed.notified();
            let frame =
                self.frame_listener.lock().is_some().then(|| self.frame_after(last_frame, 0.0));
            let first = self.timers.lock().waiting.keys().next().map(|(at, _)| *at);
            let Some(at) = [frame, first].into_iter().flatten().min() else {
                changed.await;
                last_frame = Instant::now();
                continue;
            };
            tokio::select! {
                biased;
                () = sleep_until(at) => {}
                () = changed => continue,
            }
            let now = Instant::now();
            if frame.is_some_and(|frame| frame <= now) {
                let listener = self.frame_listener.lock().clone();
                if let Some(listener) = listener {
                    self.spawn(listener, (now - last_frame).as_secs_f64());
                }
                last_frame = now;
            }
            loop {
                let due = {
                    let mut timers = self.timers.lock();
                    match timers.waiting.first_entry() {
                        Some(entry) if entry.key().0 <= now => Some(entry.remove()),
                        _ => None,
                    }
                };
                let Some(waiter) = due else { break };
                self.resume_waiter(waiter);
            }
        }
    }

    /// Resumes the thread with the answer once there is one.
    pub(crate) fn answer_later<T, F>(&self, thread: Thread, work: F)
    where
        T: IntoLuaMulti + Send + 'static,
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        let (me, test) = (self.me.clone(), self.test());
        let (made, drops) = (Instant::now(), self.dropped.lock().0);
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let answer = work.await;
            let Some(me) = me.upgrade() else { return };
            me.unanswered.fetch_sub(1, Ordering::Relaxed);
            let (times, last) = *me.dropped.lock();
            if times != drops && last == Some(made) {
                return;
            }
            let Some(lua) = me.lua.try_upgrade() else { return };
            me.budget.make_room(&lua);
            match answer_values(&lua, answer) {
                Ok(values) => me.resume_for(test, &thread, values),
                Err(error) => me.report(&error),
            }
        });
    }

    /// The calls that were made at this moment of the game's time, and are under way, are never
    /// answered. So ends a loop over calls for which no time passes.
    pub(crate) fn drop_calls(&self) {
        let mut dropped = self.dropped.lock();
        *dropped = (dropped.0 + 1, Some(Instant::now()));
    }

    /// Tells of an error that ended a thread.
    pub(crate) fn report(&self, error: &mlua::Error) {
        self.report_text(&error_text(error));
    }

    /// Tells of an error that the machine's own code caught.
    pub(crate) fn report_text(&self, text: &str) {
        if !self.is_closed() {
            self.failed.fetch_add(1, Ordering::Relaxed);
            self.output.line(self.server, Line::Error, &without_own_code(text));
        }
    }

    pub(crate) fn line(&self, kind: Line, text: &str) {
        if !self.is_closed() {
            self.output.line(self.server, kind, text);
        }
    }

    /// The machine, while there is one.
    pub(crate) fn lua(&self) -> Option<Lua> {
        self.lua.try_upgrade()
    }

    /// How many threads ended with an error.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// True when no thread waits, neither for a time nor for the host.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_closed()
            || self.unanswered.load(Ordering::Relaxed) == 0 && self.timers.lock().waiting.is_empty()
    }

    /// True when there is a thread that goes on by itself.
    pub(crate) fn goes_on(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) > 0
            || self.timers.lock().waiting.values().any(|waiter| waiter.thread.is_resumable())
    }

    /// Where it is kept during which test the thread that runs was started; 0 for none.
    pub(crate) fn test_of_thread(&self) -> Arc<AtomicUsize> {
        self.test.clone()
    }

    /// Time since the machine began.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// No thread runs from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // What waits holds on to the machine.
        let waiting = std::mem::take(&mut self.timers.lock().waiting);
        let deferred = std::mem::take(&mut *self.deferred.lock());
        let listener = self.frame_listener.lock().take();
        let spare = std::mem::take(&mut *self.spare.lock());
        drop((waiting, deferred, listener, spare));
        self.timers_changed.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

/// Waits for a machine's next frame, at which Roblox gives threads the answers that they wait for.
pub(crate) async fn next_frame(scheduler: &Weak<Scheduler>) {
    let frame = scheduler.upgrade().map(|scheduler| scheduler.frame_after(Instant::now(), 0.0));
    if let Some(frame) = frame {
        sleep_until(frame).await;
    }
}

/// (true, values...) or (false, message), as threads.luau takes them. So is an answer of which no
/// values can be made.
pub(crate) fn answer_values<T: IntoLuaMulti>(
    lua: &Lua,
    answer: Answer<T>,
) -> mlua::Result<MultiValue> {
    let made = |answer: T| answer.into_lua_multi(lua).map_err(|error| error_text(&error));
    match answer.and_then(made) {
        Ok(mut values) => {
            values.push_front(Value::Boolean(true));
            Ok(values)
        }
        Err(message) => (false, message).into_lua_multi(lua),
    }
}

/// An error's text with those places of its traceback that are in scripts; of a long one the first
/// and the last.
pub(crate) fn without_own_code(text: &str) -> String {
    let Some((problem, places)) = text.split_once(HEADING) else { return text.to_owned() };
    let is_shown = |line: &&str| {
        !line.trim_start().starts_with(OWN_CODE) && !line.ends_with(HEADING.trim_start())
    };
    let places: Vec<&str> =
        places.lines().filter(is_shown).filter(|line| !line.is_empty()).collect();
    if places.is_empty() {
        return problem.to_owned();
    }
    let (first, last) = SHOWN_PLACES;
    // The line in between is one as well: what was shortened once stays as it is.
    let places = if places.len() > first + last + 1 {
        let left_out = places.len() - first - last;
        let (before, after) = (&places[..first], &places[first + left_out..]);
        let indent = if places[0].starts_with('\t') { "\t" } else { "" };
        let (before, after) = (before.join("\n"), after.join("\n"));
        format!("{before}\n{indent}… {left_out} more lines …\n{after}")
    } else {
        places.join("\n")
    };
    format!("{problem}{HEADING}\n{places}")
}

/// The text of an error without what only the host's side means.
pub(crate) fn error_text(error: &mlua::Error) -> String {
    match error {
        mlua::Error::RuntimeError(text) => text.clone(),
        mlua::Error::CallbackError { traceback, cause } => {
            format!("{}\n{traceback}", error_text(cause))
        }
        mlua::Error::WithContext { context, cause } => format!("{context}: {}", error_text(cause)),
        other => other.to_string(),
    }
}
