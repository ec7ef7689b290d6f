//! `GET` of a profile beside a bare handler that answers as many bytes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use profilestore_testbed::LoadClient;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{Outcome, child::Other, percentiles, player};

const TIME: Duration = Duration::from_secs(5);

/// Asks once over a connection that stays open. Answers the body.
async fn get(stream: &mut TcpStream, request: &str, buffer: &mut Vec<u8>) -> Outcome<Vec<u8>> {
    stream.write_all(request.as_bytes()).await?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the connection ended".into());
        }
        let Some(head) = buffer.windows(4).position(|part| part == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head])?.to_ascii_lowercase();
        if !text.starts_with("http/1.1 200") {
            return Err(format!("200 was expected: {text}").into());
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.ok_or("no length")?.trim().parse()?;
        if buffer.len() >= head + 4 + length {
            return Ok(buffer[head + 4..].to_vec());
        }
    }
}

async fn load(other: &Other, path: &str, connections: usize) -> Outcome<Vec<Duration>> {
    let until = Instant::now() + TIME;
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (address, request) = (other.address, request(other, path));
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let (mut buffer, mut took) = (Vec::new(), Vec::new());
                while Instant::now() < until {
                    let began = Instant::now();
                    get(&mut stream, &request, &mut buffer).await?;
                    took.push(began.elapsed());
                }
                Outcome::Ok(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    Ok(took)
}

fn request(other: &Other, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n", other.key)
}

const PATH: &str = "/v1/stores/PlayerData/profiles/p";

/// A server process with a profile that is played, and a bare one that answers the same bytes.
struct Both {
    server: Other,
    bare: Other,
    /// How long the answers are.
    length: usize,
    _game: LoadClient,
}

async fn both(folder: &Path) -> Outcome<Both> {
    std::fs::create_dir(folder)?;
    let server = Other::start("serve", folder)?;
    let game = LoadClient::connect(server.address, &server.key, "game").await;
    let game = game.ok_or("no connection")?;
    let template = serde_json::to_string(&player())?;
    let started = game.ask(|i| {
        format!(
            "{{\"start\":{{\"i\":{i},\"s\":1,\"store\":\"PlayerData\",\"key\":\"p\",\"template\":\
             {template}}}}}"
        )
    });
    if started.await.as_deref() != Some("started") {
        return Err("no session".into());
    }
    let mut stream = TcpStream::connect(server.address).await?;
    let body = get(&mut stream, &request(&server, PATH), &mut Vec::new()).await?;
    let file = folder.join("body");
    std::fs::write(&file, &body)?;
    let bare = Other::start("bare", &file)?;
    Ok(Both { server, bare, length: body.len(), _game: game })
}

pub(crate) async fn reads(folder: &Path) -> Outcome {
    let Both { server, bare, length, _game } = both(&folder.join("reads")).await?;
    println!("\nreads a second over HTTP, answers of {length} bytes");
    println!(
        "{:>12} {:>12} {:>12} {:>7} {:>18} {:>18}",
        "connections", "bare", "profile", "ratio", "bare p99 ms", "profile p99 ms"
    );
    for connections in [1, 32] {
        let mut of_bare = load(&bare, "/", connections).await?;
        let mut of_profile = load(&server, PATH, connections).await?;
        let rate = |took: &[Duration]| took.len() as f64 / TIME.as_secs_f64();
        let (bare, profile) = (rate(&of_bare), rate(&of_profile));
        println!(
            "{connections:>12} {bare:>12.0} {profile:>12.0} {:>7.2} {:>18.2} {:>18.2}",
            profile / bare,
            percentiles(&mut of_bare).1,
            percentiles(&mut of_profile).1
        );
    }
    Ok(())
}

/// The same with the load of `wrk`, which is a program of others.
pub(crate) async fn wrk(folder: &Path) -> Outcome {
    let Both { server, bare, length, _game } = both(&folder.join("wrk")).await?;
    println!("\nthe same by `wrk`, one thread, {TIME:?} each, answers of {length} bytes");
    println!("{:>12} {:>12} {:>12} {:>12}", "connections", "answers", "a second", "p99");
    for connections in [1, 32, 256] {
        for (what, other, path) in [("bare", &bare, "/"), ("profile", &server, PATH)] {
            let (rate, p99) = asked_by_wrk(other, path, connections).await?;
            println!("{connections:>12} {what:>12} {rate:>12} {p99:>12}");
        }
    }
    Ok(())
}

/// Requests a second and their 99th percentile, as `wrk` writes them.
async fn asked_by_wrk(other: &Other, path: &str, connections: usize) -> Outcome<(String, String)> {
    let output = tokio::process::Command::new("wrk")
        .args(["--threads", "1", "--latency"])
        .args(["--connections", &connections.to_string()])
        .args(["--duration", &format!("{}s", TIME.as_secs())])
        .args(["--header", &format!("Authorization: Bearer {}", other.key)])
        .arg(format!("http://{}{path}", other.address))
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("`wrk` cannot be run (Debian: apt-get install wrk): {error}"))?;
    let text = String::from_utf8(output.stdout)?;
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.trim_start().strip_prefix(name));
        found.map(|value| value.trim().to_owned())
    };
    match (value("Requests/sec:"), value("99%")) {
        (Some(rate), Some(p99)) if value("Non-2xx or 3xx responses:").is_none() => Ok((rate, p99)),
        _ => Err(format!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
