//! A profile is stolen, or written by another program, at the wrong moment.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_steal_that_looked_before_its_victim_saved_goes_on_with_what_was_saved() {
    let world = World::new();
    let slow = world.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", slow.clone()).await);
    let profile = open(&a, "p").await;
    slow.plan().delay_reads(100);
    let stealing = tokio::spawn(players(&b).start_session_with("p", StartOptions::new().steal()));
    settle().await;
    earn(&profile, 7);
    profile.save().await.unwrap();
    let stolen = stealing.await.unwrap().unwrap();
    assert_eq!(stolen.data().coins, 7);
    earn(&stolen, 1);
    stolen.end_session().await.unwrap();
    assert_eq!(coins(&a, "p").await, 8);
}

#[tokio::test(start_paused = true)]
async fn a_save_that_lands_between_a_thiefs_look_and_its_take_is_not_undone() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", own_way.clone()).await);
    let profile = open(&a, "p").await;
    own_way.plan().fail(Fault::RequestLost, 1);
    let thief = tokio::spawn(players(&b).start_session_with("p", StartOptions::new().steal()));
    settle().await;
    earn(&profile, 7);
    profile.save().await.unwrap();
    let thief = thief.await.unwrap().unwrap();
    assert_eq!(thief.data().coins, 7);
    thief.end_session().await.unwrap();
    assert_eq!(coins(&a, "p").await, 7);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_learns_late_that_it_succeeded_does_not_take_a_thiefs_epoch_for_its_own() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    own_way.plan().fail(Fault::AnswerLost, 1);
    let late = tokio::spawn(players(&a).start_session("p"));
    settle().await;
    let thief = players(&b).start_session_with("p", StartOptions::new().steal()).await.unwrap();
    earn(&thief, 7);
    thief.save().await.unwrap();
    // It looks again, asks the thief, and gets what that one has.
    let late = late.await.unwrap().unwrap();
    assert!(thief.is_over());
    assert_eq!(late.data().coins, 7);
    earn(&late, 1);
    late.end_session().await.unwrap();
    assert_eq!(coins(&b, "p").await, 8);
}

/// An import writes the versions of a key one after the other, under one epoch and lease.
#[tokio::test(start_paused = true)]
async fn a_start_that_finds_something_else_behind_its_take_does_not_wait_for_itself() {
    let world = World::new();
    let detour = Detour::new(world.store.clone());
    let (a, b) = (world.server_on("a", detour.clone()).await, world.server("b").await);
    open(&b, "p").await.end_session().await.unwrap();
    let key = players(&a).key("p").unwrap();
    let (_, state) = world.store.read_one(&key, Returning::HEAD).await.unwrap();
    let write = Change::Write {
        key: key.clone(),
        epoch: state.epoch,
        version: state.version,
        value: NewValue::Bytes(b"\x01\x09{}".to_vec().into()),
        user_ids: vec![],
        cause: Cause::Import,
        author: "import".into(),
        keep_previous: true,
        seal: true,
        imported: None,
    };
    let incarnation = world.store.identity().await.unwrap().incarnation;
    let id = CommitId(world.env.uuid());
    detour.slip_in(Commit {
        id,
        incarnation,
        from: None,
        changes: vec![write],
        returning: Returning::HEAD,
        fingerprint: None,
    });
    let start = tokio::time::timeout(Duration::from_secs(60), players(&a).start_session("p"));
    assert_eq!(start.await.expect("it ends").unwrap_err().kind(), ErrorKind::Foreign);
    let read = tokio::time::timeout(Duration::from_secs(10), players(&a).get("p"));
    assert_eq!(read.await.expect("the key can be used").unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(
        world.store.read_one(&key, Returning::HEAD).await.unwrap().1.lease.holder,
        None,
        "no lock is left"
    );
}

/// Found by the simulation (seed 1733): for as long as it read who had taken the profile, it said
/// that it was active.
#[tokio::test(start_paused = true)]
async fn an_adoption_whose_answer_comes_after_a_removal_does_not_make_the_session_active_again() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let profile = open(&a, "p").await;
    let (_, rows) = world.store.servers().await.unwrap();
    let row = rows.iter().find(|row| row.job_id == "a").unwrap();
    let incarnation = world.store.identity().await.unwrap().incarnation;
    let dead = Commit {
        id: CommitId(world.env.uuid()),
        incarnation,
        from: None,
        changes: vec![Change::MarkDead { id: row.id, revision: row.revision }],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    world.store.commit_one(dead).await.unwrap();
    // The next renewal is refused and the server registers anew; the adoption is the commit after.
    own_way.plan().spare(1);
    own_way.plan().fail(Fault::AnswerLost, 1);
    let key = players(&a).key("p").unwrap();
    let adopted = async {
        loop {
            let (_, state) = world.store.read_one(&key, Returning::HEAD).await.unwrap();
            if state.lease.holder.is_some_and(|holder| holder.server != Some(row.id)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), adopted).await.expect("it adopts the session");
    own_way.plan().delay_reads(1_000);
    assert!(!profile.is_active() && !profile.is_over());
    players(&b).remove("p").await.unwrap();
    let began = tokio::time::Instant::now();
    while !profile.is_over() {
        assert!(!profile.is_active(), "{:?} after the removal", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
