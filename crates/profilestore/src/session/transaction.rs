//! One commit over several live profiles, and what it sends to others.
//!
//! A transaction takes a turn in the queue of every participant. When it has them all, saves,
//! looks, hand-overs and ends wait behind it by themselves, so the facts that its commit is built
//! on stand still. It runs the program's closure on copies, and the copies become the data when the
//! commit is known to be applied. Until then the data refuses edits; nothing else ever has to be
//! taken back.
//!
//! All turns are asked for under one lock of the link. So any two transactions meet in the same
//! order in all the queues they share, and none waits for another that waits for it.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use super::{
    Session,
    editing::Editing,
    save::{Prepared, was_done_before},
    snapshot::Snapshot,
};
use crate::{
    data_store::{
        Cause, Change, Commit, CommitReply, Conflict, ConflictKind, KeyState, Returning, StoreError,
    },
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::{
        Link,
        commit::Backoff,
        deadline::{Deadline, Eager, ForEver},
        hosting::Request,
        queue::Answer,
        room::Rank,
    },
    ownership::Held,
};

mod draft;

pub(crate) use draft::{Draft, Drafts};

/// Edits the drafts. False: nothing is to be done, for a reason that the closure keeps to itself.
pub(crate) type Script = Box<dyn FnOnce(&mut Drafts) -> bool + Send>;

/// What a participant's turn ends with: what the store holds after the commit, and the data that is
/// now stored. None: that is not known, since the transaction had been done before.
type Applied = (KeyState, Option<Snapshot>);

/// A participant that holds its turn for as long as this lives.
struct Turn {
    session: Arc<Session>,
    /// Dropping it ends the turn without a commit.
    conclude: oneshot::Sender<Applied>,
    place: Place,
}

/// A transaction's place among the calls on a session: an end that is called later comes behind it.
struct Place(Arc<Session>);

impl Place {
    fn take(session: &Arc<Session>) -> Result<Self> {
        if session.live.line_up() { Ok(Self(session.clone())) } else { Err(over(session)) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.live.leave_line();
    }
}

/// What a transaction that did not fail has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transacted {
    /// What the script made is durable.
    Now,
    /// The request had been done before.
    Before,
    /// The script said no.
    Refused,
}

/// Runs a transaction over sessions of one game server, each of another key. Under way at once.
/// `sent`: told the key of every message that it sent.
pub(crate) fn transact<F: Fn(&ProfileKey) + Send + 'static>(
    link: &Arc<Link>,
    sessions: Vec<Arc<Session>>,
    time: Option<Duration>,
    script: Script,
    request: Option<Request>,
    sent: F,
) -> impl Future<Output = Result<Transacted>> + Send + 'static + use<F> {
    let began = link.env.now();
    let usual = link.env.after(link.settings().call_timeout);
    let deadline = match time.map(|time| link.env.after(time)) {
        Some(own) if own < usual => Deadline::own(began, own),
        at => Deadline::new(began, at.unwrap_or(usual)),
    };
    let lined_up = line_up(link, sessions);
    let (mut reply, answer) = Answer::to_come();
    let lined_up = lined_up.map(|(turns, arrivals)| {
        let link_ = link.clone();
        link.runtime.spawn(async move {
            let result =
                conduct(&link_, turns, arrivals, deadline, script, request, sent, reply.begun())
                    .await;
            let word = match &result {
                Ok(Transacted::Now | Transacted::Before) => "done",
                Ok(Transacted::Refused) => "refused by the program",
                Err(_) => "failed",
            };
            metrics::counter!("profilestore_transactions_total", "outcome" => word).increment(1);
            let took = link_.env.now().saturating_duration_since(began);
            metrics::histogram!("profilestore_transaction_seconds").record(took.as_secs_f64());
            reply.send(Ok(result));
        });
    });
    async move {
        lined_up?;
        answer.wait().await?
    }
}

/// Asks for a turn in every session's queue. `()` comes for each turn that has come.
fn line_up(
    link: &Arc<Link>,
    sessions: Vec<Arc<Session>>,
) -> Result<(Vec<Turn>, mpsc::UnboundedReceiver<()>)> {
    for session in &sessions {
        link.check_open(&session.key)?;
    }
    let limit = link.settings().max_key_queue;
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let mut turns = Vec::with_capacity(sessions.len());
    let _order = link.lining_up.lock();
    for session in sessions {
        let place = Place::take(&session)?;
        let (conclude, concluded) = oneshot::channel::<Applied>();
        let (arrived, session_) = (arrived.clone(), session.clone());
        link.queues.run(&session.key, limit, async move {
            if arrived.send(()).is_err() {
                // Given up before its turn came.
                return;
            }
            match concluded.await {
                Ok((state, Some(stored))) => session_.respond(state, Some(&stored)).await,
                Ok((state, None)) => {
                    session_.note_done_before(state).await;
                    // Its inbox is not in the reply.
                    session_.queue_look();
                }
                // Messages that came meanwhile were not offered.
                Err(_) => session_.offer_messages(),
            }
        })?;
        session.hurry.notify_one();
        turns.push(Turn { session, conclude, place });
    }
    Ok((turns, arrivals))
}

/// Fails when the session was lost before its turn came.
fn check_held(session: &Session) -> Result<()> {
    if session.is_known_to_be_over() { Err(over(session)) } else { Ok(()) }
}

fn over(session: &Session) -> Error {
    Error::new(ErrorKind::SessionEnded, "the session is over; the transaction was not done")
        .about(&session.key)
}

/// Waits for all turns, runs the script and commits. `begun` becomes
/// true before anything is done that may last.
#[expect(clippy::too_many_arguments, reason = "called once, right above")]
async fn conduct(
    link: &Arc<Link>,
    turns: Vec<Turn>,
    mut arrivals: mpsc::UnboundedReceiver<()>,
    deadline: Deadline,
    script: Script,
    request: Option<Request>,
    sent: impl Fn(&ProfileKey),
    begun: &mut bool,
) -> Result<Transacted> {
    let all = async {
        for _ in 0..turns.len() {
            arrivals.recv().await;
        }
    };
    if link.env.timeout_at(deadline.at(), all).await.is_err() {
        return Err(too_late());
    }
    for Turn { session, .. } in &turns {
        check_held(session)?;
        if !session.is_confirmed() {
            let message = "this server has not confirmed that it still holds the profile; the \
                transaction was not done";
            return Err(Error::new(ErrorKind::Unconfirmed, message).about(&session.key));
        }
    }
    for Turn { session, .. } in &turns {
        let read = link.env.timeout_at(deadline.at(), session.read_before(false)).await;
        read.map_err(|_| too_late())??;
    }
    let (mut open, drafts) = Open::begin(turns)?;
    open.request = request;
    let mut drafts = Drafts { link: link.clone(), drafts, gifts: Vec::new(), fault: None };
    let wanted = {
        let _editing = Editing::begin();
        script(&mut drafts)
    };
    if !wanted {
        return Ok(Transacted::Refused);
    }
    let Drafts { drafts, gifts, fault, .. } = drafts;
    if let Some(fault) = fault {
        return Err(fault);
    }
    let given = gifts.iter().map(payload_bytes).sum::<usize>();
    let bytes = drafts.iter().map(Draft::stored_bytes).sum::<usize>() + given;
    let mut pass =
        match link.env.timeout_at(deadline.at(), link.room.enter(Rank::First, bytes)).await {
            Ok(pass) => pass,
            Err(_) => return Err(too_late()),
        };
    let mut prepared = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let (session, snapshot) = draft.finish();
        let ready = session.prepare(snapshot)?;
        let over = session.prepare_over_document(&ready, || true);
        let over = link.env.timeout_at(deadline.at(), over).await.map_err(|_| too_late())??;
        prepared.push(over.unwrap_or(ready));
    }
    pass.resize(prepared.iter().map(Prepared::bytes).sum::<usize>() + given);
    let gifted: Vec<ProfileKey> = gifts.iter().filter_map(Change::key).cloned().collect();
    *begun = true;
    let done = open.commit(link, prepared, gifts, deadline).await?;
    metrics::counter!("profilestore_messages_sent_total").increment(gifted.len() as u64);
    // The store leaves no notice for the sender itself.
    gifted.iter().for_each(sent);
    Ok(done)
}

/// How much a gift holds.
fn payload_bytes(gift: &Change) -> usize {
    match gift {
        Change::AppendMessage { message, .. } => message.payload.len(),
        _ => 0,
    }
}

fn too_late() -> Error {
    Error::new(
        ErrorKind::TimedOut,
        "the transaction could not be done before its deadline; nothing was done",
    )
}

/// The open transaction. Dropping it opens the data again in any case; the turns end after that.
struct Open {
    turns: Vec<Turn>,
    /// How many of them refuse edits.
    begun: usize,
    /// In whose name it is, if it is a request of a game server that runs elsewhere.
    request: Option<Request>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.roll_back();
    }
}

impl Open {
    fn begin(turns: Vec<Turn>) -> Result<(Self, Vec<Draft>)> {
        let mut open = Self { turns, begun: 0, request: None };
        let mut drafts = Vec::with_capacity(open.turns.len());
        for Turn { session, .. } in &open.turns {
            let now = session.link.env.now();
            let before = session.live.begin_transaction(&session.key, now)?;
            open.begun += 1;
            drafts.push(Draft { session: session.clone(), before, copy: None, handed: None });
        }
        Ok((open, drafts))
    }

    fn roll_back(&mut self) {
        for Turn { session, .. } in &self.turns[..std::mem::take(&mut self.begun)] {
            session.live.end_transaction(None);
        }
    }

    /// Commits until the outcome is known, and makes the copies the data if it was applied.
    /// `prepared` goes with the turns.
    async fn commit(
        mut self,
        link: &Link,
        mut prepared: Vec<Prepared>,
        gifts: Vec<Change>,
        deadline: Deadline,
    ) -> Result<Transacted> {
        let mut returning = Returning::HEAD;
        loop {
            match self.send(link, &prepared, &gifts, returning, deadline).await {
                Ok(reply) => {
                    let before = was_done_before(self.request, &reply);
                    self.apply(prepared, reply);
                    return Ok(if before { Transacted::Before } else { Transacted::Now });
                }
                Err(StoreError::Conflict(conflict)) => {
                    if conflict.kind == ConflictKind::MessageGone {
                        // Only the inbox itself says which are left.
                        returning = Returning::INBOX;
                    }
                    self.give_way(link, *conflict, &mut prepared, deadline).await?;
                    if link.env.now() > deadline.at() {
                        return Err(too_late());
                    }
                }
                Err(error) => {
                    self.roll_back();
                    if matches!(error, StoreError::Replaced { .. }) {
                        lose_all(link, std::mem::take(&mut self.turns), deadline).await;
                    }
                    return Err(error.into());
                }
            }
        }
    }

    async fn send(
        &self,
        link: &Link,
        prepared: &[Prepared],
        gifts: &[Change],
        returning: Returning,
        deadline: Deadline,
    ) -> Result<CommitReply, StoreError> {
        // First the gifts, so that one that was sent before is found no matter what else has
        // changed since.
        let mut changes = gifts.to_vec();
        for (turn, prepared) in self.turns.iter().zip(prepared) {
            changes.extend(turn.session.changes(prepared, Cause::Transaction));
        }
        // All began in the same incarnation of the store, or else it refuses some.
        let incarnation = self.turns[0].session.incarnation;
        if defect!(TradeInTwoCommits) && self.turns.len() > 1 {
            let first = self.turns[0].session.changes(&prepared[0], Cause::Transaction);
            changes.retain(|change| !first.contains(change));
            let commit = Commit { incarnation, ..link.new_commit(first, returning) };
            let _ = settle_or_call_off(link, &commit, deadline).await;
        }
        let mut commit = Commit { incarnation, ..link.new_commit(changes, returning) };
        if let Some(request) = self.request {
            commit = request.stamp(commit);
        }
        settle_or_call_off(link, &commit, deadline).await
    }

    /// A precondition failed. Ok: its participant knows better now, and the commit is worth
    /// building anew.
    async fn give_way(
        &mut self,
        link: &Link,
        conflict: Conflict,
        prepared: &mut [Prepared],
        deadline: Deadline,
    ) -> Result<()> {
        let key = conflict.state.as_ref().map(|state| state.key.clone());
        if matches!(
            conflict.kind,
            ConflictKind::InboxFull
                | ConflictKind::MessageSeen
                | ConflictKind::MessageIdReused
                | ConflictKind::MessageIdExpired
        ) {
            let error = StoreError::Conflict(Box::new(conflict));
            return Err(match key {
                Some(key) => link.not_sent(error, &key),
                None => error.into(),
            });
        }
        let at_fault = self.turns.iter().position(|turn| Some(&turn.session.key) == key.as_ref());
        let Some(at_fault) = at_fault else {
            return Err(StoreError::Conflict(Box::new(conflict)).into());
        };
        let session = self.turns[at_fault].session.clone();
        if conflict.state.as_ref().is_none_or(|state| session.held(state) == Held::Lost) {
            self.roll_back();
            let turn = self.turns.swap_remove(at_fault);
            self.turns.clear();
            return lose(link, turn, conflict, deadline).await;
        }
        session.yield_to(conflict).await?;
        let again = session.prepare_over_document(&prepared[at_fault], || true);
        let again = link.env.timeout_at(deadline.at(), again).await.map_err(|_| too_late())??;
        if let Some(again) = again {
            prepared[at_fault] = again;
        }
        Ok(())
    }

    /// The commit was applied: the copies become the data, and each participant's turn goes on with
    /// what the store said.
    fn apply(mut self, prepared: Vec<Prepared>, mut reply: CommitReply) {
        self.begun = 0;
        let before = was_done_before(self.request, &reply);
        for (turn, prepared) in std::mem::take(&mut self.turns).into_iter().zip(prepared) {
            let Turn { session, conclude, place } = turn;
            if before {
                session.live.end_transaction(None);
            } else {
                session.live.end_transaction(Some(&prepared.snapshot));
                session.stored(&prepared);
            }
            let state = reply
                .states
                .iter()
                .position(|state| state.key == session.key)
                .map(|at| reply.states.swap_remove(at));
            if let Some(state) = state {
                // What is left to do in the turn: messages, listeners, a hand-over that was asked
                // for.
                let _ = conclude.send((state, (!before).then_some(prepared.snapshot)));
            }
            drop(place);
        }
    }
}

/// Ends the session of a participant that was lost. The other participants' turns are over by then,
/// and the transaction's caller waits no longer than the deadline: what the session's listeners are
/// to get may have to be read from a store that is away.
async fn lose(link: &Link, turn: Turn, conflict: Conflict, deadline: Deadline) -> Result<()> {
    let ended = link.runtime.spawn(async move {
        let answer = turn.session.yield_to(conflict).await;
        drop(turn);
        answer
    });
    match link.env.timeout_at(deadline.at(), ended).await {
        Ok(Ok(answer)) => answer,
        _ => Err(too_late()),
    }
}

/// The same for all participants, when a backup has taken the place of what they are of.
async fn lose_all(link: &Link, turns: Vec<Turn>, deadline: Deadline) {
    let lose = |turn: Turn| async move {
        turn.session.lose("the store's contents were replaced by a backup").await;
        drop(turn);
    };
    let ended = link.runtime.spawn(join_all(turns.into_iter().map(lose)));
    // The answer is the error that was met, whether or not they are all over by then.
    let _ = link.env.timeout_at(deadline.at(), ended).await;
}

/// Commits under one identity until the outcome is known. When the deadline finds it unknown, it is
/// made known by calling the commit off. So an error says that nothing was done. The participants
/// refuse edits meanwhile, so each attempt comes as soon as the store answers again.
async fn settle_or_call_off(
    link: &Link,
    commit: &Commit,
    deadline: Deadline,
) -> Result<CommitReply, StoreError> {
    let unknown =
        match link.env.timeout_at(deadline.at(), link.settle(commit, Eager(deadline))).await {
            Ok(Err(error @ StoreError::Indeterminate { .. })) => error,
            Ok(settled) => return settled,
            // A call that gives no answer may still arrive.
            Err(_) => StoreError::Indeterminate {
                commit: commit.id,
                reason: "no answer before the deadline".into(),
            },
        };
    tracing::debug!(error = %unknown, "a transaction is called off at its deadline");
    let called_off = match link.call_off(commit, &mut Backoff::default(), &Eager(ForEver)).await {
        // Nothing will tell any more.
        Err(StoreError::TakenAway { .. }) => return Err(unknown),
        known => known?,
    };
    if called_off {
        return Err(StoreError::Unavailable {
            reason: "no answer before the deadline; the transaction was called off".into(),
        });
    }
    // It had been applied. The same commit again brings what the store holds since.
    link.settle(commit, Eager(ForEver)).await
}
