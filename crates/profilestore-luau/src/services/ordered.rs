//! Ordered data stores: whole numbers under keys, listed by their value. Each is a data store of
//! its own under a scope of its own, so that it and the ordinary one of the same name are apart; a
//! listing reads all its keys.

use std::sync::Arc;

use futures_util::future::join_all;
use mlua::{IntoLua, Lua, Table, UserDataRef, Value};
use profilestore::roblox::{DataStoreError, KeysQuery, RobloxDataStore, RobloxDataStores};

use super::{
    asked::Frames,
    data_store::{Store, of_a_read},
    world::World,
};
use crate::vm::{Failed, Vm};

/// What the scope of an ordered data store begins with.
const SCOPE: &str = "ordered/";
/// How many keys are listed and read at once.
const AT_ONCE: usize = 100;

/// The entries of one listing, by value.
struct Sorted(Vec<(String, i64)>);

impl IntoLua for Sorted {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        let list = lua.create_table()?;
        for (key, value) in self.0 {
            let entry = lua.create_table()?;
            entry.set("key", key)?;
            entry.set("value", value as f64)?;
            list.push(entry)?;
        }
        list.into_lua(lua)
    }
}

async fn sorted(
    store: &RobloxDataStore,
    ascending: bool,
    min: f64,
    max: f64,
) -> Result<Sorted, DataStoreError> {
    let mut keys = store
        .list_keys(KeysQuery { page_size: AT_ONCE, exclude_removed: true, ..KeysQuery::default() })
        .await?;
    let mut entries = Vec::new();
    loop {
        let page = keys.current_page();
        for (key, read) in
            page.iter().zip(join_all(page.iter().map(|key| store.get_uncached(key))).await)
        {
            let value = read?.and_then(|entry| entry.value.get().parse::<i64>().ok());
            entries.extend(
                value
                    .filter(|value| (min..=max).contains(&(*value as f64)))
                    .map(|value| (key.clone(), value)),
            );
        }
        if keys.is_finished() {
            break;
        }
        keys.advance().await?;
    }
    entries.sort_by(|(key, value), (other_key, other)| {
        value.cmp(other).then_with(|| key.cmp(other_key))
    });
    if !ascending {
        entries.reverse();
    }
    Ok(Sorted(entries))
}

/// The host's functions about ordered data stores; what else they do is done by those of data
/// stores.
pub(super) fn install(
    vm: &Vm,
    host: &Table,
    stores: &RobloxDataStores,
    world: &Arc<World>,
    server: usize,
    frames: &Frames,
) -> Result<(), Failed> {
    // (name, scope or nil) -> store
    let own = stores.clone();
    let open = move |_: &Lua, (name, scope): (String, Option<String>)| {
        let scope = format!("{SCOPE}{}", scope.as_deref().unwrap_or("global"));
        own.data_store(&name, Some(&scope)).map(Store).map_err(|error| error.to_string())
    };
    host.set("ds_open_ordered", vm.prompt(open)?)?;

    // (store, ascending, min, max) -> { {key, value}, ... }; waits.
    let (own, count, frames) = (stores.clone(), world.clone(), frames.clone());
    let list =
        move |_: &Lua, (store, ascending, min, max): (UserDataRef<Store>, bool, f64, f64)| {
            own.set_players(u32::try_from(count.players_on(server)).unwrap_or(u32::MAX));
            let asked = frames.asked("GetSortedAsync", Some(&store.0), None);
            let store = store.0.clone();
            Ok(async move {
                let listed = sorted(&store, ascending, min, max).await;
                let listed = asked.at_a_frame(listed).await;
                listed.map_err(|error| of_a_read(error).to_string())
            })
        };
    host.set("ds_sorted", vm.waiting(list)?)?;
    Ok(())
}
