//! The second phase: everything heals. Every player must get in within bounded time, everything
//! acknowledged must be there, and every server must shut down with everything saved.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use profilestore::{
    ErrorKind, ProfileKey, StartOptions,
    audit::{AuditOutcome, AuditQuery, audit_entries},
    data_store::{DataStore, Order, VersionQuery, fault::LineState},
};
use tokio::time::Instant;

use super::{
    World,
    operators::profile_key,
    players::{key_of, player_of},
    sessions::take_messages,
};
use crate::{data::Label, dice::Dice, invariants::broken};

/// Nobody is locked out longer than the lease time and an offer's time, and what a call and a
/// renewal take.
const BOUND: Duration = Duration::from_secs(20 + 10 + 6);

/// The store's clock stepped back shortly before: the row of a server that died then looks young
/// once more.
const STEPPED: Duration = Duration::from_secs(20);

/// Requests that were under way arrive within this time.
const LATE: Duration = Duration::from_secs(40);

impl World {
    pub(super) async fn peace(self: &Arc<Self>) {
        self.note(None, || "everything heals".into());
        self.calm.store(true, Ordering::Relaxed);
        self.pace.heal();
        for node in 0..self.size.servers {
            if let Some(running) = self.running(node) {
                running.life.plan.set(self.weather.calm());
                if running.life.line.state() != LineState::Open {
                    running.life.set_line(LineState::Open);
                }
            }
        }
        // Those that are down come back by themselves, within a minute.
        while (0..self.size.servers).any(|node| self.running(node).is_none()) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let mut served = Vec::new();
        for player in 0..self.size.players {
            served.push(tokio::spawn(self.clone().serve(player)));
        }
        let mut sessions = Vec::new();
        for one in served {
            sessions.extend(one.await.ok().flatten());
        }
        if self.is_broken() {
            return;
        }
        tokio::time::sleep(LATE).await;
        // An operator's call from before the peace may have ended a session since.
        let sessions = self.served_again(sessions).await;
        self.handle_everything(&sessions).await;
        for node in 0..self.size.servers {
            let running = self.nodes[node].running.lock().take();
            if let Some(running) = running {
                self.shut_down(&running).await;
            }
        }
        self.audit().await;
    }

    /// Lets one player in.
    async fn serve(self: Arc<Self>, player: usize) -> Option<Label> {
        let dice = Dice::new(self.seed, 20_000 + player as u64);
        let (key, began) = (key_of(player), Instant::now());
        let mut left = 10;
        let mut options = StartOptions::new();
        loop {
            let running =
                self.running(dice.below(self.size.servers)).expect("every server runs in peace");
            let joined = self.join(&running, &key, options.clone(), None).await;
            let took = began.elapsed();
            let stepped =
                self.clock.last_step.lock().is_some_and(|at| began - at < Duration::from_secs(60));
            if took > BOUND + if stepped { STEPPED } else { Duration::ZERO } {
                let what = format!(
                    "the player was kept out for {took:?} after everything had healed: {joined:?}"
                );
                self.check(broken("lock-out", &key, what));
                return None;
            }
            match joined {
                Some(Ok(label)) => return Some(label),
                Some(Err(ErrorKind::AlreadyLoaded)) => {
                    let open = {
                        let books = self.clerk.0.lock();
                        let mut sessions = books.told.sessions.iter().rev();
                        sessions
                            .find(|(_, session)| {
                                session.key == key && Arc::ptr_eq(&session.life, &running.life)
                            })
                            .map(|(label, _)| *label)
                    };
                    if let Some(label) = open {
                        let _ = self.end(label).await;
                    }
                }
                Some(Err(ErrorKind::Foreign)) => options = options.overwrite(),
                Some(Err(_)) | None => {}
            }
            left -= 1;
            if left == 0 {
                self.check(broken(
                    "lock-out",
                    &key,
                    "the player was refused ten times after everything had healed",
                ));
                return None;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Lets those players in again whose sessions are over, and names all sessions.
    async fn served_again(self: &Arc<Self>, sessions: Vec<Label>) -> Vec<Label> {
        let mut open = Vec::new();
        for label in sessions {
            let (is_over, player) = {
                let session = &self.clerk.0.lock().told.sessions[&label];
                (session.seat.is_over(), player_of(&session.key))
            };
            open.extend(if is_over { self.clone().serve(player).await } else { Some(label) });
        }
        open
    }

    /// Every session takes what waits for it, and ends.
    async fn handle_everything(&self, sessions: &[Label]) {
        for label in sessions {
            let (seat, key) = {
                let session = &self.clerk.0.lock().told.sessions[label];
                (session.seat.clone(), session.key.clone())
            };
            take_messages(&self.clerk, *label, &seat, |_| true);
            self.note(Some(&key), || format!("session {label} handles everything"));
        }
        let mut ends = Vec::new();
        for label in sessions {
            ends.push(self.end(*label));
        }
        for end in ends {
            let _ = end.await;
        }
        for label in sessions {
            let books = &mut *self.clerk.0.lock();
            let session = &books.told.sessions[label];
            if session.ended.is_none() {
                let outcome = broken(
                    "G2",
                    &session.key.clone(),
                    format!("session {label} did not end in peace"),
                );
                books.check(outcome);
            }
        }
    }

    /// The numbers of the versions that are there.
    async fn versions(&self, key: &ProfileKey) -> BTreeSet<u64> {
        let query = VersionQuery {
            key: key.clone(),
            order: Order::Ascending,
            from_ms: None,
            to_ms: None,
            after: None,
            limit: usize::MAX,
        };
        let versions = self.store.versions(&query).await.expect("memory can be read");
        versions.iter().map(|version| version.number).collect()
    }

    async fn audit(&self) {
        let kept: Vec<(String, BTreeSet<u64>)> = {
            let books = &mut *self.clerk.0.lock();
            let outcome = books.invariants.messages.finally(&books.told);
            books.check(outcome);
            books.invariants.history.kept().map(|(key, kept)| (key.clone(), kept.clone())).collect()
        };
        for (name, _) in kept {
            let key = profile_key(&name);
            let found = self.versions(&key).await;
            let outcome = self.clerk.0.lock().invariants.history.check(&name, &found);
            self.check(outcome);
        }
        let erased: Vec<(String, u64)> = self
            .clerk
            .0
            .lock()
            .invariants
            .erased
            .all()
            .map(|(key, version)| (key.clone(), version))
            .collect();
        for (name, version) in &erased {
            if let Some(older) =
                self.versions(&profile_key(name)).await.first().filter(|first| *first < version)
            {
                self.check(broken(
                    "erasure",
                    name,
                    format!("version {older} is still there, of before the erasure"),
                ));
            }
        }
        for name in (0..self.size.players).map(key_of) {
            let side = self.store.side(&profile_key(&name)).await;
            if side.lease.holder.is_some() {
                self.check(broken(
                    "G8",
                    &name,
                    "the profile is still held after every server has shut down",
                ));
            }
            if side.edits_waiting > 0 {
                self.check(broken(
                    "edits",
                    &name,
                    "an edit still waits after everybody was online",
                ));
            }
        }
        let mut query = AuditQuery::default();
        loop {
            let page = audit_entries(&*self.store, &query).await.expect("the log can be read");
            for entry in page
                .entries
                .iter()
                .filter(|entry| entry.action == "edit" && entry.outcome == AuditOutcome::Pending)
            {
                // An erasure that was broken off leaves such entries to the next one.
                if let Some(key) = entry
                    .keys
                    .iter()
                    .find(|key| !erased.iter().any(|(erased, _)| erased == key.key()))
                {
                    self.check(broken(
                        "edits",
                        key.key(),
                        "the log says that an edit waits, and it does not",
                    ));
                }
            }
            let Some(next) = page.next else { return };
            query.after = Some(next);
        }
    }
}
