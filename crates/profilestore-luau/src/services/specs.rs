//! What the tests of a file tell the host.

use std::sync::Arc;

use mlua::{Lua, LuaString, Table};

use super::world::{Join, World};
use crate::{
    specs::Collector,
    vm::{Failed, Vm, without_own_code},
};

/// The parts that machines have which run tests.
pub(super) const PARTS: [(&str, &str); 2] =
    [("expect", include_str!("expect.luau")), ("specs", include_str!("specs.luau"))];

/// Names of tests may hold any bytes.
fn texts(path: &[LuaString]) -> Vec<String> {
    path.iter().map(LuaString::to_string_lossy).collect()
}

pub(super) fn install(
    vm: &Vm,
    host: &Table,
    collector: &Arc<Collector>,
    world: &Arc<World>,
    server: usize,
) -> Result<(), Failed> {
    host.set("tests", true)?;
    if server == 0 {
        collector.follow(vm.scheduler().test_of_thread());
    }
    let scheduler = Arc::downgrade(vm.scheduler());
    let goes_on =
        move |_: &Lua, ()| Ok(scheduler.upgrade().is_some_and(|scheduler| scheduler.goes_on()));
    host.set("goes_on", vm.prompt(goes_on)?)?;
    let own = collector.clone();
    let began = move |_: &Lua, path: Vec<LuaString>| {
        own.began(texts(&path));
        Ok(())
    };
    host.set("test_began", vm.prompt(began)?)?;
    let own = collector.clone();
    let ended = move |_: &Lua, (problem, stopped): (Option<LuaString>, Option<bool>)| {
        let problem = problem.map(|problem| without_own_code(&problem.to_string_lossy()));
        own.ended(problem, stopped.unwrap_or(false));
        Ok(())
    };
    host.set("test_ended", vm.prompt(ended)?)?;
    let own = collector.clone();
    let skipped = move |_: &Lua, path: Vec<LuaString>| {
        own.skipped(texts(&path));
        Ok(())
    };
    host.set("test_skipped", vm.prompt(skipped)?)?;
    let own = collector.clone();
    let wanted = move |_: &Lua, path: Vec<LuaString>| Ok(own.is_wanted(&texts(&path)));
    host.set("test_wanted", vm.prompt(wanted)?)?;
    let own = collector.clone();
    let afterwards = move |_: &Lua, ()| {
        own.goes_on();
        Ok(())
    };
    host.set("tests_afterwards", vm.prompt(afterwards)?)?;
    let own = collector.clone();
    let done = move |_: &Lua, ()| {
        own.all_ended();
        Ok(())
    };
    host.set("tests_done", vm.prompt(done)?)?;
    let own = world.clone();
    let join = move |_: &Lua, user_id: i64| {
        own.join(server, user_id, &Join::default());
        Ok(())
    };
    host.set("join", vm.prompt(join)?)?;
    let own = world.clone();
    let has_joined = move |_: &Lua, user_id: i64| Ok(own.has_joined(user_id));
    host.set("has_joined", vm.prompt(has_joined)?)?;
    Ok(())
}
