//! One game server at one host.

use futures_util::FutureExt as _;
use profilestore::{
    Sent,
    data_store::MessageId,
    hosting::{DataVersion, Gift},
};

use super::*;
use crate::world::{coins, open, players, settle};

#[tokio::test(start_paused = true)]
async fn a_session_is_started_saved_and_ended_and_the_data_is_there() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, document } = start(&server, 1, "p").await;
    assert_eq!((document.version, document.data.get()), (1, r#"{"coins":0}"#));
    assert_eq!(document.meta.load_count, 1);
    assert_eq!(session.save(request(2), player(5)).await.unwrap(), Some(2));
    assert_eq!(stored(&world, "p").await, (5, 2));
    let mut last = player(8);
    last.users = Some(vec![17.into(), "Notch".parse().unwrap()]);
    session.end(request(3), Some(last)).await.unwrap();
    assert!(session.is_over() && server.sessions().is_empty());
    let other = world.server("b").await;
    let profile = open(&other, "p").await;
    assert_eq!(profile.read(|data| data.coins), 8);
    assert_eq!(profile.users(), [17.into(), "Notch".parse().unwrap()]);
    profile.end_session().await.unwrap();
    let Started { session, document } = start(&server, 4, "p").await;
    assert_eq!((document.meta.load_count, document.meta.users.len()), (3, 2));
    session.end(request(5), None).await.unwrap();
    assert_eq!(coins(&other, "p").await, 8, "an end without data leaves what is stored");
}

/// A player comes back to the game server that is still saving their profile.
#[tokio::test(start_paused = true)]
async fn a_start_behind_an_end_that_is_under_way_waits_for_it() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let ended = session.end(request(2), Some(player(5)));
    let Started { session: next, document } = start(&server, 3, "p").await;
    assert_eq!(kind(ended.await), None);
    assert!(session.is_over() && !next.is_over());
    assert_eq!((document.version, document.data.get()), (2, r#"{"coins":5}"#));
    // When that end is refused, the session goes on, and there is nothing to start.
    let bad = Save::new(RawValue::from_string(r#"{"coins":[1e400]}"#.into()).unwrap());
    let refused = next.end(request(4), Some(bad));
    let behind = server.start(request(5), &key("p"), HostedStart::default()).await;
    assert_eq!(kind(behind), Some(ErrorKind::AlreadyLoaded));
    assert_eq!(kind(refused.await), Some(ErrorKind::Invalid));
    next.end(request(6), Some(player(6))).await.unwrap();
    assert_eq!(stored(&world, "p").await, (6, 3));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_is_refused_with_its_place_and_the_session_goes_on() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let bad = || Save::new(RawValue::from_string(r#"{"coins":[1e400]}"#.into()).unwrap());
    let refused = session.save(request(2), bad()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("`/coins/0`"), "{refused}");
    let refused = session.end(request(3), Some(bad())).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let mut negative = player(1);
    negative.users = Some(vec![(-1).into()]);
    assert_eq!(kind(session.save(request(4), negative).await), Some(ErrorKind::Invalid));
    let huge = format!(r#"{{"text":"{}"}}"#, "x".repeat(4 << 20));
    let huge = Save::new(RawValue::from_string(huge).unwrap());
    assert_eq!(kind(session.save(request(5), huge).await), Some(ErrorKind::TooLarge));
    assert!(!session.is_over());
    session.end(request(6), Some(player(3))).await.unwrap();
    assert_eq!(stored(&world, "p").await, (3, 2));
}

#[tokio::test(start_paused = true)]
async fn numbers_stay_as_they_are_written_and_white_space_goes() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let given = "{ \"a\": 9223372036854775807,\n \"b\": 1.0, \"c\": 0.10 }";
    let save = Save::new(RawValue::from_string(given.into()).unwrap());
    session.end(request(2), Some(save)).await.unwrap();
    let Started { document, .. } = start(&server, 3, "p").await;
    assert_eq!(document.data.get(), r#"{"a":9223372036854775807,"b":1.0,"c":0.10}"#);
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_is_not_there_needs_a_template_and_a_second_start_is_refused() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let without = server.start(request(1), &key("p"), HostedStart::default()).await;
    assert_eq!(kind(without), Some(ErrorKind::NotFound));
    let _first = start(&server, 2, "p").await;
    let second = server.start(request(3), &key("p"), new_player()).await;
    assert_eq!(kind(second), Some(ErrorKind::AlreadyLoaded));
}

#[tokio::test(start_paused = true)]
async fn data_of_a_newer_program_is_left_alone_and_its_version_is_kept() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let knows = |version| HostedStart {
        data_version: Some(DataVersion { version, readable_from: version }),
        ..new_player()
    };
    let started = server.start(request(1), &key("p"), knows(3)).await.unwrap();
    started.session.save(request(2), player(1)).await.unwrap();
    started.session.end(request(3), None).await.unwrap();
    let older = server.start(request(4), &key("p"), knows(2)).await;
    assert_eq!(kind(older), Some(ErrorKind::NewerData));
    let started = server.start(request(5), &key("p"), knows(3)).await.unwrap();
    assert_eq!(started.document.meta.tags["DataVersion"], 3);
    let mut tagged = player(2);
    tagged.tags = Some(serde_json::Map::from_iter([("vip".to_owned(), json!(true))]));
    started.session.end(request(6), Some(tagged)).await.unwrap();
    let started = server.start(request(7), &key("p"), knows(3)).await.unwrap();
    let tags = json!({"DataVersion": 3, "DataVersionReadableFrom": 3, "vip": true});
    assert_eq!(Value::from(started.document.meta.tags), tags);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_told_once_and_goes_with_the_save_that_has_its_effect() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let gift = |name: &str| Gift {
        to: key("p"),
        id: MessageId::new(world.env.unix_ms(), name).unwrap(),
        body: raw(&json!({ "gift": name })),
    };
    let first = gift("one");
    assert_eq!(server.send(first.clone()).await.unwrap(), Sent::Now);
    assert_eq!(server.send(first).await.unwrap(), Sent::Before);
    let Started { session, .. } = start(&server, 1, "p").await;
    let events = told(&server);
    let [Event::Message { index, body, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(&body[..], br#"{"gift":"one"}"#);
    // Another server's message comes to a session that is live.
    let other = world.server("b").await;
    players(&other).send_message("p", &json!("two")).await.unwrap();
    settle().await;
    let events = told(&server);
    let [Event::Message { index: second, .. }] = &events[..] else { panic!("{events:?}") };
    let mut save = player(1);
    save.processed = vec![*index];
    session.save(request(2), save).await.unwrap();
    assert!(told(&server).is_empty());
    server.tell_again();
    let events = told(&server);
    let [Event::Message { index: again, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(again, second, "the first one is gone with its effect");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_larger_than_the_room_waits_and_holds_up_no_other_session() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let _sessions = (start(&server, 1, "large").await, start(&server, 2, "small").await);
    let other = world.server("b").await;
    let store = players(&other);
    store.send_message("large", &"x".repeat(1000)).await.unwrap();
    store.send_message("small", &"y").await.unwrap();
    settle().await;
    let Some(Event::Message { session, .. }) = server.try_next_event(|_| 100) else { panic!() };
    assert_eq!(*session.key(), key("small"));
    assert!(server.try_next_event(|_| 100).is_none());
    let Event::Message { session, .. } = server.next_event(|_| 2000).await else { panic!() };
    assert_eq!(*session.key(), key("large"));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_called_off_leaves_nothing_behind() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let other = world.server("b").await;
    let held = open(&other, "p").await;
    {
        let (key, waits) = (key("p"), profilestore::WhenHeld::Wait);
        let start = HostedStart { when_held: waits, ..new_player() };
        let waiting = server.start(request(1), &key, start);
        assert!(tokio::time::timeout(SECOND, waiting).await.is_err());
    }
    settle().await;
    assert!(!held.is_over());
    held.end_session().await.unwrap();
    assert_eq!(start(&server, 2, "p").await.document.meta.load_count, 2);
}

/// It waited behind the end, which waits for the store, whatever its time was.
#[tokio::test(start_paused = true)]
async fn a_start_behind_an_end_gives_up_in_its_time_while_the_store_is_away() {
    let world = World::new();
    let way = world.another_way();
    let (server, _calling) = hosted(&host_on(&world, way.clone()), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    way.plan().cut_off();
    let saving = session.clone();
    let save = tokio::spawn(async move { saving.save(request(2), player(5)).await });
    settle().await;
    let end = tokio::spawn(async move { session.end(request(3), Some(player(6))).await });
    settle().await;
    let began = tokio::time::Instant::now();
    let options = HostedStart { timeout: Some(5 * SECOND), ..new_player() };
    let late = server.start(request(4), &key("p"), options).await;
    assert_eq!(kind(late), Some(ErrorKind::TimedOut));
    assert!(began.elapsed() < 6 * SECOND, "{:?}", began.elapsed());
    way.plan().heal();
    save.await.unwrap().unwrap();
    end.await.unwrap().unwrap();
    assert_eq!(stored(&world, "p").await.0, 6);
}

/// Each start that was called off behind an end left its turn in the queue, which had no limit.
#[tokio::test(start_paused = true)]
async fn starts_that_are_called_off_behind_an_end_do_not_pile_up() {
    let mut world = World::new();
    world.settings.max_key_queue = 10;
    let way = world.another_way();
    let (server, _calling) = hosted(&host_on(&world, way.clone()), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    way.plan().cut_off();
    let saving = session.clone();
    let save = tokio::spawn(async move { saving.save(request(2), player(5)).await });
    settle().await;
    let end = tokio::spawn(async move { session.end(request(3), Some(player(6))).await });
    settle().await;
    let refused: Vec<_> = (4..30)
        .filter_map(|number| {
            let name = key("p");
            server.start(request(number), &name, new_player()).now_or_never().map(kind)
        })
        .collect();
    assert!(refused.len() > 15, "more than ten find room: {refused:?}");
    assert!(refused.iter().all(|kind| *kind == Some(ErrorKind::Overloaded)), "{refused:?}");
    way.plan().heal();
    save.await.unwrap().unwrap();
    end.await.unwrap().unwrap();
    assert_eq!(start(&server, 30, "p").await.document.version, 3);
    assert_eq!(stored(&world, "p").await.0, 6);
}

/// Both wrote under one epoch: its number was all that was asked for.
#[tokio::test(start_paused = true)]
async fn a_session_of_another_living_server_is_not_adopted_by_its_epoch() {
    let world = World::new();
    let other = world.server("b").await;
    let held = open(&other, "p").await;
    let (server, _old) = hosted(&host(&world), "a").await;
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let epoch = world.store.read(&[key("p")], Returning::HEAD).await.unwrap().states[0].epoch;
    let adopted = again.adopt(&key("p"), epoch).await.unwrap();
    assert!(matches!(adopted, Adopted::Lost { .. }), "{adopted:?}");
    held.update(|data| data.coins = 5).unwrap();
    held.save().await.unwrap();
    assert!(held.is_active());
    assert_eq!(coins(&other, "p").await, 5);
}
