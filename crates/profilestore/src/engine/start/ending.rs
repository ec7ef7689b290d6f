//! The end of a load: it hands its session to the claim, or leaves the profile to the next start.

use std::sync::Arc;

use futures_util::FutureExt;

use crate::{
    data_store::Returning,
    engine::{
        Engine,
        claims::{Claim, Load, Terms},
        rewrite::{Plan, Sender},
        table::{Slot, Slots, Table},
    },
    ownership,
    session::{Session, info::SessionEnd},
};

impl Load {
    /// Hands the session to the claim that it was taken for. False: that one has gone, and the
    /// session stays in `taken`.
    pub(super) fn deliver(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        number: u64,
        taken: &mut Option<Arc<Session>>,
    ) -> bool {
        let Some(session) = taken.clone() else { return false };
        if self.judge(&engine.link, number) && !defect!(DeliveredToAnotherType) {
            return false;
        }
        let asked = session.known.lock().lease.request().is_some();
        // Before the program sees the data.
        session.apply_edits();
        let Some(terms) = self.give(engine, number, &session) else { return false };
        *taken = None;
        self.forget_waiter(&engine.table);
        if engine.link.server() != session.known.lock().held_by {
            // A new incarnation of this server began meanwhile, and adopted the sessions that it
            // saw.
            session.queue_adopt();
        }
        if engine.link.is_closing() {
            drop(session.finish(SessionEnd::Shutdown));
            return true;
        }
        let took = engine.link.env.now().saturating_duration_since(terms.since);
        metrics::counter!("profilestore_sessions_started_total").increment(1);
        metrics::histogram!("profilestore_start_seconds").record(took.as_secs_f64());
        engine.table.report(&engine.table.slots.lock());
        tracing::debug!(key = %session.key, load_count = session.load_count, ?took, "a session started");
        if engine.link.hosting.is_none() {
            engine.autosave.add(
                &session,
                engine.link.env.now(),
                engine.link.settings().autosave_period,
            );
        }
        // A hint or a notice that came before the session had its slot reached only the load.
        let hinted = self.wake.notified().now_or_never().is_some();
        if asked || hinted || session.unseen.since().is_some() {
            session.queue_look();
        }
        true
    }

    /// One step: the claim is there, the session takes the slot, and the claim gets it. A caller
    /// that goes away takes its claim first, so either it is found gone here, or it finds the
    /// session and ends that.
    fn give(
        self: &Arc<Self>,
        engine: &Engine,
        number: u64,
        session: &Arc<Session>,
    ) -> Option<Terms> {
        let mut slots = engine.table.slots.lock();
        let mut claims = self.claims.lock();
        let to_it =
            |claim: &mut Claim| claim.terms.number == number || defect!(DeliveredToAnotherType);
        let Claim { terms, reply } = claims.current.take_if(to_it)?;
        if let Some(before) = self.unseen.since() {
            engine.table.hold_session_back(session, before);
        }
        if self.has_slot(&slots) {
            slots.insert(self.key.clone(), Slot::Live(session.clone()));
        }
        let _ = reply.send(Ok(session.clone()));
        // What the program gave with its call is dropped outside of the locks.
        Some(terms)
    }

    /// Leaves the slot to the next start, unless one has claimed this load meanwhile. What was
    /// taken for a caller that has gone is released before that start does anything.
    pub(super) fn leave(
        self: &Arc<Self>,
        engine: &Engine,
        taken: &mut Option<Arc<Session>>,
    ) -> bool {
        let mut slots = engine.table.slots.lock();
        {
            let claims = self.claims.lock();
            if claims.current.is_some() || !claims.attempts.is_empty() {
                return false;
            }
        }
        if let Some(session) = taken.take() {
            session.finish_unclaimed();
        }
        self.forget_slot(&mut slots);
        drop(slots);
        self.forget_waiter(&engine.table);
        if let Some(session) = self.goes_on() {
            session.catch_up();
        }
        true
    }

    fn has_slot(self: &Arc<Self>, slots: &Slots) -> bool {
        matches!(slots.get(&self.key), Some(Slot::Loading(load)) if Arc::ptr_eq(load, self))
    }

    pub(super) fn forget_slot(self: &Arc<Self>, slots: &mut Slots) {
        if self.has_slot(slots) {
            match self.goes_on() {
                Some(session) => slots.insert(self.key.clone(), Slot::Live(session.clone())),
                None => slots.remove(&self.key),
            };
        }
    }

    pub(super) fn forget_waiter(&self, table: &Table) {
        let mut waiters = table.waiters.lock();
        if waiters.get(&self.key).is_some_and(|other| Arc::ptr_eq(other, &self.wake)) {
            waiters.remove(&self.key);
        }
    }

    /// Takes our request, or the offer that answered it, out of the lease, if there may be one.
    pub(super) async fn withdraw(self: Arc<Self>, engine: &Arc<Engine>) {
        if !self.claims.lock().asked {
            return;
        }
        let (load, engine_) = (self.clone(), engine.clone());
        let withdrawn = engine
            .link
            .queues
            .run(&self.key, usize::MAX, async move { load.withdraw_now(&engine_).await });
        if let Ok(withdrawn) = withdrawn {
            let _ = withdrawn.wait().await;
        }
    }

    async fn withdraw_now(&self, engine: &Engine) {
        let plan = |_| async {
            let (_, state) = engine.link.read_settled(&self.key, Returning::HEAD).await?;
            Ok(match ownership::withdrawn(&state, self.request) {
                Some(change) => Plan::Commit(vec![change], Returning::HEAD, ()),
                None => Plan::Done(()),
            })
        };
        if let Err(error) = engine.rewrite_as(Sender::Server, &self.key, plan).await {
            tracing::debug!(key = %self.key, %error, "a request could not be withdrawn; it expires by itself");
        }
    }
}
