//! Data that is kept outside of the library, changes of waiting messages, and starts that decide
//! about held profiles.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use profilestore::{
    Attribution, Edit, ErrorKind, GameServer, LastSave, Profile, ProfileKey, SessionEnd,
    StartOptions, WhenHeld,
    keeper::{Collect, Collected, Keeper},
    roblox::InboxChange,
};
use serde_json::{Map, json};

use crate::world::{Fault, Player, World, coins, open, players, settle};

/// Keeps a player as a script would.
#[derive(Clone, Default)]
struct Script {
    kept: Arc<Mutex<Collected<Player>>>,
    asked: Arc<Mutex<Vec<Collect>>>,
    /// What is wrong with the data, if something is.
    problem: Arc<Mutex<Option<String>>>,
    panics: Arc<AtomicBool>,
    panics_when_told: Arc<AtomicBool>,
    inbox_changes: Arc<Mutex<usize>>,
}

impl Script {
    fn set(&self, coins: i64) {
        self.kept.lock().data = Some(Player { coins, ..Player::default() });
    }
}

impl Keeper<Player> for Script {
    fn collect(&self, why: Collect) -> Result<Collected<Player>, String> {
        self.asked.lock().push(why);
        assert!(!self.panics.load(Ordering::Relaxed), "the script is broken");
        match &*self.problem.lock() {
            Some(problem) => Err(problem.clone()),
            None => Ok(self.kept.lock().clone()),
        }
    }

    fn edited(&self, data: &Player) {
        self.kept.lock().data = Some(data.clone());
    }

    fn inbox_changed(&self) {
        *self.inbox_changes.lock() += 1;
        assert!(!self.panics_when_told.load(Ordering::Relaxed), "the script is broken");
    }
}

async fn kept(server: &GameServer) -> (Profile<Player>, Script) {
    let (profile, script) = (open(server, "p").await, Script::default());
    profile.keep(script.clone());
    (profile, script)
}

fn errors(server: &GameServer) -> Arc<Mutex<Vec<String>>> {
    let errors = Arc::new(Mutex::new(Vec::new()));
    let seen = errors.clone();
    server.on_error(move |message, _| seen.lock().push(message.to_owned()));
    errors
}

#[tokio::test(start_paused = true)]
async fn a_keeper_is_asked_before_every_save_and_after_the_end() {
    let world = World::new();
    let server = world.server("a").await;
    let (profile, script) = kept(&server).await;
    script.set(1);
    script.kept.lock().user_ids = Some(vec![7]);
    script.kept.lock().meta_tags = Some(Map::from_iter([("tag".to_owned(), json!(5))]));
    profile.save().await.unwrap();
    assert_eq!((coins(&server, "p").await, profile.user_ids()), (1, vec![7]));
    assert_eq!(profile.saved_meta_tags()["tag"], 5);
    let commits = profile.key_info().number;
    profile.save().await.unwrap();
    assert_eq!(
        profile.key_info().number,
        commits,
        "what is handed over again is not written again"
    );
    let (late, ended) = (script.clone(), Arc::new(Mutex::new(false)));
    let seen = ended.clone();
    profile.on_session_end(move |_| {
        late.set(3);
        *seen.lock() = true;
    });
    script.set(2);
    profile.end_session().await.unwrap();
    assert!(*ended.lock());
    assert_eq!(coins(&server, "p").await, 3, "what the listener of the end changed is saved");
    assert_eq!(profile.key_info().number, commits + 1, "also its listeners know the last version");
    let last = [
        Collect::Save,
        Collect::Save,
        Collect::LastSave(LastSave::Manual),
        Collect::Ended(SessionEnd::Manual),
    ];
    assert_eq!(*script.asked.lock(), last);
    assert_eq!(Arc::strong_count(&script.asked), 1, "the session holds its keeper no longer");
}

#[tokio::test(start_paused = true)]
async fn data_that_cannot_be_handed_over_is_told_and_costs_only_itself() {
    let world = World::new();
    let server = world.server("a").await;
    let errors = errors(&server);
    let (profile, script) = kept(&server).await;
    script.set(1);
    profile.save().await.unwrap();
    *script.problem.lock() = Some("Data.x: a function".to_owned());
    assert_eq!(profile.save().await.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(
        profile.is_active()
            && errors.lock().len() == 1
            && errors.lock()[0].contains("Data.x: a function")
    );
    *script.problem.lock() = None;
    script.kept.lock().user_ids = Some(vec![-1]);
    assert!(profile.save().await.is_err() && profile.is_active());
    script.kept.lock().user_ids = None;
    script.set(2);
    profile.save().await.unwrap();
    *script.problem.lock() = Some("Data.y: NaN".to_owned());
    assert_eq!(profile.end_session().await.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(
        profile.is_active() && errors.lock().last().unwrap().contains("Data.y: NaN"),
        "{errors:?}"
    );
    *script.problem.lock() = None;
    profile.end_session().await.unwrap();
    assert_eq!(coins(&server, "p").await, 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_keeper_has_processed_leaves_with_its_data_in_one_commit() {
    let world = World::new();
    let server = world.server("a").await;
    let (profile, script) = kept(&server).await;
    players(&server).send_message("p", &1).await.unwrap();
    settle().await;
    assert_eq!(*script.inbox_changes.lock(), 1);
    let index = profile.waiting_messages()[0].index;
    script.set(10);
    script.kept.lock().processed = vec![index, 999];
    // It is applied, and nobody knows: the same commit again.
    world.store.plan().fail(Fault::AnswerLost, 1);
    profile.save().await.unwrap();
    let read = players(&server).get("p").await.unwrap().unwrap();
    assert!(
        read.waiting_messages().is_empty()
            && read.data.coins == 10
            && profile.waiting_messages().is_empty()
    );
    // Naming it again does no harm.
    script.set(11);
    profile.end_session().await.unwrap();
    assert_eq!(coins(&server, "p").await, 11);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_handed_over_takes_no_message_along() {
    let world = World::new();
    let server = world.server("a").await;
    let (profile, script) = kept(&server).await;
    players(&server).send_message("p", &1).await.unwrap();
    settle().await;
    let index = profile.waiting_messages()[0].index;
    script.kept.lock().processed = vec![index];
    script.kept.lock().user_ids = Some(vec![-1]);
    assert_eq!(profile.end_session().await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(players(&server).get("p").await.unwrap().unwrap().waiting_messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn messages_are_locked_with_a_save() {
    let world = World::new();
    let server = world.server("a").await;
    let (profile, script) = kept(&server).await;
    players(&server).send_message("p", &1).await.unwrap();
    settle().await;
    let index = profile.waiting_messages()[0].index;
    script.kept.lock().locked = vec![index];
    profile.save().await.unwrap();
    assert!(profile.waiting_messages()[0].locked);
    let payload = Bytes::from_static(b"2");
    let change =
        move |_: &[_], _| Some(vec![InboxChange::Change { index, payload: payload.clone() }]);
    let refused =
        tokio::time::timeout(Duration::from_secs(60), players(&server).change_inbox("p", change))
            .await
            .unwrap();
    assert!(refused.is_err(), "a locked message stays as it is");
    profile.save().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_operators_edit_meets_what_the_keeper_has() {
    let world = World::new();
    let server = world.server("a").await;
    let (profile, script) = kept(&server).await;
    script.set(100);
    let key = ProfileKey::new("PlayerData", "global", "p").unwrap();
    let edit = Edit::new().increase("/coins", 5.into()).unwrap();
    server.operator(Attribution::new("ann")).edit(&key, &edit).await.unwrap();
    assert_eq!(script.kept.lock().data.as_ref().unwrap().coins, 105);
    profile.end_session().await.unwrap();
    assert_eq!(coins(&server, "p").await, 105);
    let asked = script.asked.lock().clone();
    assert!(asked.contains(&Collect::Edit), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn waiting_messages_are_changed_without_a_session() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let store = players(&a);
    let add =
        |text: &'static str| InboxChange::Add { payload: Bytes::from_static(text.as_bytes()) };
    assert!(
        store
            .change_inbox("p", move |_, _| Some(vec![add("1"), add("2"), add("3")]))
            .await
            .unwrap()
    );
    assert!(!store.change_inbox("p", |_, _| None).await.unwrap());
    let payload = Bytes::from_static(b"20");
    let asked = Arc::new(Mutex::new(0));
    let times = asked.clone();
    let edit = move |waiting: &[profilestore::data_store::StoredMessage], _| {
        *times.lock() += 1;
        let [first, second, _] = waiting else { panic!("three wait") };
        let change = InboxChange::Change { index: second.index, payload: payload.clone() };
        Some(vec![InboxChange::Remove { index: first.index }, change])
    };
    assert!(players(&b).change_inbox("p", edit).await.unwrap());
    let read = store.get("p").await.unwrap().unwrap();
    let payloads: Vec<_> = read
        .waiting_messages()
        .iter()
        .map(|message| (&message.payload[..], message.revision))
        .collect();
    assert_eq!(payloads, [(&b"20"[..], 2), (b"3", 1)]);
    assert_eq!(*asked.lock(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_decides_about_a_held_profile() {
    let mut world = World::new();
    world.settings.load_repeat_period = Duration::from_secs(7);
    let (a, b) = (world.server("a").await, world.server("b").await);
    let start = |decide: fn(usize) -> WhenHeld| {
        let holders = Arc::new(Mutex::new(Vec::new()));
        let seen = holders.clone();
        let options = StartOptions::new().when_held(move |holder| {
            let mut seen = seen.lock();
            seen.push(holder.job_id.clone());
            decide(seen.len())
        });
        (players(&b).start_session_with("p", options), holders)
    };
    let held = open(&a, "p").await;

    let (given_up, holders) = start(|_| WhenHeld::GiveUp);
    assert_eq!(given_up.await.unwrap_err().kind(), ErrorKind::Cancelled);
    settle().await;
    assert!(held.is_active(), "it left no trace");
    assert_eq!(*holders.lock(), ["a"]);

    let began = tokio::time::Instant::now();
    let (waits, holders) = start(|times| if times < 3 { WhenHeld::Wait } else { WhenHeld::Ask });
    let taken = waits.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 14);
    assert!(!held.is_active() && holders.lock().len() == 3);
    taken.end_session().await.unwrap();

    let held = open(&a, "p").await;
    let (steals, _) = start(|_| WhenHeld::Steal);
    assert!(steals.await.unwrap().is_active());
    settle().await;
    assert!(!held.is_active());
}

/// The save that asked it never answered, and the session could not be ended.
#[tokio::test(start_paused = true)]
async fn a_keeper_that_panics_costs_its_save_and_blocks_nothing() {
    let world = World::new();
    let server = world.server("a").await;
    let (profile, script) = kept(&server).await;
    script.set(3);
    script.panics.store(true, Ordering::Relaxed);
    assert_eq!(profile.save().await.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(profile.is_active());
    script.panics.store(false, Ordering::Relaxed);
    profile.end_session().await.unwrap();
    assert_eq!(coins(&server, "p").await, 3);
}

/// The store refused every save of it, the last one too.
#[tokio::test(start_paused = true)]
async fn a_message_that_is_processed_need_not_be_locked() {
    let world = World::new();
    let server = world.server("a").await;
    players(&server).send_message("p", &1).await.unwrap();
    let (profile, script) = kept(&server).await;
    script.set(3);
    let index = profile.waiting_messages()[0].index;
    script.kept.lock().processed = vec![index];
    script.kept.lock().locked = vec![index];
    profile.save().await.unwrap();
    assert!(profile.waiting_messages().is_empty());
    profile.end_session().await.unwrap();
    assert_eq!(coins(&server, "p").await, 3);
}

/// The save that told it was answered as broken off, and so was an end, which let nothing go then.
#[tokio::test(start_paused = true)]
async fn a_keeper_that_panics_when_it_is_told_of_messages_breaks_off_no_save() {
    let world = World::without_messenger();
    let (server, other) = (world.server("a").await, world.server("b").await);
    let (profile, script) = kept(&server).await;
    script.set(3);
    script.panics_when_told.store(true, Ordering::Relaxed);
    players(&other).send_message("p", &1).await.unwrap();
    profile.save().await.unwrap();
    assert_eq!((*script.inbox_changes.lock(), profile.waiting_messages().len()), (1, 1));
    profile.end_session().await.unwrap();
    assert_eq!(open(&other, "p").await.data().coins, 3);
}
