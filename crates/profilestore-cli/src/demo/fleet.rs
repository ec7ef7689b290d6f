//! The server processes: started, killed, started again, stopped.

use std::{fmt, process::Stdio, sync::Arc, time::Duration};

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
use crate::{hints::Address, place::Place};

/// How a server process is called.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) place: Place,
    pub(crate) messenger: Option<Address>,
    pub(crate) scope: String,
    pub(crate) lease_seconds: f64,
    /// Environment of one slot's processes.
    pub(crate) on_server: Vec<(usize, String, String)>,
    /// Through which processes of `profilestore serve` it plays. None: it uses the library.
    pub(crate) via: Option<Via>,
}

/// Processes of `profilestore serve`, and a key for them.
#[derive(Clone)]
pub(crate) struct Via {
    pub(crate) addresses: Vec<String>,
    pub(crate) key: String,
}

/// The variables that tell a game server through whom it plays.
const VIA: &str = "PROFILESTORE_DEMO_VIA";
const VIA_KEY: &str = "PROFILESTORE_DEMO_VIA_KEY";

impl Via {
    /// What the parent has told this process.
    pub(crate) fn told() -> Option<Self> {
        let addresses = std::env::var(VIA).ok()?;
        let addresses = addresses.split(',').map(str::to_owned).collect();
        Some(Self { addresses, key: std::env::var(VIA_KEY).ok()? })
    }
}

/// Without the key.
impl fmt::Debug for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Via").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// What is to become of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// It is killed, and another one is started after this long; None: never again.
    Kill(Option<Duration>),
    /// It shuts down, and another one is started.
    Restart,
}

/// Keeps one slot running until `stop` says so and its process has ended by itself.
pub(crate) async fn keep(
    slot: usize,
    call: Arc<Call>,
    world: Shared,
    mut fates: mpsc::Receiver<Fate>,
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
        let mut fate = None;
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
                Some(next) = fates.recv(), if fate.is_none() => {
                    match next {
                        Fate::Kill(_) => {
                            child.start_kill().context("a server could not be killed")?;
                            locked(&world).figures.kills += 1;
                        }
                        Fate::Restart => locked(&world).stop(slot),
                    }
                    fate = Some(next);
                }
            }
        }
        writing.abort();
        let status = child.wait().await.context("a server's end could not be waited for")?;
        locked(&world).gone(slot);
        let stopping = *stop.borrow();
        let pause = match fate {
            Some(Fate::Kill(None)) => return Ok(()),
            Some(Fate::Kill(Some(pause))) => pause,
            _ if stopping && status.success() => return Ok(()),
            Some(Fate::Restart) if status.success() => Duration::ZERO,
            _ => {
                locked(&world)
                    .faults
                    .push(format!("server {slot}: ended without being told to: {status}"));
                Duration::from_secs(1)
            }
        };
        // Also true at once when it was told to stop while it was down.
        if tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok() {
            return Ok(());
        }
    }
}

/// This program once more, for a part of the run: with the run's store and messenger, and killed
/// when it is dropped.
pub(crate) fn own_program(call: &Call) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("this program's own file is not known")?;
    let mut command = Command::new(program);
    let is_logged = std::env::var_os("PROFILESTORE_LOG").is_some();
    command
        .stdout(Stdio::piped())
        .stderr(if is_logged { Stdio::inherit() } else { Stdio::null() })
        .kill_on_drop(true);
    // Not an argument: those can be read by everybody on the machine.
    command.env("PROFILESTORE_STORE", call.place.secret());
    match &call.messenger {
        Some(address) => command.env("PROFILESTORE_MESSENGER", address.secret()),
        None => command.env_remove("PROFILESTORE_MESSENGER"),
    };
    // Ctrl-C is for the parent, which then ends the servers in order.
    #[cfg(unix)]
    command.process_group(0);
    Ok(command)
}

fn spawn(slot: usize, number: u32, call: &Call) -> anyhow::Result<Child> {
    let mut command = own_program(call)?;
    command
        .arg("demo-server")
        .args(["--scope", &call.scope])
        .args(["--lease-seconds", &call.lease_seconds.to_string()])
        .args(["--job", &format!("server-{slot}.{number}")])
        .stdin(Stdio::piped());
    match &call.via {
        Some(via) => command.env(VIA, via.addresses.join(",")).env(VIA_KEY, &via.key),
        None => command.env_remove(VIA),
    };
    command.envs(
        call.on_server.iter().filter(|(on, ..)| *on == slot).map(|(_, name, value)| (name, value)),
    );
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
