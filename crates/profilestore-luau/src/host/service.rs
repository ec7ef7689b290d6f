//! What concerns this game server as a whole.

use std::time::Duration;

use futures_util::FutureExt;
use mlua::{Function, Lua, Table, Value};
use profilestore::{
    AccessState, KeyInfo, ProfileKey,
    key::DEFAULT_SCOPE,
    storable::{MAX_DATA_BYTES, MESSAGE, check_metadata},
};

use super::{Host, info::numbers, raw};
use crate::vm::{Failed, Vm, json};

pub(crate) fn install(host: &Host, vm: &Vm, table: &Table) -> Result<(), Failed> {
    install_life(host, vm, table)?;
    install_settings(host, vm, table)?;
    install_mocks(host, vm, table)?;
    install_checks(vm, table)
}

/// Which game server this is, and its end.
fn install_life(host: &Host, vm: &Vm, table: &Table) -> Result<(), Failed> {
    table.set("place_id", host.server.place_id() as f64)?;
    table.set("job_id", host.server.job_id())?;
    let server = host.server.clone();
    table.set("is_closing", vm.prompt(move |_, ()| Ok(server.is_closing()))?)?;
    let server = host.server.clone();
    table.set("is_critical", vm.prompt(move |_, ()| Ok(server.is_critical_state()))?)?;

    // Ends all sessions, as the game closes, and waits until they are saved. Their listeners have
    // been called when the thread yields.
    let ending = host.ending.clone();
    table.set(
        "end_all",
        vm.waiting(move |_, ()| {
            let ending = ending.clone();
            let mut ended = Box::pin(async move {
                ending.reached().await;
            });
            let at_once = (&mut ended).now_or_never();
            Ok(async move {
                if at_once.is_none() {
                    ended.await;
                }
                Ok(())
            })
        })?,
    )?;
    // (seconds, function): calls it then, unless the game has ended.
    let scheduler = host.scheduler.clone();
    table.set(
        "call_later",
        vm.prompt(move |_, (seconds, function): (f64, Function)| {
            let wait = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
            if let Some(scheduler) = scheduler.upgrade() {
                scheduler.spawn_later(wait, function);
            }
            Ok(())
        })?,
    )?;
    Ok(())
}

/// The store that it is on, constants, and who is told of errors.
fn install_settings(host: &Host, vm: &Vm, table: &Table) -> Result<(), Failed> {
    // -> "NoInternet" | "NoAccess" | "Access"; waits.
    let server = host.server.clone();
    table.set(
        "access_state",
        vm.waiting(move |_, ()| {
            let server = server.clone();
            Ok(async move {
                Ok(match server.access_state().await {
                    AccessState::Access => "Access",
                    AccessState::NoAccess => "NoAccess",
                    _ => "NoInternet",
                })
            })
        })?,
    )?;

    // (name, value); throws.
    let server = host.server.clone();
    table.set(
        "set_constant",
        vm.prompt(move |_, (name, value): (String, f64)| {
            server.set_constant(&name, value).map_err(|error| error.to_string())
        })?,
    )?;

    // (on_error(message, store, key, scope), on_overwrite(store, key, scope),
    // on_critical(is_critical)): called from now on.
    let own = host.clone();
    table.set(
        "listen",
        vm.prompt(
            move |_, (on_error, on_overwrite, on_critical): (Function, Function, Function)| {
                let (server, host) = (&own.server, own.clone());
                server.on_error(move |message, key| {
                    let (store, scope) = (key.map(ProfileKey::store), key.map(ProfileKey::scope));
                    host.call(&on_error, (message, store, key.map(ProfileKey::key), scope));
                });
                let host = own.clone();
                server.on_overwrite(move |key| {
                    drop(host.call(&on_overwrite, (key.store(), key.key(), key.scope())))
                });
                let host = own.clone();
                server.on_critical_toggle(move |critical| drop(host.call(&on_critical, critical)));
                Ok(())
            },
        )?,
    )?;
    Ok(())
}

/// What mock stores hold.
fn install_mocks(host: &Host, vm: &Vm, table: &Table) -> Result<(), Failed> {
    // (store name, key) -> what a mock holds: { Data = its document, CreatedTime, UpdatedTime,
    // VersionId, UserIds, RobloxMetaData }, or nil
    let server = host.server.clone();
    table.set(
        "mock_entry",
        vm.prompt(move |lua, (store, key): (String, String)| {
            let key = ProfileKey::new(&store, DEFAULT_SCOPE, &key).ok();
            let found = key.and_then(|key| server.mock_document(&key));
            found
                .map(|(document, info)| mock_entry(lua, document.get(), &info))
                .transpose()
                .map_err(|error| error.to_string())
        })?,
    )?;
    // (store name) -> the keys of a mock that hold something
    let server = host.server.clone();
    table.set("mock_keys", vm.prompt(move |_, store: String| Ok(server.mock_keys(&store)))?)?;
    Ok(())
}

/// Whether values can be stored, and what is known of them.
fn install_checks(vm: &Vm, table: &Table) -> Result<(), Failed> {
    // (from, to): what was stored and a table cannot hold is known of `to` as it is of `from`
    table.set(
        "carry_notes",
        vm.prompt(|lua, (from, to): (Table, Table)| {
            json::carry(lua, &from, &to).map_err(|error| error.to_string())
        })?,
    )?;
    // (name, value) -> nil or why it cannot be a message, with the place
    table.set(
        "unstorable",
        vm.prompt(|lua, (name, value): (String, Value)| {
            Ok(json::encode(lua, &name, &value, MESSAGE).err().map(|error| error.to_string()))
        })?,
    )?;
    // (data) -> how many bytes of JSON it is, and how many can be stored; throws when it cannot be
    // stored for another reason
    table.set(
        "size",
        vm.prompt(|lua, data: Value| Ok((raw::size(lua, &data)?, MAX_DATA_BYTES as f64)))?,
    )?;
    // (value) -> nil or what is wrong with it as `RobloxMetaData`
    table.set(
        "bad_metadata",
        vm.prompt(|lua, value: Value| {
            let checked = raw::object(lua, "RobloxMetaData", &value)
                .and_then(|object| check_metadata(&object).map_err(|error| error.to_string()));
            Ok(checked.err())
        })?,
    )?;
    Ok(())
}

fn mock_entry(lua: &Lua, document: &str, info: &KeyInfo) -> mlua::Result<Table> {
    let entry = lua.create_table()?;
    entry.set("Data", json::decode(lua, document).map_err(mlua::Error::RuntimeError)?)?;
    entry.set("CreatedTime", info.created_ms as f64)?;
    entry.set("UpdatedTime", info.updated_ms as f64)?;
    entry.set("VersionId", info.number as f64)?;
    entry.set("UserIds", numbers(lua, &info.user_ids)?)?;
    entry.set("RobloxMetaData", raw::table_of(lua, &info.metadata)?)?;
    Ok(entry)
}
