//! The texts of a connection: which frame one is, or why it is none.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use crate::{
    problem::{Problem, without_values},
    ws::frames::{ClientFrame, MAX_FRAME},
};

/// How much of what is wrong with a frame is told, in characters. A frame may consist of names.
pub(super) const MOST_TOLD: usize = 1000;

/// Reads a text as a frame.
pub(super) fn parse(text: &str) -> Result<ClientFrame, Problem> {
    if text.len() > MAX_FRAME {
        let detail = format!("a frame has at most {MAX_FRAME} bytes: size=`{}`", text.len());
        return Err(Problem::new("too-large", detail));
    }
    serde_json::from_str(text).map_err(|error| {
        let mut detail = no_frame(text, &error);
        if let Some((end, _)) = detail.char_indices().nth(MOST_TOLD) {
            detail.truncate(end);
            detail.push('…');
        }
        Problem::invalid(detail)
    })
}

/// What is wrong with a text that is no frame. Of a greeting, which holds secrets, no value is
/// shown.
fn no_frame(text: &str, error: &serde_json::Error) -> String {
    let what = "a frame is a JSON object with one member that says what it is";
    match serde_json::from_str::<BTreeMap<String, IgnoredAny>>(text) {
        Ok(members) if members.len() != 1 => {
            let count = members.len();
            let names: Vec<_> = members.into_keys().take(10).collect();
            format!("{what}, and this one has {count}: members=`{}`", names.join("`, `"))
        }
        Ok(members) => {
            let name = members.into_keys().next().unwrap_or_default();
            let why = match &*name {
                "hello" => without_values(error),
                _ => error.to_string(),
            };
            format!("the frame `{name}` cannot be read: {why}")
        }
        Err(_) => format!("{what}, and this is none: {}", without_values(error)),
    }
}

/// The number of a request in a frame that cannot be read as a whole.
pub(super) fn number_of(text: &str) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Numbered {
        i: Option<u64>,
    }
    let frame: BTreeMap<String, Numbered> = serde_json::from_str(text).ok()?;
    frame.into_values().next()?.i
}
