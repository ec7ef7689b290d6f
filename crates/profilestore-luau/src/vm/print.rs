//! `print` and `warn`.

use std::sync::Arc;

use mlua::{Function, Lua, MultiValue, Value};

use super::{Answer, Failed, Vm};
use crate::output::Line;

pub(crate) fn install(vm: &Vm) -> Result<(), Failed> {
    for (name, kind) in [("print", Line::Print), ("warn", Line::Warn)] {
        let scheduler = Arc::downgrade(vm.scheduler());
        let function: Function = vm.prompt(move |lua, values: MultiValue| {
            let mut text = String::new();
            for (n, value) in values.iter().enumerate() {
                if n > 0 {
                    text.push(' ');
                }
                match value {
                    // A text may have any bytes.
                    Value::String(bytes) => text.push_str(&bytes.to_string_lossy()),
                    Value::Number(_) => text.push_str(&number_text(lua, value)?),
                    other => text.push_str(&other.to_string().map_err(|error| error.to_string())?),
                }
            }
            if let Some(scheduler) = scheduler.upgrade() {
                scheduler.line(kind, &text);
            }
            Ok(())
        })?;
        vm.globals().set(name, function)?;
    }
    Ok(())
}

/// A number as Luau writes it, such as `1e+300` or `nan`.
pub(crate) fn number_text(lua: &Lua, number: &Value) -> Answer<String> {
    let text = lua.coerce_string(number.clone()).map_err(|error| error.to_string())?;
    Ok(text.map(|text| text.to_string_lossy()).unwrap_or_default())
}
