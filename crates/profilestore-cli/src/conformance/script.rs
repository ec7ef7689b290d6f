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
    /// Its store must be a file, which can be restored from a backup.
    #[serde(default)]
    file_only: bool,
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
    pub(crate) is_file_only: bool,
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
            let steps = laid_out(&script.steps, faults.get(&fault))
                .map_err(|why| format!("{}: {why}: fault=`{fault}`", script.name))?;
            let is_plain = fault.is_empty();
            all.push(Script {
                name: script.name.clone() + if is_plain { "" } else { "/" } + &fault,
                shows: script.shows.clone(),
                is_quick: script.quick.iter().any(|it| *it == fault || it == "yes"),
                is_file_only: script.file_only,
                servers: script.servers,
                drivers: script.drivers.clone(),
                steps,
                may_end: script.may_end,
            });
        }
    }
    Ok(all)
}

/// The steps with the fault's in its place, and each `repeat` as what it repeats.
fn laid_out(steps: &[Value], fault: Option<&Vec<Value>>) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    for step in steps {
        match step["do"].as_str() {
            Some("fault") => all.extend(fault.ok_or("there is no such fault")?.iter().cloned()),
            Some("repeat") => {
                let inner = step["steps"].as_array().ok_or("a step `repeat` has `steps`")?;
                let inner = laid_out(inner, fault)?;
                for at in 0..step["times"].as_u64().ok_or("a step `repeat` has `times`")? {
                    all.extend(inner.iter().map(|step| numbered(step, &at.to_string())));
                }
            }
            _ => all.push(step.clone()),
        }
    }
    Ok(all)
}

/// A step with this number in place of `{at}`.
fn numbered(step: &Value, at: &str) -> Value {
    match step {
        Value::String(text) => text.replace("{at}", at).into(),
        Value::Array(all) => all.iter().map(|one| numbered(one, at)).collect(),
        Value::Object(all) => {
            all.iter().map(|(name, one)| (name.clone(), numbered(one, at))).collect()
        }
        other => other.clone(),
    }
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
        stage.finish(self.may_end).await.wrong
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_repetition_is_its_steps_with_their_numbers() {
        let steps = [
            json!({ "do": "repeat", "times": 2, "steps": [
                { "do": "save", "later": "s{at}", "gives": { "items": ["i{at}"] } },
                { "do": "fault" },
            ] }),
            json!({ "do": "end" }),
        ];
        let fault = vec![json!({ "do": "kill" })];
        let save = |at: u64| {
            let items = [format!("i{at}")];
            json!({ "do": "save", "later": format!("s{at}"), "gives": { "items": items } })
        };
        let kill = json!({ "do": "kill" });
        assert_eq!(
            laid_out(&steps, Some(&fault)).unwrap(),
            [save(0), kill.clone(), save(1), kill, json!({ "do": "end" })]
        );
        assert!(laid_out(&steps, None).is_err());
        assert!(laid_out(&[json!({ "do": "repeat", "times": 2 })], None).is_err());
    }

    fn is_fault(step: &Value) -> bool {
        let faults =
            ["kill", "term", "way", "freeze", "freeze_driver", "kill_driver", "revoke", "restore"];
        faults.iter().any(|fault| step["do"] == *fault) || step["method"] == "DELETE"
    }

    #[test]
    fn the_kit_has_eighty_scripts_and_each_says_what_it_shows() {
        let all = scripts(super::super::SCRIPTS).unwrap();
        let names: BTreeSet<_> = all.iter().map(|script| &script.name).collect();
        assert_eq!(names.len(), all.len(), "each has a name of its own");
        let plain = |name: &str| name.split_once('/').map_or(name, |(name, _)| name).to_owned();
        let without_faults: BTreeSet<_> = names.iter().map(|name| plain(name)).collect();
        assert!(without_faults.len() >= 80, "{}", without_faults.len());
        let with_faults = all.iter().filter(|script| script.steps.iter().any(is_fault)).count();
        assert!(with_faults >= 80, "{with_faults}");
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
