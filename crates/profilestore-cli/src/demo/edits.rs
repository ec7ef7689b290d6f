//! Operators' edits: of single players as the play goes on, online or not, and one of all players
//! at half time.
//!
//! Any server carries them out: the library brings an edit to the holder of the profile. The server
//! may be killed meanwhile. So an edit keeps its identity, and is ordered again until its outcome
//! is known. With `--kill`, the server that edits all players is killed too.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use profilestore::{
    Attribution, Edit, ErrorKind, GameServer, ProfileKey, Result,
    audit::{AuditOutcome, AuditQuery, audit_entries},
    env::Env,
    operator::{BulkEdit, EditScope},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{Shared, dice::Dice, fleet::Fate, locked, player_key, wire::What};
use crate::place::Store;

/// How long a server waits for the holders of what it edits before it says that it does not know.
const PATIENCE: Duration = Duration::from_secs(2);

/// The mean time between two edits of single players, in milliseconds.
const PACE_MS: u64 = 50;

/// How long an edit of unknown outcome rests before it is ordered again.
const PAUSE: Duration = Duration::from_millis(200);

/// Within this time the server that edits all players is killed, in milliseconds.
const KILL_WITHIN_MS: u64 = 100;

/// In a hundred edits, so many do not fit.
const UNFIT_PERCENT: u64 = 5;

/// One edit that is to be made once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    /// The mark that it leaves.
    pub(crate) number: u32,
    pub(crate) operation: Uuid,
    /// None: all of them.
    pub(crate) player: Option<u32>,
    pub(crate) amount: u32,
    /// False: it is on a condition that never holds.
    pub(crate) fits: bool,
}

/// What a task came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done {
        /// A session's holder made it.
        online: bool,
    },
    /// Some players' holders have not answered. To be repeated.
    Waits,
}

/// Where edits are made.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) server: GameServer,
    pub(crate) store: Store,
    pub(crate) scope: String,
}

impl Task {
    /// Adds the coins, and a mark that is there twice if the edit is made twice.
    fn edit(&self) -> Result<Edit> {
        let edit = Edit::new();
        let edit = if self.fits { edit } else { edit.test("/coins", (-1).into())? };
        edit.increase("/coins", self.amount.into())?.set("/edited/-", self.number.into())
    }

    /// Makes the edit, or finds that it was made; as often as one likes.
    pub(crate) async fn carry_out(&self, desk: &Desk) -> Result<Outcome> {
        let by = Attribution::new(author(&desk.scope)).because(format!("edit {}", self.number));
        let Some(player) = self.player else { return self.for_all(desk, by).await };
        let key = ProfileKey::new("Demo", &desk.scope, &player_key(player))?;
        let entry =
            desk.server.operator(by).edit_as(self.operation, &key, &self.edit()?, PATIENCE).await?;
        Ok(Outcome::Done { online: entry.details.contains_key("held_by") })
    }

    async fn for_all(&self, desk: &Desk, by: Attribution) -> Result<Outcome> {
        let mut bulk = match BulkEdit::resume(&*desk.store, self.operation).await {
            Ok(begun) => begun,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let all = EditScope { scope: Some(desk.scope.clone()), ..EditScope::all("Demo") };
                BulkEdit::new(self.operation, all, self.edit()?)
            }
            // Complete: the server that completed it died before it could say so.
            Err(error) if error.kind() == ErrorKind::Invalid => {
                return Ok(Outcome::Done { online: false });
            }
            Err(error) => return Err(error),
        };
        bulk.patience = PATIENCE;
        let report = desk.server.operator(by).edit_all(&bulk, |_| {}).await?;
        Ok(if report.waiting.is_empty() {
            Outcome::Done { online: report.by_holders > 0 }
        } else {
            Outcome::Waits
        })
    }
}

/// In whose name a run's edits are made.
fn author(scope: &str) -> String {
    format!("demo-{scope}")
}

/// What the audit log says about a run's edits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    /// By operation and player; without a player, the edit of all as a whole.
    pub(crate) outcomes: BTreeMap<(Uuid, Option<u32>), AuditOutcome>,
    /// Those that a session's holder made.
    pub(crate) online: BTreeSet<(Uuid, u32)>,
}

impl Log {
    pub(crate) async fn read(store: &Store, scope: &str) -> Result<Self> {
        let mut log = Self::default();
        let mut query = AuditQuery { author: Some(author(scope)), ..AuditQuery::default() };
        loop {
            let page = audit_entries(&**store, &query).await?;
            for entry in page.entries {
                let player = entry
                    .keys
                    .first()
                    .and_then(|key| key.key().strip_prefix("player-")?.parse().ok());
                if let Some(player) = player.filter(|_| entry.details.contains_key("held_by")) {
                    log.online.insert((entry.operation, player));
                }
                log.outcomes.insert((entry.operation, player), entry.outcome);
            }
            query.after = page.next;
            if query.after.is_none() {
                return Ok(log);
            }
        }
    }
}

/// The operator's task.
pub(crate) struct Operator {
    pub(crate) world: Shared,
    pub(crate) players: u32,
    /// When all players are edited.
    pub(crate) half_time: Instant,
    /// How the server that edits all players is killed, if it is.
    pub(crate) kills: Option<Arc<Vec<mpsc::Sender<Fate>>>>,
    pub(crate) dice: Dice,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Operator {
    /// Edits until the time is up, then waits for what is under way.
    pub(crate) async fn run(mut self) {
        let (mut under_way, mut all_due) = (JoinSet::new(), true);
        loop {
            let pause = Duration::from_millis(self.dice.between(0, 2 * PACE_MS));
            if timeout(pause, self.stop.wait_for(|stop| *stop)).await.is_ok() {
                break;
            }
            while under_way.try_join_next().is_some() {}
            let all = all_due && Instant::now() >= self.half_time;
            let player = (!all)
                .then(|| u32::try_from(self.dice.below(u64::from(self.players))).unwrap_or(0));
            all_due &= !all;
            let amount = u32::try_from(self.dice.between(1, 100)).unwrap_or(1);
            let fits = all || !self.dice.chance(UNFIT_PERCENT);
            let task = locked(&self.world).order_edit(Env::system().uuid(), player, amount, fits);
            let dice = self.dice.fork(u64::from(task.number));
            let kills = self.kills.clone().filter(|_| all);
            under_way.spawn(see_through(self.world.clone(), task, dice, kills, self.stop.clone()));
        }
        while under_way.join_next().await.is_some() {}
    }
}

/// Orders an edit until its outcome is known, or the time is up: then the audit repeats it.
async fn see_through(
    world: Shared,
    task: Task,
    mut dice: Dice,
    mut kills: Option<Arc<Vec<mpsc::Sender<Fate>>>>,
    stop: watch::Receiver<bool>,
) {
    let began = Instant::now();
    loop {
        let ready = locked(&world).ready();
        if let Some(slot) = dice.pick(&ready) {
            let answer = locked(&world).order(slot, What::Edit { task: task.clone() });
            if let Some(kills) = kills.take().filter(|_| ready.len() > 1) {
                sleep(Duration::from_millis(dice.between(0, KILL_WITHIN_MS))).await;
                // When it is being killed already, that will do.
                let _ = kills[slot].try_send(Fate::Kill(Some(Duration::from_secs(1))));
            }
            let died = answer.await.is_err();
            locked(&world).figures.all_broken_off += u64::from(died && task.player.is_none());
        }
        if !locked(&world).ledger.edits.is_open(task.number) {
            let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            if task.player.is_some() {
                locked(&world).figures.edit_times.record(took);
            }
            return;
        }
        if *stop.borrow() {
            return;
        }
        sleep(PAUSE).await;
        let figures = &mut locked(&world).figures;
        let again = if task.player.is_none() {
            &mut figures.all_resumed
        } else {
            &mut figures.edits_repeated
        };
        *again += 1;
    }
}
