//! Strangers open connections by the thousand, and a game server plays on: strangers that send
//! nothing, that send half of a request, and that ask and never read an answer.
//!
//! `PROFILESTORE_FLOOD` says how many there are.

use std::{net::SocketAddr, pin::pin, time::Duration};

use profilestore_testbed::GameClient;
use serde_json::json;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::serve::Place;

/// How many saves are measured.
const SAVES: u64 = 200;

/// How many requests one sends that reads no answer.
const UNREAD: usize = 200;

/// Connections of strangers, which stay open.
#[derive(Default)]
struct Flood {
    streams: Vec<TcpStream>,
    clients: Vec<GameClient>,
}

impl Flood {
    /// Of ten strangers, four send nothing, four half of a request, one asks over HTTP and reads
    /// no answer, and one does so as a game server.
    async fn of(count: usize, address: SocketAddr, key: &str) -> Self {
        let mut flood = Self::default();
        let request = format!(
            "GET /v1/stores/PlayerData/profiles/large HTTP/1.1\r\nHost: localhost\r\n\
             Authorization: Bearer {key}\r\n\r\n"
        );
        for at in 0..count {
            if at % 10 == 9 {
                let name = format!("deaf-{at}");
                let mut client = GameClient::connect(address, key, &name).await;
                let template = json!({ "text": "x".repeat(256 << 10) });
                client
                    .send(json!({ "start": { "i": 1, "s": 1, "store": "PlayerData", "key": name,
                        "template": template } }))
                    .await;
                for n in 0..UNREAD {
                    client.send(json!({ "ping": { "n": n } })).await;
                }
                flood.clients.push(client);
                continue;
            }
            let mut stream = TcpStream::connect(address).await.expect("there is room for it");
            match at % 10 {
                0..4 => {}
                4..8 => stream.write_all(b"GET /v1/stores HTTP/1.1\r\nHost: loc").await.unwrap(),
                _ => {
                    let requests = request.repeat(UNREAD);
                    // The server may well take no more of them.
                    let all = stream.write_all(requests.as_bytes());
                    let _ = timeout(Duration::from_millis(20), all).await;
                }
            }
            flood.streams.push(stream);
        }
        flood
    }
}

/// Saves one after the other: the time of half of them, and the longest.
async fn saves(game: &mut GameClient, n: &mut u64) -> String {
    let mut took = Vec::new();
    for _ in 0..SAVES {
        *n += 1;
        let began = Instant::now();
        let saved = game.save(1, *n, *n, json!([])).await;
        assert!(saved["saved"].is_object(), "{saved}");
        took.push(began.elapsed());
    }
    took.sort_unstable();
    let ms = |at: usize| took[at].as_secs_f64() * 1000.0;
    format!("p50 {:.1} ms, longest {:.1} ms", ms(took.len() / 2), ms(took.len() - 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_connections_do_not_hurt_a_game_server_that_plays() {
    let strangers = std::env::var("PROFILESTORE_FLOOD").ok().and_then(|count| count.parse().ok());
    let strangers: usize = strangers.unwrap_or(1000);
    let place = Place::new(None, None, 1);
    let address: SocketAddr = ([127, 0, 0, 1], place.ports[0]).into();
    let mut game = GameClient::connect(address, &place.key, "plays").await;
    game.start(1, "player").await;
    // What those get who do not read it.
    let i = game.number();
    let large = json!({ "text": "x".repeat(1 << 20) });
    game.send(json!({ "start": { "i": i, "s": 2, "store": "PlayerData", "key": "large",
        "template": large } }))
        .await;
    assert!(game.answer(i).await["started"].is_object());
    let mut n = 0;
    let before = saves(&mut game, &mut n).await;
    let mut coming = pin!(Flood::of(strangers, address, &place.key));
    let flood = loop {
        tokio::select! {
            flood = &mut coming => break flood,
            // The game server goes on pinging meanwhile, however long they take.
            is_closed = game.comes("closed", Duration::from_secs(1)) => assert!(!is_closed),
        }
    };
    let during = saves(&mut game, &mut n).await;
    // It goes on to be believed in, and no session ended.
    game.pong().await;
    assert!(!game.comes("closed", Duration::ZERO).await);
    assert_eq!(flood.streams.len() + flood.clients.len(), strangers);
    // A stranger who comes now is answered.
    assert_eq!(place.read_of("PlayerData", "player", "")["data"]["coins"], n);
    let memory = place.memory();
    eprintln!(
        "{strangers} strangers: saves before {before}; with them {during}; the process has {} MiB",
        memory >> 20
    );
    drop(flood);
    assert!(game.end(1, n + 1).await["ended"].is_object());
}
