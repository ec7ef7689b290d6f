//! A store in PostgreSQL. It comes with the feature `postgres`; a program without it says how to
//! get it.

use std::fmt;

use profilestore::data_store::StoreError;

#[cfg(not(feature = "postgres"))]
pub(crate) use left_out::Database;
#[cfg(feature = "postgres")]
pub(crate) use present::Database;

use crate::output::Failure;

/// A database's URL as it was given. Not checked while the command line is read: clap would repeat
/// it in its complaint, and it may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url(String);

impl Url {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The whole URL with its password.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }

    /// How the database is reached; `failure` says what a wrong URL means.
    pub(crate) fn database(
        &self,
        failure: impl Fn(&StoreError) -> Failure,
    ) -> Result<Database, Failure> {
        Database::at(self, failure)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Without its secrets.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "postgres")]
        if let Ok(options) = self.0.parse::<profilestore::data_store::PostgresOptions>() {
            return options.fmt(f);
        }
        f.write_str("postgres://…")
    }
}

#[cfg(feature = "postgres")]
mod present {
    use std::sync::Arc;

    use profilestore::{
        data_store::{Backlog, DataStore, PostgresOptions, PostgresStore, StoreError},
        messenger::{Messenger, PostgresMessenger},
    };

    use super::Url;
    use crate::output::Failure;

    /// A database, and how it is reached.
    #[derive(Debug, Clone)]
    pub(crate) struct Database(Box<PostgresOptions>);

    impl Database {
        pub(super) fn at(
            url: &Url,
            failure: impl Fn(&StoreError) -> Failure,
        ) -> Result<Self, Failure> {
            url.0.parse().map(|options| Self(Box::new(options))).map_err(|error| failure(&error))
        }

        pub(crate) async fn open(&self) -> Result<Arc<dyn DataStore>, StoreError> {
            Ok(Arc::new(PostgresStore::open((*self.0).clone()).await?))
        }

        /// What waits in all inboxes.
        pub(crate) async fn backlog(&self) -> Result<Backlog, StoreError> {
            PostgresStore::open((*self.0).clone()).await?.backlog().await
        }

        /// The messenger that belongs to the store.
        pub(crate) fn messenger(&self) -> Result<Arc<dyn Messenger>, StoreError> {
            Ok(Arc::new(PostgresMessenger::new((*self.0).clone())?))
        }

        /// Makes the tables that are missing. True if the store is new.
        pub(crate) async fn migrate(&self, grant: Option<&str>) -> Result<bool, StoreError> {
            PostgresStore::migrate(&self.0, grant).await
        }

        /// Gives the contents a new identity, and returns it.
        pub(crate) async fn renew_incarnation(&self) -> Result<String, StoreError> {
            Ok(PostgresStore::renew_incarnation(&self.0).await?.to_string())
        }
    }
}

#[cfg(not(feature = "postgres"))]
mod left_out {
    use std::{convert::Infallible, sync::Arc};

    use profilestore::{
        data_store::{Backlog, DataStore, StoreError},
        messenger::Messenger,
    };

    use super::Url;
    use crate::output::Failure;

    /// There is none: [`Database::at`] refuses every URL.
    #[derive(Debug, Clone)]
    pub(crate) struct Database(Infallible);

    impl Database {
        pub(super) fn at(_: &Url, _: impl Fn(&StoreError) -> Failure) -> Result<Self, Failure> {
            Err(Failure::left_out("PostgreSQL", "postgres"))
        }

        pub(crate) async fn open(&self) -> Result<Arc<dyn DataStore>, StoreError> {
            match self.0 {}
        }

        pub(crate) async fn backlog(&self) -> Result<Backlog, StoreError> {
            match self.0 {}
        }

        pub(crate) fn messenger(&self) -> Result<Arc<dyn Messenger>, StoreError> {
            match self.0 {}
        }

        pub(crate) async fn migrate(&self, _: Option<&str>) -> Result<bool, StoreError> {
            match self.0 {}
        }

        pub(crate) async fn renew_incarnation(&self) -> Result<String, StoreError> {
            match self.0 {}
        }
    }
}
