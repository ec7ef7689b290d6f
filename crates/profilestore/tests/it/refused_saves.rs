//! Saves that are refused, by size, by value, or by the program itself: the session goes on until
//! the data is mended.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use profilestore::{
    Attribution, Edit, ErrorKind, GameServer, Message, Profile, ProfileStore, SessionEnd,
    record::MAX_DATA_BYTES,
};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::world::{Fault, Player, World, coins, earn, open, players, settle};

fn spoil(profile: &Profile<Player>) {
    profile.update(|data| data.items = vec!["x".repeat(MAX_DATA_BYTES)]).unwrap();
}

fn mend(profile: &Profile<Player>) {
    profile.update(|data| data.items.clear()).unwrap();
}

fn ends(profile: &Profile<Player>) -> Arc<Mutex<Vec<SessionEnd>>> {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let seen = ends.clone();
    profile.on_session_end(move |end| seen.lock().push(end));
    ends
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_last_save_is_too_large_stays_active_until_it_is_mended() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    let ends = ends(&profile);
    earn(&profile, 500);
    spoil(&profile);
    let error = profile.end_session().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(
        error.to_string().contains("the session goes on")
            && error.to_string().contains("it is too large"),
        "{error}"
    );
    assert!(profile.is_active() && !profile.is_over() && ends.lock().is_empty());
    assert_eq!(coins(&b, "p").await, 0);
    mend(&profile);
    profile.end_session().await.unwrap();
    assert_eq!((coins(&b, "p").await, profile.is_over()), (500, true));
    assert_eq!(*ends.lock(), [SessionEnd::Manual]);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_refused_behind_a_transaction_leaves_the_session_too() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = (open(&a, "alice").await, open(&a, "bob").await);
    spoil(&alice);
    let to = bob.clone();
    let trade =
        a.transaction().with(&bob).with(&alice).run(move |tx| tx.edit(&to, |data| data.coins += 1));
    let end = alice.end_session();
    assert_eq!(trade.await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(end.await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(alice.is_active());
    mend(&alice);
    alice.end_session().await.unwrap();
    assert!(a.shutdown().await.is_complete());
}

/// It heard that the session was over. A program lets the player go then, and the session went on.
#[tokio::test(start_paused = true)]
async fn a_save_before_an_end_that_is_refused_hears_of_the_refusal() {
    let world = World::new();
    let a = world.server("a").await;
    let alice = open(&a, "alice").await;
    spoil(&alice);
    let same = alice.clone();
    let trade = a.transaction().with(&alice).run(move |tx| tx.edit(&same, |data| data.coins += 1));
    let (save, end) = (alice.save(), alice.end_session());
    assert_eq!(trade.await.unwrap_err().kind(), ErrorKind::TooLarge);
    let refused = save.await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge, "{refused}");
    assert_eq!(end.await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(alice.is_active());
    mend(&alice);
    alice.end_session().await.unwrap();
}

/// The second call joins the end of the first one. When that is refused, no end is ever done, so
/// waiting for one would take for ever.
#[tokio::test(start_paused = true)]
async fn a_second_end_that_joins_a_refused_one_is_answered_too() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = (open(&a, "alice").await, open(&a, "bob").await);
    spoil(&alice);
    let to = bob.clone();
    let trade =
        a.transaction().with(&bob).with(&alice).run(move |tx| tx.edit(&to, |data| data.coins += 1));
    let ends = [alice.end_session(), alice.end_session()];
    assert_eq!(trade.await.unwrap_err().kind(), ErrorKind::TooLarge);
    for end in ends {
        let answer =
            tokio::time::timeout(Duration::from_secs(60), end).await.expect("it is answered");
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::TooLarge);
    }
    mend(&alice);
    alice.end_session().await.unwrap();
    assert!(a.shutdown().await.is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_another_server_asks_for_goes_once_it_is_mended() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    let ends = ends(&profile);
    earn(&profile, 7);
    spoil(&profile);
    let there = players(&b);
    let start = tokio::spawn(async move { there.start_session("p").await });
    settle().await;
    assert!(profile.is_active() && ends.lock().is_empty() && !start.is_finished());
    mend(&profile);
    profile.save().await.unwrap();
    assert_eq!(start.await.unwrap().unwrap().data().coins, 7);
    assert_eq!(*ends.lock(), [SessionEnd::External]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lists_what_cannot_be_saved_and_lets_it_go_as_it_was_saved_last() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let (good, bad) = (open(&a, "good").await, open(&a, "bad").await);
    earn(&bad, 3);
    bad.save().await.unwrap();
    earn(&good, 5);
    earn(&bad, 5);
    spoil(&bad);
    let refused = bad.end_session().await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
    let report = a.shutdown().await;
    let [(key, error)] = &report.not_saved[..] else { panic!("{report:?}") };
    assert_eq!((key, error.kind()), (bad.key(), ErrorKind::TooLarge));
    assert_eq!((open(&b, "good").await.data().coins, open(&b, "bad").await.data().coins), (5, 3));
}

#[tokio::test(start_paused = true)]
async fn data_that_is_almost_too_large_is_told_once_until_it_was_smaller() {
    let world = World::new();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = told.clone();
    a.on_nearly_full(move |key, size| seen.lock().push((key.clone(), size)));
    let fill = async |bytes: usize| {
        profile.update(|data| data.items = vec!["x".repeat(bytes)]).unwrap();
        profile.save().await.unwrap();
        profile.size().unwrap()
    };
    let beside = fill(0).await;
    assert_eq!(beside, serde_json::to_string(&profile.data()).unwrap().len());
    let limit = MAX_DATA_BYTES / 5 * 4;
    fill(limit - beside).await;
    assert!(told.lock().is_empty());
    let size = fill(limit - beside + 1).await;
    fill(limit).await;
    assert_eq!(*told.lock(), [(profile.key().clone(), size)]);
    fill(0).await;
    fill(limit).await;
    assert_eq!(told.lock().len(), 2);
    spoil(&profile);
    assert_eq!(profile.size().unwrap(), MAX_DATA_BYTES + beside);
}

#[tokio::test(start_paused = true)]
async fn a_validator_refuses_saves_loads_edits_and_transactions_and_nothing_is_changed() {
    let world = World::new();
    let a = world.server("a").await;
    let rich =
        |data: &Player| if data.coins < 0 { Err(format!("{} coins", data.coins)) } else { Ok(()) };
    let store =
        a.store_builder("PlayerData").template(Player::default()).validate(rich).build().unwrap();
    let profile = store.start_session("p").await.unwrap();
    earn(&profile, -1);
    let refused = |error: &profilestore::Error| {
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("coins"), "{error}");
    };
    refused(&profile.save().await.unwrap_err());
    refused(&profile.end_session().await.unwrap_err());
    assert!(profile.is_active());
    earn(&profile, 1);
    profile.save().await.unwrap();
    let from = profile.clone();
    let trade =
        a.transaction().with(&profile).run(move |tx| tx.edit(&from, |data| data.coins -= 5));
    refused(&trade.await.unwrap_err());
    assert_eq!(profile.data().coins, 0);
    let edit = Edit::new().increase("/coins", (-9).into()).unwrap();
    let error = a.operator(Attribution::new("ann")).edit(profile.key(), &edit).await.unwrap_err();
    assert!(error.to_string().contains("validator refused the data: -9 coins"), "{error}");
    let mut view = store.get("p").await.unwrap().unwrap();
    view.data.coins = -2;
    refused(&view.set().await.unwrap_err());
    profile.end_session().await.unwrap();

    // An edit of a profile that nobody holds knows no validator; then it is not loaded, and no lock
    // stays.
    a.operator(Attribution::new("ann")).edit(profile.key(), &edit).await.unwrap();
    refused(&store.start_session("p").await.unwrap_err());
    refused(&store.get("p").await.unwrap_err());
    assert_eq!(players(&a).get("p").await.unwrap().unwrap().session(), None);
    let undo = Edit::new().increase("/coins", 9.into()).unwrap();
    a.operator(Attribution::new("ann")).edit(profile.key(), &undo).await.unwrap();
    store.start_session("p").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_save_that_the_program_asks_for_can_be_vetoed_and_an_autosave_cannot() {
    let world = World::new();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    let veto = profile.veto_save(|data| {
        if data.coins == 1 { Err("in the middle of a fight".into()) } else { Ok(()) }
    });
    profile.on_save(|data| data.items.push("saved".into()));
    earn(&profile, 1);
    let error = profile.save().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("vetoed: in the middle of a fight"), "{error}");
    assert_eq!(coins(&a, "p").await, 0);
    tokio::time::sleep(a.settings().autosave_period + Duration::from_secs(1)).await;
    assert_eq!(coins(&a, "p").await, 1);
    veto.disconnect();
    earn(&profile, 0);
    profile.save().await.unwrap();
}

/// Saves data of a type once and gives the error.
async fn saved<T: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static>(
    verify: bool,
) -> Result<(), String> {
    let mut world = World::new();
    world.settings.verify_saves = verify;
    let a = world.server("a").await;
    let profile = a
        .store_builder::<Option<T>>("PlayerData")
        .template(None)
        .build()
        .unwrap()
        .start_session("p")
        .await
        .unwrap();
    profile.update(|data| *data = Some(T::default())).unwrap();
    profile.save().await.map_err(|error| error.to_string())
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Forgets {
    #[serde(skip_serializing)]
    #[expect(dead_code, reason = "what is forgotten")]
    coins: i64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Changes {
    list: Vec<Doubles>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { list: vec![Doubles(0), Doubles(1)] }
    }
}

#[derive(Clone, Serialize)]
struct Doubles(i64);

impl<'de> Deserialize<'de> for Doubles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer).map(|number| Self(2 * number))
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Sets {
    names: HashSet<String>,
}

impl Default for Sets {
    fn default() -> Self {
        Self { names: (0..50).map(|n| n.to_string()).collect() }
    }
}

#[tokio::test(start_paused = true)]
async fn a_type_that_does_not_open_as_it_was_saved_is_found_at_the_save() {
    let forgets = saved::<Forgets>(true).await.unwrap_err();
    assert!(
        forgets.contains("does not open again as it is: at ``: missing field `coins`"),
        "{forgets}"
    );
    let changes = saved::<Changes>(true).await.unwrap_err();
    assert!(changes.contains("at `/list/1`: it would be another value"), "{changes}");
    assert_eq!(saved::<Sets>(true).await, Ok(()), "the order of a set is no difference");
    assert_eq!((saved::<Forgets>(false).await, saved::<Changes>(false).await), (Ok(()), Ok(())));
}

#[tokio::test(start_paused = true)]
async fn a_field_that_a_new_template_fills_at_each_load_is_found_at_the_save() {
    #[derive(Clone, Default, Serialize, Deserialize)]
    struct Bag {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        items: Vec<String>,
    }
    let mut world = World::new();
    world.settings.verify_saves = true;
    let a = world.server("a").await;
    let template = Bag { items: vec!["sword".into()] };
    let store = a.store_builder("PlayerData").template(template).reconcile().build().unwrap();
    let profile = store.start_session("p").await.unwrap();
    profile.update(|data| data.items.clear()).unwrap();
    let error = profile.save().await.unwrap_err();
    assert!(error.to_string().contains("at `/items`"), "{error}");
    assert_eq!(json!(profile.last_saved_data().items), json!(["sword"]));
}

/// What came while it ended was not looked at afterwards: the session stayed inactive.
#[tokio::test(start_paused = true)]
async fn a_session_whose_end_was_refused_looks_at_what_came_meanwhile() {
    let world = World::new();
    let way = world.another_way();
    let (a, b) = (world.server_on("a", way.clone()).await, world.server("b").await);
    let (alice, bob) = (open(&a, "alice").await, open(&a, "bob").await);
    spoil(&alice);
    way.plan().cut_off();
    let to = bob.clone();
    let trade = a.transaction().with(&bob).with(&alice).deadline(Duration::from_secs(300));
    let trade = tokio::spawn(trade.run(move |tx| tx.edit(&to, |data| data.coins += 1)));
    settle().await;
    let end = tokio::spawn(alice.end_session());
    settle().await;
    players(&b).send_message("alice", &1).await.unwrap();
    way.plan().heal();
    let error = end.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let _ = trade.await.unwrap();
    mend(&alice);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(alice.is_active() && !alice.is_over());
    alice.end_session().await.unwrap();
}

/// Its handler counted as having been offered what it was refused.
#[tokio::test(start_paused = true)]
async fn a_handler_registered_while_an_end_waits_that_is_refused_gets_what_waits() {
    let world = World::new();
    let way = world.another_way();
    let (a, b) = (world.server_on("a", way.clone()).await, world.server("b").await);
    players(&b).send_message("alice", &1).await.unwrap();
    let (alice, bob) = (open(&a, "alice").await, open(&a, "bob").await);
    spoil(&alice);
    way.plan().cut_off();
    let to = bob.clone();
    let trade = a.transaction().with(&bob).with(&alice).deadline(Duration::from_secs(300));
    let trade = tokio::spawn(trade.run(move |tx| tx.edit(&to, |data| data.coins += 1)));
    settle().await;
    let end = tokio::spawn(alice.end_session());
    settle().await;
    alice.message_handler(|data, message: &Message<'_>| {
        data.coins += 7;
        message.processed();
    });
    way.plan().heal();
    assert_eq!(end.await.unwrap().unwrap_err().kind(), ErrorKind::TooLarge);
    let _ = trade.await.unwrap();
    mend(&alice);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(alice.data().coins, 7);
    alice.end_session().await.unwrap();
    assert_eq!(coins(&b, "alice").await, 7);
}

// --- a session that no caller has ---------------------------------------------------------------

type Starting = BoxFuture<'static, profilestore::Result<Profile<Player>>>;

/// Players that cannot be stored while `refuses` says so, or the function does.
fn refusing(
    server: &GameServer,
    refuses: &Arc<AtomicBool>,
    sees: impl Fn(&Player) + Send + Sync + 'static,
) -> ProfileStore<Player> {
    let refuses = refuses.clone();
    let validate = move |data: &Player| {
        if refuses.load(Ordering::SeqCst) {
            return Err("not today".to_owned());
        }
        sees(data);
        Ok(())
    };
    let builder = server.store_builder("PlayerData").template(Player::default());
    builder.validate(validate).build().unwrap()
}

/// A profile with five coins, whose holder is dead, and an operator's edit that adds seven: it
/// waits for the next start.
async fn leave_an_edit(world: &World, operators: &GameServer) {
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    earn(&profile, 5);
    profile.save().await.unwrap();
    a.crash();
    let more = Edit::new().increase("/coins", 7.into()).unwrap();
    let operator = operators.operator(Attribution::new("ann"));
    let patience = Duration::from_secs(3);
    let waits = operator.edit_as(world.env.uuid(), profile.key(), &more, patience).await;
    assert_eq!(waits.unwrap_err().kind(), ErrorKind::Unknown);
}

/// It stayed open for ever: no start on this server got in any more, and no other server was let
/// in.
#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_took_ends_also_when_its_data_cannot_be_saved() {
    let world = World::new();
    let way = world.another_way();
    let b = world.server_on("b", way.clone()).await;
    leave_an_edit(&world, &b).await;
    let refuses = Arc::new(AtomicBool::new(false));
    let store = refusing(&b, &refuses, |_| ());
    let starting = store.start_session("p");
    tokio::time::sleep(Duration::from_secs(5)).await;
    // The taking gets through, and the save of the edit does not.
    way.plan().fail(Fault::RequestLost, u64::MAX);
    way.plan().spare(1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(b.session_count(), 1);
    refuses.store(true, Ordering::SeqCst);
    // Delivered, and never taken.
    drop(starting);
    way.plan().heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    refuses.store(false, Ordering::SeqCst);
    assert_eq!(store.start_session("p").await.unwrap().data().coins, 12);
}

/// Its end ran under the lock of the sessions, so what the program called from it waited for ever.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_whose_caller_goes_away_meanwhile_locks_nothing() {
    let world = World::new();
    let b = world.server("b").await;
    leave_an_edit(&world, &b).await;
    let heard = Arc::new(AtomicBool::new(false));
    let (server, hears) = (b.clone(), heard.clone());
    b.on_error(move |_, _| {
        let _ = server.session_count();
        hears.store(true, Ordering::SeqCst);
    });
    let starting = Arc::new(Mutex::new(None::<Starting>));
    let refuses = Arc::new(AtomicBool::new(false));
    let (leaves, refuse) = (starting.clone(), refuses.clone());
    let store = refusing(&b, &refuses, move |data| {
        if data.coins == 12 {
            // The edit is being made, before the session is delivered.
            let left = leaves.lock().take();
            refuse.store(left.is_some(), Ordering::SeqCst);
        }
    });
    *starting.lock() = Some(store.start_session("p").boxed());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(heard.load(Ordering::SeqCst), "its last save was refused");
    refuses.store(false, Ordering::SeqCst);
    assert_eq!(store.start_session("p").await.unwrap().data().coins, 12);
}
