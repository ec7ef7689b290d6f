//! A play, from the first server's start to the last one's end.

use std::{pin::pin, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout},
};

#[cfg(feature = "serve")]
use super::remote::hosts::Hosts;
use super::{
    Dice, Plan, Shared,
    display::{Display, say},
    edits,
    fleet::{self, Call, Fate},
    locked, players,
};

/// How long the servers may take to come up.
const START: Duration = Duration::from_secs(30);

/// How long answers are waited for once the time is up, before the servers shut down.
const ANSWERS: Duration = Duration::from_secs(5);

/// How long the servers may take to shut down: the library's own limit and some.
const STOP: Duration = Duration::from_secs(45);

/// How long beyond the time of play a complete one may go on.
const COMPLETION: Duration = Duration::from_secs(120);

/// Plays as planned, and ends all that took part.
pub(super) async fn play(
    plan: &Plan,
    call: &Call,
    world: &Shared,
    display: &mut Display,
) -> anyhow::Result<()> {
    let (stop, stopped) = watch::channel(false);
    #[cfg(feature = "serve")]
    let hosts = match plan.via_server {
        0 => None,
        count => Some(Hosts::start(call, count).await?),
    };
    #[cfg(feature = "serve")]
    let call = &Call { via: hosts.as_ref().map(Hosts::via), ..call.clone() };
    let stage = Stage { plan, world, dice: Dice::new(plan.seed), stopped };
    let (mut servers, fates) = stage.servers(call);
    wait_until(START, || locked(world).ready().len() == usize::from(plan.servers))
        .await
        .context("the servers did not come up")?;

    let mut players = stage.players(&fates);
    let killers = stage.killers(&fates);
    #[cfg(feature = "serve")]
    let hosts = hosts.map(|hosts| stage.killed_hosts(hosts));

    watch_play(plan, world, display).await;
    display.phase("the time is up: the servers shut down");
    stop.send_replace(true);
    locked(world).time_is_up();
    for killer in killers {
        killer.await?;
    }
    // Starts that wait for a dead server's lease are called off by the shutdown.
    let _ = wait_until(ANSWERS, || locked(world).unanswered() == 0).await;
    locked(world).stop_all();
    end_servers(&mut servers, world).await?;
    players.shutdown().await;
    #[cfg(feature = "serve")]
    if let Some(hosts) = hosts {
        hosts.await??.end().await?;
    }
    Ok(())
}

/// What decides the fates of the servers, by slot.
type Fates = Arc<Vec<mpsc::Sender<Fate>>>;

/// What all who take part are given.
struct Stage<'a> {
    plan: &'a Plan,
    world: &'a Shared,
    dice: Dice,
    /// True when the time is up.
    stopped: watch::Receiver<bool>,
}

impl Stage<'_> {
    /// Starts the servers. Each is kept running by a task; without its task it is killed.
    fn servers(&self, call: &Call) -> (JoinSet<anyhow::Result<()>>, Fates) {
        let call = Arc::new(call.clone());
        let (mut keepers, mut fates) = (JoinSet::new(), Vec::new());
        for slot in 0..usize::from(self.plan.servers) {
            let (fate, fated) = mpsc::channel(1);
            fates.push(fate);
            let (call, world, stopped) = (call.clone(), self.world.clone(), self.stopped.clone());
            keepers.spawn(fleet::keep(slot, call, world, fated, stopped));
        }
        (keepers, Arc::new(fates))
    }

    /// Starts the players, and the operator who edits them.
    fn players(&self, fates: &Fates) -> JoinSet<()> {
        let plan = self.plan;
        let mut all = JoinSet::new();
        let pace = Duration::from_secs_f64(f64::from(plan.players) / f64::from(plan.pace));
        for player in 0..plan.players {
            let (world, stop) = (self.world.clone(), self.stopped.clone());
            let dice = self.dice.fork(u64::from(player));
            let play = players::Play { world, player, players: plan.players, dice, pace, stop };
            all.spawn(play.run());
        }
        let operator = edits::Operator {
            world: self.world.clone(),
            players: plan.players,
            half_time: Instant::now() + Duration::from_secs(plan.seconds) / 2,
            kills: plan.kill.then(|| fates.clone()),
            dice: self.dice.fork(u64::MAX - 1),
            stop: self.stopped.clone(),
        };
        all.spawn(operator.run());
        all
    }

    /// Starts those who kill servers, or start them anew, as far as that is planned.
    fn killers(&self, fates: &Fates) -> Vec<JoinHandle<()>> {
        let mut killers = Vec::new();
        let given = || (self.world.clone(), fates.clone(), self.stopped.clone());
        if self.plan.kill {
            let (world, fates, stop) = given();
            killers.push(tokio::spawn(players::kill(world, fates, self.dice.fork(u64::MAX), stop)));
        }
        if self.plan.roll {
            let (world, fates, stop) = given();
            killers.push(tokio::spawn(players::roll(world, fates, stop)));
        }
        killers
    }

    /// The processes that the servers play through, killed now and then if that is planned.
    #[cfg(feature = "serve")]
    fn killed_hosts(&self, hosts: Hosts) -> JoinHandle<anyhow::Result<Hosts>> {
        let (world, stop) = (self.world.clone(), self.stopped.clone());
        let dice = self.dice.fork(u64::MAX - 2);
        let kill = self.plan.kill;
        tokio::spawn(
            async move { if kill { hosts.kill(world, dice, stop).await } else { Ok(hosts) } },
        )
    }
}

/// Waits until the servers have shut down. Those that do not are killed when `servers` is dropped.
async fn end_servers(
    servers: &mut JoinSet<anyhow::Result<()>>,
    world: &Shared,
) -> anyhow::Result<()> {
    let ends = async {
        while let Some(end) = servers.join_next().await {
            end??;
        }
        anyhow::Ok(())
    };
    if let Ok(ended) = timeout(STOP, ends).await {
        return ended;
    }
    locked(world).faults.push(format!("servers that did not shut down within {STOP:?}"));
    Ok(())
}

/// Shows the progress until the time is up, or until Ctrl-C. A complete play then goes on until
/// everything has happened, or until a second Ctrl-C.
async fn watch_play(plan: &Plan, world: &Shared, display: &mut Display) {
    let began = Instant::now();
    let mut until = (!plan.until_told).then(|| began + Duration::from_secs(plan.seconds));
    let mut time_was_up = None;
    // One future all along: between two of them a signal would be lost.
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        let next = Instant::now() + Duration::from_millis(200);
        let next = until.filter(|_| time_was_up.is_none()).map_or(next, |until| until.min(next));
        let told = tokio::select! {
            biased;
            _ = &mut interrupted => true,
            () = tokio::time::sleep_until(next) => false,
        };
        display.show(&locked(world), began.elapsed());
        let now = Instant::now();
        if told && (!plan.complete || time_was_up.is_some()) {
            return;
        }
        if told {
            until = Some(now);
            interrupted.set(tokio::signal::ctrl_c());
        }
        let Some(end) = until.filter(|until| *until <= now) else { continue };
        let since = *time_was_up.get_or_insert(end);
        let missing = if plan.complete { locked(world).missing(plan, since) } else { Vec::new() };
        if missing.is_empty() {
            return;
        }
        if now > since + COMPLETION {
            return say(&format!(
                "in {COMPLETION:?} beyond the time this did not happen: {}",
                missing.join(", ")
            ));
        }
    }
}

async fn wait_until(limit: Duration, ready: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    while !ready() {
        if Instant::now() >= deadline {
            bail!("it took longer than {limit:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
