//! The connection of one game server: greets, resumes, sends again, and gives up what is silent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::{Phase, Player};
use crate::game_client::open;

/// After how long without a frame a connection is given up.
const SILENCE: Duration = Duration::from_secs(4);

/// So long that no slow machine makes a game server dead: then its sessions would rightly end.
const LEASE_MS: u64 = 120_000;

type Socket = WebSocketStream<TcpStream>;

impl Player {
    /// Plays until both sessions have ended, over one connection after another.
    pub(in crate::fleet) async fn play(
        mut self,
        phases: watch::Receiver<Phase>,
        settled: Arc<AtomicUsize>,
    ) -> Self {
        let (mut is_settled, mut at) = (false, self.number as usize);
        while self.seats.len() < 2 || self.seats.values().any(|seat| !seat.ended) {
            at += 1;
            let port = self.ports[at % self.ports.len()];
            if let Some(mut socket) = self.greet(port).await {
                self.stay(&mut socket, &phases, &mut is_settled, &settled).await;
            } else {
                let pause = 20 + self.below(200);
                sleep(Duration::from_millis(pause)).await;
            }
        }
        self
    }

    /// A connection that has greeted. What was not answered goes first.
    async fn greet(&mut self, port: u16) -> Option<Socket> {
        let address = ([127, 0, 0, 1], port).into();
        let patience = Duration::from_secs(3);
        let mut socket = timeout(patience, open(address, &self.key)).await.ok()??;
        let mut hello = json!({ "instance": self.instance, "job": format!("g{}", self.number),
            "lease_ms": LEASE_MS });
        if let Some(identity) = &self.identity {
            let open = self.seats.iter().filter(|(_, seat)| !seat.ended);
            let sessions: Vec<_> =
                open.map(|(s, seat)| json!([s, "Fleet", "global", seat.key, seat.epoch])).collect();
            hello["resume"] = json!({ "incarnation": identity["incarnation"],
                "token": identity["token"], "store": identity["store"], "sessions": sessions });
            self.report.resumes += 1;
        }
        let hello = json!({ "hello": hello }).to_string();
        socket.send(Message::Text(hello.into())).await.ok()?;
        let frame = timeout(patience * 2, next(&mut socket)).await.ok()??;
        let Some(welcome) = frame.get("welcome") else {
            let problem = &frame["error"]["problem"];
            if problem["advice"] == "fix" {
                self.wrong(format!("the greeting was refused: {frame}"));
            }
            return None;
        };
        if self.identity.is_some() && welcome["resumed"] != "same" {
            self.wrong(format!("it was declared dead: {welcome}"));
        }
        self.identity = Some(welcome.clone());
        for asked in self.asked.values() {
            socket.send(Message::Text(asked.frame.clone().into())).await.ok()?;
        }
        Some(socket)
    }

    /// Plays over a connection until it ends.
    async fn stay(
        &mut self,
        socket: &mut Socket,
        phases: &watch::Receiver<Phase>,
        is_settled: &mut bool,
        settled: &AtomicUsize,
    ) {
        let (mut heard, mut pinged) = (Instant::now(), None::<Instant>);
        while self.seats.len() < 2 || self.seats.values().any(|seat| !seat.ended) {
            let tick = Duration::from_millis(20 + self.below(100));
            match timeout(tick, next(socket)).await {
                Ok(Some(frame)) => {
                    heard = Instant::now();
                    if !self.told(&frame) {
                        return;
                    }
                    continue;
                }
                Ok(None) => return,
                Err(_) if heard.elapsed() > SILENCE => return,
                Err(_) => {}
            }
            let before = self.next;
            let phase = *phases.borrow();
            self.act(phase);
            if phase >= Phase::Settle && self.asked.is_empty() && self.seats.len() == 2 {
                settled.fetch_add(
                    usize::from(!std::mem::replace(is_settled, true)),
                    Ordering::Relaxed,
                );
            }
            let mut frames: Vec<String> =
                self.asked.range(before + 1..).map(|(_, asked)| asked.frame.clone()).collect();
            if self.below(20) == 0 {
                // A frame comes twice.
                frames.extend(self.last.clone());
            }
            if pinged.is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
                pinged = Some(Instant::now());
                frames.push(json!({ "ping": { "n": 1 } }).to_string());
            }
            for frame in frames {
                let sent = timeout(SILENCE, socket.send(Message::Text(frame.into()))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
        }
    }
}

/// The next frame. None: the connection is over.
async fn next(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.next().await? {
            Ok(Message::Text(text)) => return serde_json::from_str(&text).ok(),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}
