//! One edit for many profiles: page by page, many commits at once for those without a holder,
//! messages for the others, whose outcomes are awaited together at the end.
//!
//! What was done is known from the audit log alone: every profile's entry has its place there
//! before the run begins, and a profile whose entry is settled is left alone. So a run may be
//! broken off anywhere and repeated.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Engine, rewrite::was_overtaken};
use crate::{
    audit::{AuditEntry, AuditOutcome, AuditPage, AuditQuery, audit_entries_within, entry_key},
    data_store::{Commit, KeyState, Returning, StoreError},
    edit::{
        Edit,
        bulk::{BulkProgress, BulkReport, Plan, What, is_of_many},
        request::{EditRequest, Next, UNMATCHED, entry_key_of},
    },
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
};

/// How many profiles are worked on in one piece, and how many bytes of stored values at most.
const PIECE: usize = 256;
const PIECE_BYTES: u64 = 8 << 20;

/// How many pieces are under way at once.
const PIECES: usize = 4;

const FIRST_LOOK: Duration = Duration::from_millis(5);
const LAST_LOOK: Duration = Duration::from_millis(200);
const JUDGE_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Work {
    key: ProfileKey,
    request: Arc<EditRequest>,
}

/// What became of a profile.
enum Fate {
    Settled(AuditEntry),
    /// It was settled before this look.
    Before(AuditEntry),
    Waits,
    Nothing,
    Refused(String),
}

/// Where the work comes from.
enum Source {
    Keys {
        query: Option<crate::data_store::KeyQuery>,
        request: Arc<EditRequest>,
    },
    /// `of_many`: only what an edit of many did; edits of one that came under its operation count
    /// as their own.
    Entries {
        query: Option<AuditQuery>,
        of_many: bool,
    },
}

/// One profile's edit.
fn request_of(bulk: &Plan, edit: Edit) -> Result<EditRequest> {
    let request = EditRequest::new(bulk.operation, edit, bulk.by.clone(), true)?;
    Ok(request.through(bulk.types.clone()))
}

/// True when an edit changed something and what would undo it could not be kept.
fn undo_is_lost(entry: &AuditEntry) -> bool {
    ["undo_too_long", "undo_unstorable"].iter().any(|lost| entry.details.contains_key(*lost))
}

fn changed_something(entry: &AuditEntry) -> bool {
    entry.details.contains_key("undo") || undo_is_lost(entry)
}

impl Engine {
    /// See `Operator::edit_all`.
    pub(crate) async fn edit_all(
        self: &Arc<Self>,
        bulk: &Plan,
        progress: &mut (dyn FnMut(BulkProgress) + Send),
    ) -> Result<BulkReport> {
        bulk.check()?;
        let header = self.begin(bulk).await?;
        match &bulk.what {
            // First, so that no profile begins behind the edit's back.
            What::Edit(..) => self.stand(bulk).await?,
            What::Undo(of) => self.end_standing(*of, bulk.operation, &bulk.by).await?,
        }
        let mut source = match &bulk.what {
            What::Edit(profiles, edit) => Source::Keys {
                query: Some(profiles.query(PIECE)),
                request: Arc::new(request_of(bulk, edit.clone())?.only(profiles.filter.clone())),
            },
            What::Undo(of) => Source::Entries {
                query: Some(AuditQuery { operation: Some(*of), ..AuditQuery::default() }),
                of_many: match self.header(*of).await {
                    // What it says cannot be read, so all that was booked under it counts.
                    Err(error) if error.kind() == ErrorKind::Corrupt => false,
                    header => header?.as_ref().is_some_and(is_of_many),
                },
            },
        };
        let (mut report, mut shown) = (BulkReport::default(), BulkProgress::default());
        let mut waiting = Vec::new();
        let mut pieces: VecDeque<Vec<Work>> = VecDeque::new();
        let mut tasks: JoinSet<Result<Vec<(Work, Fate)>>> = JoinSet::new();
        loop {
            while tasks.len() < PIECES {
                if pieces.is_empty() {
                    match self.more(&mut source, bulk, &mut report).await? {
                        Some(more) => pieces.extend(more),
                        None => break,
                    }
                }
                let Some(piece) = pieces.pop_front() else { continue };
                tasks.spawn_on(piece_of(self.clone(), piece), &self.link.runtime);
            }
            let Some(done) = tasks.join_next().await else { break };
            let done = done.map_err(|_| {
                Error::new(ErrorKind::Unknown, "a part of the edit was broken off; see the log")
            })??;
            shown.passed += done.len() as u64;
            count(done, &mut report, &mut waiting, false);
            shown.waiting = waiting.len() as u64;
            shown.settled = shown.passed - shown.waiting;
            progress(shown);
        }
        self.await_holders(bulk, waiting, &mut report, |left| {
            shown.waiting = left;
            shown.settled = shown.passed - left;
            progress(shown);
        })
        .await?;
        if report.waiting.is_empty() {
            self.complete(header, &report).await?;
        }
        Ok(report)
    }

    /// Writes the operation down, unless it is a resumed one.
    async fn begin(&self, bulk: &Plan) -> Result<AuditEntry> {
        let entry = bulk.entry()?;
        match self.book_change(entry.change_at(0)?).await {
            Err(error) if was_overtaken(&error) => {}
            other => return Ok(other.map(|()| entry)?),
        }
        let booked = self.header(bulk.operation).await?;
        let same = booked.is_some_and(|booked| {
            booked.outcome == AuditOutcome::Pending
                && (&booked.action, &booked.details) == (&entry.action, &entry.details)
        });
        if same {
            Ok(entry)
        } else {
            Err(Error::new(ErrorKind::Invalid, "this operation is complete, or another one"))
        }
    }

    /// An operation's own entry. An edit of one has none.
    async fn header(&self, operation: Uuid) -> Result<Option<AuditEntry>> {
        let returning = Returning { value: true, inbox_unless: None };
        let (_, state) = self.link.read_settled(&entry_key(operation, &[]), returning).await?;
        AuditEntry::of(&state)
    }

    async fn complete(&self, entry: AuditEntry, report: &BulkReport) -> Result<()> {
        // Of all runs together.
        let BulkReport { before, refused_before, unmatched_before, .. } = *report;
        let done = entry
            .outcome(AuditOutcome::Done)
            .detail("edited", report.done + before - refused_before - unmatched_before)
            .detail("refused", report.refused.len() as u64 + refused_before)
            .detail("unmatched", report.unmatched + unmatched_before)
            .detail("skipped", report.skipped);
        match self.book_change(done.change_at(1)?).await {
            // Two runs at once: the other one said so.
            Err(error) if was_overtaken(&error) => Ok(()),
            other => Ok(other?),
        }
    }

    async fn book_change(&self, change: crate::data_store::Change) -> Result<(), StoreError> {
        let deadline = self.link.deadline();
        let commit = self.link.new_commit(vec![change], Returning::HEAD);
        self.link.settle(&commit, deadline).await.map(drop)
    }

    /// The next pieces of work. None: that was all.
    async fn more(
        &self,
        source: &mut Source,
        bulk: &Plan,
        report: &mut BulkReport,
    ) -> Result<Option<Vec<Vec<Work>>>> {
        match source {
            Source::Keys { query, request } => {
                let Some(asked) = query else { return Ok(None) };
                let page = &*asked;
                let states = self.link.reading(None, || self.link.store.keys(page)).await?;
                match states.last().filter(|_| states.len() >= PIECE) {
                    Some(last) => asked.after = Some(last.key.clone()),
                    None => *query = None,
                }
                report.skipped += states.iter().filter(|state| !state.exists()).count() as u64;
                Ok(Some(split(states.into_iter().filter(KeyState::exists).map(|state| {
                    let bytes = state.head.as_ref().map_or(0, |head| head.bytes);
                    (bytes, Work { key: state.key, request: request.clone() })
                }))))
            }
            Source::Entries { query, of_many } => {
                let Some(asked) = query else { return Ok(None) };
                let page = self.page_of_entries(asked).await?;
                match page.next {
                    Some(next) => asked.after = Some(next),
                    None => *query = None,
                }
                let unreadable = page.unreadable.into_iter().map(|entry| (entry.key, entry.why));
                report.refused.extend(unreadable);
                let mut work = Vec::new();
                for entry in page.entries {
                    let [key] = &entry.keys[..] else { continue };
                    let is_its_own = *of_many && entry.details.contains_key("edit");
                    if key.is_reserved() || is_its_own {
                        continue;
                    }
                    let undo = entry
                        .details
                        .get("undo")
                        .map(|undo| serde_json::from_value::<Edit>(undo.clone()));
                    match (&entry.outcome, undo) {
                        (AuditOutcome::Done, Some(Ok(undo))) => {
                            let request = Arc::new(request_of(bulk, undo)?);
                            work.push(Work { key: key.clone(), request });
                        }
                        (AuditOutcome::Done, None) if !undo_is_lost(&entry) => report.skipped += 1,
                        (AuditOutcome::Refused { .. }, _) => report.skipped += 1,
                        (AuditOutcome::Pending, _) => {
                            report.refused.push((
                                key.clone(),
                                "the edit that is to be undone still waits for the holder".into(),
                            ));
                        }
                        _ => {
                            report.refused.push((
                                key.clone(),
                                "what would undo it is not kept; roll back to an earlier version"
                                    .into(),
                            ));
                        }
                    }
                }
                let keys: Vec<ProfileKey> = work.iter().map(|work| work.key.clone()).collect();
                let states = self.link.read_all(&keys, Returning::HEAD).await?.states;
                let bytes =
                    states.iter().map(|state| state.head.as_ref().map_or(0, |head| head.bytes));
                Ok(Some(split(bytes.zip(work))))
            }
        }
    }

    async fn page_of_entries(&self, query: &AuditQuery) -> Result<AuditPage> {
        let (store, each) = (&*self.link.store, self.link.settings().call_timeout);
        audit_entries_within(store, query, &self.link.env, each).await
    }

    /// Waits for the outcomes of what was sent to holders.
    async fn await_holders(
        self: &Arc<Self>,
        bulk: &Plan,
        mut waiting: Vec<Work>,
        report: &mut BulkReport,
        mut progress: impl FnMut(u64),
    ) -> Result<()> {
        let deadline = self.link.env.after(bulk.patience);
        let (mut look_in, mut judged) = (FIRST_LOOK, self.link.env.now());
        while !waiting.is_empty() && self.link.env.now() < deadline {
            self.link.env.sleep_until(deadline.min(self.link.env.after(look_in))).await;
            look_in = (look_in * 2).min(LAST_LOOK);
            let judge = self.link.env.now() >= judged + JUDGE_AGAIN;
            let mut left = Vec::new();
            for some in waiting.chunks(PIECE) {
                let looked = if judge { None } else { self.look_at_books(some).await? };
                let fates = match looked {
                    Some(fates) => fates,
                    // Their holders may have let go or died.
                    None => piece_of(self.clone(), some.to_vec()).await?,
                };
                count(fates, report, &mut left, true);
            }
            if judge {
                judged = self.link.env.now();
            }
            if left.len() < waiting.len() {
                look_in = FIRST_LOOK;
            }
            waiting = left;
            progress(waiting.len() as u64);
        }
        report.waiting.extend(waiting.into_iter().map(|work| work.key));
        Ok(())
    }

    /// What was booked of profiles that wait for their holders. None: an entry cannot be read, and
    /// it is to be found out whose.
    async fn look_at_books(&self, waiting: &[Work]) -> Result<Option<Vec<(Work, Fate)>>> {
        let book = |work: &Work| entry_key_of(work.request.operation, &work.key);
        let books: Vec<_> = waiting.iter().map(book).collect();
        let outcomes = match self.outcomes(&books).await {
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Damaged) => {
                return Ok(None);
            }
            outcomes => outcomes?,
        };
        let fates = outcomes.into_iter().map(|entry| entry.map_or(Fate::Waits, Fate::Settled));
        Ok(Some(waiting.iter().cloned().zip(fates).collect()))
    }

    /// Commits many at once. Those that lost a race or whose outcome is unknown are seen through
    /// one by one.
    async fn commit_piece(
        self: &Arc<Self>,
        work: Vec<(Work, Commit, Option<AuditEntry>)>,
    ) -> Result<Vec<(Work, Fate)>> {
        let commits = work.iter().map(|(_, commit, _)| commit.clone()).collect();
        let by = self.link.env.on_tokios_clock(self.link.deadline().at());
        let results = self.link.store.commit_by(commits, by).await;
        if results.len() != work.len() {
            return Err(Error::new(
                ErrorKind::Unknown,
                "the store gave no answer for some commits",
            ));
        }
        let deadline = self.link.deadline();
        let mut fates = Vec::with_capacity(work.len());
        for ((work, commit, settled), mut result) in work.into_iter().zip(results) {
            if let Err(error) = &result
                && error.is_transient()
            {
                self.link.note_error(error, Some(&work.key));
                result = self.link.settle(&commit, deadline).await;
            } else if let Ok(reply) = &result {
                self.link.hint(reply).await;
            }
            let fate = match result {
                Ok(_) => {
                    self.table.look(&work.key);
                    settled.map_or(Fate::Waits, Fate::Settled)
                }
                Err(error) if was_overtaken(&error) => self
                    .edit_now(&work.key, &work.request)
                    .await
                    .map_or_else(fate_of, |entry| Ok(entry.map_or(Fate::Waits, Fate::Settled)))?,
                Err(error) => return Err(error.into()),
            };
            fates.push((work, fate));
        }
        Ok(fates)
    }
}

async fn piece_of(engine: Arc<Engine>, piece: Vec<Work>) -> Result<Vec<(Work, Fate)>> {
    let mut keys: Vec<ProfileKey> = piece.iter().map(|work| work.key.clone()).collect();
    keys.extend(piece.iter().map(|work| entry_key_of(work.request.operation, &work.key)));
    let incarnation = engine.link.incarnation();
    let snapshot = match engine.link.read_all(&keys, Returning::ALL).await {
        Err(StoreError::Damaged { .. }) => return one_by_one(&engine, piece).await,
        read => read?,
    };
    if snapshot.states.len() != keys.len() {
        return Err(Error::new(ErrorKind::Corrupt, "the store gave no answer for some keys"));
    }
    let (states, books) = snapshot.states.split_at(piece.len());
    let (mut fates, mut commits) =
        (Vec::with_capacity(piece.len()), Vec::with_capacity(piece.len()));
    for (work, (state, book)) in piece.into_iter().zip(states.iter().zip(books)) {
        let (changes, settled) = match engine.next_of(&work.request, state, book, snapshot.now_ms) {
            Ok(Next::Settle(changes, entry)) => (changes, Some(entry)),
            Ok(Next::Send(changes)) => (changes, None),
            Ok(Next::Settled(entry)) => {
                fates.push((work, Fate::Before(entry)));
                continue;
            }
            Ok(Next::PassedOver(entry)) => {
                fates.push((work, Fate::Settled(entry)));
                continue;
            }
            Ok(Next::Waits) => {
                engine.table.look(&work.key);
                fates.push((work, Fate::Waits));
                continue;
            }
            Err(error) => {
                // What was booked of this one cannot be read, or nothing waits for it any more.
                let fate = match error.kind() {
                    ErrorKind::Corrupt => Fate::Refused(error.to_string()),
                    _ => fate_of(error)?,
                };
                fates.push((work, fate));
                continue;
            }
        };
        commits.push((
            work,
            engine.link.commit_from_outside(incarnation, changes, Returning::HEAD),
            settled,
        ));
    }
    if !commits.is_empty() {
        fates.extend(engine.commit_piece(commits).await?);
    }
    Ok(fates)
}

/// A piece in which a value is damaged: that profile is refused, and the others go on.
async fn one_by_one(engine: &Arc<Engine>, piece: Vec<Work>) -> Result<Vec<(Work, Fate)>> {
    let mut fates = Vec::with_capacity(piece.len());
    for work in piece {
        let done = engine.edit_now(&work.key, &work.request).await;
        let fate =
            done.map_or_else(fate_of, |entry| Ok(entry.map_or(Fate::Waits, Fate::Settled)))?;
        fates.push((work, fate));
    }
    Ok(fates)
}

/// What an error about one profile means for all of them.
fn fate_of(error: Error) -> Result<Fate> {
    match error.kind() {
        ErrorKind::NotFound => Ok(Fate::Nothing),
        ErrorKind::Foreign
        | ErrorKind::Damaged
        | ErrorKind::Undecodable
        | ErrorKind::NewerData
        | ErrorKind::Refused => Ok(Fate::Refused(error.to_string())),
        _ => Err(error),
    }
}

/// Notes what became of profiles; those that wait are put aside. `sent`: they were sent to their
/// holders by this run.
fn count(fates: Vec<(Work, Fate)>, report: &mut BulkReport, waiting: &mut Vec<Work>, sent: bool) {
    for (work, fate) in fates {
        match fate {
            Fate::Before(entry) if !sent => {
                report.before += 1;
                if let AuditOutcome::Refused { .. } = entry.outcome {
                    let unmatched = entry.details.contains_key(UNMATCHED);
                    report.unmatched_before += u64::from(unmatched);
                    report.refused_before += u64::from(!unmatched);
                }
            }
            // One that its holder settled between two looks says so itself.
            Fate::Settled(entry) | Fate::Before(entry) => match entry.outcome {
                AuditOutcome::Refused { .. } if entry.details.contains_key(UNMATCHED) => {
                    report.unmatched += 1;
                }
                AuditOutcome::Refused { why } => report.refused.push((work.key, why)),
                _ => {
                    report.done += 1;
                    report.unchanged += u64::from(!changed_something(&entry));
                    report.by_holders += u64::from(entry.details.contains_key("held_by"));
                }
            },
            Fate::Waits => waiting.push(work),
            Fate::Nothing => report.skipped += 1,
            Fate::Refused(why) => report.refused.push((work.key, why)),
        }
    }
}

/// Work in pieces that are neither too many profiles nor too many bytes.
fn split(work: impl IntoIterator<Item = (u64, Work)>) -> Vec<Vec<Work>> {
    let mut pieces: Vec<Vec<Work>> = Vec::new();
    let mut bytes = PIECE_BYTES;
    for (size, work) in work {
        match pieces.last_mut().filter(|piece| piece.len() < PIECE && bytes + size <= PIECE_BYTES) {
            Some(piece) => piece.push(work),
            None => {
                bytes = 0;
                pieces.push(vec![work]);
            }
        }
        bytes += size;
    }
    pieces
}
