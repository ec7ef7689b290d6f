//! The steps of an edit, as the command line gives them.

use std::fs;

use clap::Args;
use profilestore::{
    Edit,
    storable::{DATA, Problem},
};
use serde_json::Value;

use crate::{operate::failure, output::Failure};

#[derive(Debug, Args)]
pub(super) struct Steps {
    /// A JSON Patch (RFC 6902), or - for standard input; `set` and `increase` may be among its
    /// steps
    #[arg(long, value_name = "FILE")]
    patch: Option<String>,
    /// A JSON merge patch (RFC 7396)
    #[arg(long, value_name = "JSON")]
    merge: Option<String>,
    /// Only if what is there is this
    #[arg(long, value_name = "/PATH=JSON")]
    test: Vec<String>,
    /// Put a value there, whether or not there is one
    #[arg(long, value_name = "/PATH=JSON")]
    set: Vec<String>,
    /// Add to the number there
    #[arg(long, value_name = "/PATH=NUMBER", allow_hyphen_values = true)]
    add: Vec<String>,
    /// With --add: a number that is not there counts as 0
    #[arg(long, requires = "add")]
    create: bool,
    /// Remove what is there
    #[arg(long, value_name = "/PATH")]
    remove: Vec<String>,
}

impl Steps {
    pub(super) fn edit(&self) -> Result<Edit, Failure> {
        let mut edit = Edit::new();
        if let Some(file) = &self.patch {
            let text = match file.as_str() {
                "-" => std::io::read_to_string(std::io::stdin()),
                file => fs::read_to_string(file),
            };
            let text = text.map_err(|error| {
                Failure::Work(format!("the patch cannot be read: {error}: file=`{file}`"))
            })?;
            edit = Edit::from_patch(&text).map_err(failure)?;
        }
        if let Some(patch) = &self.merge {
            edit = edit.merge(json(patch, patch)?);
        }
        for given in &self.test {
            let (path, value) = at(given)?;
            edit = edit.test(path, json(value, given)?).map_err(failure)?;
        }
        for given in &self.set {
            let (path, value) = at(given)?;
            edit = edit.set(path, json(value, given)?).map_err(failure)?;
        }
        for given in &self.add {
            let (path, value) = at(given)?;
            let Value::Number(by) = json(value, given)? else {
                return Err(Failure::Usage(format!("this adds no number: given=`{given}`")));
            };
            let added = match self.create {
                true => edit.increase_or_create(path, by),
                false => edit.increase(path, by),
            };
            edit = added.map_err(failure)?;
        }
        for path in &self.remove {
            edit = edit.remove(path).map_err(failure)?;
        }
        edit.check().map_err(failure)?;
        Ok(edit)
    }

    pub(super) fn any(&self) -> bool {
        let Self { patch, merge, test, set, add, create: _, remove } = self;
        patch.is_some()
            || merge.is_some()
            || [test, set, add, remove].iter().any(|steps| !steps.is_empty())
    }
}

fn at(given: &str) -> Result<(&str, &str), Failure> {
    given
        .split_once('=')
        .ok_or_else(|| Failure::Usage(format!("a step is given as /PATH=VALUE: given=`{given}`")))
}

fn json(text: &str, given: &str) -> Result<Value, Failure> {
    DATA.parse(text).map_err(|wrong| match wrong.problem {
        Problem::NoJson { reason } => Failure::Usage(format!(
            "the value is not JSON (a text has quotes): {reason}: given=`{given}`"
        )),
        _ => Failure::Usage(format!("the value cannot be stored: {wrong}: given=`{given}`")),
    })
}
