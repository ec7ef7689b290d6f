//! Tests and games for which no time passes. In virtual time a call that is answered at once takes
//! none, so that a loop over such calls keeps time from passing: the limit of a test would never
//! come, nor the game's end, nor what ends that. So all are bounded by the computer's time too.

use std::{
    future::pending,
    pin::pin,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::Notify, time::Instant};

use super::{Report, Server};
use crate::{
    output::Line,
    specs::{Collector, Place, STEPS},
    vm::Failed,
};

/// Notices that the game's time stands still.
pub(super) struct Standstill {
    /// None where real time may pass without virtual time.
    watched: Option<Watched>,
}

struct Watched {
    /// None in a game without tests.
    specs: Option<Arc<Collector>>,
    /// For how long the game's time may stand still, and in how many steps.
    patience: Duration,
    steps: u32,
    /// Told whenever a [`crate::Limits::step`] has really passed, by a thread of its own.
    ticks: Arc<Notify>,
    /// Dropped, it ends that thread.
    _ends: Sender<()>,
    /// The game's time, and how far the tests were, at the last tick.
    seen: (Instant, Option<Place>),
    /// How many ticks nothing has changed for.
    still: u32,
}

impl Standstill {
    /// A game without tests is watched if all of it is `in_memory`: a file, a database and the
    /// network take real time, in which no virtual time passes.
    pub(super) fn new(
        specs: Option<&Arc<Collector>>,
        in_memory: bool,
        servers: usize,
        step: Duration,
    ) -> Self {
        // In virtual time all servers run their frames at one moment, one after the other. Tests
        // have one server.
        let servers = if specs.is_some() { 1 } else { u32::try_from(servers).unwrap_or(u32::MAX) };
        let watches = specs.is_some() || in_memory;
        let steps = STEPS.saturating_mul(servers);
        Self { watched: watches.then(|| Watched::new(specs.cloned(), step, steps)) }
    }

    /// Waits until the game's time has not moved on for six steps of real time (without tests, for
    /// each server), nor a test begun or ended; then the steps begin anew. A long test that waits
    /// now and then is not noticed: they begin anew whenever time passes in the game, however
    /// little.
    pub(super) async fn noticed(&mut self) {
        match &mut self.watched {
            Some(watched) => watched.stands_still().await,
            None => pending().await,
        }
    }

    /// Makes the test that runs fail, and ends the threads that keep time from passing, also those
    /// that earlier tests left behind. What goes on after the last test is bounded elsewhere. True
    /// in a game without tests, which is to end then.
    pub(super) fn stop(&self, servers: &[Server]) -> Result<bool, Failed> {
        let Some(watched) = &self.watched else { return Ok(false) };
        if watched.specs.as_ref().is_some_and(|specs| specs.is_afterwards()) {
            return Ok(false);
        }
        // Before the test or the game ends: what runs after it makes calls of its own.
        servers.iter().for_each(Server::drop_calls);
        let Some(specs) = &watched.specs else {
            watched.tell(servers, "");
            return Ok(true);
        };
        // The tests run on the first one.
        servers.first().map_or(Ok(()), |server| server.stop_test(&specs.stood_still()))?;
        Ok(false)
    }

    /// Closes all servers. When no time passes meanwhile, their scripts are stopped, which is a
    /// failure, and the servers' own end goes on without them.
    pub(super) async fn close(
        &mut self,
        servers: &[Server],
        nothing_left: bool,
    ) -> Vec<Result<Report, Failed>> {
        if let Some(watched) = &mut self.watched {
            watched.still = 0;
        }
        let mut closing = pin!(join_all(servers.iter().map(|server| server.close(nothing_left))));
        tokio::select! {
            biased;
            closed = &mut closing => return closed,
            () = self.noticed() => {}
        }
        let mut failed = Report::default();
        match &self.watched {
            Some(Watched { specs: Some(specs), .. }) => specs.stop_closing(),
            Some(watched) => {
                watched.tell(servers, " while it closed");
                failed.failures = 1;
            }
            None => {}
        }
        servers.iter().for_each(Server::stop);
        let mut closed = closing.await;
        closed.push(Ok(failed));
        closed
    }
}

impl Watched {
    fn new(specs: Option<Arc<Collector>>, step: Duration, steps: u32) -> Self {
        let (ends, ended) = mpsc::channel();
        let ticks = Arc::new(Notify::new());
        let told = ticks.clone();
        let watch = thread::Builder::new().name("profilestore-steps".into());
        // Without the thread, the game's time alone bounds everything.
        let _ = watch.spawn(move || {
            while ended.recv_timeout(step) == Err(RecvTimeoutError::Timeout) {
                told.notify_one();
            }
        });
        let seen = (Instant::now(), specs.as_ref().map(|specs| specs.place()));
        let patience = step.saturating_mul(steps);
        Self { specs, patience, steps, ticks, _ends: ends, seen, still: 0 }
    }

    /// Tells why a game without tests is stopped, on a server that has not ended.
    fn tell(&self, servers: &[Server], when: &str) {
        let why = format!(
            "the game was stopped{when}: for {:?} no time had passed in it. A loop makes calls \
             that are answered at once: let such a loop wait with task.wait between its calls, or \
             end it",
            self.patience
        );
        if let Some(server) = servers.iter().find(|server| !server.has_ended()) {
            server.line(Line::Error, &why);
        }
    }

    /// The first tick may come at once, so it takes one more than there are steps.
    async fn stands_still(&mut self) {
        loop {
            self.ticks.notified().await;
            let seen = (Instant::now(), self.specs.as_ref().map(|specs| specs.place()));
            if seen != self.seen {
                (self.seen, self.still) = (seen, 0);
                continue;
            }
            self.still += 1;
            if self.still > self.steps {
                self.still = 0;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::{Limits, SpecOptions, Time};

    fn tick(watched: &mut Watched) -> bool {
        watched.ticks.notify_one();
        watched.stands_still().now_or_never().is_some()
    }

    /// The ticks until it is noticed.
    fn ticks(watched: &mut Watched) -> u32 {
        let mut ticks = 1;
        while !tick(watched) {
            ticks += 1;
        }
        ticks
    }

    #[test]
    fn a_test_for_which_time_passes_is_not_stopped_however_long_it_takes() {
        let runtime = Time::Virtual.runtime().expect("a runtime");
        runtime.block_on(async {
            let collector = Collector::new(&SpecOptions::default(), Limits::default(), false);
            let specs = Arc::new(collector);
            // The thread itself never ticks.
            let step = Duration::from_secs(1 << 20);
            let mut watched = Watched::new(Some(specs.clone()), step, STEPS);
            specs.began(vec!["a test".into()]);
            for _ in 0..5 {
                for _ in 0..STEPS {
                    assert!(!tick(&mut watched));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(ticks(&mut watched), STEPS + 2, "one sees that time had passed");
            for _ in 0..STEPS {
                assert!(!tick(&mut watched));
            }
            specs.ended(None, false);
            assert_eq!(ticks(&mut watched), STEPS + 2, "one sees that the test had ended");
        });
    }
}
