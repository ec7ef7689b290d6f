//! Edits that stand, and profiles that are removed or erased.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_edit_that_waits_for_a_removed_profile_is_left_to_the_session() {
    let world = World::new();
    let (game_way, operator_way) = (world.another_way(), world.another_way());
    let game = world.server_on("game", game_way.clone()).await;
    let operator = world.server_on("operator", operator_way.clone()).await;
    let held = open(&game, "held").await;
    operator_way.plan().delay_reads(20);
    let edit = standing(&world, more_coins(1000));
    let removing = async {
        // The operator has seen it held, and has not sent the edit yet.
        tokio::time::sleep(Duration::from_millis(50)).await;
        players(&game).remove("held").await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        let (_, state) = world.store.read_one(&key("held"), Returning::INBOX).await.unwrap();
        assert_eq!(
            (state.exists(), state.inbox.unwrap().len()),
            (false, 1),
            "the edit came after the removal"
        );
        open(&game, "held").await
    };
    let (report, again) = tokio::join!(run(&operator, &edit), removing);
    assert!(!held.is_active());
    assert_eq!(report.unwrap().done, 1);
    assert_eq!(again.data().coins, 1000);
    again.end_session().await.unwrap();
    assert_eq!(coins(&operator, "held").await, 1000);
}

/// An erasure takes a waiting edit away with its profile, and may settle its entry only afterwards:
/// the profile that came in between got none.
#[tokio::test(start_paused = true)]
async fn an_edit_that_was_erased_with_its_profile_is_for_the_next_one() {
    let world = World::new();
    let (game, operator) = (world.server("game").await, world.server("operator").await);
    open(&game, "p").await;
    game.crash();
    let mut edit = standing(&world, more_coins(1000));
    edit.patience = Duration::ZERO;
    assert_eq!(run(&operator, &edit).await.unwrap().waiting.len(), 1);
    // What an erasure commits that had looked before the edit came.
    let (_, state) = world.store.read_one(&key("p"), Returning::INBOX).await.unwrap();
    assert_eq!(state.inbox.as_ref().unwrap().len(), 1, "it waits");
    let lease = LeaseState { holder: None, ..state.lease.clone() };
    let changes = vec![
        write(&state, NewValue::Tombstone, "ann"),
        Change::Lease {
            key: key("p"),
            revision: state.lease_revision,
            lease,
            raise_epoch: true,
            seal: false,
        },
        Change::Erase { key: key("p"), epoch: state.epoch },
    ];
    commit(&world, changes).await;
    assert_eq!(log(&world, "p").await[0].outcome, AuditOutcome::Pending);

    let again = open(&operator, "p").await;
    assert_eq!(again.data().coins, 1000);
    assert_eq!(log(&world, "p").await[0].outcome, AuditOutcome::Done);
    again.end_session().await.unwrap();
    let resumed = BulkEdit::resume(&world.store, edit.operation()).await.unwrap();
    assert_eq!(run(&operator, &resumed).await.unwrap().waiting, []);
    assert_eq!(coins(&operator, "p").await, 1000);
}

/// A profile that comes back during its erasure has the standing edit booked anew, over what the
/// log held of its earlier life.
#[tokio::test(start_paused = true)]
async fn an_erasure_forgets_what_a_later_life_of_the_profile_covers_in_the_log() {
    let world = World::new();
    let operator_way = world.another_way();
    let game = world.server("game").await;
    let operator = world.server_on("operator", operator_way.clone()).await;
    let edit = standing(&world, more_coins(1000));
    run(&operator, &edit).await.unwrap();
    let first = open(&game, "p").await;
    first.add_user_id(7).unwrap();
    first.end_session().await.unwrap();
    // What is overwritten in a later hour is kept.
    tokio::time::sleep(Duration::from_secs(7200)).await;
    operator_way.plan().delay_reads(20);
    let ann = operator.operator(Attribution::new("ann"));
    let coming_back = async {
        while world.store.read_one(&key("p"), Returning::HEAD).await.unwrap().1.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        open(&game, "p").await
    };
    let (report, again) = tokio::join!(ann.erase_user(7, false), coming_back);
    assert_eq!(
        (report.unwrap().audit_entries, again.data().coins),
        (0, 1000),
        "the newer entry stays as it is"
    );
    assert!(
        log(&world, "p")
            .await
            .iter()
            .any(|entry| entry.action == "edit" && entry.details.contains_key("new"))
    );
    let all = KeyQuery {
        store: Some(RESERVED_STORE.into()),
        scope: None,
        filter: KeyFilter::All,
        after: None,
        limit: 100,
    };
    for entry in world.store.keys(&all).await.unwrap() {
        let (from_ms, to_ms, after) = (None, None, None);
        let query = VersionQuery {
            key: entry.key,
            order: Order::Ascending,
            from_ms,
            to_ms,
            after,
            limit: 10,
        };
        assert_eq!(world.store.versions(&query).await.unwrap().len(), 1, "{query:?}");
    }
}
