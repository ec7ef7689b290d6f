//! Cleaning the store's file after erasures, beside play: one pass over the file at a time, each
//! shared by the erasures that were done before it began.

use std::{sync::Arc, time::Duration};

use profilestore::{Operator, Result, operator::Rewriting};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};
use uuid::Uuid;

/// What erasures wait for.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    /// Held by the pass that is under way.
    turn: Mutex<()>,
    /// The pass that is booked and has not begun.
    next: Mutex<Option<Pass>>,
}

/// One pass over the file.
#[derive(Debug, Clone)]
struct Pass {
    operation: Uuid,
    outcome: watch::Receiver<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Pending,
    Done,
    /// The log says why.
    Refused,
}

/// What a certificate says about the bytes of what was erased.
#[derive(Debug)]
pub(crate) struct Bytes {
    /// None: nothing is booked.
    operation: Option<Uuid>,
    /// None: the store has no files that it could clean.
    outcome: Option<Outcome>,
}

impl Cleaner {
    /// Has the file cleaned after an erasure, and waits for that no longer than `patience`. The
    /// cleaning goes on after that. To be called in a task of its own: when this is dropped, what
    /// is booked may stay pending.
    pub(crate) async fn clean(
        self: &Arc<Self>,
        operator: &Operator,
        after: Option<Uuid>,
        patience: Duration,
    ) -> Bytes {
        let Pass { operation, mut outcome } = match self.pass(operator, after).await {
            Ok(Some(pass)) => pass,
            Ok(None) => return Bytes { operation: None, outcome: None },
            // The profiles are erased all the same.
            Err(error) => {
                tracing::warn!(%error, "a cleaning of the store's file could not be booked");
                return Bytes { operation: None, outcome: Some(Outcome::Refused) };
            }
        };
        let ended = timeout(patience, outcome.wait_for(|outcome| *outcome != Outcome::Pending));
        let outcome = match ended.await {
            Ok(Ok(outcome)) => *outcome,
            // It takes longer, or the process ends.
            Err(_) | Ok(Err(_)) => Outcome::Pending,
        };
        Bytes { operation: Some(operation), outcome: Some(outcome) }
    }

    /// A pass that has not begun. None: the store has no files.
    async fn pass(
        self: &Arc<Self>,
        operator: &Operator,
        after: Option<Uuid>,
    ) -> Result<Option<Pass>> {
        let mut next = self.next.lock().await;
        if let Some(pass) = &*next {
            return Ok(Some(pass.clone()));
        }
        let Some(cleaning) = operator.clean_files(after).await? else { return Ok(None) };
        let (end, outcome) = watch::channel(Outcome::Pending);
        let pass = Pass { operation: cleaning.operation(), outcome };
        *next = Some(pass.clone());
        let cleaner = self.clone();
        tokio::spawn(async move {
            let _turn = cleaner.turn.lock().await;
            // What is erased from now on needs another one.
            *cleaner.next.lock().await = None;
            let cleaned = cleaning.run(Rewriting::Never, &mut |_, _| {}).await;
            if let Err(error) = &cleaned.booked {
                tracing::warn!(%error, "the end of a cleaning could not be booked");
            }
            end.send_replace(match cleaned.done {
                Ok(()) => Outcome::Done,
                Err(error) => {
                    tracing::warn!(%error, "the store's file could not be cleaned");
                    Outcome::Refused
                }
            });
        });
        Ok(Some(pass))
    }
}

impl Bytes {
    /// Whether none is left in the store's files.
    pub(crate) fn are_gone(&self) -> bool {
        self.outcome == Some(Outcome::Done)
    }

    /// The operation that removes them, and how far it is.
    pub(crate) fn cleaning(&self) -> Value {
        let outcome = match self.outcome {
            None => return Value::Null,
            Some(Outcome::Pending) => "pending",
            Some(Outcome::Done) => "done",
            Some(Outcome::Refused) => "refused",
        };
        json!({ "operation": self.operation, "outcome": outcome })
    }

    /// Where bytes of what was erased may still be.
    pub(crate) fn are_left_in(&self) -> Option<&'static str> {
        match self.outcome {
            None => {
                Some("bytes in the database's files and logs, until it vacuums and discards them")
            }
            // In the log they are whole values: it is emptied at the end of the pass.
            Some(Outcome::Pending) => Some(
                "bytes in the store's file and in the log beside it, until its cleaning is done",
            ),
            Some(Outcome::Refused) => Some(
                "bytes in the store's file and in the log beside it, until `profilestore erase \
                --vacuum`",
            ),
            Some(Outcome::Done) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use profilestore::{
        Attribution, GameServer,
        audit::{AuditOutcome, AuditQuery, audit_entries},
        data_store::{MemoryStore, SqliteStore},
        env::Env,
    };

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn erasures_that_wait_share_a_pass_that_has_not_begun() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("p.db"), Default::default()).unwrap();
        let server = GameServer::builder(store.clone()).start().await.unwrap();
        let operator = server.operator(Attribution::new("ann"));
        let cleaner = Arc::new(Cleaner::default());
        let under_way = cleaner.turn.lock().await;
        let after = Env::system().uuid();
        for erasure in [after, Env::system().uuid(), Env::system().uuid()] {
            let bytes = cleaner.clean(&operator, Some(erasure), Duration::ZERO).await;
            assert!(!bytes.are_gone());
            assert_eq!(bytes.cleaning()["outcome"], "pending");
            assert!(bytes.are_left_in().unwrap().ends_with("until its cleaning is done"));
        }
        drop(under_way);
        let bytes = cleaner.clean(&operator, Some(after), SOON).await;
        assert!(bytes.are_gone() && bytes.are_left_in().is_none(), "{bytes:?}");
        let booked = audit_entries(&store, &AuditQuery::default()).await.unwrap().entries;
        // The last one has shared it, or came when it had begun.
        let first = booked.last().filter(|_| booked.len() <= 2).unwrap();
        assert_eq!(first.details["after"], after.to_string());
        assert!(booked.iter().all(|entry| entry.outcome == AuditOutcome::Done), "{booked:?}");
        assert!(server.shutdown().await.is_complete());
    }

    /// It named the file's unused parts alone. In the log there may be whole values.
    #[test]
    fn what_is_not_cleaned_is_left_in_the_log_too() {
        for (outcome, until) in [
            (Outcome::Pending, "until its cleaning is done"),
            (Outcome::Refused, "until `profilestore erase --vacuum`"),
        ] {
            let bytes = Bytes { operation: None, outcome: Some(outcome) };
            let left = bytes.are_left_in().unwrap();
            assert!(left.contains("in the log beside it") && left.ends_with(until), "{left}");
        }
    }

    #[tokio::test]
    async fn a_store_without_files_says_so() {
        let server = GameServer::builder(MemoryStore::new(Env::system())).start().await.unwrap();
        let operator = server.operator(Attribution::new("ann"));
        let after = Some(Env::system().uuid());
        let bytes = Arc::new(Cleaner::default()).clean(&operator, after, SOON).await;
        assert_eq!((bytes.are_gone(), bytes.cleaning()), (false, Value::Null));
        assert!(bytes.are_left_in().unwrap().contains("database"));
        assert!(server.shutdown().await.is_complete());
    }
}
