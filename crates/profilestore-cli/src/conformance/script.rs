//! Scripts: what game servers, servers and operators do, and what must come out.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

use super::{stage::Stage, world::Ground};

/// The kit's scripts, as they are in `conformance/scripts.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scripts {
    /// What these scripts are, for readers.
    #[serde(rename = "about")]
    _about: Value,
    /// What may happen at a step `{"do": "fault"}`: steps by name.
    faults: BTreeMap<String, Vec<Value>>,
    scripts: Vec<Written>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    shows: String,
    #[serde(default = "one_server")]
    servers: usize,
    #[serde(default = "one_driver")]
    drivers: Vec<String>,
    /// It is a script of its own with each of these faults.
    #[serde(default)]
    with: Vec<String>,
    /// The gate runs it.
    #[serde(default)]
    quick: Vec<String>,
    steps: Vec<Value>,
    /// Its sessions may be asked for by another server, so that they end as `released`.
    #[serde(default)]
    may_end: bool,
}

fn one_server() -> usize {
    1
}

fn one_driver() -> Vec<String> {
    vec!["one".into()]
}

/// One script with its fault filled in.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) name: String,
    /// The guarantee that it shows.
    pub(crate) shows: String,
    pub(crate) is_quick: bool,
    servers: usize,
    drivers: Vec<String>,
    steps: Vec<Value>,
    may_end: bool,
}

/// All scripts of a text.
pub(crate) fn scripts(text: &str) -> Result<Vec<Script>, String> {
    let Scripts { faults, scripts, .. } =
        serde_json::from_str(text).map_err(|error| format!("the scripts: {error}"))?;
    let mut all = Vec::new();
    for script in scripts {
        let names = if script.with.is_empty() { vec![String::new()] } else { script.with.clone() };
        for fault in names {
            let mut steps = Vec::new();
            for step in &script.steps {
                if step["do"] == "fault" {
                    let inner = faults.get(&fault);
                    let wrong = || format!("{}: there is no fault `{fault}`", script.name);
                    steps.extend(inner.ok_or_else(wrong)?.iter().cloned());
                } else {
                    steps.push(step.clone());
                }
            }
            let is_plain = fault.is_empty();
            all.push(Script {
                name: script.name.clone() + if is_plain { "" } else { "/" } + &fault,
                shows: script.shows.clone(),
                is_quick: script.quick.iter().any(|it| *it == fault || it == "yes"),
                servers: script.servers,
                drivers: script.drivers.clone(),
                steps,
                may_end: script.may_end,
            });
        }
    }
    Ok(all)
}

impl Script {
    /// What is wrong; nothing if all is as it must be.
    pub(crate) async fn run(&self, command: &str, ground: &Ground) -> Vec<String> {
        let stage = Stage::new(command, ground, self.servers, &self.drivers).await;
        let mut stage = match stage {
            Ok(stage) => stage,
            Err(why) => return vec![why],
        };
        for (at, step) in self.steps.iter().enumerate() {
            if let Err(why) = stage.step(step).await {
                return vec![format!("step {}, {step}: {why}", at + 1)];
            }
        }
        stage.finish(self.may_end).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_kit_has_eighty_scripts_and_each_says_what_it_shows() {
        let all = scripts(super::super::SCRIPTS).unwrap();
        let names: BTreeSet<_> = all.iter().map(|script| &script.name).collect();
        assert_eq!(names.len(), all.len(), "each has a name of its own");
        assert!(all.len() >= 80, "{}", all.len());
        for script in &all {
            let (of, what) = script.shows.split_once(": ").unwrap();
            // A guarantee of docs/guarantees.md, or a part of an SDK that has none of its own.
            let guarantee = of.strip_prefix('G').and_then(|number| number.parse::<u8>().ok());
            let is_known = guarantee.is_some_and(|number| (1..=9).contains(&number))
                || ["hand-over", "edits", "numbers", "protocol"].contains(&of);
            assert!(is_known && !what.is_empty(), "{}: {}", script.name, script.shows);
        }
        assert!(all.iter().filter(|script| script.is_quick).count() >= 5);
    }
}
