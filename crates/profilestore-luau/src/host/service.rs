//! What concerns this game server as a whole.

use mlua::{Function, Table, Value};
use profilestore::AccessState;

use super::{Host, raw};
use crate::vm::{Failed, Vm, json};

pub(crate) fn install(host: &Host, vm: &Vm, table: &Table) -> Result<(), Failed> {
    table.set("place_id", host.server.place_id() as f64)?;
    table.set("job_id", host.server.job_id())?;
    let server = host.server.clone();
    table.set("is_closing", vm.prompt(move |_, ()| Ok(server.is_closing()))?)?;
    let server = host.server.clone();
    table.set("is_critical", vm.prompt(move |_, ()| Ok(server.is_critical_state()))?)?;

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
        vm.prompt(move |_, (name, value): (String, f64)| server.set_constant(&name, value).map_err(|error| error.to_string()))?,
    )?;

    // (on_error(message, store, key), on_overwrite(store, key), on_critical(is_critical)): called from now on.
    let own = host.clone();
    table.set(
        "listen",
        vm.prompt(move |_, (on_error, on_overwrite, on_critical): (Function, Function, Function)| {
            let (server, host) = (&own.server, own.clone());
            server.on_error(move |message, key| {
                let (store, key) = key.map_or((None, None), |key| (Some(key.store()), Some(key.key())));
                host.call(&on_error, (message, store, key));
            });
            let host = own.clone();
            server.on_overwrite(move |key| drop(host.call(&on_overwrite, (key.store(), key.key()))));
            let host = own.clone();
            server.on_critical_toggle(move |critical| drop(host.call(&on_critical, critical)));
            Ok(())
        })?,
    )?;

    // (name, value) -> nil or what cannot be stored, with its path
    table.set(
        "unstorable",
        vm.prompt(|_, (name, value): (String, Value)| Ok(json::encode(&name, &value).err().map(|error| error.to_string())))?,
    )?;
    // (value) -> nil or what is wrong with it as `RobloxMetaData`
    table.set(
        "bad_metadata",
        vm.prompt(|_, value: Value| {
            let checked = raw::object("RobloxMetaData", &value)
                .and_then(|object| profilestore::record::check_metadata(&object).map_err(|error| error.to_string()));
            Ok(checked.err())
        })?,
    )?;
    Ok(())
}
