//! G4: coins are conserved over profiles and inboxes at every commit. The ledger books what
//! operators, removals and foreign writes change.

use super::{Broken, Seen, broken};
use crate::watch::Side;

#[derive(Default, Clone)]
pub struct Conserved {
    /// The coins in profiles and inboxes that did not come from nowhere.
    given: i64,
    /// What that should be.
    ledger: i64,
}

/// The coins of a key that other keys gave or are to give.
fn given(side: &Side) -> i64 {
    let data = side.data.as_ref().map_or(0, |data| data.coins - data.minted);
    data + side.inbox.iter().filter(|letter| letter.gift).map(|letter| letter.coins).sum::<i64>()
}

impl Conserved {
    /// One key of a commit; the sum must come out when the last one is through.
    pub fn committed(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        let change = given(seen.step.after) - given(seen.step.before);
        self.given += change;
        if seen.kind.rewrites() {
            self.ledger += change;
        }
        Ok(())
    }

    /// After each commit.
    pub fn balance(&self, key: &str) -> Result<(), Broken> {
        if self.given != self.ledger {
            return broken(
                "G4",
                key,
                format!(
                    "coins are not conserved: there are {} more than were given",
                    self.given - self.ledger
                ),
            );
        }
        Ok(())
    }
}
