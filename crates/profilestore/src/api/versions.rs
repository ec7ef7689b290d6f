//! A profile's earlier versions: listing and reading them.
//!
//! Which versions are kept is decided when they are replaced (see
//! [`crate::data_store::Change::Write`]), and for how long by
//! [`crate::Settings::history_retention`]; a pinned one stays until it is unpinned.

use std::fmt;

use futures_util::stream::{self, BoxStream, StreamExt};
use serde::Serialize;

use crate::{
    api::{read_profile::ReadProfile, store::ProfileStore},
    data::ProfileData,
    data_store::{Order, VersionInfo, VersionQuery, VersionRef},
    error::{ErrorKind, Result},
    key::ProfileKey,
    record::version::version_label,
};

/// How many versions are asked for at once.
const PAGE: usize = 128;

/// One kept version of a profile, without its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeptVersion {
    /// Its version string: the one that it was imported with, or one made up in the same form.
    pub label: String,
    /// What else is known about it.
    #[serde(flatten)]
    pub info: VersionInfo,
}

/// The kept versions of a profile, the current one included, oldest first unless told otherwise.
/// Made by [`ProfileStore::versions`]. Specification: `VersionQuery`.
///
/// Versions are asked for a page at a time, as they are needed. What is written while one goes
/// through them may or may not be among them. Each call waits for one or two round trips, during an
/// outage for at most [`crate::Settings::call_timeout`]; one that failed may be repeated.
pub struct Versions<T> {
    store: ProfileStore<T>,
    query: VersionQuery,
    page: std::vec::IntoIter<VersionInfo>,
    last_page: bool,
    created_ms: i64,
    /// Listed, and not read yet because reading it failed.
    unread: Option<u64>,
}

impl<T: ProfileData> ProfileStore<T> {
    /// Lists the kept versions of the profile, or reads them one after the other. Asks the store
    /// when the first is asked for. Fails on a wrong key. Specification: `VersionQuery`.
    pub fn versions(&self, key: &str) -> Result<Versions<T>> {
        Ok(Versions::new(self.clone(), self.key(key)?))
    }
}

impl<T> fmt::Debug for Versions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Versions").field("query", &self.query).finish_non_exhaustive()
    }
}

impl<T: ProfileData> Versions<T> {
    pub(crate) fn new(store: ProfileStore<T>, key: ProfileKey) -> Self {
        let query = VersionQuery {
            key,
            order: Order::Ascending,
            from_ms: None,
            to_ms: None,
            after: None,
            limit: PAGE,
        };
        Self {
            store,
            query,
            page: Vec::new().into_iter(),
            last_page: false,
            created_ms: 0,
            unread: None,
        }
    }

    /// Begins with the newest. Specification: `Enum.SortDirection.Descending`.
    #[must_use]
    pub fn newest_first(mut self) -> Self {
        self.query.order = Order::Descending;
        self
    }

    /// Only versions written at or after this time, Unix milliseconds. Specification: `min_date`.
    #[must_use]
    pub fn since(mut self, unix_ms: i64) -> Self {
        self.query.from_ms = Some(unix_ms);
        self
    }

    /// Only versions written at or before this time, Unix milliseconds. Specification: `max_date`.
    #[must_use]
    pub fn until(mut self, unix_ms: i64) -> Self {
        self.query.to_ms = Some(unix_ms);
        self
    }

    /// The next version without its data; None at the end.
    pub async fn next(&mut self) -> Result<Option<KeptVersion>> {
        while self.page.len() == 0 && !self.last_page {
            let engine = self.store.engine().await?;
            let (created_ms, page) = engine.versions(self.query.clone()).await?;
            self.created_ms = created_ms;
            self.last_page = page.len() < self.query.limit;
            self.query.after = page.last().map(|info| info.number).or(self.query.after);
            self.page = page.into_iter();
        }
        Ok(self.page.next().map(|info| KeptVersion {
            label: info
                .label
                .clone()
                .unwrap_or_else(|| version_label(info.written_ms, info.number, self.created_ms)),
            info,
        }))
    }

    /// Reads the next version as [`ProfileStore::get_version`] does, so that [`ReadProfile::set`]
    /// rolls the profile back to it; None at the end. A tombstone comes as the template's data. A
    /// version that is no profile, or does not fit the program's type, is an error, and the call
    /// after that reads the one behind it. Specification: `NextAsync`.
    pub async fn next_profile(&mut self) -> Result<Option<ReadProfile<T>>> {
        loop {
            let number = match self.unread {
                Some(number) => number,
                None => match self.next().await? {
                    Some(version) => version.info.number,
                    None => return Ok(None),
                },
            };
            self.unread = Some(number);
            match self.store.get_version(self.query.key.key(), VersionRef::Number(number)).await {
                // Swept away since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => self.unread = None,
                Err(error) => {
                    if matches!(
                        error.kind(),
                        ErrorKind::Foreign
                            | ErrorKind::NewerData
                            | ErrorKind::Undecodable
                            | ErrorKind::Corrupt
                            | ErrorKind::Damaged
                    ) {
                        self.unread = None;
                    }
                    return Err(error);
                }
                Ok(profile) => {
                    self.unread = None;
                    return Ok(Some(profile));
                }
            }
        }
    }

    /// The versions without their data, as a stream. It ends after an error.
    pub fn stream(self) -> BoxStream<'static, Result<KeptVersion>> {
        stream::try_unfold(self, |mut versions| async move {
            Ok(versions.next().await?.map(|version| (version, versions)))
        })
        .boxed()
    }
}
