//! Calls in every order on one profile, none of which waits for the one before it; some callers do
//! not wait for their answers at all. What came of them is judged by the order of the calls.

use std::{pin::Pin, sync::Arc, time::Duration};

use profilestore::{ErrorKind, SessionEnd, ShutdownReport, StartOptions};
use tokio::{sync::oneshot, task::JoinSet, time::Instant};

use super::{Running, World, calls::Bargain, players::Actor};
use crate::{
    data::Label,
    dice::Dice,
    invariants::order::{Call, Calls, Heard, Known},
    oracle::StartTold,
    seat::Door,
};

type Answer = Pin<Box<dyn Future<Output = Heard> + Send>>;

/// Trouble that began this long before the calls may still be felt.
const FELT: Duration = Duration::from_secs(5);

fn heard(answer: Option<Result<(), ErrorKind>>) -> Heard {
    match answer {
        Some(Ok(())) => Heard::Done,
        Some(Err(kind)) => Heard::Refused(kind),
        None => Heard::Nothing,
    }
}

/// Calls on a session's profile, in the making.
pub(super) struct Burst {
    key: String,
    label: Label,
    running: Running,
    began: Instant,
    was_active: bool,
    /// An earlier call ends the session: what follows says nothing about the order of these calls.
    was_ending: bool,
    /// How often the profile had been rewritten when it began.
    rewritten: u64,
    calls: Calls,
    answers: JoinSet<(usize, Heard)>,
}

impl Burst {
    pub(super) fn new(world: &World, running: Running, label: Label) -> Self {
        let books = world.clerk.0.lock();
        let session = &books.told.sessions[&label];
        Self {
            key: session.key.clone(),
            label,
            running,
            began: Instant::now(),
            was_active: session.seat.is_active(),
            was_ending: session.end_called.is_some(),
            rewritten: books.told.rewritten(&session.key),
            calls: Calls::default(),
            answers: JoinSet::new(),
        }
    }

    fn has_ended(&self) -> bool {
        self.calls.0.iter().any(|(call, _)| matches!(call, Call::End { .. }))
    }

    /// Notes a call; its caller waits for the answer, or has gone.
    fn note(&mut self, call: Call, answer: Option<Answer>) {
        // Another client may have had the server shut down meanwhile, which ends the session too.
        if self.running.life.is_closing_before(u64::MAX) && !self.has_ended() {
            self.calls.0.push((Call::End { edits: 0 }, Heard::Nothing));
        }
        let at = self.calls.0.len();
        self.calls.0.push((call, Heard::Nothing));
        if let Some(answer) = answer {
            self.answers.spawn(async move { (at, answer.await) });
        }
    }

    /// Makes a call that changes or reads the profile, and does not end the session.
    pub(super) fn call(&mut self, world: &Arc<World>, dice: &Dice, partner: Option<Label>) {
        let (world, listens) = (world.clone(), dice.chance(0.6));
        match dice.below(6) {
            0 | 1 => {
                let save = world.save(self.label);
                let edits = save.edits;
                let answer = listens.then(|| -> Answer {
                    Box::pin(async move { heard(world.hear_save(save).await) })
                });
                self.note(Call::Save { edits }, answer);
            }
            2 | 3 => {
                // What becomes of one with a partner is the partner's affair as well.
                let partner = partner.filter(|_| listens);
                let takers = partner.into_iter().chain([self.label]).collect();
                let called = world.transact(&self.running, takers, Bargain::None);
                let mark = called.mark;
                let answer = listens.then(|| -> Answer {
                    Box::pin(async move { heard(world.hear_transaction(called).await) })
                });
                self.note(Call::Transaction { mark }, answer);
            }
            4 => {
                let sending = world.send_once(&self.running, &self.key, 1 + dice.below(20) as i64);
                let letter = sending.letter;
                let answer: Option<Answer> = if listens {
                    Some(Box::pin(async move { heard(world.hear_sending(sending).await) }))
                } else {
                    world.sends_and_goes(sending);
                    None
                };
                self.note(Call::Send { letter }, answer);
            }
            _ => {
                let read = world.read(&self.running, &self.key, self.label);
                let answer: Answer = Box::pin(async move { read.await.unwrap_or(Heard::Nothing) });
                self.note(Call::Read, Some(answer));
            }
        }
    }

    fn end(&mut self, world: &World, dice: &Dice) {
        let edits = world.clerk.0.lock().told.sessions[&self.label].edits;
        let ended = world.end(self.label);
        let answer = dice
            .chance(0.7)
            .then(|| -> Answer { Box::pin(async move { heard(ended.await.ok().flatten()) }) });
        self.note(Call::End { edits }, answer);
    }

    /// The server is about to be shut down by this call.
    pub(super) fn shuts_down(&mut self, world: &World) {
        let edits = world.clerk.0.lock().told.sessions[&self.label].edits;
        self.note(Call::End { edits }, None);
    }

    /// The shutdown has returned.
    pub(super) fn has_shut_down(&mut self, report: &ShutdownReport) {
        let saved = !report.not_saved.iter().any(|(key, _)| key.key() == self.key);
        if let Some((Call::End { .. }, heard)) = self.calls.0.last_mut().filter(|_| saved) {
            *heard = Heard::Done;
        }
    }

    /// Waits for the answers whose futures were kept.
    async fn answered(&mut self) {
        while let Some(answer) = self.answers.join_next().await {
            self.hear(answer.ok());
        }
    }

    /// Takes the answers that are there.
    pub(super) fn take_answers(&mut self) {
        while let Some(answer) = self.answers.try_join_next() {
            self.hear(answer.ok());
        }
    }

    fn hear(&mut self, answer: Option<(usize, Heard)>) {
        if let Some((at, heard)) = answer {
            self.calls.0[at].1 = heard;
        }
    }

    /// Judges what was heard, unless others had a hand in it.
    pub(super) fn judge(mut self, world: &World, end: SessionEnd) {
        let books = &mut *world.clerk.0.lock();
        let session = &books.told.sessions[&self.label];
        let ended_so = session.ended.as_ref().is_none_or(|(ended, _)| *ended == end);
        if self.was_ending
            || session.disturbed
            || !ended_so
            || books.told.rewritten(&self.key) != self.rewritten
        {
            return;
        }
        let life = &self.running.life;
        let others = |start: &StartTold| {
            start.key == self.key
                && Arc::ptr_eq(&start.life, life)
                && start.until.is_none_or(|until| until >= self.began)
        };
        if books.told.starts.iter().filter(|start| others(start)).count() > 1 {
            // A start may have found another client's start.
            self.calls.0.retain(|(call, _)| *call != Call::Start);
        }
        let mut known = Known {
            calm: self.was_active && !life.troubled_since(self.began - FELT),
            ..Known::default()
        };
        for (call, _) in &self.calls.0 {
            match call {
                Call::Transaction { mark } if books.invariants.order.is_done(*mark) => {
                    known.done.insert(*mark);
                }
                Call::Send { letter } => {
                    known.stored.extend(
                        books.invariants.messages.stored_as(*letter).map(|place| (*letter, place)),
                    );
                }
                _ => {}
            }
        }
        let outcome = self.calls.judge(&self.key, &known);
        books.check(outcome);
    }
}

impl Actor {
    /// Some calls on the session in any order, perhaps its end among them, and a new start.
    pub(super) async fn burst(&mut self, label: Label) {
        let Some(running) = self.running_of_session(label) else { return };
        self.world.count("bursts of calls");
        let mut burst = Burst::new(&self.world, running.clone(), label);
        let mut next: Option<oneshot::Receiver<_>> = None;
        for _ in 0..2 + self.dice.below(7) {
            match self.dice.below(10) {
                0..3 => {
                    self.edit(label, |data| data.mint(1));
                }
                3 if next.is_none() => burst.end(&self.world, &self.dice),
                4 if burst.has_ended() && next.is_none() => {
                    let start =
                        self.world.start(&running, &self.key, Door::Main, StartOptions::new());
                    let (world, (tell, told)) = (self.world.clone(), oneshot::channel());
                    let answer: Answer = Box::pin(async move {
                        let joined = world.hear(start, None).await;
                        let heard = heard(joined.map(|joined| joined.map(drop)));
                        let _ = tell.send(joined);
                        heard
                    });
                    burst.note(Call::Start, Some(answer));
                    next = Some(told);
                }
                _ => {
                    let partner = self.partner(label).filter(|_| self.dice.chance(0.3));
                    burst.call(&self.world, &self.dice, partner);
                }
            }
            if self.dice.chance(0.2) {
                tokio::time::sleep(self.dice.seconds(0.0, 0.05)).await;
            }
        }
        burst.answered().await;
        if burst.has_ended() {
            self.playing = None;
        }
        burst.judge(&self.world, SessionEnd::Manual);
        if let Some(mut told) = next {
            self.joined(running, told.try_recv().ok().flatten());
        }
    }
}
