//! The clocks that scripts see, all of them the injected one, so that virtual time is all there is.

use std::{sync::Arc, time::Duration};

use mlua::{Function, Table};
use profilestore::env::{Env, Rng};

use super::{Failed, OWN_CODE, Vm};

/// What `os.clock` shows when a server begins. ProfileService's queue counts on a server being some
/// seconds old.
const AGE: Duration = Duration::from_secs(10);

pub(crate) fn install(vm: &Vm, env: &Env, chance: &dyn Rng) -> Result<(), Failed> {
    let globals = vm.globals();
    let os: Table = globals.get("os")?;

    let scheduler = Arc::downgrade(vm.scheduler());
    let clock = vm.prompt(move |_, ()| {
        Ok(scheduler.upgrade().map_or(AGE, |own| AGE + own.age()).as_secs_f64())
    })?;
    os.set("clock", clock.clone())?;
    globals.set("time", clock.clone())?;
    globals.set("elapsedTime", clock)?;

    let own = env.clone();
    let unix = vm.prompt(move |_, ()| Ok(own.unix_ms() as f64 / 1000.0))?;
    globals.set("tick", unix.clone())?;
    // With a table `os.time` is a conversion and no clock; `os.date` without a time means now.
    let (time, date): (Function, Function) = vm
        .lua()
        .load(
            "local unix, convert, format = ...
            local function now()
                return math.floor(unix())
            end
            return function(fields)
                if fields == nil then
                    return now()
                end
                return convert(fields)
            end, function(text, at)
                return format(text, at or now())
            end",
        )
        .set_name(format!("={OWN_CODE}os"))
        .call((unix, os.get::<Function>("time")?, os.get::<Function>("date")?))?;
    os.set("time", time)?;
    os.set("date", date)?;

    let seed = (chance.bits() & 0x7fff_ffff) as f64;
    globals.get::<Table>("math")?.get::<Function>("randomseed")?.call::<()>(seed)?;
    Ok(())
}
