//! G4: a trade's effect is in both profiles from one commit on, or in neither; an item is in one
//! place; what a client was told was not done is not done.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Seen, broken};
use crate::{
    oracle::{Told, TradeTold},
    watch::Side,
};

#[derive(Default, Clone)]
pub struct Trades {
    /// Trades of this commit, and in how many profiles they are so far.
    open: BTreeMap<u64, u32>,
    /// Trades that were ever committed.
    ever: BTreeSet<u64>,
    /// How many profiles hold each item, as far as it is not one.
    items: BTreeMap<u64, i64>,
    /// Items that an operator brought back with an earlier version: another player may have them by
    /// now.
    copied: BTreeSet<u64>,
}

fn list(side: &Side, of: impl Fn(&crate::data::Player) -> &Vec<u64>) -> BTreeSet<u64> {
    side.data.as_ref().map(|data| of(data).iter().copied().collect()).unwrap_or_default()
}

impl Trades {
    pub fn committed(&mut self, seen: &Seen<'_>, told: &Told) -> Result<(), Broken> {
        let step = seen.step;
        let (had, has) =
            (list(step.before, |data| &data.items), list(step.after, |data| &data.items));
        if seen.kind.rewrites() {
            for item in has.difference(&had) {
                self.items.remove(item);
                self.copied.insert(*item);
            }
        }
        let mut items: Vec<u64> =
            step.after.data.iter().flat_map(|data| &data.items).copied().collect();
        items.sort_unstable();
        let twice = items.windows(2).any(|two| two[0] == two[1] && !self.copied.contains(&two[0]));
        if twice {
            return broken("G4", step.key, "a profile holds an item twice");
        }
        for item in had.difference(&has).filter(|item| !self.copied.contains(item)) {
            *self.items.entry(*item).or_default() -= 1;
        }
        for item in has.difference(&had).filter(|item| !self.copied.contains(item)) {
            *self.items.entry(*item).or_default() += 1;
        }
        if seen.kind.rewrites() {
            return Ok(());
        }
        let (had, has) =
            (list(step.before, |data| &data.trades), list(step.after, |data| &data.trades));
        for trade in has.difference(&had) {
            let told_so = told.trades.get(usize::try_from(*trade).unwrap_or(usize::MAX));
            if told_so == Some(&TradeTold::Failed) {
                return broken(
                    "G4",
                    step.key,
                    format!(
                        "trade {trade} takes effect, and its client was told that nothing was done"
                    ),
                );
            }
            *self.open.entry(*trade).or_default() += 1;
            self.ever.insert(*trade);
        }
        Ok(())
    }

    /// After the last key of a commit.
    pub fn balance(&mut self, key: &str) -> Result<(), Broken> {
        let half = std::mem::take(&mut self.open).into_iter().find(|(_, profiles)| *profiles != 2);
        if let Some((trade, profiles)) = half {
            return broken("G4", key, format!("trade {trade} took effect in {profiles} profiles"));
        }
        let doubled = self.items.iter().find(|(_, holders)| **holders > 1).map(|(item, _)| *item);
        if let Some(item) = doubled {
            return broken("G4", key, format!("item {item} is in two profiles"));
        }
        Ok(())
    }

    /// A client was told that a trade is done.
    pub fn acknowledged(&self, key: &str, trade: u64) -> Result<(), Broken> {
        if self.ever.contains(&trade) {
            return Ok(());
        }
        broken("G4", key, format!("trade {trade} was acknowledged and never committed"))
    }

    pub fn restored(&mut self, before: &Self) {
        self.ever.clone_from(&before.ever);
    }
}
