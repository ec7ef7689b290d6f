//! `edit`: changing the data of one profile or of many, online or not, and undoing it.

use std::{io::Write, pin::pin, time::Duration};

use clap::Args;
use profilestore::{
    Attribution, Edit, ErrorKind, GameServer, ProfileKey,
    audit::{AuditOutcome, AuditQuery, audit_entries},
    data_store::{KeyFilter, KeyQuery},
    env::Env,
    operator::{BulkEdit, EditScope, StandingEdit, standing_edits},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    app::App,
    given::{ByArgs, plain_name, profile_key},
    operate::failure,
    output::{Failure, Status, Table, ask, count, json_document, json_line, note, out, say},
    place::Store,
    search::{Where, says_scan},
};

mod interactive;
mod preview;
mod report;
mod steps;
mod undo;

/// How many keys are asked for at once.
const PAGE: usize = 256;

use preview::{Preview, dry_run_one, say_line, show_before_asking};
use report::{Counts, Row, Without, progress_bar, show};
use steps::Steps;

/// Change the data of a profile, or of all profiles of a store
///
/// A profile that is online is changed by the server that holds it: the session goes on, and the
/// command ends when the change is saved. What does not fit is refused and nothing changed.
/// Everything is booked in the audit log, with what undoes it.
///
/// Paths are JSON pointers into the profile's data. Steps are done in the order patch, merge, test,
/// set, add, remove: all of them or none. With --all every profile is changed once, and those that
/// a --test or --where does not match are passed over; a run that was broken off goes on with
/// --resume. With --new-too the edit stands: profiles that begin later get it as well, once, until
/// it is undone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore edit PlayerData/7 --add /coins=500 --reason 'lost in the crash of Monday'
  profilestore edit PlayerData/7 --interactive
  profilestore edit PlayerData/7 --set '/pet=\"dog\"' --remove /cursed --dry-run
  profilestore edit --all --store-name PlayerData --add /coins=100 --reason 'birthday of the game'
  profilestore edit --all --store-name PlayerData --where '/coins > 1e9' --set /coins=0
  profilestore edit --all --new-too --store-name PlayerData --set '/event=\"summer\"'
  profilestore edit --undo 01999d5c-2f1e-7a52-9df4-1c6f8a3b2d10 --reason 'wrong amount'")]
pub(crate) struct EditCommand {
    /// STORE/KEY, or STORE/SCOPE/KEY
    #[arg(value_name = "KEY", required_unless_present_any = ["all", "resume", "undo", "standing"], conflicts_with_all = ["all", "resume", "undo"])]
    key: Option<String>,
    /// All profiles of --store-name
    #[arg(long, requires = "store_name", conflicts_with_all = ["resume", "undo"])]
    all: bool,
    /// With --all: new profiles too, when they are first loaded, until the operation is undone
    #[arg(long, requires = "all")]
    new_too: bool,
    /// List the edits that stand for new profiles, of --store-name or of every store
    #[arg(long, conflicts_with_all = ["key", "all", "resume", "undo"])]
    standing: bool,
    /// Go on with an operation that was broken off
    #[arg(long, value_name = "ID", conflicts_with = "undo")]
    resume: Option<Uuid>,
    /// Undo an operation, profile by profile: what was added is taken back, everything else is put
    /// back unless it was changed since; new profiles do not get it any more. One that was broken
    /// off goes on, and one that is done is not done twice
    #[arg(long, value_name = "ID")]
    undo: Option<Uuid>,
    /// With --undo: also what was undone before; what was added is subtracted a second time
    #[arg(long, requires = "undo")]
    again: bool,
    /// With --all and --standing: which store
    #[arg(long, value_parser = plain_name, value_name = "NAME")]
    store_name: Option<String>,
    /// The scope; KEY is then STORE/KEY, and may hold further slashes
    #[arg(long, value_parser = plain_name)]
    scope: Option<String>,
    /// With --all: only keys that begin with this
    #[arg(long, value_parser = plain_name, requires = "all")]
    prefix: Option<String>,
    #[command(flatten)]
    by_value: Where,
    /// Open the saved data in $VISUAL or $EDITOR; what was changed there is the edit. It is refused
    /// where something that it changes has changed meanwhile
    #[arg(long, short, requires = "key")]
    interactive: bool,
    #[command(flatten)]
    steps: Steps,
    #[command(flatten)]
    by: ByArgs,
    /// Only show what would change, as far as it is saved
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
    /// Wait so many seconds for servers that hold profiles; what they have not answered by then
    /// still takes effect, once
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

impl EditCommand {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        if self.standing {
            self.check_names()?;
            return self.list(app).await;
        }
        if self.by_value.filter.is_some() && (!self.all || self.new_too) {
            return Err(Failure::Usage(
                "--where goes with --all, and not with --new-too: an edit that stands is for every \
                    new profile; for one profile there is --test"
                    .into(),
            ));
        }
        self.check_names()?;
        let file = app.place.open_for_many().await?;
        if !self.dry_run {
            file.for_writing()?;
        }
        let by = self.by.attribution()?;
        match (&self.key, self.resume, self.undo) {
            (Some(key), _, _) => {
                let key = profile_key(key, self.scope.as_deref())?;
                if self.interactive {
                    return self.by_hand(app, file, &key, by).await;
                }
                let edit = self.steps.edit()?;
                if self.dry_run {
                    dry_run_one(app, &file, &key, &edit).await
                } else {
                    self.one(app, file, &key, &edit, by).await
                }
            }
            (None, None, None) => self.all(app, file, by).await,
            _ if self.steps.any() || self.dry_run => Err(Failure::Usage(
                "an operation is resumed or undone as it was booked; steps do not go with that"
                    .into(),
            )),
            (None, Some(operation), _) => {
                let bulk = BulkEdit::resume(&*file, operation).await.map_err(failure)?;
                self.bulk(app, file, bulk, by, None).await
            }
            (None, None, Some(of)) => self.undo_of(app, file, of, by).await,
        }
    }

    /// A name that would narrow something down, and does not, is none of this command line.
    fn check_names(&self) -> Result<(), Failure> {
        let wrong = |what: &str| Err(Failure::Usage(what.to_owned()));
        let of_operation = self.resume.is_some() || self.undo.is_some();
        if of_operation && (self.store_name.is_some() || self.scope.is_some()) {
            return wrong(
                "an operation is resumed or undone for all of its profiles; --store-name and \
                    --scope do not go with that",
            );
        }
        if self.key.is_some() && self.store_name.is_some() {
            return wrong("the store is named in KEY; --store-name goes with --all and --standing");
        }
        if self.standing && self.scope.is_some() {
            return wrong("--standing lists by store; --scope does not go with that");
        }
        Ok(())
    }

    /// The edit that is made in an editor. What was written there is kept until it is done.
    async fn by_hand(
        &self,
        app: &App,
        file: Store,
        key: &ProfileKey,
        by: Attribution,
    ) -> Result<Status, Failure> {
        if self.steps.any() {
            return Err(Failure::Usage("--interactive takes no steps besides".into()));
        }
        let Some((edit, written)) = interactive::edited(&file, key).await? else {
            note(format_args!("nothing was changed"));
            return Ok(Status::Fine);
        };
        let done = self.by_hand_as(app, file, key, &edit, by).await;
        match &done {
            Ok(Status::Fine) => written.forget(),
            Ok(Status::Problems) => note(format_args!("{}", written.refused("it is refused"))),
            Err(_) => return done.map_err(|failure| written.kept(failure)),
        }
        done
    }

    async fn by_hand_as(
        &self,
        app: &App,
        file: Store,
        key: &ProfileKey,
        edit: &Edit,
        by: Attribution,
    ) -> Result<Status, Failure> {
        if self.dry_run {
            return dry_run_one(app, &file, key, edit).await;
        }
        if !self.yes {
            show_before_asking(&file, key, edit).await?;
            if !ask(&format!("edit {key}?"))? {
                return Err(Failure::Work("nothing was edited".into()));
            }
        }
        self.one(app, file, key, edit, by).await
    }

    async fn one(
        &self,
        app: &App,
        file: Store,
        key: &ProfileKey,
        edit: &Edit,
        by: Attribution,
    ) -> Result<Status, Failure> {
        let server = game_server(app, file).await?;
        let operation = Env::system().uuid();
        let edited = server
            .operator(by)
            .edit_as(operation, key, edit, Duration::from_secs(self.timeout))
            .await;
        let _ = server.shutdown().await;
        let entry = edited.map_err(failure)?;
        if app.json {
            json_document(&entry)?;
            return Ok(Status::Fine);
        }
        match (entry.details.get("held_by").and_then(Value::as_str), entry.details.get("version")) {
            (Some(holder), Some(version)) => say(format_args!(
                "{key} was edited by {holder}, who holds it, and saved as version {version}"
            ))?,
            (None, Some(version)) => {
                say(format_args!("{key} was edited and is version {version} now"))?
            }
            (_, None) => say(format_args!("{key} is as it should be already"))?,
        }
        if entry.details.contains_key("undo") {
            say(format_args!("undo it with: profilestore edit --undo {operation}"))?;
        }
        Ok(Status::Fine)
    }

    async fn all(&self, app: &App, file: Store, by: Attribution) -> Result<Status, Failure> {
        let edit = self.steps.edit()?;
        let store = self.store_name.clone().unwrap_or_default();
        let profiles = EditScope {
            store,
            scope: self.scope.clone(),
            prefix: self.prefix.clone(),
            filter: self.by_value.filter.clone(),
        };
        if !self.new_too {
            check_name(&file, &profiles).await?;
        }
        if profiles.filter.is_some() && !app.json {
            note(format_args!("{}", says_scan(&query(&profiles))));
        }
        let mut of = None;
        if self.dry_run || !self.yes {
            let found = Preview::of(&file, &profiles, &edit).await?;
            match (app.json, self.dry_run) {
                (true, true) => json_document(&found)?,
                (false, true) => found.lines().iter().try_for_each(|line| say_line(line))?,
                // For the operator who is asked, and no part of the answer.
                (_, false) => found.lines().iter().for_each(|line| note(format_args!("{line}"))),
            }
            if self.dry_run {
                return Ok(if found.counts.refused == 0 { Status::Fine } else { Status::Problems });
            }
            if !ask(&format!("edit {}?", count(found.counts.edited, "profile", "profiles")))? {
                return Err(Failure::Work("nothing was edited".into()));
            }
            let Counts { edited, unchanged, unmatched, refused, .. } = found.counts;
            of = Some(edited + unchanged + unmatched + refused);
        }
        let bulk = BulkEdit::new(Env::system().uuid(), profiles, edit);
        self.bulk(app, file, if self.new_too { bulk.new_too() } else { bulk }, by, of).await
    }

    async fn list(&self, app: &App) -> Result<Status, Failure> {
        if self.steps.any() || self.dry_run {
            return Err(Failure::Usage(
                "a list is all that --standing gives; steps do not go with that".into(),
            ));
        }
        let store = app.place.open().await?;
        let standing =
            standing_edits(&*store, self.store_name.as_deref()).await.map_err(failure)?;
        let mut out = out();
        match app.json {
            true => standing.iter().try_for_each(|edit| json_line(&mut out, edit))?,
            false => {
                let mut table = Table::new(["OPERATION", "PROFILES", "WHAT", "AUTHOR", "REASON"])
                    .soft([4, 3, 2]);
                table.page(&mut out, &standing.iter().map(cells).collect::<Vec<_>>())?;
                table.end(&mut out)?;
            }
        }
        out.flush()?;
        if standing.is_empty() && !app.json {
            note(format_args!("no edit stands for new profiles"));
        }
        Ok(Status::Fine)
    }

    async fn bulk(
        &self,
        app: &App,
        file: Store,
        mut bulk: BulkEdit,
        by: Attribution,
        of: Option<u64>,
    ) -> Result<Status, Failure> {
        bulk.patience = Duration::from_secs(self.timeout);
        let operation = bulk.operation();
        // Looked for from now on, so that no signal ends this silently.
        let mut interrupted = pin!(tokio::signal::ctrl_c());
        tokio::select! {
            biased;
            _ = &mut interrupted => {}
            () = std::future::ready(()) => {}
        }
        if !app.json {
            note(format_args!(
                "operation {operation}: if this is broken off, go on with: profilestore edit \
                    --resume {operation}"
            ));
        }
        let log = file.clone();
        let server = game_server(app, file).await?;
        let bar = progress_bar(of);
        let began = tokio::time::Instant::now();
        let shown = bar.clone();
        let operator = server.operator(by);
        let edited = operator.edit_all(&bulk, move |progress| {
            shown.set_position(progress.settled);
            shown.set_message(match progress.waiting {
                0 => String::new(),
                waiting => format!("{waiting} wait for their holders"),
            });
        });
        let edited = tokio::select! {
            edited = edited => edited,
            _ = &mut interrupted => {
                bar.finish_and_clear();
                // What was under way is done behind it, so that the log has it.
                let _ = server.shutdown().await;
                return Err(Failure::Work(format!(
                    "broken off; {}; go on with: profilestore edit --resume {operation}, or take it \
                        back with: profilestore edit --undo {operation}",
                    so_far(&log, operation).await?
                )));
            }
        };
        let seconds = began.elapsed().as_secs_f64();
        bar.finish_and_clear();
        let _ = server.shutdown().await;
        let is_refused = matches!(&edited, Err(error) if error.kind() == ErrorKind::Invalid);
        if is_refused && is_complete(&log, operation).await {
            return Err(Failure::Work(format!(
                "another run has completed it meanwhile: operation=`{operation}`"
            )));
        }
        let report = edited.map_err(failure)?;
        match app.json {
            true => json_document(&Row::new(operation, &report, seconds))?,
            false => {
                let without = match (self.undo, self.resume) {
                    (Some(_), _) => Without::Change,
                    (None, Some(_)) => Without::ProfileOrChange,
                    (None, None) => Without::Profile,
                };
                show(operation, &report, without, self.new_too, seconds)?;
            }
        }
        Ok(if report.refused.is_empty() && report.waiting.is_empty() {
            Status::Fine
        } else {
            Status::Problems
        })
    }
}

/// Whether an operation has come to its end.
async fn is_complete(log: &Store, operation: Uuid) -> bool {
    let resumed = BulkEdit::resume(&**log, operation).await;
    resumed.is_err_and(|error| error.kind() == ErrorKind::Invalid)
}

/// How far an operation has come, as the audit log has it.
async fn so_far(log: &Store, operation: Uuid) -> Result<String, Failure> {
    let mut query = AuditQuery { operation: Some(operation), ..AuditQuery::default() };
    let (mut edited, mut refused, mut waiting) = (0, 0, 0);
    loop {
        let page = audit_entries(&**log, &query).await.map_err(failure)?;
        for entry in page.entries.iter().filter(|entry| !entry.keys.is_empty()) {
            match entry.outcome {
                AuditOutcome::Done => edited += 1,
                AuditOutcome::Refused { .. } => refused += 1,
                _ => waiting += 1,
            }
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    let mut said = format!("{} edited", count(edited, "profile is", "profiles are"));
    for (number, what) in [(refused, "refused"), (waiting, "waiting for the holder")] {
        if number > 0 {
            said += &format!(", {number} {what}");
        }
    }
    Ok(said)
}

fn cells(standing: &StandingEdit) -> [String; 5] {
    let StandingEdit { operation, by, profiles, edit, .. } = standing;
    let EditScope { store, scope, prefix, .. } = profiles;
    let profiles = format!(
        "{store}/{}{}*",
        scope.as_ref().map_or_else(|| "*/".to_owned(), |scope| format!("{scope}/")),
        prefix.as_deref().unwrap_or_default()
    );
    let what = edit.get("ops").map(Value::to_string).unwrap_or_default();
    [operation.to_string(), profiles, what, by.author.clone(), by.reason.clone()]
}

/// The keys that are gone through.
fn query(profiles: &EditScope) -> KeyQuery {
    let EditScope { store, scope, prefix, .. } = profiles.clone();
    let filter = prefix.map_or(KeyFilter::All, KeyFilter::Prefix);
    KeyQuery { store: Some(store), scope, filter, after: None, limit: PAGE }
}

/// Fails when there is nothing under a name that an edit is for: it is mistyped.
async fn check_name(file: &Store, profiles: &EditScope) -> Result<(), Failure> {
    let any = KeyQuery { filter: KeyFilter::All, limit: 1, ..query(profiles) };
    if !file.keys(&any).await?.is_empty() {
        return Ok(());
    }
    let EditScope { store, scope, .. } = profiles;
    let scope = scope.as_ref().map_or_else(String::new, |scope| format!(" scope=`{scope}`"));
    Err(Failure::NotFound(format!(
        "there are no profiles of that name; see: profilestore list: store-name=`{store}`{scope}"
    )))
}

/// A game server for the length of one command.
async fn game_server(app: &App, file: Store) -> Result<GameServer, Failure> {
    file.for_writing()?;
    let messenger = app.messenger(file.messenger()?).await?;
    let job = format!("profilestore-{}", std::process::id());
    GameServer::builder(file.any()).messenger(messenger).job_id(job).start().await.map_err(failure)
}
