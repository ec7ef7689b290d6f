//! `print` and `warn`.

use std::sync::Arc;

use mlua::{Function, MultiValue, Value};

use super::{Failed, Vm};
use crate::output::Line;

pub(crate) fn install(vm: &Vm) -> Result<(), Failed> {
    for (name, kind) in [("print", Line::Print), ("warn", Line::Warn)] {
        let scheduler = Arc::downgrade(vm.scheduler());
        let function: Function = vm.prompt(move |_, values: MultiValue| {
            let mut text = String::new();
            for (n, value) in values.iter().enumerate() {
                if n > 0 {
                    text.push(' ');
                }
                match value {
                    // A text may have any bytes.
                    Value::String(bytes) => text.push_str(&bytes.to_string_lossy()),
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
