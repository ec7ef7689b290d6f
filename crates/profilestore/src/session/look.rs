//! Looking at what the store says about a live profile: its lease and its inbox, and acting on it.

use std::sync::{Arc, atomic::Ordering};

use super::{Session, info::SessionEnd, snapshot::Snapshot};
use crate::{
    data_store::{Change, KeyState, ServerId, StoreError},
    link::deadline::Unless,
    ownership::{self, Held},
};

/// How often a session asks whether it has been adopted before it believes a late answer: a store
/// that is slower than renewals come must not keep it inactive for ever.
const ADOPTION_ATTEMPTS: u32 = 10;

impl Session {
    /// Looks, unless that was done since it was asked for.
    pub(super) async fn look_if_wanted(self: &Arc<Self>) {
        if self.look_wanted.swap(false, Ordering::AcqRel) {
            // Boxed, so that what seldom happens takes no room in the future of every save.
            Box::pin(self.look_now()).await;
        }
    }

    /// Reads lease and inbox under the fence, without saving.
    pub(crate) async fn look_now(self: &Arc<Self>) {
        if self.is_over() {
            return;
        }
        let noted = self.unseen.noted();
        let check = Change::Check { key: self.key.clone(), epoch: self.known.lock().epoch };
        let commit = self.commit(vec![check]);
        match self.link.settle(&commit, Unless(|| self.is_over())).await {
            Ok(mut reply) => {
                if let Some(state) = reply.states.pop() {
                    self.respond(state, None).await;
                }
                self.unseen.seen(noted);
            }
            Err(StoreError::Conflict(conflict)) => {
                // Only the epoch can be at fault.
                let _ = self.yield_to(*conflict).await;
            }
            Err(StoreError::Replaced { .. }) => {
                self.lose("the store's contents were replaced by a backup").await;
            }
            Err(error) => {
                tracing::debug!(key = %self.key, %error, "a live profile could not be looked at");
                if self.outcome.is_known() {
                    // It was found lost while an end was under way, which was refused.
                    self.lose("it was lost while it ended, and its end was refused").await;
                }
            }
        }
    }

    /// Acts on what the store says about a session that still holds its profile.
    pub(crate) async fn respond(self: &Arc<Self>, state: KeyState, saved: Option<&Snapshot>) {
        let held = self.held(&state);
        if held == Held::Lost {
            // Only possible after a commit that had been applied before, with a thief in between.
            Box::pin(self.lost(&state)).await;
            return;
        }
        self.absorb(state);
        self.apply_edits();
        self.offer_messages();
        if let Some(saved) = saved {
            self.signals.on_after_save.each(|listener| listener(&*saved.data));
        }
        if let Held::Asked(request) = held {
            if self.remote.is_some() {
                return Box::pin(self.ask_for_release(request)).await;
            }
            tracing::debug!(key = %self.key, to = %request.job_id, "another server asks for the profile");
            let end = match Box::pin(self.order_of(request.id.0)).await {
                Some(entry) => SessionEnd::Operator { entry, saves: true },
                None => SessionEnd::External,
            };
            match self.begin_and_close(&end) {
                Ok(Some(last)) => {
                    if let Err(error) = Box::pin(self.release_and_be_over(last)).await {
                        tracing::warn!(key = %self.key, %error, "a profile could not be handed over");
                    } else {
                        metrics::counter!("profilestore_hand_overs_total").increment(1);
                    }
                }
                // The program is ending it already.
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(key = %self.key, %error, "a profile could not be handed over")
                }
            }
        }
    }

    /// Writes this server's new incarnation into the lease, if no other server took the profile
    /// meanwhile.
    ///
    /// The session believes an answer only when no renewal was under way at the same time: that
    /// one's answer may tell of a thief who came after the adoption. Otherwise it asks again.
    pub(crate) async fn adopt_now(self: &Arc<Self>) {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let server = self.link.server();
            let quiet = self.link.renewals.all_answered();
            let changes = {
                let known = self.known.lock();
                if self.is_over() || known.held_by == server {
                    return;
                }
                let lease = known.lease.whole(self.in_lease());
                vec![
                    Change::Check { key: self.key.clone(), epoch: known.epoch },
                    ownership::adopted(known.seen(&self.key, &lease), server),
                ]
            };
            let commit = self.commit(changes);
            match self.link.settle(&commit, Unless(|| self.is_over())).await {
                Ok(mut reply) => {
                    let Some(state) = reply.states.pop() else { return };
                    // It may have been applied long ago, and the profile taken since.
                    if self.held_by(&state, server) != Held::Lost {
                        let is_alone =
                            quiet.is_some() && quiet == self.link.renewals.all_answered();
                        if !is_alone && attempts < ADOPTION_ATTEMPTS && !self.link.is_closing() {
                            self.absorb(state);
                            self.link.renewed_or_tried().await;
                            continue;
                        }
                        self.known.lock().held_by = server;
                    }
                    self.respond(state, None).await;
                    return;
                }
                Err(StoreError::Conflict(conflict)) => {
                    // An attempt before may have been applied, whose answer did not count.
                    let is_ours = |state: &&KeyState| {
                        state.key == self.key && self.held_by(state, server) != Held::Lost
                    };
                    if let Some(state) = conflict.state.as_ref().filter(is_ours) {
                        self.absorb(state.clone());
                    } else if self.yield_to(*conflict).await.is_err() {
                        return;
                    }
                }
                Err(StoreError::Replaced { .. }) => {
                    self.lose("the store's contents were replaced by a backup").await;
                    return;
                }
                Err(error) => {
                    tracing::warn!(key = %self.key, %error, "a profile could not be adopted");
                    return;
                }
            }
        }
    }

    /// What this session finds about itself in what the store holds.
    pub(super) fn held(&self, state: &KeyState) -> Held {
        let server = { self.known.lock().held_by };
        self.held_by(state, server)
    }

    /// The same for a holder that may not be known yet.
    fn held_by(&self, state: &KeyState, server: ServerId) -> Held {
        // A document that was written over a profile may name its holder in another way.
        let server = self.remote.as_ref().map(|_| server);
        let epoch = { self.known.lock().epoch };
        ownership::held(state, epoch, server)
    }

    /// Takes over what the store says. Messages that are new are offered by the caller.
    pub(super) fn absorb(self: &Arc<Self>, state: KeyState) {
        let changed = self.known.lock().absorb(state, self.in_lease());
        if changed && let Some(keeper) = self.keeper() {
            keeper.inbox_changed();
        }
        if changed && self.remote.is_some() {
            self.tell(|table| table.news(self));
        }
    }
}
