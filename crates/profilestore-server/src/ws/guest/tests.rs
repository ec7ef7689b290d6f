//! What is kept of a game server, without a connection.

use std::pin::pin;

use axum::extract::ws::Message;
use futures_util::FutureExt as _;
use profilestore::{
    Settings,
    data_store::MemoryStore,
    env::Env,
    hosting::{Event, Host, HostParts, HostedStart, Registration},
    messenger::NoMessenger,
};

use super::*;
use crate::ws::{Hub, MOST_RUNS, telling::tell};

async fn guest() -> Guest {
    let env = Env::system();
    let host = Host::new(HostParts {
        store: Arc::new(MemoryStore::new(env.clone())),
        messenger: Arc::new(NoMessenger),
        settings: Settings::default(),
        env,
    });
    let (job, owner) = ("eu-1".to_owned(), "owner".to_owned());
    let registration = Registration { job, place: 0, owner, lease_time: None };
    let server = host.unwrap().register(registration).await.unwrap();
    Guest::new(server, Instance::new("0123456789abcdef"), "token".to_owned(), None)
}

#[tokio::test]
async fn what_is_told_while_a_connection_begins_comes_behind_its_welcome() {
    let guest = guest().await;
    let (outbox, mut sent) = Outbox::new("".into());
    guest.attach(outbox, &ServerFrame::Heard { n: 1 });
    guest.tell(&ServerFrame::Heard { n: 2 });
    for n in [1, 2] {
        let Some(Message::Text(text)) = sent.recv().await else { panic!("a frame comes") };
        assert_eq!(text.as_str(), format!(r#"{{"heard":{{"n":{n}}}}}"#));
    }
}

/// The word went to the connection before, whose client had left it.
#[tokio::test]
async fn a_connection_that_begins_as_its_hosting_stops_is_told_so() {
    let guest = Arc::new(guest().await);
    guest.server.leave();
    assert!(matches!(guest.server.try_next_event(|_| 0), Some(Event::Stopped(_))));
    let (outbox, mut sent) = Outbox::new("".into());
    guest.attach(outbox.clone(), &ServerFrame::Heard { n: 1 });
    let (_ping, pings) = tokio::sync::mpsc::unbounded_channel();
    tell(guest, pings, outbox).await;
    for expected in [r#"{"heard":{"n":1}}"#, r#"{"stopped":{"why":"left"}}"#] {
        let Some(Message::Text(text)) = sent.recv().await else { panic!("a frame comes") };
        assert_eq!(text.as_str(), expected);
    }
    assert!(matches!(sent.recv().await, Some(Message::Close(_))));
}

#[tokio::test]
async fn two_greetings_of_one_game_server_at_once_give_one_guest() {
    let hub = Hub::new(None);
    let first = guest().await;
    let instance = Instance::new("0123456789abcdef");
    let second = Guest::new(first.server.clone(), instance, "token".to_owned(), None);
    let first = hub.enter(first).await.unwrap();
    let second = hub.enter(second).await.unwrap();
    assert!(Arc::ptr_eq(&second, &first), "the first may have begun starts");
}

/// Both went on. The connection of before was told what the other one had to know, and its goodbye
/// ended the game server.
#[tokio::test]
async fn a_connection_ends_when_another_run_of_its_sdk_resumes_the_game_server() {
    let hub = Hub::new(None);
    let before = hub.enter(guest().await).await.unwrap();
    let (outbox, mut sent) = Outbox::new("".into());
    let connection = before.attach(outbox.clone(), &ServerFrame::Heard { n: 1 });
    let (_ping, pings) = tokio::sync::mpsc::unbounded_channel();
    let telling = tokio::spawn(tell(before.clone(), pings, outbox.clone()));
    tokio::task::yield_now().await;
    let other = Instance::new("fedcba9876543210");
    let other = Guest::new(before.server.clone(), other, "token".to_owned(), None);
    let entering = tokio::spawn(async move { hub.enter(other).await });
    outbox.over.notified().await;
    assert!(!entering.is_finished(), "something may be told yet");
    telling.abort();
    let now = entering.await.unwrap().unwrap();
    assert!(!Arc::ptr_eq(&now, &before) && !before.is_current(connection));
    assert!(matches!(sent.recv().await, Some(Message::Text(_))));
    let Some(Message::Close(Some(why))) = sent.recv().await else { panic!("it is closed") };
    assert_eq!(why.code, 4000);
    // One whose greeting was on its way has come too late.
    let (outbox, mut sent) = Outbox::new("".into());
    before.attach(outbox.clone(), &ServerFrame::Heard { n: 2 });
    assert!(matches!(sent.recv().await, Some(Message::Close(_))));
    let (_ping, pings) = tokio::sync::mpsc::unbounded_channel();
    tell(before, pings, outbox).await;
}

/// It ended the connection of the other run, which came again and ended its own, in turn for ever.
#[tokio::test]
async fn a_run_that_made_way_to_another_one_is_refused_when_it_comes_again() {
    let hub = Hub::new(None);
    let first = guest().await;
    let server = first.server.clone();
    let run = |n: usize| {
        let instance = Instance::new(&format!("the secret of run {n}"));
        Guest::new(server.clone(), instance, "token".to_owned(), None)
    };
    hub.enter(first).await.unwrap();
    let mut last = hub.enter(run(0)).await.unwrap();
    for n in 1..=MOST_RUNS + 1 {
        last = hub.enter(run(n)).await.unwrap();
        let Err(again) = hub.enter(run(n - 1)).await else { panic!("it made way") };
        assert_eq!(again.row().name, "run-replaced");
        assert!(hub.check_run(server.incarnation(), Instance::new("another")).is_ok());
        let instance = run(n - 1).instance;
        assert!(hub.check_run(server.incarnation(), instance).is_err());
        assert!(!last.has_made_way(), "the one that goes on is left alone");
    }
    assert!(hub.check_run(server.incarnation(), run(1).instance).is_err());
    assert!(
        hub.check_run(server.incarnation(), run(0).instance).is_ok(),
        "the oldest is forgotten"
    );
    // It comes again itself, as when its connection was lost.
    let again = hub.enter(run(MOST_RUNS + 1)).await.unwrap();
    assert!(Arc::ptr_eq(&again, &last));
    // Where the game server was hosted before, its runs are told that it is not any more.
    server.leave();
    assert!(hub.check_run(server.incarnation(), run(MOST_RUNS).instance).is_ok());
}

#[tokio::test]
async fn a_start_that_was_given_up_begins_again_when_it_is_sent_again() {
    let guest = guest().await;
    assert!(matches!(guest.begin(1, 1), Begun::New));
    let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
    guest.note_start(1, task, Arc::default());
    assert!(matches!(guest.begin(1, 1), Begun::Pending));
    guest.give_up();
    assert!(matches!(guest.begin(1, 1), Begun::New), "nobody answers the first");
}

#[tokio::test]
async fn a_start_is_called_off_or_answered_and_never_both() {
    let guest = guest().await;
    let off = Arc::new(Notify::new());
    let begin = |i| {
        assert!(matches!(guest.begin(i, i), Begun::New));
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        guest.note_start(i, task, off.clone());
    };
    begin(1);
    assert!(guest.keep_start(1));
    guest.cancel(1);
    assert_eq!(off.notified().now_or_never(), None, "its answer is on its way");
    begin(2);
    guest.cancel(2);
    assert_eq!(off.notified().now_or_never(), Some(()));
    assert!(!guest.keep_start(2), "it is answered as called off");
    // Sent again over another connection before it is answered: one answer is for both.
    assert!(matches!(guest.begin(2, 2), Begun::Pending));
    // That connection may call it off before the first one has begun with it.
    assert!(matches!(guest.begin(3, 3), Begun::New));
    guest.cancel(3);
    guest.note_start(3, tokio::spawn(std::future::pending::<()>()).abort_handle(), off.clone());
    assert_eq!(off.notified().now_or_never(), Some(()));
    assert!(!guest.keep_start(3));
}

#[tokio::test]
async fn no_profile_is_let_go_that_a_game_server_has_or_is_about_to_get() {
    let guest = guest().await;
    let key = ProfileKey::new("PlayerData", "global", "user-1").unwrap();
    guest.starting(7, &key).unwrap();
    assert!(matches!(guest.begin_letting_go(&key), LettingGo::NotNow));
    guest.over(7);
    let LettingGo::Turn(turn) = guest.begin_letting_go(&key) else { panic!("it is free") };
    assert!(matches!(guest.begin_letting_go(&key), LettingGo::NotNow), "one at a time");
    // A start that comes meanwhile waits, and hears nothing of the other session.
    guest.starting(8, &key).unwrap();
    assert_eq!(guest.number(&key), None);
    assert_eq!(guest.until_let_go(&key).now_or_never(), None);
    drop(turn);
    assert_eq!(guest.until_let_go(&key).now_or_never(), Some(()));
    assert_eq!(guest.number(&key), Some(8));
    let template = RawValue::from_string("{}".to_owned()).unwrap();
    let session = guest.server.start(
        guest.instance.request(1, "start", &()),
        &key,
        HostedStart { template: Some(template), ..HostedStart::default() },
    );
    guest.opened(8, session.await.unwrap().session, None);
    assert!(matches!(guest.begin_letting_go(&key), LettingGo::Kept));
}

/// Its start, called off, waited for that adoption for ever.
#[tokio::test]
async fn a_session_that_one_resume_did_not_come_to_and_the_next_does_not_name_is_forgotten() {
    let guest = guest().await;
    let key = ProfileKey::new("PlayerData", "global", "user-1").unwrap();
    guest.expect(7, &key);
    guest.keep_named(|s| s == 7);
    assert!(matches!(guest.begin_letting_go(&key), LettingGo::NotNow));
    let other = ProfileKey::new("PlayerData", "global", "user-2").unwrap();
    guest.starting(8, &other).unwrap();
    guest.keep_named(|_| false);
    assert!(matches!(guest.begin_letting_go(&key), LettingGo::Turn(_)));
    assert_eq!((guest.number(&key), guest.number(&other)), (None, Some(8)));
}

#[tokio::test]
async fn a_second_save_of_a_session_is_refused_while_the_first_is_unanswered() {
    let guest = guest().await;
    let brings = |i, s, what| {
        assert!(matches!(guest.begin(i, i), Begun::New));
        guest.bring(i, [s], what)
    };
    brings(1, 7, Brings::Save).unwrap();
    let problem = brings(2, 7, Brings::Save).unwrap_err();
    assert!(problem.to_string().contains("save is unanswered"), "{problem}");
    guest.refuse(2, &problem);
    brings(3, 7, Brings::Save).unwrap_err();
    guest.refuse(3, &problem);
    // Another session's, and an end, have room of their own.
    brings(4, 8, Brings::Save).unwrap();
    brings(5, 7, Brings::End).unwrap();
    guest.answer(1, &ServerFrame::Ended { i: 1 });
    brings(6, 7, Brings::Save).unwrap();
}

/// It was answered that the session is over, and what is typed all at once seemed lost.
#[tokio::test]
async fn a_save_before_its_start_is_answered_is_told_to_wait() {
    let guest = guest().await;
    let key = ProfileKey::new("PlayerData", "global", "user-1").unwrap();
    guest.starting(7, &key).unwrap();
    assert!(matches!(guest.begin(2, 2), Begun::New));
    let problem = guest.bring(2, [7], Brings::Save).unwrap_err();
    assert!(problem.to_string().contains("wait for `started`: s=`7`"), "{problem}");
    guest.refuse(2, &problem);
    // One of a session that a resume looks for waits by itself.
    guest.expect(7, &key);
    assert!(matches!(guest.begin(3, 3), Begun::New));
    guest.bring(3, [7], Brings::Save).unwrap();
}

/// A game server that names sessions which are not there had the store asked about each at once.
#[tokio::test]
async fn no_frame_is_taken_while_very_many_requests_are_under_way() {
    let guest = guest().await;
    for i in 0..=MOST_BESIDES as u64 {
        assert!(!guest.is_full(), "{i}");
        assert!(matches!(guest.begin(i, 7), Begun::New));
    }
    assert!(guest.is_full());
    guest.refuse(1, &Problem::new("session-ended", "the session is over"));
    assert!(!guest.is_full());
}

/// It was looked every 5 ms whether enough was answered.
#[tokio::test]
async fn a_connection_that_takes_no_frame_hears_of_everything_that_lets_it_go_on() {
    let guest = guest().await;
    let connection = guest.attach(Outbox::new("".into()).0, &ServerFrame::Heard { n: 1 });
    let key = ProfileKey::new("PlayerData", "global", "user-1").unwrap();
    let over = Problem::new("session-ended", "the session is over");
    let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
    let changes: [(&str, &dyn Fn()); 5] = [
        ("a request is answered", &|| guest.refuse(0, &over)),
        ("a request found no room", &|| guest.forget(1)),
        ("starts are given up", &|| {
            guest.note_start(2, task.clone(), Arc::default());
            guest.give_up();
        }),
        ("there is another session", &|| guest.starting(7, &key).unwrap()),
        ("another connection counts", &|| {
            guest.attach(Outbox::new("".into()).0, &ServerFrame::Heard { n: 2 });
        }),
    ];
    let mut i = 0;
    for (what, change) in changes {
        while !guest.is_full() {
            assert!(matches!(guest.begin(i, 7), Begun::New));
            i += 1;
        }
        let mut waiting = pin!(guest.until_less_full(connection));
        assert_eq!(waiting.as_mut().now_or_never(), None, "{what}");
        // One that is dropped while it waits takes nothing with it.
        assert_eq!(guest.until_less_full(connection).now_or_never(), None, "{what}");
        change();
        assert_eq!(waiting.now_or_never(), Some(()), "{what}");
    }
}
