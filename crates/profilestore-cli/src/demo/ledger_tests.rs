//! Every kind of violation is found, and what is merely unknown is not called one.

use super::*;
use crate::demo::data::Transfer;

/// Two players. Player 0 earned 50 (acknowledged) and 7 (unknown), and sent 20 to player 1, who has
/// them.
fn world() -> (Ledger, Vec<Option<PlayerData>>) {
    let mut ledger = Ledger::new(2);
    let mut data = vec![PlayerData::default(), PlayerData::default()];
    data.iter_mut().zip(0..).for_each(|(data, player)| data.mint(player));
    let step = ledger.order_earning(0, 50);
    data[0].earn(step, 50);
    ledger.acknowledge_earnings(0, &[step]);
    ledger.order_earning(0, 7);
    let transfer = Transfer {
        from: 0,
        to: 1,
        number: ledger.order_sending(0, 1, 20),
        amount: 20,
        created_ms: 0,
    };
    assert!(data[0].debit(&transfer));
    ledger.acknowledge_debit(0, 1, transfer.number);
    ledger.acknowledge_message(0, 1, transfer.number);
    data[0].sent(&transfer);
    data[1].credit(&transfer);
    (ledger, data.into_iter().map(Some).collect())
}

/// A player at the beginning.
fn fresh(player: u32) -> PlayerData {
    let mut data = PlayerData::default();
    data.mint(player);
    data
}

fn failed(ledger: &Ledger, found: &[Option<PlayerData>]) -> Vec<&'static str> {
    ledger.judge(found).iter().filter(|check| !check.passed()).map(|check| check.name).collect()
}

fn transfer(number: u32) -> Transfer {
    Transfer { from: 0, to: 1, number, amount: 20, created_ms: 0 }
}

#[test]
fn a_clean_world_passes_with_and_without_the_unknown_step() {
    let (ledger, mut found) = world();
    assert_eq!(failed(&ledger, &found), [""; 0]);
    let total = ledger.judge(&found).pop().unwrap();
    assert_eq!(total.found, "50 (ledger 50..57)");
    found[0].as_mut().unwrap().earn(1, 7);
    assert_eq!(failed(&ledger, &found), [""; 0]);
}

#[test]
fn an_acknowledged_earning_that_is_missing() {
    let (mut ledger, found) = world();
    ledger.acknowledge_earnings(0, &[1]);
    assert_eq!(failed(&ledger, &found), ["acknowledged earnings present", "coins in all"]);
    let checks = ledger.judge(&found);
    assert_eq!(checks[0].found, "1/2");
    assert_eq!(
        checks[0].violations,
        ["player 0: earning 1 of 7 coins was acknowledged and is missing"]
    );
}

#[test]
fn an_older_copy_that_overwrote_a_newer_one() {
    let (ledger, mut found) = world();
    found[0] = Some(fresh(0));
    assert_eq!(
        failed(&ledger, &found),
        [
            "acknowledged earnings present",
            "acknowledged debits present",
            "transfers debited and credited",
            "coins in all"
        ]
    );
}

#[test]
fn an_earning_applied_twice() {
    let (ledger, mut found) = world();
    found[0].as_mut().unwrap().earn(0, 50);
    assert_eq!(
        failed(&ledger, &found),
        ["players with no step twice", "players whose coins add up", "coins in all"]
    );
}

#[test]
fn an_unknown_earning_applied_twice() {
    let (ledger, mut found) = world();
    let data = found[0].as_mut().unwrap();
    data.earn(1, 7);
    data.earn(1, 7);
    assert!(failed(&ledger, &found).contains(&"players with no step twice"));
}

#[test]
fn a_refused_step_that_is_there_and_one_that_nobody_ordered() {
    let (mut ledger, mut found) = world();
    found[0].as_mut().unwrap().earn(1, 7);
    ledger.refuse_earning(0, 1);
    assert_eq!(failed(&ledger, &found), ["steps found that were ordered", "coins in all"]);
    let (ledger, mut found) = world();
    found[1].as_mut().unwrap().earn(4, 1);
    assert!(failed(&ledger, &found).contains(&"steps found that were ordered"));
}

#[test]
fn a_message_handled_twice() {
    let (ledger, mut found) = world();
    found[1].as_mut().unwrap().credit(&transfer(0));
    assert_eq!(
        failed(&ledger, &found),
        ["players with no step twice", "players whose coins add up", "coins in all"]
    );
}

#[test]
fn a_message_that_never_arrived() {
    let (ledger, mut found) = world();
    found[1] = Some(fresh(1));
    assert_eq!(
        failed(&ledger, &found),
        ["acknowledged messages arrived", "transfers debited and credited", "coins in all"]
    );
}

#[test]
fn coins_that_left_unacknowledged_and_did_not_arrive() {
    let (mut ledger, mut found) = world();
    let number = ledger.order_sending(0, 1, 20);
    assert_eq!(failed(&ledger, &found), [""; 0]);
    assert!(found[0].as_mut().unwrap().debit(&transfer(number)));
    assert_eq!(failed(&ledger, &found), ["transfers debited and credited", "coins in all"]);
    found[1].as_mut().unwrap().credit(&transfer(number));
    assert_eq!(failed(&ledger, &found), [""; 0]);
}

#[test]
fn coins_out_of_nowhere() {
    let (ledger, mut found) = world();
    found[1].as_mut().unwrap().coins += 1;
    assert_eq!(failed(&ledger, &found), ["players whose coins add up"]);
    found[1].as_mut().unwrap().coins += 1000;
    assert_eq!(failed(&ledger, &found), ["players whose coins add up", "coins in all"]);
}

#[test]
fn an_edit_counts_once_and_one_made_twice_is_found() {
    let (mut ledger, mut found) = world();
    let edit = ledger.edits.order(uuid::Uuid::nil(), Some(1), BTreeSet::new(), 30, true);
    assert_eq!(ledger.judge(&found).pop().unwrap().found, "50 (ledger 50..87)");
    let data = found[1].as_mut().unwrap();
    (data.coins, data.edited) = (data.coins + 30, vec![edit.number]);
    ledger.edits.acknowledge(edit.number);
    assert_eq!(failed(&ledger, &found), [""; 0]);
    let data = found[1].as_mut().unwrap();
    (data.coins, data.edited) = (data.coins + 30, vec![edit.number; 2]);
    assert_eq!(
        failed(&ledger, &found),
        ["players with no step twice", "players whose coins add up", "coins in all"]
    );
}

#[test]
fn a_profile_that_cannot_be_read_is_missing_everything() {
    let (ledger, mut found) = world();
    found[0] = None;
    assert!(failed(&ledger, &found).contains(&"acknowledged earnings present"));
}

#[test]
fn an_item_that_is_gone_doubled_or_went_back() {
    let (ledger, mut found) = world();
    found[0].as_mut().unwrap().items.remove(&1);
    assert_eq!(failed(&ledger, &found), ["items exactly once"]);
    found[1].as_mut().unwrap().items.insert(1, 1);
    assert_eq!(failed(&ledger, &found), [""; 0], "another player has it");
    found[0].as_mut().unwrap().items.insert(1, 0);
    assert_eq!(failed(&ledger, &found), ["items exactly once"]);
    let (mut ledger, mut found) = world();
    ledger.acknowledge_moves(&[(1, 2)]);
    found[0].as_mut().unwrap().items.insert(1, 1);
    assert_eq!(failed(&ledger, &found), ["acknowledged moves of items kept"]);
    found[0].as_mut().unwrap().items.insert(1, 3);
    assert_eq!(failed(&ledger, &found), [""; 0]);
    found[0].as_mut().unwrap().items.insert(77, 0);
    assert_eq!(failed(&ledger, &found), ["items exactly once"]);
}
