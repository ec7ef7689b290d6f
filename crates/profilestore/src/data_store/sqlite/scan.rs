//! Going through a table of which some rows may be unreadable: what can be read is read, and the
//! rest is told.

use std::{collections::BTreeMap, ops::RangeInclusive};

use rusqlite::{Row, params};

use super::{Trouble, key_of_row, schema::is_damage, state::Tx};
use crate::key::ProfileKey;

/// How many rows are asked for at once.
const PIECE: i64 = 500;

/// After so many pieces without a row that can be read, the rest of the table is given up.
const BARREN_PIECES: u32 = 20;

impl Tx<'_> {
    /// Gives each row to `each`, in the order of ids. `sql` takes the id behind which to begin, the
    /// last id and the number of rows; `id` is the column of the row's id. Answers with the ids
    /// whose rows cannot be read, if there are such rows.
    pub(super) fn scan(
        &self,
        sql: &str,
        id: usize,
        mut each: impl FnMut(&Row<'_>) -> Result<(), Trouble>,
    ) -> Result<Vec<i64>, Trouble> {
        let (mut last, mut unread, mut barren) = (0, Vec::new(), 0);
        while barren < BARREN_PIECES {
            match self.piece(sql, id, &mut last, i64::MAX, &mut each) {
                Ok(0) => break,
                Ok(_) => barren = 0,
                Err(Trouble::Sqlite(err)) if is_damage(&err) => {
                    let one_by_one = last + 1..=last.saturating_add(PIECE);
                    last = *one_by_one.end();
                    let found = self.singly(sql, id, one_by_one, &mut unread, &mut each)?;
                    barren = if found { 0 } else { barren + 1 };
                }
                Err(other) => return Err(other),
            }
        }
        Ok(unread)
    }

    /// The rows behind `last`, which moves along. Answers with their number.
    fn piece(
        &self,
        sql: &str,
        id: usize,
        last: &mut i64,
        up_to: i64,
        each: &mut impl FnMut(&Row<'_>) -> Result<(), Trouble>,
    ) -> Result<u64, Trouble> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params![*last, up_to, PIECE])?;
        let mut found = 0;
        while let Some(row) = rows.next()? {
            *last = row.get(id)?;
            found += 1;
            each(row)?;
        }
        Ok(found)
    }

    /// Each of these rows by itself. True when one of them can be read.
    fn singly(
        &self,
        sql: &str,
        id: usize,
        ids: RangeInclusive<i64>,
        unread: &mut Vec<i64>,
        each: &mut impl FnMut(&Row<'_>) -> Result<(), Trouble>,
    ) -> Result<bool, Trouble> {
        let mut any = false;
        for one in ids {
            match self.piece(sql, id, &mut (one - 1), one, each) {
                Ok(found) => any |= found > 0,
                Err(Trouble::Sqlite(err)) if is_damage(&err) => unread.push(one),
                Err(other) => return Err(other),
            }
        }
        Ok(any)
    }

    /// The names of keys by their ids, out of the index alone. As many as can be read.
    pub(super) fn names(&self) -> Result<BTreeMap<i64, ProfileKey>, Trouble> {
        let sql = "SELECT id, store, scope, key FROM head INDEXED BY head_key \
            ORDER BY store, scope, key";
        let mut names = BTreeMap::new();
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        loop {
            match rows.next() {
                Ok(Some(row)) => {
                    if let Ok(key) = key_of_row(row, 1) {
                        names.insert(row.get(0)?, key);
                    }
                }
                Ok(None) => return Ok(names),
                Err(err) if is_damage(&err) => return Ok(names),
                Err(err) => return Err(err.into()),
            }
        }
    }

    /// All keys whose names can be read: in the index or in the table.
    pub(super) fn every_name(&self) -> Result<Vec<ProfileKey>, Trouble> {
        let mut names: Vec<ProfileKey> = self.names()?.into_values().collect();
        let sql = "SELECT id, store, scope, key FROM head WHERE id > ?1 AND id <= ?2 \
            ORDER BY id LIMIT ?3";
        self.scan(sql, 0, |row| {
            names.extend(key_of_row(row, 1).ok());
            Ok(())
        })?;
        names.sort();
        names.dedup();
        Ok(names)
    }
}
