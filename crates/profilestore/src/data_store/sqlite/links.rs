//! What commits of versions did beyond their profile.

use rusqlite::params;

use super::{Trouble, head::corrupt, state::Tx};
use crate::{
    data_store::{StoreError, VersionLinks},
    key::ProfileKey,
};

impl Tx<'_> {
    pub(super) fn keep_links(&mut self, at: usize, links: &VersionLinks) -> Result<(), Trouble> {
        let id = self.ensure_head(at)?;
        let text = serde_json::to_string(&links.links).map_err(|err| StoreError::Invalid {
            reason: format!("links cannot be stored: {err}: key=`{}`", self.heads[at].key),
        })?;
        let sql =
            "INSERT OR REPLACE INTO link (head, number, at_ms, links) VALUES (?1, ?2, ?3, ?4)";
        let row = params![id, links.version.cast_signed(), links.at_ms, text];
        self.prepare(sql)?.execute(row)?;
        Ok(())
    }

    pub(super) fn links(
        &mut self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, Trouble> {
        let at = self.head(key)?;
        let Some(id) = self.heads[at].id else { return Ok(Vec::new()) };
        let sql = "SELECT number, at_ms, links FROM link WHERE head = ?1 AND number > ?2 \
            ORDER BY number LIMIT ?3";
        let mut statement = self.prepare(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![id, after.cast_signed(), limit])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let number = row.get::<_, i64>(0)?.cast_unsigned();
            let text = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
            let links = serde_json::from_str(text).map_err(|err| {
                corrupt(format!(
                    "the links of a version cannot be read: {err}: key=`{key}` version=`{number}`"
                ))
            })?;
            found.push(VersionLinks::new(number, row.get(1)?, links));
        }
        Ok(found)
    }
}
