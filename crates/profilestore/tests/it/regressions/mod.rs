//! What goes wrong only when things meet: an end and a start, a reply and a hint, a save and a
//! handler, a panic anywhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use profilestore::{
    ErrorKind, GameServer, Message, ProfileKey, StartOptions,
    data_store::{
        Cause, Change, Commit, CommitId, CommitReply, DataStore, DataStoreExt, Identity, KeyQuery,
        KeyState, MemoryStore, NewValue, Retention, Returning, ServerId, ServerRow, Snapshot,
        StoreError, StoredVersion, SweepCursor, SweepReport, VersionInfo, VersionLinks,
        VersionQuery, VersionRef, fault,
    },
    env::{Clock, Env, SystemRng},
};
use serde::{Deserialize, Serialize, Serializer, ser::Error as _};
use serde_json::json;

use crate::world::{Fault, FaultyStore, World, coins, earn, on_command, open, players, settle};

pub mod clocks;
mod ends;
mod restored;
mod thefts;

#[tokio::test(start_paused = true)]
async fn an_edit_taken_back_after_an_unknown_save_is_taken_back_in_the_store_too() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    earn(&profile, 5);
    world.store.plan().fail(Fault::AnswerLost, 2);
    let save = tokio::spawn(profile.save());
    settle().await;
    earn(&profile, -5);
    profile.end_session().await.unwrap();
    save.await.unwrap().unwrap();
    assert_eq!(coins(&b, "p").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_save_ends_while_another_handler_is_offered_earlier_ones_is_not_offered_again()
 {
    let world = World::new();
    let a = world.server("a").await;
    for _ in 0..2 {
        players(&a).send_message("p", &json!({})).await.unwrap();
    }
    let profile = open(&a, "p").await;
    profile.message_handler(|data, message: &Message<'_>| {
        if message.index() == 2 {
            data.coins += 5;
            message.processed();
        }
    });
    let (entered, offered) = mpsc::channel::<()>();
    let (go_on, wait) = mpsc::channel::<()>();
    let (entered, wait) = (Mutex::new(entered), Mutex::new(wait));
    let late = profile.clone();
    let thread = std::thread::spawn(move || {
        late.message_handler(move |data, message: &Message<'_>| {
            if message.index() == 1 {
                entered.lock().send(()).unwrap();
                wait.lock().recv().unwrap();
            }
            data.coins += 100;
            message.processed();
        });
    });
    offered.recv().unwrap();
    profile.save().await.unwrap();
    go_on.send(()).unwrap();
    thread.join().unwrap();
    assert_eq!(profile.data().coins, 105);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_function_that_panics_ends_its_start_and_nothing_else() {
    let world = World::new();
    let a = world.server("a").await;
    for calls_before in [0, 1, 2] {
        let calls = std::sync::atomic::AtomicU32::new(0);
        let options = StartOptions::new().cancel(move || {
            assert!(calls.fetch_add(1, Ordering::SeqCst) < calls_before, "on purpose");
            false
        });
        let start = tokio::time::timeout(
            Duration::from_secs(5),
            players(&a).start_session_with("p", options),
        );
        match start.await.expect("the start ends") {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled),
            Ok(profile) => profile.end_session().await.unwrap(),
        }
        open(&a, "p").await.end_session().await.unwrap();
    }
    assert!(a.shutdown().await.is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_overtakes_the_answer_of_a_start_is_heard() {
    let world = World::new();
    let slow = Detour::new(world.store.clone());
    let (a, b) = (world.server_on("a", slow.clone()).await, world.server("b").await);
    // Long enough for a renewal to bring the notice, too.
    slow.answer_late(Duration::from_secs(6));
    let on_a = tokio::spawn(players(&a).start_session("p"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = tokio::time::Instant::now();
    let on_b = tokio::spawn(players(&b).start_session("p"));
    let on_a = on_a.await.unwrap().unwrap();
    slow.answer_late(Duration::ZERO);
    earn(&on_a, 7);
    let on_b = on_b.await.unwrap().unwrap();
    assert_eq!(on_b.data().coins, 7, "handed over, not stolen");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

/// Data whose author made a mistake.
#[derive(Debug, Clone, Default, Deserialize)]
struct Touchy {
    coins: i64,
}

impl Serialize for Touchy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.coins != 13, "on purpose");
        if self.coins == 14 {
            return Err(S::Error::custom("on purpose"));
        }
        json!({"coins": self.coins}).serialize(serializer)
    }
}

#[tokio::test(start_paused = true)]
async fn data_whose_serializer_panics_leaves_no_lock() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    for bad in [13, 14] {
        let store = a.store_builder("PlayerData").template(Touchy::default()).build().unwrap();
        let profile = store.start_session("p").await.unwrap();
        profile.update(|data| data.coins = bad).unwrap();
        assert_eq!(profile.save().await.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(profile.end_session().await.unwrap_err().kind(), ErrorKind::Invalid);
        // The session goes on until its data is mended; then it ends as any other.
        profile.update(|data| data.coins = 1).unwrap();
        profile.end_session().await.unwrap();
        let began = tokio::time::Instant::now();
        open(&b, "p").await.end_session().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_behind_a_save_that_waits_for_the_store_gives_up_in_its_time() {
    let world = World::new();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    earn(&profile, 7);
    world.store.plan().cut_off();
    let save = tokio::spawn(profile.save());
    settle().await;
    let began = tokio::time::Instant::now();
    let sent = tokio::time::timeout(
        Duration::from_secs(100),
        players(&a).send_message("p", &json!({"coins": 5})),
    );
    assert_eq!(sent.await.expect("it gives up").unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(began.elapsed() <= Duration::from_secs(31), "{:?}", began.elapsed());
    world.store.plan().heal();
    save.await.unwrap().unwrap();
    settle().await;
    assert!(
        players(&a).get("p").await.unwrap().unwrap().waiting_messages().is_empty(),
        "nothing was done"
    );
}

#[tokio::test(start_paused = true)]
async fn a_shorter_autosave_period_holds_for_sessions_that_are_open_already() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let (first, profile) = (open(&a, "first").await, open(&a, "p").await);
    earn(&profile, 3);
    a.set_constant("AUTO_SAVE_PERIOD", 2.0).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(coins(&b, "p").await, 3);
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_does_not_arrive_after_all() {
    let mut world = World::new();
    world.settings.max_message_queue = 1;
    let detour = Detour::new(world.store.clone());
    let (a, b) = (world.server_on("a", detour.clone()).await, world.server("b").await);
    detour.hold_back_next();
    let sent = tokio::spawn(players(&a).send_message("p", &json!({"n": 1})));
    settle().await;
    players(&b).send_message("p", &json!({"n": 2})).await.unwrap();
    assert_eq!(sent.await.unwrap().unwrap_err().kind(), ErrorKind::InboxFull);
    // The inbox is emptied, and the first request arrives at last.
    let profile = open(&b, "p").await;
    profile.message_handler(|_, message: &Message<'_>| message.processed());
    profile.end_session().await.unwrap();
    detour.let_through().await;
    assert!(players(&b).get("p").await.unwrap().unwrap().waiting_messages().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_finds_the_keys_queue_full_is_answered_when_its_turn_comes() {
    let mut world = World::new();
    world.settings.max_key_queue = 1;
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let profile = open(&a, "p").await;
    earn(&profile, 7);
    // Longer than it takes for the hint and for the notice.
    own_way.plan().delay_reads(10_000);
    let reads = [tokio::spawn(players(&a).get("p")), tokio::spawn(players(&a).get("p"))];
    settle().await;
    let on_b = open(&b, "p").await;
    assert_eq!(on_b.data().coins, 7, "handed over, not stolen");
    for read in reads {
        read.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn profiles_that_are_being_opened_count() {
    let world = World::new();
    let a = world.server("a").await;
    let _open = open(&a, "p").await;
    world.store.plan().cut_off();
    let opening = tokio::spawn(players(&a).start_session("q"));
    settle().await;
    assert_eq!(a.session_count(), 2);
    opening.abort();
}

/// A way to a store on which answers come late, requests are held back, and which may lead to
/// another store one day.
#[derive(Debug, Clone)]
pub struct Detour {
    to: Arc<Mutex<FaultyStore>>,
    answer: Arc<Mutex<Duration>>,
    read: Arc<Mutex<Duration>>,
    hold: Arc<AtomicBool>,
    held: Arc<Mutex<Vec<Commit>>>,
    slipped: Arc<Mutex<Vec<Commit>>>,
    refusal: Arc<Mutex<Option<StoreError>>>,
}

impl Detour {
    pub fn new(to: FaultyStore) -> Self {
        Self {
            to: Arc::new(Mutex::new(to)),
            answer: Arc::default(),
            read: Arc::default(),
            hold: Arc::default(),
            held: Arc::default(),
            slipped: Arc::default(),
            refusal: Arc::default(),
        }
    }

    /// The next commit is not made, for this reason. Renewals are spared.
    pub fn refuse_next(&self, why: StoreError) {
        *self.refusal.lock() = Some(why);
    }

    /// Another server's commit arrives right before the next one.
    pub fn slip_in(&self, commit: Commit) {
        self.slipped.lock().push(commit);
    }

    /// Commits are applied at once and answered after this long. Renewals are spared.
    pub fn answer_late(&self, by: Duration) {
        *self.answer.lock() = by;
    }

    pub fn read_late(&self, by: Duration) {
        *self.read.lock() = by;
    }

    pub fn lead_to(&self, store: FaultyStore) {
        *self.to.lock() = store;
    }

    /// The next commit stays under way, and nobody can tell.
    pub fn hold_back_next(&self) {
        self.hold.store(true, Ordering::SeqCst);
    }

    pub async fn let_through(&self) {
        let held = std::mem::take(&mut *self.held.lock());
        let to = self.to();
        to.commit(held).await;
    }

    fn to(&self) -> FaultyStore {
        self.to.lock().clone()
    }
}

#[async_trait]
impl DataStore for Detour {
    async fn identity(&self) -> Result<Identity, StoreError> {
        self.to().identity().await
    }

    async fn read(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        let late = *self.read.lock();
        let read = self.to().read(keys, returning).await;
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        read
    }

    async fn version(
        &self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError> {
        self.to().version(key, version).await
    }

    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        self.to().versions(query).await
    }

    async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError> {
        self.to().links(key, after, limit).await
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        self.to().keys(query).await
    }

    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        self.to().servers().await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        let renewal = commits.iter().all(|commit| {
            commit.changes.iter().all(|change| matches!(change, Change::RenewServer { .. }))
        });
        if renewal {
            return self.to().commit(commits).await;
        }
        if let Some(why) = self.refusal.lock().take() {
            return commits.iter().map(|_| Err(why.clone())).collect();
        }
        let slipped = std::mem::take(&mut *self.slipped.lock());
        if !slipped.is_empty() {
            self.to().commit(slipped).await;
        }
        if self.hold.swap(false, Ordering::SeqCst) {
            let unknown = |commit: &Commit| StoreError::Indeterminate {
                commit: commit.id,
                reason: "on command".into(),
            };
            let answers = commits.iter().map(|commit| Err(unknown(commit))).collect();
            self.held.lock().extend(commits);
            return answers;
        }
        let late = *self.answer.lock();
        let answers = self.to().commit(commits).await;
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        answers
    }

    async fn commit_by(
        &self,
        commits: Vec<Commit>,
        _: tokio::time::Instant,
    ) -> Vec<Result<CommitReply, StoreError>> {
        self.commit(commits).await
    }

    async fn sweep(
        &self,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        self.to().sweep(retention, cursor).await
    }
}

/// The first calls fail.
#[derive(Debug)]
struct FirstFail(std::sync::atomic::AtomicU64);

impl fault::StorePlan for FirstFail {
    fn fate(&self, _: fault::Call<'_>) -> fault::Fate {
        let mut fate = fault::Fate::default();
        let left =
            self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        fate.fault = left.is_ok().then_some(fault::Fault::RequestLost);
        fate
    }
}

/// It is asked whose contents it holds before anything is registered, which was not tried again.
#[tokio::test(start_paused = true)]
async fn a_server_starts_though_the_store_does_not_answer_at_first() {
    for failures in 0..=3 {
        let world = World::new();
        let inner = Arc::new(MemoryStore::new(world.env.clone()));
        let store = fault::FaultyStore::new(inner, FirstFail(failures.into()));
        let server = world.server_on("a", store).await;
        assert!(open(&server, "p").await.is_active());
    }
}

/// Reads alone were taken for contact: with a full disk nobody can renew, and everybody judged
/// everybody else dead.
#[tokio::test(start_paused = true)]
async fn an_outage_of_writes_alone_makes_nobody_dead() {
    let world = World::new();
    let way = world.another_way();
    let (a, b) = (world.server_on("a", way.clone()).await, world.server("b").await);
    let profile = open(&a, "p").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    earn(&profile, 7);
    way.plan().refuse_writes();
    world.store.plan().refuse_writes();
    for _ in 0..40 {
        let _ = players(&b).get("p").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let starting = tokio::spawn(players(&b).start_session("p"));
    settle().await;
    world.store.plan().heal();
    tokio::time::sleep(Duration::from_secs(2)).await;
    way.plan().heal();
    assert_eq!(
        starting.await.unwrap().unwrap().data().coins,
        7,
        "it was handed over, and not taken from a server that lives"
    );
}
