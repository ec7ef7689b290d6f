//! What came of a fleet's play, and whether the store holds it.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::ITEMS;

/// What the game servers of a fleet did, and what must be in the store afterwards.
#[derive(Debug, Default)]
pub struct Report {
    /// Saves that were answered.
    pub saves: u64,
    /// Transactions that were answered.
    pub trades: u64,
    /// Presents that were answered.
    pub gifts: u64,
    /// How often a game server resumed.
    pub resumes: u64,
    /// The longest time from a save to its answer.
    pub longest: Duration,
    /// What must not happen: sessions that ended without being asked to, requests that failed.
    pub wrong: Vec<String>,
    /// What each profile must hold.
    pub profiles: BTreeMap<String, Value>,
    /// The presents that were answered, and to whom each went.
    pub(super) given: BTreeMap<String, String>,
}

impl Report {
    /// What is wrong with what the store holds. `profile` answers a profile's data, `inbox` what
    /// its waiting messages say.
    pub fn audit(
        &self,
        profile: impl Fn(&str) -> Value,
        inbox: impl Fn(&str) -> Vec<Value>,
    ) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        let (mut items, mut presents) = (BTreeMap::new(), BTreeMap::new());
        for (key, known) in &self.profiles {
            let stored = profile(key);
            if stored != *known {
                wrong.push(format!("{key} holds {stored}, and {known} was answered"));
            }
            for item in stored["items"].as_array().into_iter().flatten() {
                *items.entry(item.as_u64()).or_insert(0) += 1;
            }
            let received = stored["received"].as_array().cloned().unwrap_or_default();
            for present in received.into_iter().chain(inbox(key)) {
                let name = present.as_str().unwrap_or_default().to_owned();
                presents.entry(name).or_insert_with(Vec::new).push(key.clone());
            }
        }
        for item in 0..self.profiles.len() as u64 / 2 * ITEMS {
            let places = items.get(&Some(item)).copied().unwrap_or(0);
            if places != 1 {
                wrong.push(format!("item {item} is in {places} places"));
            }
        }
        for (name, places) in &presents {
            if places.len() > 1 {
                wrong.push(format!("present {name} came {places:?}"));
            }
        }
        for (name, to) in &self.given {
            if presents.get(name).and_then(|places| places.first()) != Some(to) {
                wrong.push(format!("present {name} to {to} was answered and is not there"));
            }
        }
        wrong
    }

    /// Adds what one game server of the fleet did.
    pub(super) fn add(&mut self, own: Self) {
        self.saves += own.saves;
        self.trades += own.trades;
        self.gifts += own.gifts;
        self.resumes += own.resumes;
        self.longest = self.longest.max(own.longest);
        self.wrong.extend(own.wrong);
        self.given.extend(own.given);
        self.profiles.extend(own.profiles);
    }
}
