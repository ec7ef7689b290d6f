//! What players do: join, play, hop, leave.
//!
//! Every call's outcome goes into the oracle's books: success, failure, or nothing when its server
//! died first.

use std::{sync::Arc, time::Duration};

use profilestore::{Error, ErrorKind, StartOptions};

use super::{Running, World};
use crate::{
    data::{Label, Player},
    dice::Dice,
    invariants::broken,
    oracle::SessionTold,
};

/// Mean seconds between two things that a player does.
const PACE: f64 = 25.0;

pub(super) fn key_of(player: usize) -> String {
    format!("p{player}")
}

pub(super) fn player_of(key: &str) -> usize {
    key[1..].parse().expect("a key of a player")
}

/// Where a player plays, as the player knows it.
pub(super) struct Playing {
    pub label: Label,
    pub running: Running,
}

/// One player, through all sessions.
pub(super) struct Actor {
    pub world: Arc<World>,
    pub dice: Dice,
    pub key: String,
    pub playing: Option<Playing>,
    /// A purchase that was paid for and not confirmed yet.
    pub paid: Option<u64>,
    pub purchases: u64,
    /// Messages that the player sent and may send again.
    pub sent: Vec<u64>,
    /// There is something else in the profile's place, and the player begins anew.
    pub overwrite: bool,
}

impl World {
    pub(super) async fn play(self: Arc<Self>, player: usize) {
        let dice = Dice::new(self.seed, 10_000 + player as u64);
        tokio::time::sleep(dice.seconds(0.0, 60.0)).await;
        let key = key_of(player);
        let mut actor = Actor {
            world: self,
            dice,
            key,
            playing: None,
            paid: None,
            purchases: player as u64 * 1_000_000,
            sent: Vec::new(),
            overwrite: false,
        };
        loop {
            actor.turn().await;
            tokio::time::sleep(actor.dice.around(PACE)).await;
        }
    }
}

impl Actor {
    async fn turn(&mut self) {
        let Some(playing) = &self.playing else { return self.join().await };
        let life = playing.running.life.clone();
        let (over, label) = (self.session_is_over(playing.label), playing.label);
        if life.is_over() || over {
            self.playing = None;
            return self.join().await;
        }
        if !life.runs().await {
            return;
        }
        if self.world.size.hasty && self.dice.chance(0.15) {
            return self.burst(label).await;
        }
        match self.dice.below(100) {
            0..8 => self.trade(label).await,
            8..14 => self.give(label).await,
            14..32 => {
                for _ in 0..=self.dice.below(3) {
                    let coins = 1 + self.dice.below(50) as i64;
                    self.edit(label, |data| data.mint(coins));
                }
            }
            32..38 => self.save(label).await,
            38..52 => self.send().await,
            52..57 => self.send_again().await,
            57..64 => self.buy(label).await,
            64..74 => {
                let ended = self.world.end(label);
                self.playing = None;
                if self.dice.chance(0.5) {
                    // Waits for the end like a well-behaved program.
                    let _ = life.wait(ended).await;
                } else {
                    self.check_order(label).await;
                }
            }
            74..80 => {
                // Back at once, on the same server.
                let running = playing.running.clone();
                drop(self.world.end(label));
                self.playing = None;
                self.join_on(running, StartOptions::new(), None).await;
            }
            80..94 => {
                // Hops: the other server asks for the profile.
                self.playing = None;
                self.join().await;
            }
            94..97 => self.read_and_write().await,
            97 => self.remove().await,
            98 => {
                let Some(running) = self.somewhere() else { return };
                self.playing = None;
                self.join_on(running, StartOptions::new().steal(), None).await;
            }
            _ => {}
        }
    }

    fn session_is_over(&self, label: Label) -> bool {
        self.world.clerk.0.lock().told.sessions[&label].ended.is_some()
    }

    pub(super) fn somewhere(&self) -> Option<Running> {
        let running = self.world.running(self.dice.below(self.world.size.servers))?;
        (!running.server.is_closing()).then_some(running)
    }

    async fn join(&mut self) {
        let Some(running) = self.somewhere() else { return };
        if self.world.size.hasty && self.dice.chance(0.15) {
            return self.join_in_haste(running).await;
        }
        let leaves_after = self.dice.chance(0.08).then(|| self.dice.seconds(0.0, 3.0));
        self.join_on(running, StartOptions::new(), leaves_after).await;
        if leaves_after.is_some() && self.playing.is_none() && self.dice.chance(0.5) {
            // Impatient: takes the profile on another server, whatever becomes of the first start.
            let Some(running) = self.somewhere() else { return };
            self.join_on(running, StartOptions::new().steal(), None).await;
        }
    }

    async fn join_on(
        &mut self,
        running: Running,
        options: StartOptions,
        leaves_after: Option<Duration>,
    ) {
        if !running.life.runs().await {
            return;
        }
        let options =
            if std::mem::take(&mut self.overwrite) { options.overwrite() } else { options };
        let joined = self.world.join(&running, &self.key, options, leaves_after).await;
        self.joined(running, joined);
    }

    /// What a start came to.
    pub(super) fn joined(&mut self, running: Running, joined: Option<Result<Label, ErrorKind>>) {
        match joined {
            Some(Ok(label)) => self.playing = Some(Playing { label, running }),
            Some(Err(ErrorKind::AlreadyLoaded)) => {
                // A session that nobody looks after any more.
                let left = {
                    let books = self.world.clerk.0.lock();
                    let mut sessions = books.told.sessions.iter().rev();
                    let mine = |session: &SessionTold| {
                        session.key == self.key && Arc::ptr_eq(&session.life, &running.life)
                    };
                    sessions
                        .find(|(_, session)| mine(session) && session.ended.is_none())
                        .map(|(label, _)| *label)
                };
                self.playing = left.map(|label| Playing { label, running });
            }
            Some(Err(ErrorKind::Foreign)) => self.overwrite = true,
            _ => {}
        }
    }

    pub(super) fn edit(&self, label: Label, edit: impl FnOnce(&mut Player)) -> bool {
        let (seat, ended) = {
            let session = &self.world.clerk.0.lock().told.sessions[&label];
            (session.seat.clone(), session.end_called.is_some())
        };
        let edited = seat.update(|data| {
            edit(data);
            data.sign(label)
        });
        let books = &mut *self.world.clerk.0.lock();
        let Ok(edits) = edited else { return false };
        if ended {
            let outcome = broken(
                "G9",
                &self.key,
                format!("session {label} took an edit after its end was called"),
            );
            books.check(outcome);
        }
        books.counts.add("edits");
        if let Some(session) = books.told.sessions.get_mut(&label) {
            session.edits = edits;
        }
        true
    }

    async fn save(&self, label: Label) {
        self.saved(label).await;
    }

    /// True when the client was told that everything is durable.
    pub(super) async fn saved(&self, label: Label) -> bool {
        let save = self.world.save(label);
        matches!(self.world.hear_save(save).await, Some(Ok(())))
    }

    pub(super) fn restores(&self) -> u64 {
        self.world.clerk.0.lock().counts.0.get("backups restored").copied().unwrap_or_default()
    }

    /// The server that a session is on.
    pub(super) fn running_of_session(&self, label: Label) -> Option<Running> {
        let life = self.world.clerk.0.lock().told.sessions[&label].life.clone();
        self.world.running_of(&life)
    }
}

pub(super) fn is_unknown(error: &Error) -> bool {
    error.kind() == ErrorKind::Unknown
}
