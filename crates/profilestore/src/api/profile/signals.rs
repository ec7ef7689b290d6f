//! What a live profile tells its program: saves, the end, edits and messages.

use std::sync::Arc;

use super::{OTHER_TYPE, Profile};
use crate::{
    audit::AuditEntry,
    data::{ProfileData, typed, typed_mut},
    session::{
        handlers::Message,
        info::{LastSave, SessionEnd},
    },
    signal::Connection,
};

impl<T: ProfileData> Profile<T> {
    /// Calls `listener` with the data right before every save, the last one included; what it
    /// changes is saved. Not called for a transaction, which saves exactly what its own edits made.
    /// Specification: `OnSave`.
    pub fn on_save(&self, listener: impl Fn(&mut T) + Send + Sync + 'static) -> Connection {
        self.session
            .signals
            .on_save
            .connect(Arc::new(move |data| listener(typed_mut(data).expect(OTHER_TYPE))))
    }

    /// Asks `judge` about the data before every save that the program asks for ([`Profile::save`]),
    /// after the `on_save` listeners. An error vetoes the save: it fails with
    /// [`crate::ErrorKind::Refused`] and that text, and nothing is stored. Autosaves, saves for
    /// messages, transactions and the last save are not asked about: see
    /// [`crate::StoreBuilder::validate`] for what must hold at each of them.
    pub fn veto_save(
        &self,
        judge: impl Fn(&T) -> Result<(), String> + Send + Sync + 'static,
    ) -> Connection {
        self.session
            .signals
            .veto_save
            .connect(Arc::new(move |data| judge(typed(data).expect(OTHER_TYPE))))
    }

    /// Calls `listener` with the reason and the data right before the last save; what it changes is
    /// saved. Not called when the session is lost. Specification: `OnLastSave`.
    pub fn on_last_save(
        &self,
        listener: impl Fn(LastSave, &mut T) + Send + Sync + 'static,
    ) -> Connection {
        self.session.signals.on_last_save.connect(Arc::new(move |reason, data| {
            listener(reason, typed_mut(data).expect(OTHER_TYPE))
        }))
    }

    /// Calls `listener` once when the session is over and changes are no longer taken; the last
    /// save is then under way ([`SessionEnd::saves`]). Says how it ended, and which operator ended
    /// it and why, as far as that can be found out within 2 s. A listener that is connected later
    /// is not called: see [`Profile::is_over`]. Specification: `OnSessionEnd`.
    pub fn on_session_end(
        &self,
        listener: impl Fn(SessionEnd) + Send + Sync + 'static,
    ) -> Connection {
        self.session.signals.on_session_end.connect(Arc::new(listener))
    }

    /// Calls `listener` with the data that is stored after every save and transaction, also one
    /// that found nothing to write. When the session was lost, it is called with what the store
    /// holds then. Specification: `OnAfterSave`.
    pub fn on_after_save(&self, listener: impl Fn(&T) + Send + Sync + 'static) -> Connection {
        self.session
            .signals
            .on_after_save
            .connect(Arc::new(move |data| listener(typed(data).expect(OTHER_TYPE))))
    }

    /// Calls `listener` with the entry of the audit log and the data after an operator's edit was
    /// applied in this session ([`crate::Operator::edit`]): the entry says what was changed
    /// ([`AuditEntry::operation`], [`AuditEntry::details`]), in whose name and why
    /// ([`AuditEntry::by`]). The save that makes the edit durable follows. Not called for edits
    /// that were refused, nor for those that had waited and were applied before the session was
    /// there; the audit log holds them all ([`crate::audit::audit_entries`]).
    pub fn on_edited(
        &self,
        listener: impl Fn(&AuditEntry, &T) + Send + Sync + 'static,
    ) -> Connection {
        self.session
            .signals
            .on_edited
            .connect(Arc::new(move |entry, data| listener(entry, typed(data).expect(OTHER_TYPE))))
    }

    /// Adds a handler for messages, and offers it those that wait before this returns. It is called
    /// with the data and one message at a time; when it has called [`Message::processed`], what it
    /// changed in the data and the message's removal are saved together, so that the effect comes
    /// exactly once. Handlers must not block. Specification: `MessageHandler`.
    pub fn message_handler(&self, handler: impl Fn(&mut T, &Message<'_>) + Send + Sync + 'static) {
        self.session.add_handler(Arc::new(move |data, message| {
            handler(typed_mut(data).expect(OTHER_TYPE), message)
        }));
    }
}
