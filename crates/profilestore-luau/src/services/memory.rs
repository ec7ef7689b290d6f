//! What the servers of a game share through MemoryStoreService: items that expire, by the kind and
//! the name of what they are in, and by their keys. What sorted maps, queues and hash maps make of
//! them is in `memory_store.luau`.

use std::{collections::BTreeMap, sync::Arc};

use mlua::{Lua, Table, Value};

use super::world::World;
use crate::vm::{Answer, Failed, Vm};

/// A structure: its kind and its name.
type Name = (String, String);

/// All structures of a game.
#[derive(Default)]
pub(super) struct Memory(BTreeMap<Name, BTreeMap<String, Item>>);

struct Item {
    /// JSON.
    value: String,
    sort: Sort,
    expires_ms: i64,
    /// Until when a reader of a queue has it for itself, and under which id.
    hidden: Option<(i64, String)>,
}

/// What an item is ordered by.
#[derive(Clone)]
enum Sort {
    None,
    Number(f64),
    Text(String),
}

impl Memory {
    /// A structure without what has expired.
    fn items(&mut self, name: &Name, now_ms: i64) -> &mut BTreeMap<String, Item> {
        let items = self.0.entry(name.clone()).or_default();
        items.retain(|_, item| item.expires_ms > now_ms);
        for item in items.values_mut() {
            item.hidden.take_if(|(until, _)| *until <= now_ms);
        }
        items
    }
}

fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}

fn sort_of(value: &Value) -> Answer<Sort> {
    match value {
        Value::Nil => Ok(Sort::None),
        Value::Integer(number) => Ok(Sort::Number(*number as f64)),
        Value::Number(number) => Ok(Sort::Number(*number)),
        Value::String(text) => Ok(Sort::Text(text.to_string_lossy())),
        other => Err(format!("a sort key is a number or a text, and not a {}", other.type_name())),
    }
}

fn table_of(lua: &Lua, key: &str, item: &Item) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set("key", key)?;
    table.set("value", item.value.as_str())?;
    match &item.sort {
        Sort::None => {}
        Sort::Number(number) => table.set("sort", *number)?,
        Sort::Text(text) => table.set("sort", text.as_str())?,
    }
    table.set("hidden", item.hidden.as_ref().map(|(_, id)| id.as_str()))?;
    Ok(table)
}

pub(super) fn install(vm: &Vm, host: &Table, world: &Arc<World>) -> Result<(), Failed> {
    host.set("latency", world.latency.as_secs_f64())?;
    let own = world.clone();
    let put = move |_: &Lua, args: (String, String, String, String, Value, f64)| {
        let (kind, name, key, value, sort, seconds) = args;
        let now_ms = own.env.unix_ms();
        let item = Item {
            value,
            sort: sort_of(&sort)?,
            expires_ms: now_ms + milliseconds(seconds),
            hidden: None,
        };
        own.inner.lock().memory.items(&(kind, name), now_ms).insert(key, item);
        Ok(())
    };
    host.set("memory_put", vm.prompt(put)?)?;
    let own = world.clone();
    let remove = move |_: &Lua, (kind, name, key): (String, String, String)| {
        let now_ms = own.env.unix_ms();
        own.inner.lock().memory.items(&(kind, name), now_ms).remove(&key);
        Ok(())
    };
    host.set("memory_remove", vm.prompt(remove)?)?;
    let own = world.clone();
    let hide = move |_: &Lua, args: (String, String, String, f64, String)| {
        let (kind, name, key, seconds, id) = args;
        let now_ms = own.env.unix_ms();
        if let Some(item) = own.inner.lock().memory.items(&(kind, name), now_ms).get_mut(&key) {
            item.hidden = Some((now_ms + milliseconds(seconds), id));
        }
        Ok(())
    };
    host.set("memory_hide", vm.prompt(hide)?)?;
    let own = world.clone();
    let get = move |lua: &Lua, (kind, name, key): (String, String, String)| {
        let now_ms = own.env.unix_ms();
        let mut inner = own.inner.lock();
        let item = inner.memory.items(&(kind, name), now_ms).get(&key);
        let table = item.map(|item| table_of(lua, &key, item)).transpose();
        table.map_err(|error| error.to_string())
    };
    host.set("memory_get", vm.prompt(get)?)?;
    let own = world.clone();
    let list = move |lua: &Lua, (kind, name): (String, String)| {
        let now_ms = own.env.unix_ms();
        let mut inner = own.inner.lock();
        let items = inner.memory.items(&(kind, name), now_ms).iter();
        let tables: mlua::Result<Vec<Table>> =
            items.map(|(key, item)| table_of(lua, key, item)).collect();
        tables.map_err(|error| error.to_string())
    };
    host.set("memory_list", vm.prompt(list)?)?;
    Ok(())
}
