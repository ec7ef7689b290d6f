//! Operators' edits of profiles that game servers elsewhere hold: each is told, applied there, and
//! settled by a save.

use profilestore::{Attribution, Edit, audit::AuditOutcome, hosting::EditDone};

use super::*;
use crate::world::{coins, players, settle};

fn ten_more() -> Edit {
    Edit::new().increase("/coins", serde_json::Number::from(10)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_edit_is_told_and_settled_by_the_save_that_has_it_and_can_be_undone() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    session.save(request(2), player(5)).await.unwrap();
    let desk = world.server("desk").await;
    let ann = desk.operator(Attribution::new("ann").because("ticket 17"));
    let editing = tokio::spawn(ann.edit(&key("p"), &ten_more()));
    let Event::Edit { operation, edit, by, .. } = server.next_event(room).await else { panic!() };
    assert_eq!((edit, by.reason.as_str()), (ten_more(), "ticket 17"));
    // Play first, then the edit alone.
    session.save(request(3), player(6)).await.unwrap();
    assert!(!editing.is_finished());
    let mut edited = player(16);
    edited.edits_done = vec![EditDone { operation, refused: None }];
    session.save(request(4), edited).await.unwrap();
    let entry = editing.await.unwrap().unwrap();
    assert_eq!((&entry.outcome, &entry.details["held_by"]), (&AuditOutcome::Done, &json!("a")));
    assert_eq!(entry.details["version"], 4);
    assert!(told(&server).is_empty());
    session.end(request(5), Some(player(20))).await.unwrap();
    let undo: Edit = serde_json::from_value(entry.details["undo"].clone()).unwrap();
    ann.edit(&key("p"), &undo).await.unwrap();
    assert_eq!(coins(&desk, "p").await, 10);
}

#[tokio::test(start_paused = true)]
async fn an_edit_is_refused_by_the_game_servers_own_program() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let desk = world.server("desk").await;
    let editing = tokio::spawn(desk.operator(Attribution::new("ann")).edit(&key("p"), &ten_more()));
    let Event::Edit { operation, .. } = server.next_event(room).await else { panic!() };
    let mut save = player(0);
    save.edits_done = vec![EditDone { operation, refused: Some("no such purse".into()) }];
    session.save(request(2), save).await.unwrap();
    let refused = editing.await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::EditRefused);
    assert!(refused.to_string().contains("no such purse"), "{refused}");
    assert_eq!(stored(&world, "p").await, (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_nobody_answered_waits_for_the_next_holder() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let desk = world.server("desk").await;
    let operator = desk.operator(Attribution::new("ann"));
    let operation = world.env.uuid();
    let editing = operator.edit_as(operation, &key("p"), &ten_more(), 2 * SECOND);
    assert_eq!(kind(editing.await), Some(ErrorKind::Unknown));
    let Event::Edit { .. } = server.next_event(room).await else { panic!() };
    session.end(request(2), Some(player(1))).await.unwrap();
    let profile = players(&desk).start_session("p").await.unwrap();
    assert_eq!(profile.read(|data| data.coins), 11);
}

#[tokio::test(start_paused = true)]
async fn an_edit_told_by_the_old_host_is_told_again_by_the_new_one_and_done_once() {
    let world = World::new();
    let (server, _old) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let desk = world.server("desk").await;
    let editing = tokio::spawn(desk.operator(Attribution::new("ann")).edit(&key("p"), &ten_more()));
    let Event::Edit { .. } = server.next_event(room).await else { panic!() };
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let same = adopted(&again, &session).await;
    let Event::Edit { operation, .. } = again.next_event(room).await else { panic!() };
    let mut edited = player(10);
    edited.edits_done = vec![EditDone { operation, refused: None }];
    same.save(request(2), edited.clone()).await.unwrap();
    assert_eq!(same.save(request(2), edited).await.unwrap(), None, "it was done before");
    assert_eq!(editing.await.unwrap().unwrap().outcome, AuditOutcome::Done);
    settle().await;
    assert_eq!(stored(&world, "p").await, (10, 2));
}
