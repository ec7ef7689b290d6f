//! A game server that sends almost frames, by the thousand, beside one that plays.
//!
//! `PROFILESTORE_FUZZ_FRAMES` says how many.

use std::time::Duration;

use profilestore_server::config::Options;
use profilestore_testbed::{GameClient, almost_a_frame};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{Served, operation, refused};

/// How many are sent over one connection.
const OVER_ONE: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn almost_frames_harm_no_game_server_that_plays() {
    let frames = std::env::var("PROFILESTORE_FUZZ_FRAMES").ok().and_then(|n| n.parse().ok());
    let frames: usize = frames.unwrap_or(1000);
    let served = Served::start().await;
    let mut plays = GameClient::connect(served.address, &served.admin, "plays").await;
    plays.start(1, "player").await;
    let (mut runner, texts) = (TestRunner::deterministic(), almost_a_frame());
    let (mut saves, mut refused) = (0, 0);
    for _ in 0..frames.div_ceil(OVER_ONE) {
        let mut hostile = GameClient::connect(served.address, &served.admin, "hostile").await;
        for _ in 0..OVER_ONE {
            let text = texts.new_tree(&mut runner).unwrap().current();
            if !hostile.try_send_text(text).await {
                // It has said goodbye.
                break;
            }
        }
        saves += 1;
        let saved = plays.save(1, saves, saves, json!([])).await;
        assert!(saved["saved"].is_object(), "{saved}");
        refused += usize::from(hostile.comes("error", Duration::from_secs(10)).await);
    }
    assert!(refused > 0, "no frame was refused");
    plays.pong().await;
    assert!(!plays.comes("closed", Duration::ZERO).await);
    let stored = served.admin().get("/v1/stores/PlayerData/profiles/player").await.is(200);
    assert_eq!(stored["data"], json!({ "coins": saves }));
}

/// The reason went into the audit log however long it was.
#[tokio::test]
async fn why_a_game_server_refused_an_edit_is_kept_in_2000_bytes() {
    let served = Served::start().await;
    let mut game = GameClient::connect(served.address, &served.admin, "eu-1").await;
    game.start(1, "player").await;
    let edit = served
        .admin()
        .header("Content-Type", "application/json-patch+json")
        .header("Idempotency-Key", &operation());
    let asked = tokio::spawn(async move {
        let body = r#"[{"op":"increase","path":"/coins","by":1}]"#;
        edit.post("/v1/stores/PlayerData/profiles/player/edits", body).await
    });
    let op = game.expect("edit").await["op"].clone();
    let i = game.number();
    game.send(json!({ "save": {
        "i": i, "s": 1, "n": 1, "data": { "coins": 0 },
        "edits_done": [{ "op": op, "refused": "é".repeat(100_000) }],
    } }))
    .await;
    assert!(game.answer(i).await["saved"].is_object());
    let answer = asked.await.unwrap();
    refused(&answer, 422, "edit-refused");
    assert_eq!(answer.json()["detail"].as_str().unwrap().matches('é').count(), 1000);
}

/// A number beyond 64 bits was rounded, and of two members of one name the first was dropped.
#[tokio::test]
async fn tags_and_metadata_that_would_not_stay_as_they_are_written_are_refused() {
    const MARK: &str = r#"{"mark":{"$serde_json::private::RawValue":"1"}}"#;
    let served = Served::start().await;
    let mut game = GameClient::connect(served.address, &served.admin, "eu-1").await;
    game.start(1, "player").await;
    let mut n = 0;
    for member in ["tags", "metadata"] {
        for (text, place) in [
            (r#"{"a":1,"a":2}"#, "/a"),
            (r#"{"list":[18446744073709551616]}"#, "/list/0"),
            (r#"{"far":1e400}"#, "/far"),
            (r#"{"half":"\ud800"}"#, "/half"),
            (MARK, "/mark/$serde_json::private::RawValue"),
        ] {
            n += 1;
            let i = game.number();
            let head = format!(r#"{{"save":{{"i":{i},"s":1,"n":{n},"data":{{"coins":9}}"#);
            game.send_text(format!(r#"{head},"{member}":{text}}}}}"#)).await;
            let refused = game.answer(i).await;
            let problem = &refused["error"]["problem"];
            assert_eq!(problem["kind"], "invalid", "{refused}");
            assert_eq!(problem["path"], format!("/{member}{place}"), "{refused}");
        }
        n += 1;
        let i = game.number();
        let mut save = json!({ "i": i, "s": 1, "n": n, "data": {} });
        save[member] = json!([]);
        game.send(json!({ "save": save })).await;
        let refused = game.answer(i).await;
        assert_eq!(refused["error"]["problem"]["kind"], "invalid", "{refused}");
    }
    // The session goes on, and what can be stored stays to the digit.
    let kept = json!({ "least": i64::MIN, "most": u64::MAX, "zero": -0.0, "none": null });
    let i = game.number();
    game.send(json!({ "save": {
        "i": i, "s": 1, "n": n + 1, "data": { "coins": 1 }, "tags": kept, "metadata": kept,
    } }))
    .await;
    assert!(game.answer(i).await["saved"].is_object());
    let stored = served.admin().get("/v1/stores/PlayerData/profiles/player").await.is(200);
    assert_eq!(stored["data"], json!({ "coins": 1 }));
    for member in ["tags", "metadata"] {
        assert_eq!(stored[member].to_string(), kept.to_string(), "{stored}");
    }
}

/// Each was answered into memory, without bound: some 100 MB a second.
#[tokio::test]
async fn answers_to_the_pings_of_a_client_that_does_not_read_are_bounded() {
    let served = Served::start().await;
    let mut stream = upgraded(&served).await;
    // A ping of WebSocket itself with 125 bytes, masked by zeros.
    let mut ping = vec![0x89, 0x80 | 125, 0, 0, 0, 0];
    ping.extend([b'x'; 125]);
    let many = ping.repeat((1 << 20) / ping.len());
    for _ in 0..40 {
        if stream.write_all(&many).await.is_err() {
            break;
        }
    }
    let _ = stream.write_all(&CLOSE).await;
    let kept = read(&mut stream).await;
    // Beside those, what the operating system holds of a connection.
    assert!(kept < 32 << 20, "{kept} bytes were kept");
}

/// What it had not read waited in this process for as long as it read a frame now and then, beside
/// the connections that may be open.
#[tokio::test]
async fn nothing_waits_for_a_client_whose_connection_is_over() {
    let served = Served::with(Options { max_connections: Some(1), ..Options::default() }).await;
    let mut stream = upgraded(&served).await;
    let name = "x".repeat(1100);
    let hello = format!("{{\"hello\":{{\"instance\":\"{name}\",\"job\":\"hostile\"}}}}");
    stream.write_all(&text(&hello)).await.unwrap();
    // Each is answered with 1,000 characters of it at least.
    let wrong = text(&format!("{{\"{name}\":{{}}}}")).repeat(400);
    for _ in 0..100 {
        stream.write_all(&wrong).await.unwrap();
    }
    stream.write_all(&CLOSE).await.unwrap();
    // There is room for another connection when this one is over.
    assert_eq!(served.admin().get("/healthz").await.status, 200);
    let kept = read(&mut stream).await;
    // What the operating system holds of a connection.
    assert!(kept < 32 << 20, "{kept} bytes were kept");
}

/// A closing frame, masked by zeros.
const CLOSE: [u8; 6] = [0x88, 0x80, 0, 0, 0, 0];

/// A frame of WebSocket with a text of 126 bytes or more.
fn text(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend([0_u8; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// How many bytes come until the connection ends.
async fn read(stream: &mut TcpStream) -> usize {
    let (mut kept, mut bytes) = (0, vec![0; 1 << 16]);
    while let Ok(length @ 1..) = stream.read(&mut bytes).await {
        kept += length;
    }
    kept
}

/// A connection that reads nothing by itself.
async fn upgraded(served: &Served) -> TcpStream {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let head = format!(
        "GET /v1/connect HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\
         Sec-WebSocket-Protocol: profilestore.v1+json\r\nAuthorization: Bearer {}\r\n\r\n",
        served.address, served.admin
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}
