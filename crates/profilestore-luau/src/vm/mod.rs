//! One game server's Luau virtual machine: what scripts find in it, and how the host runs them.

mod clocks;
pub(crate) mod coverage;
pub(crate) mod json;
mod limits;
mod print;
mod scheduler;
mod task;

use std::{future::Future, sync::Arc};

use mlua::{
    FromLuaMulti, Function, IntoLuaMulti, Lua, LuaOptions, MultiValue, StdLib, Table, Thread,
    chunk::ChunkMode,
    state::{GcIncParams, GcMode},
};
use profilestore::env::{Env, Rng};

pub use self::limits::Limits;
use self::{limits::Budget, scheduler::answer_values};
pub(crate) use self::{
    print::number_text,
    scheduler::{Answer, OWN_CODE, Scheduler, error_text, next_frame, without_own_code},
};
use crate::output::Output;

/// How large the memory of scripts may become beside what is in use, in percent, before garbage is
/// collected; and how much is collected for each allocation. Players' data stays, so that the
/// default of 200 would nearly double what a session takes.
const GARBAGE: (i32, i32) = (150, 250);

/// A script that could not be run, or machinery that could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failed(String);

impl Failed {
    pub(crate) fn nothing_runs() -> Self {
        Self(
            "no script of this game runs on a server: there is no enabled Script in \
             ServerScriptService or Workspace (in files: NAME.server.luau)"
                .to_owned(),
        )
    }
}

impl From<mlua::Error> for Failed {
    fn from(error: mlua::Error) -> Self {
        Self(error_text(&error))
    }
}

impl From<crate::PlanError> for Failed {
    fn from(error: crate::PlanError) -> Self {
        Self(error.to_string())
    }
}

impl From<profilestore::Error> for Failed {
    fn from(error: profilestore::Error) -> Self {
        Self(whole(&error))
    }
}

/// An error with its causes, but for those that it quotes itself.
pub(crate) fn whole(error: &profilestore::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let own = cause.to_string();
        if !text.ends_with(&own) {
            text = format!("{text}: {own}");
        }
        source = cause.source();
    }
    text
}

/// What a machine is made with.
pub(crate) struct VmOptions {
    /// Counts from 1; for the output.
    pub(crate) server: usize,
    pub(crate) env: Env,
    pub(crate) chance: Arc<dyn Rng>,
    pub(crate) output: Arc<dyn Output>,
    pub(crate) limits: Limits,
}

/// A virtual machine. Dropping it stops all its threads.
pub(crate) struct Vm {
    lua: Lua,
    scheduler: Arc<Scheduler>,
    wrap_prompt: Function,
    wrap_waiting: Function,
}

impl Vm {
    /// A machine with Luau's own libraries, `task`, the clocks and the output, and nothing else of
    /// Roblox.
    pub(crate) fn new(options: VmOptions) -> Result<Self, Failed> {
        // With this option `pcall` stays Luau's own, through which threads can yield.
        let lua = Lua::new_with(StdLib::ALL_SAFE, LuaOptions::new().catch_rust_panics(true))?;
        lua.set_memory_limit(options.limits.memory)?;
        let collector = GcIncParams::default().goal(GARBAGE.0).step_multiplier(GARBAGE.1);
        lua.gc_set_mode(GcMode::Incremental(collector));
        let budget = Arc::new(Budget::new(options.limits));
        budget.watch(&lua);
        json::install_copier(&lua, &budget)?;
        let scheduler = Scheduler::new(&lua, options.server, options.output, budget);
        let host = lua.create_table()?;
        host.set(
            "is_error",
            lua.create_function(|_, value: mlua::Value| {
                Ok(matches!(value, mlua::Value::Error(_)))
            })?,
        )?;
        let (wrap_prompt, wrap_waiting) = lua
            .load(include_str!("threads.luau"))
            .set_name(format!("={OWN_CODE}threads"))
            .call(host)?;
        let vm = Self { lua, scheduler, wrap_prompt, wrap_waiting };
        task::install(&vm)?;
        clocks::install(&vm, &options.env, &*options.chance)?;
        print::install(&vm)?;
        tokio::spawn(vm.scheduler.clone().drive());
        Ok(vm)
    }

    /// Makes what is there read-only, as Roblox has it, and takes away what could reach outside.
    /// Nothing is installed after this.
    pub(crate) fn seal(&self) -> Result<(), Failed> {
        let globals = self.globals();
        // A script's own `require` comes with the script; mlua's reads files.
        globals.set("require", mlua::Nil)?;
        let refuse = |_: &Lua, _: MultiValue| -> Answer<()> {
            Err("loadstring() is not available".to_owned())
        };
        globals.set("loadstring", self.prompt(refuse)?)?;
        self.lua.sandbox(true)?;
        // What a server's scripts share stays writable.
        for shared in ["_G", "shared"] {
            self.lua.globals().set(shared, self.lua.create_table()?)?;
        }
        Ok(())
    }

    pub(crate) fn lua(&self) -> &Lua {
        &self.lua
    }

    pub(crate) fn scheduler(&self) -> &Arc<Scheduler> {
        &self.scheduler
    }

    pub(crate) fn globals(&self) -> Table {
        self.lua.globals()
    }

    /// A function for scripts that answers at once. Its errors are texts that scripts can catch.
    pub(crate) fn prompt<A, R, F>(&self, function: F) -> Result<Function, Failed>
    where
        A: FromLuaMulti,
        R: IntoLuaMulti,
        F: Fn(&Lua, A) -> Answer<R> + Send + 'static,
    {
        let native = self.lua.create_function(move |lua, args: MultiValue| {
            let answer = A::from_lua_multi(args, lua)
                .map_err(|error| error_text(&error))
                .and_then(|args| function(lua, args));
            answer_values(lua, answer)
        })?;
        Ok(self.wrap_prompt.call(native)?)
    }

    /// A function for scripts that answers later; the calling thread yields until then. `function`
    /// itself runs at once, so calls begin in the order in which they were made.
    pub(crate) fn waiting<A, R, W, F>(&self, function: F) -> Result<Function, Failed>
    where
        A: FromLuaMulti,
        R: IntoLuaMulti + Send + 'static,
        W: Future<Output = Answer<R>> + Send + 'static,
        F: Fn(&Lua, A) -> Answer<W> + Send + 'static,
    {
        let scheduler = Arc::downgrade(&self.scheduler);
        let native =
            self.lua.create_function(move |lua, (thread, args): (Thread, MultiValue)| {
                let work = A::from_lua_multi(args, lua)
                    .map_err(|error| error_text(&error))
                    .and_then(|args| function(lua, args));
                let begun = work.map(|work| {
                    if let Some(scheduler) = scheduler.upgrade() {
                        scheduler.answer_later(thread, work);
                    }
                });
                answer_values(lua, begun)
            })?;
        Ok(self.wrap_waiting.call(native)?)
    }

    /// Runs a script in a thread of its own, with `globals` as its environment's upper layer. It
    /// has waited or ended when this returns.
    pub(crate) fn run(
        &self,
        name: &str,
        source: &str,
        extra: &Table,
    ) -> Result<Option<Thread>, Failed> {
        let function = self.load(name, source, extra)?;
        Ok(self.scheduler.spawn(function, ()))
    }

    /// Compiles a script. What it sets as globals is its own; it sees `extra` and the machine's
    /// globals.
    pub(crate) fn load(&self, name: &str, source: &str, extra: &Table) -> Result<Function, Failed> {
        Ok(Self::load_in(&self.lua, name, source, extra)?)
    }

    /// The same, from within a function of the host. What is compiled is a text, never bytecode,
    /// which could do anything.
    pub(crate) fn load_in(
        lua: &Lua,
        name: &str,
        source: &str,
        extra: &Table,
    ) -> mlua::Result<Function> {
        let environment = lua.create_table()?;
        for pair in extra.pairs::<mlua::Value, mlua::Value>() {
            let (key, value) = pair?;
            environment.raw_set(key, value)?;
        }
        let upper = lua.create_table()?;
        upper.set("__index", lua.globals())?;
        upper.set("__metatable", "The metatable is locked")?;
        environment.set_metatable(Some(upper))?;
        let chunk = lua.load(source).set_name(format!("={name}")).set_mode(ChunkMode::Text);
        let chunk = chunk.set_environment(environment);
        let Some(compiler) = coverage::compiler(lua, name) else { return chunk.into_function() };
        let function = chunk.set_compiler(compiler).into_function()?;
        coverage::note(lua, name, &function);
        Ok(function)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.scheduler.close();
    }
}
