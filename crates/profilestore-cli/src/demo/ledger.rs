//! What was ordered, what was acknowledged, and whether the stored profiles agree with that. Pure.
//!
//! An acknowledged step must be there, and a refused one must not. Any other step may be there, but
//! not twice. The steps of every profile must add up to its coins. What left one profile must have
//! come to another.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    data::PlayerData,
    edit_books::EditBooks,
    trades::{ITEMS_EACH, Item},
};

/// What is known about one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// May be there or not.
    Open,
    /// Must be there.
    Acknowledged,
    /// Must not be there.
    Refused,
}

#[derive(Debug, Clone)]
struct Earning {
    amount: u32,
    fate: Fate,
}

#[derive(Debug, Clone)]
struct Sending {
    amount: u32,
    debit: Fate,
    /// The message is stored.
    stored: bool,
}

#[derive(Debug, Clone, Default)]
struct Account {
    earnings: Vec<Earning>,
    /// By receiver.
    sendings: BTreeMap<u32, Vec<Sending>>,
}

/// The parent's books.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    accounts: Vec<Account>,
    /// How often each item has moved at least.
    moves: Vec<u32>,
    pub(crate) edits: EditBooks,
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// What was found, for people.
    pub(crate) found: String,
    pub(crate) violations: Vec<String>,
}

impl Check {
    /// How many of how many are right.
    pub(crate) fn counted(name: &'static str, of: u64, violations: Vec<String>) -> Self {
        let good = of.saturating_sub(violations.len() as u64);
        Self { name, found: format!("{good}/{of}"), violations }
    }

    pub(crate) fn passed(&self) -> bool {
        self.violations.is_empty()
    }
}

impl Ledger {
    pub(crate) fn new(players: u32) -> Self {
        Self {
            accounts: vec![Account::default(); players as usize],
            moves: vec![0; (players * ITEMS_EACH) as usize],
            edits: EditBooks::default(),
        }
    }

    fn account(&mut self, player: u32) -> &mut Account {
        &mut self.accounts[player as usize]
    }

    fn sending(&mut self, from: u32, to: u32, number: u32) -> Option<&mut Sending> {
        self.account(from).sendings.get_mut(&to)?.get_mut(number as usize)
    }

    /// The number of a new earning.
    pub(crate) fn order_earning(&mut self, player: u32, amount: u32) -> u32 {
        let earnings = &mut self.account(player).earnings;
        earnings.push(Earning { amount, fate: Fate::Open });
        u32::try_from(earnings.len() - 1).expect("fewer than four billion steps")
    }

    pub(crate) fn acknowledge_earnings(&mut self, player: u32, steps: &[u32]) {
        for step in steps {
            if let Some(earning) = self.account(player).earnings.get_mut(*step as usize) {
                earning.fate = Fate::Acknowledged;
            }
        }
    }

    pub(crate) fn refuse_earning(&mut self, player: u32, step: u32) {
        if let Some(earning) = self.account(player).earnings.get_mut(step as usize) {
            earning.fate = Fate::Refused;
        }
    }

    /// The number of a new transfer.
    pub(crate) fn order_sending(&mut self, from: u32, to: u32, amount: u32) -> u32 {
        let sendings = self.account(from).sendings.entry(to).or_default();
        sendings.push(Sending { amount, debit: Fate::Open, stored: false });
        u32::try_from(sendings.len() - 1).expect("fewer than four billion steps")
    }

    pub(crate) fn acknowledge_debit(&mut self, from: u32, to: u32, number: u32) {
        if let Some(sending) = self.sending(from, to, number) {
            sending.debit = Fate::Acknowledged;
        }
    }

    pub(crate) fn refuse_sending(&mut self, from: u32, to: u32, number: u32) {
        if let Some(sending) = self.sending(from, to, number) {
            sending.debit = Fate::Refused;
        }
    }

    /// The message is stored. It is only sent once the debit is saved.
    pub(crate) fn acknowledge_message(&mut self, from: u32, to: u32, number: u32) {
        if let Some(sending) = self.sending(from, to, number) {
            sending.debit = Fate::Acknowledged;
            sending.stored = true;
        }
    }

    pub(crate) fn acknowledge_moves(&mut self, items: &[Item]) {
        for (item, moves) in items {
            if let Some(known) = self.moves.get_mut(*item as usize) {
                *known = (*known).max(*moves);
            }
        }
    }

    /// Compares what is stored with the books. `found` has one entry a player, None for one whose
    /// profile could not be read: its steps count as missing.
    pub(crate) fn judge(&self, found: &[Option<PlayerData>]) -> Vec<Check> {
        let nothing = PlayerData::default();
        let data = |player: usize| found.get(player).and_then(Option::as_ref).unwrap_or(&nothing);
        let mut checks =
            vec![self.judge_earnings(&data), self.judge_foreign(found), self.judge_debits(&data)];
        checks.extend(self.judge_messages(&data));
        checks.push(judge_doubled(found));
        checks.extend(self.judge_items(found));
        checks.push(self.judge_own_sums(found));
        checks.push(self.judge_total(found));
        checks
    }

    fn judge_earnings<'a>(&self, data: &impl Fn(usize) -> &'a PlayerData) -> Check {
        let (mut of, mut violations) = (0, Vec::new());
        for (player, account) in self.accounts.iter().enumerate() {
            for (step, earning) in account.earnings.iter().enumerate() {
                if earning.fate == Fate::Acknowledged {
                    of += 1;
                    if !data(player).earned.contains(number(step)) {
                        violations.push(format!(
                            "player {player}: earning {step} of {} coins was acknowledged and is \
                                missing",
                            earning.amount
                        ));
                    }
                }
            }
        }
        Check::counted("acknowledged earnings present", of, violations)
    }

    /// Steps in the data that were refused or never ordered.
    fn judge_foreign(&self, found: &[Option<PlayerData>]) -> Check {
        let (mut of, mut violations) = (0, Vec::new());
        for (player, data) in present(found) {
            let account = &self.accounts[player];
            for step in data.earned.iter() {
                of += 1;
                match account.earnings.get(step as usize).map(|earning| earning.fate) {
                    Some(Fate::Refused) => violations
                        .push(format!("player {player}: earning {step} was refused and is there")),
                    None => violations.push(format!(
                        "player {player}: earning {step} was never ordered and is there"
                    )),
                    Some(_) => {}
                }
            }
            for (to, numbers) in &data.debited {
                for number in numbers.iter() {
                    of += 1;
                    match account
                        .sendings
                        .get(to)
                        .and_then(|list| list.get(number as usize))
                        .map(|sending| sending.debit)
                    {
                        Some(Fate::Refused) => violations.push(format!(
                            "player {player}: transfer {number} to {to} was refused and is there"
                        )),
                        None => violations.push(format!(
                            "player {player}: transfer {number} to {to} \
                                was never ordered and is there"
                        )),
                        Some(_) => {}
                    }
                }
            }
        }
        Check::counted("steps found that were ordered", of, violations)
    }

    fn judge_debits<'a>(&self, data: &impl Fn(usize) -> &'a PlayerData) -> Check {
        let (mut of, mut violations) = (0, Vec::new());
        self.each_sending(|from, to, number, sending| {
            if sending.debit == Fate::Acknowledged {
                of += 1;
                if !data(from).debited.get(&to).is_some_and(|numbers| numbers.contains(number)) {
                    violations.push(format!(
                        "player {from}: the debit of transfer {number} to {to} was \
                            acknowledged and is missing"
                    ));
                }
            }
        });
        Check::counted("acknowledged debits present", of, violations)
    }

    /// Stored messages arrived, and no coins left one profile without coming to the other, or the
    /// other way about.
    fn judge_messages<'a>(&self, data: &impl Fn(usize) -> &'a PlayerData) -> [Check; 2] {
        let (mut of, mut missing) = (0, Vec::new());
        let (mut both, mut unequal) = (0, Vec::new());
        self.each_sending(|from, to, number, sending| {
            let credited = data(to as usize)
                .credited
                .get(&number_of(from))
                .is_some_and(|numbers| numbers.contains(number));
            let debited =
                data(from).debited.get(&to).is_some_and(|numbers| numbers.contains(number));
            if sending.stored {
                of += 1;
                if !credited {
                    missing.push(format!(
                        "player {to}: message {number} from {from} was \
                        acknowledged and never arrived"
                    ));
                }
            }
            both += u64::from(debited || credited);
            match (debited, credited) {
                (true, false) => unequal.push(format!(
                    "transfer {number} of {} coins left player {from} and did not reach {to}",
                    sending.amount
                )),
                (false, true) => unequal.push(format!(
                    "transfer {number} of {} coins reached player {to} and never left {from}",
                    sending.amount
                )),
                _ => {}
            }
        });
        [
            Check::counted("acknowledged messages arrived", of, missing),
            Check::counted("transfers debited and credited", both, unequal),
        ]
    }

    /// Each profile's coins are what its own steps make.
    fn judge_own_sums(&self, found: &[Option<PlayerData>]) -> Check {
        let (mut of, mut violations) = (0, Vec::new());
        for (player, data) in present(found) {
            of += 1;
            let earned: i64 =
                data.earned.iter().map(|step| i64::from(self.earning(player, step))).sum();
            let sums = |by: &BTreeMap<u32, super::data::Numbers>,
                        amount: &dyn Fn(u32, u32) -> u32|
             -> i64 {
                by.iter()
                    .flat_map(|(other, numbers)| {
                        numbers.iter().map(|n| i64::from(amount(*other, n)))
                    })
                    .sum()
            };
            let received =
                sums(&data.credited, &|from, n| self.amount(from as usize, number_of(player), n));
            let sent = sums(&data.debited, &|to, n| self.amount(player, to, n));
            let edits: BTreeSet<u32> = data.edited.iter().copied().collect();
            let given: i64 = edits.iter().map(|edit| i64::from(self.edits.amount(*edit))).sum();
            if earned + received + given - sent != data.coins {
                violations.push(format!(
                    "player {player}: {} coins, but earned {earned}, received {received}, was \
                        given {given} and sent {sent}",
                    data.coins
                ));
            }
        }
        Check::counted("players whose coins add up", of, violations)
    }

    /// All coins lie between what was acknowledged and what was ordered: transfers keep the sum.
    fn judge_total(&self, found: &[Option<PlayerData>]) -> Check {
        let (mut least, mut most) = self.edits.bounds(self.accounts.len());
        for earning in self.accounts.iter().flat_map(|account| &account.earnings) {
            let amount = i64::from(earning.amount);
            least += if earning.fate == Fate::Acknowledged { amount } else { 0 };
            most += if earning.fate == Fate::Refused { 0 } else { amount };
        }
        let coins: i64 = present(found).map(|(_, data)| data.coins).sum();
        let ledger = if least == most { least.to_string() } else { format!("{least}..{most}") };
        let fits = (least..=most).contains(&coins);
        let violations = if fits {
            Vec::new()
        } else {
            vec![format!("{coins} coins in all, the ledger says {ledger}")]
        };
        Check { name: "coins in all", found: format!("{coins} (ledger {ledger})"), violations }
    }

    /// Every item is in exactly one place, and no acknowledged move of it was undone. Nothing is on
    /// the way any more.
    fn judge_items(&self, found: &[Option<PlayerData>]) -> [Check; 2] {
        let mut places: BTreeMap<u32, Vec<(usize, u32)>> = BTreeMap::new();
        for (player, data) in present(found) {
            for (item, moves) in &data.items {
                places.entry(*item).or_default().push((player, *moves));
            }
        }
        let (mut misplaced, mut undone) = (Vec::new(), Vec::new());
        for (item, known) in self.moves.iter().enumerate() {
            let owners = places.remove(&number(item)).unwrap_or_default();
            match owners.as_slice() {
                [] => misplaced.push(format!("item {item} is gone")),
                [(player, moves)] if moves < known => undone.push(format!(
                    "player {player}: item {item} has moved {moves} times, \
                        acknowledged were {known}"
                )),
                [_] => {}
                several => misplaced
                    .push(format!("item {item} is in {} places: {several:?}", several.len())),
            }
        }
        misplaced.extend(places.keys().map(|item| format!("item {item} was never there")));
        let of = self.moves.len() as u64;
        let moved = self.moves.iter().filter(|moves| **moves > 0).count() as u64;
        [
            Check::counted("items exactly once", of, misplaced),
            Check::counted("acknowledged moves of items kept", moved, undone),
        ]
    }

    fn earning(&self, player: usize, step: u32) -> u32 {
        self.accounts[player].earnings.get(step as usize).map_or(0, |earning| earning.amount)
    }

    fn amount(&self, from: usize, to: u32, number: u32) -> u32 {
        let sendings = self.accounts.get(from).and_then(|account| account.sendings.get(&to));
        sendings.and_then(|list| list.get(number as usize)).map_or(0, |sending| sending.amount)
    }

    fn each_sending(&self, mut look: impl FnMut(usize, u32, u32, &Sending)) {
        for (from, account) in self.accounts.iter().enumerate() {
            for (to, sendings) in &account.sendings {
                for (at, sending) in sendings.iter().enumerate() {
                    look(from, *to, number(at), sending);
                }
            }
        }
    }
}

/// Nothing was applied twice.
fn judge_doubled(found: &[Option<PlayerData>]) -> Check {
    let (mut of, mut violations) = (0, Vec::new());
    for (player, data) in present(found) {
        of += 1;
        violations.extend(
            data.doubled.iter().map(|step| format!("player {player}: {step} was applied twice")),
        );
        let mut seen = BTreeSet::new();
        let edits = data.edited.iter().filter(|edit| !seen.insert(**edit));
        violations.extend(edits.map(|edit| format!("player {player}: edit {edit} was made twice")));
    }
    Check::counted("players with no step twice", of, violations)
}

fn present(found: &[Option<PlayerData>]) -> impl Iterator<Item = (usize, &PlayerData)> {
    found.iter().enumerate().filter_map(|(player, data)| Some((player, data.as_ref()?)))
}

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn number_of(player: usize) -> u32 {
    number(player)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
