//! Reads, writes and syncs that the system refuses at random moments, in the middle of whatever is
//! being done: the limit on the size of files comes and goes under a process that writes, or calls
//! of the system fail in it (`tests/faulty_io.c`). Every outcome that was told must be true.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{
    processes::{FILE, PART, Process, TASKS, command, pair},
    *,
};

/// What the child does: writes pairs as `write_for_ever` does, through errors. What was told to be
/// not applied must not be there, what was told to be unknown is settled by the same commit again.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn write_through_errors(file: &Path) {
    let store = SqliteStore::open(file, SqliteOptions::default()).unwrap();
    let incarnation = store.identity().await.unwrap().incarnation;
    let mut tasks = tokio::task::JoinSet::new();
    // Before anything fails.
    let mut begun = Vec::new();
    for task in 0..TASKS {
        begun.push([state(&store, &pair(task)[0]).await, state(&store, &pair(task)[1]).await]);
    }
    for (task, mut states) in begun.into_iter().enumerate() {
        let store = store.clone();
        tasks.spawn(async move {
            loop {
                let count = states[0].version + 1;
                let changes = states
                    .each_ref()
                    .map(|state| write(state, &format!("{count} {}", "x".repeat(3000))));
                let id = CommitId(Env::system().uuid());
                let commit = Commit {
                    id,
                    incarnation,
                    from: None,
                    changes: changes.to_vec(),
                    returning: Returning::ALL,
                    fingerprint: None,
                };
                let mut unknown = false;
                let reply = loop {
                    match store.commit_one(commit.clone()).await {
                        Ok(reply) => break Some(reply),
                        Err(error) if is_refusal(&error) => {
                            say(&format!("refused {error}"));
                            unknown |= matches!(error, StoreError::Indeterminate { .. });
                            if !unknown {
                                // A commit of its own next time: it would find the version taken if
                                // this one had been applied.
                                break None;
                            }
                        }
                        Err(other) => panic!("neither done nor refused: {other:?}"),
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                };
                if let Some(reply) = reply {
                    states = reply.states.try_into().unwrap();
                    say(&format!("acknowledged {task} {count}"));
                }
                match store.read_one(&states[0].key, Returning::ALL).await {
                    Ok((_, read)) => assert_eq!(
                        (read.version, &read.value),
                        (states[0].version, &states[0].value)
                    ),
                    Err(error) if is_refusal(&error) => say(&format!("refused {error}")),
                    Err(other) => panic!("neither read nor refused: {other:?}"),
                }
            }
        });
    }
    tasks.join_next().await.unwrap().unwrap();
}

/// SQLite takes a page that the disk does not give for a damaged file.
fn is_refusal(error: &StoreError) -> bool {
    error.is_transient() || matches!(error, StoreError::Corrupt { .. })
}

/// One write a line, so that lines do not mix.
pub(super) fn say(line: &str) {
    use std::io::Write as _;
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// `PROFILESTORE_IO_ERROR_RUNS` says how often the limit comes and goes at least, 25 times
/// otherwise.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn every_outcome_is_true_when_writes_are_refused_at_random_moments() {
    let dir = folder();
    let file = path(&dir);
    // The signal that comes with the refusal is ignored.
    let child = command("write through errors", &file);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(child.get_program())
        .args(child.get_args());
    shell
        .env(PART, "write through errors")
        .env(FILE, &file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut writer = Process(shell.spawn().unwrap());
    let lines = writer.lines();
    let (listening, enough) = listen(lines);
    let pid = writer.0.id().to_string();
    let limit = |bytes: &str| {
        let soft = format!("--fsize={bytes}:unlimited");
        assert!(Command::new("prlimit").args([&soft, "--pid", &pid]).status().unwrap().success());
    };
    let log = file.with_file_name(format!("{}-wal", file.file_name().unwrap().to_str().unwrap()));
    let runs: u64 = std::env::var("PROFILESTORE_IO_ERROR_RUNS")
        .map_or(25, |runs| runs.parse().expect("a number of runs"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    // A busy machine takes more of them.
    for run in (0..).take_while(|run| *run < runs || !enough.load(Ordering::Relaxed)) {
        // Sometimes the log cannot grow, sometimes the file that it goes into cannot.
        let grown = if run % 3 == 0 { &file } else { &log };
        let size = std::fs::metadata(grown).map_or(4096, |file| file.len());
        limit(&(size + run * 7919 % 50_000).to_string());
        tokio::time::sleep(Duration::from_millis(10 + run * 31 % 40)).await;
        limit("unlimited");
        tokio::time::sleep(Duration::from_millis(run * 17 % 30)).await;
        assert!(writer.0.try_wait().unwrap().is_none(), "the writer gave up");
    }
    writer.0.kill().unwrap();
    writer.0.wait().unwrap();
    let Told { acknowledged, refused } = listening.join().unwrap();
    eprintln!("{refused} refused, {acknowledged:?} acknowledged");
    audit(&file, acknowledged).await;
}

/// What a writer said: the last version of each task that was acknowledged, and how many calls were
/// refused.
#[derive(Default)]
struct Told {
    acknowledged: [u64; TASKS as usize],
    refused: u32,
}

/// Listens to a writer, and knows when each task has had an acknowledgement and some calls were
/// refused.
fn listen(
    lines: impl Iterator<Item = String> + Send + 'static,
) -> (JoinHandle<Told>, Arc<AtomicBool>) {
    let enough = Arc::new(AtomicBool::new(false));
    let seen = enough.clone();
    let listening = std::thread::spawn(move || {
        let mut told = Told::default();
        for line in lines {
            told.take(&line);
            seen.store(
                told.refused > 10 && told.acknowledged.iter().all(|count| *count > 0),
                Ordering::Relaxed,
            );
        }
        told
    });
    (listening, enough)
}

impl Told {
    fn take(&mut self, line: &str) {
        self.refused += u32::from(line.starts_with("refused "));
        let words = line.strip_prefix("acknowledged ").and_then(|line| line.split_once(' '));
        // The last line may be cut off by the kill.
        if let Some((Ok(task), Ok(version))) =
            words.map(|(task, version)| (task.parse::<usize>(), version.parse::<u64>()))
        {
            self.acknowledged[task] = version.max(self.acknowledged[task]);
        }
    }
}

/// What was acknowledged is there, what was refused is not, and nothing is half there.
async fn audit(file: &Path, acknowledged: [u64; TASKS as usize]) {
    let store = open(file);
    for (task, acknowledged) in acknowledged.into_iter().enumerate() {
        let [a, b] = pair(task as u64);
        let (a, b) = (state(&store, &a).await, state(&store, &b).await);
        assert_eq!((a.version, &a.value), (b.version, &b.value), "half a commit of task {task}");
        assert!(
            [acknowledged, acknowledged + 1].contains(&a.version),
            "task {task}: {acknowledged} {}",
            a.version
        );
    }
    assert_eq!(store.check(|_, _| {}).unwrap().problems, Vec::<String>::new());
}

/// `PROFILESTORE_IO_ERROR_SECONDS` says for how long at least, 8 seconds otherwise.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn every_outcome_is_true_when_reads_writes_and_syncs_fail() {
    let seconds = std::env::var("PROFILESTORE_IO_ERROR_SECONDS")
        .map_or(8, |seconds| seconds.parse::<u64>().expect("a number of seconds"));
    let seed = std::env::var("PROFILESTORE_IO_ERROR_SEED")
        .map_or(1, |seed| seed.parse::<u64>().expect("a seed"));
    let dir = folder();
    let library = preloaded("faulty_io", dir.path());
    for (round, kinds) in [&["READS"][..], &["WRITES"], &["SYNCS"], &["READS", "WRITES", "SYNCS"]]
        .into_iter()
        .enumerate()
    {
        let file = dir.path().join(format!("{round}.db"));
        let mut command = command("write through errors", &file);
        command
            .env("LD_PRELOAD", &library)
            .env("FAULTY_AFTER", "500")
            .env("FAULTY_SEED", (seed + round as u64).to_string());
        for kind in kinds {
            // Most of what is read is in memory.
            let one_in = if *kind == "READS" { "3" } else { "40" };
            command.env(format!("FAULTY_{kind}"), one_in);
        }
        let mut writer = Process(command.spawn().unwrap());
        let (listening, enough) = listen(writer.lines());
        // A busy machine takes longer to come to enough of each.
        for _ in (0..).take_while(|wait| *wait < seconds * 25 || !enough.load(Ordering::Relaxed)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(
                writer.0.try_wait().unwrap().is_none(),
                "the writer gave up: {kinds:?} seed {seed}"
            );
        }
        writer.0.kill().unwrap();
        writer.0.wait().unwrap();
        let Told { acknowledged, refused } = listening.join().unwrap();
        eprintln!("{kinds:?}: {refused} refused, {acknowledged:?} acknowledged");
        audit(&file, acknowledged).await;
    }
}

/// One of the libraries beside the tests that stand between a child and the system, compiled by the
/// compiler that SQLite needs too.
#[cfg(target_os = "linux")]
pub(super) fn preloaded(name: &str, folder: &Path) -> PathBuf {
    let library = folder.join(format!("{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{name}.c"));
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-pthread", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status();
    assert!(compiled.expect("a C compiler").success());
    library
}
