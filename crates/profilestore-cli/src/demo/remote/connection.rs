//! The WebSocket of one game server: connects, greets, and resumes at the next address.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use profilestore::env::Env;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::demo::fleet::Via;

/// After how long without a frame a connection is given up.
const SILENCE: Duration = Duration::from_secs(6);

/// How long one step of a greeting may take.
const GREETING: Duration = Duration::from_secs(3);

type Socket = WebSocketStream<TcpStream>;

/// One connection after the other.
#[derive(Debug)]
pub(super) struct Connection {
    via: Via,
    at: usize,
    instance: String,
    job: String,
    lease_ms: u64,
    /// What the last greeting was answered with.
    identity: Option<Value>,
    socket: Option<Socket>,
    heard: Instant,
}

impl Connection {
    pub(super) fn new(via: Via, job: &str, lease_ms: u64) -> Self {
        let env = Env::system();
        let instance = format!("{}{}", env.uuid().simple(), env.uuid().simple());
        let at = usize::try_from(env.uuid().as_u128() % 64).unwrap_or(0);
        let (identity, socket) = (None, None);
        let job = job.to_owned();
        Self { via, at, instance, job, lease_ms, identity, socket, heard: Instant::now() }
    }

    pub(super) fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Gives the connection up.
    pub(super) fn leave(&mut self) {
        self.socket = None;
    }

    /// Connects to the next address, and greets as what it is. `sessions` are those that it holds.
    /// None: nobody answers there, or not well.
    pub(super) async fn greet(&mut self, sessions: Vec<Value>) -> Option<()> {
        self.at += 1;
        let address = self.via.addresses.get(self.at % self.via.addresses.len().max(1))?.clone();
        let mut socket = timeout(GREETING, open(&address, &self.via.key)).await.ok()??;
        let mut hello = json!({
            "instance": self.instance, "job": self.job, "lease_ms": self.lease_ms,
            "sdk": "profilestore demo",
        });
        if let Some(identity) = &self.identity {
            hello["resume"] = json!({
                "incarnation": identity["incarnation"], "token": identity["token"],
                "store": identity["store"], "sessions": sessions,
            });
        }
        let hello = Message::Text(json!({ "hello": hello }).to_string().into());
        timeout(GREETING, socket.send(hello)).await.ok()?.ok()?;
        let mut welcome = timeout(GREETING * 2, next(&mut socket)).await.ok()??;
        if !welcome["welcome"].is_object() {
            return None;
        }
        self.identity = Some(welcome["welcome"].take());
        (self.socket, self.heard) = (Some(socket), Instant::now());
        Some(())
    }

    /// The next frame. None: the connection is over, or silent for too long.
    pub(super) async fn next(&mut self) -> Option<Value> {
        let found = match &mut self.socket {
            Some(socket) => {
                let frame = tokio::time::timeout_at(self.heard + SILENCE, next(socket)).await;
                frame.ok().flatten()
            }
            None => None,
        };
        match found {
            Some(_) => self.heard = Instant::now(),
            None => self.socket = None,
        }
        found
    }

    /// Sends a frame, or finds that the connection is over.
    pub(super) async fn send(&mut self, frame: String) {
        let Some(socket) = &mut self.socket else { return };
        let sent = timeout(SILENCE, socket.send(Message::Text(frame.into()))).await;
        if !matches!(sent, Ok(Ok(()))) {
            self.socket = None;
        }
    }
}

async fn open(address: &str, key: &str) -> Option<Socket> {
    let stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let mut request = format!("ws://{address}/v1/connect").into_client_request().ok()?;
    let headers = request.headers_mut();
    headers.insert("Authorization", format!("Bearer {key}").parse().ok()?);
    headers.insert("Sec-WebSocket-Protocol", "profilestore.v1+json".parse().ok()?);
    Some(client_async(request, stream).await.ok()?.0)
}

async fn next(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.next().await?.ok()? {
            Message::Text(text) => return serde_json::from_str(&text).ok(),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}
