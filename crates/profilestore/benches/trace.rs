//! One hand-over between two stores on one SQLite file, or on one PostgreSQL database with
//! LISTEN/NOTIFY, call by call: where its time goes.
//!
//! `cargo bench -p profilestore --bench trace`
//!
//! `cargo bench -p profilestore --bench trace -- process`: both on one store and one messenger
//!
//! `scripts/servers.sh cargo bench -p profilestore --features postgres --bench trace -- postgres`
//!
//! Both game servers are in this process, but each has a store and a messenger of its own, as two
//! processes have: what one commits, the other finds in the file or in the database.
//!
//! Beside it, what a hand-over is made of at least: three commits, one after the other, and two
//! hints. A bare hint is the time from a commit's answer, upon which the hint is sent, until the
//! messenger of the other store tells of it.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use profilestore::{
    GameServer, ProfileKey, ProfileStore,
    data_store::{
        Cause, Change, Commit, CommitId, CommitReply, DataStore, DataStoreExt as _, Holder,
        Identity, Incarnation, KeyQuery, KeyState, LeaseState, NewValue, Retention, Returning,
        ServerId, ServerRow, Snapshot, SqliteMessenger, SqliteStore, StoreError, StoredVersion,
        SweepCursor, SweepReport, VersionInfo, VersionLinks, VersionQuery, VersionRef,
    },
    env::Env,
    messenger::{Hint, LocalMessenger, Messenger},
};
use serde::{Deserialize, Serialize};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How many hand-overs are measured. The one whose time is in the middle is shown.
const TIMES: usize = 300;

/// How long nothing is done before a hand-over. One of a profile that has just been handed over is
/// a case of its own.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Player {
    coins: u64,
}

/// Where both servers have their stores.
enum Place {
    File(PathBuf),
    /// One store and one messenger for both, as game servers of one process have them.
    Process(SqliteStore, LocalMessenger),
    #[cfg(feature = "postgres")]
    Postgres(profilestore::data_store::PostgresOptions),
}

impl Place {
    /// A schema of its own in the database that the tests have.
    #[cfg(feature = "postgres")]
    async fn postgres() -> Outcome<Self> {
        let url = std::env::var("PROFILESTORE_TEST_POSTGRES")
            .map_err(|_| "PROFILESTORE_TEST_POSTGRES names the server: see scripts/servers.sh")?;
        let schema = Env::system().uuid().simple();
        let options = format!("{url}?schema=trace_{schema}").parse()?;
        profilestore::data_store::PostgresStore::migrate(&options, None).await?;
        Ok(Self::Postgres(options))
    }

    #[cfg(not(feature = "postgres"))]
    async fn postgres() -> Outcome<Self> {
        Err("build it with --features postgres".into())
    }

    fn name(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Process(..) => "file, in one process",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "database",
        }
    }

    /// A store as a process of its own has one, with its messenger.
    async fn open(&self) -> Outcome<(Arc<dyn DataStore>, Arc<dyn Messenger>)> {
        match self {
            Self::File(path) => {
                let store = SqliteStore::open(path, Default::default())?;
                let messenger = SqliteMessenger::new(&store);
                Ok((Arc::new(store), Arc::new(messenger)))
            }
            Self::Process(store, messenger) => {
                Ok((Arc::new(store.clone()), Arc::new(messenger.clone())))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(options) => {
                let store = profilestore::data_store::PostgresStore::open(options.clone()).await?;
                let messenger = profilestore::messenger::PostgresMessenger::new(options.clone())?;
                Ok((Arc::new(store), Arc::new(messenger)))
            }
        }
    }
}

/// A call of a store.
#[derive(Debug, Clone)]
struct Call {
    server: &'static str,
    what: String,
    from: Instant,
    to: Instant,
}

type Calls = Arc<Mutex<Vec<Call>>>;

/// A store that notes when it is called.
#[derive(Debug)]
struct Traced {
    server: &'static str,
    store: Arc<dyn DataStore>,
    calls: Calls,
}

impl Traced {
    async fn timed<T>(&self, what: String, call: impl Future<Output = T> + Send) -> T {
        let from = Instant::now();
        let answer = call.await;
        let call = Call { server: self.server, what, from, to: Instant::now() };
        self.calls.lock().push(call);
        answer
    }
}

/// What commits change, in a word for each change.
fn words(commits: &[Commit]) -> String {
    let changes = commits.iter().flat_map(|commit| &commit.changes);
    let words: Vec<_> = changes
        .map(|change| match change {
            Change::Write { .. } => "save",
            Change::Lease { .. } => "lease",
            Change::RenewServer { .. } => "renewal",
            _ => "other",
        })
        .collect();
    format!("commit: {}", words.join(", "))
}

#[async_trait]
impl DataStore for Traced {
    async fn identity(&self) -> Result<Identity, StoreError> {
        self.timed("identity".into(), self.store.identity()).await
    }

    async fn read(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        self.timed("look".into(), self.store.read(keys, returning)).await
    }

    async fn version(
        &self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError> {
        self.store.version(key, version).await
    }

    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        self.store.versions(query).await
    }

    async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError> {
        self.store.links(key, after, limit).await
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        self.store.keys(query).await
    }

    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        self.timed("servers".into(), self.store.servers()).await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        self.timed(words(&commits), self.store.commit(commits)).await
    }

    async fn commit_by(
        &self,
        commits: Vec<Commit>,
        deadline: tokio::time::Instant,
    ) -> Vec<Result<CommitReply, StoreError>> {
        self.timed(words(&commits), self.store.commit_by(commits, deadline)).await
    }

    async fn sweep(
        &self,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        self.store.sweep(retention, cursor).await
    }
}

fn main() -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let asked = |what: &str| std::env::args().any(|arg| arg == what);
    runtime.block_on(async {
        if asked("postgres") {
            return trace(&Place::postgres().await?).await;
        }
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("p.db");
        if asked("process") {
            let store = SqliteStore::open(&path, Default::default())?;
            return trace(&Place::Process(store, LocalMessenger::new())).await;
        }
        trace(&Place::File(path)).await
    })
}

async fn server_on(
    place: &Place,
    job: &'static str,
    calls: &Calls,
) -> Outcome<(GameServer, ProfileStore<Player>)> {
    let (store, messenger) = place.open().await?;
    let traced = Traced { server: job, store, calls: calls.clone() };
    let server = GameServer::builder(traced).messenger(messenger).job_id(job).start().await?;
    let players = server.store_builder("PlayerData").template(Player::default()).build()?;
    Ok((server, players))
}

/// A hand-over, with the calls from its beginning on.
struct HandOver {
    took: Duration,
    began: Instant,
    calls: Vec<Call>,
}

async fn trace(place: &Place) -> Outcome {
    let calls = Calls::default();
    let (a, here) = server_on(place, "a", &calls).await?;
    let (b, there) = server_on(place, "b", &calls).await?;
    let mut profile = here.start_session("p").await?;
    let mut measured = Vec::new();
    for round in 0..TIMES {
        profile.update(|data| data.coins += 1)?;
        tokio::time::sleep(PAUSE).await;
        calls.lock().clear();
        let began = Instant::now();
        let to = if round % 2 == 0 { &there } else { &here };
        profile = to.start_session("p").await?;
        let took = began.elapsed();
        measured.push(HandOver { took, began, calls: calls.lock().clone() });
    }
    let commit = bare_commits(place, Duration::ZERO).await?;
    let behind_a_pause = bare_commits(place, PAUSE).await?;
    let hint = bare_hints(place).await?;
    measured.sort_by_key(|one| one.took);
    show(place.name(), &mut measured[TIMES / 2], commit, hint);
    println!("a bare commit behind a pause of {PAUSE:?}: p50 {:.2} ms", ms(behind_a_pause));
    for server in [a, b] {
        let _ = server.shutdown().await;
    }
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn show(place: &str, one: &mut HandOver, commit: Duration, hint: Duration) {
    one.calls.sort_by_key(|call| call.from);
    println!(
        "hand-over between two stores on one {place}: p50 {:.2} ms (one bare commit: p50 {:.2} ms)",
        ms(one.took),
        ms(commit)
    );
    let parts = 3 * commit + 2 * hint;
    println!(
        "3 bare commits + 2 bare hints (p50 {:.2} ms each): {:.2} ms; the hand-over takes {:.2} \
         times that",
        ms(hint),
        ms(parts),
        one.took.as_secs_f64() / parts.as_secs_f64()
    );
    println!("{:>8} {:>8}  {:<6} call", "from ms", "to ms", "server");
    // What both servers wait for the store, without counting a moment twice.
    let (mut within, mut until) = (Duration::ZERO, one.began);
    for call in &one.calls {
        let (from, to) = (call.from - one.began, call.to - one.began);
        println!("{:>8.3} {:>8.3}  {:<6} {}", ms(from), ms(to), call.server, call.what);
        if call.to > until {
            within += call.to - call.from.max(until);
            until = call.to;
        }
    }
    println!(
        "{} calls; {:.2} ms within them, {:.2} ms between them",
        one.calls.len(),
        ms(within),
        ms(one.took.saturating_sub(within))
    );
}

fn commit(incarnation: Incarnation, change: Change) -> Commit {
    Commit {
        id: CommitId(Env::system().uuid()),
        incarnation,
        from: None,
        changes: vec![change],
        returning: Returning::HEAD,
        fingerprint: None,
    }
}

/// Replaces a version of a key that was never used by a session, with one small value.
fn write(key: &ProfileKey, version: u64) -> Change {
    Change::Write {
        key: key.clone(),
        epoch: 0,
        version,
        value: NewValue::Bytes(bytes::Bytes::from_static(&[1, 0])),
        user_ids: Vec::new(),
        cause: Cause::Save,
        author: "bench".into(),
        keep_previous: false,
        seal: false,
        imported: None,
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The median time of a commit of one small value, on a store of its own in the same place, each
/// some time after the one before.
async fn bare_commits(place: &Place, pause: Duration) -> Outcome<Duration> {
    let (store, _) = place.open().await?;
    let incarnation = store.identity().await?.incarnation;
    let key = ProfileKey::new("Bare", "global", &format!("bare-{}", pause.as_millis()))?;
    let mut took = Vec::new();
    for version in 0..TIMES as u64 {
        let commit = commit(incarnation, write(&key, version));
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let began = Instant::now();
        store.commit_one(commit).await?;
        took.push(began.elapsed());
    }
    Ok(median(took))
}

/// The median time from a commit's answer, upon which a hint is sent, until another store's
/// messenger tells the server that holds the key.
async fn bare_hints(place: &Place) -> Outcome<Duration> {
    let ((near, to), (far, from)) = (place.open().await?, place.open().await?);
    let incarnation = near.identity().await?.incarnation;
    let id = ServerId(Env::system().uuid());
    let (place_id, job_id) = (1, String::from("hints"));
    let register = Change::RegisterServer {
        id,
        place_id,
        job_id: job_id.clone(),
        lease_ms: 60_000,
        host: None,
        owner: None,
    };
    near.commit_one(commit(incarnation, register)).await?;
    let key = ProfileKey::new("Bare", "global", "hints")?;
    let holder = Holder {
        server: Some(id),
        place_id,
        job_id,
        session: Env::system().uuid().to_string(),
        since_ms: near.identity().await?.now_ms,
        last_update_ms: None,
        document: None,
    };
    let lease = LeaseState { load_count: 1, holder: Some(holder), ..LeaseState::default() };
    let change =
        Change::Lease { key: key.clone(), revision: 0, lease, raise_epoch: false, seal: false };
    near.commit_one(commit(incarnation, change)).await?;
    let mut hints = to.subscribe(id).await;
    // A messenger on PostgreSQL connects meanwhile.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut took = Vec::new();
    for version in 0..TIMES as u64 {
        // At another moment of the messenger's own pace each time.
        tokio::time::sleep(Duration::from_micros(2000 + 10 * version)).await;
        far.commit_one(commit(incarnation, write(&key, version))).await?;
        let committed = Instant::now();
        from.hint(id, &key).await;
        let heard = async {
            while hints.recv().await.is_some_and(|hint| hint != Hint::Look(key.clone())) {}
            committed.elapsed()
        };
        took.push(tokio::time::timeout(Duration::from_secs(5), heard).await?);
    }
    Ok(median(took))
}
