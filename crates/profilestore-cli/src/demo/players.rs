//! What the players do, and which server is killed when. The dice decide all of it.
//!
//! Each player is a task that orders one thing after the other and waits for the answers. It does
//! not wait where that is what is tested: a relog, a move while the player still earns, two servers
//! that start one player's session at once.

use std::{sync::Arc, time::Duration};

use profilestore::env::Env;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Shared,
    dice::Dice,
    fleet::Fate,
    locked,
    trades::Terms,
    wire::{Answer, What},
    world::Seat,
};

/// How long both sides of a trade between two servers have, in milliseconds.
const TRADE_TIME_MS: i64 = 3000;

/// A player's task.
pub(crate) struct Play {
    pub(crate) world: Shared,
    pub(crate) player: u32,
    pub(crate) players: u32,
    pub(crate) dice: Dice,
    /// The mean time between two steps.
    pub(crate) pace: Duration,
    pub(crate) stop: watch::Receiver<bool>,
}

/// Why the play ends: the time is up.
struct Over;

impl Play {
    /// Plays until the time is up.
    pub(crate) async fn run(mut self) {
        let _: Result<(), Over> = async {
            self.rest(0, 200).await?;
            loop {
                let seat = locked(&self.world).seat(self.player);
                match seat {
                    Some(seat) => self.step(seat).await?,
                    None => self.come().await,
                }
                self.rest(50, 150).await?;
            }
        }
        .await;
    }

    /// Waits for a share of the pace, in percent.
    async fn rest(&mut self, least: u64, most: u64) -> Result<(), Over> {
        let percent = self.dice.between(least, most);
        let pause = self.pace.mul_f64(percent as f64 / 100.0);
        match tokio::time::timeout(pause, self.stop.wait_for(|stop| *stop)).await {
            Ok(_) => Err(Over),
            Err(_) => Ok(()),
        }
    }

    fn order(&self, slot: usize, what: What) -> oneshot::Receiver<Answer> {
        locked(&self.world).order(slot, what)
    }

    fn join(&self, slot: usize) -> oneshot::Receiver<Answer> {
        self.order(slot, What::Join { player: self.player })
    }

    /// Comes in anywhere.
    async fn come(&mut self) {
        let ready = locked(&self.world).ready();
        if let Some(slot) = self.dice.pick(&ready) {
            let _ = self.join(slot).await;
        }
    }

    fn another(&mut self, than: usize) -> Option<usize> {
        let ready: Vec<_> =
            locked(&self.world).ready().into_iter().filter(|slot| *slot != than).collect();
        self.dice.pick(&ready)
    }

    async fn step(&mut self, seat: Seat) -> Result<(), Over> {
        match self.dice.below(100) {
            0..32 => drop(self.earn(seat.slot, true).await),
            32..44 => drop(self.earn(seat.slot, false).await),
            44..58 => self.send(seat.slot).await,
            58..64 => self.trade(seat.slot).await,
            64..70 => self.trade_across(seat.slot).await,
            70..73 => self.give(seat.slot).await,
            73..84 => self.hop(seat).await,
            84..92 => self.relog(seat).await,
            92..96 => self.rush().await,
            _ => {
                let _ = self.order(seat.slot, What::Leave { player: self.player }).await;
                self.rest(200, 600).await?;
            }
        }
        Ok(())
    }

    fn earn(&mut self, slot: usize, save: bool) -> oneshot::Receiver<Answer> {
        let amount = u32::try_from(self.dice.between(1, 100)).unwrap_or(1);
        let mut world = locked(&self.world);
        let step = world.ledger.order_earning(self.player, amount);
        world.order(slot, What::Earn { player: self.player, step, amount, save })
    }

    async fn send(&mut self, slot: usize) {
        let to = u32::try_from(self.dice.below(u64::from(self.players))).unwrap_or(0);
        let amount = u32::try_from(self.dice.between(1, 50)).unwrap_or(1);
        if to == self.player {
            return;
        }
        let answer = {
            let mut world = locked(&self.world);
            let number = world.ledger.order_sending(self.player, to, amount);
            world.order(slot, What::Send { from: self.player, to, number, amount })
        };
        let _ = answer.await;
    }

    /// Trades with another player on the same server.
    async fn trade(&mut self, slot: usize) {
        let mut company = locked(&self.world).company(slot, false);
        company.retain(|(other, _)| *other != self.player);
        if let Some((other, _)) = self.dice.pick(&company) {
            let _ = self.order(slot, What::Trade { one: self.player, other }).await;
        }
    }

    /// Trades with a player on another server. If one side does not deposit, the escrow stays open.
    /// The next server that opens one of the players settles it.
    async fn trade_across(&mut self, slot: usize) {
        let company = locked(&self.world).company(slot, true);
        let Some((other, there)) = self.dice.pick(&company) else { return };
        let created_ms = Env::system().unix_ms();
        let deadline_ms = created_ms + TRADE_TIME_MS;
        let terms = Terms {
            trade: self.dice.next() >> 16,
            sides: [self.player, other],
            created_ms,
            deadline_ms,
        };
        let trade = terms.trade;
        let mine = self.order(slot, What::Deposit { player: self.player, terms: terms.clone() });
        let theirs = self.order(there, What::Deposit { player: other, terms });
        let _ = (mine.await, theirs.await);
        let ready = locked(&self.world).ready();
        if let Some(anywhere) = self.dice.pick(&ready) {
            let _ = self.order(anywhere, What::Settle { trade }).await;
        }
    }

    async fn give(&mut self, slot: usize) {
        let to = u32::try_from(self.dice.below(u64::from(self.players))).unwrap_or(0);
        let _ = self.order(slot, What::Give { from: self.player, to }).await;
    }

    /// Moves to another server, which asks the first one for the profile. Often the player earns
    /// something on the first one meanwhile.
    async fn hop(&mut self, seat: Seat) {
        let Some(slot) = self.another(seat.slot) else { return };
        let busy = self.dice.chance(50);
        let joined = self.join(slot);
        if busy {
            let (saved, noted) = (self.earn(seat.slot, true), self.earn(seat.slot, false));
            let _ = (saved.await, noted.await);
        }
        let _ = joined.await;
    }

    /// Ends the session and starts one at once, on the same server or another, with unsaved
    /// changes.
    async fn relog(&mut self, seat: Seat) {
        let noted = self.earn(seat.slot, false);
        let left = self.order(seat.slot, What::Leave { player: self.player });
        let to = if self.dice.chance(50) { Some(seat.slot) } else { self.another(seat.slot) };
        let joined = self.join(to.unwrap_or(seat.slot));
        let _ = (noted.await, left.await, joined.await);
    }

    /// Two starts at once, on any servers, also on the same one. At most one of them keeps the
    /// session.
    async fn rush(&mut self) {
        let ready = locked(&self.world).ready();
        let (Some(first), Some(second)) = (self.dice.pick(&ready), self.dice.pick(&ready)) else {
            return;
        };
        let (first, second) = (self.join(first), self.join(second));
        let _ = (first.await, second.await);
    }
}

/// Kills servers now and then, never the last of several, and one at the very end that does not
/// come back.
pub(crate) async fn kill(
    world: Shared,
    servers: Arc<Vec<mpsc::Sender<Fate>>>,
    mut dice: Dice,
    mut stop: watch::Receiver<bool>,
) {
    let last = loop {
        let pause = Duration::from_millis(dice.between(1500, 4000));
        let over = tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok();
        let ready = locked(&world).ready();
        let victim = dice.pick(&ready).filter(|_| ready.len() > 1 || servers.len() == 1);
        if over {
            break victim;
        }
        if let Some(victim) = victim {
            let down = Duration::from_millis(dice.between(1000, 2000));
            let _ = servers[victim].send(Fate::Kill(Some(down))).await;
        }
    };
    if let Some(victim) = last {
        let _ = servers[victim].send(Fate::Kill(None)).await;
    }
}

/// Shuts servers down and starts them again, one after the other, round after round.
pub(crate) async fn roll(
    world: Shared,
    servers: Arc<Vec<mpsc::Sender<Fate>>>,
    mut stop: watch::Receiver<bool>,
) {
    const LOOK: Duration = Duration::from_millis(50);
    let rolling = async {
        loop {
            for (slot, server) in servers.iter().enumerate() {
                // The others have to be there for those who leave it.
                while locked(&world).ready().len() < servers.len() {
                    tokio::time::sleep(LOOK).await;
                }
                tokio::time::sleep(LOOK * 10).await;
                let before = locked(&world).generation(slot);
                let _ = server.send(Fate::Restart).await;
                while locked(&world).generation(slot) == before {
                    tokio::time::sleep(LOOK).await;
                }
                locked(&world).figures.restarts += 1;
            }
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = rolling => {}
    }
}
