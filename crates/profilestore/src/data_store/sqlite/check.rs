//! Checking a store: SQLite's pages, what our rows promise each other, and that every value is the
//! one that was written.

use std::collections::BTreeSet;

use bytes::Bytes;
use rusqlite::Connection;

use super::{
    SqliteStore, Trouble,
    head::{HEAD_COLUMN_COUNT, HEAD_COLUMNS, Head, unsigned},
    heads,
    schema::{PINNED, REMOVED, is_damage},
    state::{Tx, VERSION_COLUMNS, info_of_row, value_of_column},
};
use crate::{
    data_store::{LeaseState, MessageId, StoreError, StoredMessage, VersionInfo, checksum},
    key::ProfileKey,
};

/// How many keys are looked at between two reports of progress.
const PIECE: u64 = 500;

/// How many problems are listed: beyond that it is the file that is broken, not a record.
const MAX_PROBLEMS: usize = 1000;

/// How many problems SQLite's own check of the pages tells.
const MAX_PAGE_PROBLEMS: usize = 100;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Keys looked at, those of the library's own books included.
    pub keys: u64,
    /// Those without the library's own books.
    pub profiles: u64,
    /// When the newest version of a profile was stored, Unix milliseconds.
    pub newest_ms: Option<i64>,
    /// Kept versions looked at, those of the library's own books included.
    pub versions: u64,
    /// Those of profiles.
    pub profile_versions: u64,
    /// Waiting messages looked at.
    pub messages: u64,
    /// What is wrong, with the key's name where there is one.
    pub problems: Vec<String>,
    /// Versions that are damaged. All is well when there are neither these nor problems.
    pub damaged: Vec<DamagedValue>,
    /// How many more problems and damaged versions there are than the 1,000 of each that are
    /// listed.
    pub unlisted: u64,
}

/// A version whose value is not the one that was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct DamagedValue {
    /// The key.
    pub key: ProfileKey,
    /// The version's number.
    pub version: u64,
}

/// What a check reads and finds whole, told to a caller of [`SqliteStore::check_each`].
#[derive(Debug, Clone, Copy)]
pub enum Checked<'a> {
    /// A key, and which session holds it.
    Key(&'a ProfileKey, &'a LeaseState),
    /// A message that waits for the key that was told last, by ascending index.
    Message(&'a ProfileKey, &'a StoredMessage),
    /// A version whose value is the one that was written, and the value; None for a tombstone. When
    /// it was superseded is not told. All versions come behind all keys, in no order.
    Version(&'a ProfileKey, &'a VersionInfo, Option<&'a [u8]>),
}

impl SqliteStore {
    /// Checks the file's pages and every key's records, as they are at this moment, while the store
    /// is in use. `progress` is told how many keys of how many are done. Waits for the disk, so
    /// call it outside async code or on the blocking pool.
    pub fn check(&self, progress: impl FnMut(u64, u64)) -> Result<CheckReport, StoreError> {
        self.inner.read_and_sync(|tx| tx.check_all(&mut |_| {}, progress))
    }

    /// The same, and tells what it reads to `each`. So a caller that looks into every value, as
    /// `profilestore check` does, reads the store once, from its first row to its last, and all
    /// that it is told is of one moment. While it runs, the log of the store grows.
    pub fn check_each(
        &self,
        mut each: impl FnMut(Checked<'_>),
        progress: impl FnMut(u64, u64),
    ) -> Result<CheckReport, StoreError> {
        self.inner.read_and_sync(|tx| tx.check_all(&mut each, progress))
    }

    /// The names of all keys, as far as they can be read in a damaged file, in order. Waits for the
    /// disk, so call it outside async code or on the blocking pool.
    pub fn every_key(&self) -> Result<Vec<ProfileKey>, StoreError> {
        self.inner.read_and_sync(|tx| tx.every_name())
    }
}

impl CheckReport {
    fn problem(&mut self, what: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(what);
        } else {
            self.unlisted += 1;
        }
    }

    fn note(&mut self, trouble: Trouble) {
        self.problem(trouble.not_applied().to_string());
    }
}

/// SQLite's own check of a file. It ends after so many problems as are listed.
pub(super) fn pages(conn: &Connection) -> Result<Vec<String>, Trouble> {
    let mut statement = conn.prepare(&format!("PRAGMA integrity_check({MAX_PAGE_PROBLEMS})"))?;
    let lines: Vec<String> =
        statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut lines: Vec<_> = lines.into_iter().filter(|line| line != "ok").collect();
    if lines.len() >= MAX_PAGE_PROBLEMS {
        lines.push("SQLite's own check ends here; there may be more".into());
    }
    Ok(lines)
}

impl Tx<'_> {
    pub(super) fn check_all(
        &self,
        each: &mut dyn FnMut(Checked<'_>),
        mut progress: impl FnMut(u64, u64),
    ) -> Result<CheckReport, Trouble> {
        let mut report = CheckReport::default();
        match pages(self.conn) {
            Ok(problems) => report.problems = problems,
            Err(trouble) => report.note(trouble),
        }
        let pages_are_damaged = !report.problems.is_empty();
        let total = self.count("SELECT count(*) FROM head").unwrap_or_default();
        let sql = format!(
            "SELECT h.store, h.scope, h.key, {HEAD_COLUMNS}, h.held FROM head h \
                WHERE h.id > ?1 AND h.id <= ?2 ORDER BY h.id LIMIT ?3"
        );
        let held = 3 + HEAD_COLUMN_COUNT;
        let unread = self.scan(&sql, 3, |row| {
            let head = super::key_of_row(row, 0).and_then(|key| Head::of_row(key, row, 3, None));
            report.keys += 1;
            match head {
                Ok(head) => {
                    if !head.key.is_reserved() {
                        report.profiles += 1;
                        let stored_ms = (head.version > 0).then_some(head.stored_ms);
                        report.newest_ms = report.newest_ms.max(stored_ms);
                    }
                    if pages_are_damaged && !self.finds(&head.key)? {
                        let key = &head.key;
                        report.problem(format!("a key is not found by its name: key=`{key}`"));
                    }
                    each(Checked::Key(&head.key, &head.lease));
                    if let Err(err) = self.check_head(&head, row.get(held)?, &mut report, each) {
                        let why = err.not_applied();
                        let key = &head.key;
                        report
                            .problem(format!("a key's records cannot be read: {why}: key=`{key}`"));
                    }
                }
                Err(err) => report.note(err),
            }
            if report.keys.is_multiple_of(PIECE) || report.keys == total {
                progress(report.keys, total);
            }
            Ok(())
        })?;
        if !unread.is_empty() {
            let names = self.names()?;
            for key in unread.iter().filter_map(|id| names.get(id)) {
                report.problem(format!("a key's row cannot be read: key=`{key}`"));
            }
        }
        if report.problems.is_empty() {
            self.check_strays(&mut report)?;
        }
        self.find_damaged_values(&mut report, each)?;
        Ok(report)
    }

    /// Whether the index leads to a key.
    fn finds(&self, key: &ProfileKey) -> Result<bool, Trouble> {
        let sql = "SELECT id FROM head INDEXED BY head_key \
            WHERE store = ?1 AND scope = ?2 AND key = ?3";
        match self.prepare(sql)?.exists([key.store(), key.scope(), key.key()]) {
            Err(err) if is_damage(&err) => Ok(false),
            found => Ok(found?),
        }
    }

    /// The versions whose values are damaged, as far as keys lead to them; not more than a check
    /// lists. Tells the others to `each`.
    fn find_damaged_values(
        &self,
        report: &mut CheckReport,
        each: &mut dyn FnMut(Checked<'_>),
    ) -> Result<(), Trouble> {
        let sql = format!(
            "SELECT h.store, h.scope, h.key, v.id, v.checksum, v.value, {VERSION_COLUMNS} \
             FROM version v JOIN head h ON h.id = v.head \
             WHERE v.id > ?1 AND v.id <= ?2 ORDER BY v.id LIMIT ?3"
        );
        let (damaged, unlisted) = (&mut report.damaged, &mut report.unlisted);
        let mut note = |key, version| {
            if damaged.len() < MAX_PROBLEMS {
                damaged.push(DamagedValue { key, version });
            } else {
                *unlisted += 1;
            }
        };
        let unread = self.scan(&sql, 3, |row| {
            // A key that is no name is told by the check of its row.
            let Ok(key) = super::key_of_row(row, 0) else { return Ok(()) };
            let version = row.get::<_, i64>(6)?.cast_unsigned();
            let stored = row.get::<_, Option<u32>>(4).unwrap_or_default();
            match (info_of_row(&key, row, 6), value_of_column(row, 5)) {
                (Ok(info), Ok(value)) if checksum::verify(&key, &info, value, stored).is_ok() => {
                    each(Checked::Version(&key, &info, value));
                }
                // A row that cannot be understood is damaged, and so is a value of another type.
                _ => note(key, version),
            }
            Ok(())
        })?;
        // The pages of a value may be damaged, and its row whole.
        let sql = "SELECT h.store, h.scope, h.key, v.number FROM version v \
            JOIN head h ON h.id = v.head WHERE v.id = ?1";
        for id in unread {
            let mut statement = self.prepare(sql)?;
            let mut rows = statement.query([id])?;
            let Ok(Some(row)) = rows.next() else { continue };
            let Ok(key) = super::key_of_row(row, 0) else { continue };
            note(key, row.get::<_, i64>(3)?.cast_unsigned());
        }
        report.damaged.sort();
        Ok(())
    }

    fn check_head(
        &self,
        head: &Head,
        held: bool,
        report: &mut CheckReport,
        each: &mut dyn FnMut(Checked<'_>),
    ) -> Result<(), Trouble> {
        let key = &head.key;
        let mut wrong = Vec::new();
        if (head.version == 0) != (head.current == 0) {
            wrong.push(format!(
                "a key's version and its row disagree: key=`{key}` version=`{}`",
                head.version
            ));
        }
        if held != head.lease.is_held() {
            wrong.push(format!("a key is listed as held wrongly: key=`{key}` listed=`{held}`"));
        }
        let mut first = true;
        self.walk(head, |row| {
            report.versions += 1;
            report.profile_versions += u64::from(!key.is_reserved());
            let number = row.info.number;
            if std::mem::take(&mut first) {
                let flags = head.flags & (REMOVED | PINNED);
                let found = if row.info.removed { REMOVED } else { 0 }
                    | if row.info.pinned { PINNED } else { 0 };
                if number != head.version {
                    let expected = head.version;
                    wrong.push(format!(
                        "a key points to another version than it names: key=`{key}` \
                            expected=`{expected}` found=`{number}`"
                    ));
                } else if flags != found || row.info.stored_ms != head.stored_ms {
                    wrong.push(format!(
                        "a key and its current version disagree: key=`{key}` version=`{number}`"
                    ));
                }
            }
            if row.info.removed && row.info.bytes > 0 {
                wrong.push(format!("a tombstone has a value: key=`{key}` version=`{number}`"));
            }
            true
        })?;
        self.check_messages(head, &mut wrong, report, each)?;
        let listed: BTreeSet<i64> = heads::users(&head.users).collect();
        let id = head.id.unwrap_or(0);
        for user in &listed {
            let mut statement = self.prepare(
                "SELECT 1 FROM profile_user WHERE user = ?1 AND head \
                = ?2",
            )?;
            if !statement.exists([*user, id])? {
                wrong.push(format!("a user is missing from the index: key=`{key}` user=`{user}`"));
            }
        }
        wrong.into_iter().for_each(|problem| report.problem(problem));
        Ok(())
    }

    fn check_messages(
        &self,
        head: &Head,
        wrong: &mut Vec<String>,
        report: &mut CheckReport,
        each: &mut dyn FnMut(Checked<'_>),
    ) -> Result<(), Trouble> {
        let key = &head.key;
        let sql = "SELECT number, created_ms, name, digest, locked, revision, sent_ms, payload \
            FROM message WHERE head = ?1 ORDER BY number";
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query([head.id])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += 1;
            let index = row.get::<_, i64>(0)?.cast_unsigned();
            if index == 0 || index > head.last_message {
                let last = head.last_message;
                wrong.push(format!(
                    "a message's index was never given out: key=`{key}` \
                    index=`{index}` last=`{last}`"
                ));
            }
            let id = MessageId::stored(
                row.get(1)?,
                row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?,
            );
            let digest = row.get::<_, [u8; 16]>(3).ok();
            if id.as_ref().is_none_or(|id| digest != Some(id.digest().0)) {
                wrong.push(format!(
                    "a message is filed under another identity: key=`{key}` index=`{index}`"
                ));
            }
            let Some(id) = id else { continue };
            let payload = row.get_ref(7)?.as_blob().map_err(rusqlite::Error::from)?;
            let message = StoredMessage {
                index,
                id,
                payload: Bytes::copy_from_slice(payload),
                locked: row.get(4)?,
                revision: unsigned(row, 5)?,
                sent_ms: row.get(6)?,
            };
            each(Checked::Message(key, &message));
        }
        report.messages += count;
        if count != head.waiting {
            let expected = head.waiting;
            wrong.push(format!(
                "a key counts other messages than wait: key=`{key}` \
                expected=`{expected}` found=`{count}`"
            ));
        }
        Ok(())
    }

    /// Orphaned rows; checked only once owned rows pass.
    fn check_strays(&self, report: &mut CheckReport) -> Result<(), Trouble> {
        let versions = self.count("SELECT count(*) FROM version")?;
        if versions != report.versions {
            let reached = report.versions;
            report.problems.push(format!(
                "versions that no key leads to: rows=`{versions}` reached=`{reached}`"
            ));
        }
        for (what, sql) in [
            ("messages", "SELECT count(*) FROM message WHERE head NOT IN (SELECT id FROM head)"),
            ("receipts", "SELECT count(*) FROM receipt WHERE head NOT IN (SELECT id FROM head)"),
            ("links", "SELECT count(*) FROM link WHERE head NOT IN (SELECT id FROM head)"),
            ("notices", "SELECT count(*) FROM notice WHERE head NOT IN (SELECT id FROM head)"),
        ] {
            let strays = self.count(sql)?;
            if strays > 0 {
                report.problems.push(format!("{what} of no key: rows=`{strays}`"));
            }
        }
        let users = self.count("SELECT count(*) FROM profile_user")?;
        let mut listed = 0;
        let mut statement = self.prepare("SELECT users FROM head WHERE length(users) > 0")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let packed = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
            listed += heads::users(packed).collect::<BTreeSet<_>>().len() as u64;
        }
        if users != listed {
            report.problems.push(format!(
                "the index of users has other rows than the keys list: \
                    rows=`{users}` listed=`{listed}`"
            ));
        }
        self.all_servers()?;
        Ok(())
    }

    fn count(&self, sql: &'static str) -> Result<u64, Trouble> {
        Ok(self.prepare(sql)?.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned())
    }
}
