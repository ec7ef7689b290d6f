//! A game server of the demonstration that plays through `profilestore serve`: what an SDK does,
//! without its comfort. Orders and reports are those of a server that uses the library.
//!
//! One task does it all: it takes orders, frames and the time, and sends what follows from them. An
//! operator's edits are made by the library, beside it.

mod connection;
mod game;
pub(crate) mod hosts;
mod orders;
mod seat;

use std::time::Duration;

use anyhow::Context;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};

use self::{connection::Connection, game::Game};
use super::{
    edits::Desk,
    fleet::{Call, Via},
    pace,
    process::{read_orders, stand_desk, write_reports},
    server::{PATIENCE, edited},
    wire::{Order, Report, What},
};

/// How often it looks at the clock.
const TICK: Duration = Duration::from_millis(20);

const PING: Duration = Duration::from_secs(1);

/// How often it tries to connect before it looks at its orders again.
const MOST_TRIES: u32 = 20;

/// How long the sessions may take to end.
const STOP: Duration = Duration::from_secs(30);

/// Runs until it is told to stop, or until the parent is gone.
pub(crate) async fn run(call: &Call, via: Via, job: String) -> anyhow::Result<()> {
    let mut orders = read_orders();
    let (reports, written) = write_reports();
    let Some(desk) = stand_desk(call, &format!("{job}-desk"), &mut orders).await? else {
        let _ = reports.send(Report::Bye);
        return written.await.context("the reports could not be written");
    };
    let lease = Duration::from_secs_f64(call.lease_seconds);
    let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    let mut connection = Connection::new(via, &job, lease_ms);
    while connection.greet(Vec::new()).await.is_none() {
        sleep(TICK * 10).await;
    }
    let mut game = Game::new(reports.clone(), call.scope.clone(), lease + PATIENCE);
    let mut watching = JoinSet::new();
    let watched = reports.clone();
    watching.spawn(pace::watch(lease, move |late| {
        let millis = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
        let _ = watched.send(Report::StoodStill { millis });
    }));
    game.say(Report::Ready);
    let edits = play(&mut game, &mut connection, &desk, &mut orders).await;
    end(game, &mut connection, &desk, edits).await;
    drop(watching);
    let _ = reports.send(Report::Bye);
    drop(reports);
    written.await.context("the reports could not be written")
}

/// Plays until it is told to stop.
async fn play(
    game: &mut Game,
    connection: &mut Connection,
    desk: &Desk,
    orders: &mut mpsc::UnboundedReceiver<Order>,
) -> JoinSet<()> {
    let mut edits = JoinSet::new();
    let mut clock = Clock::new();
    loop {
        connect(game, connection).await;
        while edits.try_join_next().is_some() {}
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                None | Some(Order { what: What::Stop, .. }) => return edits,
                Some(Order { id, what: What::Edit { task } }) => {
                    let (desk, reports) = (desk.clone(), game.reports.clone());
                    edits.spawn(async move {
                        let answer = edited(&task, &desk).await;
                        let _ = reports.send(Report::Done { id, answer });
                    });
                }
                Some(order) => game.take(order),
            },
            () = clock.step(game, connection) => {}
        }
        flush(game, connection).await;
    }
}

/// Ends all sessions, and says what became of them.
async fn end(mut game: Game, connection: &mut Connection, desk: &Desk, mut edits: JoinSet<()>) {
    game.stop();
    let (until, mut clock) = (Instant::now() + STOP, Clock::new());
    while !game.is_idle() && Instant::now() < until {
        connect(&mut game, connection).await;
        flush(&mut game, connection).await;
        clock.step(&mut game, connection).await;
    }
    let all = async { while edits.join_next().await.is_some() {} };
    let _ = timeout(PATIENCE, all).await;
    // It holds no session.
    let _ = desk.server.shutdown().await;
    connection.send(r#"{"bye":{}}"#.to_owned()).await;
    let not_saved = game.seats.values().map(|seat| format!("{}: unanswered", seat.key)).collect();
    let saved = std::mem::take(&mut game.saved);
    let taken = std::mem::take(&mut game.taken);
    game.say(Report::Stopped { saved, taken, not_saved });
}

/// Greets again where the connection is over. Orders wait meanwhile.
async fn connect(game: &mut Game, connection: &mut Connection) {
    for _ in 0..MOST_TRIES {
        if connection.is_open() {
            return;
        }
        if connection.greet(game.named()).await.is_some() {
            game.resumed();
        } else {
            sleep(TICK * 5).await;
        }
    }
}

async fn flush(game: &mut Game, connection: &mut Connection) {
    game.pump();
    for frame in std::mem::take(&mut game.frames) {
        // Without a connection they are sent once there is one.
        connection.send(frame).await;
    }
}

/// The time, and the frames that come meanwhile.
struct Clock {
    ticks: tokio::time::Interval,
    pinged: Option<Instant>,
}

impl Clock {
    fn new() -> Self {
        Self { ticks: interval(TICK), pinged: None }
    }

    /// Until something happened. Nothing is lost when it is dropped.
    async fn step(&mut self, game: &mut Game, connection: &mut Connection) {
        tokio::select! {
            biased;
            frame = connection.next(), if connection.is_open() => if let Some(frame) = frame
                && !game.told(&frame)
            {
                connection.leave();
            },
            _ = self.ticks.tick() => {
                game.tick();
                if self.pinged.is_none_or(|at| at.elapsed() > PING) {
                    self.pinged = Some(Instant::now());
                    game.frames.push(r#"{"ping":{"n":1}}"#.to_owned());
                }
            }
        }
    }
}
