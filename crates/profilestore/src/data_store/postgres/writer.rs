//! Writing: a transaction of two round trips for a batch of commits, tried again where another one
//! was met, and the honest answer when its outcome is unknown. A lone save that is plain takes one
//! (see `lone`), and so does a lone change of a profile that was just looked at (see `remembered`).
//!
//! The first round trip locks and reads what the batch needs; then the commits are judged and
//! applied here; the second one writes, reads what the answers show, and commits. Until the second
//! has been sent, nothing can have been applied. After that, only the server's answer tells. An
//! error of a statement before the `COMMIT`, or of the `COMMIT` itself, means that nothing was
//! applied. Success means that all was applied, unless the server warned: it warns when it stopped
//! waiting for its standby. Silence and everything else is unknown.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_postgres::{Error, Row};

use super::{
    Inner,
    batch::{Batch, Shown, Verdict},
    connect::{Answers, Conn},
    load::{self, Needs},
    lone::Saved,
    pool::Lease,
    queue::{self, Answer, Job, Reply, Taken},
    trouble::{Trouble, refused_to_commit},
    write::{self, Again},
};
use crate::data_store::{Commit, StoreError};

/// How often a transaction is tried that meets others.
const TRIES: u32 = 12;

/// How often keys get their empty rows in one transaction.
const ROUNDS: usize = 3;

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
const BEGIN_READING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// How a transaction failed.
#[derive(Debug)]
enum Failed {
    /// Nothing was applied; it met another transaction, and may well succeed now.
    Met(StoreError),
    /// Nothing was applied, because the connection was gone already.
    Gone(StoreError),
    /// Nothing was applied, and the same would happen to each of its commits alone.
    All(StoreError),
    /// Nothing was applied because of one of its commits.
    One(StoreError),
    /// Those that are in it with None may have been applied.
    Unknown(String, Vec<Option<Reply>>),
}

impl Failed {
    /// Nothing was applied.
    fn of(trouble: Trouble) -> Self {
        let (met, one, gone) =
            (trouble.met_another(), trouble.concerns_one(), trouble.is_disconnected());
        let err = trouble.not_applied();
        match () {
            () if met => Self::Met(err),
            () if gone => Self::Gone(err),
            () if one => Self::One(err),
            () => Self::All(err),
        }
    }
}

impl From<StoreError> for Failed {
    fn from(err: StoreError) -> Self {
        Self::One(err)
    }
}

/// Says that a writer ended, also when it did so by a panic.
struct Writing {
    inner: Arc<Inner>,
    done: bool,
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.done {
            self.inner.queue.writer_lost();
        }
    }
}

impl Inner {
    /// Hands commits to the writers and waits for the outcomes, until the deadline if there is one.
    pub(super) async fn submit(
        self: &Arc<Self>,
        commits: Vec<Commit>,
        deadline: Option<Instant>,
    ) -> Vec<Reply> {
        let ids: Vec<_> = commits.iter().map(|commit| commit.id).collect();
        let start = || {
            let writing = Writing { inner: self.clone(), done: false };
            tokio::spawn(writing.run());
        };
        let now = self.pool.dialer.options.env.now();
        let answers = self.queue.push(commits, now, deadline, start).await;
        let mut replies = Vec::with_capacity(ids.len());
        for (answer, commit) in answers.into_iter().zip(ids) {
            let unknown =
                |reason: &str| Err(StoreError::Indeterminate { commit, reason: reason.into() });
            let too_late = || {
                Err(StoreError::Unavailable {
                    reason: "other commits were written until it was too late".into(),
                })
            };
            let Some(Answer { mut reply, turn }) = answer else {
                replies.push(too_late());
                continue;
            };
            replies.push(match queue::by(deadline, &mut reply).await {
                Some(Ok(reply)) => reply,
                Some(Err(_)) => unknown("the writer stopped in the middle"),
                None if turn.take() => too_late(),
                None => unknown("the database did not answer in time"),
            });
        }
        replies
    }

    /// Answers commits of nothing but checks, which write nothing; once more where the connection
    /// had been lost before.
    pub(super) async fn check(&self, commits: &[Commit]) -> Vec<Reply> {
        if let [commit] = commits
            && let Some(reply) = self.check_alone(commit).await
        {
            return vec![reply];
        }
        let mut checked = self.try_check(commits).await;
        if let Err(Failed::Gone(err)) = &checked {
            tracing::debug!(%err, "reconnecting");
            // Its companions were lost with it.
            self.pool.drop_closed();
            checked = self.try_check(commits).await;
        }
        checked.unwrap_or_else(|failed| {
            let err = failed.not_applied();
            commits.iter().map(|_| Err(err.clone())).collect()
        })
    }

    async fn try_check(&self, commits: &[Commit]) -> Result<Vec<Reply>, Failed> {
        let mut reading = self.reader().await.map_err(Failed::All)?;
        let checked = async {
            let conn = reading.connection().await.map_err(Failed::All)?;
            let refs: Vec<&Commit> = commits.iter().collect();
            let (mut batch, _) = self.load(conn, &refs, false).await?;
            let verdicts: Vec<_> = commits.iter().map(|commit| batch.commit(commit)).collect();
            let again = Again::of(&batch, commits.iter().zip(&verdicts));
            let answers = finish_reading(conn, &again).await?;
            let shown = again.take(&mut batch, &answers)?;
            self.remembered.note_batch(&batch, commits.len());
            let answered = commits
                .iter()
                .zip(verdicts)
                .map(|(commit, verdict)| batch.answer(commit, verdict, &shown));
            Ok::<_, Failed>(answered.collect::<Vec<_>>())
        };
        match checked.await {
            Ok(replies) => {
                reading.done();
                Ok(replies)
            }
            Err(failed) => {
                reading.discard();
                Err(failed)
            }
        }
    }

    /// Begins a transaction and reads what commits need.
    async fn load(
        &self,
        conn: &Conn,
        commits: &[&Commit],
        lock: bool,
    ) -> Result<(Batch, usize), Failed> {
        let needs = Needs::of(commits.iter().copied());
        let mut begin = Some(if lock { BEGIN } else { BEGIN_READING });
        for round in 1.. {
            let (parts, steps): (Vec<_>, Vec<_>) = needs.steps(lock).into_iter().unzip();
            let answers = conn
                .pipeline(begin.take(), &steps, None)
                .await
                .map_err(Failed::of)?
                .ok_or(Trouble::Silent);
            let Answers { began, rows, .. } = answers.map_err(Failed::of)?;
            began.map_err(|err| Failed::of(err.into()))?;
            let rows = first_error(rows).map_err(|err| Failed::of(err.into()))?;
            let answers: Vec<(load::Part, Vec<Row>)> = parts.into_iter().zip(rows).collect();
            let batch = needs.batch(&answers, self.test_time())?;
            self.lone.note_time(self.pool.dialer.options.env.now(), batch.now_ms);
            let empty = if lock && round <= ROUNDS { needs.empty_heads(&batch) } else { None };
            let Some(empty) = empty else { return Ok((batch, round)) };
            let answers = conn
                .pipeline(None, &[empty], None)
                .await
                .map_err(Failed::of)?
                .ok_or(Trouble::Silent);
            first_error(answers.map_err(Failed::of)?.rows).map_err(|err| Failed::of(err.into()))?;
        }
        Err(Failed::All(StoreError::Unavailable { reason: "the transaction did not begin".into() }))
    }

    /// Writes commits in one transaction.
    async fn attempt(&self, conn: &Conn, commits: &[&Commit]) -> Result<Vec<Reply>, Failed> {
        let (mut batch, _) = self.load(conn, commits, true).await?;
        let verdicts: Vec<Verdict> = commits.iter().map(|commit| batch.commit(commit)).collect();
        let wrote =
            verdicts.iter().any(|verdict| matches!(verdict, Verdict::Replied { wrote: true, .. }));
        let again = Again::of(&batch, commits.iter().copied().zip(&verdicts));
        let answers = if wrote {
            let written = {
                let (parts, steps): (Vec<_>, Vec<_>) =
                    write::steps(&batch)?.into_iter().chain(again.steps()).unzip();
                conn.take_warning();
                let sent = conn.pipeline(None, &steps, Some("COMMIT")).await.map_err(Failed::of)?;
                outcome(conn, sent).map(|rows| parts.into_iter().zip(rows).collect::<Vec<_>>())
            };
            match written {
                Ok(answers) => answers,
                Err(Outcome::Not(failed)) => return Err(failed),
                Err(Outcome::Unknown(reason)) => {
                    // What was refused is refused, whatever became of the others. But what was to
                    // be read behind the writes was not: an answer that needs it is unknown as
                    // well.
                    let shown = Shown::default();
                    let sure = |(commit, verdict): (&&Commit, Verdict)| match verdict {
                        Verdict::Replied { wrote: true, .. } => None,
                        verdict
                            if !Again::of(&batch, [(*commit, &verdict)].into_iter()).is_empty() =>
                        {
                            None
                        }
                        verdict => Some(batch.answer(commit, verdict, &shown)),
                    };
                    return Err(Failed::Unknown(
                        reason,
                        commits.iter().zip(verdicts).map(sure).collect(),
                    ));
                }
            }
        } else {
            finish_reading(conn, &again).await?
        };
        let shown = again.take(&mut batch, &answers)?;
        self.remembered.note_batch(&batch, commits.len());
        Ok(commits
            .iter()
            .zip(verdicts)
            .map(|(commit, verdict)| batch.answer(commit, verdict, &shown))
            .collect())
    }

    /// Writes commits in one transaction; one alone by one statement, if it can be.
    async fn write(&self, lease: &mut Lease, commits: &[&Commit]) -> Result<Vec<Reply>, Failed> {
        let mut lost = None;
        if let [commit] = commits {
            let saved = match self.save_alone(lease, commit).await {
                Saved::NotPlain => self.change_alone(lease, commit).await,
                saved => saved,
            };
            match saved {
                Saved::Applied(reply) => return Ok(vec![*reply]),
                Saved::Unknown(reason) => return Err(Failed::Unknown(reason, vec![None])),
                Saved::TooLate(trouble) => return Err(Failed::of(trouble)),
                Saved::Lost(reason) => lost = Some(reason),
                Saved::NotPlain => {}
            }
        }
        let written = self.write_judged(lease, commits).await;
        let Some(reason) = lost else { return written };
        // It may have been applied: only these answers tell.
        let tells = |reply: &Reply| matches!(reply, Ok(_) | Err(StoreError::Conflict(_)));
        match written {
            Ok(replies) if replies.iter().all(tells) => Ok(replies),
            Err(unknown @ Failed::Unknown(..)) => Err(unknown),
            Ok(_) | Err(_) => Err(Failed::Unknown(reason, vec![None])),
        }
    }

    /// Writes commits in one transaction, judged by the rules, as often as it takes; the connection
    /// is kept for the next ones while it is fit.
    async fn write_judged(
        &self,
        lease: &mut Lease,
        commits: &[&Commit],
    ) -> Result<Vec<Reply>, Failed> {
        let mut reconnected = false;
        for attempt in 1.. {
            reconnected |= lease.kept().is_none();
            let conn = lease.connection().await.map_err(Failed::All)?;
            let done = self.attempt(conn, commits).await;
            let fit = match &done {
                Ok(_) => true,
                Err(Failed::Gone(_) | Failed::Unknown(..)) => false,
                Err(Failed::Met(_) | Failed::All(_) | Failed::One(_)) => {
                    conn.batch("ROLLBACK").await.is_ok()
                }
            };
            if fit {
                lease.rest()
            } else {
                lease.discard()
            }
            match done {
                Err(Failed::Met(err)) if attempt < TRIES => {
                    metrics::counter!("profilestore_postgres_retries_total").increment(1);
                    tracing::debug!(%err, attempt, commits = commits.len(), "a transaction met another one");
                    let most = u64::from(attempt * attempt).min(64);
                    let pause = self.pool.dialer.options.env.uuid().as_u128() as u64 % (most + 1);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                // The connection had been lost before, most likely: the server was restarted.
                Err(Failed::Gone(err)) if !reconnected => tracing::debug!(%err, "reconnecting"),
                done => return done,
            }
        }
        Err(Failed::All(StoreError::Unavailable { reason: "the transaction was not tried".into() }))
    }

    async fn run(&self, lease: &mut Result<Lease, StoreError>, mut taken: Taken) {
        let jobs = std::mem::take(&mut taken.jobs);
        let commits: Vec<&Commit> = jobs.iter().map(|job| &job.commit).collect();
        metrics::histogram!("profilestore_postgres_batch_commits").record(commits.len() as f64);
        let written = match lease {
            Ok(lease) => self.write(lease, &commits).await,
            Err(err) => Err(Failed::All(err.clone())),
        };
        let replies = match (written, lease) {
            (Ok(replies), _) => replies,
            // One of them spoils the transaction: each gets its own.
            (Err(Failed::One(err) | Failed::Met(err)), Ok(lease)) if commits.len() > 1 => {
                tracing::warn!(%err, commits = commits.len(), "a commit spoiled its transaction");
                let mut replies = Vec::with_capacity(commits.len());
                for commit in &commits {
                    let mut alone = match self.write(lease, std::slice::from_ref(commit)).await {
                        Ok(replies) => replies,
                        // The database went away: nobody waits for each of the others to find that
                        // out.
                        Err(Failed::All(err) | Failed::Gone(err)) => {
                            replies.resize(commits.len(), Err(err));
                            break;
                        }
                        Err(failed) => failed.replies(std::slice::from_ref(commit)),
                    };
                    replies.push(alone.pop().unwrap_or_else(|| Err(no_reply())));
                }
                replies
            }
            (Err(failed), _) => failed.replies(&commits),
        };
        drop(commits);
        // Callers come back with more the moment they are answered, and it may be about the same
        // keys.
        drop(taken);
        for (job, reply) in jobs.into_iter().zip(replies) {
            if let Ok(reply) = &reply {
                self.lone.note(&job.commit, reply);
            }
            metrics::histogram!("profilestore_postgres_commit_seconds")
                .record(job.since.elapsed().as_secs_f64());
            Job::answer(job, reply);
        }
    }
}

impl Writing {
    async fn run(mut self) {
        loop {
            // First the connection: commits that wait for one go with whichever is free first.
            let mut lease = self.inner.pool.take().await;
            let Some(taken) = self.inner.queue.take() else { break };
            self.inner.run(&mut lease, taken).await;
        }
        self.done = true;
    }
}

impl Failed {
    fn not_applied(self) -> StoreError {
        match self {
            Self::Met(err) | Self::Gone(err) | Self::All(err) | Self::One(err) => err,
            Self::Unknown(reason, _) => StoreError::Unavailable { reason },
        }
    }

    fn replies(self, commits: &[&Commit]) -> Vec<Reply> {
        match self {
            Self::Unknown(reason, sure) => {
                metrics::counter!("profilestore_postgres_unknown_total").increment(1);
                let unknown = |commit: &Commit| StoreError::Indeterminate {
                    commit: commit.id,
                    reason: reason.clone(),
                };
                commits
                    .iter()
                    .zip(sure)
                    .map(|(commit, sure)| sure.unwrap_or_else(|| Err(unknown(commit))))
                    .collect()
            }
            failed => {
                let err = failed.not_applied();
                commits.iter().map(|_| Err(err.clone())).collect()
            }
        }
    }
}

/// What became of a transaction after its `COMMIT` was sent.
enum Outcome {
    Not(Failed),
    Unknown(String),
}

/// The rows of a transaction that was committed for certain.
fn outcome(conn: &Conn, sent: Option<Answers>) -> Result<Vec<Vec<Row>>, Outcome> {
    let Some(Answers { rows, ended, .. }) = sent else {
        return Err(Outcome::Unknown("the database did not answer in time".into()));
    };
    let rows = match first_error(rows) {
        Ok(rows) => rows,
        // The transaction is rolled back, and so is the COMMIT behind it.
        Err(err) if err.as_db_error().is_some() => {
            return Err(Outcome::Not(Failed::of(err.into())));
        }
        Err(err) => {
            return Err(Outcome::Unknown(format!("the connection was lost while writing: {err}")));
        }
    };
    match ended {
        Ok(()) => match conn.take_warning() {
            None => Ok(rows),
            Some(warning) => {
                Err(Outcome::Unknown(format!("the database warned while committing: {warning}")))
            }
        },
        Err(err) if refused_to_commit(&err) => Err(Outcome::Not(Failed::of(err.into()))),
        Err(err) => {
            Err(Outcome::Unknown(format!("the connection was lost while committing: {err}")))
        }
    }
}

/// All answers, or the first that failed.
fn first_error(rows: Vec<Result<Vec<Row>, Error>>) -> Result<Vec<Vec<Row>>, Error> {
    rows.into_iter().collect()
}

/// Ends a transaction that wrote nothing.
async fn finish_reading(
    conn: &Conn,
    again: &Again,
) -> Result<Vec<(write::Part, Vec<Row>)>, Failed> {
    let (parts, steps): (Vec<_>, Vec<_>) = again.steps().into_iter().unzip();
    let answers = conn
        .pipeline(None, &steps, Some("ROLLBACK"))
        .await
        .map_err(Failed::of)?
        .ok_or(Trouble::Silent);
    let Answers { rows, ended, .. } = answers.map_err(Failed::of)?;
    ended.map_err(|err| Failed::of(err.into()))?;
    let rows = first_error(rows).map_err(|err| Failed::of(err.into()))?;
    Ok(parts.into_iter().zip(rows).collect())
}

fn no_reply() -> StoreError {
    StoreError::Unavailable { reason: "the store gave no answer for the commit".into() }
}
