//! `list`, `get` and `sessions`: looking at what a store holds.

use std::io::Write;

use clap::Args;
use profilestore::{
    ProfileKey,
    data_store::{
        DataStoreExt, Holder, KeyFilter, KeyQuery, KeyState, Offer, Request, Returning, ServerRow,
        VersionRef,
    },
    storable::DOCUMENT,
    transfer::{Content, VersionDocument, document},
};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    args::{App, KeyArg},
    history::{VersionArg, VersionRow, typed},
    output::{
        Failure, Out, Status, Table, ago, count, facts, json_document, json_line, out, say, size,
        time,
    },
};

const PAGE: usize = 256;

/// List profiles
///
/// Ordered by store, scope and key. Removed profiles are among them, and keys that so far have only
/// messages waiting.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore list --store-name PlayerData --prefix 12
  profilestore list --user 261 --json
  profilestore list --held")]
pub(crate) struct List {
    /// Only this store's profiles
    #[arg(long, value_name = "NAME")]
    store_name: Option<String>,
    /// Only this scope's profiles
    #[arg(long)]
    scope: Option<String>,
    #[command(flatten)]
    which: Which,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// Which keys are meant.
#[derive(Debug, Default, Args)]
#[group(multiple = false)]
struct Which {
    /// Only keys that begin with this
    #[arg(long)]
    prefix: Option<String>,
    /// Only profiles associated with this user
    #[arg(long, value_name = "ID")]
    user: Option<i64>,
    /// Only profiles that a session holds, or that are kept free for one
    #[arg(long)]
    held: bool,
}

impl Which {
    fn filter(self) -> KeyFilter {
        match self {
            Self { prefix: Some(prefix), .. } => KeyFilter::Prefix(prefix),
            Self { user: Some(user), .. } => KeyFilter::User(user),
            Self { held: true, .. } => KeyFilter::Held,
            _ => KeyFilter::All,
        }
    }
}

impl List {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let store = app.place.open().await?;
        let mut table =
            Table::new(["KEY", "VERSION", "UPDATED", "SIZE", "CAUSE", "AUTHOR", "SESSION"]);
        let mut out = out();
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut query = query(self.store_name, self.scope, self.which.filter());
        while left > 0 {
            query.limit = left.min(PAGE);
            let (page, next) = store.profiles(&query).await?;
            match app.json {
                true => {
                    page.iter().try_for_each(|state| json_line(&mut out, &KeyRow::new(state)))?
                }
                false => table.page(&mut out, &page.iter().map(key_cells).collect::<Vec<_>>())?,
            }
            left -= page.len().min(left);
            if next.is_none() {
                break;
            }
            query.after = next;
        }
        out.flush()?;
        Ok(Status::Fine)
    }
}

/// Show one profile
///
/// Shows the document that the data store of a Roblox game would hold, and what is known about it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore get PlayerData/7
  profilestore get LegacyData/Season1/Player_34 --version 12
  profilestore get PlayerData/7 --json | jq .document.Data
  profilestore get PlayerData/7 --raw > 7.json")]
pub(crate) struct Get {
    #[command(flatten)]
    key: KeyArg,
    /// An earlier version: its number, its version string (see history), or a time when it was
    /// current
    #[arg(long)]
    version: Option<VersionArg>,
    /// Nothing but the document, byte for byte as it is kept, also where it is no JSON that every
    /// program reads
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

impl Get {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let key = self.key.parse()?;
        let store = app.place.open().await?;
        let version = match &self.version {
            Some(which) => {
                let (_, state) = store.read_one(&key, Returning::HEAD).await?;
                Some(VersionRef::Number(which.find(&*store, &state).await?.info.number))
            }
            None => None,
        };
        let found = document(&*store, &key, version.as_ref()).await?;
        let found = found
            .ok_or_else(|| Failure::NotFound(format!("there is no such profile: key=`{key}`")))?;
        match (self.raw, app.json) {
            (true, _) => raw(&found)?,
            (false, true) => json_document(&GetRow::new(&found))?,
            (false, false) => show(&found)?,
        }
        Ok(Status::Fine)
    }
}

/// Show who holds which profiles
///
/// A server is `alive` while it renews its lease, `silent` when it is late (another server may take
/// its profiles over), `dead` once that was done or it has ended, and `unknown` when the session
/// came with an imported record, which no server vouches for. `offered` is a profile that was let
/// go for the sake of a server that asked for it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore sessions
  profilestore sessions --json | jq 'select(.server_state != \"alive\")'")]
pub(crate) struct Sessions {
    /// Only this store's profiles
    #[arg(long, value_name = "NAME")]
    store_name: Option<String>,
    /// Only this scope's profiles
    #[arg(long)]
    scope: Option<String>,
}

impl Sessions {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let store = app.place.open().await?;
        let mut table = Table::new([
            "KEY",
            "JOB",
            "PLACE",
            "SINCE",
            "SERVER",
            "LAST SEEN",
            "ASKED \
            FOR BY",
        ]);
        let mut out = out();
        let mut query = query(self.store_name, self.scope, KeyFilter::Held);
        let mut sessions = 0;
        loop {
            let page = store.keys(&query).await?;
            // The clock of the store, which stamped the times.
            let now_ms = store.identity().await?.now_ms;
            let rows: Vec<_> =
                page.iter().filter_map(|state| SessionRow::new(state, now_ms)).collect();
            match app.json {
                true => rows.iter().try_for_each(|row| json_line(&mut out, row))?,
                false => table.page(
                    &mut out,
                    &rows.iter().map(|row| session_cells(row, now_ms)).collect::<Vec<_>>(),
                )?,
            }
            sessions += rows.len();
            query.after = page.last().map(|state| state.key.clone());
            if page.len() < query.limit {
                break;
            }
        }
        if sessions == 0 && !app.json {
            writeln!(out, "no profile is held")?;
        }
        out.flush()?;
        Ok(Status::Fine)
    }
}

fn query(store: Option<String>, scope: Option<String>, filter: KeyFilter) -> KeyQuery {
    KeyQuery { store, scope, filter, after: None, limit: PAGE }
}

#[derive(Serialize)]
struct KeyRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    /// 0: nothing was written yet, but messages may be waiting.
    version: u64,
    removed: bool,
    created_ms: i64,
    updated_ms: Option<i64>,
    bytes: Option<u64>,
    cause: Option<&'static str>,
    author: Option<&'a str>,
    load_count: u64,
    last_message: u64,
    holder: Option<&'a Holder>,
}

impl<'a> KeyRow<'a> {
    fn new(state: &'a KeyState) -> Self {
        let head = state.head.as_ref();
        Self {
            key: &state.key,
            version: state.version,
            removed: head.is_some_and(|head| head.removed),
            created_ms: state.created_ms,
            updated_ms: head.map(|head| head.written_ms),
            bytes: head.map(|head| head.bytes),
            cause: head.map(|head| head.cause.as_str()),
            author: head.map(|head| head.author.as_str()),
            load_count: state.lease.load_count,
            last_message: state.last_message,
            holder: state.lease.holder.as_ref(),
        }
    }
}

fn key_cells(state: &KeyState) -> [String; 7] {
    let holder = state.lease.holder.as_ref().map_or("-", |holder| &holder.job_id).to_owned();
    match &state.head {
        None => {
            let [none, updated, size, cause, author] = ["-"; 5].map(str::to_owned);
            [state.key.to_string(), none, updated, size, cause, author, holder]
        }
        Some(head) => [
            state.key.to_string(),
            head.number.to_string(),
            time(head.written_ms),
            if head.removed { "removed".to_owned() } else { size(head.bytes) },
            head.cause.as_str().to_owned(),
            head.author.clone(),
            holder,
        ],
    }
}

#[derive(Serialize)]
struct GetRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    content: Content,
    current: bool,
    created_ms: i64,
    version: Option<VersionRow<'a>>,
    user_ids: &'a [i64],
    metadata: &'a Map<String, Value>,
    session: Option<SessionRow<'a>>,
    messages_waiting: usize,
    document: Option<&'a RawValue>,
}

impl<'a> GetRow<'a> {
    fn new(found: &'a VersionDocument) -> Self {
        let state = &found.state;
        Self {
            key: &state.key,
            content: found.content,
            current: is_current(found),
            created_ms: state.created_ms,
            version: found.info.as_ref().map(|info| VersionRow::new(info, state.created_ms)),
            user_ids: &found.user_ids,
            metadata: &found.metadata,
            session: SessionRow::new(state, found.now_ms),
            messages_waiting: state.inbox.as_ref().map_or(0, Vec::len),
            document: found.value.as_deref(),
        }
    }
}

fn is_current(found: &VersionDocument) -> bool {
    found.info.as_ref().is_none_or(|info| info.number == found.state.version)
}

fn show(found: &VersionDocument) -> Result<(), Failure> {
    let (state, now_ms) = (&found.state, found.now_ms);
    let mut said = vec![("profile", state.key.to_string())];
    match &found.info {
        None => said.push(("version", "none: nothing was written yet".into())),
        Some(info) => {
            let which = if is_current(found) { "current" } else { "earlier" };
            said.push(("version", format!("{} ({which})  {}", info.number, typed(&found.label))));
            let by = format!("{}, by {}", info.cause.as_str(), info.author);
            said.push((
                "written",
                format!("{}  {}  {by}", time(info.written_ms), ago(now_ms, info.written_ms)),
            ));
            said.push(("created", time(state.created_ms)));
            said.push(("size", size(info.bytes)));
        }
    }
    said.push(match found.content {
        Content::Profile => ("content", "a profile".into()),
        Content::Foreign => ("content", "no profile; kept as it came".into()),
        Content::MessagesOnly => ("content", "nothing but messages".into()),
        _ => ("content", "removed".into()),
    });
    if !found.user_ids.is_empty() {
        said.push((
            "users",
            found.user_ids.iter().map(i64::to_string).collect::<Vec<_>>().join(", "),
        ));
    }
    if !found.metadata.is_empty() {
        said.push(("metadata", serde_json::to_string(&found.metadata)?));
    }
    said.push(("session", session_line(state, now_ms)));
    let inbox = state.inbox.as_deref().unwrap_or_default();
    let locked = inbox.iter().filter(|message| message.locked).count();
    said.push((
        "messages",
        format!("{}, {locked} locked", count(inbox.len() as u64, "waiting", "waiting")),
    ));
    let mut out = out();
    facts(&mut out, &said)?;
    if let Some(value) = &found.value {
        writeln!(out)?;
        pretty(&mut out, value)?;
    }
    Ok(out.flush()?)
}

fn session_line(state: &KeyState, now_ms: i64) -> String {
    let Some(row) = SessionRow::new(state, now_ms) else {
        return "none".into();
    };
    let asked =
        row.request.map(|request| format!(", asked for by {}", request.job_id)).unwrap_or_default();
    match row.holder {
        None => "none; kept free for the server that asked for it".into(),
        Some(holder) => {
            let seen = row
                .last_seen_ms
                .map(|seen| format!(", last seen {}", ago(now_ms, seen)))
                .unwrap_or_default();
            format!(
                "held by {} since {}, server {}{seen}{asked}",
                holder.job_id,
                time(holder.since_ms),
                row.server_state.as_str()
            )
        }
    }
}

/// The document as it is kept, and nothing else. A tombstone has none.
fn raw(found: &VersionDocument) -> Result<(), Failure> {
    let none = || {
        Failure::NotFound(format!(
            "the profile is removed, there is no document: key=`{}`",
            found.state.key
        ))
    };
    let value = found.value.as_ref().ok_or_else(none)?;
    say(format_args!("{}", value.get()))
}

/// The document, indented. One that indenting would change is shown as it is.
fn pretty(out: &mut Out, value: &RawValue) -> Result<(), Failure> {
    match DOCUMENT.check(value).ok().and_then(|()| serde_json::from_str::<Value>(value.get()).ok())
    {
        Some(value) => serde_json::to_writer_pretty(&mut *out, &value)?,
        None => out.write_all(value.get().as_bytes())?,
    }
    Ok(writeln!(out)?)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ServerState {
    Alive,
    Silent,
    Dead,
    Unknown,
    Offered,
}

impl ServerState {
    fn of(state: &KeyState, now_ms: i64) -> Self {
        match (&state.lease.holder, &state.holder_server) {
            (None, _) => Self::Offered,
            (Some(_), None) => Self::Unknown,
            (Some(_), Some(row)) if row.dead => Self::Dead,
            (Some(_), Some(row))
                if now_ms.abs_diff(row.renewed_ms) > row.lease_ms.unsigned_abs() =>
            {
                Self::Silent
            }
            _ => Self::Alive,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Silent => "silent",
            Self::Dead => "dead",
            Self::Unknown => "unknown",
            Self::Offered => "offered",
        }
    }
}

#[derive(Serialize)]
struct SessionRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    server_state: ServerState,
    /// The renewal of the server's row, or what an imported record said.
    last_seen_ms: Option<i64>,
    holder: Option<&'a Holder>,
    request: Option<&'a Request>,
    offer: Option<&'a Offer>,
    server: Option<&'a ServerRow>,
}

impl<'a> SessionRow<'a> {
    /// None for a profile without a holder and without an offer.
    fn new(state: &'a KeyState, now_ms: i64) -> Option<Self> {
        let lease = &state.lease;
        (lease.holder.is_some() || lease.offer.is_some()).then(|| Self {
            key: &state.key,
            server_state: ServerState::of(state, now_ms),
            last_seen_ms: match &state.holder_server {
                Some(row) => Some(row.renewed_ms),
                None => lease.holder.as_ref().and_then(|holder| holder.last_update_ms),
            },
            holder: lease.holder.as_ref(),
            request: lease.request.as_ref(),
            offer: lease.offer.as_ref(),
            server: state.holder_server.as_ref(),
        })
    }
}

fn session_cells(row: &SessionRow<'_>, now_ms: i64) -> [String; 7] {
    let none = || "-".to_owned();
    let holder = |show: fn(&Holder) -> String| row.holder.map_or_else(none, show);
    [
        row.key.to_string(),
        holder(|holder| holder.job_id.clone()),
        holder(|holder| holder.place_id.to_string()),
        holder(|holder| time(holder.since_ms)),
        row.server_state.as_str().to_owned(),
        row.last_seen_ms.map_or_else(none, |seen| ago(now_ms, seen)),
        row.request.map_or_else(none, |request| request.job_id.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_server_follows_from_its_row() {
        let key = ProfileKey::new("S", "global", "k").unwrap();
        let mut state = KeyState::absent(key);
        assert!(SessionRow::new(&state, 0).is_none());
        let holder: Holder = serde_json::from_value(
            serde_json::json!({ "server": null, "place_id": 1, "job_id": "j", "session": "s", "since_ms": 5,
                "last_update_ms": 9 }),
        )
        .unwrap();
        state.lease.holder = Some(holder);
        let row = SessionRow::new(&state, 0).unwrap();
        assert_eq!((row.server_state, row.last_seen_ms), (ServerState::Unknown, Some(9)));
        let server = |dead| {
            serde_json::from_value::<ServerRow>(serde_json::json!({ "id": "00000000-0000-0000-0000-000000000001", "place_id": 1,
                "job_id": "j", "revision": 1, "lease_ms": 100, "started_ms": 1, "renewed_ms": 1000, "dead": dead }))
            .unwrap()
        };
        state.holder_server = Some(server(false));
        assert_eq!(ServerState::of(&state, 1100), ServerState::Alive);
        assert_eq!(ServerState::of(&state, 1101), ServerState::Silent);
        state.holder_server = Some(server(true));
        assert_eq!(ServerState::of(&state, 1000), ServerState::Dead);
    }
}
