//! Seeds that found a bug in the world as it is now, named after it. What a seed plays changes with
//! the world: older finds have scripted tests of their own beside the library (`docs/findings.md`
//! lists them).

use crate::world::{self, Size};

/// Found while clients waited for each of their calls.
const PATIENT: Size = Size { hasty: false, ..Size::SMALL };

#[track_caller]
fn keeps_its_promises(seed: u64, size: Size) {
    let outcome = world::run(seed, size, false);
    assert!(outcome.violation.is_none(), "seed {seed}: {:?}", outcome.violation);
}

/// p8 was erased with a standing edit in its inbox, and came back before the erasure had settled
/// the edit's entry.
#[test]
fn a_standing_edit_that_was_erased_with_its_profile() {
    keeps_its_promises(2439, PATIENT);
}

/// p14 was removed by a caller that had looked before an edit came: the operator was told that it
/// was not done, and the next p14 took it.
#[test]
fn an_edit_that_came_during_a_removal() {
    keeps_its_promises(1953, PATIENT);
}

/// An edit of all profiles arrived after its server had given up on the answer, and that server
/// itself held one of them by then.
#[test]
fn an_edit_that_arrived_late_at_a_profile_of_its_own_server() {
    keeps_its_promises(10579, PATIENT);
}

/// A backup was restored under a running holder of p14. In the backup another server had declared
/// that holder dead, so a third one took p14 before the holder's next renewal.
#[test]
fn a_holder_that_is_dead_in_a_restored_backup() {
    keeps_its_promises(1524, Size::SMALL);
}

/// Game servers in other processes, whose hosts die, are stopped, are cut off from the store, and
/// take over from each other (`--hosted`).
#[test]
fn hosted_game_servers_keep_their_sessions() {
    for seed in 0..6 {
        keeps_its_promises(seed, Size { minutes: 5, hosted: true, ..Size::SMALL });
    }
}
