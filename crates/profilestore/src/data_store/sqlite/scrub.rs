//! Zeroing what SQLite leaves of rows in unused parts of pages, a slice of the file at a time, so
//! that commits wait for one slice and not until a new file is written.
//!
//! `secure_delete` zeroes what is deleted. But when SQLite moves rows between the pages of a table
//! or an index, remains of them stay in the space between a page's list of rows and the rows. One
//! pass over all pages after an erasure is enough: nothing copies that space, and what is left in
//! it later is of rows that are there.
//!
//! Pages are read and written in transactions like all others, by `sqlite_dbpage`. SQLite has that
//! where it is built with `SQLITE_ENABLE_DBPAGE_VTAB`. How a page is made is documented in SQLite's
//! `fileformat2.html`.

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use rusqlite::{OptionalExtension as _, params};

use super::{Inner, SqliteStore, Trouble, state::Tx};
use crate::data_store::{StoreError, StoreFiles};

/// How many pages are looked at in one transaction: 1 MB.
const SLICE: u32 = 256;

/// How long the file is free between two of them: other processes look once in a millisecond
/// whether it is their turn.
const PAUSE: Duration = Duration::from_millis(5);

/// Up to here the first byte of a page that is in no tree is 0 or 1: its first four bytes are the
/// number of another page, or 0. Those of trees begin with 2, 5, 10 or 13. So do the maps of pages
/// in files with `auto_vacuum`, which are therefore left to [`SqliteStore::vacuum`].
///
/// [`SqliteStore::vacuum`]: super::SqliteStore::vacuum
const MOST_PAGES: u32 = 1 << 25;

/// The first page holds the schema, and the file's header.
const FIRST: u32 = 2;

#[async_trait]
impl StoreFiles for SqliteStore {
    async fn clean(&self, progress: &mut (dyn FnMut(u64, u64) + Send)) -> Result<bool, StoreError> {
        let is_clean = self.inner.scrub(progress).await?;
        if is_clean {
            self.empty_log().await?;
        }
        Ok(is_clean)
    }

    async fn rewrite(&self) -> Result<(), StoreError> {
        self.vacuum().await
    }
}

impl Inner {
    /// Cleans all pages that there are now. False, and nothing is done, where SQLite gives no
    /// access to pages, or the file has too many to tell what they are.
    pub(super) async fn scrub(
        self: &Arc<Self>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<bool, StoreError> {
        let Some(pages) = self.read(|tx| tx.pages_to_scrub()).await? else { return Ok(false) };
        let mut next = FIRST;
        while next <= pages {
            progress(u64::from(next), u64::from(pages));
            next = self.write(move |tx| tx.scrub(next, pages)).await?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(true)
    }
}

impl Tx<'_> {
    /// How many pages the file has, if they can be cleaned.
    fn pages_to_scrub(&self) -> Result<Option<u32>, Trouble> {
        let sql = "SELECT (SELECT page_count FROM pragma_page_count),
            (SELECT count(*) FROM pragma_module_list WHERE name = 'sqlite_dbpage')
            AND (SELECT auto_vacuum FROM pragma_auto_vacuum) = 0";
        let (pages, has_access): (u32, bool) =
            self.prepare(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Some(pages).filter(|pages| has_access && *pages < MOST_PAGES))
    }

    /// Cleans a slice, and answers where the next one begins.
    fn scrub(&self, first: u32, last: u32) -> Result<u32, Trouble> {
        const RESERVED_AT: usize = 20;
        // The largest root page, which is 0 without `auto_vacuum`.
        const AUTO_VACUUM_AT: Range<usize> = 52..56;
        let mut read = self.prepare("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
        let mut write = self.prepare("UPDATE sqlite_dbpage SET data = ?2 WHERE pgno = ?1")?;
        let header: Vec<u8> = read.query_row([1], |row| row.get(0))?;
        let reserved = header.get(RESERVED_AT).copied().unwrap_or_default();
        // Another program may have written the file anew, with such maps.
        if header.get(AUTO_VACUUM_AT).is_none_or(|root| root != [0; 4]) {
            return Ok(last + 1);
        }
        let usable = header.len().saturating_sub(usize::from(reserved));
        let end = first.saturating_add(SLICE).min(last + 1);
        for number in first..end {
            let page: Option<Vec<u8>> = read.query_row([number], |row| row.get(0)).optional()?;
            // Another program may have made the file shorter.
            let Some(mut page) = page else { return Ok(last + 1) };
            if clean(&mut page, usable) {
                write.execute(params![number, page])?;
            }
        }
        Ok(end)
    }
}

/// Zeroes what of a page is in no row. False when it was zero, and for a page of no tree.
fn clean(page: &mut [u8], usable: usize) -> bool {
    let mut changed = false;
    for part in unused(page, usable).unwrap_or_default() {
        let part = &mut page[part];
        if part.iter().any(|byte| *byte != 0) {
            part.fill(0);
            changed = true;
        }
    }
    changed
}

/// What of a page of a tree is in no row. None for another page, and for a damaged one.
fn unused(page: &[u8], usable: usize) -> Option<Vec<Range<usize>>> {
    let number = |at: usize| {
        let bytes = page.get(at..at + 2)?;
        Some(usize::from(u16::from_be_bytes(bytes.try_into().ok()?)))
    };
    let header = match page.first()? {
        2 | 5 => 12,
        10 | 13 => 8,
        _ => return None,
    };
    let list_end = header + 2 * number(3)?;
    let rows_begin = match number(5)? {
        0 => 1 << 16,
        at => at,
    };
    if list_end > rows_begin || rows_begin > usable || usable > page.len() {
        return None;
    }
    let mut unused = Vec::new();
    let mut block = number(1)?;
    while block != 0 {
        let (next, bytes) = (number(block)?, number(block + 2)?);
        let end = block + bytes;
        let is_whole = block >= rows_begin && bytes >= 4 && end <= usable;
        if !is_whole || (next != 0 && next < end) {
            return None;
        }
        // The next block's place and this one's size stay.
        unused.push(block + 4..end);
        block = next;
    }
    unused.push(list_end..rows_begin);
    Some(unused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 512;

    /// A leaf of a table with two rows, at 500 and 480, and a free block of 10 bytes between them.
    fn leaf() -> Vec<u8> {
        let mut page = vec![0xaa; PAGE];
        page[..8].copy_from_slice(&[13, 1, 230, 0, 2, 1, 224, 0]);
        page[8..12].copy_from_slice(&[1, 244, 1, 224]);
        page[486..490].copy_from_slice(&[0, 0, 0, 10]);
        page
    }

    #[test]
    fn a_page_keeps_its_rows_and_nothing_else() {
        let mut page = leaf();
        assert!(clean(&mut page, PAGE));
        assert!(page[12..480].iter().all(|byte| *byte == 0), "between the list and the rows");
        assert_eq!(page[486..496], [0, 0, 0, 10, 0, 0, 0, 0, 0, 0]);
        let mut expected = leaf();
        expected[12..480].fill(0);
        expected[490..496].fill(0);
        assert_eq!(page, expected);
        assert!(!clean(&mut page, PAGE), "it is clean");
    }

    #[test]
    fn pages_of_no_tree_and_damaged_ones_stay_as_they_are() {
        let mut no_tree = leaf();
        no_tree[0] = 0;
        let mut list_in_rows = leaf();
        list_in_rows[3] = 1;
        let mut rows_behind_the_end = leaf();
        rows_behind_the_end[5] = 3;
        let mut block_leads_back = leaf();
        block_leads_back[486..488].copy_from_slice(&[1, 230]);
        let mut block_too_long = leaf();
        block_too_long[489] = 200;
        let cases = [no_tree, list_in_rows, rows_behind_the_end, block_leads_back, block_too_long];
        for (n, page) in cases.into_iter().enumerate() {
            let mut cleaned = page.clone();
            assert!(!clean(&mut cleaned, PAGE), "case {n}");
            assert_eq!(cleaned, page, "case {n}");
        }
    }
}
