//! Which keys of a table are the positions of a list.

use mlua::{Table, Value};

/// True when the keys of a table are the positions from 1 to `length`, and come in this order.
pub(super) fn has_positions_only(table: &Table, length: usize) -> bool {
    let mut last = 0;
    // What is there is not looked at: as a boolean it comes without a reference.
    let walked = table.for_each(|key: Value, _: bool| {
        last += 1;
        match key {
            Value::Integer(position) if position == last => Ok(()),
            _ => Err(mlua::Error::RuntimeError(String::new())),
        }
    });
    walked.is_ok() && usize::try_from(last) == Ok(length)
}

/// The numbers among the keys of a table.
#[derive(Default)]
pub(super) struct Positions {
    pub(super) count: usize,
    /// The largest position.
    pub(super) last: usize,
    /// Some are no positions of a list.
    pub(super) odd: bool,
}

impl Positions {
    pub(super) fn add(&mut self, position: f64) {
        self.count += 1;
        if position.fract() == 0.0 && (1.0..9e15).contains(&position) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is whole and within the range"
            )]
            let position = position as usize;
            self.last = self.last.max(position);
        } else {
            self.odd = true;
        }
    }
}
