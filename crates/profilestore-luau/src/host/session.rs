//! Live sessions.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use mlua::{FromLuaMulti, Function, Lua, MultiValue, Table, UserData, UserDataRef, Value};
use parking_lot::Mutex;
use profilestore::{
    LastSave, Profile, SessionEnd,
    keeper::{Collect, Collected, Keeper},
    storable::{MAX_DATA_BYTES, NEARLY_FULL_BYTES},
};

use super::{
    Host, Told, info,
    raw::{Handed, Raw, kept, table_of},
};
use crate::vm::{Failed, Vm, error_text, json};

/// A session as modules have it.
pub(crate) struct LuaSession {
    profile: Profile<Raw>,
    at_hand: Arc<AtHand>,
}

/// What a session has at hand of its script's data.
#[derive(Default)]
struct AtHand {
    /// Checked and ready for the last save.
    ready: Mutex<Option<Collected<Raw>>>,
    /// What was handed over last, and its table copied: what is saved is usually this.
    copy: Mutex<Option<(Raw, Table)>>,
}

impl AtHand {
    /// A table of its own of the data that was saved.
    fn table_of(&self, lua: &Lua, saved: &Raw) -> mlua::Result<Value> {
        let copy = self.copy.lock().take_if(|(of, _)| of.is(saved));
        copy.map_or_else(|| saved.table(lua), |(_, copy)| Ok(Value::Table(copy)))
    }
}

impl UserData for LuaSession {}

impl LuaSession {
    pub(super) fn new(profile: Profile<Raw>) -> Self {
        Self { profile, at_hand: Arc::default() }
    }
}

/// The functions of a module that are called about its profiles, each with the profile as its first
/// argument.
struct Callbacks {
    /// (profile, "Save" | "LastSave" | "Ended" | "Edit", reason or nil) -> what is handed over
    hand_over: Function,
    /// (profile, "Manual" | "External" | "Shutdown" | "Lost")
    ended: Function,
    /// (profile): a save is done
    saved: Function,
    /// (profile): other messages wait
    inbox: Function,
    /// (profile, data): an operator's edit has made this of the data
    edited: Function,
    /// (profile, bytes, limit): the data has become nearly as large as can be stored
    large: Function,
}

/// The same as a value that modules pass on.
struct LuaCallbacks(Arc<Callbacks>);

impl UserData for LuaCallbacks {}

/// Asks the script for a profile's data.
struct ScriptKeeper {
    host: Host,
    lua: mlua::WeakLua,
    callbacks: Arc<Callbacks>,
    /// The module's profile object.
    object: Table,
    profile: Profile<Raw>,
    at_hand: Arc<AtHand>,
    is_large: AtomicBool,
}

fn last_save(reason: LastSave) -> &'static str {
    match reason {
        LastSave::Manual => "Manual",
        LastSave::External => "External",
        _ => "Shutdown",
    }
}

fn session_end(end: &SessionEnd) -> &'static str {
    match end {
        SessionEnd::Manual => "Manual",
        // To a script an operator is another server that asks.
        SessionEnd::External
        | SessionEnd::Superseded
        | SessionEnd::Operator { saves: true, .. } => "External",
        SessionEnd::Shutdown => "Shutdown",
        _ => "Lost",
    }
}

impl Keeper<Raw> for ScriptKeeper {
    fn collect(&self, why: Collect) -> Result<Collected<Raw>, String> {
        let ready = self.at_hand.ready.lock().take();
        if let Some(ready) = ready {
            self.watch_size(&ready);
            return Ok(self.unless_same(ready));
        }
        let (why, reason) = match why {
            Collect::Save => ("Save", None),
            Collect::LastSave(reason) => ("LastSave", Some(last_save(reason))),
            Collect::Ended(end) => ("Ended", Some(session_end(&end))),
            _ => ("Edit", None),
        };
        let values = self.host.call(&self.callbacks.hand_over, (&self.object, why, reason));
        let values = values
            .ok_or("the script did not hand over its data; the error before this one says why")?;
        let lua = self.lua.try_upgrade().ok_or("the script is gone")?;
        let kept = handed(&lua, values, &self.profile, &self.at_hand)?;
        self.watch_size(&kept);
        Ok(self.unless_same(kept))
    }

    fn edited(&self, data: &Raw) {
        let Some(lua) = self.lua.try_upgrade() else { return };
        match data.table(&lua) {
            Ok(data) => drop(self.host.call(&self.callbacks.edited, (&self.object, data))),
            Err(error) => {
                tracing::error!(key = %self.profile.key(), %error, "an edit could not be shown to the script")
            }
        }
    }

    fn inbox_changed(&self) {
        self.host.call(&self.callbacks.inbox, &self.object);
    }
}

impl ScriptKeeper {
    /// Warns when the data becomes nearly too large, once until it is smaller again.
    fn watch_size(&self, kept: &Collected<Raw>) {
        let Some(bytes) = kept.data.as_ref().map(Raw::size) else { return };
        let is_large = bytes > NEARLY_FULL_BYTES;
        if !self.is_large.swap(is_large, Ordering::Relaxed) && is_large {
            self.host
                .call(&self.callbacks.large, (&self.object, bytes as f64, MAX_DATA_BYTES as f64));
        }
    }

    /// What the engine has already costs it nothing.
    fn unless_same(&self, mut kept: Collected<Raw>) -> Collected<Raw> {
        kept.data = kept.data.filter(|data| !self.profile.read(|had| had.is(data)));
        kept
    }
}

/// What a module hands over of a profile: nil and a text are the reason why the data is not to be
/// stored. True behind all of it: the saved data is going to be asked for, so that a copy is kept.
fn handed(
    lua: &Lua,
    values: MultiValue,
    profile: &Profile<Raw>,
    at_hand: &AtHand,
) -> Result<Collected<Raw>, String> {
    const IS_ASKED_FOR: usize = 6;
    if let (Some(Value::Nil), Some(Value::String(reason))) = (values.front(), values.get(1)) {
        return Err(reason.to_string_lossy());
    }
    let is_asked_for = matches!(values.get(IS_ASKED_FOR), Some(Value::Boolean(true)));
    let data = values.front().and_then(Value::as_table).filter(|_| is_asked_for).cloned();
    let handed = Handed::from_lua_multi(values, lua).map_err(|error| error_text(&error))?;
    let (kept, is_plain) = kept(lua, handed, Some(&profile.data()))?;
    let copy = data.filter(|_| is_plain).and_then(|data| json::copy_of(lua, &data));
    *at_hand.copy.lock() = kept.data.clone().zip(copy);
    Ok(kept)
}

type Own = UserDataRef<LuaSession>;

pub(crate) fn install(host: &Host, vm: &Vm, table: &Table) -> Result<(), Failed> {
    install_callbacks(host, vm, table)?;
    install_life(vm, table)?;
    install_contents(vm, table)?;
    install_messages(vm, table)
}

/// What a module is called back for.
fn install_callbacks(host: &Host, vm: &Vm, table: &Table) -> Result<(), Failed> {
    // ({ hand_over, ended, saved, inbox, edited, large }) -> callbacks
    table.set(
        "callbacks",
        vm.prompt(|_, functions: Table| {
            let get = |name: &str| {
                functions.get::<Function>(name).map_err(|error| format!("{name}: {error}"))
            };
            let [hand_over, ended] = [get("hand_over")?, get("ended")?];
            let [saved, inbox, edited, large] =
                [get("saved")?, get("inbox")?, get("edited")?, get("large")?];
            Ok(LuaCallbacks(Arc::new(Callbacks { hand_over, ended, saved, inbox, edited, large })))
        })?,
    )?;

    // (session, callbacks, profile) -> false when the session is over already
    let own = host.clone();
    table.set(
        "keep",
        vm.prompt(
            move |lua, (session, callbacks, object): (Own, UserDataRef<LuaCallbacks>, Table)| {
                let profile = &session.profile;
                if profile.is_over() {
                    return Ok(false);
                }
                let callbacks = callbacks.0.clone();
                let (host, called, of) = (own.clone(), callbacks.clone(), object.clone());
                profile.on_session_end(move |end| {
                    drop(host.call(&called.ended, (&of, session_end(&end))))
                });
                let (host, called, of) = (own.clone(), callbacks.clone(), object.clone());
                profile.on_after_save(move |_| drop(host.call(&called.saved, &of)));
                session.profile.keep(ScriptKeeper {
                    host: own.clone(),
                    lua: lua.weak(),
                    callbacks,
                    object,
                    profile: profile.clone(),
                    at_hand: session.at_hand.clone(),
                    is_large: AtomicBool::new(false),
                });
                Ok(true)
            },
        )?,
    )?;
    Ok(())
}

/// Whether a session goes on; saving and ending it.
fn install_life(vm: &Vm, table: &Table) -> Result<(), Failed> {
    // (session) -> whether nobody else can have taken the profile
    table.set("is_active", vm.prompt(|_, session: Own| Ok(session.profile.is_active()))?)?;
    table.set("is_over", vm.prompt(|_, session: Own| Ok(session.profile.is_over()))?)?;

    // (session) -> true; waits.
    table.set(
        "save",
        vm.waiting(|_, session: Own| {
            let saved = session.profile.save();
            Ok(async move { Ok(Told(saved.await.map(|()| true))) })
        })?,
    )?;
    table.set(
        "save_soon",
        vm.prompt(|_, session: Own| {
            session.profile.save_soon();
            Ok(())
        })?,
    )?;

    // (session, handed over...) -> nil, or why it cannot be stored. If it can, it is what the last
    // save begins with instead of asking.
    table.set(
        "ready",
        vm.prompt(|lua, (session, values): (Own, MultiValue)| {
            Ok(match handed(lua, values, &session.profile, &session.at_hand) {
                Ok(kept) => {
                    *session.at_hand.ready.lock() = Some(kept);
                    None
                }
                Err(problem) => Some(problem),
            })
        })?,
    )?;

    // (session) -> true once the last save is done; waits. What runs before the first wait is done
    // when the thread yields.
    table.set(
        "finish",
        vm.waiting(|_, session: Own| {
            let ended = session.profile.end_session();
            Ok(async move { Ok(Told(ended.await.map(|()| true))) })
        })?,
    )?;
    Ok(())
}

/// What a session holds, and what is known about it.
fn install_contents(vm: &Vm, table: &Table) -> Result<(), Failed> {
    // (session) -> { load_count, first_session_time, place_id, job_id, user_ids, roblox_metadata,
    // meta_tags }
    table.set(
        "session_info",
        vm.prompt(|lua, session: Own| {
            session_info(lua, &session).map_err(|error| error_text(&error))
        })?,
    )?;
    // (session) -> place_id, job_id of the server that had taken the profile when the session was
    // found to be lost, or nothing
    table.set(
        "taken_by",
        vm.prompt(|lua, session: Own| {
            let by = session.profile.taken_by();
            by.map(|by| info::holder(lua, &by))
                .transpose()
                .map(Option::unzip)
                .map_err(|error| error_text(&error))
        })?,
    )?;
    // (session) -> fresh tables
    table.set(
        "data",
        vm.prompt(|lua, session: Own| {
            session.profile.data().table(lua).map_err(|error| error_text(&error))
        })?,
    )?;
    table.set(
        "saved_data",
        vm.prompt(|lua, session: Own| {
            let saved = session.profile.last_saved_data();
            session.at_hand.table_of(lua, &saved).map_err(|error| error_text(&error))
        })?,
    )?;
    table.set(
        "saved_meta_tags",
        vm.prompt(|lua, session: Own| {
            table_of(lua, &session.profile.saved_meta_tags()).map_err(|error| error_text(&error))
        })?,
    )?;
    // (session) -> DataStoreKeyInfo
    table.set(
        "key_info",
        vm.prompt(|_, session: Own| Ok(info::LuaKeyInfo(session.profile.key_info())))?,
    )?;
    Ok(())
}

/// The messages that wait for a session.
fn install_messages(vm: &Vm, table: &Table) -> Result<(), Failed> {
    // (session, above or nil, with payloads or nil) -> { {index, revision, locked, sent_ms, payload
    // or nil}, ... }
    table.set(
        "messages",
        vm.prompt(|lua, (session, above, with_payload): (Own, Option<u64>, Option<bool>)| {
            let waiting = session.profile.waiting_messages();
            info::messages(lua, &waiting, above, with_payload.unwrap_or(false))
                .map_err(|error| error_text(&error))
        })?,
    )?;
    // (session, index) -> a fresh value, why it cannot be read, whether the message is there. The
    // value of one that is `null` is nil.
    table.set(
        "payload",
        vm.prompt(|lua, (session, index): (Own, u64)| {
            let messages = session.profile.waiting_messages();
            let message = messages.iter().find(|message| message.index == index);
            Ok(match message.map(|message| info::payload(lua, message)) {
                Some(Ok(payload)) => (payload, None, true),
                Some(Err(problem)) => (Value::Nil, Some(problem), true),
                None => (Value::Nil, None, false),
            })
        })?,
    )?;
    Ok(())
}

fn session_info(lua: &Lua, session: &LuaSession) -> mlua::Result<Table> {
    let profile = &session.profile;
    let table = lua.create_table()?;
    let at = profile.session();
    table.set("load_count", profile.session_load_count() as f64)?;
    table.set("first_session_time", profile.first_session_time())?;
    table.set("place_id", at.place_id as f64)?;
    table.set("job_id", at.job_id)?;
    table.set("user_ids", json::user_ids_table(lua, &profile.user_ids())?)?;
    table.set("roblox_metadata", table_of(lua, &profile.roblox_metadata())?)?;
    table.set("meta_tags", table_of(lua, &profile.meta_tags())?)?;
    Ok(table)
}
