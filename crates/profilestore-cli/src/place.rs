//! Which store is meant, and opening it.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use profilestore::data_store::{DataStore, SqliteOptions, SqliteStore, StoreError};

use crate::output::Failure;

/// A store, as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Sqlite(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            _ => Err("a store is named sqlite:PATH".into()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

impl Place {
    /// Opens a store that is there. Never makes one: a mistyped name must not leave a file behind.
    pub(crate) async fn open(&self) -> Result<Box<dyn DataStore>, Failure> {
        Ok(Box::new(self.open_sqlite().await?))
    }

    /// Opens a store, and makes it when it is not there.
    pub(crate) async fn open_or_create(&self) -> Result<Box<dyn DataStore>, Failure> {
        let Self::Sqlite(path) = self;
        Ok(Box::new(self.open_file(path).await?))
    }

    /// Opens the file of a store that is there.
    pub(crate) async fn open_sqlite(&self) -> Result<SqliteStore, Failure> {
        let Self::Sqlite(path) = self;
        let length = std::fs::metadata(path).map(|data| data.len());
        match length {
            Ok(1..) => self.open_file(path).await,
            Ok(0) => Err(self.unusable("the file is empty")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(self
                    .unusable("there is no such file; name another with --store or PROFILESTORE_STORE, or make one with import"))
            }
            Err(error) => Err(self.unusable(error)),
        }
    }

    async fn open_file(&self, path: &Path) -> Result<SqliteStore, Failure> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || SqliteStore::open(path, SqliteOptions::default())).await;
        match opened {
            Ok(opened) => opened.map_err(|error| self.failure(&error)),
            Err(error) => Err(self.unusable(error)),
        }
    }

    /// What a failure of the store as a whole means: nothing can be done with it.
    pub(crate) fn failure(&self, error: &StoreError) -> Failure {
        match error {
            StoreError::Unavailable { reason } | StoreError::Corrupt { reason } | StoreError::Invalid { reason } => {
                self.unusable(reason)
            }
            error => self.unusable(error),
        }
    }

    fn unusable(&self, why: impl fmt::Display) -> Failure {
        Failure::Store(format!("the store cannot be used: {why}: store=`{self}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_named_with_their_kind() {
        assert_eq!("sqlite:./a:b.db".parse(), Ok(Place::Sqlite("./a:b.db".into())));
        assert_eq!("sqlite:./a:b.db".parse::<Place>().unwrap().to_string(), "sqlite:./a:b.db");
        for wrong in ["a.db", "sqlite:", "postgres://host/db", ""] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
