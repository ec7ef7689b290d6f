//! `status`: how a store is, on one screen.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    io::{self, IsTerminal, Write, stdout},
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use clap::Args;
use profilestore::{
    audit::{AuditEntry, AuditOutcome, AuditQuery, audit_entries},
    data_store::{Backlog, DataStore, FORMAT_VERSION, KeyFilter, KeyQuery, ServerId, ServerRow},
    operator::standing_edits,
    stop_signal,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    app::App,
    audit::GIVEN_UP,
    operate::failure,
    output::{
        Failure, Out, Status as Ended, Table, count, facts, json_document, note, out, size, text,
        word,
    },
    place::{Place, Store},
    sessions::ServerState,
    times::{ago, time},
};

const PAGE: usize = 256;

/// How many entries of the audit log are looked through for what is pending and for the backup.
const ENTRIES: usize = 4096;

/// After how long the last backup is called old.
const OLD_BACKUP_MS: i64 = 24 * 3_600_000;

/// Above which size the log beside a file is called large.
const LARGE_LOG: u64 = 256 << 20;

/// Show how a store is
///
/// Which servers there are and what they hold, how large the store is, what operators began and did
/// not end, when it was backed up last, and what is wrong, with what to type about it. The exit
/// code is 1 when something is wrong.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore status
  profilestore status --watch
  profilestore status --json | jq .wrong")]
pub(crate) struct Status {
    /// Again every so many seconds, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

#[derive(Serialize)]
struct Found {
    store: String,
    format: u32,
    now_ms: i64,
    held: u64,
    /// Of those, the ones whose server is not known: imported sessions.
    held_by_unknown: u64,
    servers: Vec<Server>,
    file_bytes: Option<u64>,
    log_bytes: Option<u64>,
    /// Of a database: its tables with their indices.
    table_bytes: Option<u64>,
    /// Operations that were begun and not ended, among the newest entries of the audit log.
    pending: Vec<Pending>,
    /// How many of these entries cannot be read: they may be about another one.
    unreadable_entries: u64,
    standing_edits: u64,
    /// What waits in all inboxes.
    backlog: Backlog,
    /// The last backup of a whole store.
    last_backup_ms: Option<i64>,
    /// The last backup, if what it copied was damaged.
    damaged_backup_ms: Option<i64>,
    /// What is wrong, and what to do about it.
    wrong: Vec<String>,
}

#[derive(Serialize)]
struct Server {
    job_id: String,
    place_id: i64,
    state: ServerState,
    renewed_ms: i64,
    started_ms: i64,
    held: u64,
}

#[derive(Serialize)]
struct Pending {
    operation: String,
    action: String,
    author: String,
    began_ms: i64,
}

impl Status {
    pub(crate) async fn run(self, app: &App) -> Result<Ended, Failure> {
        let store = app.place.open().await?;
        // Listened to from now on. A single look ends at once by any signal, as it always did.
        let mut stopped: Pin<Box<dyn Future<Output = io::Result<()>> + Send>> = match self.watch {
            Some(_) => Box::pin(stop_signal()),
            None => Box::pin(pending()),
        };
        loop {
            let found = Found::of(&app.place, &store).await;
            let Some(seconds) = self.watch else {
                let found = found?;
                self.show(app, &found)?;
                return Ok(if found.wrong.is_empty() { Ended::Fine } else { Ended::Problems });
            };
            match found {
                Ok(found) => self.show(app, &found)?,
                // What is watched for may be the end of this very outage.
                Err(failure) => note(format_args!("error: {}", failure.of(&app.place))),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
                _ = &mut stopped => return Ok(Ended::Fine),
            }
        }
    }

    fn show(&self, app: &App, found: &Found) -> Result<(), Failure> {
        if app.json {
            return json_document(found);
        }
        let mut out = out();
        if self.watch.is_some() && stdout().is_terminal() {
            // From the top of an empty screen.
            write!(out, "\x1b[H\x1b[2J")?;
        }
        found.show(&mut out)?;
        Ok(out.flush()?)
    }
}

impl Found {
    async fn of(place: &Place, store: &Store) -> Result<Self, Failure> {
        // One that was deleted while it is watched can still be read.
        store.still_there()?;
        let (now_ms, rows) = store.servers().await?;
        let (by_server, held_by_unknown) = held(&**store).await?;
        let held = by_server.values().sum::<u64>() + held_by_unknown;
        let servers = rows.iter().map(|row| Server::of(row, now_ms, &by_server)).collect();
        let file = match place {
            Place::Sqlite(path) => Some(path.as_path()),
            Place::Postgres(_) => None,
        };
        let table_bytes = match place {
            Place::Sqlite(_) => None,
            Place::Postgres(_) => Some(store.upkeep().await?.iter().map(|table| table.bytes).sum()),
        };
        let Operations { pending, unreadable, backup_ms, damaged_ms, folder } =
            operations(&**store).await?;
        let damaged_backup_ms = damaged_ms.filter(|at_ms| Some(*at_ms) > backup_ms);
        let folder = folder.or_else(|| file?.parent().map(|folder| folder.join("backups")));
        let mut found = Self {
            store: place.to_string(),
            format: FORMAT_VERSION,
            now_ms,
            held,
            held_by_unknown,
            servers,
            file_bytes: file.map(bytes),
            log_bytes: file.map(|file| bytes(&beside(file))),
            table_bytes,
            pending,
            unreadable_entries: unreadable,
            standing_edits: standing_edits(&**store, None).await.map_err(failure)?.len() as u64,
            backlog: store.backlog().await?,
            last_backup_ms: backup_ms,
            damaged_backup_ms,
            wrong: Vec::new(),
        };
        found.wrong = found.judge(&folder.unwrap_or_else(|| "backups".into()));
        Ok(found)
    }

    /// `backups`: a folder for them.
    fn judge(&self, backups: &Path) -> Vec<String> {
        let mut wrong = Vec::new();
        for server in self.servers.iter().filter(|server| server.held > 0) {
            let (job, held) = (&server.job_id, count(server.held, "profile", "profiles"));
            match server.state {
                ServerState::Silent => wrong.push(format!(
                    "server {job} holds {held} and is silent; another server takes each over when \
                        it is wanted: profilestore sessions"
                )),
                ServerState::Dead => wrong.push(format!(
                    "server {job} is dead and held {held}; the next start takes each at once: \
                        profilestore sessions"
                )),
                _ => {}
            }
        }
        for pending in &self.pending {
            let what_to_do = pending.what_to_do();
            // One vacuum makes up for all that were not ended.
            if !wrong.contains(&what_to_do) {
                wrong.push(what_to_do);
            }
        }
        if self.unreadable_entries > 0 {
            wrong.push(format!(
                "of the audit log {} cannot be read, and may be about an operation that was not \
                    ended: profilestore check",
                count(self.unreadable_entries, "entry", "entries")
            ));
        }
        if let Some(at_ms) = self.damaged_backup_ms {
            wrong.push(format!(
                "the last backup, of {}, has what is damaged in the store: profilestore check",
                time(at_ms)
            ));
        }
        if self.file_bytes.is_some()
            && self.last_backup_ms.is_none_or(|at_ms| self.now_ms - at_ms > OLD_BACKUP_MS)
        {
            let folder = backups.display().to_string();
            let folder = word(&folder);
            let made =
                if backups.is_dir() { String::new() } else { format!("mkdir -p {folder} && ") };
            wrong.push(format!(
                "no whole backup in the last 24 h: {made}profilestore backup --to {folder} \
                    --every 1h --keep 24"
            ));
        }
        if self.log_bytes.is_some_and(|bytes| bytes > LARGE_LOG) {
            wrong.push(
                "the log beside the file is large: a program that reads for a long time keeps it \
                    from being emptied; end that one, and what is left goes with: profilestore \
                    erase --vacuum"
                    .into(),
            );
        }
        wrong
    }

    fn show(&self, out: &mut Out) -> Result<(), Failure> {
        let of =
            |state: ServerState| self.servers.iter().filter(|server| server.state == state).count();
        let mut said = vec![
            ("store", format!("{}, format {}", self.store, self.format)),
            (
                "servers",
                format!(
                    "{} alive, {} silent, {} dead",
                    of(ServerState::Alive),
                    of(ServerState::Silent),
                    of(ServerState::Dead)
                ),
            ),
            ("held", count(self.held, "profile", "profiles")),
        ];
        if let (Some(file), Some(log)) = (self.file_bytes, self.log_bytes) {
            said.push(("size", format!("{}, and {} of log", size(file), size(log))));
            let last = self.last_backup_ms.map_or_else(
                || "none booked".to_owned(),
                |at_ms| format!("{}  {}", time(at_ms), ago(self.now_ms, at_ms)),
            );
            said.push(("last backup", last));
        }
        if let Some(tables) = self.table_bytes {
            said.push(("size", format!("{} of tables and indices", size(tables))));
        }
        let pending = self.pending.len() as u64;
        said.push(("pending", count(pending, "operation", "operations")));
        said.push(("waiting", self.waiting()));
        said.push(("standing", count(self.standing_edits, "edit", "edits")));
        let wrong = self.wrong.len() as u64;
        said.push(match wrong {
            0 => ("result", "all is well".to_owned()),
            _ => ("result", count(wrong, "thing is wrong", "things are wrong")),
        });
        facts(out, &said)?;
        // Each command that changes something leaves a row, which goes after a while.
        let is_over = |server: &&Server| server.held == 0 && server.state == ServerState::Dead;
        let shown = self.servers.iter().filter(|server| !is_over(server));
        let rows: Vec<_> = shown.map(|server| server.cells(self.now_ms)).collect();
        if !rows.is_empty() {
            writeln!(out)?;
            Table::new(["SERVER", "PLACE", "STATE", "LAST SEEN", "HOLDS"]).page(out, &rows)?;
        }
        if !self.wrong.is_empty() {
            writeln!(out)?;
        }
        self.wrong.iter().try_for_each(|wrong| text(out, format_args!("wrong: {wrong}")))
    }
}

impl Found {
    /// What waits in all inboxes, in one line.
    fn waiting(&self) -> String {
        let Backlog { messages, edits, keys, oldest, .. } = &self.backlog;
        let mut said = count(*messages, "message", "messages");
        if *edits > 0 {
            said += &format!(" and {}", count(*edits, "edit", "edits"));
        }
        if *keys > 0 {
            said += &format!(" for {}", count(*keys, "profile", "profiles"));
        }
        if let Some(oldest) = oldest {
            said +=
                &format!("; the oldest of {}, {}", ago(self.now_ms, oldest.sent_ms), oldest.key);
        }
        said
    }
}

impl Server {
    fn of(row: &ServerRow, now_ms: i64, held: &BTreeMap<ServerId, u64>) -> Self {
        Self {
            job_id: row.job_id.clone(),
            place_id: row.place_id,
            state: ServerState::of_row(row, now_ms),
            renewed_ms: row.renewed_ms,
            started_ms: row.started_ms,
            held: held.get(&row.id).copied().unwrap_or_default(),
        }
    }

    fn cells(&self, now_ms: i64) -> [String; 5] {
        [
            self.job_id.clone(),
            self.place_id.to_string(),
            self.state.as_str().to_owned(),
            ago(now_ms, self.renewed_ms),
            self.held.to_string(),
        ]
    }
}

/// How many profiles each server holds, and how many are held by no server that is known.
async fn held(store: &dyn DataStore) -> Result<(BTreeMap<ServerId, u64>, u64), Failure> {
    let filter = KeyFilter::Held;
    let mut query = KeyQuery { store: None, scope: None, filter, after: None, limit: PAGE };
    let (mut by_server, mut unknown) = (BTreeMap::new(), 0);
    loop {
        let page = store.keys(&query).await?;
        for holder in page.iter().filter_map(|state| state.lease.holder.as_ref()) {
            match holder.server {
                Some(server) => *by_server.entry(server).or_insert(0) += 1,
                None => unknown += 1,
            }
        }
        query.after = page.last().map(|state| state.key.clone());
        if page.len() < PAGE {
            return Ok((by_server, unknown));
        }
    }
}

/// What the newest entries of the audit log say.
#[derive(Default)]
struct Operations {
    pending: Vec<Pending>,
    /// Entries that cannot be read.
    unreadable: u64,
    /// The last backup of a whole store, and the last one of a damaged store.
    backup_ms: Option<i64>,
    damaged_ms: Option<i64>,
    /// Where the last backup is.
    folder: Option<PathBuf>,
}

/// Operations that were begun and not ended, and backups, among the newest entries. An edit that
/// waits for its holder is not one of them, nor is what was undone or done again since.
async fn operations(store: &dyn DataStore) -> Result<Operations, Failure> {
    // An edit of many profiles counts once: its entries would hide all that was begun before it.
    let (mut query, mut seen) = (AuditQuery { grouped: true, ..AuditQuery::default() }, 0);
    let (mut found, mut later) = (Operations::default(), Later::default());
    while seen < ENTRIES {
        let page = audit_entries(store, &query).await.map_err(failure)?;
        seen += PAGE;
        found.unreadable += page.unreadable.len() as u64;
        for entry in page.entries {
            if entry.action == "backup" && entry.outcome == AuditOutcome::Done {
                let is_whole = entry.details.get("whole").is_none_or(|whole| *whole == true);
                let at_ms = if is_whole { &mut found.backup_ms } else { &mut found.damaged_ms };
                *at_ms = (*at_ms).max(Some(entry.began_ms));
                let file = entry.details.get("file").and_then(Value::as_str).map(Path::new);
                // A name without a folder tells of none: where it was typed is not known.
                let folder = file.and_then(Path::parent).filter(|at| !at.as_os_str().is_empty());
                found.folder = found.folder.take().or_else(|| folder.map(Path::to_owned));
            }
            if later.settles(&entry) {
                continue;
            }
            let is_open = match &entry.outcome {
                AuditOutcome::Pending => entry.action != "edit",
                // The profiles are erased, and bytes of them are left.
                AuditOutcome::Refused { why } => {
                    entry.action == "vacuum" && !why.starts_with(GIVEN_UP)
                }
                _ => false,
            };
            if is_open {
                found.pending.push(Pending::of(entry));
            }
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    Ok(found)
}

/// What later entries of the log say about earlier ones: the newest come first.
#[derive(Default)]
struct Later {
    undone: BTreeSet<String>,
    vacuumed: bool,
    /// Files that were imported whole, as they were named.
    imported: BTreeSet<String>,
}

impl Later {
    /// Whether a later entry makes up for this one.
    fn settles(&mut self, entry: &AuditEntry) -> bool {
        // What came through a pipe (`-`) has no name.
        let file = entry.details.get("file").and_then(Value::as_str).filter(|file| *file != "-");
        let settled = match &*entry.action {
            "vacuum" => self.vacuumed,
            "import" => file.is_some_and(|file| self.imported.contains(file)),
            _ => self.undone.contains(&entry.operation.to_string()),
        };
        if entry.outcome == AuditOutcome::Done {
            self.vacuumed |= entry.action == "vacuum";
            if entry.action == "import" {
                self.imported.extend(file.map(str::to_owned));
            }
            let undoes = entry.details.get("undoes").and_then(Value::as_str);
            self.undone.extend(undoes.map(str::to_owned));
        }
        settled
    }
}

impl Pending {
    fn of(entry: AuditEntry) -> Self {
        Self {
            operation: entry.operation.to_string(),
            action: entry.action,
            author: entry.by.author,
            began_ms: entry.began_ms,
        }
    }

    /// Unless the operation is at work.
    fn what_to_do(&self) -> String {
        let Self { operation, action, .. } = self;
        let give_up = format!("profilestore audit --give-up {operation}");
        match &**action {
            "edit all" | "undo" => format!(
                "{action} {operation} was not ended; unless it is at work, go on with: \
                    profilestore edit --resume {operation}, or leave it as it is with: {give_up}"
            ),
            "vacuum" => "a vacuum failed or was not ended, so that bytes of what was erased may \
                be left: profilestore erase --vacuum"
                .to_owned(),
            _ => format!(
                "{action} {operation} was not ended; see what it was with: profilestore audit \
                    --operation {operation}, and when that is settled: {give_up}"
            ),
        }
    }
}

fn bytes(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |data| data.len())
}

/// The log beside a file.
fn beside(file: &Path) -> std::path::PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}
