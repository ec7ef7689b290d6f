//! Errors of the store, told to listeners, and the critical state that too many of them make.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::deadline::outside_of_calls;
use crate::{
    data_store::LeaseState, key::ProfileKey, settings::Settings, signal::Signal, storable,
};

/// A session of a program that does not use this library. See
/// [`crate::GameServer::on_foreign_holder`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ForeignHolder<'a> {
    /// The profile that it holds.
    pub key: &'a ProfileKey,
    /// Its identity. Specification: the third element of `ActiveSession`.
    pub session: &'a str,
    /// How many sessions the profile has had, it included. Specification: `SessionLoadCount`.
    pub load_count: u64,
    /// True when it is to let go of the profile, false when a message waits for it. Specification:
    /// `EndSession`.
    pub wanted: bool,
}

pub(crate) type OnError = dyn Fn(&str, Option<&ProfileKey>) + Send + Sync;
pub(crate) type OnOverwrite = dyn Fn(&ProfileKey) + Send + Sync;
pub(crate) type OnCritical = dyn Fn(bool) + Send + Sync;
pub(crate) type OnNearlyFull = dyn Fn(&ProfileKey, usize) + Send + Sync;
pub(crate) type OnForeignHolder = dyn Fn(&ForeignHolder<'_>) + Send + Sync;

/// Until when the states of this process are critical if no more errors come, by the addresses of
/// their owners. The metric says whether any is. One that is judged no more, at a host whose game
/// servers have gone, ends with the next judgement of another.
static CRITICAL: Mutex<BTreeMap<usize, Instant>> = Mutex::new(BTreeMap::new());

/// How long the metric believes in a state that is judged no more.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Default)]
pub(crate) struct Health {
    pub(crate) on_error: Signal<OnError>,
    pub(crate) on_overwrite: Signal<OnOverwrite>,
    pub(crate) on_critical: Signal<OnCritical>,
    pub(crate) on_foreign_holder: Signal<OnForeignHolder>,
    pub(crate) on_nearly_full: Signal<OnNearlyFull>,
    critical: AtomicBool,
    errors: Mutex<Errors>,
    /// Which errors that stay were logged, and when.
    said: Mutex<VecDeque<(String, Instant)>>,
}

/// How often the log says the same of an error that stays.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// How many of these are known apart.
const SAID_AT_MOST: usize = 16;

/// The pure part: which errors still count, and since when they have been few.
#[derive(Default)]
struct Errors {
    recent: VecDeque<Instant>,
    /// When there were too many for the last time.
    many_at: Option<Instant>,
}

impl Errors {
    /// For how long the state is critical if no more errors come. None: it is not.
    fn judge(&mut self, now: Instant, settings: &Settings) -> Option<Duration> {
        while self.recent.front().is_some_and(|at| {
            now.saturating_duration_since(*at) >= settings.critical_state_error_expire
        }) {
            self.recent.pop_front();
        }
        if self.recent.len() >= settings.critical_state_error_count {
            self.many_at = Some(now);
        }
        let passed = now.saturating_duration_since(self.many_at?);
        let left = settings.critical_state_expire.saturating_sub(passed);
        (!left.is_zero()).then_some(left)
    }
}

impl Health {
    /// Brings the metric up to date. `until`: until when this state is critical, if it is.
    fn show(&self, until: Option<Instant>) {
        let owner = std::ptr::from_ref(self).addr();
        let mut all = CRITICAL.lock();
        if let Some(until) = until {
            all.insert(owner, until);
        } else {
            all.remove(&owner);
        }
        metrics::gauge!("profilestore_critical_state").set(f64::from(u8::from(!all.is_empty())));
    }

    /// A holder that no hint of this server reaches has a profile that this server wants, or has
    /// sent a message to.
    pub(crate) fn foreign(&self, key: &ProfileKey, lease: &LeaseState, wanted: bool) {
        let Some(holder) = lease.holder.as_ref().filter(|holder| holder.server.is_none()) else {
            return;
        };
        // The third element of an `ActiveSession`, where a session has an identity.
        let Some(session) = holder
            .document
            .as_ref()
            .and_then(|document| document.get(2))
            .and_then(|id| id.as_str())
        else {
            return;
        };
        let foreign = ForeignHolder { key, session, load_count: lease.load_count, wanted };
        outside_of_calls(|| self.on_foreign_holder.each(|listener| listener(&foreign)));
    }

    /// Whether an error that stays is to be logged now: at first, and then once a minute.
    pub(crate) fn is_to_be_said_again(&self, why: &str, now: Instant) -> bool {
        let mut said = self.said.lock();
        said.retain(|(_, at)| now.saturating_duration_since(*at) < SAID_EVERY);
        let due = said.iter().all(|(before, _)| before != why);
        if due {
            said.truncate(SAID_AT_MOST - 1);
            said.push_front((why.to_owned(), now));
        }
        due
    }

    pub(crate) fn is_critical(&self) -> bool {
        self.critical.load(Ordering::Relaxed)
    }

    pub(crate) fn error(
        &self,
        message: &str,
        key: Option<&ProfileKey>,
        now: Instant,
        settings: &Settings,
    ) {
        {
            let mut errors = self.errors.lock();
            errors.recent.push_back(now);
            // More than count make no difference.
            while errors.recent.len() > settings.critical_state_error_count.max(1) {
                errors.recent.pop_front();
            }
        }
        outside_of_calls(|| self.on_error.each(|listener| listener(message, key)));
        self.judge(now, settings);
    }

    /// To be called now and then, so that the critical state ends by itself.
    pub(crate) fn judge(&self, now: Instant, settings: &Settings) {
        let left = self.errors.lock().judge(now, settings);
        CRITICAL.lock().retain(|_, until| *until > now);
        self.show(left.map(|left| now + left.min(LONGEST)));
        let critical = left.is_some();
        if self.critical.swap(critical, Ordering::Relaxed) != critical {
            tracing::warn!(critical, "the critical state changed");
            outside_of_calls(|| self.on_critical.each(|listener| listener(critical)));
        }
    }

    pub(crate) fn overwritten(&self, key: &ProfileKey) {
        tracing::warn!(%key, "a stored value that is no profile was overwritten; the history \
            keeps it");
        outside_of_calls(|| self.on_overwrite.each(|listener| listener(key)));
    }

    /// A profile's data has grown to almost what can be stored.
    pub(crate) fn nearly_full(&self, key: &ProfileKey, size: usize) {
        metrics::counter!("profilestore_nearly_full_total").increment(1);
        tracing::warn!(%key, size, limit = storable::MAX_DATA_BYTES, "a profile's data is almost \
            too large to be stored");
        outside_of_calls(|| self.on_nearly_full.each(|listener| listener(key, size)));
    }

    pub(crate) fn listen_error(
        &self,
        listener: impl Fn(&str, Option<&ProfileKey>) + Send + Sync + 'static,
    ) -> crate::Connection {
        self.on_error.connect(Arc::new(listener))
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.show(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_stays_is_logged_at_first_and_then_once_a_minute() {
        let (health, base) = (Health::default(), Instant::now());
        let said = |why: &str, s| health.is_to_be_said_again(why, base + Duration::from_secs(s));
        assert_eq!(
            [0, 1, 59, 60, 61, 119, 120].map(|s| said("the disk is full", s)),
            [true, false, false, true, false, false, true]
        );
        assert!(said("no connection", 121), "another one");
        assert!(!said("the disk is full", 122) && !said("no connection", 122));
        // No more than so many are kept, whatever comes.
        for n in 0..100 {
            assert!(said(&format!("error {n}"), 123));
        }
        assert_eq!(health.said.lock().len(), SAID_AT_MOST);
    }

    #[test]
    fn five_errors_in_two_minutes_are_critical_until_two_minutes_after_they_became_few() {
        let settings = Settings::default();
        let health = Health::default();
        let toggles = Arc::new(Mutex::new(Vec::new()));
        let seen = toggles.clone();
        health.on_critical.connect(Arc::new(move |critical| seen.lock().push(critical)));
        let base = Instant::now();
        for s in 0..4 {
            health.error("no", None, base + Duration::from_secs(s), &settings);
        }
        assert!(!health.is_critical());
        health.error("no", None, base + Duration::from_secs(4), &settings);
        assert!(health.is_critical());
        // The first of the five stops counting at 120 s; the last time there were five is seen at
        // 119 s.
        health.judge(base + Duration::from_secs(119), &settings);
        health.judge(base + Duration::from_secs(238), &settings);
        assert!(health.is_critical());
        health.judge(base + Duration::from_secs(239), &settings);
        assert!(!health.is_critical());
        assert_eq!(*toggles.lock(), [true, false]);
    }
}
