//! The modules that scripts `require`: our own Luau over the host's functions.

use mlua::{Function, Table};
use profilestore::GameServer;

use crate::{
    host::Host,
    vm::{Failed, Vm},
};

/// The built-in modules.
pub(crate) const NAMES: [&str; 1] = ["ProfileStore"];

/// The text of a built-in module.
pub(crate) fn source(name: &str) -> Option<&'static str> {
    match name {
        "ProfileStore" => Some(include_str!("profile_store.luau")),
        _ => None,
    }
}

/// Prepares a machine for the built-in modules. The table is what their chunks get as their first argument: the functions of
/// [`crate::host`], and `Signal`, the signals that both modules have.
pub(crate) fn install(vm: &Vm, server: GameServer) -> Result<Table, Failed> {
    let host = Host::new(vm, server).table(vm)?;
    let signal: Function = vm.load("Signal", include_str!("signal.luau"), &vm.lua().create_table()?)?;
    host.set("Signal", signal.call::<Table>(())?)?;
    Ok(host)
}
