//! What the demonstration counts and measures.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde_json::json;

use super::wire::What;

/// Durations, from a microsecond to an hour.
#[derive(Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are right"))
    }
}

impl Times {
    pub(crate) fn record(&mut self, micros: u64) {
        self.0.saturating_record(micros.max(1));
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The duration that `percent` of a hundred do not exceed.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(percent / 100.0))
    }

    /// `p50 1.2 ms, p99 8.1 ms`.
    pub(crate) fn shown(&self) -> String {
        if self.count() == 0 {
            return "none".into();
        }
        format!("p50 {}, p99 {}", shown(self.percentile(50.0)), shown(self.percentile(99.0)))
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let ms =
            |percent| (self.count() > 0).then(|| self.percentile(percent).as_secs_f64() * 1000.0);
        json!({ "count": self.count(), "p50_ms": ms(50.0), "p99_ms": ms(99.0), "max_ms": ms(100.0) })
    }
}

/// `0.8 ms`, `12 ms`, `4.2 s`.
pub(crate) fn shown(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) saves: u64,
    pub(crate) leaves: u64,
    pub(crate) messages_sent: u64,
    pub(crate) messages_handled: u64,
    pub(crate) resent: u64,
    pub(crate) kills: u64,
    /// Processes of `profilestore serve` that were killed.
    pub(crate) host_kills: u64,
    /// Servers that were shut down and started again.
    pub(crate) restarts: u64,
    pub(crate) shutdowns: u64,
    pub(crate) save_times: Times,
    /// Trades on one server, presents, and escrows settled by order.
    pub(crate) trades: u64,
    pub(crate) presents: u64,
    pub(crate) settlements: u64,
    /// Trades on one server.
    pub(crate) trade_times: Times,
    /// Edits of single players: those that their holders made, how long each took from its first
    /// order, and orders that were repeated.
    pub(crate) edits_online: u64,
    pub(crate) edit_times: Times,
    pub(crate) edits_repeated: u64,
    /// How often the edit of all players was ordered again, and how often because its server had
    /// died.
    pub(crate) all_resumed: u64,
    pub(crate) all_broken_off: u64,
    /// Starts of a free profile.
    pub(crate) start_times: Times,
    /// Starts of a profile that a live server held.
    pub(crate) hand_over_times: Times,
    /// Starts of a profile whose server had been killed.
    pub(crate) take_over_times: Times,
    /// From one durable answer to a player's order to the next one, or to the end.
    pub(crate) unserved_times: Times,
    /// Sessions that ended without an order, by reason.
    pub(crate) ends: BTreeMap<String, u64>,
    /// Orders that the library answered with an error, by what and why.
    pub(crate) failures: BTreeMap<String, u64>,
    /// One example of each.
    pub(crate) examples: BTreeMap<String, String>,
    /// Errors of the store.
    pub(crate) troubles: u64,
    pub(crate) last_trouble: Option<String>,
}

impl Figures {
    pub(crate) fn failed(&mut self, what: &What, kind: &str, message: &str) {
        let what = match what {
            What::Join { .. } => "start",
            What::Leave { .. } => "end",
            What::Earn { .. } => "save",
            What::Send { .. } => "send",
            What::Trade { .. } => "trade",
            What::Give { .. } => "present",
            What::Deposit { .. } => "deposit",
            What::Settle { .. } => "settlement",
            What::Edit { task } if task.player.is_none() => "edit of all",
            What::Edit { .. } => "edit",
            What::Stop => "stop",
        };
        let name = format!("{what}: {kind}");
        self.examples.entry(name.clone()).or_insert_with(|| message.to_owned());
        *self.failures.entry(name).or_default() += 1;
    }

    pub(crate) fn trouble(&mut self, message: String) {
        self.troubles += 1;
        self.last_trouble = Some(message);
    }

    /// Sessions that were started.
    pub(crate) fn sessions(&self) -> u64 {
        self.start_times.count() + self.hand_over_times.count() + self.take_over_times.count()
    }

    pub(crate) fn errors(&self) -> u64 {
        self.failures.values().sum()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        json!({
            "saves": { "count": self.saves, "times": self.save_times.json() },
            "starts": self.start_times.json(),
            "hand_overs": self.hand_over_times.json(),
            "take_overs": self.take_over_times.json(),
            "unserved": self.unserved_times.json(),
            "ends_ordered": self.leaves,
            "ends_otherwise": self.ends,
            "messages": { "sent": self.messages_sent, "sent_again": self.resent, "handled": self.messages_handled },
            "items": {
                "traded": self.trades,
                "given": self.presents,
                "settled_between_servers": self.settlements,
                "trade_times": self.trade_times.json(),
            },
            "edits": { "times": self.edit_times.json(), "online": self.edits_online, "repeated": self.edits_repeated },
            "edit_of_all": { "broken_off": self.all_broken_off, "resumed": self.all_resumed },
            "kills": self.kills,
            "host_kills": self.host_kills,
            "restarts": self.restarts,
            "shutdowns": self.shutdowns,
            "refused_or_unknown": self.failures,
            "store_errors": self.troubles,
        })
    }
}
