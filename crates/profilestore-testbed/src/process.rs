//! A process that can be stopped, continued and killed.

use std::{
    fs, io,
    net::TcpListener,
    process::{Child, Command, ExitStatus},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// A running process, killed and waited for when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts one.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        Ok(Self { child: command.spawn()? })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops it and its children where they are (SIGSTOP), as a machine that hangs.
    pub fn pause(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets it and its children go on (SIGCONT).
    pub fn resume(&self) {
        self.signal_all(Signal::CONT);
    }

    /// Kills it and its children (SIGKILL) in the middle of whatever they do, as a power failure
    /// that leaves the disk's cache.
    pub fn kill(&mut self) {
        // Stopped first: so no child sees another one's death.
        self.pause();
        let children = children(self.id());
        for process in children.iter().chain([&self.id()]) {
            kill(*process);
        }
        let _ = self.child.wait();
        // They are another process's children now.
        for _ in 0..500 {
            if !children.iter().any(|child| is_alive(*child)) {
                return;
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "this waits for processes, in real time"
            )]
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end, with the signal that it takes for that, and waits.
    pub fn end(&mut self, signal: Signal) -> io::Result<ExitStatus> {
        send(self.id(), signal);
        self.child.wait()
    }

    fn signal_all(&self, signal: Signal) {
        send(self.id(), signal);
        for child in children(self.id()) {
            send(child, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.runs() {
            self.kill();
        }
    }
}

/// Sends a signal. A process that is gone by now gets none, which is all right.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Kills a process with SIGKILL.
pub fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

/// True while it has not ended.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The children of a process.
pub fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // PID (NAME) STATE PARENT …, and the name may hold anything.
        let parent_of = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parent_of == Some(parent)
    })
    .collect()
}

/// The first port that [`free_port`] gives.
const FIRST_PORT: u16 = 10_000;

/// How far apart the ports of two processes lie that were started one after the other.
const APART: u32 = 31;

/// The first port that the system gives to connections. None where it does not tell.
fn first_of_connections() -> Option<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

/// A free port of this machine. It is none of those that the system gives to connections, so it is
/// free for a server that is killed and started again, too.
pub fn free_port() -> io::Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let ports = u32::from(first_of_connections().unwrap_or_default().saturating_sub(FIRST_PORT));
    for _ in 0..ports {
        // Each process begins elsewhere, since a port that was given is not yet listened at.
        let begin = std::process::id().wrapping_mul(APART);
        let at = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % ports;
        let port = FIRST_PORT + u16::try_from(at).unwrap_or_default();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection could take the port of a server that was down, which then could not start.
    #[test]
    fn a_free_port_is_none_that_the_system_gives_to_connections() {
        let (one, other) = (free_port().unwrap(), free_port().unwrap());
        assert_ne!(one, other);
        if let Some(first) = first_of_connections().filter(|first| *first > FIRST_PORT + 1000) {
            assert!((FIRST_PORT..first).contains(&one) && (FIRST_PORT..first).contains(&other));
        }
    }
}
