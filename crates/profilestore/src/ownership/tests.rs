//! The rules by their decisions, and the property that no sequence of events gives two writers.

use proptest::prelude::*;
use uuid::Uuid;

use super::{
    death::millis,
    lease::{asked, released, taken, withdrawn},
    *,
};
use crate::{
    data_store::{KeyState, Offer, RequestId, ServerId, ServerRow},
    key::ProfileKey,
};

const PERIODS: Periods = Periods {
    session_steal: Duration::from_secs(40),
    max_gap: Duration::from_secs(10),
    assume_dead: Duration::from_secs(630),
    offer_time: Duration::from_secs(10),
};
const NOW: i64 = 1_000_000_000;
const LONG: Option<Duration> = Some(Duration::from_secs(3600));

fn state() -> KeyState {
    KeyState::absent(ProfileKey::new("s", "g", "k").unwrap())
}

fn server(n: u128) -> ServerId {
    ServerId(Uuid::from_u128(n))
}

fn asker(n: u128) -> Asker {
    Asker {
        server: server(n),
        place_id: 1,
        job_id: format!("job{n}"),
        session: format!("session{n}"),
        request: RequestId(Uuid::from_u128(n)),
        asked_for: None,
        steal: false,
    }
}

fn row(n: u128, renewed_ago: i64) -> ServerRow {
    ServerRow {
        id: server(n),
        place_id: 1,
        job_id: format!("job{n}"),
        revision: 7,
        lease_ms: 20_000,
        started_ms: 0,
        renewed_ms: NOW - renewed_ago,
        dead: false,
        host: None,
        generation: 0,
        owner: None,
    }
}

/// Held by server 1, whose row was renewed so long ago.
fn held_by_1(renewed_ago: i64) -> KeyState {
    let mut state = state();
    state.lease = taken(&state.lease, Take::Free, &asker(1), NOW - 60_000);
    state.holder_server = Some(row(1, renewed_ago));
    state
}

#[test]
fn a_start_that_has_asked_looks_again_when_the_holder_may_be_dead() {
    let wait = |state| patience(state, NOW, LONG, asker(2), &PERIODS);
    assert_eq!(wait(held_by_1(19_000)), Duration::from_millis(1501));
    assert_eq!(wait(held_by_1(0)), Duration::from_millis(20_501));
    let mut offered = state();
    offered.lease.offer =
        Some(Offer { to: RequestId(Uuid::from_u128(9)), server: server(9), at_ms: NOW - 4000 });
    assert_eq!(wait(offered), Duration::from_secs(6));
}

fn decide(state: &KeyState, asker: &Asker, contact: Option<Duration>) -> Start {
    start(state, NOW, contact, asker, &PERIODS)
}

#[test]
fn a_free_profile_is_taken_and_the_load_counted() {
    let state = state();
    assert_eq!(decide(&state, &asker(2), None), Start::Take(Take::Free));
    let lease = taken(&state.lease, Take::Free, &asker(2), NOW);
    assert_eq!((lease.load_count, lease.holder.unwrap().server), (1, Some(server(2))));
}

#[test]
fn a_live_holder_is_asked_then_waited_for_and_stolen_from_in_the_end() {
    let mut state = held_by_1(1000);
    let mut b = asker(2);
    assert_eq!(decide(&state, &b, LONG), Start::Ask);
    state.lease = asked(&state.lease, &b, NOW);
    b.asked_for = Some(Duration::from_secs(5));
    assert_eq!(decide(&state, &b, LONG), Start::Wait(Duration::from_millis(19_501)));
    b.asked_for = Some(Duration::from_secs(40));
    assert_eq!(decide(&state, &b, LONG), Start::Take(Take::Stolen));
}

/// A start that had asked before an outage took the profile at its first look afterwards, before
/// the holder could answer.
#[test]
fn an_outage_does_not_count_as_a_holder_that_does_not_answer() {
    let mut state = held_by_1(1000);
    let mut b = asker(2);
    state.lease = asked(&state.lease, &b, NOW - 60_000);
    b.asked_for = Some(Duration::from_secs(60));
    let wait = |seconds| Start::Wait(Duration::from_secs(seconds));
    assert_eq!(decide(&state, &b, Some(Duration::from_secs(30))), wait(10));
    assert_eq!(decide(&state, &b, Some(Duration::from_secs(39))), wait(1));
    let back = decide(&state, &b, None);
    assert!(matches!(back, Start::Wait(left) if left > Duration::from_secs(15)), "{back:?}");
    assert_eq!(decide(&state, &b, Some(Duration::from_secs(40))), Start::Take(Take::Stolen));
}

/// An outage that is too short to be noticed by an observer of a long lease time.
#[test]
fn an_observer_of_a_longer_lease_time_waits_for_as_much_more_as_it_may_not_notice() {
    let periods = Periods { max_gap: Duration::from_secs(60), ..PERIODS };
    let taken = |state: &KeyState, asker: &Asker| {
        matches!(start(state, NOW, LONG, asker, &periods), Start::Take(_))
    };
    assert!(!taken(&held_by_1(50_000), &asker(2)) && taken(&held_by_1(70_501), &asker(2)));
    let mut state = held_by_1(1000);
    let mut b = asker(2);
    state.lease = asked(&state.lease, &b, NOW);
    b.asked_for = Some(Duration::from_secs(89));
    assert!(!taken(&state, &b));
    b.asked_for = Some(Duration::from_secs(90));
    assert!(taken(&state, &b));
}

#[test]
fn an_old_row_is_dead_only_for_an_observer_who_was_there_all_the_time() {
    let state = held_by_1(20_501);
    assert_eq!(decide(&state, &asker(2), LONG), Start::Take(Take::Dead));
    assert_eq!(
        decide(&state, &asker(2), Some(Duration::from_millis(20_500))),
        Start::Take(Take::Dead)
    );
    assert_eq!(decide(&state, &asker(2), Some(Duration::from_secs(20))), Start::Ask);
    assert_eq!(decide(&state, &asker(2), None), Start::Ask);
    assert_eq!(decide(&held_by_1(20_500), &asker(2), LONG), Start::Ask);
}

#[test]
fn a_row_from_the_future_is_judged_by_how_far_off_it_is() {
    // The store's clock stepped back an hour after the last renewal: a living server would have
    // renewed since.
    assert_eq!(decide(&held_by_1(-3_600_000), &asker(2), LONG), Start::Take(Take::Dead));
    assert_eq!(decide(&held_by_1(-3_600_000), &asker(2), Some(Duration::from_secs(3))), Start::Ask);
}

#[test]
fn a_row_declared_dead_or_swept_is_dead_at_once() {
    let mut state = held_by_1(0);
    state.holder_server.as_mut().unwrap().dead = true;
    assert_eq!(decide(&state, &asker(2), None), Start::Take(Take::Dead));
    state.holder_server = None;
    assert_eq!(decide(&state, &asker(2), None), Start::Take(Take::Dead));
}

#[test]
fn an_imported_session_follows_its_last_update_or_the_steps_of_asking() {
    let mut state = held_by_1(0);
    state.holder_server = None;
    let holder = state.lease.holder.as_mut().unwrap();
    holder.server = None;
    holder.last_update_ms = Some(NOW - 630_000);
    assert_eq!(decide(&state, &asker(2), None), Start::Take(Take::Dead));
    state.lease.holder.as_mut().unwrap().last_update_ms = Some(NOW - 629_000);
    assert_eq!(decide(&state, &asker(2), LONG), Start::Ask);
    state.lease.holder.as_mut().unwrap().last_update_ms = None;
    assert_eq!(decide(&state, &asker(2), LONG), Start::Ask);
    let mut b = asker(2);
    state.lease = asked(&state.lease, &b, NOW);
    b.asked_for = Some(Duration::from_secs(39));
    assert_eq!(decide(&state, &b, LONG), Start::Wait(Duration::from_secs(1)));
    b.asked_for = Some(Duration::from_secs(40));
    assert_eq!(decide(&state, &b, LONG), Start::Take(Take::Stolen));
}

#[test]
fn the_newest_request_wins() {
    let mut state = held_by_1(1000);
    let (mut b, mut c) = (asker(2), asker(3));
    state.lease = asked(&state.lease, &b, NOW);
    assert_eq!(decide(&state, &c, LONG), Start::Ask);
    state.lease = asked(&state.lease, &c, NOW);
    b.asked_for = Some(Duration::ZERO);
    c.asked_for = Some(Duration::ZERO);
    assert_eq!(decide(&state, &b, LONG), Start::TakenElsewhere);
    assert!(matches!(decide(&state, &c, LONG), Start::Wait(_)));
}

#[test]
fn an_offer_is_kept_for_the_one_who_asked_until_it_expires() {
    let mut state = held_by_1(1000);
    let (b, c) = (asker(2), asker(3));
    state.lease = released(&asked(&state.lease, &b, NOW), NOW);
    assert_eq!(decide(&state, &b, LONG), Start::Take(Take::Offered));
    assert_eq!(decide(&state, &c, LONG), Start::Ask);
    assert_eq!(start(&state, NOW + 10_000, LONG, &c, &PERIODS), Start::Take(Take::Free));
    // A server that asks meanwhile gets it from the one it was offered to.
    state.lease = asked(&state.lease, &c, NOW);
    let after = taken(&state.lease, Take::Offered, &b, NOW);
    assert_eq!(after.request.map(|r| r.id), Some(c.request));
}

#[test]
fn a_withdrawn_request_leaves_no_trace() {
    let state = held_by_1(1000);
    let b = asker(2);
    let with = asked(&state.lease, &b, NOW);
    assert_eq!(withdrawn(&with, b.request), Some(state.lease.clone()));
    assert_eq!(withdrawn(&state.lease, b.request), None);
    let offered = released(&with, NOW);
    assert_eq!(withdrawn(&offered, b.request).unwrap().offer, None);
}

#[test]
fn a_thief_does_not_ask() {
    let mut b = asker(2);
    b.steal = true;
    assert_eq!(decide(&held_by_1(0), &b, None), Start::Take(Take::Stolen));
}

/// What a server in the model does next.
#[derive(Debug, Clone)]
enum Event {
    /// Reads the store.
    Look(usize),
    /// Commits what it decided on what it read last, however long ago that was.
    Act(usize),
    /// Writes data under the epoch it believes in.
    Write(usize),
    /// Ends its session, offering the profile to the server that asked by what it read last.
    End(usize),
    /// Goes away; its row grows old.
    Crash(usize),
    /// Time passes.
    Wait(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..3usize).prop_map(Event::Look),
        4 => (0..3usize).prop_map(Event::Act),
        3 => (0..3usize).prop_map(Event::Write),
        1 => (0..3usize).prop_map(Event::End),
        1 => (0..3usize).prop_map(Event::Crash),
        3 => (0..30_000u16).prop_map(Event::Wait),
    ]
}

#[derive(Default, Clone)]
struct Player {
    read: Option<(KeyState, i64)>,
    asked_at: Option<i64>,
    /// The epoch of its session.
    session: Option<u64>,
    renewed_ms: i64,
    crashed: bool,
}

proptest! {
    /// Servers act on what they read however long ago; a store that checks epoch and lease revision
    /// is all that stands between them. Then every epoch has one owner, and the writer is the
    /// owner of the current one.
    #[test]
    fn no_sequence_of_events_gives_two_writers(events in prop::collection::vec(event(), 1..200)) {
        let mut store = state();
        let mut now = NOW;
        let mut players = vec![Player { renewed_ms: NOW, ..Player::default() }; 3];
        let mut owners: std::collections::BTreeMap<u64, usize> = std::collections::BTreeMap::new();
        for event in events {
            match event {
                Event::Wait(ms) => {
                    now += i64::from(ms);
                    for player in players.iter_mut().filter(|p| !p.crashed) {
                        player.renewed_ms = now;
                    }
                }
                Event::Crash(i) => players[i] = Player { crashed: true, renewed_ms: players[i].renewed_ms, ..Player::default() },
                Event::Look(i) => {
                    let mut seen = store.clone();
                    let holder = seen.lease.holder.as_ref().and_then(|h| h.server);
                    seen.holder_server = holder.map(|id| {
                        let of = usize::try_from(id.0.as_u128()).unwrap();
                        ServerRow { renewed_ms: players[of].renewed_ms, ..row(id.0.as_u128(), 0) }
                    });
                    players[i].crashed = false;
                    players[i].read = Some((seen, now));
                }
                Event::Act(i) => {
                    let Some((seen, at)) = players[i].read.clone() else { continue };
                    if players[i].session.is_some() { continue }
                    let mut me = asker(i as u128);
                    me.asked_for = players[i].asked_at.map(|asked| millis(now - asked));
                    let decision = start(&seen, at, LONG, &me, &PERIODS);
                    let lease = match &decision {
                        Start::Take(how) => taken(&seen.lease, *how, &me, now),
                        Start::Ask => asked(&seen.lease, &me, now),
                        Start::Wait(_) | Start::TakenElsewhere => continue,
                    };
                    if seen.lease_revision == store.lease_revision {
                        store.lease = lease;
                        store.lease_revision += 1;
                        if matches!(decision, Start::Take(_)) {
                            store.epoch += 1;
                            prop_assert!(owners.insert(store.epoch, i).is_none());
                            players[i].session = Some(store.epoch);
                            players[i].asked_at = None;
                        } else {
                            players[i].asked_at = Some(now);
                        }
                    }
                }
                Event::Write(i) => {
                    let Some(epoch) = players[i].session else { continue };
                    if epoch == store.epoch {
                        prop_assert_eq!(owners[&store.epoch], i);
                        prop_assert_eq!(held(&store, epoch, None) != Held::Lost, true);
                        store.version += 1;
                    } else {
                        prop_assert_eq!(held(&store, epoch, None), Held::Lost);
                        players[i].session = None;
                    }
                }
                Event::End(i) => {
                    let (Some(epoch), Some((seen, _))) = (players[i].session, players[i].read.clone()) else { continue };
                    if epoch == store.epoch && seen.lease_revision == store.lease_revision {
                        store.lease = released(&seen.lease, now);
                        store.lease_revision += 1;
                        players[i].session = None;
                    }
                }
            }
        }
    }
}
