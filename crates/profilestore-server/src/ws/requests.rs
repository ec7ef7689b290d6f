//! What a game server asks for: each frame is taken in order, and answered when it is done.
//!
//! Saves and ends of one session take their turn in the library's queue when their frame is taken,
//! so their order is that of the frames. The answers come as they are ready.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use profilestore::{
    ErrorKind, MessageId, ProfileKey, Sent,
    hosting::{Gift, HostedSession, Part, Request},
    key::DEFAULT_SCOPE,
};
use serde::Serialize;

use super::{
    connection::find_again,
    frames::{ClientFrame, Ending, GiftTo, Saving, Sending, ServerFrame, Stage, Tx, WINDOW},
    guest::{Begun, Brings, Guest},
};
use crate::{app::App, auth::Caller, keys::Scope, problem::Problem};

mod starts;

/// How soon a start or a message that found no room is to come again.
const RETRY_MS: u64 = 1000;

/// A game server with the rights that it has here.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) app: App,
    pub(crate) caller: Caller,
    pub(crate) guest: Arc<Guest>,
}

impl Desk {
    /// Takes one frame. `is_revoked`: the key may save and end, and nothing else.
    pub(crate) fn take(&self, frame: ClientFrame, is_revoked: bool) {
        match frame {
            ClientFrame::Start(start) if is_revoked => self.start_revoked(*start),
            ClientFrame::Send(sending) if is_revoked => self.send_revoked(&sending),
            ClientFrame::Tx(tx) if is_revoked => self.transact_revoked(*tx),
            ClientFrame::Start(start) => self.start(*start),
            ClientFrame::Cancel { i } => self.guest.cancel(i),
            ClientFrame::Save(saving) => self.save(*saving),
            ClientFrame::End(ending) => self.end(*ending),
            ClientFrame::Tx(tx) => self.transact(*tx),
            ClientFrame::Stage(stage) => self.stage(*stage),
            ClientFrame::Send(sending) => self.send(*sending),
            ClientFrame::Hello(_) | ClientFrame::Sessions(_) => {
                let problem = Problem::invalid("`hello` and `sessions` come first, and once");
                self.guest.complain(None, &problem);
            }
            // The connection answers these itself.
            ClientFrame::Ping { .. } | ClientFrame::Bye {} => {}
        }
    }

    /// Begins a request. None: it is under way already, or was refused.
    fn begin(&self, i: u64, kind: &str, frame: &impl Serialize) -> Option<Request> {
        let request = self.guest.instance.request(i, kind, frame);
        match self.guest.begin(i, request.fingerprint) {
            Begun::New => Some(request),
            Begun::Pending => None,
            Begun::Reused => {
                let detail = format!("the request's number was used for another one: i=`{i}`");
                let problem = Problem::new("request-id-reused", detail);
                self.guest.complain(Some(i), &problem);
                None
            }
        }
    }

    /// The same for a request that counts against the window.
    fn begin_in_window(&self, i: u64, kind: &str, frame: &impl Serialize) -> Option<Request> {
        let request = self.begin(i, kind, frame)?;
        if self.guest.take_window(WINDOW) {
            return Some(request);
        }
        self.guest.forget(i);
        self.guest.tell(&ServerFrame::Overloaded { i, retry_after_ms: RETRY_MS });
        None
    }

    fn profile(
        &self,
        store: &str,
        scope: Option<&str>,
        key: &str,
        needed: Scope,
    ) -> Result<ProfileKey, Problem> {
        let key = ProfileKey::new(store, scope.unwrap_or(DEFAULT_SCOPE), key)
            .map_err(|error| Problem::invalid(error.to_string()))?;
        self.caller.may(needed, &key)?;
        Ok(key)
    }

    /// A session of the game server, as long as this connection's key may hold it.
    fn session(&self, s: u64) -> Option<HostedSession> {
        let may = |key: &ProfileKey| self.caller.may(Scope::SessionsHold, key).is_ok();
        self.guest.session(s).filter(|session| may(session.key()))
    }

    // --- saves and ends ------------------------------------------------------------------------

    fn save(&self, saving: Saving) {
        let Some(request) = self.begin(saving.i, "save", &saving) else { return };
        let (i, s, n) = (saving.i, saving.s, saving.n);
        let is_next = self.guest.bring(i, [s], Brings::Save);
        if let Err(problem) = is_next.and_then(|()| self.guest.number_grows(i, s, n)) {
            return self.guest.refuse(i, &problem);
        }
        let processed = saving.processed.clone();
        let save = saving.save().and_then(|save| {
            save.ok_or_else(|| Problem::invalid("a save has the whole document in `data`"))
        });
        let save = match save {
            Ok(save) => save,
            Err(problem) => return self.guest.refuse(i, &problem),
        };
        let Some(session) = self.session(s) else {
            let desk = self.clone();
            tokio::spawn(async move {
                let saved = ServerFrame::Saved { i, s, n, version: None };
                desk.tell_outcome(i, request, saved).await;
            });
            return;
        };
        let saved = session.save(request, save);
        let desk = self.clone();
        tokio::spawn(async move {
            match saved.await {
                Ok(version) => {
                    desk.guest.stored(s, n, &processed);
                    let saved = ServerFrame::Saved { i, s, n, version };
                    desk.guest.answer(i, &saved);
                }
                Err(error) if error.kind() == ErrorKind::SessionEnded => {
                    let saved = ServerFrame::Saved { i, s, n, version: None };
                    desk.tell_outcome(i, request, saved).await;
                }
                Err(error) => desk.guest.refuse(i, &error.into()),
            }
        });
    }

    fn end(&self, ending: Ending) {
        let Some(request) = self.begin(ending.i, "end", &ending) else { return };
        let (i, s) = (ending.i, ending.s);
        let is_next = self.guest.bring(i, [s], Brings::End);
        if let Err(problem) = is_next.and_then(|()| self.guest.number_grows(i, s, ending.n)) {
            return self.guest.refuse(i, &problem);
        }
        let Some(session) = self.session(s) else {
            let desk = self.clone();
            tokio::spawn(async move {
                desk.tell_outcome(i, request, ServerFrame::Ended { i }).await;
            });
            return;
        };
        let last = match ending.save() {
            Ok(last) => last,
            Err(problem) => return self.guest.refuse(i, &problem),
        };
        let ended = session.end(request, last);
        let desk = self.clone();
        tokio::spawn(async move {
            match ended.await {
                Ok(()) => {
                    desk.guest.over(s);
                    desk.guest.answer(i, &ServerFrame::Ended { i });
                }
                Err(error) if error.kind() == ErrorKind::SessionEnded => {
                    desk.tell_outcome(i, request, ServerFrame::Ended { i }).await;
                }
                Err(error) if error.kind() == ErrorKind::RequestIdReused => {
                    // Of a number that was used at an earlier host; those of this one are known.
                    // The library has closed the session by then. Nothing was released, so it is
                    // found again before the game server hears of that.
                    find_again(&desk, s, session.key(), session.epoch()).await;
                    desk.guest.refuse(i, &error.into());
                }
                Err(error) => desk.guest.refuse(i, &error.into()),
            }
        });
    }

    /// Answers a request whose session is over: it took effect before, or it never will.
    async fn tell_outcome(&self, i: u64, request: Request, done: ServerFrame) {
        let never = Problem::new("session-ended", "the session is over");
        self.tell_outcome_or(i, request, done, &never).await;
    }

    /// The same of any request that is not to be done any more. `never`: why it never will be.
    async fn tell_outcome_or(&self, i: u64, request: Request, done: ServerFrame, never: &Problem) {
        match self.guest.server.outcome(request).await {
            Ok(true) => self.guest.answer(i, &done),
            Ok(false) => self.guest.refuse(i, never),
            Err(error) => self.guest.refuse(i, &error.into()),
        }
    }

    // --- several profiles ----------------------------------------------------------------------

    fn begin_tx(&self, tx: &mut Tx) -> Option<Request> {
        for part in &mut tx.parts {
            // What was staged for it is for no other, whatever becomes of it. It is a part of what
            // the request asks for.
            let staged = self.guest.staged(part.s, part.n);
            part.data = part.data.take().or(staged);
        }
        self.begin(tx.i, "tx", &*tx)
    }

    /// The key is valid no more. What took effect before is answered so: the game server would save
    /// over it otherwise.
    fn transact_revoked(&self, mut tx: Tx) {
        let Some(request) = self.begin_tx(&mut tx) else { return };
        let (desk, i) = (self.clone(), tx.i);
        tokio::spawn(async move {
            let done = ServerFrame::Done { i, versions: Vec::new() };
            desk.tell_outcome_or(i, request, done, &revoked()).await;
        });
    }

    fn transact(&self, mut tx: Tx) {
        let Some(request) = self.begin_tx(&mut tx) else { return };
        let i = tx.i;
        match self.parts(tx) {
            Ok((parts, gifts, deadline)) => {
                let desk = self.clone();
                let stored: Vec<_> = parts
                    .iter()
                    .map(|(s, n, part)| (*s, *n, part.save.processed.clone()))
                    .collect();
                let parts = parts.into_iter().map(|(.., part)| part).collect();
                tokio::spawn(async move {
                    let done = desk.guest.server.transact(request, parts, gifts, deadline).await;
                    match done {
                        Ok(versions) => {
                            for (s, n, processed) in stored {
                                desk.guest.stored(s, n, &processed);
                            }
                            desk.guest.answer(i, &ServerFrame::Done { i, versions });
                        }
                        Err(error) => desk.guest.refuse(i, &error.into()),
                    }
                });
            }
            Err(Unready::Gone) => {
                let desk = self.clone();
                tokio::spawn(async move {
                    let done = ServerFrame::Done { i, versions: Vec::new() };
                    desk.tell_outcome(i, request, done).await;
                });
            }
            Err(Unready::Wrong(problem)) => self.guest.refuse(i, &problem),
        }
    }

    fn parts(&self, tx: Tx) -> Result<TxParts, Unready> {
        let i = tx.i;
        let sessions: BTreeSet<u64> = tx.parts.iter().map(|part| part.s).collect();
        self.guest.bring(i, sessions, Brings::Part).map_err(Unready::Wrong)?;
        let mut parts = Vec::with_capacity(tx.parts.len());
        for part in tx.parts {
            let (s, n) = (part.s, part.n);
            let session = self.session(s).ok_or(Unready::Gone)?;
            self.guest.number_grows(i, s, n).map_err(Unready::Wrong)?;
            let save = part.save().map_err(Unready::Wrong)?.ok_or_else(|| {
                let detail = format!("nothing was staged for the part: s=`{s}` n=`{n}`");
                Unready::Wrong(Problem::invalid(detail))
            })?;
            parts.push((s, n, Part { session, save }));
        }
        let gifts = tx.gifts.into_iter().map(|gift| self.gift(gift));
        let gifts = gifts.collect::<Result<Vec<_>, _>>().map_err(Unready::Wrong)?;
        let mut named = BTreeSet::new();
        if let Some(twice) = gifts.iter().find(|gift| !named.insert((&gift.to, &gift.id))) {
            let detail = format!("two gifts to a profile have one id: id=`{}`", twice.id);
            return Err(Unready::Wrong(Problem::invalid(detail).about(&twice.to)));
        }
        Ok((parts, gifts, tx.deadline_ms.map(Duration::from_millis)))
    }

    fn gift(&self, gift: GiftTo) -> Result<Gift, Problem> {
        let GiftTo { store, scope, key, id, message } = gift;
        let to = self.profile(&store, scope.as_deref(), &key, Scope::MessagesSend)?;
        let id: MessageId = id.parse().map_err(|why| {
            Problem::invalid(format!("the id of a message is TIME:NAME: {why}: given=`{id}`"))
        })?;
        Ok(Gift { to, id, body: message })
    }

    fn stage(&self, stage: Stage) {
        if let Err(problem) = self.guest.stage(stage.s, stage.n, stage.data) {
            self.guest.complain(None, &problem);
        }
    }

    /// The key is valid no more. One that was taken before is answered when it is done.
    fn send_revoked(&self, sending: &Sending) {
        if self.begin(sending.i, "send", sending).is_some() {
            let detail = "the key is valid no more; a message that was sent before under this id \
                may have been delivered";
            self.guest.refuse(sending.i, &Problem::new("unauthorized", detail));
        }
    }

    fn send(&self, sending: Sending) {
        let i = sending.i;
        if self.begin_in_window(i, "send", &sending).is_none() {
            return;
        }
        let room = WindowRoom(self.guest.clone());
        match self.gift(sending.gift) {
            Err(problem) => self.guest.refuse(i, &problem),
            Ok(gift) => {
                let desk = self.clone();
                tokio::spawn(async move {
                    let _room = room;
                    match desk.guest.server.send(gift).await {
                        Ok(sent) => {
                            let stored_now = sent == Sent::Now;
                            desk.guest.answer(i, &ServerFrame::Sent { i, stored_now });
                        }
                        Err(error) => desk.guest.refuse(i, &error.into()),
                    }
                });
            }
        }
    }
}

fn revoked() -> Problem {
    Problem::new("unauthorized", "the key is valid no more")
}

type TxParts = (Vec<(u64, u64, Part)>, Vec<Gift>, Option<Duration>);

enum Unready {
    /// A session is not there any more.
    Gone,
    Wrong(Problem),
}

/// A place in the window, given back when the request is over in whatever way.
struct WindowRoom(Arc<Guest>);

impl Drop for WindowRoom {
    fn drop(&mut self) {
        self.0.give_window_back();
    }
}
