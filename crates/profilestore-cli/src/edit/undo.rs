//! Undoing an operation, once: what was added would be subtracted a second time.
//!
//! An undo is booked in the audit log in one commit with a note of it, at a place that is named by
//! the undone operation. The note takes the place of the one that was looked at. So of two undos
//! that begin at the same moment the store refuses one, which looks again. The server does the same
//! at the same place (its `bulk/undone.rs`).

use profilestore::{
    Attribution, Error, ErrorKind, ProfileKey,
    audit::{AuditEntry, AuditOutcome, AuditQuery, audit_entries},
    data_store::{
        Cause, Change, Commit, CommitId, DataStoreExt, Incarnation, KeyState, NewValue, Returning,
        StoreError,
    },
    env::Env,
    key::RESERVED_STORE,
    operator::BulkEdit,
    record::{Foreign, Stored},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::to_raw_value};
use uuid::Uuid;

use super::EditCommand;
use crate::{
    app::App,
    audit,
    operate::failure,
    output::{Failure, Status, ask},
    place::Store,
    times::time,
};

/// By how much the clocks of two machines may differ, for the search in the log.
const CLOCKS_DIFFER_MS: i64 = 60 * 60 * 1000;

/// How often it is looked again when other undos of the operation begin or end meanwhile.
const LOOKS: usize = 5;

/// Where the notes are, in the reserved store.
const SCOPE: &str = "undone";

/// The form of a note. One with a higher number was made by a newer version.
const FORM: u32 = 1;

/// Which operation was the last to undo the one that the note is about.
#[derive(Serialize, Deserialize)]
struct Note {
    v: u32,
    by: Uuid,
}

/// What is known of an operation's undoing.
struct Seen {
    /// The newest operation that undoes it.
    newest: Option<AuditEntry>,
    incarnation: Incarnation,
    /// The version of the note.
    version: u64,
}

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
            let seen = look(file, of).await?;
            let broken_off = match &seen.newest {
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
                None => begin(file, of, &seen, by).await?,
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

/// Looks whether an operation is undone.
async fn look(store: &Store, of: Uuid) -> Result<Seen, Failure> {
    // Before the rest, so that what follows is noticed: a restored backup, another undo.
    let incarnation = store.identity().await?.incarnation;
    let (_, note) = store.read_one(&place(of).map_err(failure)?, VALUE).await?;
    let newest = match noted(&note).map_err(failure)? {
        None => in_the_log(store, of).await?,
        Some(by) => {
            let entry = audit::own_entry(store, by).await?;
            Some(entry.ok_or_else(|| {
                Failure::Work(format!(
                    "it was undone, and the entry about that cannot be read: operation=`{by}`"
                ))
            })?)
        }
    };
    Ok(Seen { newest, incarnation, version: note.version })
}

const VALUE: Returning = Returning { value: true, inbox_unless: None };

/// The newest operation of the log that undoes this one, also without a note: those of programs
/// that keep none.
async fn in_the_log(store: &Store, of: Uuid) -> Result<Option<AuditEntry>, Failure> {
    let mut query = AuditQuery {
        since_ms: Some((audit::began_ms(of) - CLOCKS_DIFFER_MS).max(0)),
        grouped: true,
        ..AuditQuery::default()
    };
    loop {
        let page = audit_entries(&**store, &query).await.map_err(failure)?;
        let found = page.entries.into_iter().find(|entry| undoes(entry, of));
        query.after = page.next;
        if found.is_some() || query.after.is_none() {
            return Ok(found);
        }
    }
}

fn undoes(entry: &AuditEntry, of: Uuid) -> bool {
    let named = entry.details.get("undoes").and_then(Value::as_str);
    entry.action == "undo" && entry.keys.is_empty() && named == Some(of.to_string().as_str())
}

/// Books a new operation that undoes this one, which [`BulkEdit::resume`] then goes on with. None:
/// another one began since the look.
async fn begin(
    store: &Store,
    of: Uuid,
    seen: &Seen,
    by: &Attribution,
) -> Result<Option<Uuid>, Failure> {
    let env = Env::system();
    let operation = env.uuid();
    // As the library books it.
    let entry = AuditEntry::new(operation, "undo", Vec::new(), by.clone())
        .outcome(AuditOutcome::Pending)
        .detail("undoes", of.to_string());
    let note = note(of, operation, seen.version).map_err(failure)?;
    let commit = Commit {
        id: CommitId(env.uuid()),
        incarnation: seen.incarnation,
        from: None,
        changes: vec![note, entry.change().map_err(failure)?],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    let done = match store.commit_one(commit.clone()).await {
        // The same commit again tells, and does it if it was not done.
        Err(StoreError::Indeterminate { .. }) => store.commit_one(commit).await,
        done => done,
    };
    match done {
        Ok(_) => Ok(Some(operation)),
        Err(StoreError::Conflict(_)) => Ok(None),
        Err(error) => Err(failure(error.into())),
    }
}

/// Where the note about an operation is.
fn place(of: Uuid) -> profilestore::Result<ProfileKey> {
    Ok(ProfileKey::new(RESERVED_STORE, SCOPE, &of.to_string())?)
}

/// The change that writes a note over this version of it; 0: over none.
fn note(of: Uuid, by: Uuid, version: u64) -> profilestore::Result<Change> {
    let value = to_raw_value(&Note { v: FORM, by })
        .map_err(|error| Error::from(StoreError::Invalid { reason: error.to_string() }))?;
    let foreign = Foreign { user_ids: Vec::new(), metadata: Map::new(), value };
    Ok(Change::Write {
        key: place(of)?,
        epoch: 0,
        version,
        value: NewValue::Bytes(Stored::Foreign(foreign).encode()?),
        user_ids: Vec::new(),
        cause: Cause::Set,
        author: SCOPE.to_owned(),
        keep_previous: false,
        seal: false,
        imported: None,
    })
}

/// What a note says, if there is one.
fn noted(state: &KeyState) -> profilestore::Result<Option<Uuid>> {
    let Some(bytes) = &state.value else { return Ok(None) };
    let damaged = || {
        let key = &state.key;
        let reason = format!("a note cannot be read, or is of a newer version: key=`{key}`");
        Error::from(StoreError::Corrupt { reason })
    };
    let Stored::Foreign(foreign) = Stored::decode(bytes)? else { return Err(damaged()) };
    let note: Note = serde_json::from_str(foreign.value.get()).map_err(|_| damaged())?;
    if note.v > FORM { Err(damaged()) } else { Ok(Some(note.by)) }
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
        let seen = look(&store, of).await.unwrap();
        let begun = begin(&store, of, &seen, &by).await.unwrap().unwrap();
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

    /// Both had looked, both began, and what was added was subtracted twice.
    #[tokio::test]
    async fn of_two_undos_that_begin_at_the_same_moment_one_looks_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Sqlite(folder.path().join("profiles.db"));
        let store = place.open_or_create().await.unwrap();
        let (of, by) = (Env::system().uuid(), Attribution::new("ann"));
        let [one, other] = [look(&store, of).await.unwrap(), look(&store, of).await.unwrap()];
        assert!(one.newest.is_none() && other.newest.is_none());
        let begun = begin(&store, of, &one, &by).await.unwrap().unwrap();
        assert_eq!(begin(&store, of, &other, &by).await.unwrap(), None);
        let seen = look(&store, of).await.unwrap();
        let newest = seen.newest.as_ref().unwrap();
        assert_eq!((newest.operation, &newest.outcome), (begun, &AuditOutcome::Pending));
        let undo = BulkEdit::resume(&*store, begun).await.unwrap();
        assert_eq!(undo.operation(), begun);
        // The same for two that undo it once more, and for a note that is no longer the last one.
        let other = look(&store, of).await.unwrap();
        let again = begin(&store, of, &seen, &by).await.unwrap().unwrap();
        for late in [&one, &other] {
            assert_eq!(begin(&store, of, late, &by).await.unwrap(), None);
        }
        let newest = look(&store, of).await.unwrap().newest.unwrap();
        assert_eq!(newest.operation, again);
        assert!(in_the_log(&store, of).await.unwrap().is_some(), "it is an undo like any other");
    }
}
