//! One game server's work: what happens to keys.
//!
//! `ProfileStore<T>` and `Profile<T>` are a codec at its edge. What touches a key runs in that
//! key's queue ([`crate::link::queue`]); who may write is decided by
//! [`ownership`](crate::ownership).
//!
//! * [`table`]: which keys are open, being opened or ending. Sessions tell it about themselves.
//! * [`start`], [`behind`], [`claims`], [`attempt`], [`take`], [`found`], [`newborn`]: starting a
//!   session.
//! * [`rewrite`]: the one loop of look, build, commit.
//! * [`calls`], [`cancel`], [`cleaning`], [`conditional`], [`edit`], [`edit_all`], [`erase`],
//!   [`history`], [`standing`]: calls without a session.
//! * [`hosting`], [`news`]: engines of game servers that run in another process.
//! * [`notices`], [`autosave`], [`bounded_loss`], [`sweep`]: the drivers, tasks that run all the
//!   time.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle, time::Instant};

use self::{autosave::Autosave, behind::Behind, newborn::StandingLists, table::Table};
use crate::{
    data_store::{Change, Returning},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::{Link, Parts, renew},
    messenger::Hint,
    session::{Session, Taken, info::SessionEnd},
    settings::Settings,
};

mod attempt;
mod autosave;
mod behind;
mod bounded_loss;
pub(crate) mod calls;
mod cancel;
mod claims;
pub(crate) mod cleaning;
pub(crate) mod conditional;
mod edit;
mod edit_all;
pub(crate) mod erase;
mod found;
pub(crate) mod history;
pub(crate) mod hosting;
mod newborn;
mod news;
mod notices;
pub(crate) mod options;
pub(crate) mod rewrite;
mod standing;
mod start;
pub(crate) mod sweep;
pub(crate) mod table;
mod take;

pub(crate) struct Engine {
    pub(crate) link: Arc<Link>,
    pub(crate) table: Arc<Table>,
    autosave: Arc<Autosave>,
    standing: StandingLists,
    starts_behind: Arc<Behind>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("store", &self.link.store)
            .field("job_id", &self.link.job_id)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Registers this server in the store, within a call's time, and starts its tasks.
    pub(crate) async fn start(parts: Parts) -> Result<Arc<Self>> {
        if let Some(problem) = parts.settings.problem() {
            return Err(Error::new(ErrorKind::Invalid, problem));
        }
        let (lease, hints) = renew::register(&parts, None).await?;
        let link = Link::new(parts, lease, Handle::current(), None);
        let engine = Self::driven(link, hints);
        let Self { link, table, autosave, .. } = &*engine;
        engine.tasks.lock().extend([
            link.runtime.spawn(autosave::run(link.clone(), autosave.clone())),
            link.runtime.spawn(bounded_loss::run(link.clone(), table.changed.clone())),
            link.runtime.spawn(sweep::run(link.clone())),
        ]);
        Ok(engine)
    }

    /// With the one task that each engine has: it renews the lease, and hands on notices and hints.
    fn driven(link: Arc<Link>, hints: mpsc::Receiver<Hint>) -> Arc<Self> {
        let table = Arc::new(Table::default());
        let renewals = link.runtime.spawn(notices::run(link.clone(), table.clone(), hints));
        Arc::new(Self {
            link,
            table,
            autosave: Arc::new(Autosave::default()),
            standing: StandingLists::default(),
            starts_behind: Arc::default(),
            tasks: Mutex::new(vec![renewals]),
        })
    }

    /// A session on what a start took.
    fn session(&self, taken: Taken) -> Arc<Session> {
        Session::new(self.link.clone(), self.table.events(), taken)
    }

    pub(crate) fn change_settings<R>(&self, change: impl FnOnce(&mut Settings) -> R) -> Result<R> {
        let answer = self.link.change_settings(change)?;
        self.autosave.wake();
        if let Some(within) = self.link.settings().save_changes_within {
            self.table.changed.at_latest(self.link.env.after(within));
        }
        Ok(answer)
    }

    // --- the end --------------------------------------------------------------------------------

    /// Saves and releases everything; see `GameServer::shutdown`. Under way at once. The second
    /// call finds nothing left to do.
    pub(crate) fn shutdown(
        self: &Arc<Self>,
    ) -> impl Future<Output = Vec<(ProfileKey, Error)>> + Send + 'static + use<> {
        self.link.close();
        self.link.hurry();
        let deadline = self.link.env.after(self.link.settings().shutdown_timeout);
        self.table.wake_all_starts();
        let ends = self.end_all();
        let engine = self.clone();
        async move { engine.shut_down(ends, deadline).await }
    }

    /// Begins to end every session.
    fn end_all(&self) -> Vec<(ProfileKey, BoxFuture<'static, Result<()>>)> {
        let end = |session: Arc<Session>| {
            (session.key.clone(), session.finish(SessionEnd::Shutdown).boxed())
        };
        self.table
            .sessions()
            .into_iter()
            .filter(|session| !session.is_known_to_be_over())
            .map(end)
            .collect()
    }

    async fn shut_down(
        self: &Arc<Self>,
        mut ends: Vec<(ProfileKey, BoxFuture<'static, Result<()>>)>,
        deadline: Instant,
    ) -> Vec<(ProfileKey, Error)> {
        let mut not_saved = NotSaved::default();
        // Again, for starts that came through at the last moment.
        while self.link.env.now() < deadline {
            for (key, end) in ends {
                let ended = self.link.env.timeout_at(deadline, end).await;
                let ended = ended.unwrap_or_else(|_| Err(not_in_time(&key)));
                not_saved.note(key, ended);
            }
            // Messages, removals and last saves that the program began itself.
            let drained =
                self.link.env.timeout_at(deadline, self.link.queues.drained()).await.is_ok();
            if drained && self.table.is_over() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            ends = self.end_all();
        }
        // A session that ends may have lost its slot to the next start.
        let left = self.table.sessions().into_iter().map(|session| session.key.clone());
        left.chain(self.table.ending()).for_each(|key| not_saved.note_left(key));
        let not_saved: Vec<_> = not_saved.0.into_iter().collect();
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        let retire = {
            let lease = self.link.lease.lock();
            Change::MarkDead { id: lease.server, revision: lease.revision }
        };
        if not_saved.is_empty() {
            let commit = self.link.new_commit(vec![retire], Returning::HEAD);
            let result = self
                .link
                .env
                .timeout_at(
                    deadline.max(self.link.env.now() + Duration::from_secs(1)),
                    self.link.try_commit(&commit),
                )
                .await;
            if !matches!(result, Ok(Ok(_))) {
                tracing::debug!("the server's row could not be retired; it dies of age");
            }
        }
        not_saved
    }

    /// Stops everything at once, like a crash: nothing is saved.
    pub(crate) fn abandon(&self) {
        self.link.close();
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

/// What a shutdown has not saved, and why: every profile when the store is away.
#[derive(Default)]
struct NotSaved(BTreeMap<ProfileKey, Error>);

impl NotSaved {
    /// Notes what an end came to. One that was refused before is made again.
    fn note(&mut self, key: ProfileKey, ended: Result<()>) {
        match ended {
            Ok(()) => drop(self.0.remove(&key)),
            Err(error) => drop(self.0.insert(key, error)),
        }
    }

    /// Notes a profile that is still held, unless it is known already why.
    fn note_left(&mut self, key: ProfileKey) {
        self.0.entry(key).or_insert_with_key(not_in_time);
    }
}

fn not_in_time(key: &ProfileKey) -> Error {
    let message = "the last save did not get through before the deadline";
    Error::new(ErrorKind::TimedOut, message).about(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::TypedCodec, data_store::MemoryStore, engine::options::StartOptions, env::Env,
        link::health::Health, messenger::LocalMessenger, migration::Migrations,
    };

    /// A session knows the table of its game server only weakly.
    #[tokio::test(start_paused = true)]
    async fn an_idle_session_does_not_keep_a_dead_engine_alive() {
        let env = Env::system();
        let engine = Engine::start(Parts {
            store: Arc::new(MemoryStore::new(env.clone())),
            messenger: Arc::new(LocalMessenger::new()),
            env,
            settings: Settings {
                save_changes_within: Some(Duration::from_secs(1)),
                ..Settings::default()
            },
            place_id: 0,
            job_id: "job".into(),
            health: Arc::<Health>::default(),
        })
        .await
        .unwrap();
        let key = ProfileKey::new("store", "scope", "key").unwrap();
        let codec =
            TypedCodec::new(Some(&serde_json::json!({})), false, Migrations::new(), None).unwrap();
        let session =
            engine.start_session(&key, Arc::new(codec), StartOptions::new()).await.unwrap();
        assert_eq!(engine.table.open_count(), 1);
        let (dead, table) = (Arc::downgrade(&engine), Arc::downgrade(&engine.table));

        engine.abandon();
        drop(engine);
        // For the tasks that were stopped to be dropped.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(dead.upgrade().is_none(), "the session keeps the engine alive");
        assert!(table.upgrade().is_none(), "the session keeps the table of sessions alive");
        // What it tells goes nowhere, and does no harm.
        session.note_change();
        assert!(!session.is_over());
    }

    /// Each profile that was not saved was looked for among all that had been noted before it: a
    /// shutdown of many, with the store away, was busy for minutes behind its deadline.
    #[test]
    fn a_shutdown_that_saves_nothing_of_very_many_is_not_busy_with_its_report() {
        let key = |n: u32| ProfileKey::new("store", "scope", &format!("player-{n}")).unwrap();
        let mut not_saved = NotSaved::default();
        for n in 0..300_000 {
            not_saved.note(key(n), Err(not_in_time(&key(n))));
        }
        not_saved.note(key(7), Ok(()));
        not_saved.note(key(8), Err(Error::new(ErrorKind::TooLarge, "refused")));
        for n in 6..=8 {
            not_saved.note_left(key(n));
        }
        assert_eq!(not_saved.0.len(), 300_000, "each once");
        assert_eq!(not_saved.0[&key(7)].kind(), ErrorKind::TimedOut);
        assert_eq!(not_saved.0[&key(8)].kind(), ErrorKind::TooLarge);
    }
}
