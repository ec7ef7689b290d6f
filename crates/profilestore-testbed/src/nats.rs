//! NATS servers for one test.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::process::{Process, free_port};

/// How long a server may take to come up.
const START: Duration = Duration::from_secs(60);

/// A NATS server on 127.0.0.1. Ends when it is dropped.
#[derive(Debug)]
pub struct NatsServer {
    port: u16,
    arguments: Vec<String>,
    folder: TempDir,
    /// What runs now.
    pub process: Process,
}

impl NatsServer {
    /// Starts one with further arguments.
    pub fn start(arguments: &[&str]) -> io::Result<Self> {
        Self::start_in(tempfile::tempdir()?, arguments)
    }

    /// Starts one with a configuration (NATS' own format), which may name files in the folder that
    /// `write` fills.
    pub fn configured(
        config: &str,
        write: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        write(folder.path())?;
        let path = folder.path().join("server.conf");
        fs::write(&path, config.replace("FOLDER", &folder.path().to_string_lossy()))?;
        Self::start_in(folder, &["--config", &path.to_string_lossy()])
    }

    fn start_in(folder: TempDir, arguments: &[&str]) -> io::Result<Self> {
        let port = free_port()?;
        let arguments: Vec<String> =
            arguments.iter().map(|&argument| argument.to_owned()).collect();
        let process = run(port, &arguments, folder.path())?;
        Ok(Self { port, arguments, folder, process })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `nats://127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The folder that `configured` filled.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it again, on its port, after it was killed.
    pub fn restart(&mut self) -> io::Result<()> {
        self.process = run(self.port, &self.arguments, self.folder.path())?;
        Ok(())
    }
}

/// Starts a cluster, in which each server knows each other.
pub fn nats_cluster(servers: usize) -> io::Result<Vec<NatsServer>> {
    let ports = (0..servers).map(|_| free_port()).collect::<io::Result<Vec<_>>>()?;
    let routes: Vec<String> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let started = (0..servers).map(|n| {
        NatsServer::start(&[
            "--cluster_name",
            "test",
            "--cluster",
            &routes[n],
            "--routes",
            &routes.join(","),
        ])
    });
    let cluster = started.collect::<io::Result<Vec<_>>>()?;
    for server in &cluster {
        wait_for(server.folder(), "Route connection created", servers - 1)?;
    }
    Ok(cluster)
}

fn run(port: u16, arguments: &[String], folder: &Path) -> io::Result<Process> {
    let log = fs::File::create(folder.join("log"))?;
    // Debian puts it where not everybody's PATH looks.
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("nats-server");
    command
        .env("PATH", path)
        .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
        .args(arguments);
    let started = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log));
    let process = started.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!(
                "nats-server cannot be started (on Debian: apt-get install nats-server): {error}"
            ),
        )
    })?;
    wait_for(folder, "Server is ready", 1)?;
    Ok(process)
}

/// Waits until a server's log says something so often.
#[expect(clippy::disallowed_methods, reason = "this waits for a process, in real time")]
fn wait_for(folder: &Path, word: &str, times: usize) -> io::Result<()> {
    let until = Instant::now() + START;
    loop {
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        if log.matches(word).count() >= times {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("nats-server does not come up:\n{log}"),
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
