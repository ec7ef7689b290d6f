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

/// The notice of the theft found no session to hold back. When the take was answered at last, the
/// session believed a confirmation that was younger than the theft, until its first look.
#[tokio::test(start_paused = true)]
async fn a_theft_that_is_told_of_while_a_take_is_answered_holds_the_session_back() {
    let world = World::new();
    let detour = Detour::new(world.store.clone());
    let (a, b) = (world.server_on("a", detour.clone()).await, world.server("b").await);
    detour.answer_late(Duration::from_secs(60));
    let late = tokio::spawn(players(&a).start_session("p"));
    settle().await;
    // The profile is taken, and nobody says so yet. The renewals of the lease get through.
    let thief = players(&b).start_session_with("p", StartOptions::new().steal()).await.unwrap();
    detour.answer_late(Duration::from_secs(1));
    let late = late.await.unwrap().unwrap();
    assert!(!late.is_active() && !late.is_over());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(late.is_over() && thief.is_active());
}

/// And one that nothing happens to is active at once: the notice of the hand-over came before the
/// look on which its take was built.
#[tokio::test(start_paused = true)]
async fn a_session_whose_take_is_answered_late_is_active_at_once() {
    let world = World::new();
    let detour = Detour::new(world.store.clone());
    let (a, b) = (world.server_on("a", detour.clone()).await, world.server("b").await);
    let before = open(&b, "p").await;
    detour.answer_late(Duration::from_secs(15));
    let late = players(&a).start_session("p").await.unwrap();
    assert!(before.is_over() && late.is_active());
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

/// Declares a server's row dead, as another server does, and names it.
async fn declared_dead(world: &World, job_id: &str) -> ServerId {
    let (_, rows) = world.store.servers().await.unwrap();
    let row = rows.iter().find(|row| row.job_id == job_id).unwrap();
    let dead = Commit {
        id: CommitId(world.env.uuid()),
        incarnation: world.store.identity().await.unwrap().incarnation,
        from: None,
        changes: vec![Change::MarkDead { id: row.id, revision: row.revision }],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    world.store.commit_one(dead).await.unwrap();
    row.id
}

/// Waits until the profile is held by another incarnation than this one.
async fn adopted(world: &World, key: &ProfileKey, before: ServerId) {
    loop {
        let (_, state) = world.store.read_one(key, Returning::HEAD).await.unwrap();
        if state.lease.holder.is_some_and(|holder| holder.server != Some(before)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Found by the simulation (seed 1733): for as long as it read who had taken the profile, it said
/// that it was active.
#[tokio::test(start_paused = true)]
async fn an_adoption_whose_answer_comes_after_a_removal_does_not_make_the_session_active_again() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let profile = open(&a, "p").await;
    let dead = declared_dead(&world, "a").await;
    // The next renewal is refused and the server registers anew; the adoption is the commit after.
    own_way.plan().spare(1);
    own_way.plan().fail(Fault::AnswerLost, 1);
    let key = players(&a).key("p").unwrap();
    tokio::time::timeout(Duration::from_secs(20), adopted(&world, &key, dead))
        .await
        .expect("it adopts the session");
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

/// Found by the simulation (seeds 3410 and 5588): the answer of the adoption came seconds after a
/// renewal whose answer told of the operator.
#[tokio::test(start_paused = true)]
async fn an_adoption_that_is_answered_after_a_renewal_does_not_make_a_robbed_session_active() {
    let world = World::new();
    let detour = Detour::new(world.store.clone());
    let (a, b) = (world.server_on("a", detour.clone()).await, world.server("b").await);
    let profile = open(&a, "p").await;
    let dead = declared_dead(&world, "a").await;
    let key = players(&a).key("p").unwrap();
    detour.answer_late(Duration::from_secs(8));
    tokio::time::timeout(Duration::from_secs(20), adopted(&world, &key, dead))
        .await
        .expect("it adopts the session");
    assert!(!profile.is_active() && !profile.is_over());
    players(&b).remove("p").await.unwrap();
    let began = tokio::time::Instant::now();
    while !profile.is_over() {
        assert!(!profile.is_active(), "{:?} after the removal", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// And one that nothing happens to is active in the end, however slow the store is.
#[tokio::test(start_paused = true)]
async fn an_adoption_whose_answers_are_always_slower_than_renewals_is_believed_in_the_end() {
    let world = World::new();
    let detour = Detour::new(world.store.clone());
    let a = world.server_on("a", detour.clone()).await;
    let profile = open(&a, "p").await;
    declared_dead(&world, "a").await;
    detour.answer_late(Duration::from_secs(8));
    let believed = async {
        // Its server's row is dead, which it learns from its next renewal.
        while profile.is_active() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        while !profile.is_active() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), believed).await.expect("it is active again");
}

/// The start counted the outage as time in which the holder did not answer, and stole at its first
/// look afterwards. What the holder had not saved was lost.
#[tokio::test(start_paused = true)]
async fn a_start_that_asked_before_an_outage_steals_nothing_after_it() {
    let world = profilestore::testing::World::new();
    let (one, two) = (world.server("one").await, world.server("two").await);
    world.pass(Duration::from_secs(60)).await;
    let on_one = open(&one, "p").await;
    earn(&on_one, 10);
    // The holder does not hear of the start before the store is away for both.
    one.outage();
    let start = tokio::spawn(players(&two).start_session("p"));
    world.pass(Duration::from_secs(1)).await;
    two.outage();
    world.pass(Duration::from_secs(60)).await;
    two.heal();
    world.pass(Duration::from_secs(15)).await;
    one.heal();
    assert_eq!(start.await.unwrap().unwrap().data().coins, 10);
    assert!(on_one.is_over());
}

/// The session stayed held back, and was not active once the lease time was over, until another
/// notice came.
#[tokio::test(start_paused = true)]
async fn a_session_whose_look_failed_is_active_after_its_next_save() {
    let mut world = World::new();
    world.messenger = None;
    let detour = Detour::new(world.store.clone());
    let (a, b) = (world.server_on("a", detour.clone()).await, world.server("b").await);
    let profile = open(&a, "p").await;
    let offered = Arc::new(AtomicBool::new(false));
    let noted = offered.clone();
    profile.message_handler(move |_, _| noted.store(true, Ordering::SeqCst));
    players(&b).send_message("p", &json!({})).await.unwrap();
    // For the look that the next renewal brings about.
    detour.refuse_next(StoreError::Corrupt { reason: "on command".into() });
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!profile.is_active() && !offered.load(Ordering::SeqCst), "it could not look");
    profile.save().await.unwrap();
    assert!(profile.is_active() && offered.load(Ordering::SeqCst));
}

async fn holder_of(world: &World, key: &str) -> Option<String> {
    let key = ProfileKey::new("PlayerData", "global", key).unwrap();
    let (_, state) = world.store.read_one(&key, Returning::HEAD).await.unwrap();
    state.lease.holder.map(|holder| holder.job_id)
}

/// Its request, or its steal, was sent again until the store took it, long after its caller had
/// heard that it failed. What the holder had not saved was lost.
#[tokio::test(start_paused = true)]
async fn a_start_that_was_called_off_in_an_outage_ends_no_session_after_it() {
    for steal in [false, true] {
        let world = World::new();
        let own_way = world.another_way();
        let (a, b) = (world.server("a").await, world.server_on("b", own_way.clone()).await);
        let held = open(&a, "p").await;
        earn(&held, 7);
        // Renewals and reads get through.
        own_way.plan().fail(Fault::RequestLost, u64::MAX);
        let mut options = StartOptions::new().timeout(Duration::from_secs(5));
        options.steal = steal;
        let late = players(&b).start_session_with("p", options).await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut, "steal: {steal}");
        own_way.plan().heal();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(held.is_active(), "steal: {steal}");
        // The next start is not in the way of what was called off.
        assert_eq!(open(&b, "p").await.data().coins, 7, "steal: {steal}");
    }
}

/// The same for one whose future is dropped while the store gives no answer at all.
#[tokio::test(start_paused = true)]
async fn a_steal_that_is_dropped_on_its_way_to_a_slow_store_takes_nothing() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", own_way.clone()).await);
    let held = open(&a, "p").await;
    earn(&held, 7);
    // The look is answered after 1 s, and the steal would arrive half a second later.
    own_way.plan().slow(Duration::from_secs(1));
    let stealing = tokio::spawn(players(&b).start_session_with("p", StartOptions::new().steal()));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    stealing.abort();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(held.is_active());
    assert_eq!(holder_of(&world, "p").await.as_deref(), Some("a"));
}

/// The steal of the earlier start was carried out, though no start wanted it any more.
#[tokio::test(start_paused = true)]
async fn a_start_in_the_place_of_a_steal_that_was_not_carried_out_asks_the_holder() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", own_way.clone()).await);
    let held = open(&a, "p").await;
    earn(&held, 7);
    own_way.plan().fail(Fault::RequestLost, u64::MAX);
    let first = tokio::spawn(players(&b).start_session_with("p", StartOptions::new().steal()));
    settle().await;
    let second = tokio::spawn(players(&b).start_session("p"));
    assert_eq!(first.await.unwrap().unwrap_err().kind(), ErrorKind::Superseded);
    tokio::time::sleep(Duration::from_secs(10)).await;
    own_way.plan().heal();
    assert_eq!(second.await.unwrap().unwrap().data().coins, 7);
    assert!(held.is_over());
}

/// What was applied before the start was called off cannot be taken back. The profile is let go.
#[tokio::test(start_paused = true)]
async fn a_steal_that_was_done_before_its_start_was_called_off_leaves_the_profile_free() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", own_way.clone()).await);
    let held = open(&a, "p").await;
    own_way.plan().fail(Fault::AnswerLost, u64::MAX);
    let options = StartOptions::new().steal().timeout(Duration::from_secs(5));
    let late = players(&b).start_session_with("p", options).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(holder_of(&world, "p").await.as_deref(), Some("b"));
    own_way.plan().heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(held.is_over());
    assert_eq!(holder_of(&world, "p").await, None);
}
