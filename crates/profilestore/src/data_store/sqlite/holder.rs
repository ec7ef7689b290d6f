//! Which process holds the file's write lock, for the error that tells of it: an operator can look
//! at a process, end it, or let it go on. And whether one makes a checkpoint. Known on Linux only,
//! from what the kernel lists; opening the file to ask would drop this process's own locks.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::schema::beside;

/// The bytes of the `-shm` file by which SQLite locks a log for writing, and for a checkpoint.
const WRITE_LOCK: u64 = 120;
const CHECKPOINT_LOCK: u64 = 121;

/// The process that holds the write lock, and what it does.
pub(super) fn of(path: &Path) -> Option<String> {
    let pid = pid_with(path, WRITE_LOCK)?;
    let state =
        fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| state_in(&stat));
    let stopped = if matches!(state, Some('T' | 't')) { ", which is stopped" } else { "" };
    Some(format!("process {pid}{stopped}"))
}

/// Whether a process copies the log into the file, as far as that is known.
pub(super) fn is_checkpointing(path: &Path) -> bool {
    pid_with(path, CHECKPOINT_LOCK).is_some()
}

fn pid_with(path: &Path, lock: u64) -> Option<u32> {
    let inode = fs::metadata(beside(path, "-shm")).ok()?.ino();
    pid_in(&fs::read_to_string("/proc/locks").ok()?, inode, lock)
}

/// From lines such as `1: POSIX  ADVISORY  WRITE 4711 08:01:1234567 120 120`.
fn pid_in(locks: &str, inode: u64, lock: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "POSIX", _, "WRITE", pid, file, start, end] = fields[..] else { return None };
        let holds = start.parse::<u64>().ok()? <= lock
            && (end == "EOF" || end.parse::<u64>().ok()? >= lock);
        let same = file.rsplit(':').next()?.parse() == Ok(inode);
        if holds && same { pid.parse().ok() } else { None }
    })
}

/// The state is behind the program's name, which stands in brackets and may hold anything.
fn state_in(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_among_others() {
        let locks = "1: POSIX  ADVISORY  READ  11 08:01:77 124 124\n\
                     2: POSIX  ADVISORY  WRITE 12 08:01:77 121 123\n\
                     3: FLOCK  ADVISORY  WRITE 13 08:01:77 0 EOF\n\
                     4: POSIX  ADVISORY  WRITE 14 08:01:78 120 120\n\
                     5: POSIX  ADVISORY  WRITE 15 08:01:77 120 120\n\
                     5: -> POSIX  ADVISORY  WRITE 16 08:01:77 120 120\n";
        let pid = |inode, lock| pid_in(locks, inode, lock);
        assert_eq!((pid(77, WRITE_LOCK), pid(79, WRITE_LOCK)), (Some(15), None));
        assert_eq!((pid(77, CHECKPOINT_LOCK), pid(78, CHECKPOINT_LOCK)), (Some(12), None));
        assert_eq!(state_in("15 (a ) b) T 1 1"), Some('T'));
    }
}
