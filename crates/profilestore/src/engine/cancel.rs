//! Taking back a message that waits.

use std::sync::Arc;

use super::{Engine, rewrite::Plan};
use crate::{
    audit::{Attribution, AuditEntry},
    data_store::{Change, MessageId, Returning},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    ownership::{self, Blocker},
};

impl Engine {
    /// Takes a message out of a profile's inbox, as if it had been processed. False: it is not
    /// there.
    ///
    /// Not while a live server holds the profile, which may be at work on the message. The lease is
    /// written, so that a start that read the inbox before must not go on with what it read.
    pub(crate) fn cancel_message(
        self: &Arc<Self>,
        key: &ProfileKey,
        id: MessageId,
        by: Attribution,
    ) -> impl Future<Output = Result<bool>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.link.call(key, async move {
            let operation = engine.link.env.uuid();
            let plan = |_| async {
                let (now_ms, state) = engine.link.read_settled(&key_, Returning::INBOX).await?;
                let waiting = state.inbox.iter().flatten().find(|message| message.id == id);
                let Some(message) = waiting else { return Ok(Plan::Done(false)) };
                let blocker = engine.blocker(&state, now_ms);
                if blocker == Blocker::Held {
                    let message = "a game server holds the profile and may be at work on the \
                        message; end the session first";
                    return Err(Error::new(ErrorKind::Held, message).about(&key_));
                }
                let dead = blocker == Blocker::Dead;
                let mut changes = vec![if dead {
                    ownership::cleared(&state)
                } else {
                    ownership::touched(&state)
                }];
                if let (true, Some(row)) = (dead, &state.holder_server) {
                    changes.push(Change::MarkDead { id: row.id, revision: row.revision });
                }
                let (key, index) = (key_.clone(), message.index);
                changes.push(Change::RemoveMessage { key, index, receipt: true });
                let entry =
                    AuditEntry::new(operation, "cancel message", vec![key_.clone()], by.clone());
                changes.push(entry.detail("message", id.to_string()).change()?);
                Ok(Plan::Commit(changes, Returning::HEAD, true))
            };
            Ok(engine.rewrite(&key_, plan).await?.0)
        })
    }
}
