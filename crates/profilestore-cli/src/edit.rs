//! `edit`: changing the data of one profile or of many, online or not, and undoing it.

use std::{
    fs,
    io::{IsTerminal, Write},
    time::Duration,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use profilestore::{
    Attribution, Edit, GameServer, ProfileKey,
    data_store::{DataStoreExt, KeyFilter, KeyQuery, KeyState, Returning},
    env::Env,
    operator::{BulkEdit, BulkReport, EditScope, JsonChange, StandingEdit, standing_edits},
    record::Stored,
    storable::{DATA, Problem},
};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    args::{App, ByArgs, profile_key},
    operate::failure,
    output::{Failure, Status, Table, ask, count, json_document, json_line, note, out, say},
    place::Store,
};

const PAGE: usize = 256;

/// How many profiles a dry run shows.
const SAMPLE: usize = 5;

/// Change the data of a profile, or of all profiles of a store
///
/// A profile that is online is changed by the server that holds it: the session goes on, and the
/// command ends when the change is saved. What does not fit is refused and nothing changed.
/// Everything is booked in the audit log, with what undoes it.
///
/// Paths are JSON pointers into the profile's data. Steps are done in the order patch, merge, test,
/// set, add, remove: all of them or none. With --all every profile is changed once; a run that was
/// broken off goes on with --resume. With --new-too the edit stands: profiles that begin later get
/// it as well, once, until it is undone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore edit PlayerData/7 --add /coins=500 --reason 'lost in the crash of Monday'
  profilestore edit PlayerData/7 --set '/pet=\"dog\"' --remove /cursed --dry-run
  profilestore edit --all --store-name PlayerData --add /coins=100 --reason 'birthday of the game'
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
    /// back unless it was changed since; new profiles do not get it any more
    #[arg(long, value_name = "ID")]
    undo: Option<Uuid>,
    /// With --all and --standing: which store
    #[arg(long, value_name = "NAME")]
    store_name: Option<String>,
    /// The scope; KEY is then STORE/KEY, and may hold further slashes
    #[arg(long)]
    scope: Option<String>,
    /// With --all: only keys that begin with this
    #[arg(long, requires = "all")]
    prefix: Option<String>,
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

#[derive(Debug, Args)]
struct Steps {
    /// A JSON Patch (RFC 6902), or - for standard input; `set` and `increase` may be among its
    /// steps
    #[arg(long, value_name = "FILE")]
    patch: Option<String>,
    /// A JSON merge patch (RFC 7396)
    #[arg(long, value_name = "JSON")]
    merge: Option<String>,
    /// Only if what is there is this
    #[arg(long, value_name = "/PATH=JSON")]
    test: Vec<String>,
    /// Put a value there, whether or not there is one
    #[arg(long, value_name = "/PATH=JSON")]
    set: Vec<String>,
    /// Add to the number there
    #[arg(long, value_name = "/PATH=NUMBER", allow_hyphen_values = true)]
    add: Vec<String>,
    /// Remove what is there
    #[arg(long, value_name = "/PATH")]
    remove: Vec<String>,
}

impl Steps {
    fn edit(&self) -> Result<Edit, Failure> {
        let mut edit = Edit::new();
        if let Some(file) = &self.patch {
            let text = match file.as_str() {
                "-" => std::io::read_to_string(std::io::stdin()),
                file => fs::read_to_string(file),
            };
            let text = text.map_err(|error| {
                Failure::Work(format!("the patch cannot be read: {error}: file=`{file}`"))
            })?;
            edit = Edit::from_patch(&text).map_err(failure)?;
        }
        if let Some(patch) = &self.merge {
            edit = edit.merge(json(patch, patch)?);
        }
        for given in &self.test {
            let (path, value) = at(given)?;
            edit = edit.test(path, json(value, given)?).map_err(failure)?;
        }
        for given in &self.set {
            let (path, value) = at(given)?;
            edit = edit.set(path, json(value, given)?).map_err(failure)?;
        }
        for given in &self.add {
            let (path, value) = at(given)?;
            let Value::Number(by) = json(value, given)? else {
                return Err(Failure::Usage(format!("this adds no number: given=`{given}`")));
            };
            edit = edit.increase(path, by).map_err(failure)?;
        }
        for path in &self.remove {
            edit = edit.remove(path).map_err(failure)?;
        }
        edit.check().map_err(failure)?;
        Ok(edit)
    }

    fn any(&self) -> bool {
        let Self { patch, merge, test, set, add, remove } = self;
        patch.is_some()
            || merge.is_some()
            || [test, set, add, remove].iter().any(|steps| !steps.is_empty())
    }
}

fn at(given: &str) -> Result<(&str, &str), Failure> {
    given
        .split_once('=')
        .ok_or_else(|| Failure::Usage(format!("a step is given as /PATH=VALUE: given=`{given}`")))
}

fn json(text: &str, given: &str) -> Result<Value, Failure> {
    DATA.parse(text).map_err(|wrong| match wrong.problem {
        Problem::NoJson { reason } => Failure::Usage(format!(
            "the value is not JSON (a text has quotes): {reason}: given=`{given}`"
        )),
        _ => Failure::Usage(format!("the value cannot be stored: {wrong}: given=`{given}`")),
    })
}

impl EditCommand {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        if self.standing {
            return self.list(app).await;
        }
        let file = app.place.open().await?;
        let by = self.by.attribution()?;
        match (&self.key, self.resume, self.undo) {
            (Some(key), _, _) => {
                let key = profile_key(key, self.scope.as_deref())?;
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
            (None, None, Some(of)) => {
                if !self.yes && !ask(&format!("undo operation {of}?"))? {
                    return Err(Failure::Work(format!("not undone: operation=`{of}`")));
                }
                self.bulk(app, file, BulkEdit::undo(Env::system().uuid(), of), by, None).await
            }
        }
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
        let profiles = EditScope { store, scope: self.scope.clone(), prefix: self.prefix.clone() };
        let mut of = None;
        if self.dry_run || !self.yes {
            let found = Preview::of(&file, &profiles, &edit).await?;
            match app.json {
                true if self.dry_run => json_document(&found)?,
                _ => found.show()?,
            }
            if self.dry_run {
                return Ok(if found.refused == 0 { Status::Fine } else { Status::Problems });
            }
            if !ask(&format!("edit {}?", count(found.edited, "profile", "profiles")))? {
                return Err(Failure::Work("nothing was edited".into()));
            }
            of = Some(found.edited + found.unchanged + found.refused);
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
                let mut table = Table::new(["OPERATION", "PROFILES", "WHAT", "AUTHOR", "REASON"]);
                table.page(&mut out, &standing.iter().map(cells).collect::<Vec<_>>())?;
            }
        }
        out.flush()?;
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
        if !app.json {
            note(format_args!(
                "operation {operation}: if this is broken off, go on with: profilestore edit \
                    --resume {operation}"
            ));
        }
        let server = game_server(app, file).await?;
        let bar = progress_bar(of);
        let began = tokio::time::Instant::now();
        let shown = bar.clone();
        let edited = server
            .operator(by)
            .edit_all(&bulk, move |progress| {
                shown.set_position(progress.settled);
                shown.set_message(if progress.waiting > 0 {
                    format!("{} wait for their holders", progress.waiting)
                } else {
                    String::new()
                });
            })
            .await;
        let seconds = began.elapsed().as_secs_f64();
        bar.finish_and_clear();
        let _ = server.shutdown().await;
        let report = edited.map_err(failure)?;
        match app.json {
            true => json_document(&Row::new(operation, &report, seconds))?,
            false => {
                show(operation, &report, seconds)?;
                if self.new_too {
                    say(format_args!(
                        "new profiles get the edit too, until it is undone; see: \
                        profilestore edit --standing"
                    ))?;
                }
            }
        }
        Ok(if report.refused.is_empty() && report.waiting.is_empty() {
            Status::Fine
        } else {
            Status::Problems
        })
    }
}

fn cells(standing: &StandingEdit) -> [String; 5] {
    let StandingEdit { operation, by, profiles: EditScope { store, scope, prefix }, edit, .. } =
        standing;
    let profiles = format!(
        "{store}/{}{}*",
        scope.as_ref().map_or_else(|| "*/".to_owned(), |scope| format!("{scope}/")),
        prefix.as_deref().unwrap_or_default()
    );
    let what = edit.get("ops").map(Value::to_string).unwrap_or_default();
    [operation.to_string(), profiles, what, by.author.clone(), by.reason.clone()]
}

/// A game server for the length of one command.
async fn game_server(app: &App, file: Store) -> Result<GameServer, Failure> {
    let messenger = app.messenger(file.messenger()?).await?;
    let job = format!("profilestore-{}", std::process::id());
    GameServer::builder(file.any()).messenger(messenger).job_id(job).start().await.map_err(failure)
}

#[derive(Serialize)]
struct Row<'a> {
    operation: Uuid,
    done: u64,
    by_holders: u64,
    before: u64,
    skipped: u64,
    refused: Vec<RefusedRow<'a>>,
    waiting: &'a [ProfileKey],
    seconds: f64,
}

#[derive(Serialize)]
struct RefusedRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    why: &'a str,
}

impl<'a> Row<'a> {
    fn new(operation: Uuid, report: &'a BulkReport, seconds: f64) -> Self {
        let refused = report.refused.iter().map(|(key, why)| RefusedRow { key, why }).collect();
        let BulkReport { done, by_holders, before, skipped, .. } = *report;
        Self {
            operation,
            done,
            by_holders,
            before,
            skipped,
            refused,
            waiting: &report.waiting,
            seconds,
        }
    }
}

fn show(operation: Uuid, report: &BulkReport, seconds: f64) -> Result<(), Failure> {
    let live = if report.by_holders > 0 {
        format!(", {} of them online", count(report.by_holders, "profile", "profiles"))
    } else {
        String::new()
    };
    say(format_args!(
        "{} edited{live}, in {seconds:.1} s",
        count(report.done, "profile", "profiles")
    ))?;
    if report.before > 0 {
        say(format_args!(
            "{} had been dealt with before",
            count(report.before, "profile", "profiles")
        ))?;
    }
    for (key, why) in report.refused.iter().take(20) {
        say(format_args!("refused: {key}: {why}"))?;
    }
    if report.refused.len() > 20 {
        say(format_args!(
            "and {} more refused: profilestore audit --operation {operation}",
            report.refused.len() - 20
        ))?;
    }
    if !report.waiting.is_empty() {
        let waiting = count(report.waiting.len() as u64, "profile", "profiles");
        say(format_args!(
            "{waiting} wait for the servers that hold them; see what became of them with: \
                profilestore edit --resume {operation}"
        ))?;
    }
    say(format_args!("undo it with: profilestore edit --undo {operation}"))
}

fn progress_bar(of: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    match of {
        Some(of) => ProgressBar::new(of)
            .with_style(style("{bar:30} {pos}/{len} profiles  {per_sec}  {eta}  {msg}")),
        None => ProgressBar::new_spinner().with_style(style(
            "{spinner} {pos} profiles  {per_sec}  \
            {msg}",
        )),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// What an edit would do to saved data.
#[derive(Serialize, Default)]
struct Preview {
    edited: u64,
    unchanged: u64,
    refused: u64,
    /// Of all these, the ones that a session holds. What it has not saved is not known here.
    held: u64,
    sample: Vec<Sample>,
    refusals: Vec<Refusal>,
}

#[derive(Serialize)]
struct Sample {
    #[serde(flatten)]
    key: ProfileKey,
    changes: Vec<JsonChange>,
}

#[derive(Serialize)]
struct Refusal {
    #[serde(flatten)]
    key: ProfileKey,
    why: String,
}

impl Preview {
    async fn of(file: &Store, profiles: &EditScope, edit: &Edit) -> Result<Self, Failure> {
        let EditScope { store, scope, prefix } = profiles.clone();
        let filter = prefix.map_or(KeyFilter::All, KeyFilter::Prefix);
        let mut query = KeyQuery { store: Some(store), scope, filter, after: None, limit: PAGE };
        let mut found = Self::default();
        loop {
            let (page, next) = file.profiles(&query).await?;
            let keys: Vec<ProfileKey> =
                page.into_iter().filter(KeyState::exists).map(|state| state.key).collect();
            for state in
                file.read(&keys, Returning { value: true, inbox_unless: None }).await?.states
            {
                found.add(&state, edit);
            }
            query.after = next;
            if query.after.is_none() {
                return Ok(found);
            }
        }
    }

    fn add(&mut self, state: &KeyState, edit: &Edit) {
        self.held += u64::from(state.lease.holder.is_some());
        match changes_of(state, edit) {
            Ok(changes) if changes.is_empty() => self.unchanged += 1,
            Ok(changes) => {
                self.edited += 1;
                if self.sample.len() < SAMPLE {
                    self.sample.push(Sample { key: state.key.clone(), changes });
                }
            }
            Err(why) => {
                self.refused += 1;
                if self.refusals.len() < SAMPLE {
                    self.refusals.push(Refusal { key: state.key.clone(), why });
                }
            }
        }
    }

    fn show(&self) -> Result<(), Failure> {
        for Sample { key, changes } in &self.sample {
            say(format_args!("{key}"))?;
            show_changes(changes)?;
        }
        for Refusal { key, why } in &self.refusals {
            say(format_args!("{key}"))?;
            say(format_args!("  would be refused: {why}"))?;
        }
        say(format_args!(
            "{} would be edited, {} of those looked at are online, {} unchanged, {} refused",
            count(self.edited, "profile", "profiles"),
            self.held,
            self.unchanged,
            self.refused
        ))
    }
}

async fn dry_run_one(
    app: &App,
    file: &Store,
    key: &ProfileKey,
    edit: &Edit,
) -> Result<Status, Failure> {
    let (_, state) = file.read_one(key, Returning::ALL).await?;
    if !state.exists() {
        return Err(Failure::NotFound(format!("there is no such profile: key=`{key}`")));
    }
    let changes = changes_of(&state, edit).map_err(Failure::Work)?;
    match app.json {
        true => json_document(&Sample { key: key.clone(), changes })?,
        false => show_changes(&changes)?,
    }
    Ok(Status::Fine)
}

fn changes_of(state: &KeyState, edit: &Edit) -> Result<Vec<JsonChange>, String> {
    match Stored::decode(state.value.as_deref().unwrap_or_default()) {
        Ok(Stored::Profile(record)) => {
            edit.preview(&record.data).map_err(|error| crate::output::chain(&error))
        }
        Ok(_) => Err("what is stored is not a profile".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn show_changes(changes: &[JsonChange]) -> Result<(), Failure> {
    for JsonChange { path, before, after, .. } in changes {
        let shown = |value: &Option<Value>| {
            value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string)
        };
        say(format_args!("  {path}: {} -> {}", shown(before), shown(after)))?;
    }
    Ok(())
}
