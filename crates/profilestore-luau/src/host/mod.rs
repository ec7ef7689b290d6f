//! What the Luau modules are built on: narrow functions over stores, sessions, views and messages.
//!
//! The modules' own surface is written in Luau. What they need of the engine is a table of
//! functions, the `host`. Its functions take and give opaque values (a store, a session, a view, a
//! query) and plain Luau values. A function that can fail for a reason that the modules deal with
//! answers `nil, kind, message`, with the names of [`profilestore::ErrorKind`]; it throws where the
//! call itself is wrong.
//!
//! The data of a live profile is a Luau table that belongs to the script. The engine's copy is the
//! JSON of what was handed over last (see [`profilestore::keeper::Keeper`]).

mod info;
mod raw;
mod service;
mod session;
mod store;
mod view;

use std::sync::{Arc, Weak};

use mlua::{Function, IntoLua, IntoLuaMulti, Lua, MultiValue, Table, Value};
use profilestore::{Error, GameServer};

pub(crate) use self::info::LuaKeyInfo;
use crate::vm::{Failed, Scheduler, Vm, whole};

/// The end of a game server's sessions, which the modules begin when the game closes, and the game
/// when they have not.
pub(crate) struct Ending {
    server: GameServer,
    not_saved: tokio::sync::OnceCell<Vec<String>>,
}

impl Ending {
    pub(crate) fn new(server: GameServer) -> Arc<Self> {
        Arc::new(Self { server, not_saved: tokio::sync::OnceCell::new() })
    }

    /// Ends everything and waits until it is saved; gives what could not be, as texts.
    pub(crate) async fn reached(&self) -> &[String] {
        let end = || async {
            let shutdown = self.server.shutdown().await;
            shutdown.not_saved.iter().map(|(key, error)| format!("{key}: {error}")).collect()
        };
        self.not_saved.get_or_init(end).await
    }
}

/// What all functions of one machine's host share.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) server: GameServer,
    ending: Arc<Ending>,
    scheduler: Weak<Scheduler>,
}

impl Host {
    pub(crate) fn new(vm: &Vm, ending: Arc<Ending>) -> Self {
        Self { server: ending.server.clone(), ending, scheduler: Arc::downgrade(vm.scheduler()) }
    }

    /// The table that modules get.
    pub(crate) fn table(&self, vm: &Vm) -> Result<Table, Failed> {
        let table = vm.lua().create_table()?;
        service::install(self, vm, &table)?;
        store::install(self, vm, &table)?;
        session::install(self, vm, &table)?;
        view::install(vm, &table)?;
        Ok(table)
    }

    /// Calls a function of a module that must not wait, in a thread of its own. An error was
    /// reported when this answers None.
    fn call(&self, function: &Function, args: impl IntoLuaMulti) -> Option<MultiValue> {
        let scheduler = self.scheduler.upgrade()?;
        match scheduler.call_own(function, args) {
            Ok(values) => Some(values),
            Err(error) => {
                scheduler.report(&error);
                None
            }
        }
    }
}

/// What an engine's call came to, as modules take it.
pub(crate) struct Told<T>(pub(crate) Result<T, Error>);

impl<T: IntoLua> IntoLuaMulti for Told<T> {
    fn into_lua_multi(self, lua: &Lua) -> mlua::Result<MultiValue> {
        match self.0 {
            Ok(value) => value.into_lua_multi(lua),
            Err(error) => {
                (Value::Nil, format!("{:?}", error.kind()), whole(&error)).into_lua_multi(lua)
            }
        }
    }
}
