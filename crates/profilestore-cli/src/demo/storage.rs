//! The store that all servers of the demonstration share, and where it lies.

use std::path::{Path, PathBuf};

use anyhow::Context;
use profilestore::{
    data_store::{SqliteOptions, SqliteStore},
    env::Env,
    messenger::NoMessenger as SqliteMessenger,
};

/// Opens the store that `name` means, made if it is missing, with the messenger that belongs to it.
pub(crate) async fn open(name: &str) -> anyhow::Result<(SqliteStore, SqliteMessenger)> {
    let path = path_of(name)?;
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(path, SqliteOptions::default())).await?;
    let store = opened.with_context(|| format!("the store cannot be opened: store=`{name}`"))?;
    let messenger = SqliteMessenger;
    Ok((store, messenger))
}

fn path_of(name: &str) -> anyhow::Result<PathBuf> {
    match name.split_once(':') {
        Some(("sqlite", path)) if !path.is_empty() => Ok(path.into()),
        _ => anyhow::bail!("the demonstration runs on one file, named sqlite:PATH: store=`{name}`"),
    }
}

/// Where a run keeps its file.
#[derive(Debug)]
pub(crate) struct Place {
    /// `sqlite:PATH`.
    pub(crate) name: String,
    /// A directory that was made for this run.
    made: Option<PathBuf>,
}

impl Place {
    /// The given store, or a new file in a directory of its own among the temporary ones.
    pub(crate) fn new(given: Option<&str>, env: &Env) -> anyhow::Result<Self> {
        if let Some(name) = given {
            path_of(name)?;
            return Ok(Self { name: name.to_owned(), made: None });
        }
        let directory = std::env::temp_dir().join(format!("profilestore-demo-{}", env.uuid().simple()));
        std::fs::create_dir(&directory)
            .with_context(|| format!("a temporary directory cannot be made: path=`{}`", directory.display()))?;
        let file: &Path = &directory.join("demo.db");
        Ok(Self { name: format!("sqlite:{}", file.display()), made: Some(directory) })
    }

    /// Deletes what was made for the run; a store that was given stays.
    pub(crate) fn clear(&self) {
        if let Some(directory) = &self.made
            && let Err(error) = std::fs::remove_dir_all(directory)
        {
            super::display::say(&format!(
                "the temporary directory could not be deleted: {error}: path=`{}`",
                directory.display()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_its_own_leaves_nothing_behind_and_a_given_store_stays() {
        let own = Place::new(None, &Env::system()).unwrap();
        let path = path_of(&own.name).unwrap();
        std::fs::write(&path, "x").unwrap();
        own.clear();
        assert!(!path.exists() && !path.parent().unwrap().exists());
        assert!(Place::new(Some("sqlite:some.db"), &Env::system()).unwrap().made.is_none());
        assert!(Place::new(Some("memory"), &Env::system()).is_err());
    }
}
