//! Game servers that run in other processes, hosted by one process or by several after each other.

use std::{sync::Arc, time::Duration};

use profilestore::{
    ErrorKind, ProfileKey,
    data_store::{Cause, Change, Commit, CommitId, DataStore, DataStoreExt, NewValue, Returning},
    hosting::{
        Adopted, Event, Host, HostParts, HostedServer, HostedSession, HostedStart, Registration,
        Request, Resume, Resumed, Save, Started,
    },
    messenger::{Messenger, NoMessenger},
    record::Stored,
};
use serde_json::{Value, json, value::RawValue};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::world::World;

mod belief;
mod cost;
mod edits;
mod hosts;
mod late;
mod release;
mod sessions;
mod sqlite;
mod trades;

const SECOND: Duration = Duration::from_secs(1);

/// As much as any message takes.
fn room(_: &ProfileKey) -> usize {
    1 << 20
}

fn key(name: &str) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", name).unwrap()
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

/// A player of so many coins.
fn player(coins: i64) -> Save {
    Save::new(raw(&json!({ "coins": coins })))
}

/// The request of this number of a game server, which asks for always the same.
fn request(number: u128) -> Request {
    Request { id: CommitId(Uuid::from_u128(number << 64)), fingerprint: number as u64 }
}

fn registration(job: &str) -> Registration {
    Registration { job: job.into(), place: 7, owner: "owner".into(), lease_time: None }
}

fn host_on(world: &World, store: impl DataStore) -> Host {
    let messenger: Arc<dyn Messenger> = match &world.messenger {
        Some(messenger) => Arc::new(messenger.clone()),
        None => Arc::new(NoMessenger),
    };
    Host::new(HostParts {
        store: Arc::new(store),
        messenger,
        settings: world.settings.clone(),
        env: world.env.clone(),
    })
    .unwrap()
}

fn host(world: &World) -> Host {
    host_on(world, world.store.clone())
}

/// A game server that calls every two seconds until this is dropped.
struct Calling(JoinHandle<()>);

impl Calling {
    fn new(server: &HostedServer) -> Self {
        let server = server.clone();
        Self(tokio::spawn(async move {
            loop {
                server.pong();
                tokio::time::sleep(2 * SECOND).await;
            }
        }))
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A game server that is there, and calls.
async fn hosted(host: &Host, job: &str) -> (HostedServer, Calling) {
    let server = host.register(registration(job)).await.unwrap();
    let calling = Calling::new(&server);
    (server, calling)
}

fn resume_of(server: &HostedServer) -> Resume {
    Resume {
        incarnation: server.incarnation(),
        store: server.store(),
        owner: "owner".into(),
        again: registration(server.job()),
    }
}

/// The same game server at another host, with its incarnation.
async fn resumed(server: &HostedServer, at: &Host) -> (HostedServer, Calling) {
    match at.resume(resume_of(server)).await.unwrap() {
        Resumed::Same(server) => {
            let calling = Calling::new(&server);
            (server, calling)
        }
        other => panic!("{other:?}"),
    }
}

/// The same game server at another host, when its row was declared dead.
async fn resumed_anew(world: &World, server: &HostedServer, at: &Host) -> (HostedServer, Calling) {
    let (_, rows) = world.store.servers().await.unwrap();
    let row = rows.iter().find(|row| row.id == server.incarnation()).unwrap();
    let dead = Commit {
        id: CommitId(world.env.uuid()),
        incarnation: server.store(),
        from: None,
        changes: vec![Change::MarkDead { id: row.id, revision: row.revision }],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    world.store.commit_one(dead).await.unwrap();
    let resumed = at.resume(resume_of(server)).await.unwrap();
    let Resumed::Anew(again) = resumed else { panic!("{resumed:?}") };
    let calling = Calling::new(&again);
    (again, calling)
}

fn new_player() -> HostedStart {
    HostedStart { template: Some(raw(&json!({ "coins": 0 }))), ..HostedStart::default() }
}

async fn start(server: &HostedServer, number: u128, name: &str) -> Started {
    server.start(request(number), &key(name), new_player()).await.unwrap()
}

async fn adopted(server: &HostedServer, session: &HostedSession) -> HostedSession {
    match server.adopt(session.key(), session.epoch()).await.unwrap() {
        Adopted::Held { session, .. } => session,
        lost @ Adopted::Lost { .. } => panic!("{lost:?}"),
        other => panic!("{other:?}"),
    }
}

/// Everything that is to be told now.
fn told(server: &HostedServer) -> Vec<Event> {
    std::iter::from_fn(|| server.try_next_event(room)).collect()
}

/// The coins that are stored, and the version.
async fn stored(world: &World, name: &str) -> (i64, u64) {
    let snapshot = world.store.read(&[key(name)], Returning::ALL).await.unwrap();
    let state = &snapshot.states[0];
    let bytes = state.value.as_ref().expect("a profile");
    let Stored::Profile(record) = Stored::decode(bytes).unwrap() else { panic!("no profile") };
    let data: Value = serde_json::from_str(record.data.get()).unwrap();
    (data["coins"].as_i64().unwrap(), state.version)
}

/// Stores so many coins over a profile, and leaves it to its holder, which gets no notice.
async fn write_over(world: &World, server: &HostedServer, name: &str, coins: i64) {
    let (_, state) = world.store.read_one(&key(name), Returning::ALL).await.unwrap();
    let Stored::Profile(mut record) = Stored::decode(&state.value.unwrap()).unwrap() else {
        panic!("no profile")
    };
    record.data = raw(&json!({ "coins": coins }));
    let write = Change::Write {
        key: key(name),
        epoch: state.epoch,
        version: state.version,
        value: NewValue::Bytes(record.encode().unwrap()),
        user_ids: vec![],
        cause: Cause::Set,
        author: "a program".into(),
        keep_previous: false,
        seal: false,
        imported: None,
    };
    let commit = Commit {
        id: CommitId(world.env.uuid()),
        incarnation: server.store(),
        from: Some(server.incarnation()),
        changes: vec![write],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    world.store.commit_one(commit).await.unwrap();
}

fn kind<T>(result: profilestore::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}
