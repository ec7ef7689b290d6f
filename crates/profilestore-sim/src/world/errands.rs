//! What players' programs do beside a session: reads that are written back, removals, and a read
//! after an end.

use std::sync::{Arc, atomic::Ordering};

use profilestore::{ProfileStore, SessionEnd};

use super::{Running, life::Life, players::Actor};
use crate::{
    data::{Label, Player},
    invariants::broken,
};

impl Actor {
    /// An operator's change, or a rollback to what was read a while ago.
    pub(super) async fn read_and_write(&self) {
        let Some(Running { doors, life, .. }) = self.somewhere() else { return };
        self.world.operating.fetch_add(1, Ordering::Relaxed);
        self.rewrite(&doors.main, &life).await;
        self.world.operating.fetch_sub(1, Ordering::Relaxed);
    }

    async fn rewrite(&self, players: &ProfileStore<Player>, life: &Arc<Life>) {
        let Some(Ok(Some(mut read))) = life.wait(players.get(&self.key)).await else { return };
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
        // What this player had a while ago may be another player's by now.
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

    pub(super) async fn remove(&self) {
        let Some(Running { doors, life, .. }) = self.somewhere() else { return };
        {
            let books = &mut *self.world.clerk.0.lock();
            *books.told.removals.entry(self.key.clone()).or_default() += 1;
            books.counts.add("removals");
            books.note(Some(&self.key), || format!("{} is to be removed", self.key));
        }
        let answer = life.wait(doors.main.remove(&self.key)).await;
        self.world.note(Some(&self.key), || format!("removed: {answer:?}"));
    }

    /// G9: an end, then a read on the same server: the read sees the last save.
    pub(super) async fn check_order(&self, label: Label) {
        let (life, edits) = {
            let books = self.world.clerk.0.lock();
            let session = &books.told.sessions[&label];
            let Some((SessionEnd::Manual, edits)) = session.ended else { return };
            (session.life.clone(), edits)
        };
        let Some(running) = self.running_of_session(label) else { return };
        let Some(Ok(Some(read))) = life.wait(running.doors.main.get(&self.key)).await else {
            return;
        };
        let seen = read.data.edits.get(&label).copied().unwrap_or_default();
        let books = &mut *self.world.clerk.0.lock();
        // Only if the last save could be done at all: the session may have been lost.
        let committed = books.invariants.durable.edits(&self.key, label);
        if committed >= edits
            && seen < edits
            && !books.invariants.durable.rewritten(&self.key, label)
        {
            let what = format!(
                "session {label} ended with {edits} edits, and a read after that \
                on its server saw {seen}"
            );
            let outcome = broken("G9", &self.key, what);
            books.check(outcome);
        }
    }
}
