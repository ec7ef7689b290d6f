//! One driver: a process that holds an SDK, is one game server, and speaks JSON lines.

use std::{
    collections::HashMap,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    sync::{oneshot, watch},
    time::timeout,
};

use super::watch::Watched;

/// How long an answer or an event may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Debug, Default)]
struct Heard {
    waiting: HashMap<u64, oneshot::Sender<Value>>,
    events: Vec<Value>,
    is_over: bool,
}

/// A driver's process. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Driver {
    child: Child,
    _watched: Watched,
    input: ChildStdin,
    next: u64,
    heard: Arc<Mutex<Heard>>,
    changes: watch::Receiver<u64>,
}

/// The answer to a command, which may come later.
#[derive(Debug)]
pub(crate) struct Pending {
    what: Value,
    pub(crate) answer: oneshot::Receiver<Value>,
}

impl Pending {
    /// The command as it was given.
    pub(crate) fn command(&self) -> Value {
        self.what.clone()
    }

    /// `{"ok": …}` or `{"error": {"kind", "advice", "message"}}`.
    pub(crate) async fn wait(&mut self) -> Result<Value, String> {
        match timeout(PATIENCE, &mut self.answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(format!("the driver ended before it answered {}", self.what)),
            Err(_) => Err(format!("{} was never answered", self.what)),
        }
    }
}

fn locked(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver {
    /// Runs the command that the kit was given.
    pub(crate) fn start(command: &str) -> Result<Self, String> {
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("the driver cannot be started: {error}"))?;
        let watched = Watched::new(child.id())?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else {
            return Err("the driver has no input or output".into());
        };
        let heard = Arc::<Mutex<Heard>>::default();
        let (changed, changes) = watch::channel(0);
        let hears = heard.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let said: Value = serde_json::from_str(&line)
                    .unwrap_or_else(|_| json!({ "event": { "name": "no JSON", "line": line } }));
                let mut heard = locked(&hears);
                if let Some(event) = said.get("event") {
                    heard.events.push(event.clone());
                } else if let Some(id) = said["id"].as_u64()
                    && let Some(waiting) = heard.waiting.remove(&id)
                {
                    let _ = waiting.send(said);
                }
                drop(heard);
                changed.send_modify(|count| *count += 1);
            }
            let mut heard = locked(&hears);
            heard.is_over = true;
            heard.waiting.clear();
            drop(heard);
            changed.send_modify(|count| *count += 1);
        });
        Ok(Self { child, _watched: watched, input, next: 0, heard, changes })
    }

    /// Gives a command. Its answer is awaited elsewhere.
    pub(crate) async fn tell(&mut self, mut command: Value) -> Pending {
        self.next += 1;
        command["id"] = self.next.into();
        let (waiting, answer) = oneshot::channel();
        {
            let mut heard = locked(&self.heard);
            if !heard.is_over {
                heard.waiting.insert(self.next, waiting);
            }
        }
        let line = format!("{command}\n");
        // A driver that is gone answers nothing, and its pending answer says so.
        let _ = self.input.write_all(line.as_bytes()).await;
        let _ = self.input.flush().await;
        Pending { what: command, answer }
    }

    pub(crate) async fn ask(&mut self, command: Value) -> Result<Value, String> {
        self.tell(command).await.wait().await
    }

    /// Takes the first event that fits, and waits for it.
    pub(crate) async fn event(&mut self, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        let mut changes = self.changes.clone();
        let found = async {
            loop {
                changes.borrow_and_update();
                {
                    let mut heard = locked(&self.heard);
                    if let Some(at) = heard.events.iter().position(&fits) {
                        return Some(heard.events.remove(at));
                    }
                    if heard.is_over {
                        return None;
                    }
                }
                changes.changed().await.ok()?;
            }
        };
        timeout(PATIENCE, found).await.ok().flatten()
    }

    /// What was told and not asked for.
    pub(crate) fn events(&self) -> Vec<Value> {
        locked(&self.heard).events.clone()
    }

    /// Sends a signal, as `kill` names it.
    pub(crate) async fn signal(&self, name: &str) {
        if let Some(id) = self.child.id() {
            let _ = signal(id, name).await;
        }
    }

    pub(crate) async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }
}

pub(crate) async fn signal(id: u32, name: &str) -> std::io::Result<()> {
    Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status().await.map(|_| ())
}
