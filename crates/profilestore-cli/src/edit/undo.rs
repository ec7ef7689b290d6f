//! Undoing an operation, once: what was added would be subtracted a second time. The library knows
//! what is undone ([`undoing`]).

use profilestore::{
    Attribution, ErrorKind,
    audit::{
        AuditEntry, AuditOutcome, AuditQuery, Undoing, UnreadableEntry, audit_entries, undoing,
    },
    env::Env,
    operator::BulkEdit,
};
use uuid::Uuid;

use super::EditCommand;
use crate::{
    app::App,
    operate::failure,
    output::{Failure, Status, ask, note},
    place::Store,
    times::time,
};

/// How often it is looked again when other undos of the operation begin or end meanwhile.
const LOOKS: usize = 5;

impl EditCommand {
    /// Undoes an operation, once: one that was broken off is gone on with.
    pub(super) async fn undo_of(
        &self,
        app: &App,
        file: Store,
        of: Uuid,
        by: Attribution,
    ) -> Result<Status, Failure> {
        let undo = self.begun_undo(&file, of, &by).await?;
        // Behind the question, which may take long.
        let booked = AuditQuery { operation: Some(of), ..AuditQuery::default() };
        let booked = audit_entries(&*file, &booked).await.map_err(failure)?;
        let status = self.bulk(app, file, undo, by, None).await?;
        if booked.entries.is_empty() && booked.unreadable.is_empty() {
            return Err(Failure::NotFound(format!(
                "the audit log has no such operation; if it is still on its way, it will not take \
                    effect: operation=`{of}`"
            )));
        }
        Ok(status)
    }

    /// The undo that is to be made: the one that was broken off, or a new one.
    async fn begun_undo(
        &self,
        file: &Store,
        of: Uuid,
        by: &Attribution,
    ) -> Result<BulkEdit, Failure> {
        let (mut asked, mut again): (Option<String>, _) = (None, self.again);
        for _ in 0..LOOKS {
            let seen = undoing(&**file, of).await.map_err(failure)?;
            if !seen.damaged.is_empty() && !again {
                return Err(not_known(&seen));
            }
            if asked.is_none() {
                for UnreadableEntry { key, why, .. } in &seen.damaged {
                    note(format_args!("problem: what is booked about an undo: {key}: {why}"));
                }
            }
            let newest = seen.newest.as_ref().and_then(|undo| undo.entry.as_ref());
            let broken_off = match newest {
                Some(begun) if begun.outcome == AuditOutcome::Pending => Some(begun.operation),
                Some(undone) if !again => return Err(refused(of, undone)),
                _ => None,
            };
            let question = match broken_off {
                Some(begun) => format!("go on to undo operation {of}, with operation {begun}?"),
                None => format!("undo operation {of}?"),
            };
            if !self.yes && asked.as_ref() != Some(&question) && !ask(&question)? {
                return Err(Failure::Work(format!("not undone: operation=`{of}`")));
            }
            asked = Some(question);
            let begun = match broken_off {
                Some(begun) => Some(begun),
                None => {
                    let begun = seen.begin(&**file, &Env::system(), by.clone()).await;
                    begun.map_err(failure)?
                }
            };
            if let Some(begun) = begun {
                match BulkEdit::resume(&**file, begun).await {
                    // It has ended since the look.
                    Err(error) if error.kind() == ErrorKind::Invalid => {}
                    undo => return undo.map_err(failure),
                }
            }
            // Once more is what the other one did.
            again = false;
        }
        Err(Failure::Work(format!(
            "other undos of it began and ended meanwhile; nothing was begun: operation=`{of}`"
        )))
    }
}

/// Why it is not undone as long as nothing tells whether it is.
fn not_known(seen: &Undoing) -> Failure {
    let damaged =
        seen.damaged.iter().map(|UnreadableEntry { key, why, .. }| format!("{key}: {why}"));
    let damaged = damaged.collect::<Vec<_>>().join("; ");
    let by = match &seen.newest {
        Some(undo) => format!("operation {} undoes it", undo.operation),
        None => "another operation undoes it".to_owned(),
    };
    Failure::Work(format!(
        "{by}, and how far that came cannot be read: {damaged}; nothing was changed. To undo it \
            all the same, add --again; where that operation came to, what was added is subtracted \
            a second time: operation=`{}`",
        seen.of
    ))
}

/// Why it is not undone once more.
fn refused(of: Uuid, undone: &AuditEntry) -> Failure {
    let AuditEntry { operation, by, began_ms, outcome, .. } = undone;
    let how = match outcome {
        AuditOutcome::Done => "undone already",
        _ => "undone in part, which was given up",
    };
    Failure::Work(format!(
        "it was {how}, at {} by {}: nothing was changed. To take that back: profilestore edit \
            --undo {operation}. To undo once more what is undone, add --again, and what was added \
            is subtracted a second time: operation=`{of}`",
        time(*began_ms),
        by.author
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::place::Place;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        edit: EditCommand,
    }

    /// The later one ended with 2, as if the command line were wrong.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_two_runs_of_an_undo_the_later_one_says_that_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Sqlite(folder.path().join("profiles.db"));
        let store = place.open_or_create().await.unwrap();
        let (of, by) = (Env::system().uuid(), Attribution::new("ann"));
        let seen = undoing(&*store, of).await.unwrap();
        let begun = seen.begin(&*store, &Env::system(), by.clone()).await.unwrap().unwrap();
        // Both looked before one of them had ended.
        let undo = BulkEdit::resume(&*store, begun).await.unwrap();
        let app = App { named: None, place, messenger: None, config: None, json: true };
        let Line { edit } = Line::parse_from(["edit", "--undo", of.to_string().as_str()]);
        let one = edit.bulk(&app, store.clone(), undo.clone(), by.clone(), None).await;
        assert!(matches!(one, Ok(Status::Fine)), "{one:?}");
        match edit.bulk(&app, store, undo, by, None).await {
            Err(Failure::Work(said)) => assert!(said.contains("another run"), "{said}"),
            other => panic!("{other:?}"),
        }
    }
}
