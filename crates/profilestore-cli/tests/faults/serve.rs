//! Game servers play over the WebSocket, while the server processes that host them are killed and
//! rolled, and the connections to them are cut and stalled and lose answers.
//!
//! `PROFILESTORE_FAULT_KILLS` says how many kills there are.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use profilestore::env::Env;
use profilestore_testbed::{
    Fleet, Link, NatsServer, PostgresServer, Process, Proxy, Report, Signal, free_port, send,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::play::Play;

/// How many game servers play.
const GAME_SERVERS: u64 = 20;

/// The time between two kills.
const BETWEEN: Duration = Duration::from_millis(700);

/// Server processes on one store.
pub(crate) struct Place {
    _folder: TempDir,
    log: PathBuf,
    store: String,
    messenger: Option<String>,
    pub(crate) key: String,
    pub(crate) ports: Vec<u16>,
    processes: Vec<Process>,
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_profilestore"))
}

impl Place {
    /// `store`: a database without a store. None: a SQLite file.
    pub(crate) fn new(store: Option<String>, messenger: Option<String>, processes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("profiles.db");
        if let Some(store) = &store {
            let made = program().args(["migrate", "--store", store]).output().unwrap();
            assert!(made.status.success(), "{made:?}");
        }
        let store = store.unwrap_or_else(|| format!("sqlite:{}", file.display()));
        let log = folder.path().join("log");
        let ports: Vec<u16> = (0..processes).map(|_| free_port().unwrap()).collect();
        let mut place = Self {
            _folder: folder,
            log,
            store,
            messenger,
            key: String::new(),
            ports,
            processes: Vec::new(),
        };
        for at in 0..processes {
            let process = place.start(at);
            place.processes.push(process);
        }
        place
    }

    /// Starts the process of a port. The first one of all makes the store and its first key.
    fn start(&mut self, at: usize) -> Process {
        let listen = format!("127.0.0.1:{}", self.ports[at]);
        let mut command = program();
        command.args(["serve", "--json", "--listen", &listen, "--store", &self.store]);
        if let Some(messenger) = &self.messenger {
            command.args(["--messenger", messenger]);
        }
        let out = append(&self.log);
        let before = std::fs::metadata(&self.log).map_or(0, |data| data.len());
        command.stdout(out.try_clone().unwrap()).stderr(Stdio::null());
        let process = Process::start(&mut command).unwrap();
        if self.key.is_empty() {
            self.key = first_key(&self.log, before);
        }
        process
    }

    /// Where the processes listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect()
    }

    /// Lets a process leave in order, as a deploy does, and starts another one in its place.
    pub(crate) async fn roll(&mut self, at: usize) {
        let until = Instant::now() + Duration::from_secs(15);
        send(self.processes[at].id(), Signal::TERM);
        while self.processes[at].runs() && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
        self.replace(at);
    }

    /// Kills the process of a port with SIGKILL if it still runs, and starts another one.
    fn replace(&mut self, at: usize) {
        drop(self.processes.remove(at));
        let process = self.start(at);
        self.processes.insert(at, process);
    }

    fn read(&self, key: &str, what: &str) -> Value {
        self.read_of("Fleet", key, what)
    }

    /// The memory of the first process's own, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let file = format!("/proc/{}/status", self.processes[0].id());
        let text = std::fs::read_to_string(file).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }

    /// How many game servers live that the processes host.
    fn game_servers(&self) -> u64 {
        let answer = get(self.addresses()[0], "/v1/servers?page_size=100", &self.key);
        let servers: Value = serde_json::from_str(&answer).expect("a list of servers");
        let servers = servers["items"].as_array().into_iter().flatten();
        let alive = servers.filter(|it| !it["host"].is_null() && it["state"] != "dead");
        alive.count() as u64
    }

    /// What a profile of a store holds, or what else there is to read of it.
    pub(crate) fn read_of(&self, store: &str, key: &str, what: &str) -> Value {
        let path = format!("/v1/stores/{store}/profiles/{key}{what}");
        let answer = get(([127, 0, 0, 1], self.ports[0]).into(), &path, &self.key);
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {key}: {answer}"))
    }
}

fn append(path: &Path) -> std::fs::File {
    std::fs::File::options().create(true).append(true).open(path).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "this waits for a process, in real time")]
fn first_key(log: &Path, from: u64) -> String {
    for _ in 0..1200 {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let line = text.get(from as usize..).and_then(|new| new.lines().next());
        if let Some(told) = line.and_then(|line| serde_json::from_str::<Value>(line).ok()) {
            return told["key"].as_str().expect("a first start makes a key").to_owned();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the server does not start")
}

/// A connection to a server process, which may be starting.
#[expect(clippy::disallowed_methods, reason = "this waits for a process, in real time")]
fn connection(address: SocketAddr) -> std::net::TcpStream {
    for _ in 0..1200 {
        if let Ok(stream) = std::net::TcpStream::connect(address) {
            return stream;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the server does not start")
}

fn get(address: SocketAddr, path: &str, key: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = connection(address);
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Authorization: Bearer {key}\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The demonstration plays through server processes, which are killed as its game servers are.
#[test]
fn the_demonstration_plays_through_server_processes_that_are_killed() {
    let report = Play::new(3).arg("--via-server").arg("2").arg("--kill").start().ends_well();
    assert!(report["figures"]["host_kills"].as_u64().unwrap() > 0, "{report:#}");
}

/// SQLite, and one process that starts again each time.
#[tokio::test(flavor = "multi_thread")]
async fn game_servers_play_on_while_their_server_process_is_killed() {
    play(Place::new(None, None, 1)).await;
}

/// PostgreSQL with NATS, and three processes behind a balancer, one of which dies or is rolled.
#[tokio::test(flavor = "multi_thread")]
async fn game_servers_play_on_while_three_server_processes_are_killed_and_rolled() {
    let (postgres, nats) = (PostgresServer::start().unwrap(), NatsServer::start(&[]).unwrap());
    play(Place::new(Some(postgres.url()), Some(nats.address()), 3)).await;
}

async fn play(mut place: Place) {
    let seed = std::env::var("PROFILESTORE_FAULT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(4711);
    let kills = std::env::var("PROFILESTORE_FAULT_KILLS").ok().and_then(|kills| kills.parse().ok());
    let kills: u64 = kills.unwrap_or(8);
    eprintln!("PROFILESTORE_FAULT_SEED={seed} PROFILESTORE_FAULT_KILLS={kills}");
    let servers = place.addresses();
    let ways = [
        Proxy::among(servers.clone()).await.unwrap(),
        Proxy::among(servers.clone()).await.unwrap(),
        Proxy::among(servers).await.unwrap(),
    ];
    let ports = ways.each_ref().map(Proxy::port);
    let now_ms = Env::system().unix_ms();
    let fleet = Fleet::start(GAME_SERVERS, &ports, &place.key, seed, now_ms);
    // Each has a connection to lose, however slow the machine is.
    while place.game_servers() < GAME_SERVERS {
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_secs(2)).await;
    let mut dice = seed;
    let mut below = |below: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (dice >> 33) % below
    };
    for kill in 0..kills {
        let way = &ways[below(3) as usize];
        way.set(match below(6) {
            0 => Link::Cut,
            1 => Link::Stalled,
            2 => Link::LosingAnswersWith(b"{\"saved\"".to_vec()),
            3 => Link::LosingAnswersWith(b"{\"done\"".to_vec()),
            4 => Link::Late(Duration::from_millis(30)),
            _ => Link::Open,
        });
        sleep(BETWEEN.mul_f64(0.5 + below(100) as f64 / 100.0) / 2).await;
        let at = below(place.ports.len() as u64) as usize;
        // One of four is rolled where others are there meanwhile.
        if place.ports.len() > 1 && kill % 4 == 3 {
            place.roll(at).await;
        } else {
            place.replace(at);
        }
        sleep(BETWEEN / 2).await;
        way.set(Link::Open);
        if kill % 100 == 99 {
            eprintln!("{} of {kills} kills", kill + 1);
        }
    }
    let report = fleet.rest().await;
    let Report { saves, trades, gifts, resumes, longest, .. } = &report;
    let figures = format!(
        "{kills} kills, {saves} saves, {trades} trades, {gifts} messages, {resumes} resumes, \
         longest time of a save {:.1} s",
        longest.as_secs_f64()
    );
    eprintln!("{figures}");
    let wrong = report.audit(
        |key| place.read(key, "")["data"].clone(),
        |key| {
            let inbox = place.read(key, "/messages");
            let items = inbox["items"].as_array().cloned().unwrap_or_default();
            items.into_iter().map(|item| item["message"].clone()).collect()
        },
    );
    assert!(wrong.is_empty(), "seed {seed}, {figures}: {wrong:#?}");
    assert!(*saves > 0 && *resumes > 0, "they did not play: {figures}");
    let profiles = report.profiles.len();
    eprintln!(
        "audit passed: no session ended but by its own game server, what was answered is in \
         {profiles} profiles, each message there once, each item in one place"
    );
}
