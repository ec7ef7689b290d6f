//! `task`, and the older `wait`, `spawn` and `delay`.

use std::sync::{Arc, Weak};

use mlua::{Function, Lua, MultiValue, Thread, Value};

use super::{Answer, Failed, OWN_CODE, Scheduler, Vm};

type Weakly = Weak<Scheduler>;

pub(crate) fn install(vm: &Vm) -> Result<(), Failed> {
    let scheduler = || Arc::downgrade(vm.scheduler());
    let task = vm.lua().create_table()?;

    let own = scheduler();
    task.set(
        "spawn",
        vm.prompt(move |lua, (work, args): (Value, MultiValue)| spawn(lua, &own, work, args))?,
    )?;
    let own = scheduler();
    task.set(
        "defer",
        vm.prompt(move |lua, (work, args): (Value, MultiValue)| defer(lua, &own, work, args))?,
    )?;
    let own = scheduler();
    task.set(
        "delay",
        vm.prompt(move |lua, (seconds, work, args): (Option<f64>, Value, MultiValue)| {
            let thread = thread_of(lua, work, "delay")?;
            if let Some(scheduler) = own.upgrade() {
                scheduler.wake_after(thread.clone(), seconds.unwrap_or(0.0), Some(args));
            }
            Ok(thread)
        })?,
    )?;
    task.set(
        "cancel",
        vm.lua()
            .load("local close = coroutine.close return function(thread) close(thread) end")
            .set_name(format!("={OWN_CODE}task"))
            .eval::<Function>()?,
    )?;

    // Waiting is yielding with a note of when to be woken.
    let own = scheduler();
    let note = vm.prompt(move |_, (thread, seconds): (Thread, Option<f64>)| {
        if let Some(scheduler) = own.upgrade() {
            scheduler.wake_after(thread, seconds.unwrap_or(0.0), None);
        }
        Ok(())
    })?;
    let wait: Function = vm
        .lua()
        .load(
            "local note = ...
            local running, yield = coroutine.running, coroutine.yield
            return function(seconds)
                note(running(), seconds)
                return yield()
            end",
        )
        .set_name(format!("={OWN_CODE}task"))
        .call(note)?;
    task.set("wait", wait.clone())?;
    // All threads of a machine run one after another, so there is nothing to change between.
    for name in ["synchronize", "desynchronize"] {
        task.set(name, vm.prompt(|_, ()| Ok(()))?)?;
    }
    task.set_readonly(true);

    let globals = vm.globals();
    globals.set("task", task)?;
    globals.set("wait", wait)?;
    let own = scheduler();
    globals.set(
        "spawn",
        vm.prompt(move |lua, work: Function| {
            defer(lua, &own, Value::Function(work), MultiValue::new()).map(drop)
        })?,
    )?;
    let own = scheduler();
    globals.set(
        "delay",
        vm.prompt(move |lua, (seconds, work): (Option<f64>, Function)| {
            let thread = thread_of(lua, Value::Function(work), "delay")?;
            if let Some(scheduler) = own.upgrade() {
                scheduler.wake_after(thread, seconds.unwrap_or(0.0), Some(MultiValue::new()));
            }
            Ok(())
        })?,
    )?;
    Ok(())
}

fn thread_of(lua: &Lua, work: Value, name: &str) -> Answer<Thread> {
    match work {
        Value::Thread(thread) => Ok(thread),
        Value::Function(function) => lua.create_thread(function).map_err(|error| error.to_string()),
        other => Err(format!(
            "invalid argument to '{name}': a function or a thread is expected, got {}",
            other.type_name()
        )),
    }
}

fn spawn(lua: &Lua, scheduler: &Weakly, work: Value, args: MultiValue) -> Answer<Thread> {
    let thread = thread_of(lua, work, "spawn")?;
    if let Some(scheduler) = scheduler.upgrade() {
        scheduler.resume(&thread, args);
    }
    Ok(thread)
}

fn defer(lua: &Lua, scheduler: &Weakly, work: Value, args: MultiValue) -> Answer<Thread> {
    let thread = thread_of(lua, work, "defer")?;
    if let Some(scheduler) = scheduler.upgrade() {
        scheduler.defer(thread.clone(), args);
    }
    Ok(thread)
}
