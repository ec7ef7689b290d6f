//! `.luaurc`: what aliases of requires mean in a folder and below it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{TreeError, read_json, shown};

type Meanings = BTreeMap<String, String>;

/// Gathers the folders that scripts are in.
pub(super) struct Aliases {
    /// No folder above this one counts.
    top: PathBuf,
    scripts: Vec<(String, PathBuf)>,
}

impl Aliases {
    pub(super) fn new(top: PathBuf) -> Self {
        Self { top, scripts: Vec::new() }
    }

    pub(super) fn note(&mut self, script: &str, folder: &Path) {
        self.scripts.push((script.to_owned(), folder.to_owned()));
    }

    /// What aliases mean to each script that has some.
    pub(super) fn finish(self) -> Result<BTreeMap<String, Meanings>, TreeError> {
        let mut folders = BTreeMap::new();
        let mut result = BTreeMap::new();
        for (script, folder) in &self.scripts {
            let meanings = meanings_in(&self.top, folder, &mut folders)?;
            if !meanings.is_empty() {
                result.insert(script.clone(), meanings);
            }
        }
        Ok(result)
    }
}

/// Those of the folder itself, over those of the folders around it. Names count in any case.
fn meanings_in(
    top: &Path,
    folder: &Path,
    known: &mut BTreeMap<PathBuf, Meanings>,
) -> Result<Meanings, TreeError> {
    if let Some(found) = known.get(folder) {
        return Ok(found.clone());
    }
    let around = folder.parent().filter(|around| folder != top && around.starts_with(top));
    let mut meanings = match around {
        Some(around) => meanings_in(top, around, known)?,
        None => Meanings::new(),
    };
    let file = folder.join(".luaurc");
    if file.is_file() {
        let config = read_json(&file)?;
        for (alias, path) in config.get("aliases").and_then(Value::as_object).into_iter().flatten()
        {
            let path = path.as_str().ok_or_else(|| {
                TreeError::new(&file, format!("the alias {alias} must be a path, as a text"))
            })?;
            meanings.insert(alias.to_lowercase(), shown(&folder.join(path)));
        }
    }
    known.insert(folder.to_owned(), meanings.clone());
    Ok(meanings)
}
