//! Hints through PostgreSQL's `LISTEN` and `NOTIFY`: no further server, one connection a process.
//!
//! Each game server listens on a channel of its own; a payload lists keys. The connection that
//! listens also notifies: hints that come while a `NOTIFY` is under way share the next one, and one
//! for the same key and server goes once. It is a transaction of its own, which waits for no disk
//! (`synchronous_commit = off`): within the store's transactions it would make their commits wait
//! for each other. A lost connection is made anew, and every listener hears of a gap.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_postgres::Notification;

use super::{HINT_QUEUE, Hint, LocalMessenger, Messenger};
use crate::{
    data_store::{
        PostgresOptions, ServerId, StoreError,
        postgres::{Conn, Dialer, Step},
    },
    key::ProfileKey,
};

/// The most bytes that a payload may have; PostgreSQL takes 7,999.
const PAYLOAD: usize = 7900;

/// How many servers' hints may wait to be sent. Beyond that hints are dropped: their receivers find
/// the notices.
const WAITING: usize = 16_384;

/// How many bytes the keys of all hints that wait may have. Beyond that a server hears of a gap.
const WAITING_BYTES: usize = 8 << 20;

/// What a key that waits takes besides its names, about.
const KEY_BYTES: usize = 128;

/// How often a connection that is used for nothing is asked whether it is still there.
const PROBE: Duration = Duration::from_secs(5);

/// How long to wait between attempts to connect, doubling from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

const NOTIFY: &str = "SELECT pg_notify(u.channel, u.payload) FROM unnest($1::text[], $2::text[]) \
    AS u (channel, payload)";

/// Separates keys in a payload, and the names of a key.
const BETWEEN_KEYS: char = '\n';
const BETWEEN_NAMES: char = '\u{1f}';

/// The payload that lists no keys.
const GAP: &str = "gap";

/// Hints between all processes that use one database. Cheap to clone; its connection is closed with
/// the last clone.
#[derive(Clone)]
pub struct PostgresMessenger {
    shared: Arc<Shared>,
}

impl fmt::Debug for PostgresMessenger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresMessenger").field(&self.shared.options.to_string()).finish()
    }
}

struct Shared {
    options: PostgresOptions,
    here: LocalMessenger,
    work: Arc<Work>,
}

/// What the task is to do. It outlives the messenger only until it is told.
#[derive(Default)]
struct Work {
    to_send: Mutex<Waiting>,
    bell: Notify,
}

/// Hints that wait to be sent, in bounded memory.
#[derive(Default)]
struct Waiting {
    servers: BTreeMap<ServerId, ToSend>,
    /// Of the keys.
    bytes: usize,
}

impl Waiting {
    /// Adds a hint. False: it is dropped.
    fn add(&mut self, to: ServerId, key: &ProfileKey) -> bool {
        if self.servers.len() >= WAITING && !self.servers.contains_key(&to) {
            return false;
        }
        let waiting = self.servers.entry(to).or_insert_with(|| ToSend::Keys(BTreeSet::new()));
        if let ToSend::Keys(keys) = waiting
            && keys.insert(key.clone())
        {
            self.bytes += bytes_of(key);
            if keys.len() > HINT_QUEUE || self.bytes > WAITING_BYTES {
                self.bytes -= keys.iter().map(bytes_of).sum::<usize>();
                *waiting = ToSend::Gap;
            }
        }
        true
    }
}

fn bytes_of(key: &ProfileKey) -> usize {
    key.store().len() + key.scope().len() + key.key().len() + KEY_BYTES
}

/// What a server is to hear.
enum ToSend {
    Keys(BTreeSet<ProfileKey>),
    /// More than it would take.
    Gap,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.work.bell.notify_one();
    }
}

impl PostgresMessenger {
    /// Hints among the users of this database. Connects by and by: fails only when no runtime is
    /// there to do so. Listeners hear of a gap once the connection stands.
    pub fn new(options: PostgresOptions) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|err| StoreError::Invalid {
            reason: format!("the messenger needs a tokio runtime: {err}"),
        })?;
        let (here, work) = (LocalMessenger::new(), Arc::<Work>::default());
        let shared =
            Arc::new(Shared { options: options.clone(), here: here.clone(), work: work.clone() });
        let task = Task {
            dialer: Dialer::new(options),
            here,
            work,
            shared: Arc::downgrade(&shared),
            listening: BTreeSet::new(),
        };
        runtime.spawn(task.run());
        Ok(Self { shared })
    }
}

#[async_trait]
impl Messenger for PostgresMessenger {
    async fn subscribe(&self, server: ServerId) -> mpsc::Receiver<Hint> {
        let receiver = self.shared.here.subscribe(server).await;
        self.shared.work.bell.notify_one();
        receiver
    }

    /// Delivers to a listener in this process at once; others hear of it through the database.
    async fn hint(&self, to: ServerId, key: &ProfileKey) {
        if self.shared.here.listens(to) {
            self.shared.here.deliver(to, Hint::Look(key.clone()));
            return;
        }
        if self.shared.work.to_send.lock().add(to, key) {
            self.shared.work.bell.notify_one();
        } else {
            metrics::counter!("profilestore_hints_dropped_total").increment(1);
        }
    }
}

/// The task that has the connection.
struct Task {
    dialer: Dialer,
    here: LocalMessenger,
    work: Arc<Work>,
    shared: Weak<Shared>,
    /// Whose channels this connection listens on.
    listening: BTreeSet<ServerId>,
}

impl Task {
    async fn run(mut self) {
        let mut pause = PAUSES[0];
        while self.shared.strong_count() > 0 {
            let here = self.here.clone();
            match self
                .dialer
                .connect_with(Some(Arc::new(move |notification| deliver(&here, &notification))))
                .await
            {
                Ok(conn) => match self.serve(&conn, &mut pause).await {
                    Ok(()) => return,
                    Err(err) => tracing::warn!(%err, "the connection for hints was lost"),
                },
                Err(err) => tracing::warn!(%err, "no connection for hints"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES[1]);
            self.listening.clear();
        }
    }

    /// Listens and notifies until the connection fails, or the messenger is gone. A connection on
    /// which it listens is a success: the next one need not wait long.
    async fn serve(&mut self, conn: &Conn, pause: &mut Duration) -> Result<(), StoreError> {
        conn.batch("SET synchronous_commit = off")
            .await
            .map_err(|trouble| trouble.not_applied())?;
        self.listen(conn).await?;
        *pause = PAUSES[0];
        let mut asked = tokio::time::interval(PROBE);
        asked.reset();
        loop {
            tokio::select! {
                biased;
                () = conn.ended() => return Err(StoreError::Unavailable { reason: "the database closed the connection".into() }),
                () = self.work.bell.notified() => {
                    if self.shared.strong_count() == 0 {
                        return Ok(());
                    }
                    self.listen(conn).await?;
                    self.send(conn).await?;
                }
                _ = asked.tick() => conn.batch("SELECT 1").await.map_err(|trouble| trouble.not_applied())?,
            }
        }
    }

    /// Listens for those who subscribed since, and no longer for those who left.
    async fn listen(&mut self, conn: &Conn) -> Result<(), StoreError> {
        let wanted: BTreeSet<ServerId> = self.here.subscribed().into_iter().collect();
        let new = wanted
            .difference(&self.listening)
            .map(|server| format!("LISTEN {};", channel(*server)));
        let gone = self
            .listening
            .difference(&wanted)
            .map(|server| format!("UNLISTEN {};", channel(*server)));
        let sql: String = new.chain(gone).collect();
        if !sql.is_empty() {
            conn.batch(&sql).await.map_err(|trouble| trouble.not_applied())?;
            // From the subscription, or since the last connection was lost, to this moment nobody
            // listened.
            for server in wanted.difference(&self.listening) {
                self.here.deliver(*server, Hint::Gap);
            }
            self.listening = wanted;
        }
        Ok(())
    }

    async fn send(&self, conn: &Conn) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut *self.work.to_send.lock()).servers;
        if waiting.is_empty() {
            return Ok(());
        }
        let (mut channels, mut payloads) = (Vec::new(), Vec::new());
        for (server, waiting) in &waiting {
            let lists = match waiting {
                ToSend::Keys(keys) => payloads_of(keys),
                ToSend::Gap => vec![GAP.to_owned()],
            };
            for payload in lists {
                channels.push(channel(*server));
                payloads.push(payload);
            }
        }
        let step = Step::new(NOTIFY).with(channels).with(payloads);
        conn.query_step(&step).await.map_err(|trouble| trouble.not_applied())?;
        Ok(())
    }
}

/// Called by the connection itself, so it must not wait.
fn deliver(here: &LocalMessenger, notification: &Notification) {
    let Some(server) = server_of(notification.channel()) else { return };
    if notification.payload() == GAP {
        here.deliver(server, Hint::Gap);
    }
    for key in keys_of(notification.payload()) {
        here.deliver(server, Hint::Look(key));
    }
}

fn channel(server: ServerId) -> String {
    format!("profilestore_{}", server.0.simple())
}

fn server_of(channel: &str) -> Option<ServerId> {
    channel.strip_prefix("profilestore_")?.parse().ok().map(ServerId)
}

/// Keys as lines, as many as a payload holds.
fn payloads_of(keys: &BTreeSet<ProfileKey>) -> Vec<String> {
    let mut payloads = vec![String::new()];
    for key in keys {
        let line = escaped(key);
        if payloads
            .last()
            .is_some_and(|payload| !payload.is_empty() && payload.len() + 1 + line.len() > PAYLOAD)
        {
            payloads.push(String::new());
        }
        if let Some(payload) = payloads.last_mut() {
            if !payload.is_empty() {
                payload.push(BETWEEN_KEYS);
            }
            payload.push_str(&line);
        }
    }
    payloads
}

/// The names of a key; where one of them has one of the separators, as JSON.
fn escaped(key: &ProfileKey) -> String {
    let names = [key.store(), key.scope(), key.key()];
    if names.iter().any(|name| name.contains([BETWEEN_KEYS, BETWEEN_NAMES])) {
        return serde_json::to_string(key).unwrap_or_default();
    }
    names.join(&BETWEEN_NAMES.to_string())
}

fn keys_of(payload: &str) -> impl Iterator<Item = ProfileKey> {
    payload.split(BETWEEN_KEYS).filter_map(|line| {
        let names: Vec<&str> = line.split(BETWEEN_NAMES).collect();
        match names[..] {
            [store, scope, key] => ProfileKey::new(store, scope, key).ok(),
            _ => serde_json::from_str(line).ok(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_packed_into_payloads_that_postgresql_takes() {
        let names: Vec<String> = (0..500).map(|n| format!("{n:03}{}", "ä".repeat(40))).collect();
        let mut keys: BTreeSet<ProfileKey> = names
            .iter()
            .map(|name| ProfileKey::new("Player Data", "global", name).unwrap())
            .collect();
        keys.insert(ProfileKey::new("S\n", "\u{1f}", "a\nb").unwrap());
        keys.insert(ProfileKey::new("[\"S\"]", "{", "\"").unwrap());
        let payloads = payloads_of(&keys);
        assert!(payloads.len() > 5 && payloads.iter().all(|payload| payload.len() <= PAYLOAD));
        let found: BTreeSet<ProfileKey> =
            payloads.iter().flat_map(|payload| keys_of(payload)).collect();
        assert_eq!(found, keys);
    }

    #[test]
    fn hints_that_wait_take_bounded_memory() {
        let mut waiting = Waiting::default();
        let name = |n: usize| {
            ProfileKey::new("S", "global", &format!("{n:09}{}", "k".repeat(40))).unwrap()
        };
        for server in 0..100 {
            for n in 0..2000 {
                assert!(waiting.add(ServerId(uuid::Uuid::from_u128(server)), &name(n)));
                assert!(waiting.bytes <= WAITING_BYTES);
            }
        }
        let kept = |keys: &ToSend| {
            if let ToSend::Keys(keys) = keys { keys.iter().map(bytes_of).sum() } else { 0 }
        };
        assert_eq!(waiting.servers.values().map(kept).sum::<usize>(), waiting.bytes);
        let gaps = waiting.servers.values().filter(|keys| matches!(keys, ToSend::Gap)).count();
        assert!((1..100).contains(&gaps), "{gaps} of 100 servers hear of a gap");
    }

    #[test]
    fn a_channel_names_its_server() {
        let server = ServerId(uuid::Uuid::from_u128(7));
        assert_eq!(server_of(&channel(server)), Some(server));
        assert!(channel(server).len() < 64);
        assert_eq!(server_of("other"), None);
    }
}
