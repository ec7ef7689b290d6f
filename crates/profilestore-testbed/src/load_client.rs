//! A game server over the WebSocket of `profilestore serve` that makes load: many requests under
//! way at once, and of an answer only its name is read.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::sleep,
};
use tokio_tungstenite::tungstenite::Message;

use crate::game_client::open;

const PING: Duration = Duration::from_millis(500);

/// Those who wait for an answer, by the request's number.
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<String>>>>;

/// A game server with many requests under way. Its connection ends when this is dropped.
#[derive(Debug)]
pub struct LoadClient {
    frames: mpsc::UnboundedSender<String>,
    waiting: Waiting,
    next: AtomicU64,
    releases: mpsc::UnboundedReceiver<u64>,
    tasks: [AbortHandle; 3],
}

impl Drop for LoadClient {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl LoadClient {
    /// Connects as a new game server of this name. None: the server refuses it.
    pub async fn connect(address: SocketAddr, key: &str, job: &str) -> Option<Self> {
        let (mut sink, mut stream) = open(address, key).await?.split();
        let instance = format!("secret of the run of {job}, at least 32 bytes");
        let hello = json!({ "hello": { "instance": instance, "job": job } });
        sink.send(Message::Text(hello.to_string().into())).await.ok()?;
        let welcome = stream.next().await?.ok()?;
        welcome.to_text().ok().filter(|text| text.contains("welcome"))?;
        let (frames, mut queue) = mpsc::unbounded_channel::<String>();
        let sending = tokio::spawn(async move {
            while let Some(frame) = queue.recv().await {
                if sink.send(Message::Text(frame.into())).await.is_err() {
                    return;
                }
            }
        });
        let (told, releases) = mpsc::unbounded_channel();
        let waiting = Waiting::default();
        let answered = waiting.clone();
        let receiving = tokio::spawn(async move {
            while let Some(Ok(Message::Text(text))) = stream.next().await {
                take(&text, &answered, &told);
            }
            // Without an answer the callers hear that the connection is gone.
            locked(&answered).clear();
        });
        let ping = frames.clone();
        let pinging = tokio::spawn(async move {
            while ping.send(json!({ "ping": { "n": 1 } }).to_string()).is_ok() {
                sleep(PING).await;
            }
        });
        let tasks = [sending, receiving, pinging].map(|task| task.abort_handle());
        Some(Self { frames, waiting, next: AtomicU64::new(1), releases, tasks })
    }

    /// Makes a request, whose frame is made of its number, and waits for the answer's name: `saved`
    /// for example, or a whole `error` frame.
    pub async fn ask(&self, frame: impl FnOnce(u64) -> String) -> Option<String> {
        let i = self.next.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        locked(&self.waiting).insert(i, answered);
        self.frames.send(frame(i)).ok()?;
        answer.await.ok()
    }

    /// The next session that is to be let go, by its number.
    pub async fn release(&mut self) -> Option<u64> {
        self.releases.recv().await
    }
}

fn locked(waiting: &Waiting) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<String>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A frame's name and its first number come first in its text: `{"saved":{"i":1,…`.
fn take(text: &str, waiting: &Waiting, releases: &mpsc::UnboundedSender<u64>) {
    let name = text.split('"').nth(1).unwrap_or_default();
    let number = |member: &str| {
        let (_, rest) = text.split_once(&format!("\"{member}\":"))?;
        rest.split([',', '}']).next()?.trim().parse::<u64>().ok()
    };
    match name {
        "release" => {
            if let Some(s) = number("s") {
                let _ = releases.send(s);
            }
        }
        "pong" => {}
        "error" => {
            let frame: Value = serde_json::from_str(text).unwrap_or_default();
            let waiter = frame["error"]["i"].as_u64().and_then(|i| locked(waiting).remove(&i));
            if let Some(waiter) = waiter {
                let _ = waiter.send(text.to_owned());
            }
        }
        name => {
            if let Some(waiter) = number("i").and_then(|i| locked(waiting).remove(&i)) {
                let _ = waiter.send(name.to_owned());
            }
        }
    }
}
