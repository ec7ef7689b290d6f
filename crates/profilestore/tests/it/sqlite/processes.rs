//! Several processes on one file: they are this test binary, started again to play a part.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::*;

pub(super) const PART: &str = "PROFILESTORE_TEST_PART";
pub(super) const FILE: &str = "PROFILESTORE_TEST_FILE";
pub(super) const TASKS: u64 = 8;

/// Not a test: what a child process does.
#[test]
#[ignore = "the part of a child process, started by other tests"]
fn child() {
    let (Ok(part), Ok(file)) = (std::env::var(PART), std::env::var(FILE)) else { return };
    let file = Path::new(&file);
    match part.as_str() {
        "write" => write_for_ever(file),
        "trade" => super::trades::trade_for_ever(file),
        "hold the lock" => hold_the_lock(file),
        "fill the disk" => fill_the_disk(file),
        "write through errors" => super::io_errors::write_through_errors(file),
        #[cfg(target_os = "linux")]
        super::power_loss::DURABLE => super::power_loss::write_and_read(file, true),
        #[cfg(target_os = "linux")]
        super::power_loss::NOT_DURABLE => super::power_loss::write_and_read(file, false),
        "open" => match SqliteStore::open(file, fast()) {
            Ok(_) => println!("\nopened"),
            Err(err) => println!("\n{err}"),
        },
        other => panic!("unknown part: {other}"),
    }
}

/// Each task writes its two keys together, counting up, and says so after each commit was
/// acknowledged.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn write_for_ever(file: &Path) {
    let store = SqliteStore::open(file, SqliteOptions::default()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut states =
                [state(&store, &pair(task)[0]).await, state(&store, &pair(task)[1]).await];
            loop {
                let count = states[0].version + 1;
                let changes = states
                    .each_ref()
                    .map(|state| write(state, &format!("{count} {}", "x".repeat(3000))));
                let reply = store.commit_one(make(&store, changes.to_vec()).await).await.unwrap();
                states = reply.states.try_into().unwrap();
                // One write a line, so that lines do not mix.
                std::io::stdout()
                    .write_all(format!("acknowledged {task} {count}\n").as_bytes())
                    .unwrap();
            }
        });
    }
    tasks.join_next().await.unwrap().unwrap();
}

fn hold_the_lock(file: &Path) {
    let conn = rusqlite::Connection::open(file).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE; UPDATE meta SET value = value").unwrap();
    println!("\nholds the lock");
    let mut wait = [0];
    let _ = std::io::stdin().read(&mut wait);
    conn.execute_batch("ROLLBACK").unwrap();
}

/// Runs into the limit that the parent set, says so, and goes on when that is lifted.
#[tokio::main(flavor = "current_thread")]
async fn fill_the_disk(file: &Path) {
    let store = SqliteStore::open(file, SqliteOptions::default()).unwrap();
    let value = "x".repeat(20_000);
    let mut count = 0;
    let refused = loop {
        let commit =
            make(&store, vec![write(&KeyState::absent(key(&format!("p{count}"))), &value)]).await;
        match store.commit_one(commit.clone()).await {
            Ok(_) => count += 1,
            Err(error) if error.is_transient() => break commit,
            Err(error) => panic!("expected a full disk, found {error:?}"),
        }
        assert!(count < 1000, "the disk never fills");
    };
    assert!(store.commit_one(refused.clone()).await.unwrap_err().is_transient());
    println!("\nfull after {count}");
    let mut wait = [0];
    let _ = std::io::stdin().read(&mut wait);
    // What may or may not have been applied is applied once.
    assert_eq!(store.commit_one(refused).await.unwrap().states[0].version, 1);
    for n in 0..=count {
        assert_eq!(text(&state(&store, &key(&format!("p{n}"))).await), Some(value.as_str()));
    }
    assert!(store.check(|_, _| {}).unwrap().problems.is_empty());
    println!("room again");
}

pub(super) fn pair(task: u64) -> [ProfileKey; 2] {
    ["a", "b"].map(|name| key(&format!("{name}{task}")))
}

pub(super) fn command(part: &str, file: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "sqlite::processes::child",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env(PART, part).env(FILE, file).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// A child that is killed when the test ends, however it ends.
pub(super) struct Process(pub(super) Child);

impl Process {
    fn start(part: &str, file: &Path) -> Self {
        Self(command(part, file).spawn().unwrap())
    }

    pub(super) fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        BufReader::new(self.0.stdout.take().unwrap()).lines().map_while(Result::ok)
    }

    pub(super) fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was acknowledged before a process was killed is there, nothing is half there, and the file
/// is sound. `PROFILESTORE_KILL_RUNS` says how often, 4 times otherwise.
#[tokio::test]
async fn acknowledged_commits_survive_a_kill() {
    let dir = folder();
    let file = path(&dir);
    let runs = std::env::var("PROFILESTORE_KILL_RUNS")
        .map_or(4, |runs| runs.parse().expect("a number of runs"));
    for round in 1..=runs {
        // Somewhere in the first hundreds, another place each time; the kill itself comes at any
        // moment of a commit.
        let enough = 1 + round * 7919 % 601;
        let mut writer = Process::start("write", &file);
        let mut acknowledged = [0; TASKS as usize];
        let mut count = 0;
        let mut killed = false;
        for line in writer.lines() {
            let Some((task, version)) =
                line.strip_prefix("acknowledged ").and_then(|line| line.split_once(' '))
            else {
                continue;
            };
            // The last line may be cut off by the kill.
            let (Ok(task), Ok(version)) = (task.parse::<usize>(), version.parse::<u64>()) else {
                continue;
            };
            acknowledged[task] = acknowledged[task].max(version);
            count += 1;
            if count >= enough && !killed {
                writer.0.kill().unwrap();
                killed = true;
            }
        }
        assert!(killed, "the writer ended by itself");
        writer.0.wait().unwrap();
        let store = open(&file);
        for (task, acknowledged) in acknowledged.into_iter().enumerate() {
            let [a, b] = pair(task as u64);
            let (a, b) = (state(&store, &a).await, state(&store, &b).await);
            assert_eq!(
                (a.version, &a.value),
                (b.version, &b.value),
                "half a commit of task {task} in round {round}"
            );
            let next = [acknowledged, acknowledged + 1];
            assert!(
                acknowledged == 0 || next.contains(&a.version),
                "task {task} in round {round}: {next:?} {}",
                a.version
            );
            assert!(a.version == 0 || text(&a).unwrap().starts_with(&format!("{} ", a.version)));
        }
        let report = store.check(|_, _| {}).unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
    }
}

/// Each of many commits that wait is refused when its own time is up, and not after those before
/// it, and is told who is to blame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_behind_each_other_do_not_add_up_their_waits_for_a_stopped_process() {
    let dir = folder();
    let options = SqliteOptions { busy_wait: Duration::from_secs(2), batch: 1, ..fast() };
    let store = SqliteStore::open(path(&dir), options).unwrap();
    put(&store, &key("p"), "before").await.unwrap();
    let mut holder = Process::start("hold the lock", &path(&dir));
    assert!(holder.lines().any(|line| line == "holds the lock"));
    holder.signal("-STOP");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..30 {
        let store = store.clone();
        let commit =
            make(&store, vec![write(&KeyState::absent(key(&format!("p{n}"))), "after")]).await;
        tasks.spawn(async move { store.commit_one(commit).await });
    }
    let all = async {
        while let Some(done) = tasks.join_next().await {
            match done.unwrap() {
                Err(StoreError::Unavailable { reason }) => {
                    assert!(reason.contains("another process holds"), "{reason}")
                }
                other => panic!("expected to find the store locked, found {other:?}"),
            }
        }
    };
    // One after the other they would take a minute.
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("each waits for itself");
    drop(holder);
    put(&store, &key("q"), "after").await.unwrap();
    assert_eq!(state(&store, &key("p0")).await.version, 0);
}

/// A deadline is kept although the file is locked, and what it refused is not applied when the lock
/// is free again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_refused_at_its_deadline_while_a_stopped_process_holds_the_lock() {
    let dir = folder();
    let options = SqliteOptions { busy_wait: Duration::from_secs(3600), ..fast() };
    let store = SqliteStore::open(path(&dir), options).unwrap();
    put(&store, &key("p"), "before").await.unwrap();
    let mut holder = Process::start("hold the lock", &path(&dir));
    assert!(holder.lines().any(|line| line == "holds the lock"));
    holder.signal("-STOP");
    let commit = make(&store, vec![write(&state(&store, &key("p")).await, "after")]).await;
    let deadline = tokio::time::Instant::now() + Duration::from_millis(300);
    match store.commit_one_by(commit, deadline).await {
        Err(StoreError::Unavailable { .. }) => {}
        other => panic!("expected a refusal for certain, found {other:?}"),
    }
    drop(holder);
    put(&store, &key("q"), "after").await.unwrap();
    assert_eq!(text(&state(&store, &key("p")).await), Some("before"));
}

/// A message was answered after 16.8 and 22.1 s, of the 10 s that it was given, while a stopped
/// process held the file's lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_answered_within_its_limit_while_a_stopped_process_holds_the_lock() {
    let dir = folder();
    let options = SqliteOptions { busy_wait: Duration::from_secs(3600), ..fast() };
    let file = SqliteStore::open(path(&dir), options).unwrap();
    let server = profilestore::GameServer::builder(file.clone()).start().await.unwrap();
    server.change_settings(|settings| settings.call_timeout = Duration::from_secs(1)).unwrap();
    let players = server.store::<serde_json::Value>("Players").unwrap();
    let mut holder = Process::start("hold the lock", &path(&dir));
    assert!(holder.lines().any(|line| line == "holds the lock"));
    holder.signal("-STOP");
    let sent = tokio::time::timeout(Duration::from_secs(20), players.send_message("p", &1))
        .await
        .expect("its limit is a second");
    let kind = sent.unwrap_err().kind();
    drop(holder);
    put(&file, &key("q"), "after").await.unwrap();
    let stored = ProfileKey::new("Players", "global", "p").unwrap();
    let inbox = file.read_one(&stored, Returning::INBOX).await.unwrap().1.inbox.unwrap();
    // On a busy machine there may be no time left to learn what became of the message.
    match kind {
        profilestore::ErrorKind::Unavailable => assert!(inbox.is_empty(), "it was sent after all"),
        profilestore::ErrorKind::Unknown => assert!(inbox.len() <= 1, "it was sent twice"),
        other => panic!("expected to find the store locked, found {other:?}"),
    }
    server.crash();
}

/// A process that is stopped in the middle of a write makes commits fail as unavailable, not for
/// ever, and reads not at all.
#[tokio::test]
async fn a_stopped_writer_makes_commits_unavailable() {
    let dir = folder();
    let options = SqliteOptions { busy_wait: Duration::from_millis(200), ..fast() };
    let store = SqliteStore::open(path(&dir), options).unwrap();
    put(&store, &key("p"), "before").await.unwrap();
    let mut holder = Process::start("hold the lock", &path(&dir));
    let mut lines = holder.lines();
    assert!(lines.any(|line| line == "holds the lock"));
    holder.signal("-STOP");
    let commit = make(&store, vec![write(&state(&store, &key("p")).await, "after")]).await;
    for _ in 0..2 {
        let waited = tokio::time::Instant::now();
        match store.commit_one(commit.clone()).await {
            Err(StoreError::Unavailable { reason }) => assert!(reason.contains("lock"), "{reason}"),
            other => panic!("expected to find the store locked, found {other:?}"),
        }
        assert!(waited.elapsed() >= Duration::from_millis(200), "it waits before it gives up");
        assert_eq!(text(&state(&store, &key("p")).await), Some("before"));
    }
    holder.signal("-CONT");
    drop(holder.0.stdin.take());
    holder.0.wait().unwrap();
    let reply = store.commit_one(commit).await.unwrap();
    assert!(!reply.already_applied);
    assert_eq!(text(&state(&store, &key("p")).await), Some("after"));
}

/// A commit waits for another process's write, and goes on when that process is killed.
#[tokio::test]
async fn a_commit_waits_for_another_process() {
    let dir = folder();
    let options = SqliteOptions { busy_wait: Duration::from_secs(3600), ..fast() };
    let store = SqliteStore::open(path(&dir), options).unwrap();
    let mut holder = Process::start("hold the lock", &path(&dir));
    let mut lines = holder.lines();
    assert!(lines.any(|line| line == "holds the lock"));
    let commit = {
        let store = store.clone();
        tokio::spawn(async move { put(&store, &key("p"), "after").await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!commit.is_finished());
    drop(holder);
    commit.await.unwrap().unwrap();
}

/// The system refuses to let the files grow, as a full disk does: nothing is lost or half there,
/// and the same process goes on when there is room again.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let dir = folder();
    let file = path(&dir);
    let mut limited = Command::new("sh");
    // Blocks of 512 bytes, for this shell and what it becomes; the signal that comes with the
    // refusal is ignored.
    limited.args(["-c", "trap '' XFSZ; ulimit -S -f 4096; exec \"$0\" \"$@\""]);
    let child = command("fill the disk", &file);
    limited.arg(child.get_program()).args(child.get_args());
    limited
        .env(PART, "fill the disk")
        .env(FILE, &file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut process = Process(limited.spawn().unwrap());
    let mut lines = process.lines();
    let full = lines
        .find_map(|line| line.strip_prefix("full after ").map(str::to_owned))
        .expect("it says when it is full");
    assert!(full.parse::<u32>().unwrap() > 10, "{full}");
    let lifted = Command::new("prlimit")
        .args(["--fsize=unlimited", "--pid", &process.0.id().to_string()])
        .status()
        .unwrap();
    assert!(lifted.success());
    drop(process.0.stdin.take());
    assert!(lines.any(|line| line == "room again"));
    assert!(process.0.wait().unwrap().success());
    let store = open(&file);
    assert_eq!(state(&store, &key(&format!("p{full}"))).await.version, 1);
    assert!(store.check(|_, _| {}).unwrap().problems.is_empty());
}

/// Two processes race for the same keys: each version is won once, and neither is shut out.
#[tokio::test]
async fn two_processes_share_a_file() {
    let dir = folder();
    let store = open(&path(&dir));
    let mut other = Process::start("write", &path(&dir));
    let mut lines = other.lines();
    assert!(lines.any(|line| line.starts_with("acknowledged ")));
    let theirs = Arc::new(AtomicUsize::new(0));
    let counted = theirs.clone();
    let reader = std::thread::spawn(move || {
        lines.filter(|line| line.starts_with("acknowledged ")).for_each(|_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
    });
    // On a busy machine the other process may have to wait longer for its turn.
    for n in (1_u64..).take_while(|n| *n <= 200 || theirs.load(Ordering::Relaxed) == 0) {
        assert!(!reader.is_finished(), "the other process ended by itself");
        let state = put(&store, &key("mine"), &n.to_string()).await.unwrap();
        assert_eq!(state.version, n);
    }
    drop(other);
    reader.join().unwrap();
    assert!(store.check(|_, _| {}).unwrap().problems.is_empty());
}

/// Two processes open a file that does not exist yet at once: it becomes one store.
#[tokio::test]
async fn two_processes_make_one_store() {
    for _ in 0..5 {
        let dir = folder();
        let mut children = [1, 2, 3].map(|_| Process::start("open", &path(&dir)));
        let here = open(&path(&dir));
        for child in &mut children {
            let lines: Vec<_> = child.lines().collect();
            assert!(lines.iter().any(|line| line == "opened"), "{lines:?}");
        }
        put(&here, &key("p"), "one").await.unwrap();
        let there = open(&path(&dir));
        assert_eq!(
            there.identity().await.unwrap().incarnation,
            here.identity().await.unwrap().incarnation
        );
        assert_eq!(state(&there, &key("p")).await.version, 1);
    }
}

/// A file that may not be written is refused with what to do about it. Root may write everything,
/// so the child is nobody.
#[cfg(unix)]
#[test]
fn a_read_only_file_is_refused() {
    use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};

    let dir = folder();
    let file = path(&dir);
    drop(open(&file));
    let allow = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
    };
    allow(&file, 0o444);
    allow(dir.path(), 0o555);
    let mut command = command("open", &file);
    // Nothing is read-only for root, which can become another user, and needs a copy of this
    // program that every user may run.
    let programs = folder();
    if std::fs::OpenOptions::new().write(true).open(&file).is_ok() {
        let program = programs.path().join("program");
        std::fs::copy(command.get_program(), &program).unwrap();
        allow(programs.path(), 0o755);
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = Command::new(program);
        command.args(args).env(PART, "open").env(FILE, &file).uid(65534).gid(65534);
    }
    let output = command.output();
    allow(dir.path(), 0o755);
    let shown = String::from_utf8_lossy(&output.expect("the child starts").stdout).into_owned();
    assert!(shown.contains("invalid store call") && shown.contains("check"), "{shown}");
    assert!(shown.contains(&file.display().to_string()), "{shown}");
}
