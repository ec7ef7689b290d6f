//! The modules that scripts `require`: our own Luau over the host's functions.

use std::sync::Arc;

use mlua::{Function, Table};

use crate::{
    host::{Ending, Host},
    vm::{Failed, OWN_CODE, Vm},
};

/// The built-in modules.
pub(crate) const NAMES: [&str; 2] = ["ProfileStore", "ProfileService"];

/// The text of a built-in module.
pub(crate) fn source(name: &str) -> Option<&'static str> {
    match name {
        "ProfileStore" => Some(include_str!("profile_store.luau")),
        "ProfileService" => Some(include_str!("profile_service.luau")),
        _ => None,
    }
}

/// What the modules are made of besides, in the order in which they build on each other: each gets
/// the host with those before it.
const PARTS: [(&str, &str); 11] = [
    ("Signal", include_str!("signal.luau")),
    ("tables", include_str!("tables.luau")),
    ("calls", include_str!("calls.luau")),
    ("hearing", include_str!("hearing.luau")),
    ("mocks", include_str!("mocks.luau")),
    ("store_module", include_str!("store_module.luau")),
    ("store_messages", include_str!("store_messages.luau")),
    ("store_profiles", include_str!("store_profile.luau")),
    ("service", include_str!("service.luau")),
    ("GlobalUpdates", include_str!("global_updates.luau")),
    ("profiles", include_str!("service_profile.luau")),
];

/// Prepares a machine for the built-in modules. The table is what their chunks get as their first
/// argument: the functions of [`crate::host`], and the parts that they share.
pub(crate) fn install(vm: &Vm, ending: Arc<Ending>) -> Result<Table, Failed> {
    let host = Host::new(vm, ending).table(vm)?;
    for (name, source) in PARTS {
        let part: Function =
            vm.load(&format!("{OWN_CODE}{name}"), source, &vm.lua().create_table()?)?;
        host.set(name, part.call::<Table>(&host)?)?;
    }
    Ok(host)
}
