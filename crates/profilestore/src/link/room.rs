//! Room for what is on its way to the store, so that a store that is too slow costs time and not
//! memory.
//!
//! A save makes a serialised copy of its profile, and holds it until the store has answered. So it
//! first waits here for room, at its session, where it costs nothing; what changes meanwhile is
//! part of it. Two things bound what is under way:
//!
//! * **Bytes**, of all copies together.
//! * **Saves at once**, as many as the store answers within [`SLOW`]: one more while it does, half
//!   as many when it does not. The line in the store itself stays short that way. That is what lets
//!   ends and trades go first, which need only bytes: they go before all that waits here, and find
//!   little in their way there.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use crate::env::Env;

/// How many bytes may be under way, besides one save that has more by itself.
const BYTES: isize = 64 << 20;

/// What a save takes besides its copy.
const OVERHEAD: isize = 4 << 10;

/// A save that takes longer says that there are too many.
const SLOW: Duration = Duration::from_millis(500);

/// How many saves are under way at once: at first, at least and at most.
const FIRST: f64 = 256.0;
const LEAST: f64 = 8.0;
const MOST: f64 = 1024.0;

/// From when on a save that is due is late, and until when they are in time again.
const LATE: Duration = Duration::from_secs(10);
const IN_TIME: Duration = Duration::from_secs(1);

/// Who goes before whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    /// Ends and trades: others wait for them.
    First,
    Save,
}

/// A place in the line. A save that leaves the line for a while keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

/// What the metrics say.
#[derive(Debug, Clone, Copy)]
struct Shown {
    bytes: isize,
    waiting: usize,
}

impl Shown {
    const NOTHING: Self = Self { bytes: 0, waiting: 0 };
}

/// What the rooms of all game servers of this process have together.
static ALL: Mutex<Shown> = Mutex::new(Shown::NOTHING);

pub(crate) struct Room {
    env: Env,
    state: Mutex<State>,
    /// It was told that saves are late, and they still are.
    told: AtomicBool,
}

struct State {
    /// Below 0 when copies became larger than was thought.
    free: isize,
    saves: usize,
    most: f64,
    /// When `most` was lowered last: what began before that says nothing new.
    lowered: Option<Instant>,
    /// The next place that is given.
    next_place: u64,
    /// Both by their places.
    first: VecDeque<Waiting>,
    rest: VecDeque<Waiting>,
    /// What the metrics have of it.
    shown: Shown,
}

struct Waiting {
    place: Place,
    bytes: isize,
    enter: oneshot::Sender<Pass>,
}

/// The right to hold a copy. Dropped when the store has answered, it gives the room back.
pub(crate) struct Pass {
    room: Arc<Room>,
    rank: Rank,
    bytes: isize,
    since: Instant,
    /// Nothing was done with it.
    unused: bool,
}

impl Room {
    pub(crate) fn new(env: Env) -> Arc<Self> {
        let state = State {
            free: BYTES,
            saves: 0,
            most: FIRST,
            lowered: None,
            next_place: 0,
            first: VecDeque::new(),
            rest: VecDeque::new(),
            shown: Shown::NOTHING,
        };
        Arc::new(Self { env, state: Mutex::new(state), told: AtomicBool::new(false) })
    }

    /// A place behind all that were given before.
    pub(crate) fn place(&self) -> Place {
        let mut state = self.state.lock();
        state.next_place += 1;
        Place(state.next_place)
    }

    /// Waits for room for a copy of about so many bytes, at the end of the line.
    pub(crate) async fn enter(self: &Arc<Self>, rank: Rank, bytes: usize) -> Pass {
        self.enter_at(self.place(), rank, bytes).await
    }

    /// The same at a place that only this caller has. It may be entered again at when the wait was
    /// dropped.
    pub(crate) async fn enter_at(self: &Arc<Self>, place: Place, rank: Rank, bytes: usize) -> Pass {
        let bytes = isize::try_from(bytes).unwrap_or(BYTES).saturating_add(OVERHEAD).min(BYTES);
        let entered = {
            let mut state = self.state.lock();
            if state.admits(place, rank, bytes) {
                return self.pass(&mut state, rank, bytes);
            }
            let (enter, entered) = oneshot::channel();
            let line = if rank == Rank::First { &mut state.first } else { &mut state.rest };
            let at = line.partition_point(|waiting| waiting.place < place);
            let waiting = Waiting { place, bytes, enter };
            match line.get_mut(at) {
                // The wait that was dropped.
                Some(before) if before.place == place => *before = waiting,
                _ => line.insert(at, waiting),
            }
            state.show();
            entered
        };
        match entered.await {
            Ok(pass) => pass,
            // A place in the line is never dropped.
            Err(_) => self.pass(&mut self.state.lock(), rank, bytes),
        }
    }

    fn pass(self: &Arc<Self>, state: &mut State, rank: Rank, bytes: isize) -> Pass {
        state.free -= bytes;
        state.saves += usize::from(rank == Rank::Save);
        state.show();
        Pass { room: self.clone(), rank, bytes, since: self.env.now(), unused: false }
    }

    /// Lets in who waits, as far as there is room.
    fn let_in(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state.lock();
                let Some((rank, waiting)) = state.next() else {
                    // Those that have gone may have been the last ones.
                    state.show();
                    return;
                };
                let pass = self.pass(&mut state, rank, waiting.bytes);
                (waiting.enter, pass)
            };
            // Outside of the lock. A caller that has gone gives its pass back, and the next one of
            // the line comes in the next round: there may be as many of them as sessions.
            if let Err(pass) = next.0.send(next.1) {
                pass.give_back();
            }
        }
    }

    /// Notes how late a save that was due begins: tells of it once, until they are in time again.
    pub(crate) fn note_lateness(&self, late: Duration) {
        metrics::histogram!("profilestore_save_lateness_seconds").record(late.as_secs_f64());
        if late > LATE && !self.told.swap(true, Relaxed) {
            tracing::warn!(
                ?late,
                "the store is too slow for the saves that are due; they wait at their sessions"
            );
        } else if late < IN_TIME {
            self.told.store(false, Relaxed);
        }
    }

    /// How many bytes are under way.
    #[cfg(test)]
    pub(crate) fn bytes_under_way(&self) -> usize {
        (BYTES - self.state.lock().free).unsigned_abs()
    }
}

impl State {
    /// True when a save may enter without waiting, and passes none that waits before it.
    fn admits(&self, place: Place, rank: Rank, bytes: isize) -> bool {
        let is_before =
            |line: &VecDeque<Waiting>| line.front().is_some_and(|waiting| waiting.place < place);
        let before = match rank {
            Rank::First => is_before(&self.first),
            Rank::Save => !self.first.is_empty() || is_before(&self.rest),
        };
        !before && self.fits(rank, bytes)
    }

    fn fits(&self, rank: Rank, bytes: isize) -> bool {
        let alone = self.free >= BYTES;
        (alone || self.free >= bytes) && (rank == Rank::First || (self.saves as f64) < self.most)
    }

    /// The next one to enter. None enters before one of rank first that waits for bytes.
    fn next(&mut self) -> Option<(Rank, Waiting)> {
        for line in [&mut self.first, &mut self.rest] {
            while line.pop_front_if(|waiting| waiting.enter.is_closed()).is_some() {}
        }
        let rank = if self.first.is_empty() { Rank::Save } else { Rank::First };
        let bytes =
            if rank == Rank::First { self.first.front()?.bytes } else { self.rest.front()?.bytes };
        if !self.fits(rank, bytes) {
            return None;
        }
        let line = if rank == Rank::First { &mut self.first } else { &mut self.rest };
        Some((rank, line.pop_front()?))
    }

    /// Learns from a save that has ended.
    fn learn(&mut self, since: Instant, now: Instant) {
        if now.saturating_duration_since(since) < SLOW {
            // One more when all of them have been answered.
            self.most = (self.most + 1.0 / self.most).min(MOST);
        } else if self.lowered.is_none_or(|lowered| since >= lowered) {
            self.most = (self.most / 2.0).max(LEAST);
            self.lowered = Some(now);
        }
    }

    /// Brings the metrics up to date.
    fn show(&mut self) {
        self.tell(Shown { bytes: BYTES - self.free, waiting: self.first.len() + self.rest.len() });
    }

    fn tell(&mut self, now: Shown) {
        let before = std::mem::replace(&mut self.shown, now);
        let mut all = ALL.lock();
        all.bytes += now.bytes - before.bytes;
        all.waiting = (all.waiting + now.waiting).saturating_sub(before.waiting);
        metrics::gauge!("profilestore_save_bytes_under_way").set(all.bytes as f64);
        metrics::gauge!("profilestore_saves_waiting").set(all.waiting as f64);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.tell(Shown::NOTHING);
    }
}

impl Pass {
    /// The copy turned out to be so large.
    pub(crate) fn resize(&mut self, bytes: usize) {
        let bytes = isize::try_from(bytes).unwrap_or(BYTES).saturating_add(OVERHEAD);
        let mut state = self.room.state.lock();
        state.free -= bytes - self.bytes;
        state.show();
        drop(state);
        self.bytes = bytes;
        self.room.let_in();
    }

    /// Gives the room back and lets no waiter in: the caller of this does.
    fn give_back(mut self) {
        self.unused = true;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        {
            let mut state = self.room.state.lock();
            state.free += self.bytes;
            if self.rank == Rank::Save {
                state.saves -= 1;
                if !self.unused {
                    state.learn(self.since, self.room.env.now());
                }
            }
            state.show();
        }
        if !self.unused {
            self.room.let_in();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
        atomics::AtomicU64, with_local_recorder,
    };
    use std::time::Duration;

    /// Keeps what was last told of how many saves wait.
    #[derive(Default)]
    struct Told(Arc<AtomicU64>);

    impl Recorder for Told {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            if key.name() == "profilestore_saves_waiting" {
                Gauge::from_arc(self.0.clone())
            } else {
                Gauge::noop()
            }
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    /// It went on showing how many had waited when the last one of them came.
    #[tokio::test(start_paused = true)]
    async fn the_gauge_of_saves_that_wait_falls_when_they_are_let_in() {
        let (room, told) = (Room::new(Env::system()), Told::default());
        let waiting = || f64::from_bits(told.0.load(Relaxed));
        let large = room.enter(Rank::Save, 60 << 20).await;
        let mut waits = Box::pin(room.enter(Rank::Save, 40 << 20));
        with_local_recorder(&told, || assert!(waits.as_mut().now_or_never().is_none()));
        assert!(waiting() >= 1.0);
        with_local_recorder(&told, || drop(large));
        assert!(waiting() < 1.0);
        assert!(waits.as_mut().now_or_never().is_some());
    }

    /// Each game server of the process set it to what itself had, so an idle one hid all others.
    #[tokio::test(start_paused = true)]
    async fn the_gauge_of_saves_that_wait_adds_up_over_the_servers_of_a_process() {
        let (busy, idle) = (Room::new(Env::system()), Room::new(Env::system()));
        let told = Told::default();
        let waiting = || f64::from_bits(told.0.load(Relaxed));
        let large = busy.enter(Rank::Save, 60 << 20).await;
        let mut waits = Box::pin(busy.enter(Rank::Save, 40 << 20));
        assert!(waits.as_mut().now_or_never().is_none());
        with_local_recorder(&told, || drop(idle.enter(Rank::Save, 1).now_or_never()));
        assert!(waiting() >= 1.0);
        drop(waits);
        with_local_recorder(&told, || drop((large, busy)));
        assert!(waiting() < 1.0, "what has gone is not counted");
    }

    #[tokio::test(start_paused = true)]
    async fn ends_and_trades_go_before_saves_and_bytes_are_bounded() {
        let room = Room::new(Env::system());
        let large = room.enter(Rank::Save, 40 << 20).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for (name, rank) in [("save", Rank::Save), ("end", Rank::First)] {
            let (room, order) = (room.clone(), order.clone());
            tasks.spawn(async move {
                let _pass = room.enter(rank, 40 << 20).await;
                assert!(room.bytes_under_way() <= 64 << 20);
                order.lock().push(name);
                tokio::time::sleep(Duration::from_millis(10)).await;
            });
            tokio::task::yield_now().await;
        }
        assert!(order.lock().is_empty());
        drop(large);
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!(*order.lock(), ["end", "save"]);
        assert_eq!(room.bytes_under_way(), 0);
    }

    /// It went to the end of the line each time that it came back.
    #[tokio::test(start_paused = true)]
    async fn a_save_that_leaves_the_line_for_a_while_keeps_its_place() {
        let room = Room::new(Env::system());
        let large = room.enter(Rank::Save, 60 << 20).await;
        let early = room.place();
        let mut waits = Box::pin(room.enter_at(early, Rank::Save, 40 << 20));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(waits);
        let mut later = Box::pin(room.enter(Rank::Save, 40 << 20));
        assert!(later.as_mut().now_or_never().is_none());
        let mut waits = Box::pin(room.enter_at(early, Rank::Save, 40 << 20));
        assert!(waits.as_mut().now_or_never().is_none());
        let mut end = Box::pin(room.enter(Rank::First, 40 << 20));
        assert!(end.as_mut().now_or_never().is_none());
        drop(large);
        assert!(later.as_mut().now_or_never().is_none() && waits.as_mut().now_or_never().is_none());
        drop(end.as_mut().now_or_never().expect("an end goes first"));
        assert!(later.as_mut().now_or_never().is_none());
        drop(waits.as_mut().now_or_never().expect("the earlier place goes first"));
        drop(later.as_mut().now_or_never().expect("then the later one"));
        assert_eq!(room.bytes_under_way(), 0);
    }

    /// One that is larger than all the room still gets through, alone.
    #[tokio::test(start_paused = true)]
    async fn a_save_that_is_larger_than_the_room_goes_alone() {
        let room = Room::new(Env::system());
        let mut pass = room.enter(Rank::Save, 1 << 30).await;
        pass.resize(1 << 30);
        assert!(
            tokio::time::timeout(Duration::from_secs(9), room.enter(Rank::First, 1)).await.is_err()
        );
        drop(pass);
        room.enter(Rank::First, 1).await;
        assert_eq!(room.bytes_under_way(), 0);
    }

    /// Each of them gave its pass to the next one within a call of its own: the stack overflowed.
    #[tokio::test(start_paused = true)]
    async fn a_hundred_thousand_saves_that_were_given_up_do_not_fill_the_stack() {
        let room = Room::new(Env::system());
        let mut passes = Vec::new();
        for _ in 0..256 {
            passes.push(room.enter(Rank::Save, 1).await);
        }
        let mut waiting: Vec<_> =
            (0..100_000).map(|_| Box::pin(room.enter(Rank::Save, 1))).collect();
        for wait in &mut waiting {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        drop(waiting);
        drop(passes);
        assert_eq!(room.bytes_under_way(), 0);
    }

    /// A store that takes 100 saves a second gets as many at once as it answers in half a second.
    #[tokio::test(start_paused = true)]
    async fn as_many_saves_are_under_way_as_the_store_answers_soon() {
        let room = Room::new(Env::system());
        let store = Arc::new(tokio::sync::Mutex::new(()));
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..20_000 {
            let (room, store, longest) = (room.clone(), store.clone(), longest.clone());
            tasks.spawn(async move {
                let _pass = room.enter(Rank::Save, 1000).await;
                let began = Instant::now();
                let _turn = store.lock().await;
                tokio::time::sleep(Duration::from_millis(10)).await;
                if n > 2000 {
                    let mut longest = longest.lock();
                    *longest = longest.max(began.elapsed());
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let longest = *longest.lock();
        assert!(longest < SLOW * 2, "{longest:?}");
    }
}
