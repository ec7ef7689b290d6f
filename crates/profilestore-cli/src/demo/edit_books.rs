//! The operators' edits as the parent notes them, and whether profiles and audit log agree. Pure.
//!
//! Each edit leaves its number in the data of every player that it reached. So three things are
//! known of every edit and player, and they must agree: what the servers answered, what is in the
//! data, and what the audit log says.

use std::collections::BTreeSet;

use profilestore::audit::AuditOutcome;
use uuid::Uuid;

use super::{
    data::PlayerData,
    edits::{Log, Task},
    ledger::{Check, Fate},
};

#[derive(Debug, Clone)]
struct Entry {
    task: Task,
    /// Whom it must reach: those whose profiles were there when it was ordered.
    due: BTreeSet<u32>,
    fate: Fate,
}

/// All edits that were ordered.
#[derive(Debug, Clone, Default)]
pub(crate) struct EditBooks {
    entries: Vec<Entry>,
}

impl EditBooks {
    /// A new edit. `due` are those whom one of all players must reach.
    pub(crate) fn order(
        &mut self,
        operation: Uuid,
        player: Option<u32>,
        due: BTreeSet<u32>,
        amount: u32,
        fits: bool,
    ) -> Task {
        let number = u32::try_from(self.entries.len()).expect("fewer than four billion edits");
        let task = Task { number, operation, player, amount, fits };
        let due = player.map_or(due, |player| BTreeSet::from([player]));
        self.entries.push(Entry { task: task.clone(), due, fate: Fate::Open });
        task
    }

    pub(crate) fn acknowledge(&mut self, number: u32) {
        self.close(number, Fate::Acknowledged);
    }

    pub(crate) fn refuse(&mut self, number: u32) {
        self.close(number, Fate::Refused);
    }

    fn close(&mut self, number: u32, fate: Fate) {
        if let Some(entry) = self.entries.get_mut(number as usize) {
            entry.fate = fate;
        }
    }

    pub(crate) fn is_open(&self, number: u32) -> bool {
        self.entries.get(number as usize).is_some_and(|entry| entry.fate == Fate::Open)
    }

    /// Those whose outcome is not known.
    pub(crate) fn open(&self) -> Vec<Task> {
        self.entries
            .iter()
            .filter(|entry| entry.fate == Fate::Open)
            .map(|entry| entry.task.clone())
            .collect()
    }

    /// How many were ordered.
    pub(crate) fn count(&self) -> u64 {
        self.entries.len() as u64
    }

    /// How many edits of single players were acknowledged, refused, and are neither.
    pub(crate) fn fates(&self) -> [u64; 3] {
        let single = || self.entries.iter().filter(|entry| entry.task.player.is_some());
        [Fate::Acknowledged, Fate::Refused, Fate::Open]
            .map(|fate| single().filter(|entry| entry.fate == fate).count() as u64)
    }

    /// The edit of all players, once ordered, and whether it is complete.
    pub(crate) fn of_all(&self) -> Option<(&Task, bool)> {
        let entry = self.entries.iter().find(|entry| entry.task.player.is_none())?;
        Some((&entry.task, entry.fate == Fate::Acknowledged))
    }

    /// The coins that an edit gives to each player.
    pub(crate) fn amount(&self, number: u32) -> u32 {
        self.entries.get(number as usize).map_or(0, |entry| entry.task.amount)
    }

    /// The coins that all edits brought at least and at most, to so many players.
    pub(crate) fn bounds(&self, players: usize) -> (i64, i64) {
        let (mut least, mut most) = (0, 0);
        for Entry { task, due, fate } in &self.entries {
            let reached = |players: usize| {
                i64::from(task.amount) * i64::try_from(players).unwrap_or(i64::MAX)
            };
            least += if *fate == Fate::Acknowledged { reached(due.len()) } else { 0 };
            most += if *fate == Fate::Refused {
                0
            } else {
                reached(task.player.map_or(players, |_| 1))
            };
        }
        (least, most)
    }

    /// Compares profiles and audit log with the books. That nothing was made twice is the ledger's
    /// affair.
    pub(crate) fn judge(&self, found: &[Option<PlayerData>], log: &Log) -> Vec<Check> {
        let made = |player: u32, number: u32| {
            found
                .get(player as usize)
                .and_then(Option::as_ref)
                .is_some_and(|data| data.edited.contains(&number))
        };
        vec![
            self.judge_single(made),
            self.judge_all(made),
            self.judge_foreign(found),
            self.judge_log(found.len(), made, log),
        ]
    }

    fn judge_single(&self, made: impl Fn(u32, u32) -> bool) -> Check {
        let (mut of, mut missing) = (0, Vec::new());
        for Entry { task, .. } in self.acknowledged() {
            let Some(player) = task.player else { continue };
            of += 1;
            if !made(player, task.number) {
                missing.push(format!(
                    "player {player}: edit {} was acknowledged and is missing",
                    task.number
                ));
            }
        }
        Check::counted("acknowledged edits present", of, missing)
    }

    fn judge_all(&self, made: impl Fn(u32, u32) -> bool) -> Check {
        let (mut of, mut missing) = (0, Vec::new());
        for Entry { task, due, .. } in
            self.acknowledged().filter(|entry| entry.task.player.is_none())
        {
            of += due.len() as u64;
            missing.extend(due.iter().filter(|player| !made(**player, task.number)).map(
                |player| {
                    format!(
                        "edit {} of all players is complete and did not reach player {player}",
                        task.number
                    )
                },
            ));
        }
        Check::counted("players the edit of all reached", of, missing)
    }

    fn acknowledged(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.fate == Fate::Acknowledged)
    }

    fn judge_foreign(&self, found: &[Option<PlayerData>]) -> Check {
        let (mut of, mut wrong) = (0, Vec::new());
        for (player, data) in found.iter().enumerate() {
            for number in data.iter().flat_map(|data| &data.edited) {
                of += 1;
                let entry = self.entries.get(*number as usize);
                let why = match entry
                    .filter(|entry| entry.task.player.is_none_or(|meant| meant as usize == player))
                {
                    None => "was never ordered for the player",
                    Some(entry) if entry.fate == Fate::Refused => "was refused",
                    Some(entry) if !entry.task.fits => "does not fit",
                    Some(_) => continue,
                };
                wrong.push(format!("player {player}: edit {number} {why} and is there"));
            }
        }
        Check::counted("edits found that were ordered", of, wrong)
    }

    /// What is booked as done was done, what was done is booked, and nothing is pending.
    fn judge_log(&self, players: usize, made: impl Fn(u32, u32) -> bool, log: &Log) -> Check {
        let (mut of, mut wrong) = (0, Vec::new());
        for Entry { task, fate, .. } in &self.entries {
            let whom = task
                .player
                .map_or(0..u32::try_from(players).unwrap_or(u32::MAX), |player| player..player + 1);
            for player in whom {
                let (booked, made) =
                    (log.outcomes.get(&(task.operation, Some(player))), made(player, task.number));
                of += u64::from(made || booked.is_some());
                let acknowledged = task.player.is_some() && *fate == Fate::Acknowledged;
                if (booked == Some(&AuditOutcome::Done)) != made
                    || (acknowledged && !made)
                    || booked == Some(&AuditOutcome::Pending)
                {
                    let made = if made { "is there" } else { "is not there" };
                    wrong.push(format!(
                        "player {player}: edit {} {made}; booked: {booked:?}",
                        task.number
                    ));
                }
            }
            let whole = log.outcomes.get(&(task.operation, None));
            if task.player.is_none() && *fate == Fate::Acknowledged {
                of += 1;
                if whole != Some(&AuditOutcome::Done) {
                    wrong.push(format!(
                        "edit {} of all players was acknowledged; booked: {whole:?}",
                        task.number
                    ));
                }
            }
        }
        Check::counted("edits as the audit log has them", of, wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two players, the second of whom came after the edit of all (2); edit 0 of player 0 was made,
    /// edit 1 refused.
    fn world() -> (EditBooks, Vec<Option<PlayerData>>, Log) {
        let mut books = EditBooks::default();
        let one = books.order(Uuid::from_u128(1), Some(0), BTreeSet::new(), 10, true);
        books.acknowledge(one.number);
        let unfit = books.order(Uuid::from_u128(2), Some(1), BTreeSet::new(), 20, false);
        books.refuse(unfit.number);
        let all = books.order(Uuid::from_u128(3), None, BTreeSet::from([0]), 5, true);
        books.acknowledge(all.number);
        let data = PlayerData { edited: vec![0, 2], ..PlayerData::default() };
        let mut log = Log::default();
        for (operation, player, outcome) in [
            (1, Some(0), AuditOutcome::Done),
            (2, Some(1), AuditOutcome::Refused { why: "it does not fit".into() }),
            (3, Some(0), AuditOutcome::Done),
            (3, None, AuditOutcome::Done),
        ] {
            log.outcomes.insert((Uuid::from_u128(operation), player), outcome);
        }
        (books, vec![Some(data), Some(PlayerData::default())], log)
    }

    fn failed(books: &EditBooks, found: &[Option<PlayerData>], log: &Log) -> Vec<&'static str> {
        books
            .judge(found, log)
            .iter()
            .filter(|check| !check.passed())
            .map(|check| check.name)
            .collect()
    }

    #[test]
    fn edits_as_booked_pass_with_and_without_one_for_a_player_who_came_later() {
        let (mut books, mut found, mut log) = world();
        assert_eq!(failed(&books, &found, &log), [""; 0]);
        assert_eq!((books.bounds(2), books.fates()), ((15, 20), [1, 1, 0]));
        found[1].as_mut().unwrap().edited.push(2);
        log.outcomes.insert((Uuid::from_u128(3), Some(1)), AuditOutcome::Done);
        assert_eq!(failed(&books, &found, &log), [""; 0]);
        let open = books.order(Uuid::from_u128(4), Some(1), BTreeSet::new(), 7, true);
        assert_eq!((failed(&books, &found, &log), books.bounds(2)), (vec![], (15, 27)));
        assert_eq!(books.open(), [open]);
    }

    #[test]
    fn an_acknowledged_edit_that_is_missing() {
        let (books, mut found, log) = world();
        found[0].as_mut().unwrap().edited = vec![2];
        assert_eq!(
            failed(&books, &found, &log),
            ["acknowledged edits present", "edits as the audit log has them"]
        );
    }

    #[test]
    fn an_edit_of_all_players_that_missed_one() {
        let (books, mut found, mut log) = world();
        found[0].as_mut().unwrap().edited = vec![0];
        log.outcomes.remove(&(Uuid::from_u128(3), Some(0)));
        assert_eq!(failed(&books, &found, &log), ["players the edit of all reached"]);
    }

    #[test]
    fn an_edit_that_was_refused_or_meant_for_another_player() {
        let (books, mut found, log) = world();
        found[1].as_mut().unwrap().edited.push(1);
        assert_eq!(
            failed(&books, &found, &log),
            ["edits found that were ordered", "edits as the audit log has them"]
        );
        let (books, mut found, log) = world();
        found[1].as_mut().unwrap().edited.push(0);
        assert_eq!(failed(&books, &found, &log), ["edits found that were ordered"]);
    }

    #[test]
    fn an_edit_that_is_not_booked_or_still_pending() {
        for key in [(Uuid::from_u128(1), Some(0)), (Uuid::from_u128(3), None)] {
            let (books, found, mut log) = world();
            log.outcomes.insert(key, AuditOutcome::Pending);
            assert_eq!(failed(&books, &found, &log), ["edits as the audit log has them"]);
            log.outcomes.remove(&key);
            assert_eq!(failed(&books, &found, &log), ["edits as the audit log has them"]);
        }
    }
}
