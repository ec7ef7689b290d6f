//! The `profilestore serve` processes that game servers play through: started, killed, started
//! again.

use std::{collections::BTreeSet, process::Stdio, sync::Arc, time::Duration};

use anyhow::Context;
use profilestore::{Attribution, env::Env};
use profilestore_server::{
    Keys,
    keys::{NewKey, Scope},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::Child,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::demo::{
    Shared,
    dice::Dice,
    fleet::{Call, Via, own_program},
    locked, storage,
};

/// How long a process may take to come up.
const START: Duration = Duration::from_secs(60);

/// The least and most time between two kills, in milliseconds.
const BETWEEN_MS: (u64, u64) = (1000, 3000);

/// The processes. They are killed when this is dropped.
pub(crate) struct Hosts {
    call: Arc<Call>,
    via: Via,
    keys: Keys,
    /// The key's id.
    key: String,
    processes: Vec<Option<Child>>,
}

fn by() -> Attribution {
    Attribution::new("demo").because("game servers of the demonstration")
}

impl Hosts {
    /// Starts so many, on the store of the run, with a key for game servers.
    pub(crate) async fn start(call: &Call, count: u16) -> anyhow::Result<Self> {
        let (store, _) = storage::open(call).await?;
        let new = NewKey {
            name: format!("demo-{}", call.scope),
            scopes: BTreeSet::from([Scope::SessionsHold, Scope::MessagesSend]),
            store: None,
            prefix: None,
            expires_ms: None,
        };
        let keys = Keys::new(store.any(), Env::system());
        let (record, key) = keys.add(new, &by()).await.context("no key could be made")?;
        let mut addresses = Vec::new();
        for _ in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await.context("there is no port")?;
            addresses.push(listener.local_addr().context("there is no port")?.to_string());
        }
        let processes = addresses.iter().map(|_| None).collect();
        let (call, via) = (Arc::new(call.clone()), Via { addresses, key });
        let mut hosts = Self { call, via, keys, key: record.id, processes };
        for at in 0..hosts.processes.len() {
            hosts.run(at).await?;
        }
        Ok(hosts)
    }

    /// Where they are.
    pub(crate) fn via(&self) -> Via {
        self.via.clone()
    }

    /// Starts a process, and waits until it listens.
    async fn run(&mut self, at: usize) -> anyhow::Result<()> {
        let tries = async {
            loop {
                match self.try_to_run(at).await {
                    Ok(child) => return child,
                    Err(_) => sleep(Duration::from_millis(200)).await,
                }
            }
        };
        let child = timeout(START, tries).await.context("`profilestore serve` does not start")?;
        self.processes[at] = Some(child);
        Ok(())
    }

    async fn try_to_run(&self, at: usize) -> anyhow::Result<Child> {
        let mut command = own_program(&self.call)?;
        command
            .args(["serve", "--json", "--listen", &self.via.addresses[at]])
            .args(["--job", &format!("host-{at}")])
            .stdin(Stdio::null());
        let mut child = command.spawn().context("`profilestore serve` could not be started")?;
        let output = child.stdout.take().context("its standard output is not a pipe")?;
        // It says where it listens. What it says later is read so that it can say it.
        let mut lines = BufReader::new(output).lines();
        lines.next_line().await?.context("`profilestore serve` ended")?;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(child)
    }

    /// Kills one now and then, and starts it again, until `stop` says so. They run in the end.
    pub(crate) async fn kill(
        mut self,
        world: Shared,
        mut dice: Dice,
        mut stop: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        loop {
            let pause = Duration::from_millis(dice.between(BETWEEN_MS.0, BETWEEN_MS.1));
            if timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok() {
                return Ok(self);
            }
            let at = usize::try_from(dice.below(self.processes.len() as u64)).unwrap_or(0);
            if let Some(mut child) = self.processes[at].take() {
                child.kill().await.context("a host could not be killed")?;
            }
            locked(&world).figures.host_kills += 1;
            self.run(at).await?;
        }
    }

    /// Ends them all. Their key is good for nothing any more.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        let mut ends = JoinSet::new();
        for mut child in self.processes.drain(..).flatten() {
            ends.spawn(async move {
                let _ = child.kill().await;
            });
        }
        ends.join_all().await;
        self.keys.revoke(&self.key, &by()).await.context("the key could not be revoked")?;
        Ok(())
    }
}
