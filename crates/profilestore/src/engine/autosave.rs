//! When each live profile is saved: the schedule, which is pure, and its driver.
//!
//! Every profile is due once a period. The moments within the period are spread evenly however many
//! profiles there are and whenever their sessions began: the n-th gets the fractional part of n
//! times the golden ratio.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use crate::{link::Link, session::Session};

/// How far ahead of its time a save may be.
const TOGETHER: Duration = Duration::from_millis(50);

/// How many of these saves are under way at once: enough to fill two of a store's batches.
const UNDER_WAY: usize = 512;

/// So many are not worth looking through.
const FEW: usize = 1024;

/// A period that never ends in practice, and can be reckoned with.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The schedule: what is due when. Times are offsets from a fixed moment.
#[derive(Debug)]
struct Schedule<T> {
    due: BTreeMap<(Duration, u64), (f64, T)>,
    next_number: u64,
    /// How many there may be until those that are over are looked for.
    prune_at: usize,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), next_number: 0, prune_at: FEW }
    }
}

impl<T> Schedule<T> {
    /// Adds something that is due once a period from now on, for the first time within a period.
    fn add(&mut self, now: Duration, period: Duration, item: T) {
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        let number = self.next_number;
        self.next_number += 1;
        let phase = (number as f64 * GOLDEN).fract();
        self.put(now, period, number, phase, item);
    }

    /// At the next moment after `now` that lies at this phase of a period.
    fn put(&mut self, now: Duration, period: Duration, number: u64, phase: f64, item: T) {
        let period_s = period.min(LONGEST).as_secs_f64();
        let offset = phase * period_s;
        let mut periods = ((now.as_secs_f64() - offset) / period_s).floor() + 1.0;
        let at = loop {
            let at = Duration::from_secs_f64((periods * period_s + offset).max(0.0));
            // Rounding may have led back to now.
            if at > now {
                break at;
            }
            periods += 1.0;
        };
        self.due.insert((at, number), (phase, item));
    }

    /// Makes other periods hold.
    fn spread_anew(&mut self, now: Duration, period: impl Fn(&T) -> Duration) {
        for ((_, number), (phase, item)) in std::mem::take(&mut self.due) {
            self.put(now, period(&item), number, phase, item);
        }
    }

    /// Drops what is over, at a cost that each addition has a share of. With a long period, that
    /// would stay until it is due.
    fn prune(&mut self, goes_on: impl Fn(&T) -> bool) {
        if self.due.len() >= self.prune_at {
            self.due.retain(|_, (_, item)| goes_on(item));
            self.prune_at = (2 * self.due.len()).max(FEW);
        }
    }

    fn first_due(&self) -> Option<Duration> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes out one thing that is due. It is put back by `put` if it is to come again.
    fn pop(&mut self, now: Duration) -> Option<(u64, f64, T)> {
        if self.first_due()? > now {
            return None;
        }
        self.due.pop_first().map(|((_, number), (phase, item))| (number, phase, item))
    }
}

/// A session in the schedule.
#[derive(Debug)]
struct Autosaved {
    session: Weak<Session>,
    own_period: Option<Duration>,
}

/// The autosaves of a game server.
#[derive(Debug)]
pub(crate) struct Autosave {
    schedule: Mutex<Schedule<Autosaved>>,
    /// What is due waits in the schedule, where it costs nothing, until there is a place among
    /// those under way.
    places: Arc<Semaphore>,
    changed: Notify,
    base: Instant,
}

impl Default for Autosave {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(UNDER_WAY));
        Self { schedule: Mutex::default(), places, changed: Notify::new(), base: Instant::now() }
    }
}

impl Autosave {
    /// Saves a session once a period, `period` unless it has one of its own, until it is over.
    pub(crate) fn add(&self, session: &Arc<Session>, now: Instant, period: Duration) {
        let mut schedule = self.schedule.lock();
        schedule.prune(|saved| saved.session.strong_count() > 0);
        let before = schedule.first_due();
        let saved =
            Autosaved { session: Arc::downgrade(session), own_period: session.autosave_period };
        schedule.add(
            now.saturating_duration_since(self.base),
            saved.own_period.unwrap_or(period),
            saved,
        );
        if schedule.first_due() != before {
            drop(schedule);
            self.wake();
        }
    }

    /// Makes the driver look at the schedule again.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }
}

/// Saves what is due, for ever.
pub(super) async fn run(link: Arc<Link>, autosave: Arc<Autosave>) {
    let mut spread_over = link.settings().autosave_period;
    loop {
        let period = link.settings().autosave_period;
        // What is due within a moment goes together: for a store, a batch of many costs little more
        // than a batch of one.
        let now =
            link.env.now().saturating_duration_since(autosave.base) + TOGETHER.min(period / 100);
        let next = {
            let mut schedule = autosave.schedule.lock();
            if period != spread_over {
                schedule.spread_anew(now, |saved| saved.own_period.unwrap_or(period));
                spread_over = period;
            }
            let at = schedule.first_due().unwrap_or_default();
            match schedule.pop(now) {
                Some((number, phase, saved)) => {
                    // A session that is over is dropped from the schedule here.
                    let Some(live) = saved.session.upgrade().filter(|session| !session.is_over())
                    else {
                        continue;
                    };
                    schedule.put(now, saved.own_period.unwrap_or(period), number, phase, saved);
                    Err((at, live))
                }
                None => Ok(schedule.first_due()),
            }
        };
        let next = match next {
            Ok(next) => next,
            Err((at, live)) => {
                let Ok(place) = autosave.places.clone().acquire_owned().await else { return };
                link.room
                    .note_lateness(link.env.now().saturating_duration_since(autosave.base + at));
                live.queue_scheduled_save(Some(place));
                continue;
            }
        };
        let wait = async {
            match next {
                Some(at) => link.env.sleep_until(autosave.base + at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = autosave.changed.notified() => {}
            () = wait => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PERIOD: Duration = Duration::from_secs(300);

    #[test]
    fn a_thousand_sessions_that_start_at_once_are_saved_evenly() {
        let mut schedule = Schedule::default();
        let start = Duration::from_secs(1234);
        for i in 0..1000 {
            schedule.add(start, PERIOD, i);
        }
        let mut per_second = vec![0u32; 301];
        while let Some((_, _, _)) = {
            let at = schedule.first_due();
            at.and_then(|at| {
                per_second[(at - start).as_secs() as usize] += 1;
                schedule.pop(at)
            })
        } {}
        assert_eq!(per_second.iter().sum::<u32>(), 1000);
        assert!(per_second.iter().all(|n| *n <= 6), "{per_second:?}");
    }

    #[test]
    fn ended_sessions_leave_the_schedule_however_long_the_period() {
        let mut schedule = Schedule::default();
        for i in 0..100_000 {
            schedule.prune(|item| *item + 10 > i);
            schedule.add(Duration::from_secs(i), LONGEST, i);
        }
        assert!(schedule.due.len() <= FEW, "{}", schedule.due.len());
    }

    #[test]
    fn an_item_put_back_is_due_later_than_just_now() {
        let mut schedule = Schedule::default();
        for i in 0..1000 {
            schedule.add(Duration::from_secs(1234), PERIOD, i);
        }
        for _ in 0..5_000 {
            let at = schedule.first_due().unwrap();
            let (number, phase, item) = schedule.pop(at).unwrap();
            schedule.put(at, PERIOD, number, phase, item);
            let again = schedule.due.iter().find(|((_, other), _)| *other == number).unwrap();
            assert!(again.0.0 > at, "{number} at {at:?}");
        }
    }

    proptest! {
        #[test]
        fn everything_is_due_within_a_period_and_then_once_a_period(starts in prop::collection::vec(0u64..2000, 1..50)) {
            let mut starts = starts;
            starts.sort_unstable();
            let mut schedule = Schedule::default();
            for (i, start) in starts.iter().enumerate() {
                schedule.add(Duration::from_secs(*start), PERIOD, i);
            }
            let mut last: BTreeMap<usize, Duration> =
                starts.iter().enumerate().map(|(i, start)| (i, Duration::from_secs(*start))).collect();
            for _ in 0..starts.len() * 4 {
                let at = schedule.first_due().unwrap();
                let (number, phase, item) = schedule.pop(at).unwrap();
                let since = at.saturating_sub(last[&item]);
                prop_assert!(since <= PERIOD + Duration::from_millis(1), "{since:?}");
                last.insert(item, at);
                schedule.put(at, PERIOD, number, phase, item);
            }
        }
    }
}
