//! Stores: starting sessions, reading, sending, removing.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, TryFutureExt as _};
use mlua::{Function, Lua, Table, Thread, UserData, UserDataRef, Value};
use parking_lot::Mutex;
use profilestore::{
    Error, GameServer, ProfileStore, SessionInfo, StartOptions, WhenHeld,
    data_store::{StoredMessage, VersionRef},
    roblox::InboxChange,
    storable::MESSAGE,
};

use super::{
    Host, Told, info,
    raw::Raw,
    session::LuaSession,
    view::{LuaQuery, LuaView},
};
use crate::vm::{
    Answer, Failed, Vm,
    json::{self, Text},
};

/// A store of profiles as scripts have it. Its template is a table that may change any time, so it
/// comes with each call.
pub(crate) struct LuaStore {
    server: GameServer,
    name: String,
    scope: Option<String>,
    mock: bool,
    /// Made with the template of the last call.
    made: Mutex<Option<(Raw, ProfileStore<Raw>)>>,
}

impl UserData for LuaStore {}

impl LuaStore {
    fn new(
        server: GameServer,
        name: String,
        scope: Option<String>,
        mock: bool,
    ) -> Result<Self, Error> {
        let store = Self { server, name, scope, mock, made: Mutex::new(None) };
        store.make(None)?;
        Ok(store)
    }

    fn make(&self, template: Option<Raw>) -> Result<ProfileStore<Raw>, Error> {
        let mut builder = self.server.store_builder(&self.name);
        if let Some(scope) = &self.scope {
            builder = builder.scope(scope);
        }
        if let Some(template) = template {
            builder = builder.template(template);
        }
        let store = builder.build()?;
        Ok(if self.mock { store.mock() } else { store })
    }

    /// The engine's store with this template. Fails when the template cannot be stored.
    pub(super) fn with(&self, lua: &Lua, template: &Value) -> Result<ProfileStore<Raw>, String> {
        let template = if template.is_nil() {
            empty()
        } else {
            Raw::of(lua, template, None).map_err(|problem| format!("template: {problem}"))?
        };
        let mut made = self.made.lock();
        if let Some((last, store)) = &*made
            && last.is(&template)
        {
            return Ok(store.clone());
        }
        let store = self.make(Some(template.clone())).map_err(|error| error.to_string())?;
        *made = Some((template, store.clone()));
        Ok(store)
    }

    /// The same where no new profile can come about.
    fn any(&self) -> Result<ProfileStore<Raw>, String> {
        match &*self.made.lock() {
            Some((_, store)) => Ok(store.clone()),
            None => self.make(None).map_err(|error| error.to_string()),
        }
    }
}

fn empty() -> Raw {
    serde_json::from_str("{}").expect("an empty object is one")
}

/// `{ cancel = () -> boolean, steal = boolean, timeout = seconds, autosave = seconds, held =
/// (place_id, job_id) -> "Ask" | "Wait" | "GiveUp" | "Steal", caller = thread
/// }`. A function that throws calls the start off; so does the end of the thread `caller`.
fn start_options(host: &Host, options: Option<Table>) -> Answer<StartOptions> {
    let text = |error: mlua::Error| error.to_string();
    // What is no profile is kept in the history.
    let mut start = StartOptions::new().overwrite();
    let Some(options) = options else { return Ok(start) };
    if let Some(cancel) = options.get::<Option<Function>>("cancel").map_err(text)? {
        let host = host.clone();
        start = start.cancel(move || match host.call(&cancel, ()) {
            Some(values) => values.front() == Some(&Value::Boolean(true)),
            None => true,
        });
    }
    if let Some(held) = options.get::<Option<Function>>("held").map_err(text)? {
        let host = host.clone();
        start = start.when_held(move |holder: &SessionInfo| {
            let lua = host.scheduler.upgrade().and_then(|scheduler| scheduler.lua());
            let holder = lua.and_then(|lua| info::holder(&lua, holder).ok());
            let decided = holder.and_then(|holder| host.call(&held, holder));
            let decided = decided.and_then(|mut values| values.pop_front());
            match decided
                .as_ref()
                .and_then(Value::as_string)
                .map(|text| text.to_string_lossy())
                .as_deref()
            {
                Some("Ask") => WhenHeld::Ask,
                Some("Wait") => WhenHeld::Wait,
                Some("Steal") => WhenHeld::Steal,
                _ => WhenHeld::GiveUp,
            }
        });
    }
    if options.get::<Option<bool>>("steal").map_err(text)?.unwrap_or(false) {
        start = start.steal();
    }
    let seconds = |name: &str| -> Answer<Option<std::time::Duration>> {
        let seconds: Option<f64> = options.get(name).map_err(text)?;
        seconds
            .map(std::time::Duration::try_from_secs_f64)
            .transpose()
            .map_err(|error| error.to_string())
    };
    if let Some(timeout) = seconds("timeout")? {
        start = start.timeout(timeout);
    }
    if let Some(period) = seconds("autosave")? {
        start = start.autosave_period(period);
    }
    Ok(start)
}

pub(crate) fn install(host: &Host, vm: &Vm, table: &Table) -> Result<(), Failed> {
    install_start(host, vm, table)?;
    install_reads(vm, table)?;
    install_writes(host, vm, table)
}

/// Opening stores, and starting sessions.
fn install_start(host: &Host, vm: &Vm, table: &Table) -> Result<(), Failed> {
    // (name, scope or nil, mock) -> store; throws on a wrong name.
    let server = host.server.clone();
    table.set(
        "store",
        vm.prompt(move |_, (name, scope, mock): (String, Option<String>, bool)| {
            LuaStore::new(server.clone(), name, scope, mock).map_err(|error| error.to_string())
        })?,
    )?;

    // (store, key, template or nil, options or nil) -> session; waits.
    let own = host.clone();
    table.set(
        "start",
        vm.waiting(
            move |lua,
                  (store, key, template, options): (
                UserDataRef<LuaStore>,
                String,
                Value,
                Option<Table>,
            )| {
                let caller: Option<Thread> = match &options {
                    Some(options) => options.get("caller").map_err(|error| error.to_string())?,
                    None => None,
                };
                let options = start_options(&own, options)?;
                let started = store.with(lua, &template)?.start_session_with(&key, options);
                Ok(async move {
                    // A start that is dropped cleans up after itself.
                    tokio::select! {
                        biased;
                        started = started => Ok(Told(started.map(LuaSession::new))),
                        () = cancelled(caller) => Err("the thread that waited for the session was cancelled".to_owned()),
                    }
                })
            },
        )?,
    )?;
    Ok(())
}

/// Reading what is stored, without a session.
fn install_reads(vm: &Vm, table: &Table) -> Result<(), Failed> {
    // (store, key, template or nil, version's string or number or nil) -> view; waits.
    table.set(
        "get",
        vm.waiting(
            move |lua,
                  (store, key, template, version): (
                UserDataRef<LuaStore>,
                String,
                Value,
                Value,
            )| {
                let store = store.with(lua, &template)?;
                let version = match version {
                    Value::Nil => None,
                    Value::Number(number) => Some(VersionRef::Number(number as u64)),
                    Value::Integer(number) => Some(VersionRef::Number(number.cast_unsigned())),
                    Value::String(label) => Some(VersionRef::Label(label.to_string_lossy())),
                    other => {
                        return Err(format!(
                            "a version is a string or a number, got {}",
                            other.type_name()
                        ));
                    }
                };
                // Under way when this returns, whichever it is.
                let read = match version {
                    None => store.get(&key).boxed(),
                    Some(version) => store.get_version(&key, version).map_ok(Some).boxed(),
                };
                Ok(async move { Ok(Told(read.await.map(|read| read.map(LuaView::new)))) })
            },
        )?,
    )?;

    // (store, key, template, newest_first, min_ms or nil, max_ms or nil) -> query
    table.set(
        "query",
        vm.prompt(
            |lua,
             (store, key, template, newest, min, max): (
                UserDataRef<LuaStore>,
                String,
                Value,
                bool,
                Option<f64>,
                Option<f64>,
            )| {
                let mut versions = store
                    .with(lua, &template)?
                    .versions(&key)
                    .map_err(|error| error.to_string())?;
                if newest {
                    versions = versions.newest_first();
                }
                if let Some(min) = min {
                    versions = versions.since(min as i64);
                }
                if let Some(max) = max {
                    versions = versions.until(max as i64);
                }
                Ok(LuaQuery::new(versions))
            },
        )?,
    )?;
    Ok(())
}

/// Changing what is stored, without a session.
fn install_writes(host: &Host, vm: &Vm, table: &Table) -> Result<(), Failed> {
    // (store, key) -> whether there was something; waits.
    table.set(
        "remove",
        vm.waiting(|_, (store, key): (UserDataRef<LuaStore>, String)| {
            let removed = store.any()?.remove(&key);
            Ok(async move { Ok(Told(removed.await)) })
        })?,
    )?;

    // (store, key, message) -> true; waits. Throws on a message that cannot be stored.
    table.set(
        "send",
        vm.waiting(|lua, (store, key, message): (UserDataRef<LuaStore>, String, Value)| {
            let json = json::encode(lua, "message", &message, MESSAGE)
                .map_err(|error| error.to_string())?;
            let sent = store.any()?.send_message(&key, &Text(&json).raw_value());
            Ok(async move { Ok(Told(sent.await.map(|()| true))) })
        })?,
    )?;

    // (store, key, edit) -> whether `edit` had anything done; waits. edit({ {index, revision,
    // locked, sent_ms, payload}, ... }, last_index) answers nil or { {"add", payload} | {"change",
    // index, payload} | {"remove", index}, ... }; it must not wait, and is called again when
    // another caller was faster.
    let own = host.clone();
    table.set(
        "change_inbox",
        vm.waiting(move |lua, (store, key, edit): (UserDataRef<LuaStore>, String, Function)| {
            let (host, lua) = (own.clone(), lua.weak());
            let edited = store.any()?.change_inbox(&key, move |messages, last| {
                let lua = lua.try_upgrade()?;
                match ask_for_changes(&host, &lua, &edit, messages, last) {
                    Ok(changes) => changes,
                    Err(error) => {
                        if let Some(scheduler) = host.scheduler.upgrade() {
                            scheduler.report(&error);
                        }
                        None
                    }
                }
            });
            Ok(async move { Ok(Told(edited.await)) })
        })?,
    )?;
    Ok(())
}

/// Waits until a thread can no longer be resumed, because the game has cancelled it.
async fn cancelled(thread: Option<Thread>) {
    const LOOK: Duration = Duration::from_millis(100);
    let Some(thread) = thread else { return std::future::pending().await };
    while thread.is_resumable() {
        tokio::time::sleep(LOOK).await;
    }
}

fn ask_for_changes(
    host: &Host,
    lua: &Lua,
    edit: &Function,
    messages: &[StoredMessage],
    last: u64,
) -> mlua::Result<Option<Vec<InboxChange>>> {
    let Some(answer) = host.call(edit, (info::messages(lua, messages, None, true)?, last as f64))
    else {
        return Ok(None);
    };
    let Some(Value::Table(list)) = answer.front() else { return Ok(None) };
    let mut changes = Vec::new();
    for entry in list.sequence_values::<Table>() {
        let entry = entry?;
        let payload = |at: i64| -> mlua::Result<Bytes> {
            let json = json::encode(lua, "update", &entry.get::<Value>(at)?, MESSAGE)
                .map_err(|error| mlua::Error::RuntimeError(error.to_string()))?;
            Ok(Bytes::from(json))
        };
        changes.push(match entry.get::<String>(1)?.as_str() {
            "add" => InboxChange::Add { payload: payload(2)? },
            "change" => InboxChange::Change { index: entry.get(2)?, payload: payload(3)? },
            "remove" => InboxChange::Remove { index: entry.get(2)? },
            other => return Err(mlua::Error::RuntimeError(format!("no such change: {other}"))),
        });
    }
    Ok(Some(changes))
}
