//! Many processes on one database: a game server in each, whose sessions are saved as fast as they
//! go. Counts the saves, what failed, and the connections that the database has of them.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use profilestore::{
    GameServer, ProfileStore,
    data_store::{PostgresOptions, PostgresStore},
    messenger::PostgresMessenger,
};

use crate::{Player, growth::connect};

const SESSIONS: usize = 20;

/// By what the database tells the connections of these processes.
const NAME: &str = "bench_processes";

/// How many begin at once: none of them is to wait too long for its connections.
const AT_ONCE: i64 = 20;

/// How long those that begin at once may take, and how long all of them may take to end.
const PATIENCE: Duration = Duration::from_secs(180);

/// Connections that the database keeps for its owner, and that others have.
const NOT_THEIRS: i64 = 10;

/// Those of a process: what writes, what reads, and the messenger's one.
const AS_USUAL: [i64; 2] = [2, 6];
const MESSENGER: i64 = 1;

/// The processes, ended when this is dropped.
struct Processes {
    children: Vec<Child>,
    lines: Receiver<String>,
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Processes {
    /// Starts them, and waits until each is ready.
    fn start(count: i64, schema: &str, connections: [i64; 2]) -> Self {
        let program = std::env::current_exe().expect("this program");
        let (told, lines) = channel();
        let mut processes = Self { children: Vec::new(), lines };
        for number in 0..count {
            let mut child = Command::new(&program)
                .args(["process", schema, &number.to_string()])
                .args(connections.map(|count| count.to_string()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("this program again");
            let output = BufReader::new(child.stdout.take().expect("a pipe"));
            processes.children.push(child);
            let told = told.clone();
            std::thread::spawn(move || {
                for line in output.lines().map_while(Result::ok) {
                    let _ = told.send(line);
                }
            });
            if (number + 1) % AT_ONCE == 0 {
                processes.lines(AT_ONCE);
            }
        }
        processes.lines(count % AT_ONCE);
        processes
    }

    /// So many lines of them.
    fn lines(&self, count: i64) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let line = |_| {
            let left = until.saturating_duration_since(Instant::now());
            self.lines.recv_timeout(left).expect("each process says something in time")
        };
        (0..count).map(line).collect()
    }

    fn go(&mut self) {
        for child in &mut self.children {
            let orders = child.stdin.as_mut().expect("a pipe");
            writeln!(orders, "go").expect("the process listens");
        }
    }

    /// The memory of one of them, in the mean, in megabytes.
    fn memory(&self) -> f64 {
        let own = |child: &Child| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let all: Vec<f64> = self.children.iter().filter_map(own).collect();
        all.iter().sum::<f64>() * 1024.0 / 1e6 / all.len() as f64
    }

    /// Waits until each has ended as it should.
    fn wait(&mut self) {
        let until = Instant::now() + PATIENCE;
        for child in &mut self.children {
            let status = loop {
                if let Some(status) = child.try_wait().expect("its end") {
                    break status;
                }
                assert!(Instant::now() < until, "a process does not end");
                std::thread::sleep(Duration::from_millis(20));
            };
            assert!(status.success(), "a process failed");
        }
    }
}

pub(super) fn run(
    runtime: &tokio::runtime::Runtime,
    url: &str,
    schema: &str,
    count: i64,
    time: Duration,
) {
    let allowed = runtime.block_on(allowed(url));
    let each = (allowed - NOT_THEIRS) / count;
    assert!(
        each > 1 + MESSENGER,
        "{count} processes need {} connections, and the server allows {allowed}; \
         POSTGRES_CONNECTIONS of scripts/postgres.sh allows more",
        count * (2 + MESSENGER) + NOT_THEIRS
    );
    let writers = if each >= 5 { AS_USUAL[0] } else { 1 };
    let readers = (each - MESSENGER - writers).min(AS_USUAL[1]);
    let began = Instant::now();
    let mut processes = Processes::start(count, schema, [writers, readers]);
    let ready = began.elapsed().as_secs_f64();
    processes.go();
    let most = runtime.block_on(most_connections(url, time));
    let memory = processes.memory();
    let (mut saves, mut errors) = (0_u64, 0_u64);
    for line in processes.lines(count) {
        let (saved, failed) = line.split_once(' ').expect("two numbers");
        saves += saved.parse::<u64>().expect("a number");
        errors += failed.parse::<u64>().expect("a number");
    }
    processes.wait();
    let bound = count * (writers + readers + MESSENGER);
    println!("{count} processes, {SESSIONS} sessions each, saved as fast as they go");
    println!(
        "  {:.0} saves a second of all; {errors} errors; ready after {ready:.1} s; {memory:.1} MB a \
         process",
        saves as f64 / time.as_secs_f64()
    );
    println!(
        "  connections: at most {most} of {bound}, which is {count} times {writers} that write, \
         {readers} that read, {MESSENGER} that listens"
    );
    assert!(most <= bound, "more connections than the options allow");
    assert_eq!(errors, 0, "saves that failed");
}

/// How many connections the server allows.
async fn allowed(url: &str) -> i64 {
    let sql = "SELECT setting::bigint FROM pg_settings WHERE name = 'max_connections'";
    connect(url).await.query_one(sql, &[]).await.expect("a number").get(0)
}

/// The most connections that the database has of the processes during this time.
async fn most_connections(url: &str, time: Duration) -> i64 {
    let client = connect(url).await;
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{NAME}'");
    let (began, mut most) = (Instant::now(), 0);
    while began.elapsed() < time {
        let now: i64 = client.query_one(sql.as_str(), &[]).await.expect("a number").get(0);
        most = most.max(now);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    most
}

/// One of the processes: says when it is ready, waits to be told to go, saves, and says how many
/// saves it made and how many failed.
pub(super) async fn play(
    url: &str,
    schema: &str,
    number: &str,
    connections: [&str; 2],
    time: Duration,
) {
    let mut options: PostgresOptions =
        format!("{url}?schema={schema}&application_name={NAME}").parse().expect("a URL");
    [options.writers, options.readers] =
        connections.map(|text| text.parse::<usize>().expect("a number"));
    let messenger = PostgresMessenger::new(options.clone()).expect("a messenger");
    let store = PostgresStore::open(options).await.expect("a store");
    let server = GameServer::builder(store)
        .messenger(messenger)
        .job_id(number)
        .start()
        .await
        .expect("a game server");
    let players: ProfileStore<Player> = server
        .store_builder("Processes")
        .template(Player { coins: 0, notes: "x".repeat(1000) })
        .build()
        .expect("a store");
    let mut profiles = Vec::new();
    for n in 0..SESSIONS {
        profiles.push(players.start_session(&format!("p{number}-{n}")).await.expect("opened"));
    }
    println!("ready");
    let mut order = String::new();
    std::io::stdin().read_line(&mut order).expect("an order");
    if order.is_empty() {
        // Its parent has gone.
        return;
    }
    let until = Instant::now() + time;
    let mut tasks = tokio::task::JoinSet::new();
    for profile in profiles {
        tasks.spawn(async move {
            let (mut saves, mut errors) = (0_u64, 0_u64);
            while Instant::now() < until {
                let changed = profile.update(|data| data.coins += 1);
                match changed.and(profile.save().await) {
                    Ok(()) => saves += 1,
                    Err(error) => {
                        eprintln!("a save failed: {error}");
                        errors += 1;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
            (saves, errors)
        });
    }
    let (mut saves, mut errors) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        let (saved, failed) = done.expect("a task that ends");
        (saves, errors) = (saves + saved, errors + failed);
    }
    errors += server.shutdown().await.not_saved.len() as u64;
    println!("{saves} {errors}");
}
