//! PostgreSQL servers for one test, with syncing on as in production.

use std::{
    fs, io,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::process::{Process, free_port};

/// How long a server may take to come up, the replay of its log after a crash included.
const START: Duration = Duration::from_secs(60);

/// The user of the database, who may do everything in it.
pub(crate) const USER: &str = "postgres";

/// A PostgreSQL server on 127.0.0.1. Ends when it is dropped, at once and with all its processes.
#[derive(Debug)]
pub struct PostgresServer {
    port: u16,
    /// What runs now.
    pub process: Process,
    /// Where its programs are.
    bin: PathBuf,
    folder: Folder,
}

/// Where a server's data lies: an ordinary folder, or a small file system of its own.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) folder: TempDir,
    mounted: bool,
    /// Where the server's log is: not on a small disk, which may be full.
    log: TempDir,
}

impl Folder {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { folder: tempfile::tempdir()?, mounted: false, log: tempfile::tempdir()? })
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn log_file(&self) -> io::Result<fs::File> {
        fs::OpenOptions::new().create(true).append(true).open(self.log.path().join("log"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
        }
    }
}

impl PostgresServer {
    /// Starts one on an empty database.
    pub fn start() -> io::Result<Self> {
        Self::create(Folder::new()?)
    }

    /// Starts one whose disk holds so many megabytes. Only root can make that.
    pub fn on_small_disk(megabytes: u32) -> io::Result<Self> {
        let mut folder = Folder::new()?;
        let size = format!("size={megabytes}m");
        ran(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.folder.path()))?;
        folder.mounted = true;
        Self::create(folder)
    }

    fn create(folder: Folder) -> io::Result<Self> {
        let (bin, port) = (programs()?, free_port()?);
        own(folder.folder.path())?;
        let data = folder.folder.path().join("data");
        let initdb = as_owner(&bin.join("initdb"), folder.folder.path())?
            .args(["--no-sync", "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()?;
        if !initdb.success() {
            return Err(io::Error::other("initdb failed"));
        }
        configure(
            &data,
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nmax_wal_size = \
                64MB\nmin_wal_size = 32MB\n",
        )?;
        Self::run(folder, bin, port)
    }

    fn run(folder: Folder, bin: PathBuf, port: u16) -> io::Result<Self> {
        configure(&folder.folder.path().join("data"), &format!("port = {port}\n"))?;
        let process = spawn(&bin, &folder)?;
        let mut server = Self { port, process, bin, folder };
        server.wait_until_it_answers()?;
        Ok(server)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.folder.log()
    }

    /// Where it keeps its data.
    pub fn folder(&self) -> &Path {
        self.folder.folder.path()
    }

    /// `postgres://postgres@127.0.0.1:PORT/postgres`
    pub fn url(&self) -> String {
        self.url_through(self.port)
    }

    /// The same through another port of this machine: a proxy's.
    pub fn url_through(&self, port: u16) -> String {
        format!("postgres://{USER}@127.0.0.1:{port}/postgres")
    }

    /// Starts it again, on its port, after it was killed or has died. Returns when it answers.
    pub fn restart(&mut self) -> io::Result<()> {
        if !self.process.runs() {
            self.process = spawn(&self.bin, &self.folder)?;
        }
        self.wait_until_it_answers()
    }

    /// Runs a statement, and gives what it prints.
    pub fn sql(&self, statement: &str) -> io::Result<String> {
        psql(&self.bin, &self.url(), statement)
    }

    /// A copy of it that follows it, and for which each of its commits waits from now on.
    pub fn synchronous_standby(&self) -> io::Result<Self> {
        let folder = Folder::new()?;
        own(folder.folder.path())?;
        let data = folder.folder.path().join("data");
        ran(as_owner(&self.bin.join("pg_basebackup"), folder.folder.path())?
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-U",
                USER,
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "-D",
            ])
            .arg(&data))?;
        let standby = Self::run(folder, self.bin.clone(), free_port()?)?;
        self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")?;
        self.sql("SELECT pg_reload_conf()")?;
        until("the standby follows", || {
            Ok(self.sql(
                "SELECT count(*) FROM pg_stat_replication WHERE sync_state = \
                'sync'",
            )? == "1")
        })?;
        Ok(standby)
    }

    /// Makes a standby the primary. It must not wait for a standby of its own.
    pub fn promote(&self) -> io::Result<()> {
        self.sql("SELECT pg_promote()")?;
        self.sql("ALTER SYSTEM SET synchronous_standby_names = ''")?;
        self.sql("SELECT pg_reload_conf()").map(drop)
    }

    fn wait_until_it_answers(&mut self) -> io::Result<()> {
        let (bin, port) = (self.bin.clone(), self.port.to_string());
        let (folder, process) = (&self.folder, &mut self.process);
        until("PostgreSQL answers", || {
            if !process.runs() {
                // A child of its predecessor may have held on to its memory for a moment.
                *process = spawn(&bin, folder)?;
            }
            let mut ready = Command::new(bin.join("pg_isready"));
            Ok(ready.args(["-q", "-h", "127.0.0.1", "-p", &port]).status()?.success())
        })
        .map_err(|error| {
            let log = folder.log();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            io::Error::new(error.kind(), format!("{error}; its log, from the end: {tail:#?}"))
        })
    }
}

/// Runs a statement, and gives what it prints.
pub(crate) fn psql(bin: &Path, url: &str, statement: &str) -> io::Result<String> {
    let mut psql = Command::new(bin.join("psql"));
    let output = psql
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statement])
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Waits for something, looking every now and then.
#[expect(clippy::disallowed_methods, reason = "this waits for a process, in real time")]
pub(crate) fn until(what: &str, mut is: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let end = Instant::now() + START;
    loop {
        match is() {
            Ok(true) => return Ok(()),
            Ok(false) if Instant::now() < end => std::thread::sleep(Duration::from_millis(50)),
            Ok(false) => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("waited in vain: {what}"),
                ));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The newest version's programs.
pub(crate) fn programs() -> io::Result<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(|entry| entry.ok());
    // A client alone brings the folder too.
    let versions = versions.filter(|entry| entry.path().join("bin/initdb").exists());
    let newest = versions
        .max_by_key(|entry| entry.file_name().to_string_lossy().parse::<u32>().unwrap_or(0));
    newest.map(|entry| entry.path().join("bin")).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "PostgreSQL is not installed (on Debian: apt-get install postgresql)",
        )
    })
}

/// Who the server runs as when root runs the tests: it refuses to be root itself.
fn owner() -> io::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let found = users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.first() == Some(&"postgres"))
            .then(|| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)))?
    });
    found.map(Some).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "there is no user postgres to run the server as")
    })
}

pub(crate) fn own(folder: &Path) -> io::Result<()> {
    match owner()? {
        Some((user, group)) => chown(folder, Some(user), Some(group)),
        None => Ok(()),
    }
}

pub(crate) fn as_owner(program: &Path, folder: &Path) -> io::Result<Command> {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null());
    if let Some((user, group)) = owner()? {
        command.uid(user).gid(group);
    }
    Ok(command)
}

fn configure(data: &Path, lines: &str) -> io::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new()
        .append(true)
        .open(data.join("postgresql.conf"))?
        .write_all(lines.as_bytes())
}

fn spawn(bin: &Path, folder: &Folder) -> io::Result<Process> {
    let log = folder.log_file()?;
    let mut command = as_owner(&bin.join("postgres"), folder.folder.path())?;
    Process::start(
        command
            .arg("-D")
            .arg(folder.folder.path().join("data"))
            .stdout(log.try_clone()?)
            .stderr(log),
    )
}

fn ran(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(io::Error::other(format!("{} failed: {said}", command.get_program().to_string_lossy())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_survives_being_killed_and_its_standby_takes_over() {
        let mut primary = PostgresServer::start().unwrap();
        primary.sql("CREATE TABLE t (n int)").unwrap();
        primary.process.kill();
        assert!(primary.sql("SELECT 1").is_err());
        primary.restart().unwrap();
        let standby = primary.synchronous_standby().unwrap();
        primary.sql("INSERT INTO t VALUES (7)").unwrap();
        assert!(standby.sql("INSERT INTO t VALUES (8)").is_err(), "it only reads");
        primary.process.kill();
        standby.promote().unwrap();
        standby.sql("INSERT INTO t VALUES (9)").unwrap();
        assert_eq!(standby.sql("SELECT sum(n) FROM t").unwrap(), "16");
    }
}
