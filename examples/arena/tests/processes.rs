//! Two real processes on one store, played over WebSockets. One is killed.
#![cfg(unix)]

use std::{process::Stdio, time::Duration};

use futures_util::{SinkExt, StreamExt};
use profilestore::env::Env;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

struct Server {
    child: Child,
    address: String,
}

impl Server {
    async fn start(store: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_arena"))
            .args(["--listen", "127.0.0.1:0", "--token", "secret", "--store", store])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        timeout(PATIENCE, out.read_line(&mut line)).await.unwrap().unwrap();
        let address = line.trim().strip_prefix("http://").expect("it says where it listens");
        Self { child, address: address.to_owned() }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).unwrap();
        kill_process(pid, signal).unwrap();
    }

    async fn login(&self, name: &str) -> Option<Client> {
        let (mut socket, _) = connect_async(format!("ws://{}/play", self.address)).await.ok()?;
        let login = json!({ "login": name }).to_string();
        socket.send(Message::text(login)).await.ok()?;
        let mut client = Client { socket };
        let news = client.hear(|news| news["is"] == "you" || news["is"] == "bye").await?;
        (news["is"] == "you").then_some(client)
    }

    /// One request over HTTP. Answers with the status and the text.
    async fn http(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(&self.address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: arena\r\nconnection: close\r\n\
             authorization: Bearer secret\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    /// Waits for news of a kind. None when the connection is closed before.
    async fn hear(&mut self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let look = async {
            while let Some(Ok(message)) = self.socket.next().await {
                let Ok(news) = serde_json::from_str(message.to_text().ok()?) else { continue };
                if wanted(&news) {
                    return Some(news);
                }
            }
            None
        };
        timeout(PATIENCE, look).await.expect("the server says something in time")
    }

    /// Asks for something, and gives the answer.
    async fn ask(&mut self, command: Value) -> Value {
        self.socket.send(Message::text(command.to_string())).await.unwrap();
        self.hear(|news| news["is"] == "note" || news["is"] == "refusal").await.unwrap()
    }

    async fn expect_coins(&mut self, coins: u64) -> Value {
        let here = |news: &Value| news["is"] == "you" && news["player"]["coins"] == coins;
        self.hear(here).await.unwrap_or_else(|| panic!("never had {coins} coins"))
    }
}

#[tokio::test]
async fn players_of_a_killed_process_go_on_at_the_other() {
    let folder = tempfile::tempdir().unwrap();
    play(&format!("sqlite:{}", folder.path().join("arena.db").display())).await;
}

/// `scripts/servers.sh` starts a server and runs a command with its address.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn the_same_on_postgresql() {
    let server = std::env::var("PROFILESTORE_TEST_POSTGRES")
        .expect("PROFILESTORE_TEST_POSTGRES names the server: see scripts/servers.sh");
    let schema = format!("arena_{}", Env::system().uuid().simple());
    let url = format!("{server}?schema={schema}");
    let options = url.parse().unwrap();
    profilestore::data_store::PostgresStore::migrate(&options, None).await.unwrap();
    play(&url).await;
}

async fn play(store: &str) {
    let (mut one, mut two) = (Server::start(store).await, Server::start(store).await);
    let mut bob = one.login("bob").await.unwrap();

    // Play on one, then hop: the first connection is told, and nothing is lost.
    let mut first = one.login("alice").await.unwrap();
    assert_eq!(first.ask(json!({ "do": "buy", "kind": "sword" })).await["is"], "note");
    assert_eq!(first.ask(json!({ "do": "buy", "kind": "castle" })).await["is"], "refusal");
    assert_eq!(first.ask(json!({ "nonsense": 1 })).await["is"], "refusal");
    let mut alice = two.login("alice").await.unwrap();
    let bye = first.hear(|news| news["is"] == "bye").await.unwrap();
    assert_eq!(bye["text"], "You play on another server now.");
    let state = alice.ask(json!({ "do": "fight" })).await;
    assert_eq!(state["is"], "note");

    // A gift is durable when it is answered, with all that was done before. Then the kill.
    assert_eq!(alice.ask(json!({ "do": "gift", "to": "bob", "coins": 15 })).await["is"], "note");
    bob.expect_coins(115).await;
    two.signal(Signal::KILL);
    two.child.wait().await.unwrap();
    assert!(alice.hear(|_| false).await.is_none(), "the connection is gone");
    let mut alice = one.login("alice").await.unwrap();
    let state = alice.expect_coins(50).await;
    assert_eq!(state["player"]["items"][0]["kind"], "sword");
    assert_eq!(state["player"]["score"], 1);

    // A purchase that is reported twice, an administrator, metrics, the page.
    let bought_ms = Env::system().unix_ms();
    let purchase =
        json!({ "player": "alice", "id": "1", "bought_ms": bought_ms, "product": "purse" });
    for answer in ["Now\n", "Before\n"] {
        let told = one.http("POST", "/purchases", &purchase.to_string()).await;
        assert_eq!(told, (200, answer.to_owned()));
    }
    alice.expect_coins(550).await;
    let order = json!({ "by": "admin", "reason": "a test", "coins": 50 }).to_string();
    assert_eq!(one.http("POST", "/players/alice", &order).await.0, 200);
    alice.expect_coins(600).await;
    assert_eq!(one.http("POST", "/players/nobody", &order).await.0, 404);
    assert_eq!(one.http("POST", "/players/alice", "{}").await.0, 400);
    let (_, metrics) = one.http("GET", "/metrics", "").await;
    assert!(metrics.contains("\nprofilestore_sessions "), "{metrics}");
    assert!(metrics.contains("# HELP profilestore_sessions "), "{metrics}");
    assert!(one.http("GET", "/", "").await.1.contains("<title>Arena</title>"));

    // SIGTERM: players are told to come again, and the exit code says that all is saved.
    one.signal(Signal::TERM);
    let bye = alice.hear(|news| news["is"] == "bye").await.unwrap();
    assert_eq!(
        (&bye["again"], &bye["text"]),
        (&json!(true), &json!("This server stops. Your things are saved."),)
    );
    assert!(timeout(PATIENCE, one.child.wait()).await.unwrap().unwrap().success());
    let three = Server::start(store).await;
    let mut alice = three.login("alice").await.unwrap();
    alice.expect_coins(600).await;
}
