//! G6: a session that says that it is active can save at that moment. So nobody takes a profile from a session that says so, except
//! thieves and operators, who are noticed within one renewal.

use std::time::Duration;

use tokio::time::Instant;

use super::{Broken, Seen, broken};
use crate::{data::Label, oracle::Told};

/// Two renewals, with the time of a few calls: the first renewal may have been under way.
const NOTICE: Duration = Duration::from_secs(11);

/// After how long a start takes a profile from a live holder that does not answer.
const STEAL: Duration = Duration::from_secs(40);

#[derive(Default, Clone)]
pub struct Active {
    /// Sessions that were robbed, and when.
    robbed: Vec<(Label, Instant)>,
}

impl Active {
    pub fn committed(&mut self, seen: &Seen<'_>, told: &Told) -> Result<(), Broken> {
        self.noticed(seen.now, told)?;
        let step = seen.step;
        let Some(before) = step.before.holder().filter(|before| Some(*before) != step.after.holder()) else { return Ok(()) };
        let Some((label, session)) = told.by_store_name(before) else { return Ok(()) };
        if session.life.is_over() || !session.profile.is_active() {
            return Ok(());
        }
        let thief = seen.kind.rewrites() || told.starts_on(step.key, seen.now).any(|start| start.steal);
        // A holder that nothing kept from answering is not robbed by time.
        let patience = told.starts_on(step.key, seen.now).any(|start| {
            seen.now - start.since >= STEAL
                && (session.life.troubled_since(start.since) || start.life.troubled_since(start.since))
        });
        if !thief && !patience {
            let taker = step.after.lease.holder.as_ref().map_or("nobody", |holder| holder.job_id.as_str());
            return broken("G6", step.key, format!("session {label} says it is active, and {taker} takes the profile"));
        }
        self.robbed.push((label, seen.now));
        Ok(())
    }

    /// Checks that those who were robbed some time ago know it.
    fn noticed(&mut self, now: Instant, told: &Told) -> Result<(), Broken> {
        let due = self.robbed.iter().position(|(_, at)| now - *at >= NOTICE);
        let Some(due) = due else { return Ok(()) };
        let (label, at) = self.robbed.remove(due);
        let Some(session) = told.sessions.get(&label) else { return Ok(()) };
        if !session.life.is_over() && session.profile.is_active() && !session.life.troubled_since(at - NOTICE) {
            let ago = now - at;
            return broken("G6", &session.key, format!("session {label} was robbed {ago:?} ago and says it is active"));
        }
        Ok(())
    }

    pub fn restored(&mut self) {
        self.robbed.clear();
    }
}
