//! What goes over the wire: pings and pongs, what the host has to tell, requests and their answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use profilestore::{
    ErrorKind, Result,
    data_store::Holder,
    hosting::{Event, HostedServer},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{BELIEF, Guest, LEASE, PING, Playing};
use crate::{
    data::Player,
    hosted::{
        ledger::Open,
        wire::{Answer, Ask, player},
    },
    world::life::Life,
};

impl Guest {
    /// What is under way takes its time. False: it never arrives.
    async fn way(&self, connection: u64, process: &Life) -> bool {
        sleep(self.dice.seconds(0.0, 0.02)).await;
        loop {
            let until = {
                let state = self.state.lock();
                if state.is_over || state.connection != connection {
                    return false;
                }
                state.stalled_until.max(state.paused_until)
            };
            if !process.runs().await {
                return false;
            }
            if until <= Instant::now() {
                return true;
            }
            sleep_until(until).await;
        }
    }

    /// One connection: pings and pongs, and what the host has to tell, in its order.
    pub(super) async fn talk(
        self: Arc<Self>,
        connection: u64,
        server: HostedServer,
        process: Arc<Life>,
    ) {
        let mut next = Instant::now();
        loop {
            let event = tokio::select! {
                biased;
                () = sleep_until(next) => None,
                event = server.next_event(|_| 1 << 20) => Some(event),
            };
            if let Some(event) = event {
                if !self.way(connection, &process).await || !self.told(connection, event) {
                    return;
                }
                continue;
            }
            let sent = Instant::now();
            next = sent + PING;
            if !self.way(connection, &process).await {
                return;
            }
            while let Some(event) = server.try_next_event(|_| 0) {
                if !self.told(connection, event) {
                    return;
                }
            }
            self.world.ledger.lock().heard(server.incarnation());
            let age = server.pong();
            if !self.way(connection, &process).await {
                return;
            }
            if let (Some(age), Some(job)) = (age, self.current(connection)) {
                let lease = LEASE.mul_f64(0.99) - Duration::from_millis(500);
                let until =
                    (sent + lease).checked_sub(age).map_or(sent, |it| it.min(sent + BELIEF));
                let mut state = self.state.lock();
                state.last_pong = Instant::now();
                state.belief = state.belief.max(until);
                self.world.ledger.lock().believes(&job, until);
            }
        }
    }

    /// False: this connection is over.
    fn told(&self, connection: u64, event: Event) -> bool {
        let Some(job) = self.current(connection) else { return false };
        match event {
            Event::Stopped(why) => {
                self.world.note(None, || format!("{job} is hosted no more: {why:?}"));
                self.state.lock().server = None;
                return false;
            }
            Event::Closed { session, why, .. } => {
                let key = session.key().key();
                self.state.lock().closed_early.insert(key.to_owned());
                self.lost(&job, key, &format!("was closed: {why:?}"));
            }
            Event::Release { session, .. } => {
                let key = session.key().key();
                if let Some(playing) = self.state.lock().sessions.get_mut(key) {
                    playing.asked = true;
                    let of = (job, key.to_owned());
                    if let Some(open) = self.world.ledger.lock().open.get_mut(&of) {
                        open.asked = true;
                    }
                }
            }
            Event::Message { session, index, body, .. } => {
                let mut state = self.state.lock();
                let playing = state.sessions.get_mut(session.key().key());
                if let (Some(playing), Ok(letter)) = (playing, serde_json::from_slice(&body))
                    && !playing.handled.contains(&index)
                {
                    playing.inbox.insert(index, letter);
                }
            }
            _ => {}
        }
        true
    }

    /// Sends a request. It stays until it is answered.
    pub(super) fn ask(self: &Arc<Self>, ask: Ask) {
        let (i, connection) = {
            let mut state = self.state.lock();
            state.next += 1;
            let i = state.next;
            state.unanswered.insert(i, ask.clone());
            (i, state.connection)
        };
        self.send(connection, i, ask);
    }

    pub(super) fn send(self: &Arc<Self>, connection: u64, i: u64, ask: Ask) {
        let (server, process, run) = {
            let state = self.state.lock();
            let (Some(server), Some(process)) = (state.server.clone(), state.process.clone())
            else {
                return;
            };
            (server, process, state.job.clone())
        };
        let guest = self.clone();
        tokio::spawn(async move {
            // Also when the game server has left: then it comes late at the host of before.
            sleep(guest.dice.seconds(0.0, 0.02)).await;
            let stalled = guest.state.lock().stalled_until;
            sleep_until(stalled).await;
            if !process.runs().await {
                return;
            }
            let answer = ask.clone().ask(&server, &run, i).await;
            if guest.way(connection, &process).await && guest.current(connection) == Some(run) {
                guest.answered(connection, &server, i, ask, answer).await;
            }
        });
    }

    async fn answered(
        self: &Arc<Self>,
        connection: u64,
        server: &HostedServer,
        i: u64,
        ask: Ask,
        answer: Result<Answer>,
    ) {
        if !self.state.lock().unanswered.contains_key(&i) {
            // An answer that came twice.
            return;
        }
        match answer {
            Err(_) if server.stopped().is_some() => return,
            Err(error) if error.kind() == ErrorKind::Unknown => {
                sleep(Duration::from_secs(1)).await;
                if self.current(connection).is_some() {
                    self.send(connection, i, ask);
                }
                return;
            }
            Err(error) => {
                self.world.note(ask.keys().first().copied(), || format!("{i} fails: {error}"));
                if matches!(error.kind(), ErrorKind::RequestIdReused | ErrorKind::Invalid) {
                    let what = format!("{ask:?} is refused: {error}");
                    self.world.ledger.lock().broken("hosting", None, what);
                }
                if matches!(ask, Ask::Trade { .. }) {
                    self.world.ledger.lock().not_done(&ask.numbered());
                }
                if error.kind() == ErrorKind::SessionEnded {
                    self.over(&ask, "is over");
                }
            }
            Ok(Answer::NotDone) => {
                self.world.ledger.lock().not_done(&ask.numbered());
                self.over(&ask, "is over, and the request was not done");
            }
            Ok(Answer::Started(started)) => {
                let key = started.session.key().clone();
                let (side, epoch) = (self.world.store.side(&key).await, started.document.epoch);
                let job = self.job();
                let own = |holder: &Holder| holder.job_id == job && side.epoch == epoch;
                let name = side.lease.holder.filter(own).map(|holder| (holder.session, epoch));
                self.plays(key.key(), epoch, player(&started.document), name);
                // What came before that is told again.
                server.tell_again();
            }
            Ok(Answer::Done) => self.done(&ask),
        }
        let mut state = self.state.lock();
        state.unanswered.remove(&i);
        state.answered.insert(i, ask);
        while state.answered.len() > 5 {
            state.answered.pop_first();
        }
    }

    fn over(&self, ask: &Ask, how: &str) {
        let job = self.job();
        if !matches!(ask, Ask::Trade { .. }) {
            ask.keys().into_iter().for_each(|key| self.lost(&job, key, how));
        }
    }

    fn plays(&self, key: &str, epoch: u64, document: Player, name: Option<(String, u64)>) {
        let mut state = self.state.lock();
        if state.closed_early.remove(key) {
            return;
        }
        let mut ledger = self.world.ledger.lock();
        let label = ledger.label();
        ledger.counts.add("sessions");
        ledger.note(Some(key), || format!("{} plays it as session {label}", state.job));
        let until = state.belief;
        let open = Open { label, name, until, end_sent: false, asked: false, unanswered: false };
        ledger.open.insert((state.job.clone(), key.to_owned()), open);
        let playing = Playing {
            label,
            epoch,
            n: 0,
            document,
            old: None,
            inbox: BTreeMap::new(),
            handled: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            asked: false,
        };
        state.sessions.insert(key.to_owned(), playing);
    }

    fn done(&self, ask: &Ask) {
        let mut state = self.state.lock();
        let mut ledger = self.world.ledger.lock();
        match ask {
            Ask::Save { key, n, document, processed, .. } => {
                ledger.acknowledged(key, document.writer, *n);
                if let Some(playing) = state.sessions.get_mut(key) {
                    playing.unsaved.retain(|index| !processed.contains(index));
                }
            }
            Ask::End { key, n, document, .. } => {
                if let Some(document) = document {
                    ledger.acknowledged(key, document.writer, *n);
                }
                ledger.counts.add("sessions ended");
                ledger.is_over(&state.job, key);
                state.sessions.remove(key);
            }
            Ask::Trade { parts } => {
                ledger.counts.add("trades");
                for (key, _, n, document) in parts {
                    ledger.acknowledged(key, document.writer, *n);
                }
            }
            Ask::Send { letter, .. } => ledger.letter_stored(letter.number),
            Ask::Start { .. } => {}
        }
    }
}
