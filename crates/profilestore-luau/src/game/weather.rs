//! A slow and unreliable way to the store, for the built-in modules. What scripts do through
//! DataStoreService has its own.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use profilestore::{
    data_store::{
        DataStore,
        fault::{Call, Fate, Fault, FaultyStore, StorePlan},
    },
    env::Rng,
};

use super::time::Seeded;
use crate::specs::Collector;

/// How calls of the store go.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Weather {
    /// How long each call takes.
    pub(crate) latency: Duration,
    /// How many of a hundred calls fail; half of these are applied all the same.
    pub(crate) errors: f64,
}

impl Weather {
    pub(crate) fn is_fair(&self) -> bool {
        self.latency.is_zero() && self.errors <= 0.0
    }

    /// A store in this weather. No call fails until the game server has `started`: on Roblox a
    /// server starts whatever becomes of its data stores.
    pub(crate) fn over(
        self,
        store: Arc<dyn DataStore>,
        seed: u64,
        started: Arc<AtomicBool>,
        specs: Option<Arc<Collector>>,
    ) -> Arc<dyn DataStore> {
        if self.is_fair() {
            return store;
        }
        let rng = Seeded::new(seed);
        Arc::new(FaultyStore::new(store, Plan { weather: self, rng, started, specs }))
    }
}

#[derive(Debug)]
struct Plan {
    weather: Weather,
    rng: Seeded,
    started: Arc<AtomicBool>,
    /// Who is told in tests of the calls that fail.
    specs: Option<Arc<Collector>>,
}

impl StorePlan for Plan {
    fn fate(&self, call: Call<'_>) -> Fate {
        let way = self.weather.latency / 2;
        let bits = self.rng.bits();
        let fails =
            (bits >> 64) as f64 / 18_446_744_073_709_551_616.0 * 100.0 < self.weather.errors;
        let fault = match call {
            Call::Sweep => None,
            _ if !fails || !self.started.load(Ordering::Relaxed) => None,
            _ if bits & 1 == 0 => Some(Fault::RequestLost),
            _ => Some(Fault::AnswerLost),
        };
        if fault.is_some()
            && let Some(specs) = &self.specs
        {
            specs.call_failed(named(call));
        }
        Fate { there: way, back: way, fault }
    }
}

/// A call, as a report on tests names it.
fn named(call: Call<'_>) -> String {
    let what = match call {
        Call::Read => "a read".to_owned(),
        Call::Renewal => "a renewal of the server's lease".to_owned(),
        Call::Commit(commits) => {
            let changes = commits.iter().flat_map(|commit| &commit.changes);
            let keys: BTreeSet<String> =
                changes.filter_map(|change| Some(change.key()?.to_string())).collect();
            // The first ones of many are enough.
            let keys: Vec<String> = keys.into_iter().take(3).collect();
            if keys.is_empty() {
                "a write".to_owned()
            } else {
                format!("a write of {}", keys.join(", "))
            }
        }
        _ => "a call".to_owned(),
    };
    format!("{what} by a built-in module")
}
