//! An edit that meets a start, a hand-over or the death of the holder.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_start_that_read_the_profile_before_the_edit_does_not_go_on_with_what_it_read() {
    let world = World::new();
    saved(&world).await;
    let slow = world.another_way();
    let (a, b) = (world.server_on("a", slow.clone()).await, world.server("b").await);
    slow.plan().delay_reads(100);
    let starting = players(&a).start_session("p");
    let starting = tokio::spawn(starting);
    tokio::time::sleep(Duration::from_millis(50)).await;
    edit(&b, &more_coins(7)).await.unwrap();
    let profile = starting.await.unwrap().unwrap();
    assert_eq!(profile.data().coins, 12);
    earn(&profile, 1);
    profile.end_session().await.unwrap();
    assert_eq!(coins(&b, "p").await, 13);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_dies_between_effect_and_save_has_the_edit_applied_once() {
    let world = World::new();
    saved(&world).await;
    let way = world.another_way();
    let (a, b) = (world.server_on("a", way.clone()).await, world.server("b").await);
    let profile = open(&a, "p").await;
    let cut = way.clone();
    // The save's hook runs when the edit is in the data and not yet stored.
    profile.on_save(move |_| cut.plan().cut_off());
    let editing = tokio::spawn(b.operator(ann()).edit_as(
        world.env.uuid(),
        &key(),
        &more_coins(7),
        Duration::from_secs(60),
    ));
    settle().await;
    assert_eq!(profile.data().coins, 12, "the effect is there");
    a.crash();
    let entry = editing.await.unwrap().unwrap();
    assert_eq!(
        (entry.outcome, entry.details.get("held_by")),
        (AuditOutcome::Done, None),
        "applied directly once the holder is dead"
    );
    assert_eq!(coins(&b, "p").await, 12);
    let next = open(&b, "p").await;
    assert_eq!(next.data().coins, 12);
    assert_eq!(log(&world).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_edit_whose_holder_is_gone_is_applied_by_the_next_start_before_the_program_sees_the_data()
 {
    let world = World::new();
    saved(&world).await;
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    a.crash();
    let operation = world.env.uuid();
    let ask = |patience| {
        b.operator(ann()).edit_as(operation, &key(), &more_coins(7), Duration::from_secs(patience))
    };
    let error = ask(3).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Unknown && error.to_string().contains(&operation.to_string()),
        "{error}"
    );
    assert_eq!(log(&world).await[0].outcome, AuditOutcome::Pending);
    assert!(
        players(&b).get("p").await.unwrap().unwrap().waiting_messages().is_empty(),
        "it is no message of the game"
    );
    let next = open(&b, "p").await;
    assert_eq!(next.data().coins, 12);
    assert_eq!(ask(3).await.unwrap().outcome, AuditOutcome::Done);
    assert_eq!(coins(&b, "p").await, 12);
    drop(profile);
}

#[tokio::test(start_paused = true)]
async fn hand_overs_steals_and_ends_at_every_moment_leave_one_effect() {
    for delay in 0..40 {
        for what in ["hand over", "steal", "end"] {
            let world = World::new();
            saved(&world).await;
            let ways = [world.another_way(), world.another_way()];
            let (a, b) = (
                world.server_on("a", ways[0].clone()).await,
                world.server_on("b", ways[1].clone()).await,
            );
            let operator = world.server("operator").await;
            let profile = open(&a, "p").await;
            earn(&profile, 1);
            profile.save().await.unwrap();
            ways.iter().for_each(|way| way.plan().delay_reads(2));
            let editing = tokio::spawn(edit_for(operator.clone()));
            tokio::time::sleep(Duration::from_micros(250 * delay)).await;
            match what {
                "end" => profile.end_session().await.unwrap(),
                _ => {
                    let mut options = StartOptions::new();
                    options.steal = what == "steal";
                    let next = players(&b).start_session_with("p", options).await.unwrap();
                    editing_done(editing.await);
                    assert_eq!(next.data().coins, 13, "{what} {delay}");
                    next.end_session().await.unwrap();
                    assert_eq!(coins(&operator, "p").await, 13, "{what} {delay}");
                    assert_eq!(log(&world).await.len(), 1);
                    continue;
                }
            }
            editing_done(editing.await);
            assert_eq!(coins(&operator, "p").await, 13, "{what} {delay}");
            assert_eq!(log(&world).await.len(), 1);
        }
    }
}
