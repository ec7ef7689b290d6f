//! Sending messages to profiles, and changing those that wait.

use serde::Serialize;

use crate::{
    api::store::ProfileStore,
    data::{ProfileData, payload},
    data_store::MessageId,
    engine::calls::Sent,
    error::{Error, ErrorKind, Result},
    link::messages::check_message,
    session::handlers::{Gift, Message},
};
#[cfg(feature = "roblox")]
use crate::{data_store::StoredMessage, engine::calls::InboxChange};

impl<T: ProfileData> ProfileStore<T> {
    /// Sends a message to a profile, whether or not it is live anywhere or exists yet. When this
    /// returns Ok the message is durable and will be offered to the profile's handlers until one
    /// has processed it. Waits for one commit, during an outage for at most
    /// [`crate::Settings::call_timeout`]. Specification: `MessageAsync`.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::InboxFull`]: nothing was stored and nothing dropped.
    /// [`crate::ErrorKind::TooLarge`] above 256 KiB. [`crate::ErrorKind::Unknown`]: it may or may
    /// not arrive. Calling this again would send a second message. Repeat the first one instead,
    /// under the identity that the error names:
    ///
    /// ```
    /// use profilestore::{Advice, ProfileData, ProfileStore, Result};
    ///
    /// async fn give<T>(players: &ProfileStore<T>, player: &str, gift: &str) -> Result<()>
    /// where
    ///     T: ProfileData,
    /// {
    ///     let mut answer = players.send_message(player, &gift).await;
    ///     while let Err(error) = &answer
    ///         && error.advice() == Advice::RetryAs
    ///         && let Some(id) = error.message_id()
    ///     {
    ///         answer = players.send_message_as(player, id, &gift).await.map(drop);
    ///     }
    ///     answer
    /// }
    /// ```
    pub fn send_message<M: Serialize>(
        &self,
        key: &str,
        message: &M,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<T, M> {
        let engine = &self.server.inner.engine;
        // The id is judged by the store's clock, and this server's may be wrong; the mock's store
        // has this server's.
        let created_ms = if self.mock { engine.link.env.unix_ms() } else { engine.link.store_ms() };
        let id = MessageId { created_ms, name: engine.link.env.uuid().to_string() };
        let sent = self.send_message_as(key, &id, message);
        async move { sent.await.map(drop) }
    }

    /// Sends a message under an identity of the sender's choice, so that sending it again is
    /// harmless: its effect comes once, for 30 days from the time in the id, after which the id is
    /// refused ([`crate::ErrorKind::MessageIdExpired`]). [`Sent::Before`] says that it had been
    /// stored before; the same id with another content is an error
    /// ([`crate::ErrorKind::MessageIdReused`]).
    ///
    /// So a purchase is one line, whether the player is online here, elsewhere or not at all. Each
    /// report of a payment provider makes this call, and Ok means: confirm it.
    /// `examples/purchase_receipt.rs` is the whole of it.
    ///
    /// ```
    /// use profilestore::{MessageId, ProfileData, ProfileStore, Result, Sent};
    ///
    /// /// `bought_ms` is the time of the purchase, the same in each report.
    /// async fn report<T>(
    ///     players: &ProfileStore<T>,
    ///     player: &str,
    ///     (purchase, bought_ms): (&str, i64),
    ///     coins: u64,
    /// ) -> Result<Sent>
    /// where
    ///     T: ProfileData,
    /// {
    ///     let name = format!("purchase/{purchase}");
    ///     let id = MessageId::new(bought_ms, &name).expect("a short id");
    ///     players.send_message_as(player, &id, &coins).await
    /// }
    /// ```
    pub fn send_message_as<M: Serialize>(
        &self,
        key: &str,
        id: &MessageId,
        message: &M,
    ) -> impl Future<Output = Result<Sent>> + Send + 'static + use<T, M> {
        let (id, sent_as) = (id.clone(), id.clone());
        let sent = payload(message).map(|payload| {
            self.with_engine(key, move |engine, key| engine.send(key, sent_as, payload, None))
        });
        async move { sent?.await.map_err(|error| error.of_message(&id)) }
    }

    /// Changes the messages that wait for a profile, whether or not it is live anywhere or exists
    /// yet. `edit` is called with them on the library's task and must not block. It says what is to
    /// be done; when another writer was faster, it is called again with what waits by then. Answers
    /// false when `edit` said None.
    ///
    /// Errors are those of [`ProfileStore::send_message`]. What is added has no identity that the
    /// caller knows: after [`crate::ErrorKind::Unknown`] a second call may add it twice.
    /// Specification: `GlobalUpdateProfileAsync`.
    #[cfg(feature = "roblox")]
    pub fn change_inbox<F>(
        &self,
        key: &str,
        mut edit: F,
    ) -> impl Future<Output = Result<bool>> + Send + 'static + use<T, F>
    where
        F: FnMut(&[StoredMessage], u64) -> Option<Vec<InboxChange>> + Send + 'static,
    {
        self.with_engine(key, move |engine, key| {
            engine.change_inbox(
                key,
                Box::new(move |state| {
                    edit(state.inbox.as_deref().unwrap_or_default(), state.last_message)
                }),
            )
        })
    }
}

impl Message<'_> {
    /// Sends a message to another profile, live here, elsewhere or nowhere, in the very commit that
    /// takes this one: a guild that pays a member debits its bank, removes the member's request and
    /// sends the gold with one write, so each comes once or none does. Nothing is sent before that,
    /// or when the session is lost. At most [`crate::transaction::MAX_GIFTS`] for one message. It
    /// gets through also where as many messages wait as may. `examples/guild.rs` shows a guild that
    /// one server holds and others change.
    ///
    /// Call [`Message::processed`] too. Otherwise, or once a call of this has failed, nothing that
    /// the handler did counts: the data is as it was, nothing is sent, the message waits for the
    /// next handler or session, and the listeners of [`crate::GameServer::on_error`] are told.
    ///
    /// Fails with [`ErrorKind::TooLarge`] and [`ErrorKind::Invalid`]: what cannot be sent, a wrong
    /// key, a store of another game server or of a mock, too many, or a profile that was only read.
    ///
    /// ```
    /// # use profilestore::{Profile, ProfileStore};
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize)] struct Guild { gold: u64 }
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize)] struct Player { gold: u64 }
    /// # #[derive(serde::Deserialize)] struct Request { member: String, gold: u64 }
    /// # fn serve(guild: Profile<Guild>, players: ProfileStore<Player>) {
    /// guild.message_handler(move |bank, message| {
    ///     let Ok(Request { member, gold }) = message.parse() else { return };
    ///     if let Some(left) = bank.gold.checked_sub(gold)
    ///         && message.gift(&players, &member, &gold).is_ok()
    ///     {
    ///         bank.gold = left;
    ///     }
    ///     message.processed();
    /// });
    /// # }
    /// ```
    pub fn gift<T: ProfileData, M: Serialize>(
        &self,
        store: &ProfileStore<T>,
        key: &str,
        message: &M,
    ) -> Result<()> {
        let gift = self.link().and_then(|link| {
            if !store.is_kept_by(link) {
                let message = "a gift's store belongs to another game server, or to a mock";
                return Err(Error::new(ErrorKind::Invalid, message));
            }
            let (to, payload) = (store.key(key)?, payload(message)?);
            check_message(&to, &payload)?;
            Ok(Gift { to, name: link.env.uuid().to_string(), payload })
        });
        self.give(gift)
    }
}
