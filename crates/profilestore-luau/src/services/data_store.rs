//! DataStoreService: Luau values over [`profilestore::roblox`]. Answers come at a frame, as Roblox
//! gives them.

use std::sync::{Arc, Weak};

use futures_util::TryFutureExt as _;
use mlua::{Function, IntoLua, IntoLuaMulti, Lua, MultiValue, Table, UserData, UserDataRef, Value};
use parking_lot::Mutex;
use profilestore::{
    KeyInfo,
    data_store::Order,
    roblox::{
        Code, DataStoreError, Entry, EntryVersion, KeysQuery, ListedVersion, MAX_VALUE_BYTES,
        NewEntry, Pages, RequestType, RobloxDataStore, RobloxDataStores, VersionsQuery,
    },
    storable::{DATA, DOCUMENT, Limits},
};
use serde_json::value::RawValue;

use super::{
    asked::{Asked, Frames},
    world::World,
};
use crate::{
    host::LuaKeyInfo,
    vm::{Answer, Failed, Scheduler, Vm, error_text, json, number_text},
};

pub(super) struct Store(pub(super) RobloxDataStore);

impl UserData for Store {}

/// A listing; what is at hand of it is read and turned by one call at a time.
struct Listing(Arc<tokio::sync::Mutex<Listed>>);

enum Listed {
    Versions(Pages<ListedVersion>),
    Keys(Pages<String>),
}

impl UserData for Listing {}

/// A value with its information, as scripts get it.
struct Read {
    value: Option<Arc<RawValue>>,
    info: Option<KeyInfo>,
}

impl From<Option<Entry>> for Read {
    fn from(entry: Option<Entry>) -> Self {
        match entry {
            Some(Entry { value, info, .. }) => Self { value: Some(value), info: Some(info) },
            None => Self { value: None, info: None },
        }
    }
}

impl From<EntryVersion> for Read {
    fn from(EntryVersion { value, info, .. }: EntryVersion) -> Self {
        Self { value, info: Some(info) }
    }
}

impl IntoLuaMulti for Read {
    fn into_lua_multi(self, lua: &Lua) -> mlua::Result<MultiValue> {
        let Some(info) = self.info else { return (Value::Nil, Value::Nil).into_lua_multi(lua) };
        let value = match self.value {
            Some(value) => json::decode_stored(lua, value.get()).map_err(unreadable)?,
            None => Value::Nil,
        };
        (value, LuaKeyInfo(info)).into_lua_multi(lua)
    }
}

/// What is stored cannot be given to a script.
fn unreadable(why: String) -> mlua::Error {
    let code = Code::CantParseResponse.number();
    mlua::Error::RuntimeError(format!("{code}: what is stored cannot be read: {why}"))
}

/// The code and what follows it, as scripts know errors.
fn text(error: &DataStoreError) -> String {
    error.to_string()
}

fn refused<T>(code: Code, message: impl std::fmt::Display) -> Answer<T> {
    Err(format!("{}: {message}", code.number()))
}

/// What a script wants to be stored.
fn new_entry(
    lua: &Lua,
    value: &Value,
    user_ids: Option<Table>,
    metadata: Option<Table>,
) -> Answer<NewEntry> {
    match value {
        Value::Nil => return refused(Code::ValueNotAllowed, "nil is not allowed in a data store"),
        Value::Function(_) | Value::Thread(_) | Value::UserData(_) | Value::LightUserData(_) => {
            return refused(
                Code::ValueNotAllowed,
                format_args!("{} is not allowed in a data store", json::kind_of(value)),
            );
        }
        _ => {}
    }
    let unstorable = |unstorable: json::Unstorable| {
        let code =
            if unstorable.is_too_large() { Code::ValueTooLarge } else { Code::CantStoreValue };
        refused(code, format_args!("Cannot store this value in a data store: {unstorable}"))
    };
    let json = json::encode(lua, "value", value, Limits { bytes: MAX_VALUE_BYTES, ..DOCUMENT })
        .or_else(unstorable)?;
    let mut entry = NewEntry::new(json::Text(&json).raw_value());
    if let Some(user_ids) = user_ids {
        let wrong = |unstorable: json::Unstorable| refused(Code::UserIdInvalid, unstorable);
        entry = entry.user_ids(json::user_ids(lua, "user_ids", &user_ids).or_else(wrong)?);
    }
    if let Some(metadata) = metadata
        && !metadata.is_empty()
    {
        let wrong = |unstorable| {
            refused(
                Code::MetadataTooLarge,
                format_args!("the metadata cannot be stored: {unstorable}"),
            )
        };
        let json = json::encode(lua, "metadata", &Value::Table(metadata), DATA).or_else(wrong)?;
        let Ok(metadata) = serde_json::from_str(&json) else {
            return refused(Code::MetadataTooLarge, "the metadata is a table with texts as keys");
        };
        entry = entry.metadata(metadata);
    }
    Ok(entry)
}

/// What makes the new value of the current one: a script's function, which must not wait.
struct Transform {
    function: Function,
    scheduler: Weak<Scheduler>,
    /// What went wrong in it.
    problem: Arc<Mutex<Option<String>>>,
}

impl Transform {
    fn apply(&self, current: Option<&Entry>) -> Option<NewEntry> {
        let new = self.try_apply(current);
        new.unwrap_or_else(|problem| {
            *self.problem.lock() = Some(problem);
            None
        })
    }

    fn try_apply(&self, current: Option<&Entry>) -> Answer<Option<NewEntry>> {
        let scheduler = self.scheduler.upgrade().ok_or("the server is closed")?;
        let answer = scheduler
            .call(&self.function, Read::from(current.cloned()))
            .map_err(|error| first_line(&error))?;
        let mut values = answer.into_iter();
        let value = match values.next() {
            None | Some(Value::Nil) => return Ok(None),
            Some(value) => value,
        };
        let [user_ids, metadata] =
            [values.next(), values.next()].map(|value| value.unwrap_or(Value::Nil));
        let user_ids = table_or_nil(user_ids)
            .ok_or("the second value of a transform is a table of user ids")?;
        let metadata = table_or_nil(metadata)
            .ok_or("the third value of a transform is a table of metadata")?;
        let lua = scheduler.lua().ok_or("the server is closed")?;
        new_entry(&lua, &value, user_ids, metadata).map(Some)
    }
}

fn table_or_nil(value: Value) -> Option<Option<Table>> {
    match value {
        Value::Nil => Some(None),
        Value::Table(table) => Some(Some(table)),
        _ => None,
    }
}

/// An error without its traceback, which belongs to the thread of the transform.
fn first_line(error: &mlua::Error) -> String {
    let text = error_text(error);
    text.split("\nstack traceback:").next().unwrap_or_default().to_owned()
}

type Handle = UserDataRef<Store>;

/// What scripts get of a call's answer, at the first frame after that is there.
async fn at_a_frame<T, R>(
    asked: Asked,
    call: impl Future<Output = Result<T, DataStoreError>>,
    as_told: impl FnOnce(T) -> R,
) -> Answer<R> {
    let answer = asked.at_a_frame(call.await).await;
    answer.map(as_told).map_err(|error| text(&error))
}

/// The same of a call that only reads.
async fn read_at_a_frame<T, R>(
    asked: Asked,
    call: impl Future<Output = Result<T, DataStoreError>>,
    as_told: impl FnOnce(T) -> R,
) -> Answer<R> {
    at_a_frame(asked, call.map_err(of_a_read), as_told).await
}

/// A read changes nothing, so its error does not say that it may have been applied.
pub(super) fn of_a_read(mut error: DataStoreError) -> DataStoreError {
    let known = error.message.strip_suffix("; the request may have been applied").map(str::len);
    error.message.truncate(known.unwrap_or(usize::MAX));
    error
}

/// The host's functions about data stores.
pub(super) fn install(
    vm: &Vm,
    host: &Table,
    stores: &RobloxDataStores,
    world: &Arc<World>,
    server: usize,
    frames: &Frames,
) -> Result<(), Failed> {
    let (own, count, here) = (stores.clone(), world.clone(), server);
    let players =
        move || own.set_players(u32::try_from(count.players_on(here)).unwrap_or(u32::MAX));

    let own = stores.clone();
    let open = move |_: &Lua, (name, scope): (String, Option<String>)| {
        own.data_store(&name, scope.as_deref()).map(Store).map_err(|error| text(&error))
    };
    host.set("ds_open", vm.prompt(open)?)?;

    install_reads(vm, host, frames, players.clone())?;
    install_writes(vm, host, frames, players.clone())?;
    install_listings(vm, host, frames, players.clone())?;

    let own = stores.clone();
    let budget = move |_: &Lua, kind: String| {
        players();
        let kind = match kind.as_str() {
            "Read" => RequestType::Read,
            "Write" => RequestType::Write,
            "List" => RequestType::List,
            _ => RequestType::Remove,
        };
        // Without budgets as much as Roblox's largest ones.
        Ok(own.budget(kind).map_or(f64::from(i32::MAX), f64::from))
    };
    host.set("ds_budget", vm.prompt(budget)?)?;
    Ok(())
}

/// Like the others: each answer comes at the first frame after it is there.
fn install_reads(
    vm: &Vm,
    host: &Table,
    frames: &Frames,
    players: impl Fn() + Clone + Send + 'static,
) -> Result<(), Failed> {
    let (own, count) = (frames.clone(), players.clone());
    let get = move |lua: &Lua, (store, key, cached): (Handle, Value, bool)| {
        count();
        let key = key_of(lua, key)?;
        let read: futures_util::future::BoxFuture<'static, _> =
            if cached { Box::pin(store.0.get(&key)) } else { Box::pin(store.0.get_uncached(&key)) };
        Ok(read_at_a_frame(own.asked("GetAsync", Some(&store.0), Some(&key)), read, Read::from))
    };
    host.set("ds_get", vm.waiting(get)?)?;

    let (own, count) = (frames.clone(), players);
    let get_version = move |lua: &Lua, (store, key, version): (Handle, Value, String)| {
        count();
        let key = key_of(lua, key)?;
        let read = store.0.get_version(&key, &version);
        let asked = own.asked("GetVersionAsync", Some(&store.0), Some(&key));
        Ok(read_at_a_frame(asked, read, Read::from))
    };
    host.set("ds_get_version", vm.waiting(get_version)?)?;
    Ok(())
}

fn install_writes(
    vm: &Vm,
    host: &Table,
    frames: &Frames,
    players: impl Fn() + Clone + Send + 'static,
) -> Result<(), Failed> {
    let (own, count) = (frames.clone(), players.clone());
    type Set = (Handle, Value, Value, Option<Table>, Option<Table>);
    let set = move |lua: &Lua, (store, key, value, user_ids, metadata): Set| {
        count();
        let key = key_of(lua, key)?;
        let written = store.0.set(&key, new_entry(lua, &value, user_ids, metadata)?);
        let asked = own.asked("SetAsync", Some(&store.0), Some(&key));
        Ok(at_a_frame(asked, written, |entry| entry.info.version))
    };
    host.set("ds_set", vm.waiting(set)?)?;

    let (own, count) = (frames.clone(), players.clone());
    let update = move |lua: &Lua, (store, key, function): (Handle, Value, Function)| {
        count();
        let problem = Arc::new(Mutex::new(None));
        let scheduler = own.scheduler();
        let transform = Transform { function, scheduler, problem: problem.clone() };
        let key = key_of(lua, key)?;
        let updated = store.0.update(&key, move |current| transform.apply(current));
        let asked = own.asked("UpdateAsync", Some(&store.0), Some(&key));
        Ok(async move {
            let updated = at_a_frame(asked, updated, Read::from).await;
            problem.lock().take().map_or(updated, Err)
        })
    };
    host.set("ds_update", vm.waiting(update)?)?;

    let (own, count) = (frames.clone(), players.clone());
    type Increment = (Handle, Value, f64, Option<Table>, Option<Table>);
    let increment = move |lua: &Lua, (store, key, delta, user_ids, metadata): Increment| {
        count();
        if delta.fract() != 0.0 || delta.abs() > 9_007_199_254_740_991.0 {
            return refused(Code::ValueNotAllowed, "the delta of an increment is a whole number");
        }
        let with = new_entry(lua, &Value::Boolean(true), user_ids, metadata)?;
        let key = key_of(lua, key)?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it is whole and within what a double holds"
        )]
        let written = store.0.increment_with(&key, delta as i64, with.user_ids, with.metadata);
        let asked = own.asked("IncrementAsync", Some(&store.0), Some(&key));
        Ok(at_a_frame(asked, written, |entry| Read::from(Some(entry))))
    };
    host.set("ds_increment", vm.waiting(increment)?)?;

    let (own, count) = (frames.clone(), players);
    let remove = move |lua: &Lua, (store, key): (Handle, Value)| {
        count();
        let key = key_of(lua, key)?;
        let removed = store.0.remove(&key);
        let asked = own.asked("RemoveAsync", Some(&store.0), Some(&key));
        Ok(at_a_frame(asked, removed, Read::from))
    };
    host.set("ds_remove", vm.waiting(remove)?)?;
    Ok(())
}

fn install_listings(
    vm: &Vm,
    host: &Table,
    frames: &Frames,
    players: impl Fn() + Clone + Send + 'static,
) -> Result<(), Failed> {
    let (own, count) = (frames.clone(), players.clone());
    type Versions = (Handle, Value, bool, Option<f64>, Option<f64>, Option<f64>);
    let versions = move |lua: &Lua, (store, key, descending, min, max, page_size): Versions| {
        count();
        let mut query = VersionsQuery::default();
        if descending {
            query.order = Order::Descending;
        }
        (query.min_ms, query.max_ms) = (min.map(ms), max.map(ms));
        if let Some(size) = page_size {
            query.page_size = page_items(size)?;
        }
        let key = key_of(lua, key)?;
        let listed = store.0.list_versions(&key, query);
        let asked = own.asked("ListVersionsAsync", Some(&store.0), Some(&key));
        Ok(read_at_a_frame(asked, listed, |pages| listing(Listed::Versions(pages))))
    };
    host.set("ds_list_versions", vm.waiting(versions)?)?;

    let (own, count) = (frames.clone(), players);
    let keys =
        move |_: &Lua, (store, prefix, page_size, exclude): (Handle, String, Option<f64>, bool)| {
            count();
            let mut query = KeysQuery { prefix, exclude_removed: exclude, ..KeysQuery::default() };
            if let Some(size) = page_size {
                query.page_size = page_items(size)?;
            }
            let listed = store.0.list_keys(query);
            let asked = own.asked("ListKeysAsync", Some(&store.0), None);
            Ok(read_at_a_frame(asked, listed, |pages| listing(Listed::Keys(pages))))
        };
    host.set("ds_list_keys", vm.waiting(keys)?)?;

    let own = frames.clone();
    let advance = move |_: &Lua, listing: UserDataRef<Listing>| {
        let asked = own.asked("AdvanceToNextPageAsync", None, None);
        let listed = listing.0.clone();
        Ok(async move {
            let turned = match &mut *listed.lock().await {
                Listed::Versions(pages) => pages.advance().await,
                Listed::Keys(pages) => pages.advance().await,
            };
            let turned = asked.at_a_frame(turned).await;
            turned.map_err(|error| text(&of_a_read(error)))
        })
    };
    host.set("pages_advance", vm.waiting(advance)?)?;

    const TURNING: &str = "a page is being turned";
    let finished = |_: &Lua, listing: UserDataRef<Listing>| match &*listing
        .0
        .try_lock()
        .map_err(|_| TURNING)?
    {
        Listed::Versions(pages) => Ok(pages.is_finished()),
        Listed::Keys(pages) => Ok(pages.is_finished()),
    };
    host.set("pages_finished", vm.prompt(finished)?)?;

    let current = |lua: &Lua, listing: UserDataRef<Listing>| {
        let listed = listing.0.try_lock().map_err(|_| TURNING)?;
        items(lua, &listed).map_err(|error| error.to_string())
    };
    host.set("pages_current", vm.prompt(current)?)?;
    Ok(())
}

fn listing(listed: Listed) -> Listing {
    Listing(Arc::new(tokio::sync::Mutex::new(listed)))
}

fn items(lua: &Lua, listed: &Listed) -> mlua::Result<Value> {
    let list = lua.create_table()?;
    match listed {
        Listed::Versions(pages) => {
            for version in pages.current_page() {
                let item = lua.create_table()?;
                item.set("Version", version.version.as_str())?;
                item.set("CreatedTime", version.created_ms as f64)?;
                item.set("IsDeleted", version.is_deleted)?;
                list.push(item)?;
            }
        }
        Listed::Keys(pages) => {
            for key in pages.current_page() {
                let item = lua.create_table()?;
                item.set("KeyName", key.as_str())?;
                list.push(item)?;
            }
        }
    }
    list.into_lua(lua)
}

/// Scripts may name a key by a number, which Luau makes a text of.
fn key_of(lua: &Lua, key: Value) -> Answer<String> {
    match &key {
        Value::String(text) => match text.to_str() {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => refused(Code::KeyNameLimit, "the key is no valid UTF-8"),
        },
        Value::Integer(_) | Value::Number(_) => number_text(lua, &key),
        Value::Nil => Err("Argument 1 missing or nil".to_owned()),
        other => Err(format!("a key is a string, and not {}", json::a_kind_of(other))),
    }
}

fn ms(time: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "a cast from a float saturates")]
    let ms = time as i64;
    ms
}

fn page_items(size: f64) -> Answer<usize> {
    match size {
        1.0..=1024.0 if size.fract() == 0.0 => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is within the range"
            )]
            let size = size as usize;
            Ok(size)
        }
        _ => refused(Code::PageSizeInvalid, "a page has 1 to 1024 items"),
    }
}
