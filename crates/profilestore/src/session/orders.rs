//! What operators ordered, as far as a session can tell: who had it ended, and why.
//!
//! An operator who wants a profile let go asks for it as another server would. The request's
//! identity names the operation ([`order_id`](crate::audit::order_id)), so the holder reads its
//! entry in the audit log. A rollback, a removal or an erasure only raises the epoch. Then the
//! session looks for the entry among the newest ones of the log. When it finds none, it was lost as
//! far as it knows.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use super::Session;
use crate::{
    audit::{AuditEntry, AuditOutcome, AuditQuery, audit_entries, entry_key, operation_of_order},
    data_store::{KeyState, Returning},
};

/// How long the end of a session waits for the reason to be read.
const PATIENCE: Duration = Duration::from_secs(2);

impl Session {
    /// The entry of the operator who asks under this identity. None, without a read: it is not an
    /// operator who asks.
    pub(super) async fn order_of(&self, request: Uuid) -> Option<Arc<AuditEntry>> {
        let operation = operation_of_order(request)?;
        let key = entry_key(operation, std::slice::from_ref(&self.key));
        let returning = Returning { value: true, inbox_unless: None };
        let (_, state) = self.in_time(self.link.read_settled(&key, returning)).await?.ok()?;
        AuditEntry::of(&state).ok()?.map(Arc::new)
    }

    /// The entry of the operator who ended this session, as the state shows it that it was found
    /// lost by.
    pub(super) async fn order_that_ended(&self, state: &KeyState) -> Option<Arc<AuditEntry>> {
        let (epoch, since_ms) = {
            let known = self.known.lock();
            (known.epoch, known.lease.since_ms().unwrap_or(i64::MIN))
        };
        if state.epoch != epoch + 1 {
            // Others had the profile in between.
            return None;
        }
        match &state.lease.holder {
            Some(holder) => self.order_of(Uuid::parse_str(&holder.session).ok()?).await,
            None => self.in_time(self.search(since_ms)).await?,
        }
    }

    /// The newest entry of what ends sessions without asking them, if it is among the newest of the
    /// log and was stored since then.
    async fn search(&self, since_ms: i64) -> Option<Arc<AuditEntry>> {
        let query = AuditQuery { key: Some(self.key.clone()), ..AuditQuery::default() };
        let newest = audit_entries(&*self.link.store, &query).await.ok()?;
        let entry = newest.entries.into_iter().find(ends_without_asking)?;
        (entry.stored_ms >= since_ms).then(|| Arc::new(entry))
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let env = &self.link.env;
        env.timeout_at(env.after(PATIENCE), work).await.ok()
    }
}

fn ends_without_asking(entry: &AuditEntry) -> bool {
    match entry.action.as_str() {
        "rollback" | "remove" | "erase" => entry.outcome == AuditOutcome::Done,
        "end-session" => entry.details.get("steal").is_some_and(|steal| steal == true),
        _ => false,
    }
}
