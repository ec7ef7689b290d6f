//! The server processes: started, killed, started again, stopped.

use std::{process::Stdio, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::{mpsc, watch},
};

use super::{
    Shared, locked,
    wire::{Order, Report, line},
};
use crate::place::Place;

/// How a server process is called.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) place: Place,
    pub(crate) scope: String,
    pub(crate) lease_seconds: f64,
}

/// Kill the process, and start another one after this long; None: never again.
pub(crate) type Kill = Option<Duration>;

/// Keeps one slot running until `stop` says so and its process has ended by itself.
pub(crate) async fn keep(
    slot: usize,
    call: Arc<Call>,
    world: Shared,
    mut kills: mpsc::Receiver<Kill>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut number = 0;
    loop {
        number += 1;
        let mut child = spawn(slot, number, &call)?;
        let input = child.stdin.take().context("the server's standard input is not a pipe")?;
        let output = child.stdout.take().context("the server's standard output is not a pipe")?;
        let (orders, to_write) = mpsc::unbounded_channel();
        locked(&world).begin(slot, orders);
        let writing = tokio::spawn(write(input, to_write));
        let mut lines = BufReader::new(output).lines();
        let mut killed = None;
        loop {
            tokio::select! {
                biased;
                line = lines.next_line() => match line {
                    // A line that a kill cut off is no report.
                    Ok(Some(line)) => if let Ok(report) = serde_json::from_str::<Report>(&line) {
                        locked(&world).report(slot, report);
                    },
                    _ => break,
                },
                Some(kill) = kills.recv(), if killed.is_none() => {
                    child.start_kill().context("a server could not be killed")?;
                    locked(&world).figures.kills += 1;
                    killed = Some(kill);
                }
            }
        }
        writing.abort();
        let status = child.wait().await.context("a server's end could not be waited for")?;
        locked(&world).gone(slot);
        let stopping = *stop.borrow();
        let pause = match killed {
            Some(None) => return Ok(()),
            Some(Some(pause)) => pause,
            None if stopping && status.success() => return Ok(()),
            None => {
                locked(&world).faults.push(format!("server {slot}: ended without being told to: {status}"));
                Duration::from_secs(1)
            }
        };
        // Also true at once when it was told to stop while it was down.
        if tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok() {
            return Ok(());
        }
    }
}

fn spawn(slot: usize, number: u32, call: &Call) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("this program's own file is not known")?;
    let mut command = Command::new(program);
    command
        .arg("demo-server")
        .args(["--store", &call.place.to_string(), "--scope", &call.scope])
        .args(["--lease-seconds", &call.lease_seconds.to_string()])
        .args(["--job", &format!("server-{slot}.{number}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(if std::env::var_os("PROFILESTORE_LOG").is_some() { Stdio::inherit() } else { Stdio::null() })
        .kill_on_drop(true);
    // Ctrl-C is for the parent, who then ends the servers in order.
    #[cfg(unix)]
    command.process_group(0);
    command.spawn().context("a server could not be started")
}

async fn write(mut input: ChildStdin, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut lines = String::new();
    while let Some(order) = orders.recv().await {
        lines.clear();
        lines.push_str(&line(&order));
        while let Ok(order) = orders.try_recv() {
            lines.push_str(&line(&order));
        }
        if input.write_all(lines.as_bytes()).await.is_err() {
            return;
        }
    }
}
