//! Whether a thread is in the middle of an edit: an edit from inside an edit is refused.

use std::cell::Cell;

use crate::{
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
};

thread_local! {
    /// True while this thread runs an edit.
    static EDITING: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn is_editing() -> bool {
    EDITING.get()
}

/// Fails when this thread is in the middle of an edit.
pub(crate) fn check_not_editing(key: &ProfileKey) -> Result<()> {
    if is_editing() {
        let message = "called from inside an edit; do it after that edit, or change several \
            profiles in a transaction";
        return Err(Error::new(ErrorKind::Busy, message).about(key));
    }
    Ok(())
}

/// Marks this thread as in the middle of an edit for as long as it lives.
pub(crate) struct Editing(());

impl Editing {
    pub(crate) fn begin() -> Self {
        EDITING.set(true);
        Self(())
    }
}

impl Drop for Editing {
    fn drop(&mut self) {
        EDITING.set(false);
    }
}
