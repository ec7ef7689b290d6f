//! A plan that does what a test tells it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

use super::{Call, Fate, Fault, StorePlan};

/// A plan on command: nothing goes wrong until the test says so.
#[derive(Debug, Default)]
pub struct OnCommand {
    told: Mutex<Told>,
    commits: AtomicU64,
    reads: AtomicU64,
}

/// What was told.
#[derive(Debug, Default)]
struct Told {
    /// The next calls' fault, and how many of them.
    fault: Option<(Fault, u64)>,
    /// Renewals of leases fail too.
    renewals_too: bool,
    /// How many calls that commit are spared first.
    spared: u64,
    /// How long each way of each call takes.
    latency: Duration,
    /// How long answers to reads take besides.
    reads_back: Duration,
}

impl OnCommand {
    /// The next `count` calls that commit fail so; renewals of servers' leases do not. Reads fail
    /// only where nothing arrives at all ([`Fault::Refused`]).
    pub fn fail(&self, fault: Fault, count: u64) {
        let mut told = self.told.lock();
        told.renewals_too = false;
        told.fault = (count > 0).then_some((fault, count));
    }

    /// The faults begin after so many calls that commit.
    pub fn spare(&self, calls: u64) {
        self.told.lock().spared = calls;
    }

    /// From now on each call takes so long, half of it for each way.
    pub fn slow(&self, time: Duration) {
        self.told.lock().latency = time / 2;
    }

    /// From now on what was read is this old when it arrives, milliseconds.
    pub fn delay_reads(&self, ms: u64) {
        self.told.lock().reads_back = Duration::from_millis(ms);
    }

    /// Every call fails until [`OnCommand::heal`], renewals too, and changes nothing.
    pub fn cut_off(&self) {
        self.fail_all(Fault::Refused);
    }

    /// Nothing is written until [`OnCommand::heal`], and the caller does not know; reads are
    /// answered. A full disk, or a primary that has become a standby.
    pub fn refuse_writes(&self) {
        self.fail_all(Fault::RequestLost);
    }

    fn fail_all(&self, fault: Fault) {
        let mut told = self.told.lock();
        told.renewals_too = true;
        told.fault = Some((fault, u64::MAX));
    }

    /// No call fails any more. What takes time goes on to take it.
    pub fn heal(&self) {
        self.told.lock().fault = None;
    }

    /// How many commits were asked for so far, renewals of leases not counted.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// How many reads were asked for so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }
}

impl Told {
    fn next_fault(&mut self, renewal: bool) -> Option<Fault> {
        if renewal && !self.renewals_too {
            return None;
        }
        let (fault, left) = self.fault.as_mut()?;
        if self.spared > 0 && !renewal {
            self.spared -= 1;
            return None;
        }
        let fault = *fault;
        *left -= 1;
        if *left == 0 {
            self.fault = None;
        }
        Some(fault)
    }
}

impl StorePlan for OnCommand {
    fn fate(&self, call: Call<'_>) -> Fate {
        let mut told = self.told.lock();
        let (there, mut back) = (told.latency, told.latency);
        let fault = match call {
            Call::Read => {
                self.reads.fetch_add(1, Ordering::SeqCst);
                back += told.reads_back;
                told.fault.map(|(fault, _)| fault).filter(|fault| *fault == Fault::Refused)
            }
            Call::Renewal => told.next_fault(true),
            Call::Commit(commits) => {
                self.commits.fetch_add(commits.len() as u64, Ordering::SeqCst);
                told.next_fault(false)
            }
            Call::Sweep => None,
        };
        Fate { there, back, fault }
    }
}
