//! Real server processes on one store, each behind a proxy that breaks its connections.

use std::{
    fs::File,
    path::PathBuf,
    process::Stdio,
    sync::{
        LazyLock,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use profilestore::env::Env;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::{
    driver::signal,
    proxy::{Link, Proxy},
    watch::Watched,
};

/// On which store the kit works.
#[derive(Debug, Clone)]
pub(crate) enum Ground {
    /// A file of its own for each script.
    Files,
    /// One database for all; each script has a store of its own in it. With a key.
    Database { store: String, key: String },
}

#[derive(Debug)]
struct Process {
    child: Option<Child>,
    watched: Option<Watched>,
    port: u16,
    proxy: Option<Proxy>,
}

#[derive(Debug)]
pub(crate) struct World {
    folder: PathBuf,
    place: String,
    servers: Vec<Process>,
    /// For servers and operators.
    pub(crate) key: String,
    /// The name of the store that the profiles are in.
    pub(crate) store: String,
}

/// What an operator gets as an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

static WORLDS: AtomicU64 = AtomicU64::new(0);

/// How long the start of a server may take.
const START: Duration = Duration::from_secs(60);

/// A port that the operating system gives to no outgoing connection, and the kit to no other server
/// for a long while. So a server that was killed finds it free again.
fn some_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let chance = Env::system().uuid().as_u128() % u128::from(u16::MAX);
        AtomicU16::new(u16::try_from(chance).unwrap_or(0))
    });
    20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 12_000
}

/// This program, without what the environment says about stores.
pub(crate) fn program(store: &str) -> Result<Command, String> {
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(exe);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PROFILESTORE_") {
            command.env_remove(name);
        }
    }
    command.env("PROFILESTORE_STORE", store).kill_on_drop(true);
    Ok(command)
}

impl World {
    pub(crate) async fn new(ground: &Ground, servers: usize) -> Result<Self, String> {
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let run = std::process::id();
        let folder = std::env::temp_dir().join(format!("profilestore-conformance-{run}-{number}"));
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let (place, key) = match ground {
            Ground::Files => (format!("sqlite:{}", folder.join("s.db").display()), String::new()),
            Ground::Database { store, key } => (store.clone(), key.clone()),
        };
        let store = format!("Kit{}-{number}", Env::system().uuid().simple());
        let mut world = Self { folder, place, servers: Vec::new(), key, store };
        for at in 0..servers {
            world.servers.push(Process { child: None, watched: None, port: 0, proxy: None });
            world.run(at).await?;
            let proxy = Proxy::to_port(world.servers[at].port).await;
            world.servers[at].proxy = Some(proxy.map_err(|error| error.to_string())?);
        }
        Ok(world)
    }

    /// Where game servers connect, through the proxies.
    pub(crate) fn urls(&self) -> Vec<String> {
        let ports = self.servers.iter().filter_map(|server| server.proxy.as_ref());
        ports.map(|proxy| format!("ws://127.0.0.1:{}", proxy.port())).collect()
    }

    /// Starts a server process, unless it runs. One that was started before has its port again.
    pub(crate) async fn run(&mut self, at: usize) -> Result<(), String> {
        if self.servers.get(at).ok_or("there is no such server")?.child.is_some() {
            return Ok(());
        }
        let until = Instant::now() + START;
        loop {
            match self.try_to_run(at).await {
                Err(why) if Instant::now() > until => return Err(why),
                Err(_) => sleep(Duration::from_millis(200)).await,
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn try_to_run(&mut self, at: usize) -> Result<(), String> {
        let wrong = |error: std::io::Error| error.to_string();
        let log = self.folder.join(format!("server-{at}.log"));
        let server = &mut self.servers[at];
        let port = if server.proxy.is_some() { server.port } else { some_port() };
        let (address, job) = (format!("127.0.0.1:{port}"), format!("kit-{at}"));
        let mut child = program(&self.place)?
            .args(["serve", "--json", "--listen", &address, "--job", &job])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).map_err(wrong)?)
            .spawn()
            .map_err(wrong)?;
        let watched = Watched::new(child.id())?;
        let output = child.stdout.take().ok_or("the server has no output")?;
        let mut lines = BufReader::new(output).lines();
        let Ok(Ok(Some(line))) = timeout(START, lines.next_line()).await else {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("a server did not start: {}", log.trim()));
        };
        let told: Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        if let Some(key) = told["key"].as_str() {
            key.clone_into(&mut self.key);
        }
        server.port = port;
        server.child = Some(child);
        server.watched = Some(watched);
        Ok(())
    }

    /// Runs this program on the store: a backup, say.
    pub(crate) async fn tool(&self, arguments: &[&str]) -> Result<(), String> {
        let mut tool = program(&self.place)?;
        let output = tool.args(arguments).current_dir(&self.folder).output().await;
        let output = output.map_err(|error| error.to_string())?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{arguments:?}: {}", why.trim()));
        }
        Ok(())
    }

    /// Ends a server process by a signal, and waits for its end.
    pub(crate) async fn end(&mut self, at: usize, name: &str) {
        let Some(mut child) = self.servers.get_mut(at).and_then(|server| server.child.take())
        else {
            return;
        };
        if name == "KILL" {
            let _ = child.kill().await;
        } else if let Some(id) = child.id() {
            let _ = signal(id, name).await;
            let _ = timeout(Duration::from_secs(60), child.wait()).await;
        }
        drop(child);
        self.servers[at].watched = None;
    }

    pub(crate) async fn signal(&self, at: usize, name: &str) {
        let id = self.servers.get(at).and_then(|server| server.child.as_ref()?.id());
        if let Some(id) = id {
            let _ = signal(id, name).await;
        }
    }

    /// Freezes a server process while it holds no lock of the store: another process can write
    /// then. With the lock it would stop all others too, for as long as it is frozen.
    pub(crate) async fn freeze(&self, at: usize) -> Result<(), String> {
        let until = Instant::now() + START;
        let others = self.servers.iter().enumerate();
        let other = others.filter(|(number, other)| *number != at && other.child.is_some());
        let Some(port) = other.map(|(_, other)| other.port).next() else {
            self.signal(at, "STOP").await;
            return Ok(());
        };
        loop {
            self.signal(at, "STOP").await;
            if self.can_write_at(port).await {
                return Ok(());
            }
            self.signal(at, "CONT").await;
            if Instant::now() > until {
                return Err("the store cannot be written while a server is frozen".into());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn can_write_at(&self, port: u16) -> bool {
        let key = Env::system().uuid().simple();
        let path = format!("/v1/stores/{}Probe/profiles/{key}", self.store);
        let headers = [("Content-Type", "application/json"), ("If-None-Match", "*")];
        let wrote = self.call_at(port, "PUT", &path, &headers, Some("{\"data\":{}}"));
        let wrote = timeout(Duration::from_secs(5), wrote).await;
        wrote.is_ok_and(|answer| answer.is_some_and(|answer| answer.status == 201))
    }

    pub(crate) fn set(&self, at: usize, link: &Link) {
        if let Some(proxy) = self.servers.get(at).and_then(|server| server.proxy.as_ref()) {
            proxy.set(link.clone());
        }
    }

    /// Everything works again.
    pub(crate) async fn heal(&mut self) -> Result<(), String> {
        for at in 0..self.servers.len() {
            self.signal(at, "CONT").await;
            self.set(at, &Link::Open);
            self.run(at).await?;
        }
        Ok(())
    }

    /// What a script calls KEY, in a path.
    pub(crate) fn path(&self, key: &str, rest: &str) -> String {
        format!("/v1/stores/{}/profiles/{key}{rest}", self.store)
    }

    /// An operator's call, at the first server that answers.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Answer, String> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            for server in self.servers.iter().filter(|server| server.child.is_some()) {
                let called = self.call_at(server.port, method, path, headers, body);
                if let Ok(Some(answer)) = timeout(Duration::from_secs(70), called).await {
                    return Ok(answer);
                }
            }
            if Instant::now() > until {
                return Err(format!("no server answers: {method} {path}"));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn call_at(
        &self,
        port: u16,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Option<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let body = body.unwrap_or_default();
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
             Authorization: Bearer {}\r\nContent-Length: {}\r\n",
            self.key,
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let answer = String::from_utf8(answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, body: serde_json::from_str(body).unwrap_or(Value::Null) })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for server in &mut self.servers {
            if let Some(child) = &mut server.child {
                let _ = child.start_kill();
            }
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
