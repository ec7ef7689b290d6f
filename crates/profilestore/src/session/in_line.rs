//! Waiting for room to save, at a place in the line that is kept while the session looks at the
//! store.

use std::{
    future::ready,
    pin::pin,
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{Session, remote::Remote};
use crate::link::room::{Pass, Place, Rank};

/// How long a save that waits for room stays in the line between two looks, at most: as long as the
/// look took, if that is shorter.
const MOST_BETWEEN_LOOKS: Duration = Duration::from_secs(1);

impl Session {
    /// Waits for room for a copy of the data, at most until something that goes first waits behind
    /// this save. Nothing of the save is built yet, so a look that is wanted need not wait: another
    /// server may ask for the profile.
    pub(super) async fn room_to_save(self: &Arc<Self>) -> Pass {
        let (env, room) = (&self.link.env, &self.link.room);
        let bytes = self.stored_bytes.load(Relaxed);
        let place = room.place();
        let mut stays_until = env.now();
        // What the hint asked for may be done already: then no save is needed for it.
        while !self.is_over() && !self.holds_up_what_goes_first() {
            // Nothing waits in the line during the look: a look may end the session, which waits
            // for room itself. The save comes back to its place.
            if let Some(pass) = self.wait_in_line(place, bytes, stays_until).await {
                return pass;
            }
            let began = env.now();
            self.look_if_wanted().await;
            let now = env.now();
            // One message after the other must not keep it out of the line.
            stays_until = now + MOST_BETWEEN_LOOKS.min(now.saturating_duration_since(began));
        }
        room.enter(Rank::First, bytes).await
    }

    /// Waits at a place in the line for room. None: a look is wanted, but not before the save has
    /// waited until `stays_until`; or something waits that goes first, or the session is over.
    async fn wait_in_line(&self, place: Place, bytes: usize, stays_until: Instant) -> Option<Pass> {
        let env = &self.link.env;
        let mut entered = pin!(self.link.room.enter_at(place, Rank::Save, bytes));
        loop {
            let stays = env.now() < stays_until;
            // `look_wanted` decides, and not that `hurry` woke this save: that may have woken a
            // save before this one, which got room, and failed.
            let is_look_due = !stays && self.look_wanted.load(Acquire);
            tokio::select! {
                biased;
                pass = &mut entered => return Some(pass),
                () = ready(()), if is_look_due => return None,
                () = self.hurry.notified() => {}
                () = env.sleep_until(stays_until), if stays => {}
            }
            if self.is_over() || self.holds_up_what_goes_first() {
                return None;
            }
        }
    }

    /// True while a trade or an end waits for the session's turn.
    fn holds_up_what_goes_first(&self) -> bool {
        let ending = self.remote.as_deref().is_some_and(Remote::is_ending);
        ending || self.live.is_wanted_by_what_goes_first()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Release;

    use serde_json::Value;

    use super::*;
    use crate::{
        GameServer, Profile, data_store::MemoryStore, env::ManualClock, session::info::SessionEnd,
    };

    async fn live_profile() -> (GameServer, Profile<Value>) {
        let env = ManualClock::default().env(1);
        let store = MemoryStore::new(env.clone());
        let server = GameServer::builder(store).env(env).start().await.unwrap();
        let players = server.store::<Value>("Players").unwrap();
        let profile = players.start_session("p").await.unwrap();
        (server, profile)
    }

    /// It had room for all that a save may come to, such as a hand-over. That made 12 KB, which
    /// each save copied on its way into the queue, and held while it waited.
    #[tokio::test(start_paused = true)]
    async fn a_save_has_no_room_of_its_own_for_what_seldom_happens() {
        let (server, profile) = live_profile().await;
        let session = server.inner.engine.table.live(profile.key()).unwrap();
        let size = size_of_val(&session.save_asked_for());
        assert!(size < 8 << 10, "{size} bytes");
        server.crash();
    }

    /// A program may ask for saves faster than the store takes them. Each save that waited for its
    /// turn had room for all that it may come to: 10,000 of them took 40 MB for each profile.
    #[tokio::test(start_paused = true)]
    async fn a_save_that_waits_for_its_turn_takes_little() {
        let (server, profile) = live_profile().await;
        let session = server.inner.engine.table.live(profile.key()).unwrap();
        let size = size_of_val(&session.clone().save_in_turn());
        assert!(size < 256, "{size} bytes");
        server.crash();
    }

    /// At a shutdown all sessions end at once. Each end had room for all that it may come to.
    #[tokio::test(start_paused = true)]
    async fn an_end_that_waits_for_room_takes_little() {
        let (server, profile) = live_profile().await;
        let session = server.inner.engine.table.live(profile.key()).unwrap();
        let (_closed, last) = tokio::sync::oneshot::channel();
        let size = size_of_val(&session.clone().finish_in_turn(SessionEnd::Shutdown, last));
        assert!(size < 2 << 10, "{size} bytes");
        server.crash();
    }

    /// `hurry` had woken a save before this one, which failed. So this one waited for room, and the
    /// look behind it.
    #[tokio::test(start_paused = true)]
    async fn a_save_that_waits_for_room_makes_a_look_that_was_wanted_before_it() {
        let (server, profile) = live_profile().await;
        let engine = &server.inner.engine;
        let session = engine.table.live(profile.key()).unwrap();
        let all_room = engine.link.room.enter(Rank::First, 64 << 20).await;
        session.look_wanted.store(true, Release);
        let saving = tokio::spawn(profile.save());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!saving.is_finished());
        assert!(!session.look_wanted.load(Acquire), "no look was made");
        drop(all_room);
        saving.await.unwrap().unwrap();
        server.crash();
    }
}
