//! One Node process with the SDK for TypeScript beside the Rust client, on the same server process.

use std::path::Path;

use tokio::process::Command;

use crate::{
    Outcome,
    child::Other,
    play::{AT_ONCE, STARTS, TIME, connect, remote_starts, saves_at},
    player,
};

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/typescript/bench/client.mjs");

/// What Node makes of `saves SESSIONS SECONDS` or `starts COUNT AT_ONCE`: how many a second.
async fn ask(server: &Other, template: &Path, what: [&str; 3]) -> Outcome<f64> {
    let output = Command::new("node")
        .arg(CLIENT)
        .args(what)
        .env("PROFILESTORE_URL", format!("ws://{}", server.address))
        .env("PROFILESTORE_KEY", &server.key)
        .env("TEMPLATE", template)
        .kill_on_drop(true)
        .output()
        .await?;
    let text = String::from_utf8(output.stdout)?;
    let wrong = || format!("node: {text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text.trim().parse().map_err(|_| wrong())?)
}

pub(crate) async fn node(folder: &Path) -> Outcome {
    let folder = folder.join("node");
    std::fs::create_dir(&folder)?;
    let template = folder.join("template.json");
    std::fs::write(&template, serde_json::to_vec(&player())?)?;
    let server = Other::start("serve", &folder)?;
    println!(
        "\none Node process with the SDK beside the Rust client, which sends what it has as text"
    );
    println!("{:>23} {:>12} {:>12} {:>7}", "a second", "Rust client", "Node", "ratio");
    let row = |what: String, rust: f64, node: f64| {
        println!("{what:>23} {rust:>12.0} {node:>12.0} {:>7.2}", node / rust);
    };
    for sessions in [1, 32, 256] {
        let rust = saves_at(&server, sessions, 1).await?.len() as f64 / TIME.as_secs_f64();
        let (count, seconds) = (sessions.to_string(), TIME.as_secs().to_string());
        let node = ask(&server, &template, ["saves", &count, &seconds]).await?;
        row(format!("saves of {sessions} sessions"), rust, node);
    }
    let game = connect(&server, "starts").await?;
    let rust = remote_starts(&game, "rust", STARTS).await?;
    let (count, at_once) = (STARTS.to_string(), AT_ONCE.to_string());
    let node = ask(&server, &template, ["starts", &count, &at_once]).await?;
    row(format!("starts, {AT_ONCE} at once"), rust, node);
    Ok(())
}
