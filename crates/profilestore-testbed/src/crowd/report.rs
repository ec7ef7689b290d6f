//! What became of a crowd.

use std::time::Duration;

/// What became of the game servers of a crowd.
#[derive(Debug, Default)]
pub struct CrowdReport {
    /// Changes that were made.
    pub changes: u64,
    /// Changes that were not made, since the game server did not believe in its sessions.
    pub withheld: u64,
    /// Saves that were answered.
    pub saves: u64,
    /// The longest time from a save to its answer, over all connections.
    pub longest: Duration,
    /// How often a game server resumed.
    pub resumes: u64,
    /// How often one heard at a resume that it had been declared dead.
    pub anew: u64,
    /// The sessions that ended without being asked to.
    pub over: Vec<Over>,
    /// The sessions that ended in order: the key of each, and the coins that are stored.
    pub stored: Vec<(String, u64)>,
    /// When a game server stood still.
    pub gaps: Vec<Gap>,
    /// What must not happen.
    pub wrong: Vec<String>,
}

/// A session that ended without being asked to.
#[derive(Debug, Clone)]
pub struct Over {
    /// The profile's key.
    pub key: String,
    /// The frame that said so: `closed` or `lost`, or the kind of an error.
    pub told: String,
    /// The time of its last change, in Unix milliseconds.
    pub changed: u64,
    /// The time of the last change that was answered as stored.
    pub stored: u64,
}

/// A time in which a game server stood still, as when its process is stopped.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    /// For how long.
    pub stood_still: Duration,
    /// How long, from its beginning, the game server might have believed in its sessions.
    pub believed_for: Duration,
    /// In how many sessions it believed when it went on.
    pub believed_in: u64,
}

impl CrowdReport {
    /// Adds what became of another part of the crowd.
    pub(super) fn add(&mut self, other: Self) {
        self.changes += other.changes;
        self.withheld += other.withheld;
        self.saves += other.saves;
        self.longest = self.longest.max(other.longest);
        self.resumes += other.resumes;
        self.anew += other.anew;
        self.over.extend(other.over);
        self.stored.extend(other.stored);
        self.gaps.extend(other.gaps);
        self.wrong.extend(other.wrong);
    }
}
