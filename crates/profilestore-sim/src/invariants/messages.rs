//! G3: a message is in the inbox or its effect is in the data, never both and never neither, from
//! its commit on; the effect comes once; what was not sent never arrives.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Kind, Seen, broken};
use crate::oracle::Told;

#[derive(Default, Clone)]
pub struct Messages {
    /// Every message that was ever committed, and where it is now.
    places: BTreeMap<u64, Place>,
    /// Messages from before a backup that it does not have.
    forgotten: BTreeSet<u64>,
    /// Messages that were ever committed, also before a backup, and which one in a row each was.
    ever: BTreeMap<u64, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Inbox,
    Received,
    /// Consumed with a profile that was removed, or taken back by an operator with the rest of the
    /// data.
    Gone,
}

impl Messages {
    pub fn committed(&mut self, seen: &Seen<'_>, told: &Told) -> Result<(), Broken> {
        let step = seen.step;
        let waiting = |side: &crate::watch::Side| {
            side.inbox.iter().map(|letter| letter.number).collect::<BTreeSet<u64>>()
        };
        let (before, after) = (waiting(step.before), waiting(step.after));
        if seen.kind == Kind::Untouched && before == after {
            return Ok(());
        }
        for number in after.difference(&before) {
            let told_so = told.letters.get(usize::try_from(*number).unwrap_or(usize::MAX));
            match told_so {
                Some(letter) if letter.to != step.key => {
                    return broken("G3", step.key, format!("message {number} went astray"));
                }
                Some(letter) if letter.failed() => {
                    return broken(
                        "G3",
                        step.key,
                        format!(
                            "message {number} arrives, and its sender was told that it was not sent"
                        ),
                    );
                }
                Some(_) => {}
                None => return broken("G3", step.key, format!("nobody sent message {number}")),
            }
            if let Some(place) = self.places.insert(*number, Place::Inbox) {
                return broken(
                    "G3",
                    step.key,
                    format!("message {number} arrives again; it was {place:?}"),
                );
            }
            let stored_before = self.ever.len() as u64;
            self.ever.insert(*number, stored_before);
        }
        let received = |side: &crate::watch::Side| {
            side.data.as_ref().map(|data| data.received.clone()).unwrap_or_default()
        };
        let (had, has) = (received(step.before), received(step.after));
        let (had_set, has_set): (BTreeSet<u64>, BTreeSet<u64>) =
            (had.iter().copied().collect(), has.iter().copied().collect());
        if has_set.len() < has.len() {
            let twice =
                has.iter().find(|number| has.iter().filter(|other| other == number).count() > 1);
            return broken("G3", step.key, format!("the effect of message {twice:?} came twice"));
        }
        for number in has_set.difference(&had_set) {
            // An earlier version brings the effects back that it had.
            let brought_back =
                seen.kind == Kind::Operator && self.places.get(number) == Some(&Place::Gone);
            if !brought_back && self.places.get(number) != Some(&Place::Inbox) {
                let place = self.places.get(number);
                return broken(
                    "G3",
                    step.key,
                    format!("the effect of message {number} came, which was {place:?}"),
                );
            }
            if after.contains(number) {
                return broken(
                    "G3",
                    step.key,
                    format!("the effect of message {number} was committed without its removal"),
                );
            }
            self.places.insert(*number, Place::Received);
        }
        for number in before.difference(&after).filter(|number| !has_set.contains(number)) {
            if !seen.kind.rewrites() {
                return broken(
                    "G3",
                    step.key,
                    format!("message {number} was removed without its effect"),
                );
            }
            self.places.insert(*number, Place::Gone);
        }
        for number in had_set.difference(&has_set) {
            if !seen.kind.rewrites() {
                return broken("G3", step.key, format!("the effect of message {number} is gone"));
            }
            self.places.insert(*number, Place::Gone);
        }
        Ok(())
    }

    /// Which one in a row a message was when it was stored last.
    pub fn stored_as(&self, number: u64) -> Option<u64> {
        self.ever.get(&number).copied()
    }

    /// A sender was told that a message is stored.
    pub fn acknowledged(&self, key: &str, number: u64) -> Result<(), Broken> {
        if self.ever.contains_key(&number) {
            return Ok(());
        }
        broken("G3", key, format!("message {number} was acknowledged and never stored"))
    }

    /// Everybody was online and handled everything: whatever was acknowledged had its effect.
    pub fn finally(&self, told: &Told) -> Result<(), Broken> {
        for (number, letter) in told.letters.iter().enumerate() {
            let number = number as u64;
            let place = self.places.get(&number);
            if place == Some(&Place::Inbox) {
                return broken(
                    "G3",
                    &letter.to,
                    format!("message {number} still waits when everybody has handled everything"),
                );
            }
            if letter.stored && place.is_none() && !self.forgotten.contains(&number) {
                return broken(
                    "G3",
                    &letter.to,
                    format!("message {number} was acknowledged and is nowhere"),
                );
            }
        }
        Ok(())
    }

    pub fn restored(&mut self, before: &Self, told: &Told) {
        self.ever.clone_from(&before.ever);
        let all = 0..told.letters.len() as u64;
        self.forgotten = all.filter(|number| !self.places.contains_key(number)).collect();
    }
}
