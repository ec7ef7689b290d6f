//! What players and the programs around them do: join, play, hop, leave, send, buy; and now and then an operator.
//!
//! Every call's outcome goes into the oracle's books: success, failure, or nothing when its server died first.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::{Error, ErrorKind, Message, MessageId, ProfileStore, Sent, SessionEnd, StartOptions};
use tokio::time::Instant;

use super::{Running, World, life::Life, operators::user_of};
use crate::{
    books::Clerk,
    data::{Label, Letter, Player},
    dice::Dice,
    invariants::broken,
    oracle::{LetterTold, SessionTold, StartTold, TradeTold},
};

/// Mean seconds between two things that a player does.
const PACE: f64 = 25.0;

pub(super) fn key_of(player: usize) -> String {
    format!("p{player}")
}

fn player_of(key: &str) -> usize {
    key[1..].parse().expect("a key of a player")
}

/// A player's view of where he is.
struct Playing {
    label: Label,
    running: Running,
}

/// One player, through all his sessions.
struct Actor {
    world: Arc<World>,
    dice: Dice,
    key: String,
    playing: Option<Playing>,
    /// A purchase that was paid for and not confirmed yet.
    paid: Option<u64>,
    purchases: u64,
    /// Messages that he sent and may send again.
    sent: Vec<u64>,
    /// There is something else in his profile's place, and he begins anew.
    overwrite: bool,
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

    /// Starts a session for a client and puts it into the books. None when there is none, or when the client goes away first.
    pub(super) async fn join(
        &self,
        running: &Running,
        key: &str,
        options: StartOptions,
        leaves_after: Option<Duration>,
    ) -> Option<Result<Label, ErrorKind>> {
        let life = &running.life;
        let started = {
            let books = &mut *self.clerk.0.lock();
            books.note(Some(key), || format!("{key} joins {} steal={}", life.job, options.steal));
            books.told.starts.retain(|start| start.until.is_none_or(|until| until.elapsed() < crate::oracle::AFTERMATH));
            books.told.starts.push(StartTold {
                key: key.to_owned(),
                life: life.clone(),
                since: Instant::now(),
                until: None,
                steal: options.steal,
                overwrite: options.overwrite,
            });
            Instant::now()
        };
        let start = running.players.start_session_with(key, options);
        let outcome = match leaves_after {
            Some(after) => life.wait(tokio::time::timeout(after, start)).await.map(Result::ok),
            None => life.wait(start).await.map(Some),
        };
        {
            self.clerk.0.lock().told.start_ended(key, started, life);
        }
        match outcome? {
            Some(Ok(profile)) => {
                let holder = self.store.side(profile.key()).await.lease.holder;
                let store_name = holder.filter(|holder| holder.job_id == life.job).map(|holder| holder.session);
                let label = {
                    let books = &mut *self.clerk.0.lock();
                    let label = books.told.label();
                    books.counts.add("sessions");
                    books.note(Some(key), || format!("{key} is on {} as session {label}", life.job));
                    let session = SessionTold {
                        key: key.to_owned(),
                        store_name,
                        life: life.clone(),
                        profile: profile.clone(),
                        edits: 0,
                        // It may have ended before its client could listen: at a shutdown.
                        ended: profile.is_over().then_some((SessionEnd::Shutdown, 0)),
                    };
                    books.told.sessions.insert(label, session);
                    label
                };
                // Whose it is, for erasure. A session that is over refuses.
                let _ = profile.add_user_id(user_of(player_of(key)));
                listen(&self.clerk, label, key, &profile);
                Some(Ok(label))
            }
            Some(Err(error)) => {
                let kind = error.kind();
                self.note(Some(key), || format!("{key} is not let in on {}: {error}", life.job));
                Some(Err(kind))
            }
            None => {
                self.note(Some(key), || format!("{key} left {} before it was loaded", life.job));
                self.count("left before loaded");
                None
            }
        }
    }

    /// Ends a client's session; the answer goes into the books whenever it comes.
    pub(super) fn end(&self, label: Label) -> tokio::task::JoinHandle<()> {
        let (profile, life, key) = {
            let books = self.clerk.0.lock();
            let session = &books.told.sessions[&label];
            (session.profile.clone(), session.life.clone(), session.key.clone())
        };
        self.note(Some(&key), || format!("session {label} ends"));
        let ended = profile.end_session();
        let clerk = self.clerk.clone();
        tokio::spawn(async move {
            let Some(answer) = life.wait(ended).await else { return };
            let books = &mut *clerk.0.lock();
            books.note(Some(&key), || format!("session {label} has ended: {answer:?}"));
            let edits = books.told.sessions.get(&label).and_then(|session| session.ended).map(|(_, edits)| edits);
            if let (Ok(()), Some(edits)) = (answer, edits) {
                let outcome = books.invariants.durable.acknowledged(&key, label, edits);
                books.check(outcome);
            }
        })
    }
}

/// Connects a session to the books and lets it take its messages.
fn listen(clerk: &Arc<Clerk>, label: Label, key: &str, profile: &profilestore::Profile<Player>) {
    let (books, key_) = (Arc::downgrade(clerk), key.to_owned());
    profile.on_session_end(move |end| {
        let Some(clerk) = books.upgrade() else { return };
        let books = &mut *clerk.0.lock();
        books.note(Some(&key_), || format!("session {label} is over: {end:?}"));
        books.counts.add(match end {
            SessionEnd::External => "hand-overs",
            SessionEnd::Lost => "sessions lost",
            _ => "sessions ended",
        });
        let Some(session) = books.told.sessions.get_mut(&label) else { return };
        session.ended = Some((end, session.edits));
        if end == SessionEnd::Lost {
            let outcome = books.invariants.lost.told(label, &books.told.sessions[&label]);
            books.check(outcome);
        }
    });
    let (books, key_) = (Arc::downgrade(clerk), key.to_owned());
    profile.on_after_save(move |data: &Player| {
        let Some(clerk) = books.upgrade() else { return };
        let books = &mut *clerk.0.lock();
        for (writer, edits) in &data.edits {
            let outcome = books.invariants.durable.acknowledged(&key_, *writer, *edits);
            books.check(outcome);
        }
    });
    // Some wait for the next session.
    take_messages(clerk, label, profile, |turn| turn % 7 != 3);
}

/// Lets a session take its messages, those of its turns that `takes` wants.
pub(super) fn take_messages(
    clerk: &Arc<Clerk>,
    label: Label,
    profile: &profilestore::Profile<Player>,
    takes: impl Fn(u64) -> bool + Send + Sync + 'static,
) {
    let (books, turns) = (Arc::downgrade(clerk), Mutex::new(0u64));
    profile.message_handler(move |data, message: &Message<'_>| {
        let Ok(letter) = message.parse::<Letter>() else { return };
        let turn = &mut *turns.lock();
        *turn += 1;
        if !takes(*turn) {
            return;
        }
        data.received.push(letter.number);
        data.coins += letter.coins;
        if !letter.gift {
            data.minted += letter.coins;
        }
        let edits = data.sign(label);
        message.processed();
        if let Some(clerk) = books.upgrade() {
            let books = &mut *clerk.0.lock();
            books.counts.add("messages handled");
            if let Some(session) = books.told.sessions.get_mut(&label) {
                session.edits = edits;
            }
        }
    });
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

    fn somewhere(&self) -> Option<Running> {
        let running = self.world.running(self.dice.below(self.world.size.servers))?;
        (!running.server.is_closing()).then_some(running)
    }

    async fn join(&mut self) {
        let Some(running) = self.somewhere() else { return };
        let leaves_after = self.dice.chance(0.08).then(|| self.dice.seconds(0.0, 3.0));
        self.join_on(running, StartOptions::new(), leaves_after).await;
        if leaves_after.is_some() && self.playing.is_none() && self.dice.chance(0.5) {
            // Impatient: takes the profile on another server, whatever becomes of the first start.
            let Some(running) = self.somewhere() else { return };
            self.join_on(running, StartOptions::new().steal(), None).await;
        }
    }

    async fn join_on(&mut self, running: Running, options: StartOptions, leaves_after: Option<Duration>) {
        if !running.life.runs().await {
            return;
        }
        let options = if std::mem::take(&mut self.overwrite) { options.overwrite() } else { options };
        let joined = self.world.join(&running, &self.key, options, leaves_after).await;
        match joined {
            Some(Ok(label)) => self.playing = Some(Playing { label, running }),
            Some(Err(ErrorKind::AlreadyLoaded)) => {
                // A session that nobody looks after any more.
                let left = {
                    let books = self.world.clerk.0.lock();
                    let mut sessions = books.told.sessions.iter().rev();
                    let mine = |session: &SessionTold| session.key == self.key && Arc::ptr_eq(&session.life, &running.life);
                    sessions.find(|(_, session)| mine(session) && session.ended.is_none()).map(|(label, _)| *label)
                };
                self.playing = left.map(|label| Playing { label, running });
            }
            Some(Err(ErrorKind::Foreign)) => self.overwrite = true,
            _ => {}
        }
    }

    fn edit(&self, label: Label, edit: impl FnOnce(&mut Player)) -> bool {
        let profile = self.world.clerk.0.lock().told.sessions[&label].profile.clone();
        let edited = profile.update(|data| {
            edit(data);
            data.sign(label)
        });
        let books = &mut *self.world.clerk.0.lock();
        let Ok(edits) = edited else { return false };
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
    async fn saved(&self, label: Label) -> bool {
        let (profile, life, edits) = {
            let books = self.world.clerk.0.lock();
            let session = &books.told.sessions[&label];
            (session.profile.clone(), session.life.clone(), session.edits)
        };
        let Some(answer) = life.wait(profile.save()).await else { return false };
        let books = &mut *self.world.clerk.0.lock();
        books.note(Some(&self.key), || format!("session {label} saved {edits} edits: {answer:?}"));
        if answer.is_ok() {
            let outcome = books.invariants.durable.acknowledged(&self.key, label, edits);
            books.check(outcome);
        }
        answer.is_ok()
    }

    /// A purchase is granted once, however often its receipt comes, and confirmed when the grant is durable.
    async fn buy(&mut self, label: Label) {
        let purchase = *self.paid.get_or_insert_with(|| {
            self.purchases += 1;
            self.purchases
        });
        // Every grant makes an item of its own, so that two of one number are always a fault.
        let item = self.world.clerk.0.lock().told.item();
        let granted = self.edit(label, |data| {
            if !data.bought.contains(&purchase) {
                data.bought.push(purchase);
                data.items.push(item);
                data.mint(100);
            }
        });
        if granted && self.saved(label).await {
            self.world.count("purchases");
            self.paid = None;
        }
    }

    async fn send(&mut self) {
        let to = self.dice.below(self.world.size.players);
        let coins = 1 + self.dice.below(20) as i64;
        let number = {
            let letters = &mut self.world.clerk.0.lock().told.letters;
            letters.push(LetterTold { to: super::players::key_of(to), coins, ..LetterTold::default() });
            letters.len() as u64 - 1
        };
        self.sent.push(number);
        self.dispatch(number).await;
    }

    async fn send_again(&mut self) {
        if !self.sent.is_empty() {
            let number = *self.dice.pick(&self.sent);
            self.dispatch(number).await;
        }
    }

    /// Sends a message, again if the answer was no clear yes.
    async fn dispatch(&mut self, number: u64) {
        for _ in 0..3 {
            let Some(running) = self.somewhere() else { return };
            let index = number as usize;
            let (to, letter, was_stored) = {
                let books = &mut *self.world.clerk.0.lock();
                let told = &mut books.told.letters[index];
                told.under_way += 1;
                (told.to.clone(), Letter { number, coins: told.coins, gift: told.gift }, told.stored)
            };
            let id = MessageId::new(self.world.clock.start_ms, &format!("letter-{number}")).expect("the name is short");
            let Some(answer) = running.life.wait(running.players.send_message_as(&to, &id, &letter)).await else { return };
            let restored = self.restores();
            let books = &mut *self.world.clerk.0.lock();
            books.note(Some(&to), || format!("message {number} to {to} from {}: {answer:?}", running.life.job));
            let told = &mut books.told.letters[index];
            told.under_way -= 1;
            match answer {
                Ok(sent) => {
                    told.stored = true;
                    books.counts.add("messages stored");
                    let outcome = if was_stored && sent == Sent::Now && restored == 0 {
                        broken("G3", &to, format!("message {number} had been acknowledged, and was stored again"))
                    } else {
                        books.invariants.messages.acknowledged(&to, number)
                    };
                    books.check(outcome);
                    return;
                }
                Err(error) => told.unknown |= is_unknown(&error),
            }
        }
    }

    /// Swaps coins and an item with another player on the same server.
    async fn trade(&mut self, label: Label) {
        let (mine, other, partner, life) = {
            let books = self.world.clerk.0.lock();
            let own = &books.told.sessions[&label];
            let near = |session: &SessionTold| {
                Arc::ptr_eq(&session.life, &own.life) && session.key != own.key && session.ended.is_none()
            };
            let partners: Vec<Label> =
                books.told.sessions.iter().filter(|(_, session)| near(session)).map(|(label, _)| *label).collect();
            if partners.is_empty() {
                return;
            }
            let partner = *self.dice.pick(&partners);
            (own.profile.clone(), books.told.sessions[&partner].profile.clone(), partner, own.life.clone())
        };
        let Some(running) = self.running_of(&life) else { return };
        let price = 1 + self.dice.below(30) as i64;
        let number = {
            let trades = &mut self.world.clerk.0.lock().told.trades;
            trades.push(TradeTold::Unknown);
            trades.len() as u64 - 1
        };
        let (buyer, seller) = (mine.clone(), other.clone());
        let done = running.server.transaction().with(&mine).with(&other).run(move |tx| {
            let item = tx.edit(&seller, |data| {
                data.coins += price;
                data.trades.push(number);
                data.sign(partner);
                data.items.pop()
            })?;
            tx.edit(&buyer, |data| {
                data.coins -= price;
                data.trades.push(number);
                data.items.extend(item);
                data.sign(label);
            })
        });
        let Some(answer) = life.wait(done).await else { return };
        let books = &mut *self.world.clerk.0.lock();
        books.note(Some(&self.key), || format!("trade {number} of {} and {}: {answer:?}", mine.key().key(), other.key().key()));
        match answer {
            Ok(()) => {
                books.told.trades[number as usize] = TradeTold::Done;
                books.counts.add("trades");
                let outcome = books.invariants.trades.acknowledged(&self.key, number);
                books.check(outcome);
            }
            Err(error) if is_unknown(&error) => {}
            Err(_) => books.told.trades[number as usize] = TradeTold::Failed,
        }
        for (label, profile) in [(label, mine), (partner, other)] {
            let edits = profile.read(|data| data.edits.get(&label).copied().unwrap_or_default());
            if let Some(session) = books.told.sessions.get_mut(&label) {
                session.edits = session.edits.max(edits);
            }
        }
    }

    /// Gives coins to a player wherever he is: his debit and the message are one commit.
    async fn give(&mut self, label: Label) {
        let to = key_of(self.dice.below(self.world.size.players));
        if to == self.key {
            return;
        }
        let (profile, life) = {
            let books = self.world.clerk.0.lock();
            let session = &books.told.sessions[&label];
            (session.profile.clone(), session.life.clone())
        };
        let Some(running) = self.running_of(&life) else { return };
        let coins = 1 + self.dice.below(30) as i64;
        let number = {
            let letters = &mut self.world.clerk.0.lock().told.letters;
            letters.push(LetterTold { to: to.clone(), coins, gift: true, ..LetterTold::default() });
            letters.len() as u64 - 1
        };
        let id = MessageId::new(self.world.clock.start_ms, &format!("letter-{number}")).expect("the name is short");
        // The second time is a caller that did not hear the answer.
        for _ in 0..=usize::from(self.dice.chance(0.3)) {
            self.world.clerk.0.lock().told.letters[number as usize].under_way += 1;
            let (giver, players, to_, id) = (profile.clone(), running.players.clone(), to.clone(), id.clone());
            let done = running.server.transaction().with(&profile).run(move |tx| {
                tx.edit(&giver, |data| {
                    data.coins -= coins;
                    data.sign(label);
                })?;
                tx.gift_as(&players, &to_, &id, &Letter { number, coins, gift: true })
            });
            let Some(answer) = life.wait(done).await else { return };
            let books = &mut *self.world.clerk.0.lock();
            books.note(Some(&self.key), || format!("gift {number} of {} to {to}: {answer:?}", self.key));
            let told = &mut books.told.letters[number as usize];
            told.under_way -= 1;
            let stored = match answer {
                Ok(()) => {
                    books.counts.add("gifts");
                    true
                }
                Err(error) => {
                    told.unknown |= is_unknown(&error);
                    error.kind() == ErrorKind::DoneBefore
                }
            };
            if stored {
                books.told.letters[number as usize].stored = true;
                let outcome = books.invariants.messages.acknowledged(&to, number);
                books.check(outcome);
            }
            let edits = profile.read(|data| data.edits.get(&label).copied().unwrap_or_default());
            if let Some(session) = books.told.sessions.get_mut(&label) {
                session.edits = session.edits.max(edits);
            }
        }
    }

    fn restores(&self) -> u64 {
        self.world.clerk.0.lock().counts.0.get("backups restored").copied().unwrap_or_default()
    }

    /// An operator's change, or a rollback to what was read a while ago.
    async fn read_and_write(&self) {
        let Some(Running { players, life, .. }) = self.somewhere() else { return };
        self.world.operating.fetch_add(1, Ordering::Relaxed);
        self.rewrite(&players, &life).await;
        self.world.operating.fetch_sub(1, Ordering::Relaxed);
    }

    async fn rewrite(&self, players: &ProfileStore<Player>, life: &Arc<Life>) {
        let Some(Ok(mut read)) = life.wait(players.get(&self.key)).await else { return };
        tokio::time::sleep(self.dice.around(2.0)).await;
        let label = {
            let books = &mut *self.world.clerk.0.lock();
            let label = books.told.label();
            books.told.operators.insert(label, self.key.clone());
            books.counts.add("operator writes");
            books.note(Some(&self.key), || format!("an operator writes {} as {label}", self.key));
            label
        };
        read.data.mint(1000);
        // What he had a while ago may be somebody else's by now.
        read.data.items.clear();
        read.data.sign(label);
        let Some(answer) = life.wait(read.set()).await else { return };
        let books = &mut *self.world.clerk.0.lock();
        books.note(Some(&self.key), || format!("the operator has written {label}: {answer:?}"));
        if answer.is_ok() {
            let outcome = books.invariants.durable.acknowledged(&self.key, label, 1);
            books.check(outcome);
        }
    }

    async fn remove(&self) {
        let Some(Running { players, life, .. }) = self.somewhere() else { return };
        {
            let books = &mut *self.world.clerk.0.lock();
            *books.told.removals.entry(self.key.clone()).or_default() += 1;
            books.counts.add("removals");
            books.note(Some(&self.key), || format!("{} is to be removed", self.key));
        }
        let answer = life.wait(players.remove(&self.key)).await;
        self.world.note(Some(&self.key), || format!("removed: {answer:?}"));
    }

    /// G9: an end, then a read on the same server: the read sees the last save.
    async fn check_order(&self, label: Label) {
        let (life, edits) = {
            let books = self.world.clerk.0.lock();
            let session = &books.told.sessions[&label];
            let Some((SessionEnd::Manual, edits)) = session.ended else { return };
            (session.life.clone(), edits)
        };
        let Some(running) = self.running_of(&life) else { return };
        let Some(Ok(read)) = life.wait(running.players.get(&self.key)).await else { return };
        let seen = read.data.edits.get(&label).copied().unwrap_or_default();
        let books = &mut *self.world.clerk.0.lock();
        // Only if the last save could be done at all: the session may have been lost.
        let committed = books.invariants.durable.edits(&self.key, label);
        if committed >= edits && seen < edits && !books.invariants.durable.rewritten(&self.key, label) {
            let what = format!("session {label} ended with {edits} edits, and a read after that on its server saw {seen}");
            let outcome = broken("G9", &self.key, what);
            books.check(outcome);
        }
    }

    fn running_of(&self, life: &Arc<Life>) -> Option<Running> {
        let nodes = 0..self.world.size.servers;
        nodes.filter_map(|node| self.world.running(node)).find(|running| Arc::ptr_eq(&running.life, life))
    }
}

pub(super) fn is_unknown(error: &Error) -> bool {
    error.kind() == ErrorKind::Unknown
}
