//! `erase`: everything of one user.

use std::io::Write;

use clap::Args;
use profilestore::{
    Attribution, Operator, UserId,
    data_store::{DataStore, DataStoreExt, KeyQuery},
    operator::{EraseReport, Rewriting},
};
use serde::Serialize;

use crate::{
    app::App,
    given::ByArgs,
    operate::{Visit, failure},
    output::{Failure, Status, ask, chain, count, facts, json_document, note, out, say, text},
    place::Kind,
    transfer::progress_bar,
};

const PAGE: usize = 256;

/// Erase everything of a user
///
/// Erases the profiles that are associated with the user, or were when they were removed: data,
/// history (pinned versions too), waiting messages, and what the audit log holds of their content.
/// Then the file is cleaned in slices, so that no byte of it is left; commits wait for one slice.
/// Sessions on them end. Profiles that belong to other users too are left alone and
/// reported, unless --shared is given. What stays: the names of the profiles with their counters,
/// receipts of messages (so that a retry revives nothing), and the entry in the audit log. Not
/// touched: backups and exports.
///
/// The exit code is 1 when something of the user is left, which the report names; erase again then.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore export --user 261 user-261.jsonl.zst
  profilestore erase --user 261 --reason 'request of 2026-11-21'
  profilestore erase --user 261 --shared --yes --json")]
pub(crate) struct Erase {
    /// The user
    #[arg(long, value_name = "ID", required_unless_present = "vacuum")]
    user: Option<UserId>,
    /// Erase nothing: only clean the file, where that was broken off or left for later
    #[arg(long, conflicts_with_all = ["user", "shared", "no_vacuum"])]
    vacuum: bool,
    /// With --vacuum: write the file anew, in one piece, so that it is as small as it can be.
    /// Commits wait meanwhile, as during an outage
    #[arg(long, requires = "vacuum")]
    anew: bool,
    /// Profiles of several users too
    #[arg(long)]
    shared: bool,
    /// Leave the file as it is, for one more erasure or a quiet hour: crumbs of what was deleted
    /// may then be left in it
    #[arg(long)]
    no_vacuum: bool,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    by: ByArgs,
}

#[derive(Serialize)]
struct EraseRow<'a> {
    #[serde(flatten)]
    report: &'a EraseReport,
    /// False when the file was in use for too long, and for a database. Erased bytes may then still
    /// be in files and logs.
    bytes_gone: bool,
}

impl Erase {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let by = self.by.attribution()?;
        let Some(user) = self.user else { return only_vacuum(app, by, self.anew).await };
        let file = app.place.open().await?;
        file.for_writing()?;
        if !self.yes {
            let profiles = count(associated(&*file, &user).await?, "profile", "profiles");
            let which = if self.shared { ", shared ones too" } else { "" };
            if !ask(&format!(
                "erase user {user}, associated with {profiles}{which}, with history \
                and messages, for good?"
            ))? {
                return Err(Failure::Work(format!("not erased: user=`{user}`")));
            }
        }
        let visit = Visit::on(app, file.clone(), by).await?;
        let done = visit.operator.erase_user(user, self.shared).await;
        let report = match done {
            Ok(report) => report,
            Err(error) => {
                visit.end().await;
                return Err(failure(error));
            }
        };
        let (emptied, gone) = match file.kind() {
            Kind::Sqlite(sqlite) if self.no_vacuum => {
                (sqlite.empty_log().await.map_err(Failure::from), false)
            }
            Kind::Sqlite(_) => {
                (vacuum(&visit.operator, Some(&report), Rewriting::IfNeeded).await, true)
            }
            Kind::Postgres(_) => (Ok(()), false),
        };
        visit.end().await;
        match app.json {
            true => {
                json_document(&EraseRow { report: &report, bytes_gone: emptied.is_ok() && gone })?
            }
            false => show(&report, emptied.as_ref().err(), file.kind())?,
        }
        if let (true, Err(error)) = (app.json, &emptied) {
            note(format_args!("warning: {}", not_clean(error)));
        }
        Ok(if report.is_complete() && emptied.is_ok() { Status::Fine } else { Status::Problems })
    }
}

/// Cleans the file, or writes it anew, and erases nothing.
async fn only_vacuum(app: &App, by: Attribution, anew: bool) -> Result<Status, Failure> {
    app.place.file()?;
    let store = app.place.open().await?;
    let visit = Visit::on(app, store, by).await?;
    let rewriting = if anew { Rewriting::Always } else { Rewriting::IfNeeded };
    let done = vacuum(&visit.operator, None, rewriting).await;
    visit.end().await;
    done?;
    match app.json {
        true => json_document(&VacuumRow { bytes_gone: true })?,
        false if anew => say(format_args!("the file is written anew, and its log is empty"))?,
        false => say(format_args!("the file is clean, and its log is empty"))?,
    }
    Ok(Status::Fine)
}

#[derive(Serialize)]
struct VacuumRow {
    bytes_gone: bool,
}

/// Cleans the file, or writes it anew. It is booked for itself: one that was killed stays pending,
/// though the profiles are erased.
async fn vacuum(
    operator: &Operator,
    report: Option<&EraseReport>,
    rewriting: Rewriting,
) -> Result<(), Failure> {
    let begun = operator.clean_files(report.map(|report| report.operation)).await;
    let Some(cleaning) = begun.map_err(failure)? else {
        return Err(Failure::Work("the store has no file that could be cleaned".into()));
    };
    let bar = progress_bar();
    let mut cleaned = |done: u64, of: u64| {
        bar.set_message(format!("cleaned {} % of the file", done * 100 / of.max(1)));
        bar.tick();
    };
    let cleaned = cleaning.run(rewriting, &mut cleaned).await;
    bar.finish_and_clear();
    if let Err(error) = cleaned.booked {
        note(format_args!("warning: the end of the vacuum could not be booked: {}", chain(&error)));
    }
    Ok(cleaned.done?)
}

async fn associated(store: &dyn DataStore, user: &UserId) -> Result<u64, Failure> {
    let mut query =
        KeyQuery { store: None, scope: None, filter: user.keys(), after: None, limit: PAGE };
    let mut found = 0;
    loop {
        let (page, next) = store.profiles(&query).await?;
        found += page.len() as u64;
        let Some(next) = next else { return Ok(found) };
        query.after = Some(next);
    }
}

/// That the profiles are erased, and the file is not clean.
fn not_clean(why: &Failure) -> String {
    format!(
        "the file or its log may still hold bytes of what was erased; try again with `profilestore \
            erase --vacuum`: {why}"
    )
}

fn show(report: &EraseReport, log: Option<&Failure>, kind: &Kind) -> Result<(), Failure> {
    let mut out = out();
    let sum = |number: fn(&profilestore::operator::ErasedProfile) -> u64| {
        report.erased.iter().map(number).sum::<u64>()
    };
    let profiles = |number: usize| count(number as u64, "profile", "profiles");
    facts(
        &mut out,
        &[
            ("erased", profiles(report.erased.len())),
            ("versions", count(sum(|erased| erased.versions), "version", "versions")),
            ("messages", count(sum(|erased| erased.messages), "message", "messages")),
            (
                "sessions ended",
                count(sum(|erased| u64::from(erased.held_by.is_some())), "session", "sessions"),
            ),
            ("audit details", count(report.audit_entries, "entry emptied", "entries emptied")),
            ("shared, left", profiles(report.shared.len())),
            ("failed", profiles(report.failed.len())),
            ("operation", report.operation.to_string()),
        ],
    )?;
    for erased in &report.erased {
        text(&mut out, format_args!("erased {}", erased.key))?;
    }
    for shared in &report.shared {
        let users: Vec<String> = shared.user_ids.iter().map(ToString::to_string).collect();
        text(
            &mut out,
            format_args!(
                "left {}, shared by users {}; --shared erases it",
                shared.key,
                users.join(", ")
            ),
        )?;
    }
    for entry in &report.unreadable_entries {
        text(
            &mut out,
            format_args!(
                "an entry of the audit log is damaged, and may hold something of the user: {entry}"
            ),
        )?;
    }
    for failed in &report.failed {
        text(&mut out, format_args!("failed {}: {}", failed.key, failed.why))?;
    }
    if let Kind::Postgres(_) = kind {
        text(
            &mut out,
            format_args!(
                "the database's files, logs and backups hold the old bytes until it vacuums \
            and discards them"
            ),
        )?;
    }
    if let Some(error) = log {
        text(&mut out, format_args!("{}", not_clean(error)))?;
    }
    Ok(out.flush()?)
}
