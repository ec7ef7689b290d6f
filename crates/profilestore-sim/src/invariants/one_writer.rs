//! G1: the committed data of a profile, labelled by the oracle's sessions, never returns to an
//! earlier session.

use std::collections::{BTreeMap, BTreeSet};

use profilestore::data_store::Cause;

use super::{Broken, Kind, Seen, broken};
use crate::{data::Label, oracle::Told, watch::Side};

#[derive(Default, Clone)]
pub struct OneWriter {
    keys: BTreeMap<String, Writers>,
    /// Sessions of before a backup.
    over: BTreeSet<Label>,
}

#[derive(Default, Clone)]
struct Writers {
    current: Option<Label>,
    past: BTreeSet<Label>,
}

impl OneWriter {
    pub fn committed(&mut self, seen: &Seen<'_>, told: &Told) -> Result<(), Broken> {
        let step = seen.step;
        if seen.kind == Kind::Untouched {
            return Ok(());
        }
        let writers = self.keys.entry(step.key.to_owned()).or_default();
        let on_key = || {
            told.sessions
                .iter()
                .filter(|(_, session)| session.key == step.key)
                .map(|(label, _)| *label)
        };
        if step.after.info.as_ref().is_some_and(|info| info.cause == Cause::Restore) {
            // An earlier version, signed by an earlier writer, who has not come back.
            writers.past.extend(writers.current.take());
            writers.past.extend(on_key());
            return Ok(());
        }
        let signed = |side: &Side| {
            side.data.as_ref().map(|data| (data.writer, data.edits.get(&data.writer).copied()))
        };
        if signed(step.before).is_some() && signed(step.before) == signed(step.after) {
            // An operator's edit is signed by nobody.
            return Ok(());
        }
        let writer = step.after.data.as_ref().map(|data| data.writer).filter(|writer| *writer != 0);
        if let Some(writer) = writer {
            let late = writers.past.contains(&writer) || self.over.contains(&writer);
            if late && (writers.current != Some(writer) || self.over.contains(&writer)) {
                let now = writers.current;
                return broken(
                    "G1",
                    step.key,
                    format!("session {writer} wrote after it was over; the writer was {now:?}"),
                );
            }
        }
        if writer != writers.current {
            writers.past.extend(writers.current);
            writers.current = writer;
        }
        if seen.kind.rewrites() {
            // Whatever sessions clients had on it are over.
            writers.past.extend(on_key());
        }
        Ok(())
    }

    pub fn restored(&mut self, before: &Self, sessions: &[Label]) {
        self.over.extend(&before.over);
        self.over.extend(sessions);
    }
}
