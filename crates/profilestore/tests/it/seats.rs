//! A player who connects twice: `ProfileStore::live`, `StartOptions::supersede`, and the seats of
//! `examples/seats.rs` in every race that a double login can be.
//!
//! The races run in paused time on a store that answers slowly: one world for each moment at which
//! the second connection may come.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::{
    ErrorKind, GameServer, LastSave, ProfileStore, Result, SessionEnd, StartOptions,
    data_store::{
        MemoryStore,
        fault::{Call, Fate, FaultyStore, StorePlan},
    },
    messenger::LocalMessenger,
};
use serde::{Deserialize, Serialize};

use crate::world::{Fault, Player, World, coins, earn, env, open, players, settle};

#[path = "../../examples/seats.rs"]
#[expect(dead_code, reason = "its program is not run here")]
mod example;

use example::{Seat, Seats};

fn superseding() -> StartOptions {
    StartOptions::new().supersede()
}

// --- the calls ----------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_live_profile_is_found_by_its_key_until_it_is_over() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let store = players(&a);
    assert!(store.live("p").is_none() && store.live("").is_none());
    let profile = open(&a, "p").await;
    let again = store.live("p").unwrap();
    earn(&again, 5);
    assert_eq!(profile.data().coins, 5);
    // Another server's, another scope's, another type's: none.
    assert!(players(&b).live("p").is_none());
    let elsewhere = a.store_builder::<Player>("PlayerData").scope("other").build().unwrap();
    assert!(elsewhere.live("p").is_none());
    let untyped: ProfileStore<serde_json::Value> = a.store("PlayerData").unwrap();
    assert!(untyped.live("p").is_none());
    let ending = profile.end_session();
    assert!(store.live("p").is_none());
    ending.await.unwrap();
    assert!(store.live("p").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_live_profile_of_a_mock_is_the_mocks_own() {
    let world = World::new();
    let a = world.server("a").await;
    let store = players(&a);
    assert!(store.mock().live("p").is_none());
    let profile = store.mock().start_session("p").await.unwrap();
    assert!(store.live("p").is_none());
    earn(&profile, 3);
    assert_eq!(store.mock().live("p").unwrap().data().coins, 3);
}

#[tokio::test(start_paused = true)]
async fn a_superseding_start_goes_on_with_what_the_session_before_it_did() {
    let world = World::new();
    let a = world.server("a").await;
    let store = players(&a);
    let first = open(&a, "p").await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let (last, end) = (told.clone(), told.clone());
    first.on_last_save(move |reason, data| {
        data.items.push("from the last hook".to_owned());
        last.lock().push(format!("{reason:?}"));
    });
    first.on_session_end(move |how| end.lock().push(format!("{how:?}")));
    earn(&first, 7);
    assert_eq!(
        store.start_session("p").await.unwrap_err().kind(),
        ErrorKind::AlreadyLoaded,
        "without the option nothing has changed"
    );

    let starting = store.start_session_with("p", superseding());
    // As soon as the call returns: the order of a server's calls holds here too.
    assert!(first.is_over() && first.update(|data| data.coins += 100).is_err());
    let second = starting.await.unwrap();
    assert_eq!(
        *told.lock(),
        [format!("{:?}", LastSave::External), format!("{:?}", SessionEnd::Superseded)]
    );
    assert_eq!((second.data().coins, second.data().items.len()), (7, 1));
    assert_eq!(second.session_load_count(), first.session_load_count() + 1);
    // The old handle's end says that its last save is durable, and does nothing to the new one.
    first.end_session().await.unwrap();
    assert!(second.is_active() && store.live("p").is_some());
    earn(&second, 1);
    second.end_session().await.unwrap();
    assert_eq!(coins(&a, "p").await, 8);
    // Where there is none, it is an ordinary start.
    store.start_session_with("p", superseding()).await.unwrap().end_session().await.unwrap();
    assert_eq!(a.session_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_last_save_is_refused_is_not_superseded() {
    let world = World::new();
    let a = world.server("a").await;
    let store = players(&a);
    let first = open(&a, "p").await;
    first.update(|data| data.items = vec!["x".repeat(5 << 20)]).unwrap();
    let refused = store.start_session_with("p", superseding()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge, "{refused}");
    assert!(refused.to_string().contains("the session goes on"), "{refused}");
    assert!(first.is_active() && store.live("p").is_some());
    first.update(|data| data.items.clear()).unwrap();
    store.start_session_with("p", superseding()).await.unwrap();
    assert!(first.is_over());
}

/// Which of them got the profile hung on whose future was polled first.
#[tokio::test(start_paused = true)]
async fn of_two_starts_behind_one_end_the_later_one_gets_the_profile() {
    let world = World::new();
    let a = world.server("a").await;
    for earlier_is_polled_first in [true, false] {
        let before = players(&a).start_session_with("p", superseding()).await.unwrap();
        let (begun, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let hook = (begun.clone(), go_on.clone());
        before.on_save(move |_| {
            hook.0.wait();
            hook.1.wait();
        });
        let thread = std::thread::spawn(move || drop(before.end_session()));
        begun.wait();
        let start = || players(&a).start_session_with("p", superseding());
        let (earlier, later) = (start(), start());
        go_on.wait();
        thread.join().unwrap();
        let (earlier, later) = if earlier_is_polled_first {
            tokio::join!(earlier, later)
        } else {
            let (later, earlier) = tokio::join!(later, earlier);
            (earlier, later)
        };
        assert_eq!(earlier.unwrap_err().kind(), ErrorKind::Superseded);
        assert!(later.unwrap().is_active());
    }
    assert_eq!(a.session_count(), 1);
}

/// Both were refused: the earlier one gave way to one that nobody wanted any more.
#[tokio::test(start_paused = true)]
async fn a_start_that_is_called_off_behind_an_end_leaves_the_profile_to_the_earlier_one() {
    let world = World::new();
    let a = world.server("a").await;
    for way in ["dropped at once", "dropped while it waits", "out of time"] {
        let before = players(&a).start_session_with("p", superseding()).await.unwrap();
        let (begun, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let hook = (begun.clone(), go_on.clone());
        before.on_save(move |_| {
            hook.0.wait();
            hook.1.wait();
        });
        let thread = std::thread::spawn(move || drop(before.end_session()));
        begun.wait();
        let start = |options| players(&a).start_session_with("p", options);
        let earlier = start(superseding());
        let later = start(superseding().timeout(Duration::from_secs(1)));
        match way {
            "dropped at once" => drop(later),
            "out of time" => assert_eq!(later.await.unwrap_err().kind(), ErrorKind::TimedOut),
            _ => assert!(tokio::time::timeout(Duration::from_millis(500), later).await.is_err()),
        }
        go_on.wait();
        thread.join().unwrap();
        let profile = earlier.await.unwrap_or_else(|error| panic!("{way}: {error}"));
        assert!(profile.is_active(), "{way}");
    }
    assert_eq!(a.session_count(), 1);
}

/// It ended the session that a player had, though nobody wanted its place.
#[tokio::test(start_paused = true)]
async fn a_start_that_is_called_off_at_once_supersedes_no_session() {
    let world = World::new();
    let a = world.server("a").await;
    let first = open(&a, "p").await;
    for (called_off, why) in [
        (superseding().timeout(Duration::ZERO), ErrorKind::TimedOut),
        (superseding().cancel(|| true), ErrorKind::Cancelled),
    ] {
        let start = players(&a).start_session_with("p", called_off);
        assert_eq!(start.await.unwrap_err().kind(), why);
        assert!(first.is_active(), "it was ended for a start that nobody wanted");
    }
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_is_open_as_another_type_is_not_superseded() {
    #[derive(Debug, Clone, Default, Serialize, Deserialize)]
    struct Guild {}

    let world = World::new();
    let a = world.server("a").await;
    let first = open(&a, "p").await;
    let guilds: ProfileStore<Guild> = a.store("PlayerData").unwrap();
    let refused = guilds.start_session_with("p", superseding()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(first.is_active());
}

/// Found while superseding was written: the start took the profile from the session that went on,
/// and what that had not saved was lost.
#[tokio::test(start_paused = true)]
async fn a_start_behind_an_end_that_is_refused_does_not_take_the_profile() {
    for options in [StartOptions::new(), superseding()] {
        let world = World::new();
        let a = world.server("a").await;
        let store = players(&a);
        let first = open(&a, "p").await;
        first.update(|data| data.items = vec!["x".repeat(5 << 20)]).unwrap();
        // A transaction whose script says no, so that the end comes behind it and is refused there.
        let no = || Err::<(), Box<dyn std::error::Error + Send + Sync>>("no".into());
        let trading = a.transaction().with(&first).run(move |_| no());
        let ending = (!options.supersede).then(|| first.end_session());
        let starting = store.start_session_with("p", options);
        assert!(first.is_over(), "the end is behind the transaction, and edits are refused");
        trading.await.unwrap_err();
        assert_eq!(starting.await.unwrap_err().kind(), ErrorKind::AlreadyLoaded);
        if let Some(ending) = ending {
            assert_eq!(ending.await.unwrap_err().kind(), ErrorKind::TooLarge);
        }
        assert!(first.is_active());
        settle().await;
        assert!(store.live("p").is_some(), "the session has its place again");
        first.update(|data| *data = Player { coins: 4, items: Vec::new() }).unwrap();
        first.end_session().await.unwrap();
        assert_eq!(coins(&a, "p").await, 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_superseding_start_waits_out_an_outage_and_loses_nothing() {
    let world = World::new();
    let a = world.server("a").await;
    let first = open(&a, "p").await;
    earn(&first, 5);
    world.store.plan().fail(Fault::AnswerLost, 3);
    let second = players(&a).start_session_with("p", superseding()).await.unwrap();
    assert_eq!(second.data().coins, 5);
}

// --- the seats' races ---------------------------------------------------------------------------

/// Every call takes this long each way.
const WAY: Duration = Duration::from_millis(75);

/// The second connection comes so much later, in milliseconds: a start takes some 600.
fn moments() -> impl Iterator<Item = Duration> {
    (0..1000).step_by(20).map(Duration::from_millis)
}

#[derive(Debug)]
struct Slow;

impl StorePlan for Slow {
    fn fate(&self, _: Call<'_>) -> Fate {
        Fate { there: WAY, back: WAY, fault: None }
    }
}

/// Game servers on one slow store, and how often a seat was got.
struct House {
    servers: Vec<GameServer>,
    visits: Arc<AtomicU64>,
}

impl House {
    async fn new(servers: usize) -> Self {
        let env = env();
        let store = FaultyStore::new(Arc::new(MemoryStore::new(env.clone())), Slow);
        let messenger = LocalMessenger::new();
        let mut all = Vec::new();
        for number in 0..servers {
            let server = GameServer::builder(store.clone())
                .messenger(messenger.clone())
                .job_id(format!("server {number}"))
                .env(env.clone());
            all.push(server.start().await.unwrap());
        }
        Self { servers: all, visits: Arc::default() }
    }

    fn seats(&self, server: usize) -> Seats {
        Seats::new(&self.servers[server]).unwrap()
    }

    /// A connection: sits down, counts its visit, and stays until the seat is lost or `stay` is
    /// over.
    fn connect(
        &self,
        server: usize,
        stay: Duration,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let (seats, visits) = (self.seats(server), self.visits.clone());
        async move {
            let seat = seats.sit("ann").await?;
            note_visit(&seat, &visits);
            let _ = tokio::time::timeout(stay, seat.lost()).await;
            seat.leave().await
        }
    }

    /// What is stored in the end is every visit, and nothing is left locked.
    async fn close(self, context: &str) {
        let visits = self.visits.load(Ordering::SeqCst);
        let store: ProfileStore<example::Player> = self.servers[0].store("PlayerData").unwrap();
        let stored = store.get("ann").await.unwrap().unwrap();
        assert_eq!(stored.data.visits, visits, "{context}: visits stored, and seats that were got");
        assert!(stored.session().is_none(), "{context}: still locked");
        for server in &self.servers {
            assert_eq!(server.session_count(), 0, "{context}");
            assert!(server.shutdown().await.is_complete(), "{context}");
        }
    }
}

/// Counts a visit where it is stored and here, unless the seat is lost already.
fn note_visit(seat: &Seat, visits: &AtomicU64) {
    if seat.profile().update(|data| data.visits += 1).is_ok() {
        visits.fetch_add(1, Ordering::SeqCst);
    }
}

const LONG: Duration = Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn of_two_connections_at_once_the_later_one_has_the_seat() {
    for moment in moments() {
        let house = House::new(1).await;
        let first = tokio::spawn(house.connect(0, LONG));
        tokio::time::sleep(moment).await;
        let later = tokio::spawn(house.connect(0, LONG));
        let context = format!("second connection after {moment:?}");
        // The first is told to go, or has never come in.
        match first.await.unwrap() {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Superseded, "{context}"),
        }
        assert!(!later.is_finished(), "{context}: the later one does not sit");
        assert!(later.await.unwrap().is_ok(), "{context}");
        house.close(&context).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_connections_at_once_one_has_the_seat_at_any_time() {
    let house = House::new(1).await;
    let seated = Arc::new(AtomicU64::new(0));
    let mut connections = Vec::new();
    for number in 0..40 {
        let (seats, visits, seated) = (house.seats(0), house.visits.clone(), seated.clone());
        connections.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(number * 131 % 2000)).await;
            let Ok(seat) = seats.sit("ann").await else { return };
            if !seat.profile().is_over() {
                assert_eq!(seated.fetch_add(1, Ordering::SeqCst), 0, "two sit at once");
                let gone = seated.clone();
                seat.profile().on_session_end(move |_| {
                    gone.fetch_sub(1, Ordering::SeqCst);
                });
            }
            note_visit(&seat, &visits);
            let _ = tokio::time::timeout(LONG, seat.lost()).await;
            seat.leave().await.unwrap();
        }));
    }
    for connection in connections {
        connection.await.unwrap();
    }
    house.close("forty connections").await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_drops_while_it_loads_leaves_the_seat_free() {
    for moment in moments() {
        let house = House::new(1).await;
        let context = format!("dropped after {moment:?}");
        {
            let mut dropped = pin!(house.connect(0, LONG));
            let _ = tokio::time::timeout(moment, &mut dropped).await;
        }
        let next = tokio::time::timeout(
            Duration::from_secs(5),
            house.connect(0, Duration::from_millis(10)),
        );
        next.await.expect(&context).expect(&context);
        house.close(&context).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_comes_while_the_session_ends_gets_the_next_one() {
    for moment in moments() {
        let house = House::new(1).await;
        let context = format!("came {moment:?} after the end was called");
        let seats = house.seats(0);
        let first = seats.sit("ann").await.unwrap();
        note_visit(&first, &house.visits);
        let leaving = tokio::spawn(first.leave());
        tokio::time::sleep(moment).await;
        house.connect(0, Duration::from_millis(10)).await.expect(&context);
        leaving.await.unwrap().expect(&context);
        house.close(&context).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_comes_while_the_profile_moves_away_waits_for_its_turn() {
    for moment in moments() {
        let house = House::new(2).await;
        let context = format!("came {moment:?} after another server asked");
        let first = tokio::spawn(house.connect(0, LONG));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let moving = tokio::spawn(house.connect(1, LONG));
        tokio::time::sleep(moment).await;
        let back = house.connect(0, Duration::from_millis(10)).await;
        // Of two servers that ask, the later one gets it.
        for came in [back, first.await.unwrap(), moving.await.unwrap()] {
            match came {
                Ok(()) => {}
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::TakenElsewhere | ErrorKind::Superseded),
                    "{context}: {error}"
                ),
            }
        }
        assert!(house.visits.load(Ordering::SeqCst) >= 2, "{context}");
        house.close(&context).await;
    }
}
