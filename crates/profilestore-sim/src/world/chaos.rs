//! The first phase: players play, and everything goes wrong.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use profilestore::{SessionEnd, StartOptions, data_store::fault::LineState};
use tokio::time::Instant;

use super::{Running, World, burst::Burst};
use crate::{
    data::Label,
    dice::Dice,
    invariants::{Invariants, broken},
    oracle::SessionTold,
};

/// The bytes that a server may have under way to the store: 64 MiB of saves, and what is not a
/// save.
const MOST_BYTES: u64 = 80 << 20;

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
            self.check_load();
        }
        for task in tasks {
            task.abort();
        }
    }

    /// What servers have under way stays within bounds, however slow the store is.
    fn check_load(&self) {
        for running in (0..self.size.servers).filter_map(|node| self.running(node)) {
            let most = running.life.under_way.most();
            if most > MOST_BYTES {
                self.check(broken(
                    "overload",
                    &running.life.job,
                    format!("{most} bytes were under way to the store"),
                ));
            }
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
                    None => {
                        backup = Some((
                            self.store.inner().backup(),
                            self.clerk.0.lock().invariants.clone(),
                        ))
                    }
                    Some(taken)
                        if dice.chance(0.3) && self.operating.load(Ordering::Relaxed) == 0 =>
                    {
                        self.restore(taken.0, taken.1)
                    }
                    Some(taken) => backup = Some(taken),
                },
                18 | 19 if self.size.hasty => self.rob_a_server_that_is_stopped(node, &dice).await,
                _ => {}
            }
        }
    }

    /// Stops a server for longer than its lease time, and steals one of its profiles meanwhile.
    async fn rob_a_server_that_is_stopped(self: &Arc<Self>, node: usize, dice: &Dice) {
        let victim = self.running(node).and_then(|running| {
            let books = self.clerk.0.lock();
            let open = |session: &&SessionTold| {
                Arc::ptr_eq(&session.life, &running.life) && session.ended.is_none()
            };
            books.told.sessions.values().find(open).map(|session| session.key.clone())
        });
        let Some(key) = victim else { return };
        self.disturb(node, LineState::Held, dice.seconds(20.5, 26.0));
        tokio::time::sleep(dice.seconds(1.0, 19.0)).await;
        let thief = self
            .running((node + 1) % self.size.servers)
            .filter(|running| !running.server.is_closing());
        let Some(running) = thief.filter(|running| running.life.line.state() == LineState::Open)
        else {
            return;
        };
        self.count("robberies");
        self.join(&running, &key, StartOptions::new().steal(), None).await;
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
        books.invariants.restored(invariants, Instant::now(), &books.told);
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

    /// What programs call right before a shutdown, without waiting for it.
    fn last_calls(self: &Arc<Self>, running: &Running) -> Vec<Burst> {
        if !self.size.hasty || running.life.line.state() == LineState::Held {
            return Vec::new();
        }
        let labels: Vec<Label> = {
            let books = self.clerk.0.lock();
            let open = |session: &SessionTold| {
                Arc::ptr_eq(&session.life, &running.life) && session.ended.is_none()
            };
            books
                .told
                .sessions
                .iter()
                .filter(|(_, session)| open(session))
                .map(|(label, _)| *label)
                .collect()
        };
        let mut bursts: Vec<Burst> =
            labels.iter().take(3).map(|label| Burst::new(self, running.clone(), *label)).collect();
        let dice = Dice::new(self.seed, 50_000 + labels.first().copied().unwrap_or_default());
        for burst in &mut bursts {
            for _ in 0..1 + dice.below(4) {
                burst.call(self, &dice, None);
            }
            burst.shuts_down(self);
        }
        bursts
    }

    /// G8: when `shutdown` returns, every session has been saved and released, or is listed by
    /// name.
    pub(super) async fn shut_down(self: &Arc<Self>, running: &Running) {
        let Running { server, life, .. } = running;
        self.note(None, || format!("{} shuts down", life.job));
        self.count("shutdowns");
        let mut bursts = self.last_calls(running);
        let number = self.clerk.0.lock().told.call();
        life.closes(number);
        // Called at once: nothing waits in between.
        let Some(report) = life.wait(server.shutdown()).await else { return };
        if !bursts.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for mut burst in bursts.drain(..) {
            burst.take_answers();
            burst.has_shut_down(&report);
            burst.judge(self, SessionEnd::Shutdown);
        }
        let books = &mut *self.clerk.0.lock();
        books
            .note(None, || format!("{} has shut down: not saved {:?}", life.job, report.not_saved));
        let listed = |key: &str| report.not_saved.iter().any(|(other, _)| other.key() == key);
        let mut outcomes = Vec::new();
        for (label, session) in
            books.told.sessions.iter().filter(|(_, session)| Arc::ptr_eq(&session.life, life))
        {
            if listed(&session.key) {
                continue;
            }
            outcomes.push(match session.ended {
                Some((SessionEnd::Shutdown, edits)) => {
                    books.invariants.durable.acknowledged(&session.key, *label, edits)
                }
                // What became of the others was told to the callers that ended them.
                Some(_) => Ok(()),
                None => broken(
                    "G8",
                    &session.key,
                    format!("session {label} is still open after the shutdown, and not listed"),
                ),
            });
        }
        for outcome in outcomes {
            books.check(outcome);
        }
        life.set_line(LineState::Severed);
        life.end();
    }
}
