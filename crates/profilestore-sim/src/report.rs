//! What a failure shows: its seed, what broke, and the shortest trace that is of use: everything
//! about that profile, and about servers.

use std::fmt::Write as _;

use crate::{
    books::Line,
    world::{Outcome, Size},
};

/// The part of a trace that tells why a profile's guarantee broke.
pub fn useful<'a>(trace: &'a [Line], key: Option<&str>) -> impl Iterator<Item = &'a Line> {
    let key = key.map(str::to_owned);
    trace.iter().filter(move |line| line.key.is_none() || key.is_none() || line.key == key)
}

/// How many of its last lines.
const LINES: usize = 120;

/// A failure for people, from a traced run of its seed.
pub fn failure(seed: u64, size: Size, outcome: &Outcome) -> String {
    let mut text = String::new();
    let Some(violation) = &outcome.violation else { return text };
    let lines: Vec<&Line> = useful(&outcome.trace, violation.broken.key.as_deref()).collect();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        let _ = writeln!(text, "{}", line.text);
    }
    let Size { servers, players, minutes, hasty, hosted } = size;
    let patient = if hasty { "" } else { " --patient" };
    let hosted = if hosted { " --hosted" } else { "" };
    let _ = writeln!(text, "seed {seed} breaks {} after {:?}", violation.broken, violation.at);
    let _ = writeln!(
        text,
        "replay it with: replay --seed {seed} --servers {servers} --players {players} \
            --virtual-minutes {minutes}{patient}{hosted}"
    );
    text
}
