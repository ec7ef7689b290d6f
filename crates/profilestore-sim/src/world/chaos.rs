//! The first phase: players play, and everything goes wrong.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use profilestore::{SessionEnd, data_store::fault::LineState};
use tokio::time::Instant;

use super::{Running, World};
use crate::{
    dice::Dice,
    invariants::{Invariants, broken},
};

impl World {
    pub(super) async fn chaos(self: &Arc<Self>) {
        for node in 0..self.size.servers {
            self.start_server(node, None).await;
        }
        let end = Instant::now() + Duration::from_secs(self.size.minutes * 60);
        let mut tasks = Vec::new();
        for player in 0..self.size.players {
            tasks.push(tokio::spawn(self.clone().play(player)));
        }
        for mishaps in 0..self.size.servers.div_ceil(3) {
            tasks.push(tokio::spawn(self.clone().mishaps(mishaps)));
        }
        for desk in 0..self.size.players.div_ceil(100) {
            tasks.push(tokio::spawn(self.clone().operate(desk)));
        }
        while Instant::now() < end && !self.is_broken() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for task in tasks {
            task.abort();
        }
    }

    async fn mishaps(self: Arc<Self>, number: usize) {
        let dice = Dice::new(self.seed, 1 + number as u64);
        let mut backup = None;
        loop {
            tokio::time::sleep(dice.around(self.weather.mishaps)).await;
            let node = dice.below(self.size.servers);
            match dice.below(20) {
                0..5 => self.crash_and_restart(node, &dice),
                5..8 => self.disturb(node, LineState::Held, dice.seconds(0.5, 60.0)),
                8..11 => self.disturb(node, LineState::Cut, dice.seconds(0.5, 60.0)),
                11..13 => self.clone().shut_down_and_restart(node, dice.seconds(0.0, 20.0)),
                13..15 => {
                    let time = dice.seconds(1.0, 15.0);
                    self.note(None, || format!("the store fails over for {time:?}"));
                    for node in 0..self.size.servers {
                        self.disturb(node, LineState::Cut, time);
                    }
                    self.step_clock(&dice);
                }
                15..17 => self.step_clock(&dice),
                17 if number == 0 => match backup.take() {
                    None => backup = Some((self.store.inner().backup(), self.clerk.0.lock().invariants.clone())),
                    Some(taken) if dice.chance(0.3) && self.operating.load(Ordering::Relaxed) == 0 => {
                        self.restore(taken.0, taken.1)
                    }
                    Some(taken) => backup = Some(taken),
                },
                _ => {}
            }
        }
    }

    fn step_clock(&self, dice: &Dice) {
        let most = *dice.pick(&[3.0, 30.0, 600.0]);
        let step = ((dice.part() - 0.5) * 2.0 * most * 1000.0) as i64;
        self.note(None, || format!("the store's clock steps by {step} ms"));
        self.count("clock steps");
        for node in 0..self.size.servers {
            if let Some(running) = self.running(node) {
                running.life.plan.trouble();
            }
        }
        self.clock.stepped_ms.fetch_add(step, Ordering::Relaxed);
        *self.clock.last_step.lock() = Some(Instant::now());
    }

    fn restore(&self, store: profilestore::data_store::MemoryStore, invariants: Invariants) {
        self.note(None, || "a backup is restored".into());
        self.count("backups restored");
        let books = &mut *self.clerk.0.lock();
        books.invariants.restored(invariants, &books.told);
        books.told.restored();
        self.store.replace(store);
    }

    fn crash_and_restart(self: &Arc<Self>, node: usize, dice: &Dice) {
        let Some(job) = self.crash(node) else { return };
        let job = dice.chance(0.5).then_some(job);
        let away = dice.seconds(0.5, 60.0);
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(away).await;
            world.start_server(node, job).await;
        });
    }

    /// Stops or cuts off a server for some time.
    fn disturb(&self, node: usize, how: LineState, time: Duration) {
        let Some(Running { life, .. }) = self.running(node) else { return };
        if life.line.state() != LineState::Open {
            return;
        }
        self.note(None, || format!("{} is {how:?} for {time:?}", life.job));
        self.count(if how == LineState::Held { "pauses" } else { "cuts" });
        life.set_line(how);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if life.line.state() == how {
                life.set_line(LineState::Open);
            }
        });
    }

    fn shut_down_and_restart(self: Arc<Self>, node: usize, away: Duration) {
        tokio::spawn(async move {
            let Some(running) = self.nodes[node].running.lock().take() else { return };
            self.shut_down(&running).await;
            tokio::time::sleep(away).await;
            self.start_server(node, None).await;
        });
    }

    /// G8: when `shutdown` returns, every session has been saved and released, or is listed by name.
    pub(super) async fn shut_down(&self, running: &Running) {
        let Running { server, life, .. } = running;
        self.note(None, || format!("{} shuts down", life.job));
        self.count("shutdowns");
        let Some(report) = life.wait(server.shutdown()).await else { return };
        let books = &mut *self.clerk.0.lock();
        books.note(None, || format!("{} has shut down: not saved {:?}", life.job, report.not_saved));
        let listed = |key: &str| report.not_saved.iter().any(|(other, _)| other.key() == key);
        let mut outcomes = Vec::new();
        for (label, session) in books.told.sessions.iter().filter(|(_, session)| Arc::ptr_eq(&session.life, life)) {
            if listed(&session.key) {
                continue;
            }
            outcomes.push(match session.ended {
                Some((SessionEnd::Shutdown, edits)) => books.invariants.durable.acknowledged(&session.key, *label, edits),
                // What became of the others was told to whoever ended them.
                Some(_) => Ok(()),
                None => broken("G8", &session.key, format!("session {label} is still open after the shutdown, and not listed")),
            });
        }
        for outcome in outcomes {
            books.check(outcome);
        }
        life.set_line(LineState::Severed);
        life.end();
    }
}
