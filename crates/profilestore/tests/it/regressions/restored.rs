//! A backup is restored while servers run.

use profilestore::record::MAX_DATA_BYTES;

use super::*;

#[tokio::test(start_paused = true)]
async fn no_session_of_before_writes_into_a_restored_store() {
    let world = World::new();
    let detour = Detour::new(world.store.clone());
    let a = world.server_on("a", detour.clone()).await;
    let (first, second) = (open(&a, "first").await, open(&a, "second").await);
    earn(&second, 7);
    // What the backup holds: the same keys under the same epochs.
    let backup = on_command(MemoryStore::new(world.env.clone()));
    let b = world.server_on("b", backup.clone()).await;
    for key in ["first", "second"] {
        let profile = open(&b, key).await;
        earn(&profile, 50);
        profile.save().await.unwrap();
    }
    b.crash();
    // While the first one's end is told, and its listener reads what is stored, the second one is
    // saved.
    first.on_after_save(|_| ());
    let other = second.clone();
    first.on_session_end(move |_| drop(other.save()));
    detour.lead_to(backup.clone());
    detour.read_late(Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(first.is_over() && second.is_over());
    let c = world.server_on("c", backup).await;
    assert_eq!(coins(&c, "second").await, 50);
    assert_eq!(players(&c).get("second").await.unwrap().unwrap().key_info().unwrap().number, 2);
}

/// Found by the simulation: it stayed live until its next save.
#[tokio::test(start_paused = true)]
async fn a_session_whose_start_was_answered_after_a_restore_is_over_at_once() {
    let world = World::new();
    let detour = Detour::new(world.store.clone());
    let a = world.server_on("a", detour.clone()).await;
    detour.answer_late(Duration::from_secs(12));
    let start = tokio::spawn(players(&a).start_session("p"));
    settle().await;
    detour.answer_late(Duration::ZERO);
    detour.lead_to(on_command(MemoryStore::new(world.env.clone())));
    let profile = start.await.unwrap().unwrap();
    settle().await;
    assert!(profile.is_over());
    assert_eq!(profile.end_session().await.unwrap_err().kind(), ErrorKind::SessionEnded);
}

/// Found by the simulation (seed 8147): starts were refused until the next renewal.
#[tokio::test(start_paused = true)]
async fn a_start_that_meets_a_restored_backup_brings_the_renewal_forward() {
    let world = World::new();
    let detour = Detour::new(world.store.clone());
    let a = world.server_on("a", detour.clone()).await;
    let old = open(&a, "old").await;
    detour.lead_to(on_command(MemoryStore::new(world.env.clone())));
    let began = tokio::time::Instant::now();
    let profile = players(&a).start_session("p").await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    settle().await;
    assert!(profile.is_active() && old.is_over());
    earn(&profile, 3);
    profile.save().await.unwrap();
    detour.lead_to(on_command(MemoryStore::new(world.env.clone())));
    players(&a).send_message("p", &json!({})).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
}

/// It was written over the restored contents: the numbers of both happen to agree.
#[tokio::test(start_paused = true)]
async fn a_profile_that_was_read_before_a_restore_is_not_written_after_it() {
    let world = World::new();
    let backup = on_command(MemoryStore::new(world.env.clone()));
    for (store, earned) in [(world.store.clone(), 7), (backup.clone(), 50)] {
        let b = world.server_on("b", store).await;
        let profile = open(&b, "p").await;
        earn(&profile, earned);
        profile.end_session().await.unwrap();
        b.crash();
    }
    let detour = Detour::new(world.store.clone());
    let a = world.server_on("a", detour.clone()).await;
    let mut read = players(&a).get("p").await.unwrap().unwrap();
    read.data.coins = 1000;
    detour.lead_to(backup);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(read.set().await.unwrap_err().kind(), ErrorKind::Replaced);
    assert_eq!(coins(&a, "p").await, 50);
    let mut read = players(&a).get("p").await.unwrap().unwrap();
    read.data.coins = 8;
    read.set().await.unwrap();
    assert_eq!(coins(&a, "p").await, 8);
}

/// While its last hook ran, a save met the backup: only the end that was under way could close the
/// session then. That end was refused, and the session stayed open until its next save.
#[tokio::test(start_paused = true)]
async fn a_session_whose_end_is_refused_while_a_backup_is_restored_is_over() {
    let world = World::new();
    let detour = Detour::new(world.store.clone());
    let a = world.server_on("a", detour.clone()).await;
    let profile = open(&a, "p").await;
    let (entered, ending) = tokio::sync::oneshot::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let (entered, wait) = (Mutex::new(Some(entered)), Mutex::new(wait));
    profile.on_last_save(move |_, data| {
        entered.lock().take().unwrap().send(()).unwrap();
        wait.lock().recv().unwrap();
        data.items = vec!["x".repeat(MAX_DATA_BYTES)];
    });
    let backup = on_command(MemoryStore::new(world.env.clone()));
    // The server registers in it only after this test.
    backup.plan().delay_reads(60_000);
    detour.lead_to(backup);
    let last = profile.clone();
    let end = tokio::task::spawn_blocking(move || last.end_session());
    ending.await.unwrap();
    assert_eq!(profile.save().await.unwrap_err().kind(), ErrorKind::Replaced);
    go_on.send(()).unwrap();
    let refused = end.await.unwrap().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    settle().await;
    assert!(profile.is_over());
}
