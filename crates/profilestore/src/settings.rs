//! The numbers that may be changed. Each names the specification's constant where there is one.

use std::time::Duration;

/// The shortest lease time.
pub(crate) const MIN_LEASE_TIME: Duration = Duration::from_millis(100);

/// Periods and limits of a game server. `Settings::default()` is right for most games.
///
/// Write down what differs, and take the rest from the default. A later version may have more
/// fields, so always end with `..Settings::default()`:
///
/// ```
/// use std::time::Duration;
/// use profilestore::Settings;
///
/// let settings = Settings {
///     lease_time: Duration::from_secs(30),
///     keep_every_save: true,
///     ..Settings::default()
/// };
/// assert_eq!(settings.renew_period, Duration::from_secs(5));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How often each live profile is saved if it changed. Specification: `AUTO_SAVE_PERIOD`, 300
    /// s.
    pub autosave_period: Duration,
    /// Bounds what a crash may cost: save a profile at latest this long after its first unsaved
    /// change, besides the autosaves. These saves do not run the `on_save` hooks, whose business is
    /// the autosave's. When more changes than the store can take, the saves come as fast as it
    /// takes them. One that fails is made again, a second later at the earliest, and after pauses
    /// that double up to 20 s; what cannot be stored as it is, or is refused by the store's
    /// validator, waits for its next change or the autosave, and so do all once the store's files
    /// were taken away. At least 10 ms; None, the default, leaves it to autosaves. It holds for
    /// changes made from then on.
    pub save_changes_within: Option<Duration>,
    /// How long a start waits for a hint before it looks at the store again, from the second time
    /// on. Specification: `LOAD_REPEAT_PERIOD`, 10 s.
    pub load_repeat_period: Duration,
    /// How long a start waits for a hint before it looks at the store again, the first time.
    /// Specification: `FIRST_LOAD_REPEAT`, 5 s.
    pub first_load_repeat: Duration,
    /// After how long a session is taken from a server that is alive but does not answer the
    /// request. Specification: `SESSION_STEAL`, 40 s.
    pub session_steal: Duration,
    /// After how long without an update a session that no server row vouches for (an imported one)
    /// counts as dead. Specification: `ASSUME_DEAD`, 630 s.
    pub assume_dead: Duration,
    /// After how long a start without a cancel function gives up. Specification:
    /// `START_SESSION_TIMEOUT`, 120 s.
    pub start_session_timeout: Duration,
    /// How many store errors within [`Settings::critical_state_error_expire`] make the state
    /// critical. Specification: `CRITICAL_STATE_ERROR_COUNT`, 5.
    pub critical_state_error_count: usize,
    /// For how long a store error counts. Specification: `CRITICAL_STATE_ERROR_EXPIRE`, 120 s.
    pub critical_state_error_expire: Duration,
    /// How long the critical state lasts after the number of errors has fallen. Specification:
    /// `CRITICAL_STATE_EXPIRE`, 120 s.
    pub critical_state_expire: Duration,
    /// How many messages may wait for a profile; a sender beyond that gets an error. Specification:
    /// `MAX_MESSAGE_QUEUE`, 1000.
    pub max_message_queue: u32,
    /// After how long without a renewal this server may be declared dead, 20 s. Noted in the
    /// server's row when it registers.
    pub lease_time: Duration,
    /// How often the server's lease is renewed, 5 s. At most half the lease time.
    pub renew_period: Duration,
    /// How long a profile that was let go for a request stays reserved for it, 10 s.
    pub offer_time: Duration,
    /// How long `shutdown` tries to save everything, 30 s.
    pub shutdown_timeout: Duration,
    /// The longest that a single call (a message, a read, a removal, an operator's edit) takes,
    /// 30 s: waiting for its turn, the call and the store together. While the store is unavailable
    /// the call is tried again, the last time shortly before. A transaction that sets no deadline
    /// has this one; [`crate::TransactionBuilder::deadline`] says what it does not bound. Above 0.
    pub call_timeout: Duration,
    /// Keep every saved version in the history, not just one an hour. Off.
    pub keep_every_save: bool,
    /// How long a version stays in the history after it was superseded, 30 days.
    pub history_retention: Duration,
    /// How often what is past its time is swept out of the store, 6 h. At least 1 s; None leaves it
    /// to others.
    pub sweep_period: Option<Duration>,
    /// How many operations may wait for one profile on this server, 10,000. At least 1. At
    /// most 64 MiB of messages and of profiles that are to be written wait for one, whatever this
    /// says.
    pub max_key_queue: usize,
    /// Open what is about to be saved, and refuse the save when that does not give the same data
    /// again, with the place ([`crate::ErrorKind::Invalid`]). It finds types whose `Serialize` and
    /// `Deserialize` do not fit together before they lock a player out. Costs as much as opening
    /// the profile. On in debug builds, off in others.
    pub verify_saves: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            autosave_period: Duration::from_secs(300),
            save_changes_within: None,
            load_repeat_period: Duration::from_secs(10),
            first_load_repeat: Duration::from_secs(5),
            session_steal: Duration::from_secs(40),
            assume_dead: Duration::from_secs(630),
            start_session_timeout: Duration::from_secs(120),
            critical_state_error_count: 5,
            critical_state_error_expire: Duration::from_secs(120),
            critical_state_expire: Duration::from_secs(120),
            max_message_queue: 1000,
            lease_time: Duration::from_secs(20),
            renew_period: Duration::from_secs(5),
            offer_time: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(30),
            keep_every_save: false,
            history_retention: Duration::from_secs(30 * 24 * 60 * 60),
            sweep_period: Some(Duration::from_secs(6 * 60 * 60)),
            max_key_queue: 10_000,
            verify_saves: cfg!(debug_assertions),
        }
    }
}

/// A constant of the specification, to be set by its name.
#[cfg(feature = "roblox")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstantError {
    /// No constant has this name.
    #[error("there is no constant of this name; the constants are {}", CONSTANT_NAMES.join(", "))]
    UnknownName,
    /// The value is not a finite number of at least 0.
    #[error("a constant is a finite number of at least 0")]
    BadValue,
}

/// The names of the specification's constants.
#[cfg(feature = "roblox")]
pub const CONSTANT_NAMES: [&str; 10] = [
    "AUTO_SAVE_PERIOD",
    "LOAD_REPEAT_PERIOD",
    "FIRST_LOAD_REPEAT",
    "SESSION_STEAL",
    "ASSUME_DEAD",
    "START_SESSION_TIMEOUT",
    "CRITICAL_STATE_ERROR_COUNT",
    "CRITICAL_STATE_ERROR_EXPIRE",
    "CRITICAL_STATE_EXPIRE",
    "MAX_MESSAGE_QUEUE",
];

impl Settings {
    /// Sets one of the specification's constants by its name; times are in seconds. Specification:
    /// `SetConstant`.
    #[cfg(feature = "roblox")]
    pub fn set_constant(&mut self, name: &str, value: f64) -> Result<(), ConstantError> {
        let seconds = || Duration::try_from_secs_f64(value).map_err(|_| ConstantError::BadValue);
        if !value.is_finite() || value < 0.0 {
            return Err(if CONSTANT_NAMES.contains(&name) {
                ConstantError::BadValue
            } else {
                ConstantError::UnknownName
            });
        }
        match name {
            "AUTO_SAVE_PERIOD" => self.autosave_period = seconds()?,
            "LOAD_REPEAT_PERIOD" => self.load_repeat_period = seconds()?,
            "FIRST_LOAD_REPEAT" => self.first_load_repeat = seconds()?,
            "SESSION_STEAL" => self.session_steal = seconds()?,
            "ASSUME_DEAD" => self.assume_dead = seconds()?,
            "START_SESSION_TIMEOUT" => self.start_session_timeout = seconds()?,
            "CRITICAL_STATE_ERROR_COUNT" => self.critical_state_error_count = value as usize,
            "CRITICAL_STATE_ERROR_EXPIRE" => self.critical_state_error_expire = seconds()?,
            "CRITICAL_STATE_EXPIRE" => self.critical_state_expire = seconds()?,
            "MAX_MESSAGE_QUEUE" => self.max_message_queue = value as u32,
            _ => return Err(ConstantError::UnknownName),
        }
        Ok(())
    }

    /// Says what cannot work, if anything.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.lease_time < MIN_LEASE_TIME {
            return Some("the lease time must be at least 100 ms");
        }
        if self.renew_period.is_zero() || self.renew_period.saturating_mul(2) > self.lease_time {
            return Some("the renewal period must be above 0 and at most half the lease time");
        }
        if self.autosave_period < Duration::from_millis(100) {
            return Some("the autosave period must be at least 100 ms");
        }
        if self.save_changes_within.is_some_and(|within| within < Duration::from_millis(10)) {
            return Some("changes must be given at least 10 ms before they are saved");
        }
        if self.first_load_repeat.is_zero() || self.load_repeat_period.is_zero() {
            return Some("the load repeat periods must be above 0");
        }
        if self.call_timeout.is_zero() {
            return Some("the time that a call may take must be above 0");
        }
        if self.max_key_queue == 0 {
            return Some("at least one operation must be able to wait for a profile");
        }
        if self.sweep_period.is_some_and(|period| period < Duration::from_secs(1)) {
            return Some("the sweep period must be at least 1 s; None leaves sweeping to others");
        }
        None
    }
}

#[cfg(all(test, feature = "roblox"))]
mod tests {
    use super::*;

    #[test]
    fn every_constant_can_be_set_by_name() {
        let mut settings = Settings::default();
        for name in CONSTANT_NAMES {
            let before = settings.clone();
            settings.set_constant(name, 7.0).unwrap();
            assert_ne!(before, settings, "{name}");
        }
        assert_eq!(settings.set_constant("AUTO_SAVE", 1.0), Err(ConstantError::UnknownName));
        assert_eq!(
            settings.set_constant("AUTO_SAVE_PERIOD", f64::NAN),
            Err(ConstantError::BadValue)
        );
        assert_eq!(settings.set_constant("AUTO_SAVE_PERIOD", -1.0), Err(ConstantError::BadValue));
    }
}
