//! `messages`: what waits in a profile's inbox, and taking a message back.

use std::io::Write;

use clap::Args;
use profilestore::{
    MessageId, ProfileKey,
    data_store::{DataStoreExt, Returning, StoredMessage},
    key::escaped,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    app::App,
    given::{ByArgs, KeyArg, message_id},
    operate::{Visit, failure},
    output::{Failure, Status, Table, cut, json_document, json_line, out, say},
    times::ago,
};

/// How much of a message is shown to people, in characters.
const SHOWN_CHARS: usize = 200;

/// List the messages that wait for a profile, or take one back
///
/// The oldest first. A message waits until a handler of the game has processed it. With --cancel it
/// is taken out as if it had been processed, and sending it again under its id brings nothing. That
/// is refused while a live game server holds the profile, which may be at work on it: end the
/// session first. Booked in the audit log.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore messages PlayerData/7
  profilestore messages PlayerData/7 --cancel 1795000000000:order-4711 --reason 'wrong player'")]
pub(crate) struct Messages {
    #[command(flatten)]
    key: KeyArg,
    /// Take this message back
    #[arg(long, value_name = "TIME:NAME", value_parser = message_id)]
    cancel: Option<MessageId>,
    #[command(flatten)]
    by: ByArgs,
}

#[derive(Serialize)]
struct MessageRow<'a> {
    index: u64,
    id: String,
    sent_ms: i64,
    locked: bool,
    /// None: it is no JSON, which only old data is.
    message: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct CancelRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    id: String,
    cancelled: bool,
}

impl Messages {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let key = self.key.parse()?;
        let store = app.place.open().await?;
        let (now_ms, state) = store.read_one(&key, Returning::INBOX).await?;
        if state.version == 0 && state.last_message == 0 {
            return Err(Failure::NotFound(format!("there is no such profile: key=`{key}`")));
        }
        if let Some(id) = &self.cancel {
            let by = self.by.attribution()?;
            let visit = Visit::on(app, store, by).await?;
            let cancelled = visit.operator.cancel_message(&key, id).await;
            visit.end().await;
            let cancelled = cancelled.map_err(failure)?;
            if !cancelled {
                return Err(Failure::NotFound(format!(
                    "no such message waits; it may have been processed: key=`{key}` id=`{}`",
                    escaped(&id.to_string())
                )));
            }
            match app.json {
                true => json_document(&CancelRow { key: &key, id: id.to_string(), cancelled })?,
                false => {
                    let id = escaped(&id.to_string());
                    say(format_args!("{key}: the message {id} is taken back"))?;
                }
            }
            return Ok(Status::Fine);
        }
        let waiting: Vec<&StoredMessage> =
            state.inbox.iter().flatten().filter(|message| !message.id.is_edit()).collect();
        let mut out = out();
        if app.json {
            for message in waiting {
                json_line(&mut out, &MessageRow::new(message))?;
            }
        } else if waiting.is_empty() {
            writeln!(out, "no message waits")?;
        } else {
            let rows: Vec<_> = waiting.into_iter().map(|message| cells(message, now_ms)).collect();
            let mut table = Table::new(["SENT", "ID", "LOCKED", "MESSAGE"]).soft([2, 3]);
            table.page(&mut out, &rows)?;
            table.end(&mut out)?;
        }
        Ok(out.flush().map(|()| Status::Fine)?)
    }
}

impl<'a> MessageRow<'a> {
    fn new(message: &'a StoredMessage) -> Self {
        Self {
            index: message.index,
            id: message.id.to_string(),
            sent_ms: message.sent_ms,
            locked: message.locked,
            message: serde_json::from_slice(&message.payload).ok(),
        }
    }
}

fn cells(message: &StoredMessage, now_ms: i64) -> [String; 4] {
    [
        ago(now_ms, message.sent_ms),
        escaped(&message.id.to_string()),
        if message.locked { "yes" } else { "no" }.to_owned(),
        cut(&String::from_utf8_lossy(&message.payload), SHOWN_CHARS),
    ]
}
