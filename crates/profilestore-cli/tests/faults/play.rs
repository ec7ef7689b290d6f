//! One run of the demonstration.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use profilestore_testbed::{Signal, children, send};
use serde_json::Value;
use tempfile::TempDir;

/// The servers' lease time in these runs. Three processes share one disk with other tests, where a
/// commit may take a second.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// A run to be.
pub(crate) struct Play {
    command: Command,
    servers: usize,
    folder: TempDir,
}

/// How long the faults are to go on. In the gate each comes once.
fn fault_time() -> Duration {
    let seconds = std::env::var("PROFILESTORE_FAULT_SECONDS")
        .ok()
        .map(|text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds.unwrap_or(0))
}

pub(crate) fn sleep(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "this waits beside processes, in real time")]
    std::thread::sleep(time);
}

/// Waits until something is so. A test that waits for ever is ended by its time limit.
pub(crate) fn wait_for(is_so: impl Fn() -> bool) {
    while !is_so() {
        sleep(Duration::from_millis(50));
    }
}

#[expect(clippy::disallowed_methods, reason = "this measures processes, in real time")]
fn now() -> Instant {
    Instant::now()
}

impl Play {
    /// On a file. It goes on until [`Running::ends_well`]; all players are edited after half of the
    /// faults' time, or 4 s. In the gate, where other tests share the processor, players make half
    /// the steps.
    pub(crate) fn new(servers: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_profilestore"));
        let seconds = fault_time().as_secs().max(8);
        let pace = if fault_time().is_zero() { "300" } else { "600" };
        command
            .args(["demo", "--json", "--complete", "--until-told", "--players", "40"])
            .args(["--pace", pace])
            .args(["--servers", &servers.to_string(), "--seconds", &seconds.to_string()])
            .args(["--lease-seconds", &LEASE.as_secs().to_string()])
            .env(
                "PROFILESTORE_STORE",
                format!("sqlite:{}", folder.path().join("play.db").display()),
            )
            .env_remove("PROFILESTORE_MESSENGER");
        Self { command, servers, folder }
    }

    /// On a database, which is made ready for it.
    pub(crate) fn store(mut self, url: &str) -> Self {
        let mut migrate = Command::new(env!("CARGO_BIN_EXE_profilestore"));
        let migrated = migrate.arg("migrate").env("PROFILESTORE_STORE", url).output().unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        self.command.args(["--store", url]);
        self
    }

    pub(crate) fn messenger(mut self, address: &str) -> Self {
        self.command.env("PROFILESTORE_MESSENGER", address);
        self
    }

    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.command.arg(arg);
        self
    }

    /// Environment of one server's processes.
    pub(crate) fn on_server(mut self, slot: usize, name: &str, value: &str) -> Self {
        self.command.args(["--on-server", &format!("{slot}:{name}={value}")]);
        self
    }

    /// Starts it, and returns when the players play.
    pub(crate) fn start(mut self) -> Running {
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let report = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        let (playing, plays) = mpsc::channel();
        let stderr = child.stderr.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains(" s  sessions ") {
                    // Nobody may care any more.
                    let _ = playing.send(());
                }
                text += &line;
                text.push('\n');
            }
            text
        });
        let mut running = Running {
            child,
            report: Some(report),
            said: Some(said),
            began: now(),
            _folder: self.folder,
        };
        if plays.recv_timeout(Duration::from_secs(60)).is_err() {
            let (report, said) = running.output();
            panic!("{} servers did not begin to play:\n{report}\n{said}", self.servers);
        }
        running.began = now();
        running
    }
}

/// A run under way. Killed, with its servers, when it is dropped.
pub(crate) struct Running {
    child: Child,
    report: Option<JoinHandle<String>>,
    said: Option<JoinHandle<String>>,
    began: Instant,
    _folder: TempDir,
}

impl Running {
    /// The process of a server that runs now.
    pub(crate) fn server(&self, slot: usize) -> u32 {
        let wanted = format!("server-{slot}.");
        let found = children(self.child.id()).into_iter().find(|pid| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split('\0').any(|arg| arg.starts_with(&wanted))
        });
        found.unwrap_or_else(|| panic!("server {slot} does not run"))
    }

    /// Whether the faults are to come once more.
    pub(crate) fn has_time(&self) -> bool {
        now().duration_since(self.began) < fault_time()
    }

    fn output(&mut self) -> (String, String) {
        let _ = self.child.kill();
        let text = |thread: Option<JoinHandle<String>>| {
            thread.map(|thread| thread.join().unwrap()).unwrap_or_default()
        };
        (text(self.report.take()), text(self.said.take()))
    }

    /// Ends the play, now that the faults are over, and waits for its end. Demands that the audit
    /// passed, and that each player was served once more. How long the players had to wait is
    /// printed: it hangs on the machine, and so no verdict does.
    #[track_caller]
    pub(crate) fn ends_well(mut self) -> Value {
        send(self.child.id(), Signal::INT);
        let until = now() + Duration::from_secs(300);
        while self.child.try_wait().unwrap().is_none() && now() < until {
            sleep(Duration::from_millis(50));
        }
        let passed = self.child.try_wait().unwrap().is_some_and(|status| status.success());
        let (report, said) = self.output();
        let parsed: Value = serde_json::from_str(&report).unwrap_or_default();
        let checks =
            parsed.pointer("/audit/checks").and_then(Value::as_array).into_iter().flatten();
        let failed: Vec<&Value> = checks.filter(|check| check["passed"] != true).collect();
        assert!(passed && failed.is_empty(), "{failed:#?}\n{said}\n{report}");
        let report = parsed;
        assert_eq!(report["audit"]["passed"], true, "{report:#}");
        for figure in [
            "/figures/saves/count",
            "/figures/messages/sent",
            "/figures/items/traded",
            "/figures/hand_overs/count",
        ] {
            assert!(
                report.pointer(figure).and_then(Value::as_u64).unwrap_or(0) > 0,
                "{figure}: {report:#}"
            );
        }
        assert!(!said.contains("this did not happen"), "{said}");
        let waited = report.pointer("/figures/unserved/max_ms").and_then(Value::as_f64).unwrap();
        eprintln!("longest wait {waited:.0} ms; {}", report["figures"]);
        report
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A server that was stopped cannot notice that its parent is gone.
        for server in children(self.child.id()) {
            profilestore_testbed::kill(server);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
