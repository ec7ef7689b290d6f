//! What each game server's process begins with: orders and reports over its pipes, and a desk on
//! the store, also during an outage.

use std::{
    io::{BufRead, Write},
    time::Duration,
};

use anyhow::Context;
use profilestore::GameServer;
use tokio::{sync::mpsc, time::Instant};

use super::{
    display,
    edits::Desk,
    fleet::Call,
    settings, storage,
    wire::{Order, Report, line},
};
use crate::place::Store;

/// For how long a server that comes up during an outage of the store keeps trying.
const OUTAGE: Duration = Duration::from_secs(60);

/// How soon it tries again.
const AGAIN: Duration = Duration::from_millis(500);

/// Opens the store and starts a game server, as often as an outage needs. None: it is to end.
pub(super) async fn stand_desk(
    call: &Call,
    job: &str,
    orders: &mut mpsc::UnboundedReceiver<Order>,
) -> anyhow::Result<Option<Desk>> {
    let deadline = Instant::now() + OUTAGE;
    loop {
        match come_up(call, job).await {
            Err(error) if Instant::now() < deadline => {
                display::say(&format!("{job} is not up yet: {error:#}"));
                // Nobody orders anything of a server that is not up, but that it ends.
                if tokio::time::timeout(AGAIN, orders.recv()).await.is_ok() {
                    return Ok(None);
                }
            }
            up => {
                let (store, server) = up?;
                return Ok(Some(Desk { server, store, scope: call.scope.clone() }));
            }
        }
    }
}

async fn come_up(call: &Call, job: &str) -> anyhow::Result<(Store, GameServer)> {
    let (store, messenger) = storage::open(call).await?;
    let builder = GameServer::builder(store.any())
        .messenger(messenger)
        .settings(settings(call.lease_seconds));
    let server = builder.job_id(job).start().await.context("the game server could not start")?;
    Ok((store, server))
}

/// The orders, read by a thread of their own: a process may end while a read of standard input
/// waits.
pub(super) fn read_orders() -> mpsc::UnboundedReceiver<Order> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str(&line) else { return };
            if sender.send(order).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The reports, written by one thread, flushed whenever none waits. Done after the last one.
pub(super) fn write_reports() -> (mpsc::UnboundedSender<Report>, tokio::task::JoinHandle<()>) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let written = tokio::task::spawn_blocking(move || {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        while let Some(report) = receiver.blocking_recv() {
            let mut next = Some(report);
            while let Some(report) = next {
                if report == Report::Bye {
                    let _ = out.flush();
                    return;
                }
                if out.write_all(line(&report).as_bytes()).is_err() {
                    return;
                }
                next = receiver.try_recv().ok();
            }
            if out.flush().is_err() {
                return;
            }
        }
    });
    (sender, written)
}
