//! Starts in haste: several of one profile on one server within a moment, called off, dropped,
//! limited, through other store objects and as another type.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::{ErrorKind, StartOptions, WhenHeld};
use tokio::task::JoinSet;

use super::{Running, World, players::Actor, sessions::Start};
use crate::{data::Label, meanwhile, seat::Door};

/// A start that another thread calls at a moment that the library decides.
type Later = Arc<Mutex<Option<Start>>>;

type Joined = Option<Result<Label, ErrorKind>>;

impl Actor {
    /// Several starts, of which the last one is meant.
    pub(super) async fn join_in_haste(&mut self, running: Running) {
        if !running.life.runs().await {
            return;
        }
        self.world.count("starts in haste");
        let overwrite = std::mem::take(&mut self.overwrite);
        let mut answers: JoinSet<Joined> = JoinSet::new();
        let later = Later::default();
        for _ in 0..1 + self.dice.below(3) {
            let (door, options) = (self.door(), self.whim(&running, &later));
            let start = self.world.start(&running, &self.key, door, options);
            let pause = self.moment();
            if self.dice.chance(0.4) {
                // Its caller goes away, perhaps at once.
                tokio::time::sleep(pause).await;
                self.world.call_off(start);
                continue;
            }
            let world = self.world.clone();
            answers.spawn(async move { world.hear(start, None).await });
            tokio::time::sleep(pause).await;
        }
        let options = if overwrite { StartOptions::new().overwrite() } else { StartOptions::new() };
        let door = self.door();
        if door == Door::Visitors && self.dice.chance(0.5) {
            // While its data is decoded, another thread starts the same profile as another type.
            let call = call_later(&self.world, &running, &self.key, Door::Main, &later);
            meanwhile::arrange(call);
        }
        let start = self.world.start(&running, &self.key, door, options);
        let world = self.world.clone();
        answers.spawn(async move { world.hear(start, None).await });
        let mut joined = None;
        loop {
            let answer = answers.join_next().await;
            let Some(answer) = answer else {
                let Some(start) = later.lock().take() else { break };
                let world = self.world.clone();
                answers.spawn(async move { world.hear(start, None).await });
                continue;
            };
            let answer = answer.ok().flatten();
            if joined.is_none() || matches!(answer, Some(Ok(_))) {
                joined = answer;
            }
        }
        meanwhile::cancel();
        self.joined(running, joined);
    }

    fn door(&self) -> Door {
        *self.dice.pick(&[Door::Main, Door::Main, Door::Side, Door::Visitors])
    }

    /// No time at all, or a little.
    fn moment(&self) -> Duration {
        match self.dice.below(3) {
            0 => Duration::ZERO,
            1 => self.dice.seconds(0.0, 0.05),
            _ => self.dice.seconds(0.0, 2.0),
        }
    }

    /// How a start is called off, if it is.
    fn whim(&self, running: &Running, later: &Later) -> StartOptions {
        let options = StartOptions::new();
        match self.dice.below(8) {
            0 => options.timeout(Duration::ZERO),
            1 => options.timeout(self.dice.seconds(0.0, 0.5)),
            2 => options.when_held(|_| WhenHeld::GiveUp),
            3 => options.when_held(|_| WhenHeld::Wait).timeout(self.dice.seconds(0.0, 5.0)),
            4 => options.steal(),
            5 | 6 => {
                // It says so when it is asked that often; meanwhile another thread starts the
                // profile.
                let (asked, at) = (AtomicU64::new(0), self.dice.below(4) as u64);
                let call = call_later(&self.world, running, &self.key, self.door(), later);
                let call = Mutex::new(self.dice.chance(0.7).then_some(call));
                options.cancel(move || {
                    if asked.fetch_add(1, Ordering::Relaxed) < at {
                        return false;
                    }
                    if let Some(call) = call.lock().take() {
                        call();
                    }
                    true
                })
            }
            _ => options,
        }
    }
}

/// A start that is called when the library is at some place of its own. A world is not kept alive
/// by it.
fn call_later(
    world: &Arc<World>,
    running: &Running,
    key: &str,
    door: Door,
    later: &Later,
) -> impl FnOnce() + Send + 'static + use<> {
    let (world, life) = (Arc::downgrade(world), Arc::downgrade(&running.life));
    let (key, later) = (key.to_owned(), Arc::downgrade(later));
    move || {
        let (Some(world), Some(life), Some(later)) =
            (world.upgrade(), life.upgrade(), later.upgrade())
        else {
            return;
        };
        let Some(running) = world.running_of(&life) else { return };
        *later.lock() = Some(world.start(&running, &key, door, StartOptions::new()));
    }
}
