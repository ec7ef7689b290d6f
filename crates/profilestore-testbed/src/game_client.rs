//! A small game server over the WebSocket of `profilestore serve`: what an SDK does, without its
//! comfort. What it does not expect is a panic, since a test asked for it.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

/// How long a test waits for a frame.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often it pings while it waits, or asks for one thing after another.
const PING: Duration = Duration::from_millis(500);

/// A game server with one connection at a time.
#[derive(Debug)]
pub struct GameClient {
    key: String,
    instance: String,
    job: String,
    socket: WebSocketStream<TcpStream>,
    /// What came and was not asked for yet.
    waiting: VecDeque<Value>,
    /// What the last greeting was answered with.
    pub welcome: Value,
    age: Option<u64>,
    pinged: Instant,
    /// While it waits, it sends no pings.
    pub is_silent: bool,
    next: u64,
}

pub(crate) async fn open(address: SocketAddr, key: &str) -> Option<WebSocketStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.ok()?;
    // As the SDKs do: a frame does not wait for the answer to the one before.
    stream.set_nodelay(true).ok()?;
    let mut request = format!("ws://{address}/v1/connect").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("Authorization", format!("Bearer {key}").parse().unwrap());
    headers.insert("Sec-WebSocket-Protocol", "profilestore.v1+json".parse().unwrap());
    Some(client_async(request, stream).await.ok()?.0)
}

impl GameClient {
    /// Connects as a new game server of this name.
    ///
    /// # Panics
    ///
    /// When the server refuses it; as all of these do when what they wait for does not come.
    pub async fn connect(address: SocketAddr, key: &str, job: &str) -> Self {
        Self::connect_for(address, key, job, None).await
    }

    /// The same with a lease time of its own choice, in milliseconds.
    ///
    /// # Panics
    ///
    /// As [`GameClient::connect`] does.
    pub async fn connect_for(
        address: SocketAddr,
        key: &str,
        job: &str,
        lease_ms: Option<u64>,
    ) -> Self {
        let socket = open(address, key).await.expect("the server accepts the connection");
        let mut client = Self {
            key: key.to_owned(),
            instance: format!("secret of the run of {job}"),
            job: job.to_owned(),
            socket,
            waiting: VecDeque::new(),
            welcome: Value::Null,
            age: None,
            pinged: Instant::now(),
            is_silent: false,
            next: 0,
        };
        let (instance, job) = (client.instance.clone(), client.job.clone());
        let hello = json!({
            "instance": instance, "job": job, "lease_ms": lease_ms, "sdk": "testbed 1",
        });
        client.send(json!({ "hello": hello })).await;
        client.welcome = client.expect("welcome").await;
        client
    }

    /// The next connection is made with this key.
    pub fn use_key(&mut self, key: &str) {
        self.key = key.to_owned();
    }

    /// Ends the connection silently.
    pub async fn cut(&mut self) {
        let _ = self.socket.get_mut().shutdown().await;
    }

    /// Gives the connection up silently, and resumes here or at another process. `sessions`
    /// are those that it holds: `[s, store, scope, key, epoch]`. False: nobody answers there.
    pub async fn resume(&mut self, address: SocketAddr, sessions: Value) -> bool {
        let Some(socket) = open(address, &self.key).await else { return false };
        self.socket = socket;
        self.waiting.clear();
        self.send(self.hello(sessions)).await;
        self.welcome = self.expect("welcome").await;
        true
    }

    /// The same with what `welcome` says now, where the server refuses it: the error.
    pub async fn refused_resume(&mut self, address: SocketAddr) -> Value {
        self.socket = open(address, &self.key).await.expect("the server accepts the connection");
        self.waiting.clear();
        self.send(self.hello(json!([]))).await;
        self.expect("error").await
    }

    fn hello(&self, sessions: Value) -> Value {
        json!({ "hello": {
            "instance": self.instance,
            "job": self.job,
            "resume": {
                "incarnation": self.welcome["incarnation"],
                "token": self.welcome["token"],
                "store": self.welcome["store"],
                "sessions": sessions,
            },
        } })
    }

    /// What a connection is answered that greets so, or says nothing: the frames by their names,
    /// and the code it is closed with as `closed`.
    pub async fn greeted(address: SocketAddr, key: &str, hello: Option<Value>) -> Value {
        let frames: Vec<_> = hello.iter().map(Value::to_string).collect();
        Self::greeted_with(address, key, frames).await
    }

    /// The same of one that sends these texts.
    pub async fn greeted_with(address: SocketAddr, key: &str, frames: Vec<String>) -> Value {
        let mut socket = open(address, key).await.expect("the server accepts the connection");
        for frame in frames {
            socket.send(Message::Text(frame.into())).await.unwrap();
        }
        let mut told = serde_json::Map::new();
        while let Ok(Some(Ok(message))) = timeout(PATIENCE, socket.next()).await {
            match message {
                Message::Text(text) => {
                    let frame: serde_json::Map<String, Value> =
                        serde_json::from_str(&text).unwrap();
                    told.extend(frame);
                }
                Message::Close(Some(why)) => {
                    told.insert("closed".to_owned(), u16::from(why.code).into());
                }
                _ => {}
            }
        }
        Value::Object(told)
    }

    /// A number for the next request.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: Value) {
        self.send_text(frame.to_string()).await;
    }

    /// Sends a text, whether or not it is a frame.
    pub async fn send_text(&mut self, text: String) {
        self.socket.send(Message::Text(text.into())).await.unwrap();
    }

    /// The same over a connection that may have ended. False: it has.
    pub async fn try_send_text(&mut self, text: String) -> bool {
        self.socket.send(Message::Text(text.into())).await.is_ok()
    }

    /// The next frame of this name; those before it wait for their turn. Pings meanwhile.
    pub async fn expect(&mut self, name: &str) -> Value {
        let found = self.find(|frame| frame.get(name).is_some(), PATIENCE).await;
        found.unwrap_or_else(|| panic!("no `{name}` came: {:?}", self.waiting))[name].take()
    }

    /// The next frame that has one of these names, whole.
    pub async fn next(&mut self, names: &[&str]) -> Value {
        let is_one = |frame: &Value| names.iter().any(|name| frame.get(name).is_some());
        let found = self.find(is_one, PATIENCE).await;
        found.unwrap_or_else(|| panic!("none of {names:?} came: {:?}", self.waiting))
    }

    /// The answer to a request.
    pub async fn answer(&mut self, i: u64) -> Value {
        let answers = |frame: &Value| frame.as_object().unwrap().values().any(|it| it["i"] == i);
        let found = self.find(answers, PATIENCE).await;
        found.unwrap_or_else(|| panic!("no answer to {i} came: {:?}", self.waiting))
    }

    /// Whether a frame of this name comes within a time.
    pub async fn comes(&mut self, name: &str, within: Duration) -> bool {
        self.find(|frame| frame.get(name).is_some(), within).await.is_some()
    }

    /// Pings until a pong comes: how old the confirmation is, in milliseconds.
    pub async fn pong(&mut self) -> u64 {
        self.age = None;
        for _ in 0..60 {
            let _ = self.find(|_| false, PING * 2).await;
            if let Some(age) = self.age {
                return age;
            }
        }
        panic!("no pong came: {:?}", self.waiting)
    }

    async fn find(&mut self, wanted: impl Fn(&Value) -> bool, within: Duration) -> Option<Value> {
        let until = Instant::now() + within;
        loop {
            if let Some(at) = self.waiting.iter().position(&wanted) {
                return self.waiting.remove(at);
            }
            if Instant::now() >= until {
                return None;
            }
            if !self.is_silent && self.pinged.elapsed() >= PING {
                self.pinged = Instant::now();
                let ping = json!({ "ping": { "n": 1 } }).to_string();
                let _ = self.socket.send(Message::Text(ping.into())).await;
            }
            match timeout(PING, self.socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    match frame.get("pong") {
                        Some(pong) => self.age = pong["age"].as_u64(),
                        None => self.waiting.push_back(frame),
                    }
                }
                Ok(Some(Ok(_))) | Err(_) => {}
                Ok(_) => return None,
            }
        }
    }

    /// Opens a profile of `PlayerData`, with `{"coins":0}` for a new one.
    pub async fn start(&mut self, s: u64, key: &str) -> Value {
        let i = self.number();
        self.send(json!({ "start": {
            "i": i, "s": s, "store": "PlayerData", "key": key, "template": { "coins": 0 },
        } }))
        .await;
        let answer = self.answer(i).await;
        assert!(answer["started"].is_object(), "{answer}");
        answer["started"].clone()
    }

    /// Saves so many coins, and waits until they are stored.
    pub async fn save(&mut self, s: u64, n: u64, coins: u64, processed: Value) -> Value {
        let i = self.number();
        self.send(json!({ "save": {
            "i": i, "s": s, "n": n, "data": { "coins": coins }, "processed": processed,
        } }))
        .await;
        self.answer(i).await
    }

    /// Ends a session as it is stored.
    pub async fn end(&mut self, s: u64, n: u64) -> Value {
        let i = self.number();
        self.send(json!({ "end": { "i": i, "s": s, "n": n } })).await;
        self.answer(i).await
    }
}
