//! `get`: one profile.

use std::io::Write;

use clap::Args;
use profilestore::{
    ProfileKey, UserId,
    data_store::{DataStoreExt, Returning, VersionRef},
    filter::{JsonPath, value_at},
    storable::DOCUMENT,
    transfer::{Content, VersionDocument, document},
};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    app::App,
    given::KeyArg,
    output::{Failure, Out, Status, count, facts, json_document, out, size, visible_json},
    sessions::{SessionRow, session_line},
    times::{ago, time},
    versions::{VersionArg, VersionRow, cause, typed},
};

/// Show one profile
///
/// Shows the document that the data store of a Roblox game would hold, and what is known about it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore get PlayerData/7
  profilestore get LegacyData/Season1/Player_34 --version 12
  profilestore get PlayerData/7 --json | jq .document.Data
  profilestore get PlayerData/7 --path /inventory
  profilestore get PlayerData/7 --raw > 7.json")]
pub(crate) struct Get {
    #[command(flatten)]
    key: KeyArg,
    /// An earlier version: its number, its version string (see history), or a time: the one that
    /// was current at its end
    #[arg(long)]
    version: Option<VersionArg>,
    /// Nothing but the value at this place of the data, a JSON pointer such as /inventory
    #[arg(long, value_name = "/PATH", conflicts_with = "raw")]
    path: Option<JsonPath>,
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
        if let Some(path) = self.path {
            return part(app, &found, path);
        }
        match (self.raw, app.json) {
            (true, _) => raw(&found)?,
            (false, true) => json_document(&GetRow::new(&found))?,
            (false, false) => show(&found)?,
        }
        Ok(Status::Fine)
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
    user_ids: &'a [UserId],
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
            let by = format!("{}, by {}", cause(info.cause), info.author);
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
            found.user_ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
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

/// The value at one place of the data, and nothing else.
fn part(app: &App, found: &VersionDocument, path: JsonPath) -> Result<Status, Failure> {
    let none =
        || Failure::NotFound(format!("there is nothing at this path: key=`{}`", found.state.key));
    let path = match found.content {
        Content::Profile => path.below("Data"),
        _ => path,
    };
    let value = found.value.as_deref().ok_or_else(none)?;
    let value = value_at(value, &path)?.ok_or_else(none)?;
    let mut out = out();
    match app.json {
        true => writeln!(out, "{}", visible_json(value.get()))?,
        false => pretty(&mut out, value)?,
    }
    Ok(out.flush().map(|()| Status::Fine)?)
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
    let mut out = out();
    writeln!(out, "{}", value.get())?;
    // A full disk is told here, and nowhere else.
    Ok(out.flush()?)
}

/// The document, indented. One that indenting would change is shown as it is.
fn pretty(out: &mut Out, value: &RawValue) -> Result<(), Failure> {
    let text = match DOCUMENT
        .check(value)
        .ok()
        .and_then(|()| serde_json::from_str::<Value>(value.get()).ok())
    {
        Some(value) => visible_json(&serde_json::to_string_pretty(&value)?).into_owned(),
        None => visible_json(value.get()).into_owned(),
    };
    Ok(writeln!(out, "{text}")?)
}
