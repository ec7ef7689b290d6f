//! The server over real sockets, on real stores.

mod accepted;
mod back;
mod bulk;
mod client;
mod console;
mod description;
mod guests;
mod history;
mod hostile;
mod keys;
mod listening;
mod live;
mod members;
mod messages;
mod operations;
mod profiles;
mod search;
mod sessions;
mod starts;
mod status;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use profilestore::{
    Attribution, GameServer, ProfileKey, Settings,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, NewValue, Returning, SqliteMessenger,
        SqliteStore,
        fault::{FaultyStore, Line, OnCommand},
    },
    env::Env,
    hosting::{Host, HostParts},
    record::{Record, Stored},
};
use profilestore_server::{
    App, Config, Keys, Parts, Server,
    config::Options,
    keys::{NewKey, Scope},
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

use client::{Answer, Client};

/// A server that listens, on a SQLite file of its own.
struct Served {
    _folder: TempDir,
    store: SqliteStore,
    desk: GameServer,
    app: App,
    address: SocketAddr,
    admin: String,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<bool>,
}

impl Served {
    async fn start() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("profiles.db"), Default::default());
        let store = store.unwrap();
        let listen = Some("127.0.0.1:0".to_owned());
        let config = options.or(Options { listen, ..Options::default() }).settle().unwrap();
        let admin = key(&store, &[Scope::Admin], None, None).await;
        let desk = game_server(&store, "desk").await;
        let (address, app, stop, serving) = serve(&store, &desk, &config).await;
        Self { _folder: folder, store, desk, app, address, admin, stop: Some(stop), serving }
    }

    /// A caller with a new key of these scopes.
    async fn caller(&self, scopes: &[Scope]) -> Client {
        Client::new(self.address, &key(&self.store, scopes, None, None).await)
    }

    /// A caller with a new key that is narrowed.
    async fn narrowed(&self, scopes: &[Scope], store: &str, prefix: Option<&str>) -> Client {
        Client::new(self.address, &key(&self.store, scopes, Some(store), prefix).await)
    }

    fn admin(&self) -> Client {
        Client::new(self.address, &self.admin)
    }

    async fn game(&self, job: &str) -> GameServer {
        game_server(&self.store, job).await
    }

    /// Stops it as SIGTERM does. True when all requests were finished.
    async fn stop(mut self) -> bool {
        let _ = self.stop.take().unwrap().send(());
        let finished = (&mut self.serving).await.unwrap();
        assert!(self.desk.shutdown().await.is_complete());
        finished
    }
}

/// Another process on the same store. What its host asks of the store goes over a line that the
/// test can hold; what it asks for keys and answers to HTTP does not.
struct Another {
    address: SocketAddr,
    line: Line,
    _stop: oneshot::Sender<()>,
    _serving: JoinHandle<bool>,
}

impl Another {
    async fn start(served: &Served) -> Self {
        let way = FaultyStore::new(Arc::new(served.store.clone()), OnCommand::default());
        let line = way.line().clone();
        let listen = Some("127.0.0.1:0".to_owned());
        let config = Options { listen, ..Options::default() }.settle().unwrap();
        // As long as the test holds the line, no call is given up.
        let patient = Settings { call_timeout: Duration::from_secs(600), ..settings() };
        let host = host(Arc::new(way), &served.store, patient);
        let (address, _, stop, serving) =
            serve_with(&served.store, &served.desk, &config, host).await;
        Self { address, line, _stop: stop, _serving: serving }
    }
}

async fn serve(
    store: &SqliteStore,
    desk: &GameServer,
    config: &Config,
) -> (SocketAddr, App, oneshot::Sender<()>, JoinHandle<bool>) {
    serve_with(store, desk, config, host(Arc::new(store.clone()), store, settings())).await
}

async fn serve_with(
    store: &SqliteStore,
    desk: &GameServer,
    config: &Config,
    host: Host,
) -> (SocketAddr, App, oneshot::Sender<()>, JoinHandle<bool>) {
    let parts = Parts {
        store: Arc::new(store.clone()) as Arc<dyn DataStore>,
        server: desk.clone(),
        host: Some(host),
        env: Env::system(),
        metrics: profilestore_server::record_metrics(),
    };
    let listening = Server::bind(config).await.unwrap();
    let address = listening.address().unwrap();
    let app = App::new(parts, config);
    let router = app.router();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(listening.serve(router, async {
        let _ = stopped.await;
    }));
    (address, app, stop, serving)
}

fn host(way: Arc<dyn DataStore>, store: &SqliteStore, settings: Settings) -> Host {
    Host::new(HostParts {
        store: way,
        messenger: Arc::new(SqliteMessenger::new(store)),
        settings,
        env: Env::system(),
    })
    .unwrap()
}

fn settings() -> Settings {
    Settings {
        lease_time: Duration::from_secs(5),
        renew_period: Duration::from_secs(1),
        ..Settings::default()
    }
}

async fn game_server(store: &SqliteStore, job: &str) -> GameServer {
    GameServer::builder(store.clone())
        .messenger(SqliteMessenger::new(store))
        .job_id(job)
        .settings(settings())
        .start()
        .await
        .unwrap()
}

async fn key(
    store: &SqliteStore,
    scopes: &[Scope],
    only: Option<&str>,
    prefix: Option<&str>,
) -> String {
    let new = NewKey {
        name: "test".to_owned(),
        scopes: scopes.iter().copied().collect::<BTreeSet<_>>(),
        store: only.map(str::to_owned),
        prefix: prefix.map(str::to_owned),
        expires_ms: None,
    };
    Keys::new(Arc::new(store.clone()), Env::system())
        .add(new, &Attribution::new("test"))
        .await
        .unwrap()
        .1
}

/// Puts many profiles into a store: keys of `PlayerData`, with their data.
async fn fill(store: &SqliteStore, profiles: impl IntoIterator<Item = (String, String)>) {
    let stored = |(key, data): (String, String)| {
        let record = format!("{{\"created\":0,\"data\":{data}}}");
        let record: Record = serde_json::from_str(&record).unwrap();
        (key, Stored::Profile(record).encode().unwrap())
    };
    put(store, profiles.into_iter().map(stored)).await;
}

/// Puts values into a store as they are, at keys of `PlayerData`.
async fn put(store: &SqliteStore, values: impl IntoIterator<Item = (String, Bytes)>) {
    let incarnation = store.identity().await.unwrap().incarnation;
    let commit = |(key, value): (String, Bytes)| Commit {
        id: CommitId(Env::system().uuid()),
        incarnation,
        from: None,
        changes: vec![Change::Write {
            key: ProfileKey::new("PlayerData", "global", &key).unwrap(),
            epoch: 0,
            version: 0,
            value: NewValue::Bytes(value),
            user_ids: Vec::new(),
            cause: Cause::Set,
            author: "test".to_owned(),
            keep_previous: false,
            seal: false,
            imported: None,
        }],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    for done in store.commit(values.into_iter().map(commit).collect()).await {
        done.unwrap();
    }
}

/// A version 7 UUID for an idempotency key.
fn operation() -> String {
    Env::system().uuid().to_string()
}

/// Checks an error: its status, its kind, and that it is complete.
#[track_caller]
fn refused(answer: &Answer, status: u16, kind: &str) {
    let body = answer.json();
    assert_eq!((answer.status, body["kind"].as_str()), (status, Some(kind)), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(body["type"], format!("/errors/{kind}"));
    assert_eq!(body["status"], status);
    assert_eq!(body["instance"].as_str(), answer.header("x-request-id"));
    for member in ["title", "detail", "advice"] {
        assert!(!body[member].as_str().unwrap().is_empty(), "{member}: {body}");
    }
}
