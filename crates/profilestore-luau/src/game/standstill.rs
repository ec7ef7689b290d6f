//! Tests for which no time passes. In virtual time a call that is answered at once takes none, so
//! that a loop over such calls keeps time from passing: the limit of a test would never come, nor
//! that of the game's end. So both are bounded by the computer's time as well.

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
    specs::{Collector, Place, STEPS},
    vm::Failed,
};

/// Notices that the game's time stands still.
pub(super) struct Standstill {
    /// None in a game without tests.
    watched: Option<Watched>,
}

struct Watched {
    specs: Arc<Collector>,
    /// Told whenever a [`crate::Limits::step`] has really passed, by a thread of its own.
    ticks: Arc<Notify>,
    /// Dropped, it ends that thread.
    _ends: Sender<()>,
    /// The game's time, and how far the tests were, at the last tick.
    seen: (Instant, Place),
    /// How many ticks nothing has changed for.
    still: u32,
}

impl Standstill {
    pub(super) fn new(specs: Option<&Arc<Collector>>, step: Duration) -> Self {
        Self { watched: specs.map(|specs| Watched::new(specs.clone(), step)) }
    }

    /// Waits until the game's time has not moved on for six steps of real time, nor a test begun or
    /// ended; then the six steps begin anew. A long test that waits now and then is not noticed:
    /// they begin anew whenever time passes in the game, however little.
    pub(super) async fn noticed(&mut self) {
        match &mut self.watched {
            Some(watched) => watched.stands_still().await,
            None => pending().await,
        }
    }

    /// Makes the test that runs fail, and ends the threads that keep time from passing, also those
    /// that earlier tests left behind. What goes on after the last test is bounded elsewhere.
    pub(super) fn stop_test(&self, servers: &[Server]) -> Result<(), Failed> {
        let Some(Watched { specs, .. }) = &self.watched else { return Ok(()) };
        if specs.is_afterwards() {
            return Ok(());
        }
        // Before the test ends: what runs after it makes calls of its own.
        servers.iter().for_each(Server::drop_calls);
        // The tests run on the first one.
        servers.first().map_or(Ok(()), |server| server.stop_test(&specs.stood_still()))
    }

    /// Closes all servers. When no time passes meanwhile, their scripts are stopped, and the
    /// servers' own end goes on without them.
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
        servers.iter().for_each(Server::stop);
        if let Some(watched) = &self.watched {
            watched.specs.stop_closing();
        }
        closing.await
    }
}

impl Watched {
    fn new(specs: Arc<Collector>, step: Duration) -> Self {
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
        let seen = (Instant::now(), specs.place());
        Self { specs, ticks, _ends: ends, seen, still: 0 }
    }

    /// The first tick may come at once, so it takes one more than there are steps.
    async fn stands_still(&mut self) {
        loop {
            self.ticks.notified().await;
            let seen = (Instant::now(), self.specs.place());
            if seen != self.seen {
                (self.seen, self.still) = (seen, 0);
                continue;
            }
            self.still += 1;
            if self.still > STEPS {
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
            let mut watched = Watched::new(specs.clone(), Duration::from_secs(1 << 20));
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
