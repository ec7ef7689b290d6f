//! The modules that scripts `require`: our own Luau over the host's functions.

use mlua::{Function, Lua, MultiValue, Table, Value};
use profilestore::GameServer;

use crate::{
    host::Host,
    vm::{Failed, Vm},
};

/// The text of a built-in module.
pub(crate) fn source(name: &str) -> Option<&'static str> {
    match name {
        "ProfileStore" => Some(include_str!("profile_store.luau")),
        _ => None,
    }
}

/// A module's function, to be called with what [`install`] gives.
fn load(vm: &Vm, name: &str) -> Result<Option<Function>, Failed> {
    source(name).map(|source| vm.load(name, source, &vm.lua().create_table()?)).transpose()
}

/// `require` by a module's name, until there are module scripts to be required.
pub(crate) fn install_require(vm: &Vm, server: GameServer) -> Result<(), Failed> {
    let host = install(vm, server)?;
    let modules = vm.lua().create_table()?;
    for name in ["ProfileStore"] {
        if let Some(module) = load(vm, name)? {
            modules.set(name, module)?;
        }
    }
    let loaded = vm.lua().create_table()?;
    let require = vm.prompt(move |_: &Lua, name: String| {
        let text = |error: mlua::Error| error.to_string();
        let before: Value = loaded.get(name.as_str()).map_err(text)?;
        if !before.is_nil() {
            return Ok(before);
        }
        let module: Option<Function> = modules.get(name.as_str()).map_err(text)?;
        let module = module.ok_or_else(|| format!("there is no module of this name: {name}"))?;
        let module: MultiValue = module.call(&host).map_err(text)?;
        let module = module.into_iter().next().unwrap_or(Value::Nil);
        loaded.set(name, &module).map_err(text)?;
        Ok(module)
    })?;
    vm.globals().set("require", require)?;
    Ok(())
}

/// Prepares a machine for the built-in modules. The table is what their chunks get as their first argument: the functions of
/// [`crate::host`], and `Signal`, the signals that both modules have.
pub(crate) fn install(vm: &Vm, server: GameServer) -> Result<Table, Failed> {
    let host = Host::new(vm, server).table(vm)?;
    let signal: Function = vm.load("Signal", include_str!("signal.luau"), &vm.lua().create_table()?)?;
    host.set("Signal", signal.call::<Table>(())?)?;
    Ok(host)
}
