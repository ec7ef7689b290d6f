//! Roblox's globals and services, as scripts on one game server find them.
//!
//! What they look like is written in Luau (`*.luau` beside this file), over a few functions of the
//! host. What is not there gives an error that names it. What the servers of a game share is in
//! [`world`].

mod asked;
mod bans;
mod data_store;
mod http;
mod memory;
mod messages;
mod ordered;
pub(crate) mod players;
mod proxies;
mod purchases;
mod random;
mod reserved;
mod specs;
mod tree;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mlua::{Function, Lua, LuaString, Table, Value};
use profilestore::{env::Env, roblox::RobloxDataStores};
use tokio::sync::Notify;

use self::asked::Frames;
pub(crate) use self::{
    messages::reach_foreign_holders,
    world::{World, WorldOptions},
};
use crate::{
    game::Script,
    http::Client,
    modules,
    project::Tree,
    specs::Collector,
    vm::{Answer, Failed, OWN_CODE, Vm, json},
};

/// The parts, in the order in which they build on each other.
const PARTS: [(&str, &str); 32] = [
    ("shown", include_str!("shown.luau")),
    ("signals", include_str!("signals.luau")),
    ("enums", include_str!("enums.luau")),
    ("data_types", include_str!("data_types.luau")),
    ("brick_color", include_str!("brick_color.luau")),
    ("spaces", include_str!("spaces.luau")),
    ("sequences", include_str!("sequences.luau")),
    ("queries", include_str!("queries.luau")),
    ("instances", include_str!("instances.luau")),
    ("classes", include_str!("classes.luau")),
    ("engine", include_str!("engine.luau")),
    ("bodies", include_str!("bodies.luau")),
    ("instance_members", include_str!("instance_members.luau")),
    ("data_model", include_str!("data_model.luau")),
    ("values", include_str!("values.luau")),
    ("bindables", include_str!("bindables.luau")),
    ("tags", include_str!("tags.luau")),
    ("debug", include_str!("debug.luau")),
    ("date_time", include_str!("date_time.luau")),
    ("modules", include_str!("modules.luau")),
    ("run_service", include_str!("run_service.luau")),
    ("http_service", include_str!("http_service.luau")),
    ("players", include_str!("players.luau")),
    ("clients", include_str!("clients.luau")),
    ("market", include_str!("market.luau")),
    ("teleport", include_str!("teleport.luau")),
    ("messages", include_str!("messages.luau")),
    ("data_store", include_str!("data_store.luau")),
    ("ordered_data_store", include_str!("ordered_data_store.luau")),
    ("memory_store", include_str!("memory_store.luau")),
    ("small_services", include_str!("small_services.luau")),
    ("tree", include_str!("tree.luau")),
];

/// What a server's services are made with.
pub(crate) struct ServicesOptions {
    /// The server's place in the world.
    pub(crate) server: usize,
    pub(crate) env: Env,
    pub(crate) world: Arc<World>,
    pub(crate) data_stores: RobloxDataStores,
    /// What built-in modules are called with.
    pub(crate) built_in: Table,
    /// The modules in ServerScriptService that are not built in: name and source.
    pub(crate) mounted: Arc<BTreeMap<String, String>>,
    /// The game's instances.
    pub(crate) tree: Option<Arc<Tree>>,
    /// Who takes what tests report, when a file of tests is run.
    pub(crate) specs: Option<Arc<Collector>>,
    /// What each player's client runs.
    pub(crate) client: Option<Arc<Script>>,
    /// What scripts reach hosts by.
    pub(crate) http: Option<Arc<Client>>,
}

/// How long the functions that are bound to the closing of the game may take.
const CLOSING: Duration = Duration::from_secs(30);

/// A server's services.
pub(crate) struct Services {
    /// What the Luau parts share.
    own: Table,
    closed: Arc<Notify>,
}

impl Services {
    /// Puts the globals and services into a machine and makes them known to the world.
    pub(crate) fn install(vm: &Vm, options: ServicesOptions) -> Result<Self, Failed> {
        let lua = vm.lua();
        let ServicesOptions {
            server,
            env,
            world,
            data_stores,
            built_in,
            mounted,
            tree,
            specs,
            client,
            http,
        } = options;
        let host = lua.create_table()?;
        host.set("place_id", world.place_id())?;
        host.set("job_id", world.job_id(server))?;
        host.set("private_server_id", world.private_id(server))?;
        host.set("kind", vm.prompt(proxies::kind)?)?;
        host.set("enums", include_str!("enums.txt"))?;
        host.set("classes", crate::classes::LIST)?;
        host.set("brick_colors", include_str!("brick_colors.txt"))?;
        random::install(vm, &host, world.chance.clone())?;
        install_basics(vm, &host, &env)?;
        install_require(vm, &host, built_in, mounted.clone(), tree.clone())?;
        install_client(vm, &host, client)?;
        http::install(vm, &host, http.as_ref())?;
        tree::install(vm, &host, tree.as_ref())?;
        world::install(vm, &host, &world, server)?;
        let frames = Frames::new(vm, specs.as_ref());
        data_store::install(vm, &host, &data_stores, &world, server, &frames)?;
        ordered::install(vm, &host, &data_stores, &world, server, &frames)?;

        let mut parts = PARTS.to_vec();
        if let Some(collector) = &specs {
            specs::install(vm, &host, collector, &world, server)?;
            parts.extend(specs::PARTS);
        }
        let closed = Arc::new(Notify::new());
        let own = closed.clone();
        let is_closed = move |_: &Lua, ()| {
            own.notify_one();
            Ok(())
        };
        host.set("closed", vm.prompt(is_closed)?)?;

        let own = lua.create_table()?;
        own.set("events", lua.create_table()?)?;
        for (name, source) in parts {
            lua.load(source).set_name(format!("={OWN_CODE}{name}")).call::<()>((&host, &own))?;
        }
        let globals = vm.globals();
        for name in ["Enum", "Instance", "DateTime", "game"] {
            globals.set(name, own.get::<Value>(name)?)?;
        }
        for pair in own.get::<Table>("data_types")?.pairs::<String, Value>() {
            let (name, constructors) = pair?;
            globals.set(name, constructors)?;
        }
        globals.set("Game", own.get::<Value>("game")?)?;
        let workspace: Value = own.get::<Function>("get_service")?.call("Workspace")?;
        globals.set("workspace", workspace.clone())?;
        globals.set("Workspace", workspace)?;
        let names: BTreeSet<&str> =
            modules::NAMES.into_iter().chain(mounted.keys().map(String::as_str)).collect();
        for name in names {
            own.get::<Function>("add_module")?.call::<()>(name)?;
        }
        world.attach(server, own.get("events")?, vm.scheduler());
        Ok(Self { own, closed })
    }

    /// The scripts of the game's tree that run, each by what its text is found by, with what it is
    /// run with.
    pub(crate) fn scripts(&self, lua: &Lua) -> Result<Vec<(String, Table)>, Failed> {
        let scripts: Vec<Value> = self.own.get::<Function>("scripts")?.call(())?;
        let source_of: Function = self.own.get("source_of")?;
        let require_for: Function = self.own.get("require_for")?;
        let mut found = Vec::new();
        for script in scripts {
            let globals = globals_of(lua, &script, require_for.call(&script)?)?;
            found.push((source_of.call(&script)?, globals));
        }
        Ok(found)
    }

    /// What there is of each class: its name, methods, events, properties, and what is there in
    /// name only.
    pub(crate) fn describe(&self) -> Result<Vec<[Vec<String>; 5]>, Failed> {
        Ok(self.own.get::<Function>("describe")?.call(())?)
    }

    /// Begins to run a file's tests; each may take so many seconds.
    pub(crate) fn run_spec(&self, vm: &Vm, file: &str, seconds: f64) -> Result<(), Failed> {
        vm.scheduler().spawn(self.own.get("run_spec")?, (file, seconds));
        Ok(())
    }

    /// Stops the test that runs, or what runs around it, which fails for this reason.
    pub(crate) fn stop_test(&self, vm: &Vm, reason: &str) -> Result<(), Failed> {
        vm.scheduler().spawn(self.own.get("stop_test")?, reason);
        Ok(())
    }

    /// What a script is run with: `script` and `require`.
    pub(crate) fn script_globals(&self, lua: &Lua, name: &str) -> Result<Table, Failed> {
        let script: Value = self.own.get::<Function>("add_script")?.call(name)?;
        Ok(globals_of(lua, &script, self.own.get::<Function>("require_for")?.call(&script)?)?)
    }

    /// Runs the functions that are bound to the closing of the game, and lets everybody leave.
    /// Waits until the functions have ended, as long as Roblox would. False when some have not.
    /// `nothing_left`: the game closes because there was nothing left to be done.
    pub(crate) async fn close(
        &self,
        vm: &Vm,
        nothing_left: bool,
        leave: impl FnOnce(),
    ) -> Result<bool, Failed> {
        vm.scheduler().spawn(self.own.get("close")?, nothing_left);
        leave();
        Ok(tokio::time::timeout(CLOSING, self.closed.notified()).await.is_ok())
    }
}

fn globals_of(lua: &Lua, script: &Value, require: Function) -> mlua::Result<Table> {
    let globals = lua.create_table()?;
    globals.set("script", script)?;
    globals.set("require", require)?;
    Ok(globals)
}

fn install_basics(vm: &Vm, host: &Table, env: &Env) -> Result<(), Failed> {
    let own = env.clone();
    host.set("unix_ms", vm.prompt(move |_, ()| Ok(own.unix_ms() as f64))?)?;
    let own = env.clone();
    host.set("guid", vm.prompt(move |_, ()| Ok(guid(&own)))?)?;
    let encode = |_: &Lua, value: Value| {
        json::encode_seen("value", &value).map_err(|unstorable| unstorable.to_string())
    };
    host.set("json_encode", vm.prompt(encode)?)?;
    let encode = |_: &Lua, value: Value| {
        json::encode_as_roblox("value", &value).map_err(|unstorable| unstorable.to_string())
    };
    host.set("json_encode_as_roblox", vm.prompt(encode)?)?;
    let decode = |lua: &Lua, text: LuaString| {
        let wrong = |error: &dyn std::fmt::Display| format!("Can't parse JSON: {error}");
        let bytes = text.as_bytes();
        let text = std::str::from_utf8(&bytes).map_err(|error| wrong(&error))?;
        json::decode(lua, text).map_err(|error| wrong(&error))
    };
    host.set("json_decode", vm.prompt(decode)?)?;
    let scheduler = Arc::downgrade(vm.scheduler());
    // What a script throws may hold any bytes.
    let report = move |_: &Lua, text: LuaString| {
        if let Some(scheduler) = scheduler.upgrade() {
            scheduler.report_text(&text.to_string_lossy());
        }
        Ok(())
    };
    host.set("report", vm.prompt(report)?)?;
    let scheduler = Arc::downgrade(vm.scheduler());
    let later = move |_: &Lua, (seconds, function): (f64, Function)| {
        // What is never to happen need not wait for it.
        let Ok(wait) = Duration::try_from_secs_f64(seconds.max(0.0)) else { return Ok(()) };
        if let Some(scheduler) = scheduler.upgrade() {
            scheduler.spawn_later(wait, function);
        }
        Ok(())
    };
    host.set("call_later", vm.prompt(later)?)?;
    let scheduler = Arc::downgrade(vm.scheduler());
    let listen = move |_: &Lua, listener: Option<Function>| {
        if let Some(scheduler) = scheduler.upgrade() {
            scheduler.listen_to_frames(listener);
        }
        Ok(())
    };
    host.set("listen_to_frames", vm.prompt(listen)?)?;
    let analytics = |_: &Lua, (category, value): (String, String)| {
        tracing::info!(category, value, "analytics event");
        Ok(())
    };
    host.set("analytics", vm.prompt(analytics)?)?;
    Ok(())
}

/// A version 4 UUID as Roblox writes them.
fn guid(env: &Env) -> String {
    const VARIANT: u128 = 0b11 << 62;
    const VERSION: u128 = 0xf << 76;
    // Of two identifiers that begin with their time, the random parts.
    let [a, b] = [(); 2].map(|()| env.uuid().as_u128());
    let bits = (a << 64) | (b & 0xffff_ffff_ffff_ffff);
    let random = bits ^ (b << 96);
    let bits = (random & !VARIANT & !VERSION) | (0b10 << 62) | (0x4 << 76);
    uuid_text(bits)
}

fn uuid_text(bits: u128) -> String {
    let hex = format!("{bits:032X}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Loads the script that each player's client runs, if there is one.
fn install_client(vm: &Vm, host: &Table, client: Option<Arc<Script>>) -> Result<(), Failed> {
    let Some(client) = client else { return Ok(()) };
    let load = move |lua: &Lua, (script, require, more): (Value, Function, Table)| {
        let loaded = || {
            let globals = globals_of(lua, &script, require)?;
            add_globals(&globals, &more)?;
            Vm::load_in(lua, &client.name, &client.source, &globals)
        };
        loaded().map_err(|error| crate::vm::error_text(&error))
    };
    host.set("client", vm.prompt(load)?)?;
    Ok(())
}

fn add_globals(globals: &Table, more: &Table) -> mlua::Result<()> {
    for pair in more.pairs::<String, Value>() {
        let (name, value) = pair?;
        globals.set(name, value)?;
    }
    Ok(())
}

/// A module that is to be loaded: its name, itself, its `require`, and what it finds besides.
type Loaded = (String, Value, Function, Option<Table>);

fn install_require(
    vm: &Vm,
    host: &Table,
    built_in: Table,
    mounted: Arc<BTreeMap<String, String>>,
    tree: Option<Arc<Tree>>,
) -> Result<(), Failed> {
    let load = move |lua: &Lua, (name, script, require, more): Loaded| -> Answer<Function> {
        let loaded = || {
            let globals = globals_of(lua, &script, require)?;
            if let Some(more) = more {
                add_globals(&globals, &more)?;
            }
            let in_tree = tree.as_ref().and_then(|tree| tree.sources.get(&name));
            if let Some(source) = in_tree.or_else(|| mounted.get(&name)) {
                return Vm::load_in(lua, &name, source, &globals);
            }
            match modules::source(&name) {
                Some(source) => Vm::load_in(lua, &name, source, &globals)?.bind(&built_in),
                None => Err(mlua::Error::runtime(format!("there is no module {name}"))),
            }
        };
        loaded().map_err(|error| crate::vm::error_text(&error))
    };
    host.set("load_module", vm.prompt(load)?)?;
    Ok(())
}
