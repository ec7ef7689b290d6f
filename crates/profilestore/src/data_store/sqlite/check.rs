//! Checking a store: SQLite's pages, what our rows promise each other, and that every value is the
//! one that was written.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::{
    SqliteStore, Trouble, apply,
    schema::{PINNED, REMOVED},
    state::{HEAD_COLUMNS, Head, Tx},
};
use crate::{
    data_store::{MessageId, StoreError, checksum},
    key::ProfileKey,
};

/// How many keys are looked at between two reports of progress.
const PIECE: i64 = 500;

/// At how many problems a check ends: beyond that it is the file that is broken, not a record.
const MAX_PROBLEMS: usize = 1000;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Keys looked at.
    pub keys: u64,
    /// Kept versions looked at.
    pub versions: u64,
    /// Waiting messages looked at.
    pub messages: u64,
    /// What is wrong, with the key's name where there is one.
    pub problems: Vec<String>,
    /// Versions whose values are damaged. All is well when there are neither these nor problems.
    pub damaged: Vec<DamagedValue>,
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

impl SqliteStore {
    /// Checks the file's pages and every key's records, as they are at this moment, while the store
    /// is in use. `progress` is told how many keys of how many are done. Waits for the disk, so
    /// call it outside async code or on the blocking pool.
    pub fn check(&self, progress: impl FnMut(u64, u64)) -> Result<CheckReport, StoreError> {
        self.inner.read_now(|tx| tx.check_all(progress))
    }
}

/// SQLite's own check of a file.
pub(super) fn pages(conn: &Connection) -> Result<Vec<String>, Trouble> {
    let mut statement = conn.prepare("PRAGMA integrity_check(100)")?;
    let lines: Vec<String> =
        statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

impl Tx<'_> {
    fn check_all(&mut self, mut progress: impl FnMut(u64, u64)) -> Result<CheckReport, Trouble> {
        let mut report = CheckReport { problems: pages(self.conn)?, ..CheckReport::default() };
        let total = self.count("SELECT count(*) FROM head")?;
        let sql = format!(
            "SELECT h.store, h.scope, h.key, {HEAD_COLUMNS}, h.held FROM head h WHERE \
                h.id > ?1 ORDER BY h.id LIMIT ?2"
        );
        let mut last = 0;
        loop {
            let mut heads = Vec::new();
            let mut seen = 0;
            {
                let mut statement = self.prepare(&sql)?;
                let mut rows = statement.query([last, PIECE])?;
                while let Some(row) = rows.next()? {
                    (last, seen) = (row.get(3)?, seen + 1);
                    let head = super::key_of_row(row, 0).and_then(|key| Head::of_row(key, row, 3));
                    match head {
                        Ok(head) => heads.push((head, row.get::<_, bool>(16)?)),
                        Err(err) => report.problems.push(err.not_applied().to_string()),
                    }
                }
            }
            for (head, held) in &heads {
                if let Err(err) = self.check_head(head, *held, &mut report) {
                    report.problems.push(err.not_applied().to_string());
                }
            }
            report.keys += seen;
            progress(report.keys, total);
            if seen == 0 || report.problems.len() >= MAX_PROBLEMS {
                break;
            }
        }
        if report.problems.is_empty() {
            self.check_strays(&mut report)?;
        }
        report.damaged = self.damaged_values()?;
        Ok(report)
    }

    /// The versions whose values are damaged, as far as keys lead to them; not more than a check
    /// lists.
    pub(super) fn damaged_values(&self) -> Result<Vec<DamagedValue>, Trouble> {
        let sql = "SELECT h.store, h.scope, h.key, v.number, v.flags, v.checksum, v.value \
            FROM version v JOIN head h ON h.id = v.head ORDER BY v.id";
        let mut damaged = Vec::new();
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()?
            && damaged.len() < MAX_PROBLEMS
        {
            // A key that is no name is told by the check of its row.
            let Ok(key) = super::key_of_row(row, 0) else { continue };
            let version = row.get::<_, i64>(3)?.cast_unsigned();
            let removed = row.get::<_, i64>(4)? & REMOVED != 0;
            let stored = row.get::<_, Option<u32>>(5).unwrap_or_default();
            let value = row.get_ref(6)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
            if checksum::verify(&key, version, removed, value, stored).is_err() {
                damaged.push(DamagedValue { key, version });
            }
        }
        damaged.sort();
        Ok(damaged)
    }

    fn check_head(&self, head: &Head, held: bool, report: &mut CheckReport) -> Result<(), Trouble> {
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
        self.check_messages(head, &mut wrong, report)?;
        let listed: BTreeSet<i64> = apply::users(&head.users).collect();
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
        report.problems.append(&mut wrong);
        Ok(())
    }

    fn check_messages(
        &self,
        head: &Head,
        wrong: &mut Vec<String>,
        report: &mut CheckReport,
    ) -> Result<(), Trouble> {
        let key = &head.key;
        let mut statement =
            self.prepare("SELECT number, created_ms, name, digest FROM message WHERE head = ?1")?;
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
            if id.is_none_or(|id| row.get::<_, [u8; 16]>(3).ok() != Some(id.digest().0)) {
                wrong.push(format!(
                    "a message is filed under another identity: key=`{key}` index=`{index}`"
                ));
            }
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
            listed += apply::users(packed).collect::<BTreeSet<_>>().len() as u64;
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

    fn count(&self, sql: &str) -> Result<u64, Trouble> {
        Ok(self.prepare(sql)?.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned())
    }
}
