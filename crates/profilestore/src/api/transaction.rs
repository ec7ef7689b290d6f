//! Trades and gifts: several profiles of one server, and messages to any others, changed all at
//! once or not at all.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    api::{
        game_server::GameServer,
        profile::{OTHER_TYPE, Profile},
        store::ProfileStore,
    },
    data::{ProfileData, payload, typed, typed_mut},
    data_store::MessageId,
    error::{Error, ErrorKind, Result},
    session::{
        Session,
        handlers::MAX_GIFTS,
        transaction::{Draft, Drafts},
    },
};

/// How many profiles may take part in a transaction.
pub const MAX_PARTICIPANTS: usize = 64;

/// What the closure gave, or its panic.
type Answer<R, E> = Arc<Mutex<Option<thread::Result<Result<R, E>>>>>;

/// Describes a transaction. See [`GameServer::transaction`].
///
/// ```
/// # use profilestore::{GameServer, Profile, ProfileStore, Result};
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Player { coins: u64, items: Vec<String> }
/// # async fn trade(
/// #     server: GameServer,
/// #     players: ProfileStore<Player>,
/// #     alice: Profile<Player>,
/// #     bob: Profile<Player>,
/// # ) -> Result<()> {
/// let sold = server
///     .transaction()
///     .between((&alice, &bob))
///     .run(move |tx, (alice, bob)| {
///         let Some(sword) = alice.items.pop() else { return Ok(false) };
///         bob.items.push(sword);
///         tx.gift(&players, "carol", &"alice has sold her sword")?;
///         Ok::<_, profilestore::Error>(true)
///     })
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a transaction does nothing before `run`"]
pub struct TransactionBuilder {
    server: GameServer,
    pub(super) sessions: Vec<Arc<Session>>,
    deadline: Option<Duration>,
}

impl GameServer {
    /// Begins a transaction: several profiles of this server, and gifts to any others, changed all
    /// at once or not at all.
    pub fn transaction(&self) -> TransactionBuilder {
        TransactionBuilder::new(self.clone())
    }
}

impl TransactionBuilder {
    pub(crate) fn new(server: GameServer) -> Self {
        Self { server, sessions: Vec::new(), deadline: None }
    }

    /// Names a profile that takes part, for closures that edit it by its handle
    /// ([`Transaction::edit`]): when the participants are not all known where the closure is
    /// written. [`TransactionBuilder::between`] hands them to the closure instead. At least one, at
    /// most [`MAX_PARTICIPANTS`] in all, of any types, all on this server and none from a mock
    /// unless all are. Naming one again does nothing.
    pub fn with<T: ProfileData>(mut self, profile: &Profile<T>) -> Self {
        if !self.sessions.iter().any(|session| Arc::ptr_eq(session, &profile.session)) {
            self.sessions.push(profile.session.clone());
        }
        self
    }

    /// How long it may take, [`crate::Settings::call_timeout`] otherwise.
    ///
    /// It bounds the wait for the turns of the participants, and for a commit that the store has
    /// not got or has refused: at the deadline the call fails then, nothing was done, and the
    /// participants are free. It does **not** bound a commit whose answer was lost. Whether that
    /// was applied only the store can tell, so the transaction stays open until the store answers
    /// again, is then settled or called off within about a second, and only then the call returns.
    /// Until then the participants can be read, and not be edited: [`Profile::frozen_for`] says for
    /// how long they have been so. What bounds that is the outage, and no setting; a participant
    /// that another server takes meanwhile is lost, as in every outage.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Runs the transaction: `work` edits copies of the participants' data and adds gifts; then all
    /// of it becomes durable with one commit, or nothing does. When the future gives Ok it is
    /// durable, and the copies are the data.
    ///
    /// Under way as soon as this is called: it takes its turn behind what was called before on each
    /// of the participants, and ahead of what is called later: an end or a shutdown that is called
    /// before it is done comes behind it. Dropping the future does not stop it. Waits for its turns
    /// and for one commit. Transactions over crossing participants wait for one another and never
    /// for ever.
    ///
    /// While it is open, other edits of the participants fail with [`ErrorKind::Busy`]
    /// ([`Profile::update_when_free`] waits), reads see the data from before, messages are not
    /// offered, and saves, hand-overs and ends run after it. `on_save` hooks do not run; what was
    /// changed and not yet saved before is saved with it; `on_after_save` follows.
    ///
    /// `work` runs on one of the library's tasks and must not block. When it gives an error, that
    /// is the answer and nothing was done. Once a call of the transaction has failed inside `work`,
    /// that error is the answer, whatever `work` gives. When `work` panics nothing was done, and
    /// the panic goes on in the task that awaits the future.
    ///
    /// # Errors
    ///
    /// Nothing was done when it gives any error but [`ErrorKind::Unknown`], which says that the end
    /// of the runtime broke the transaction off. [`ErrorKind::SessionEnded`] and
    /// [`ErrorKind::Unconfirmed`] name the profile; [`ErrorKind::DoneBefore`] says that a gift of
    /// the same id ([`Transaction::gift_as`]) had been sent before, so a caller that repeats a
    /// transaction knows that it had been done; [`ErrorKind::InboxFull`],
    /// [`ErrorKind::MessageIdReused`], [`ErrorKind::MessageIdExpired`] are about a gift;
    /// [`ErrorKind::TooLarge`] and [`ErrorKind::Invalid`] about what cannot be stored or was called
    /// wrongly; [`ErrorKind::TimedOut`], [`ErrorKind::Unavailable`], [`ErrorKind::Closing`],
    /// [`ErrorKind::Overloaded`] and [`ErrorKind::Replaced`] as everywhere.
    pub fn run<R, E, F>(
        self,
        work: F,
    ) -> impl Future<Output = Result<R, E>> + Send + 'static + use<R, E, F>
    where
        F: FnOnce(&mut Transaction<'_>) -> Result<R, E> + Send + 'static,
        R: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.run_script(|drafts| work(&mut Transaction::new(drafts)))
    }

    /// The same for work on the drafts themselves.
    pub(super) fn run_script<R, E, F>(
        self,
        work: F,
    ) -> impl Future<Output = Result<R, E>> + Send + 'static + use<R, E, F>
    where
        F: FnOnce(&mut Drafts) -> Result<R, E> + Send + 'static,
        R: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let answer: Answer<R, E> = Arc::default();
        let script = {
            let answer = answer.clone();
            Box::new(move |drafts: &mut Drafts| {
                let result = catch_unwind(AssertUnwindSafe(|| work(drafts)));
                let wanted = matches!(result, Ok(Ok(_)));
                *answer.lock() = Some(result);
                wanted
            })
        };
        let done =
            self.engine().map(|engine| engine.transact(self.sessions, self.deadline, script));
        async move {
            done?.await?;
            match answer.lock().take() {
                Some(Ok(result)) => result,
                Some(Err(panic)) => resume_unwind(panic),
                None => Err(Error::new(
                    ErrorKind::Unknown,
                    "the transaction was broken off; see the log",
                )
                .into()),
            }
        }
    }

    /// The engine that all participants share.
    fn engine(&self) -> Result<Arc<crate::engine::Engine>> {
        let invalid = |message: String| Err(Error::new(ErrorKind::Invalid, message));
        let Some(first) = self.sessions.first() else {
            return invalid("a transaction needs at least one profile".into());
        };
        if self.sessions.len() > MAX_PARTICIPANTS {
            let given = self.sessions.len();
            return invalid(format!(
                "too many profiles take part: given=`{given}` limit=`{MAX_PARTICIPANTS}`"
            ));
        }
        let own = &self.server.inner;
        let mine = [Some(&own.engine), own.mock_started()]
            .into_iter()
            .flatten()
            .find(|own| Arc::ptr_eq(&own.link, &first.link));
        let Some(engine) = mine else {
            return invalid(format!(
                "the profile belongs to another game server: profile=`{}`",
                first.key
            ));
        };
        for (at, session) in self.sessions.iter().enumerate() {
            if !Arc::ptr_eq(&engine.link, &session.link) {
                return invalid(format!(
                    "the profile belongs to another game server, or to a mock: profile=`{}`",
                    session.key
                ));
            }
            if self.sessions[..at].iter().any(|other| Arc::ptr_eq(other, session)) {
                return invalid(format!(
                    "a profile is named twice in a transaction: profile=`{}`",
                    session.key
                ));
            }
            if self.sessions[..at].iter().any(|other| other.key == session.key) {
                // There is one live session a key, so one of the two is over.
                return Err(Error::new(
                    ErrorKind::SessionEnded,
                    "an earlier session takes part too; it is over",
                )
                .about(&session.key));
            }
        }
        Ok(engine.clone())
    }
}

/// A transaction under way, as its closure sees it.
pub struct Transaction<'a> {
    drafts: &'a mut Drafts,
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("gifts", &self.drafts.gifts.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Transaction<'a> {
    pub(super) fn new(drafts: &'a mut Drafts) -> Self {
        Self { drafts }
    }
}

impl Transaction<'_> {
    /// Edits a participant's data as this transaction has made it so far. Fails with
    /// [`ErrorKind::Invalid`] for a profile that was not named with [`TransactionBuilder::with`].
    pub fn edit<T: ProfileData, R>(
        &mut self,
        profile: &Profile<T>,
        edit: impl FnOnce(&mut T) -> R,
    ) -> Result<R> {
        let at = self.draft_of(profile)?;
        Ok(self.guarded(profile, |drafts| edit(typed_mut(drafts[at].data()).expect(OTHER_TYPE))))
    }

    /// The same for an edit that may fail: an error leaves the participant's data as this
    /// transaction had made it before, and is the answer. The transaction may go on without it.
    pub fn try_edit<T: ProfileData, R, E: From<Error>>(
        &mut self,
        profile: &Profile<T>,
        edit: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, E> {
        let at = self.draft_of(profile)?;
        self.guarded(profile, |drafts| {
            let mut copy = drafts[at].look().duplicate();
            let answer = edit(typed_mut(&mut *copy).expect(OTHER_TYPE))?;
            drafts[at].put(copy);
            Ok(answer)
        })
    }

    /// Looks at a participant's data as this transaction has made it so far. Fails as
    /// [`Transaction::edit`] does.
    pub fn read<T: ProfileData, R>(
        &mut self,
        profile: &Profile<T>,
        look: impl FnOnce(&T) -> R,
    ) -> Result<R> {
        let at = self.draft_of(profile)?;
        Ok(look(typed(self.drafts.drafts[at].look()).expect(OTHER_TYPE)))
    }

    fn draft_of<T>(&mut self, profile: &Profile<T>) -> Result<usize> {
        let is_it = |draft: &Draft| Arc::ptr_eq(&draft.session, &profile.session);
        match self.drafts.drafts.iter().position(is_it) {
            Some(at) => Ok(at),
            None => {
                let message = "the profile does not take part in the transaction by its handle: \
                    name it with `with`; one that is named in `between` is an argument of the \
                    closure";
                self.fail(Error::new(ErrorKind::Invalid, message).about(&profile.session.key))
            }
        }
    }

    /// Runs an edit. One that panics leaves an error behind: half of it must not be committed by a
    /// closure that catches that.
    fn guarded<T, R>(&mut self, profile: &Profile<T>, edit: impl FnOnce(&mut [Draft]) -> R) -> R {
        let panicked = "an edit of the transaction panicked; nothing was done";
        let panicked = Error::new(ErrorKind::Invalid, panicked).about(&profile.session.key);
        let before = self.drafts.fault.replace(panicked);
        let answer = edit(&mut self.drafts.drafts);
        self.drafts.fault = before;
        answer
    }

    /// Sends a message along, to any profile, live here, elsewhere or nowhere, as
    /// [`ProfileStore::send_message`] does. At most [`MAX_GIFTS`]. Fails with
    /// [`ErrorKind::TooLarge`] and [`ErrorKind::Invalid`].
    pub fn gift<T: ProfileData, M: Serialize>(
        &mut self,
        store: &ProfileStore<T>,
        key: &str,
        message: &M,
    ) -> Result<()> {
        let link = &self.drafts.link;
        let id = MessageId { created_ms: link.store_ms(), name: link.env.uuid().to_string() };
        self.gift_as(store, key, &id, message)
    }

    /// The same under an identity of the caller's choice, which makes the whole transaction safe to
    /// repeat: if the gift has been sent before, the transaction does nothing and answers
    /// [`ErrorKind::DoneBefore`]. For 30 days from the time in the id; see
    /// [`ProfileStore::send_message_as`].
    pub fn gift_as<T: ProfileData, M: Serialize>(
        &mut self,
        store: &ProfileStore<T>,
        key: &str,
        id: &MessageId,
        message: &M,
    ) -> Result<()> {
        match self.append(store, key, id, message) {
            Ok(()) => Ok(()),
            Err(error) => self.fail(error),
        }
    }

    fn append<T: ProfileData>(
        &mut self,
        store: &ProfileStore<T>,
        key: &str,
        id: &MessageId,
        message: &impl Serialize,
    ) -> Result<()> {
        if !store.is_kept_by(&self.drafts.link) {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a gift's store belongs to another game server, or to a mock",
            ));
        }
        if self.drafts.gifts.len() == MAX_GIFTS {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("too many gifts in a transaction: limit=`{MAX_GIFTS}`"),
            ));
        }
        let gift = self.drafts.link.append(&store.key(key)?, id.clone(), payload(message)?)?;
        self.drafts.gifts.push(gift);
        Ok(())
    }

    /// Notes that the transaction must not be committed any more.
    fn fail<R>(&mut self, error: Error) -> Result<R> {
        self.drafts.fault.get_or_insert_with(|| error.again());
        Err(error)
    }
}
