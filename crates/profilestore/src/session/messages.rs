//! Offering messages to handlers.
//!
//! Each message is offered to each handler once a session, in the order of the messages' indexes
//! and of the handlers' registration, until one of them has processed it. What the handler does to
//! the data and the fact that it processed the message are one edit, and the save that stores the
//! data removes the message and leaves its receipt: the effect comes once.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    Session,
    editing::check_not_editing,
    handlers::{Handled, Handler, MAX_GIFTS, Message, OnMessage},
    live::Refusal,
};
use crate::{data_store::StoredMessage, error::Error};

impl Session {
    /// Adds a handler and offers it what waits.
    pub(crate) fn add_handler(self: &Arc<Self>, call: Arc<OnMessage>) {
        self.handlers.list.lock().push(Handler { call, offered: 0 });
        if check_not_editing(&self.key).is_err() {
            self.queue_look();
        } else {
            self.offer_messages();
        }
    }

    /// Offers what waits to whom it was not offered yet, and has the result saved.
    pub(crate) fn offer_messages(self: &Arc<Self>) {
        {
            let mut turn = self.handlers.turn.lock();
            if turn.taken {
                turn.again = true;
                return;
            }
            turn.taken = true;
        }
        let mut processed = 0;
        loop {
            processed += self.offer_once();
            let mut turn = self.handlers.turn.lock();
            if !std::mem::take(&mut turn.again) {
                turn.taken = false;
                break;
            }
        }
        if processed > 0 {
            metrics::counter!("profilestore_messages_processed_total").increment(processed);
            self.queue_save();
        }
    }

    fn offer_once(self: &Arc<Self>) -> u64 {
        let count = self.handlers.list.lock().len();
        if count == 0 {
            return 0;
        }
        let inbox = self.known.lock().inbox.clone();
        let mut processed = 0;
        for message in inbox.iter().filter(|message| !message.id.is_edit()) {
            for position in 0..count {
                let (call, offered_before) = {
                    let mut list = self.handlers.list.lock();
                    let Some(handler) =
                        list.get_mut(position).filter(|handler| handler.offered < message.index)
                    else {
                        continue;
                    };
                    let before = std::mem::replace(&mut handler.offered, message.index);
                    (handler.call.clone(), before)
                };
                if self.live.pending_gifts() >= MAX_GIFTS {
                    // What waits is offered when those are sent.
                    self.unoffer(position, offered_before);
                    return processed;
                }
                let offered = Message::live(message, &self.link);
                let turn = catch_unwind(AssertUnwindSafe(|| {
                    let waits = || self.known.lock().has_message(message.index);
                    self.live.edit_for_message(message.index, waits, |data| {
                        call(data, &offered);
                        offered.handled()
                    })
                }));
                match turn {
                    Ok(Ok(Handled::Processed(_))) => {
                        processed += 1;
                        break;
                    }
                    Ok(Ok(Handled::Left)) => self.note_change(),
                    Ok(Ok(Handled::Spoiled(fault))) => self.spoiled(message, &fault),
                    Ok(Err(Refusal::Busy | Refusal::Over)) => {
                        // An open transaction offers everything again when it is over, and so does
                        // an end that is refused.
                        self.unoffer(position, offered_before);
                        return processed;
                    }
                    Ok(Err(Refusal::Processed)) => break,
                    Err(_) => {
                        tracing::error!(key = %self.key, message = %message.id, "a message handler panicked; the message waits")
                    }
                }
            }
        }
        processed
    }

    /// A handler is to be offered again what came after this message.
    fn unoffer(&self, position: usize, offered_before: u64) {
        if let Some(handler) = self.handlers.list.lock().get_mut(position) {
            handler.offered = offered_before;
        }
    }

    fn spoiled(&self, message: &StoredMessage, fault: &Error) {
        let message = format!(
            "a handler's gift cannot be sent, so nothing that it did counts and the message \
             waits: message=`{}`: {fault}",
            message.id
        );
        let now = self.link.env.now();
        self.link.health.error(&message, Some(&self.key), now, &self.link.settings());
    }

    /// The waiting messages that no handler has processed.
    pub(crate) fn waiting_messages(&self) -> Vec<StoredMessage> {
        let inbox = self.known.lock().inbox.clone();
        inbox
            .into_iter()
            .filter(|message| !message.id.is_edit() && !self.live.is_processed(message.index))
            .collect()
    }
}
