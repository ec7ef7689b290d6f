//! Ends of sessions and of servers that met something else.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_start_while_the_end_is_being_announced_comes_after_the_last_save() {
    let world = World::new();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    earn(&profile, 7);
    let (entered, announcing) = tokio::sync::oneshot::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let (entered, wait) = (Mutex::new(Some(entered)), Mutex::new(wait));
    profile.on_session_end(move |_| {
        entered.lock().take().unwrap().send(()).unwrap();
        let _ = wait.lock().recv();
    });
    let ending = tokio::task::spawn_blocking(move || profile.end_session());
    announcing.await.unwrap();
    let again = tokio::spawn(players(&a).start_session("p"));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    go_on.send(()).unwrap();
    ending.await.unwrap().await.unwrap();
    assert_eq!(again.await.unwrap().unwrap().data().coins, 7);
}

#[tokio::test(start_paused = true)]
async fn shutdown_lists_a_last_save_whose_profile_is_being_started_again() {
    let world = World::new();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    earn(&profile, 7);
    world.store.plan().cut_off();
    drop(profile.end_session());
    let again = tokio::spawn(players(&a).start_session("p"));
    settle().await;
    let report = a.shutdown().await;
    assert_eq!(report.not_saved.len(), 1, "{report:?}");
    assert_eq!(again.await.unwrap().unwrap_err().kind(), ErrorKind::Closing);
}

#[tokio::test(start_paused = true)]
async fn a_second_end_of_a_session_waits_for_its_last_save_too() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    earn(&profile, 7);
    world.store.plan().fail(Fault::Refused, 2);
    drop(profile.end_session());
    profile.end_session().await.unwrap();
    assert_eq!(coins(&b, "p").await, 7);
    profile.end_session().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_save_called_before_the_end_is_answered_by_the_last_save() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    earn(&profile, 7);
    let save = profile.save();
    drop(profile.end_session());
    save.await.unwrap();
    assert_eq!(coins(&b, "p").await, 7);
    assert_eq!(
        profile.save().await.unwrap_err().kind(),
        ErrorKind::SessionEnded,
        "called after the end"
    );
}

#[tokio::test(start_paused = true)]
async fn ending_a_session_that_was_lost_does_not_say_that_its_changes_are_durable() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    earn(&profile, 7);
    let _on_b = players(&b).start_session_with("p", StartOptions::new().steal()).await.unwrap();
    settle().await;
    assert!(profile.is_over());
    assert_eq!(profile.end_session().await.unwrap_err().kind(), ErrorKind::SessionEnded);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_dropped_with_open_profiles_frees_its_store() {
    let world = World::new();
    let way = world.another_way();
    let alive = Arc::downgrade(&way.plan().alive);
    let a = world.server_on("a", way).await;
    let profile = open(&a, "p").await;
    drop((profile, a));
    settle().await;
    assert!(alive.upgrade().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_holds_its_own_profile_goes_with_the_session() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    for lost in [false, true] {
        let profile = open(&a, "p").await;
        let token = Arc::new(());
        let alive = Arc::downgrade(&token);
        let (told, by_end, by_message) =
            (Arc::new(AtomicBool::new(false)), profile.clone(), profile.clone());
        let heard = told.clone();
        profile.on_session_end(move |_| {
            let _ = (&token, &by_end);
            heard.store(true, Ordering::SeqCst);
        });
        profile.message_handler(move |_, _| assert!(by_message.is_active()));
        if lost {
            assert!(players(&b).remove("p").await.unwrap());
        } else {
            profile.end_session().await.unwrap();
        }
        settle().await;
        assert!(profile.is_over() && told.load(Ordering::SeqCst));
        drop(profile);
        settle().await;
        assert!(alive.upgrade().is_none(), "lost: {lost}");
    }
}

/// While it is written for the last save, it changes what is stored beside it.
#[derive(Debug, Clone, Default, Deserialize)]
struct Nosy {
    coins: i64,
}

static NOSY: Mutex<Option<profilestore::Profile<Nosy>>> = Mutex::new(None);
static NOTED: AtomicBool = AtomicBool::new(false);

impl Serialize for Nosy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(profile) = NOSY.lock().clone() {
            NOTED.store(profile.add_user_id(7).is_ok(), Ordering::SeqCst);
        }
        json!({ "coins": self.coins }).serialize(serializer)
    }
}

/// It was answered with Ok and lost.
#[tokio::test(start_paused = true)]
async fn what_is_changed_beside_the_data_while_the_end_takes_it_is_saved_or_refused() {
    let world = World::new();
    let a = world.server("a").await;
    let store = a.store_builder("Nosy").template(Nosy::default()).build().unwrap();
    let profile = store.start_session("p").await.unwrap();
    *NOSY.lock() = Some(profile.clone());
    profile.end_session().await.unwrap();
    *NOSY.lock() = None;
    let saved = store.get("p").await.unwrap().unwrap().user_ids().contains(&7);
    assert_eq!(saved, NOTED.load(Ordering::SeqCst));
}

/// Writes once more what a profile's holder has stored, as a program does that sets documents.
async fn overwrite(world: &World, key: &ProfileKey) {
    let (_, state) = world.store.read_one(key, Returning::ALL).await.unwrap();
    let write = Change::Write {
        key: key.clone(),
        epoch: state.epoch,
        version: state.version,
        value: NewValue::Bytes(state.value.unwrap()),
        user_ids: vec![],
        cause: Cause::Set,
        author: "a program".into(),
        keep_previous: false,
        seal: false,
        imported: None,
    };
    let commit = Commit {
        id: CommitId(world.env.uuid()),
        incarnation: world.store.identity().await.unwrap().incarnation,
        from: None,
        changes: vec![write],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    world.store.commit_one(commit).await.unwrap();
}

/// It went on reading the document until the store was back, and the end waited behind it.
#[tokio::test(start_paused = true)]
async fn a_save_over_a_document_gives_way_to_the_end_behind_it() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    earn(&profile, 1);
    profile.save().await.unwrap();
    overwrite(&world, profile.key()).await;
    // The next renewal brings the notice.
    tokio::time::sleep(Duration::from_secs(6)).await;
    world.store.plan().cut_off();
    let (reads, commits) = (world.store.plan().reads(), world.store.plan().commits());
    earn(&profile, 1);
    let save = profile.save();
    settle().await;
    assert!(world.store.plan().reads() > reads, "it reads the document");
    let end = profile.end_session();
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.store.plan().heal();
    save.await.unwrap();
    end.await.unwrap();
    assert_eq!(world.store.plan().commits() - commits, 1, "the last save says it all");
    assert_eq!(coins(&b, "p").await, 2);
}

/// Each of them stayed in the profile's queue while a save waited for the store, and the program's
/// own saves were refused as too many.
#[tokio::test(start_paused = true)]
async fn ends_that_are_refused_fill_no_queue() {
    let mut world = World::new();
    world.settings.max_key_queue = 10;
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    earn(&profile, 1);
    world.store.plan().cut_off();
    let saving = tokio::spawn(profile.save());
    settle().await;
    profile.update(|data| data.items = vec!["x".repeat(5 << 20)]).unwrap();
    for _ in 0..20 {
        let ended = tokio::time::timeout(Duration::from_millis(1), profile.end_session()).await;
        let refused = ended.expect("it is answered at once").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TooLarge);
    }
    assert!(!profile.is_over() && !saving.is_finished());
    let save = profile.save();
    world.store.plan().heal();
    saving.await.unwrap().unwrap();
    assert_eq!(save.await.unwrap_err().kind(), ErrorKind::TooLarge);
    profile.update(|data| data.items.clear()).unwrap();
    profile.end_session().await.unwrap();
}
