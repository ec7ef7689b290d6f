//! G2 at a session's end: a holder that lets a profile go has saved it. The commit that takes a
//! living session's name out of the lease holds everything that its client had changed when it
//! ended.

use super::{Broken, Seen, broken};
use crate::oracle::Told;

/// One commit's effect on one key.
pub fn committed(seen: &Seen<'_>, told: &Told) -> Result<(), Broken> {
    let step = seen.step;
    let (Some(before), None) = (step.before.holder(), step.after.holder()) else { return Ok(()) };
    // A server that declares its holder dead need not wait for its last save; G6 says when that may
    // be.
    if seen.kind.rewrites() || step.buried {
        return Ok(());
    }
    let Some((label, session)) = told.by_store_name(before) else { return Ok(()) };
    let Some((end, edits)) = &session.ended else {
        return broken("G2", step.key, format!("session {label} was released before it ended"));
    };
    let saved = step
        .after
        .data
        .as_ref()
        .and_then(|data| data.edits.get(&label))
        .copied()
        .unwrap_or_default();
    if end.saves() && saved < *edits {
        return broken(
            "G2",
            step.key,
            format!("session {label} ended with {edits} edits and was released with {saved}"),
        );
    }
    Ok(())
}
