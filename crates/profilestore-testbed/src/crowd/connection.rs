//! The connections of one game server of a crowd: it greets, resumes, and gives up what is silent.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, Utf8Bytes},
};

use super::{CrowdReport, Steer, game::Game};
use crate::game_client::open;

/// How often a game server looks what is to be done.
const TICK: Duration = Duration::from_millis(20);

/// How often it pings.
const PING: Duration = Duration::from_secs(2);

/// After how long without a frame it gives a connection up.
const SILENCE: Duration = Duration::from_secs(8);

/// How long it waits for a connection, and three times as long for the answer to its greeting.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long after a connection that was refused it tries the next process.
const PAUSE: Duration = Duration::from_millis(50);

type Socket = WebSocketStream<TcpStream>;

impl Game {
    /// Plays until all sessions have ended, over one connection after another.
    pub(super) async fn run(mut self, steer: watch::Receiver<Steer>) -> CrowdReport {
        let mut tries = self.number as usize;
        while !self.is_done(now(&steer)) {
            let address = self.plan.servers[tries % self.plan.servers.len()];
            tries += 1;
            match self.greet(address).await {
                Some(socket) => self.stay(socket, &steer).await,
                None => {
                    // Play goes on without a connection.
                    self.step(now(&steer));
                    sleep(PAUSE).await;
                }
            }
        }
        self.report
    }

    async fn greet(&mut self, address: SocketAddr) -> Option<Socket> {
        let mut socket = timeout(PATIENCE, open(address, &self.plan.key)).await.ok()??;
        socket.send(Message::Text(self.hello().into())).await.ok()?;
        let answer = timeout(PATIENCE * 3, first_frame(&mut socket)).await.ok()??;
        self.welcomed(&answer).then_some(socket)
    }

    /// Plays over a connection until it ends.
    async fn stay(&mut self, socket: Socket, steer: &watch::Receiver<Steer>) {
        let (mut sink, mut stream) = socket.split();
        let (frames, mut queue) = mpsc::unbounded_channel::<Utf8Bytes>();
        let mut writing = JoinSet::new();
        writing.spawn(async move {
            while let Some(frame) = queue.recv().await {
                if sink.feed(Message::Text(frame)).await.is_err() {
                    return;
                }
                if queue.is_empty() && sink.flush().await.is_err() {
                    return;
                }
            }
        });
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut pinged) = (Instant::now(), None::<Instant>);
        self.begins_anew();
        loop {
            let text = tokio::select! {
                message = stream.next() => match message {
                    Some(Ok(Message::Text(text))) => Some(text),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
                    _ => return,
                },
                _ = ticks.tick() => None,
                _ = writing.join_next() => return,
            };
            self.awakes();
            if let Some(text) = text {
                heard = Instant::now();
                if !self.told(&text) {
                    return;
                }
                continue;
            }
            if heard.elapsed() > SILENCE {
                return;
            }
            if pinged.is_none_or(|at| at.elapsed() >= PING) {
                pinged = Some(Instant::now());
                let _ = frames.send(self.ping());
            }
            self.step(now(steer));
            for frame in self.take_frames() {
                let _ = frames.send(frame);
            }
            if self.is_done(now(steer)) {
                let _ = frames.send(Utf8Bytes::from_static("{\"bye\":{}}"));
                let farewell = async { while let Some(Ok(_)) = stream.next().await {} };
                let _ = timeout(PATIENCE, farewell).await;
                return;
            }
        }
    }
}

fn now(steer: &watch::Receiver<Steer>) -> Steer {
    *steer.borrow()
}

/// The answer to a greeting. None: the connection is over.
async fn first_frame(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.next().await? {
            Ok(Message::Text(text)) => return serde_json::from_str(&text).ok(),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}
