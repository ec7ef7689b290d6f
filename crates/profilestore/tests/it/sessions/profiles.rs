//! Reading, writing back, removing and describing profiles; mocks, settings and names.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_read_profile_written_back_ends_the_session_that_was_there() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    assert!(players(&b).get("p").await.unwrap().is_none());
    let on_a = open(&a, "p").await;
    earn(&on_a, 5);
    on_a.save().await.unwrap();
    let mut view = players(&b).get("p").await.unwrap().unwrap();
    assert_eq!(view.session().unwrap().job_id, "a");
    assert_eq!(view.session_load_count(), 1);
    view.data.coins = 77;
    view.add_user_id(42).unwrap();
    view.set().await.unwrap();
    settle().await;
    assert!(on_a.is_over(), "the hint told it");
    let again = open(&a, "p").await;
    assert_eq!((again.data().coins, again.user_ids()), (77, vec![42]));
}

#[tokio::test(start_paused = true)]
async fn a_removed_profile_is_gone_and_comes_back_new() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let on_a = open(&a, "p").await;
    earn(&on_a, 5);
    on_a.save().await.unwrap();
    let view = players(&b).get("p").await.unwrap().unwrap();
    let old = view.key_info().unwrap().number;
    assert!(players(&b).remove("p").await.unwrap());
    assert!(!players(&b).remove("p").await.unwrap());
    assert_eq!(view.set().await.unwrap_err().kind(), ErrorKind::Removed);
    assert!(players(&a).get("p").await.unwrap().is_none());
    settle().await;
    assert!(on_a.is_over());
    // The history stays; an earlier version can be made current again.
    let version = profilestore::data_store::VersionRef::Number(old);
    let earlier = players(&b).get_version("p", version).await.unwrap();
    assert_eq!(earlier.data.coins, 5);
    earlier.set().await.unwrap();
    assert_eq!(open(&a, "p").await.data().coins, 5);
}

#[tokio::test(start_paused = true)]
async fn user_ids_and_metadata_are_saved_with_the_profile_within_their_limits() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    profile.add_user_id(7).unwrap();
    profile.add_user_id(7).unwrap();
    profile.add_user_id(8).unwrap();
    profile.remove_user_id(8).unwrap();
    profile.remove_user_id(9).unwrap();
    assert_eq!(profile.add_user_id(-1).unwrap_err().kind(), ErrorKind::Invalid);
    let metadata = json!({"Element": "Fire"}).as_object().unwrap().clone();
    profile.set_roblox_metadata(metadata.clone()).unwrap();
    let long = json!({"a": "x".repeat(200), "b": "y".repeat(120)}).as_object().unwrap().clone();
    assert_eq!(profile.set_roblox_metadata(long).unwrap_err().kind(), ErrorKind::TooLarge);
    profile.save().await.unwrap();
    let info = profile.key_info();
    assert_eq!((info.user_ids, info.metadata), (vec![7], metadata.clone()));
    let view = players(&b).get("p").await.unwrap().unwrap();
    assert_eq!((view.user_ids(), view.roblox_metadata()), (&[7][..], &metadata));
}

#[tokio::test(start_paused = true)]
async fn data_that_cannot_be_stored_is_an_error_and_the_session_goes_on() {
    let world = World::new();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    profile.update(|data| data.items = vec!["x".repeat(5 << 20)]).unwrap();
    let error = profile.save().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(profile.is_active());
    profile.update(|data| data.items = vec!["small".into()]).unwrap();
    profile.save().await.unwrap();
    assert_eq!(profile.last_saved_data().items, ["small"]);
}

#[tokio::test(start_paused = true)]
async fn stored_data_that_does_not_fit_is_an_error_and_no_lock_stays() {
    #[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
    struct Newer {
        coins: i64,
        level: u32,
    }
    let world = World::new();
    let a = world.server("a").await;
    open(&a, "p").await.end_session().await.unwrap();
    let strict = a
        .store_builder::<Newer>("PlayerData")
        .template(Newer { coins: 0, level: 1 })
        .build()
        .unwrap();
    assert_eq!(strict.start_session("p").await.unwrap_err().kind(), ErrorKind::Undecodable);
    assert_eq!(players(&a).get("p").await.unwrap().unwrap().session(), None);
    let filling = a
        .store_builder::<Newer>("PlayerData")
        .template(Newer { coins: 0, level: 1 })
        .reconcile()
        .build()
        .unwrap();
    assert_eq!(filling.start_session("p").await.unwrap().data().level, 1);
}

#[tokio::test(start_paused = true)]
async fn the_mock_is_a_store_of_its_own() {
    let world = World::new();
    let a = world.server("a").await;
    let store = players(&a);
    let real = open(&a, "p").await;
    let mock = store.mock().start_session("p").await.unwrap();
    mock.update(|data| data.coins = 9).unwrap();
    mock.save().await.unwrap();
    let stolen = store.mock().start_session_with("p", StartOptions::new().steal()).await;
    assert_eq!(stolen.unwrap_err().kind(), ErrorKind::AlreadyLoaded);
    let mut view = store.mock().get("p").await.unwrap().unwrap();
    view.data.coins = 10;
    view.set().await.unwrap();
    settle().await;
    assert!(mock.is_over() && real.is_active());
    assert_eq!(
        store
            .mock()
            .get_version("p", profilestore::data_store::VersionRef::Number(2))
            .await
            .unwrap()
            .data
            .coins,
        9
    );
    let options = StartOptions::new().cancel(|| true);
    assert_eq!(
        store.mock().start_session_with("q", options).await.unwrap_err().kind(),
        ErrorKind::Cancelled
    );
    assert_eq!(real.data().coins, 0);
    assert!(store.mock().remove("p").await.unwrap());
    assert_eq!(coins(&a, "p").await, 0);
}

#[tokio::test(start_paused = true)]
async fn settings_and_constants_change_while_the_server_runs() {
    let world = World::new();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    earn(&profile, 3);
    a.set_constant("AUTO_SAVE_PERIOD", 2.0).unwrap();
    assert_eq!(a.set_constant("AUTO_SAVE", 2.0).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(a.set_constant("FIRST_LOAD_REPEAT", 0.0).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(a.settings().first_load_repeat, Duration::from_secs(5));
    assert_eq!(a.access_state().await, profilestore::AccessState::Access);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_name_is_an_error_that_says_which() {
    let world = World::new();
    let a = world.server("a").await;
    assert_eq!(a.store::<Player>("").unwrap_err().kind(), ErrorKind::Invalid);
    let error = players(&a).start_session(&"x".repeat(51)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("key must be 1 to 50 characters"), "{error}");
}
