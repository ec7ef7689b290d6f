//! What a game server does with its sessions, and how it comes to rest.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use profilestore::{ErrorKind, MessageId, env::Clock as _};
use tokio::time::sleep;

use super::{Guest, MOST_SESSIONS, Next, Playing, State};
use crate::{
    data::Letter,
    hosted::wire::{Answer, Ask},
};

impl Guest {
    pub(super) fn act(self: &Arc<Self>) {
        let (busy, mut free, asked, playing, rests) = {
            let state = self.state.lock();
            let busy: BTreeSet<String> = state
                .unanswered
                .values()
                .flat_map(|ask| ask.keys().into_iter().map(str::to_owned))
                .collect();
            let free: Vec<String> =
                state.sessions.keys().filter(|key| !busy.contains(*key)).cloned().collect();
            let asked = free.iter().find(|key| state.sessions[*key].asked).cloned();
            (busy, free, asked, state.sessions.len(), state.rests)
        };
        if rests {
            return free.iter().for_each(|key| self.end(key));
        }
        if let Some(key) = asked.filter(|_| self.dice.chance(0.4)) {
            return self.end(&key);
        }
        let free_key = (!free.is_empty()).then(|| free.swap_remove(self.dice.below(free.len())));
        match (self.dice.below(12), free_key) {
            (0..=2, _) if playing < MOST_SESSIONS => {
                let key = self.dice.pick(&self.world.keys).clone();
                let (held, left) = {
                    let state = self.state.lock();
                    (state.sessions.contains_key(&key), state.left.contains(&key))
                };
                if !held && !busy.contains(&key) && (!left || self.dice.chance(0.05)) {
                    self.begin(&key);
                }
            }
            (3, Some(key)) => self.end(&key),
            (4, Some(key)) if !free.is_empty() => {
                let other = free.swap_remove(self.dice.below(free.len()));
                self.trade([&key, &other]);
            }
            (5, _) => self.write(),
            (6, _) if self.dice.chance(0.3) => self.reuse(),
            (6, _) => self.repeat(),
            (_, Some(key)) => self.save(&key),
            _ => {}
        }
    }

    fn begin(self: &Arc<Self>, key: &str) {
        {
            let mut state = self.state.lock();
            state.closed_early.remove(key);
            state.left.remove(key);
        }
        self.ask(Ask::Start { key: key.to_owned() });
    }

    /// A frame comes a second time.
    fn repeat(self: &Arc<Self>) {
        let (connection, repeated) = {
            let state = self.state.lock();
            let all: Vec<_> = state.answered.iter().map(|(i, ask)| (*i, ask.clone())).collect();
            let is_start = |ask: &Ask| matches!(ask, Ask::Start { .. });
            let all: Vec<_> = all.into_iter().filter(|(_, ask)| !is_start(ask)).collect();
            (state.connection, (!all.is_empty()).then(|| self.dice.pick(&all).clone()))
        };
        if let Some((i, ask)) = repeated {
            self.world.count("frames repeated");
            self.send(connection, i, ask);
        }
    }

    /// The number of a save that made a version comes again, and asks for something else.
    fn reuse(&self) {
        let state = self.state.lock();
        let (Some(server), Some(process)) = (state.server.clone(), state.process.clone()) else {
            return;
        };
        let run = state.job.clone();
        let ledger = self.world.ledger.lock();
        let stored: Vec<_> = state.answered.iter().filter(|(_, ask)| ledger.made(ask)).collect();
        if stored.is_empty() {
            return;
        }
        let (i, ask) = self.dice.pick(&stored);
        let (i, mut ask) = (**i, (*ask).clone());
        drop((state, ledger));
        let Ask::Save { key, document, .. } = &mut ask else { return };
        document.mint(1);
        let (key, world) = (key.clone(), self.world.clone());
        tokio::spawn(async move {
            if !process.runs().await {
                return;
            }
            match ask.ask(&server, &run, i).await {
                Ok(Answer::Done) => {
                    let what = format!("request {i} came again with another content, and is done");
                    world.ledger.lock().broken("G7", Some(&key), what);
                }
                Err(error) if error.kind() == ErrorKind::RequestIdReused => {
                    world.count("reused numbers refused");
                }
                _ => {}
            }
        });
    }

    /// The next document of a session, and the messages that are in it.
    fn next_document(&self, key: &str) -> Option<Next> {
        let mut state = self.state.lock();
        let playing = state.sessions.get_mut(key)?;
        playing.n += 1;
        let quiet = playing.inbox.is_empty() && playing.unsaved.is_empty();
        let before = (playing.document.writer == playing.label).then(|| playing.document.clone());
        match playing.old.take().filter(|_| quiet && self.dice.chance(0.3)) {
            Some(old) => playing.document = old,
            // Nothing has changed.
            None if before.is_some() && quiet && self.dice.chance(0.1) => {}
            None => {
                playing.document.sign(playing.label);
                playing.document.mint(1);
                for (index, letter) in std::mem::take(&mut playing.inbox) {
                    playing.document.received.push(letter.number);
                    playing.document.mint(letter.coins);
                    playing.handled.insert(index);
                    playing.unsaved.insert(index);
                }
            }
        }
        playing.old = before.filter(|_| quiet);
        let Playing { label, epoch, n, .. } = *playing;
        let document = playing.document.clone();
        let processed = playing.unsaved.iter().copied().collect();
        self.world.ledger.lock().sends(label, n, &document);
        Some(Next { epoch, n, document, processed })
    }

    fn save(self: &Arc<Self>, key: &str) {
        let Some(Next { epoch, n, document, processed }) = self.next_document(key) else { return };
        self.ask(Ask::Save { key: key.to_owned(), epoch, n, document, processed });
    }

    /// Ends a session, once it has saved what it took from the inbox.
    fn end(self: &Arc<Self>, key: &str) {
        let waits = {
            let state = self.state.lock();
            let Some(playing) = state.sessions.get(key) else { return };
            !playing.inbox.is_empty() || !playing.unsaved.is_empty()
        };
        if waits {
            return self.save(key);
        }
        let Some(Next { epoch, n, document, processed }) = self.next_document(key) else { return };
        if !processed.is_empty() {
            return self.ask(Ask::Save { key: key.to_owned(), epoch, n, document, processed });
        }
        let of = (self.job(), key.to_owned());
        if let Some(open) = self.world.ledger.lock().open.get_mut(&of) {
            open.end_sent = true;
        }
        self.ask(Ask::End { key: key.to_owned(), epoch, n, document: Some(document) });
    }

    fn trade(self: &Arc<Self>, keys: [&str; 2]) {
        let waits = {
            let state = self.state.lock();
            keys.iter().any(|key| {
                state
                    .sessions
                    .get(*key)
                    .is_none_or(|playing| !playing.inbox.is_empty() || !playing.unsaved.is_empty())
            })
        };
        if waits {
            return;
        }
        let parts = keys.iter().filter_map(|key| {
            let Next { epoch, n, document, .. } = self.next_document(key)?;
            Some(((*key).to_owned(), epoch, n, document))
        });
        let parts: Vec<_> = parts.collect();
        self.ask(Ask::Trade { parts });
    }

    /// Writes a message to one of the profiles.
    fn write(self: &Arc<Self>) {
        let to = self.dice.pick(&self.world.keys).clone();
        let coins = 1 + self.dice.below(100) as i64;
        let number = self.world.ledger.lock().letter(&to, coins);
        let now = self.world.clock.unix_ms();
        let id = MessageId::new(now, &format!("letter-{number}")).expect("the name is short");
        self.ask(Ask::Send { to, letter: Letter { number, coins, gift: false }, id });
    }

    // --- peace -----------------------------------------------------------------------------------

    /// Ends everything that it has. False: it cannot.
    pub(in crate::hosted) async fn comes_to_rest(&self) -> bool {
        self.state.lock().rests = true;
        self.waits_until(|state| state.sessions.is_empty() && state.unanswered.is_empty()).await
    }

    /// Plays a profile once, with all its messages.
    pub(in crate::hosted) async fn visits(self: &Arc<Self>, key: &str) -> bool {
        for _ in 0..10 {
            self.begin(key);
            if !self.waits_until(|state| state.unanswered.is_empty()).await {
                return false;
            }
            if self.state.lock().sessions.contains_key(key) {
                self.world.count("profiles visited in peace");
                return self.comes_to_rest().await;
            }
        }
        false
    }

    async fn waits_until(&self, done: impl Fn(&State) -> bool) -> bool {
        for _ in 0..3000 {
            if done(&self.state.lock()) {
                return true;
            }
            sleep(Duration::from_millis(200)).await;
        }
        let state = self.state.lock();
        let left: Vec<_> = state.sessions.keys().collect();
        let job = &state.job;
        self.world.note(None, || format!("{job} has {left:?} and {:?} left", state.unanswered));
        false
    }
}
