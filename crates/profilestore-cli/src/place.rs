//! Which store is meant, and opening it.

use std::{
    fmt,
    ops::Deref,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use profilestore::{
    data_store::{Backlog, DataStore, SqliteMessenger, SqliteOptions, SqliteStore, StoreError},
    messenger::Messenger,
};

use crate::{
    database::{Database, Url},
    output::Failure,
};

/// A store, as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Sqlite(PathBuf),
    Postgres(Url),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::at(path.into())),
            // Also what is misspelt behind that, so that no message repeats it.
            _ if text.starts_with("postgres") && text.contains([':', '@']) => {
                Ok(Self::Postgres(Url::new(text)))
            }
            None if !text.is_empty() => Ok(Self::at(text.into())),
            _ => Err("a store is named PATH, sqlite:PATH or postgres://USER@HOST:PORT/DATABASE; \
                a file with a colon in its name needs the sqlite: before it"
                .into()),
        }
    }
}

/// The store that is meant when none is named.
impl Default for Place {
    fn default() -> Self {
        Self::at("./profiles.db".into())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

/// A store that was opened.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    any: Arc<dyn DataStore>,
    kind: Kind,
    /// Why it was opened for reading only.
    only_read: Option<String>,
}

/// What only some stores can do.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Sqlite(SqliteStore),
    Postgres(Database),
}

impl Store {
    pub(crate) fn any(&self) -> Arc<dyn DataStore> {
        self.any.clone()
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// For a command that changes something, before it asks anything: fails when the store can only
    /// be read.
    pub(crate) fn for_writing(&self) -> Result<(), Failure> {
        match &self.only_read {
            None => Ok(()),
            Some(why) => Err(Failure::Store(format!("the store cannot be written: {why}"))),
        }
    }

    /// What waits in all inboxes.
    pub(crate) async fn backlog(&self) -> Result<Backlog, StoreError> {
        match &self.kind {
            Kind::Sqlite(store) => store.backlog().await,
            Kind::Postgres(database) => database.backlog().await,
        }
    }

    /// Fails when the store's files were taken away meanwhile: then nothing was saved since.
    pub(crate) fn still_there(&self) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Sqlite(store) => store.check_files(),
            Kind::Postgres(_) => Ok(()),
        }
    }

    /// The messenger that belongs to it.
    pub(crate) fn messenger(&self) -> Result<Arc<dyn Messenger>, StoreError> {
        Ok(match &self.kind {
            Kind::Sqlite(store) => Arc::new(SqliteMessenger::new(store)),
            Kind::Postgres(database) => database.messenger()?,
        })
    }
}

impl Deref for Store {
    type Target = dyn DataStore;

    fn deref(&self) -> &Self::Target {
        &*self.any
    }
}

impl Place {
    /// A file, or what a link of this name leads to: SQLite has its log beside that, and so has
    /// what was rescued from it.
    pub(crate) fn at(path: PathBuf) -> Self {
        let real = if path.is_symlink() { path.canonicalize().ok() } else { None };
        Self::Sqlite(real.unwrap_or(path))
    }

    /// Opens a store that is there. Never makes one: a mistyped name must not leave a file behind.
    pub(crate) async fn open(&self) -> Result<Store, Failure> {
        self.check_there()?;
        self.open_or_create().await
    }

    /// The same for a command that may write many profiles: more commits share one sync of the
    /// disk, which takes as long as writing some hundred of them.
    pub(crate) async fn open_for_many(&self) -> Result<Store, Failure> {
        self.check_there()?;
        self.opened(SqliteOptions { batch: 512, ..SqliteOptions::default() }).await
    }

    /// Fails when there is no file, or no whole one.
    pub(crate) fn check_there(&self) -> Result<(), Failure> {
        if let Self::Sqlite(path) = self {
            let found = std::fs::metadata(path).map(|data| (data.is_dir(), data.len()));
            match found {
                Ok((true, _)) => {
                    return Err(self.unusable("this is a folder, and a store is a file"));
                }
                Ok(_) if path.extension().is_some_and(|last| last == "partial") => {
                    return Err(self.unusable(
                        "it is unfinished: a backup or restore that was broken off left it behind, \
                            or is still writing it; delete it, or run that command again, which \
                            replaces it",
                    ));
                }
                Ok((_, 1..)) => {}
                Ok((_, 0)) => {
                    return Err(self.unusable(
                        "the file is empty; it may be what a backup that was broken off left behind",
                    ));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(self.unusable(
                        "there is no such file; name another with --store or PROFILESTORE_STORE, \
                            or make one with import",
                    ));
                }
                Err(error) => return Err(self.unusable(error)),
            }
        }
        Ok(())
    }

    /// Opens a store, and makes it when it is a file that is not there. Tables in a database are
    /// made by `migrate` only.
    pub(crate) async fn open_or_create(&self) -> Result<Store, Failure> {
        self.opened(SqliteOptions::default()).await
    }

    /// `options` are for a file.
    async fn opened(&self, options: SqliteOptions) -> Result<Store, Failure> {
        match self {
            Self::Sqlite(path) => {
                let (store, only_read) = self.open_file(path, options).await?;
                Ok(Store { any: Arc::new(store.clone()), kind: Kind::Sqlite(store), only_read })
            }
            Self::Postgres(_) => {
                let database = self.database()?;
                let any = database.open().await.map_err(|error| self.failure(&error))?;
                Ok(Store { any, kind: Kind::Postgres(database), only_read: None })
            }
        }
    }

    /// Opens a store, and makes it when it is not there, tables included.
    pub(crate) async fn open_or_make(&self) -> Result<Store, Failure> {
        if let Self::Postgres(_) = self
            && let Ok(database) = self.database()
            && let Err(StoreError::Invalid { .. }) = database.open().await
        {
            database.migrate(None).await.map_err(|error| self.failure(&error))?;
        }
        self.open_or_create().await
    }

    /// How the database is reached, for what only a database needs.
    pub(crate) fn database(&self) -> Result<Database, Failure> {
        match self {
            Self::Postgres(url) => url.database(|error| self.failure(error)),
            Self::Sqlite(_) => Err(Failure::Usage(format!(
                "--grant and --restored are for stores in PostgreSQL: store=`{self}`"
            ))),
        }
    }

    /// The file, for what only a file can do.
    pub(crate) fn file(&self) -> Result<&Path, Failure> {
        match self {
            Self::Sqlite(path) => Ok(path),
            Self::Postgres(_) => Err(Failure::Usage(format!(
                "this is for SQLite files; back a database up and restore it with its own means, then: profilestore migrate --restored: \
                 store=`{self}`"
            ))),
        }
    }

    /// The whole, secrets and all. For the environment of a process of ours, which others cannot
    /// read.
    pub(crate) fn secret(&self) -> String {
        match self {
            Self::Postgres(url) => url.secret().to_owned(),
            Self::Sqlite(_) => self.to_string(),
        }
    }

    async fn open_file(
        &self,
        path: &Path,
        options: SqliteOptions,
    ) -> Result<(SqliteStore, Option<String>), Failure> {
        let path = path.to_owned();
        // A program of before cannot open it any more afterwards, so it must be asked for.
        let opened =
            tokio::task::spawn_blocking(move || match SqliteStore::earlier_format(&path)? {
                Some(format) => Ok(Err(format)),
                None => open_or_read(&path, options).map(Ok),
            });
        match opened.await {
            Ok(Ok(Ok(opened))) => Ok(opened),
            Ok(Ok(Err(format))) => Err(self.unusable(format!(
                "it is of format {format}, which an earlier version of this program wrote; \
                    `profilestore migrate` brings it to this one's, and `profilestore restore` makes a store of it \
                    if it is a backup, which stays as it is"
            ))),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(error) => Err(self.unusable(error)),
        }
    }

    /// Opens a file that is there for reading, and leaves it and its folder as they are.
    pub(crate) async fn open_to_read(&self) -> Result<Store, Failure> {
        self.check_there()?;
        let path = self.file()?.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            SqliteStore::open_to_read(path, SqliteOptions::default())
        });
        match opened.await {
            Ok(Ok(store)) => Ok(Store {
                any: Arc::new(store.clone()),
                kind: Kind::Sqlite(store),
                only_read: Some("it was opened for reading".into()),
            }),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(error) => Err(self.unusable(error)),
        }
    }

    /// Brings a file to this version's format. True if it was of an earlier one.
    pub(crate) async fn migrate_file(&self, path: &Path) -> Result<bool, Failure> {
        let path = path.to_owned();
        let migrated = tokio::task::spawn_blocking(move || {
            let earlier = SqliteStore::earlier_format(&path)?;
            SqliteStore::open(path, SqliteOptions::default()).map(|_| earlier.is_some())
        });
        match migrated.await {
            Ok(migrated) => migrated.map_err(|error| self.failure(&error)),
            Err(error) => Err(self.unusable(error)),
        }
    }

    /// What a failure of the store as a whole means: nothing can be done with it.
    pub(crate) fn failure(&self, error: &StoreError) -> Failure {
        match error {
            StoreError::Unavailable { reason }
            | StoreError::Corrupt { reason }
            | StoreError::Invalid { reason } => self.unusable(reason),
            error => self.unusable(error),
        }
    }

    fn unusable(&self, why: impl fmt::Display) -> Failure {
        let why = why.to_string();
        // The library names a database by itself.
        let place =
            if why.contains("store=`") { String::new() } else { format!(": store=`{self}`") };
        Failure::Store(format!("the store cannot be used: {why}{place}"))
    }
}

/// Opens a store; one that cannot be written for reading, so that commands that only read have an
/// answer. Then it says why, for those that write.
fn open_or_read(
    path: &Path,
    options: SqliteOptions,
) -> Result<(SqliteStore, Option<String>), StoreError> {
    match SqliteStore::open(path, options) {
        Err(StoreError::Invalid { reason }) => {
            match SqliteStore::open_to_read(path, SqliteOptions::default()) {
                Ok(store) => Ok((store, Some(reason))),
                Err(_) => Err(StoreError::Invalid { reason }),
            }
        }
        opened => opened.map(|store| (store, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_named_with_their_kind() {
        assert_eq!("sqlite:./a:b.db".parse(), Ok(Place::Sqlite("./a:b.db".into())));
        assert_eq!("sqlite:./a:b.db".parse::<Place>().unwrap().to_string(), "sqlite:./a:b.db");
        for file in ["a.db", "/srv/game/profiles", "postgres.db"] {
            assert_eq!(file.parse(), Ok(Place::Sqlite(file.into())), "{file}");
        }
        for wrong in ["a:b.db", "sqlite:", "mysql://host/db", ""] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_database_is_named_without_its_password() {
        let place: Place = "postgres://me:hush@localhost:5433/game".parse().unwrap();
        let shown = if cfg!(feature = "postgres") {
            "postgres://me@localhost:5433/game"
        } else {
            "postgres://…"
        };
        assert_eq!(place.to_string(), shown);
        assert!(place.secret().contains("hush"));
        for url in [
            "postgres://me:hush@localhost/game",
            "postgres:/me:hush@x",
            "postgres://me:hush@h:hush/",
        ] {
            let place: Place = url.parse().unwrap();
            assert!(!format!("{place} {place:?}").contains("hush"), "{url}");
            if let Err(failure) = place.database() {
                assert!(!format!("{failure:?}").contains("hush"), "{failure:?}");
            }
        }
    }
}
