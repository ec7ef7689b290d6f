//! A messenger that fails: a decorator over any other, for tests and simulation.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{HINT_QUEUE, Hint, Messenger};
use crate::{
    data_store::{
        ServerId,
        fault::{Line, LineState, fraction},
    },
    env::Rng,
    key::ProfileKey,
};

/// How often what goes wrong with hints. Each is a chance between 0 and 1; by default nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct HintChances {
    /// A hint is lost.
    pub lost: f64,
    /// A hint comes twice.
    pub repeated: f64,
    /// A hint comes up to `delay` later, hence perhaps after later ones.
    pub delayed: f64,
    /// See `delayed`.
    pub delay: Duration,
    /// A subscription silently stops receiving, within `death` of being made.
    pub dies: f64,
    /// See `dies`.
    pub death: Duration,
}

/// A messenger behind a [`Line`], whose hints get lost, repeated and delayed by chance. Cheap to
/// clone; clones share everything.
#[derive(Clone)]
pub struct FaultyMessenger {
    inner: Arc<dyn Messenger>,
    line: Line,
    rng: Arc<dyn Rng>,
    chances: Arc<Mutex<HintChances>>,
}

impl fmt::Debug for FaultyMessenger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyMessenger")
            .field("inner", &self.inner)
            .field("chances", &*self.chances.lock())
            .finish_non_exhaustive()
    }
}

impl FaultyMessenger {
    /// A way to a messenger. `line` is the one of the server's store where a server is to be cut
    /// off from both.
    pub fn new(inner: Arc<dyn Messenger>, line: Line, rng: impl Rng, chances: HintChances) -> Self {
        Self { inner, line, rng: Arc::new(rng), chances: Arc::new(Mutex::new(chances)) }
    }

    /// Changes the chances for the hints and subscriptions to come.
    pub fn set(&self, chances: HintChances) {
        *self.chances.lock() = chances;
    }

    fn happens(&self, chance: f64) -> bool {
        fraction(&*self.rng) < chance
    }
}

#[async_trait]
impl Messenger for FaultyMessenger {
    async fn subscribe(&self, server: ServerId) -> mpsc::Receiver<Hint> {
        let chances = *self.chances.lock();
        let dies_in =
            self.happens(chances.dies).then(|| chances.death.mul_f64(fraction(&*self.rng)));
        let mut from = self.inner.subscribe(server).await;
        let (to, receiver) = mpsc::channel(HINT_QUEUE);
        let line = self.line.clone();
        tokio::spawn(async move {
            let dies_at = dies_in.map(|time| tokio::time::Instant::now() + time);
            while let Some(hint) = from.recv().await {
                let dead = dies_at.is_some_and(|at| at <= tokio::time::Instant::now());
                if line.passes().await && !dead && to.send(hint).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    async fn hint(&self, to: ServerId, key: &ProfileKey) {
        if !self.line.passes().await {
            return;
        }
        let chances = *self.chances.lock();
        let copies = if self.happens(chances.lost) {
            0
        } else {
            1 + u32::from(self.happens(chances.repeated))
        };
        for _ in 0..copies {
            if self.happens(chances.delayed) {
                let (inner, line, key) = (self.inner.clone(), self.line.clone(), key.clone());
                let delay = chances.delay.mul_f64(fraction(&*self.rng));
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    if line.state() == LineState::Open {
                        inner.hint(to, &key).await;
                    }
                });
            } else {
                self.inner.hint(to, key).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{env::SeededRng, messenger::LocalMessenger};
    use uuid::Uuid;

    fn messenger(chances: HintChances) -> FaultyMessenger {
        FaultyMessenger::new(
            Arc::new(LocalMessenger::new()),
            Line::default(),
            SeededRng::new(1),
            chances,
        )
    }

    /// How many of 1000 hints arrive.
    async fn arrive(messenger: &FaultyMessenger) -> u32 {
        let (me, key) = (ServerId(Uuid::from_u128(1)), ProfileKey::new("s", "g", "k").unwrap());
        let mut hints = messenger.subscribe(me).await;
        for _ in 0..1000 {
            messenger.hint(me, &key).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut count = 0;
        while hints.try_recv().is_ok() {
            count += 1;
        }
        count
    }

    #[tokio::test(start_paused = true)]
    async fn hints_are_lost_repeated_and_silenced_as_often_as_told() {
        assert_eq!(arrive(&messenger(HintChances::default())).await, 1000);
        assert_eq!(
            arrive(&messenger(HintChances { lost: 1.0, ..HintChances::default() })).await,
            0
        );
        assert_eq!(
            arrive(&messenger(HintChances { repeated: 1.0, ..HintChances::default() })).await,
            2000
        );
        assert_eq!(
            arrive(&messenger(HintChances { dies: 1.0, ..HintChances::default() })).await,
            0
        );
        let some = arrive(&messenger(HintChances { lost: 0.3, ..HintChances::default() })).await;
        assert!((600..800).contains(&some), "{some}");
        let cut = messenger(HintChances::default());
        cut.line.set(LineState::Cut);
        assert_eq!(arrive(&cut).await, 0);
    }
}

#[cfg(test)]
mod conformance {
    use super::*;
    use crate::{env::SeededRng, messenger::LocalMessenger, messenger::conformance::Subject};

    async fn subject() -> Subject {
        let inner: Arc<dyn Messenger> = Arc::new(LocalMessenger::new());
        let [near, far] = [1, 2].map(|seed| {
            let faulty = FaultyMessenger::new(
                inner.clone(),
                Line::default(),
                SeededRng::new(seed),
                HintChances::default(),
            );
            Arc::new(faulty) as Arc<dyn Messenger>
        });
        Subject::new(near, far)
    }

    crate::messenger_conformance!(subject);
}
