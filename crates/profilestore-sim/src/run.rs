//! Many seeds on every core: one world a thread at a time, each with a runtime of its own.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use profilestore::{
    data_store::Digest,
    env::{Clock, SystemClock},
};

use crate::{
    books::Counts,
    report,
    world::{self, Size},
};

/// What came of many seeds.
pub struct Summary {
    pub worlds: u64,
    pub counts: Counts,
    /// Seeds and what broke.
    pub failures: Vec<(u64, String)>,
    pub took: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (_, text) in &self.failures {
            writeln!(f, "{text}")?;
        }
        write!(
            f,
            "{} worlds in {:.1} s, {} violations",
            self.worlds,
            self.took.as_secs_f64(),
            self.failures.len()
        )?;
        for (what, count) in &self.counts.0 {
            write!(f, "\n{count:>12} {what}")?;
        }
        Ok(())
    }
}

/// Runs the seeds until one fails or the time is up.
pub fn run(seeds: Range<u64>, minutes: Option<f64>, size: Size) -> Summary {
    let began = SystemClock.unix_ms();
    let deadline = minutes.map(|minutes| began + (minutes * 60_000.0) as i64);
    let summary = Mutex::new(Summary {
        worlds: 0,
        counts: Counts::default(),
        failures: Vec::new(),
        took: Duration::ZERO,
    });
    let stop = AtomicBool::new(false);
    each(seeds, |seed, bar| {
        if stop.load(Ordering::Relaxed)
            || deadline.is_some_and(|deadline| SystemClock.unix_ms() > deadline)
        {
            return false;
        }
        let outcome = world::run(seed, size, false);
        let mut text = None;
        if outcome.violation.is_some() {
            stop.store(true, Ordering::Relaxed);
            text = Some(report::failure(seed, size, &world::run(seed, size, true)));
        }
        let mut summary = summary.lock();
        summary.worlds += 1;
        summary.counts.merge(&outcome.counts);
        summary.failures.extend(text.map(|text| (seed, text)));
        bar.set_message(format!(
            "{} commits",
            summary.counts.0.get("commits").copied().unwrap_or_default()
        ));
        true
    });
    let mut summary = summary.into_inner();
    summary.took = Duration::from_millis((SystemClock.unix_ms() - began).max(0).cast_unsigned());
    summary
}

/// Runs each seed twice. The seeds whose traces differ, with the first lines that do.
pub fn meta(seeds: Range<u64>, size: Size) -> Vec<(u64, String, String)> {
    let differing = Mutex::new(Vec::new());
    each(seeds, |seed, _| {
        let (one, other) = (world::run(seed, size, true), world::run(seed, size, true));
        if one.trace != other.trace || one.counts != other.counts {
            let lines = one.trace.iter().zip(&other.trace).find(|(one, other)| one != other);
            let text = |line: Option<&crate::books::Line>| {
                line.map_or_else(String::new, |line| line.text.clone())
            };
            differing.lock().push((seed, text(lines.map(|l| l.0)), text(lines.map(|l| l.1))));
        }
        true
    });
    differing.into_inner()
}

/// Each seed with a hash of its trace and its counts.
pub fn hashes(seeds: Range<u64>, size: Size) -> BTreeMap<u64, String> {
    let found = Mutex::new(BTreeMap::new());
    each(seeds, |seed, _| {
        let outcome = world::run(seed, size, true);
        let mut text: String =
            outcome.trace.iter().map(|line| format!("{}\n", line.text)).collect();
        text.push_str(&format!("{:?}", outcome.counts.0));
        found.lock().insert(seed, hash(&text));
        true
    });
    found.into_inner()
}

/// 16 digits of a text's SHA-256.
pub fn hash(text: &str) -> String {
    Digest::of(text.as_bytes()).0[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Calls `work` for each seed, on every core, until it says false.
fn each(seeds: Range<u64>, work: impl Fn(u64, &ProgressBar) -> bool + Sync) {
    let bar = ProgressBar::new(seeds.end.saturating_sub(seeds.start));
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} worlds  {msg}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || !work(seed, &bar) {
                        return;
                    }
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
}
