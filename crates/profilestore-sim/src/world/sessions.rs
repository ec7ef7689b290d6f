//! Sessions as clients have them: starts, ends, and the listeners that keep the books.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use profilestore::{ErrorKind, Message, Result, SessionEnd, StartOptions};
use tokio::{task::JoinHandle, time::Instant};

use super::{Running, World, life::Life, operators::user_of, players::player_of};
use crate::{
    books::{Books, Clerk},
    data::{Label, Letter},
    invariants::{broken, starts},
    oracle::{SessionTold, StartTold},
    seat::{Door, Seat, Starting},
};

/// After how long a start without a limit of its own gives up.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A start that was called.
pub(super) struct Start {
    number: u64,
    key: String,
    life: Arc<Life>,
    answer: Starting,
}

impl World {
    /// Calls a start and puts it into the books.
    pub(super) fn start(
        &self,
        running: &Running,
        key: &str,
        door: Door,
        options: StartOptions,
    ) -> Start {
        let Running { doors, life, .. } = running;
        let number = {
            let books = &mut *self.clerk.0.lock();
            let number = books.told.call();
            books.note(Some(key), || {
                format!(
                    "{key} joins {} as start {number} steal={} {door:?}",
                    life.job, options.steal
                )
            });
            books.told.forget_old_starts();
            let limit = options.timeout.unwrap_or(START_TIMEOUT);
            books.told.starts.push(StartTold {
                number,
                key: key.to_owned(),
                life: life.clone(),
                since: Instant::now(),
                until: None,
                // A function that decides about held profiles may steal.
                steal: options.steal || options.when_held.is_some(),
                overwrite: options.overwrite,
                may_be_cancelled: options.cancel.is_some() || options.when_held.is_some(),
                limit: options.cancel.is_none().then_some(limit),
            });
            number
        };
        Start {
            number,
            key: key.to_owned(),
            life: life.clone(),
            answer: doors.start(door, key, options),
        }
    }

    /// The caller goes away.
    pub(super) fn call_off(&self, start: Start) {
        let Start { number, key, answer, .. } = start;
        drop(answer);
        let books = &mut *self.clerk.0.lock();
        books.note(Some(&key), || format!("start {number} of {key} is dropped"));
        books.counts.add("left before loaded");
        books.told.start_ended(number);
    }

    /// Waits for a start. None when its caller leaves before it is answered, or when the server is
    /// gone.
    pub(super) async fn hear(
        &self,
        start: Start,
        leaves_after: Option<Duration>,
    ) -> Option<Result<Label, ErrorKind>> {
        let Start { number, key, life, answer } = start;
        let outcome = match leaves_after {
            Some(after) => life.wait(tokio::time::timeout(after, answer)).await.map(Result::ok),
            None => life.wait(answer).await.map(Some),
        };
        self.clerk.0.lock().told.start_ended(number);
        match outcome? {
            Some(Ok(seat)) => self.seated(&key, &life, seat).await.map(Ok),
            Some(Err(error)) => {
                let kind = error.kind();
                let books = &mut *self.clerk.0.lock();
                books.note(Some(&key), || {
                    format!("start {number} of {key} is refused on {}: {error}", life.job)
                });
                let outcome = starts::refused(number, kind, &books.told);
                books.check(outcome);
                Some(Err(kind))
            }
            None => {
                self.note(Some(&key), || format!("{key} left {} before it was loaded", life.job));
                self.count("left before loaded");
                None
            }
        }
    }

    /// Starts a session for a client. None when there is none, or when the client goes away first.
    pub(super) async fn join(
        &self,
        running: &Running,
        key: &str,
        options: StartOptions,
        leaves_after: Option<Duration>,
    ) -> Option<Result<Label, ErrorKind>> {
        self.hear(self.start(running, key, Door::Main, options), leaves_after).await
    }

    /// A client has a session: puts it into the books.
    async fn seated(&self, key: &str, life: &Arc<Life>, seat: Seat) -> Option<Label> {
        if !seat.fits() {
            self.check(broken(
                "types",
                key,
                format!("a handle on {} is of another type than its data", life.job),
            ));
            return None;
        }
        let holder = self.store.side(seat.key()).await.lease.holder;
        let store_name =
            holder.filter(|holder| holder.job_id == life.job).map(|holder| holder.session);
        let label = {
            let books = &mut *self.clerk.0.lock();
            let label = books.told.label();
            books.counts.add("sessions");
            books.note(Some(key), || format!("{key} is on {} as session {label}", life.job));
            let over = seat.is_over();
            let session = SessionTold {
                key: key.to_owned(),
                disturbed: over || store_name.is_none(),
                store_name,
                life: life.clone(),
                seat: seat.clone(),
                edits: 0,
                // It may have ended before its client could listen: at a shutdown.
                ended: over.then_some((SessionEnd::Shutdown, 0)),
                end_called: None,
            };
            books.told.sessions.insert(label, session);
            label
        };
        // Whose it is, for erasure. A session that is over refuses.
        let _ = seat.add_user_id(user_of(player_of(key)));
        listen(&self.clerk, label, key, &seat);
        Some(label)
    }

    /// Calls the end of a client's session; the answer goes into the books whenever it comes.
    pub(super) fn end(&self, label: Label) -> JoinHandle<Option<Result<(), ErrorKind>>> {
        let (seat, life, key) = {
            let books = &mut *self.clerk.0.lock();
            let number = books.told.call();
            let session = books.told.sessions.get_mut(&label).expect("a label is a session's");
            session.end_called.get_or_insert(number);
            (session.seat.clone(), session.life.clone(), session.key.clone())
        };
        self.note(Some(&key), || format!("session {label} ends"));
        let ended = seat.end_session();
        let clerk = self.clerk.clone();
        tokio::spawn(async move {
            let answer = life.wait(ended).await?;
            let books = &mut *clerk.0.lock();
            books.note(Some(&key), || format!("session {label} has ended: {answer:?}"));
            let edits = books
                .told
                .sessions
                .get(&label)
                .and_then(|session| session.ended.clone())
                .map(|(_, edits)| edits);
            if let (Ok(()), Some(edits)) = (&answer, edits) {
                let outcome = books.invariants.durable.acknowledged(&key, label, edits);
                books.check(outcome);
            }
            Some(answer.map_err(|error| error.kind()))
        })
    }
}

/// Connects a session to the books and lets it take its messages.
fn listen(clerk: &Arc<Clerk>, label: Label, key: &str, seat: &Seat) {
    let (books, key_) = (Arc::downgrade(clerk), key.to_owned());
    seat.on_session_end(move |end| {
        let Some(clerk) = books.upgrade() else { return };
        session_ended(&mut clerk.0.lock(), label, &key_, end);
    });
    let (books, key_) = (Arc::downgrade(clerk), key.to_owned());
    seat.on_after_save(move |data| {
        let Some(clerk) = books.upgrade() else { return };
        let books = &mut *clerk.0.lock();
        for (writer, edits) in &data.edits {
            let outcome = books.invariants.durable.acknowledged(&key_, *writer, *edits);
            books.check(outcome);
        }
    });
    // Some wait for the next session.
    take_messages(clerk, label, seat, |turn| turn % 7 != 3);
}

fn session_ended(books: &mut Books, label: Label, key: &str, end: SessionEnd) {
    books.note(Some(key), || format!("session {label} is over: {end:?}"));
    let saves = end.saves();
    books.counts.add(match end {
        SessionEnd::External => "hand-overs",
        SessionEnd::Lost => "sessions lost",
        SessionEnd::Operator { .. } => "sessions that operators ended",
        _ => "sessions ended",
    });
    let Some(session) = books.told.sessions.get_mut(&label) else { return };
    session.ended = Some((end, session.edits));
    if !saves {
        let outcome = books.invariants.lost.told(label, &books.told.sessions[&label]);
        books.check(outcome);
    }
}

/// Lets a session take its messages, those of its turns that `takes` wants.
pub(super) fn take_messages(
    clerk: &Arc<Clerk>,
    label: Label,
    seat: &Seat,
    takes: impl Fn(u64) -> bool + Send + Sync + 'static,
) {
    let (books, turns) = (Arc::downgrade(clerk), Mutex::new(0u64));
    seat.message_handler(move |data, message: &Message<'_>| {
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
