//! What a writer need not find out again for each commit: the statements of its transaction, and
//! the leases that it has read.

use std::{
    cell::RefCell,
    collections::HashMap,
    ops::{Deref, DerefMut},
    rc::Rc,
    sync::Arc,
};

use rusqlite::{CachedStatement, Connection, Statement};

use crate::data_store::LeaseState;

/// Which statement: the place of its text in the program, and its length.
type Text = (usize, usize);

/// The statements of one transaction that are not in use. The connection's own cache finds them by
/// their text, which costs as much as running a small one; this finds them by where the text is.
#[derive(Default)]
pub(super) struct Statements<'c>(Rc<RefCell<Vec<(Text, CachedStatement<'c>)>>>);

impl<'c> Statements<'c> {
    pub(super) fn get(
        &self,
        conn: &'c Connection,
        sql: &'static str,
    ) -> rusqlite::Result<Borrowed<'c>> {
        let text = (sql.as_ptr() as usize, sql.len());
        let mut kept = self.0.borrow_mut();
        let statement = match kept.iter().position(|(other, _)| *other == text) {
            Some(at) => kept.swap_remove(at).1,
            None => conn.prepare_cached(sql)?,
        };
        Ok(Borrowed { statement: Some(statement), text, home: Self(self.0.clone()) })
    }
}

/// A statement in use.
pub(super) struct Borrowed<'c> {
    /// Taken when this is dropped, and not before.
    statement: Option<CachedStatement<'c>>,
    text: Text,
    home: Statements<'c>,
}

impl<'c> Deref for Borrowed<'c> {
    type Target = Statement<'c>;

    fn deref(&self) -> &Statement<'c> {
        self.statement.as_ref().expect("it is in use")
    }
}

impl<'c> DerefMut for Borrowed<'c> {
    fn deref_mut(&mut self) -> &mut Statement<'c> {
        self.statement.as_mut().expect("it is in use")
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(statement) = self.statement.take() {
            self.home.0.borrow_mut().push((self.text, statement));
        }
    }
}

/// How many leases are kept: those of the sessions that are saved again and again.
const LEASES: usize = 8192;

/// Leases by their text, as it is stored: a save reads its session's lease and leaves it as it is.
#[derive(Default)]
pub(super) struct Leases(RefCell<HashMap<Box<str>, Arc<LeaseState>>>);

impl Leases {
    pub(super) fn read(&self, text: &str) -> serde_json::Result<Arc<LeaseState>> {
        let mut known = self.0.borrow_mut();
        if let Some(lease) = known.get(text) {
            return Ok(lease.clone());
        }
        let lease: Arc<LeaseState> = Arc::new(serde_json::from_str(text)?);
        if known.len() >= LEASES {
            known.clear();
        }
        known.insert(text.into(), lease.clone());
        Ok(lease)
    }
}

/// A lease, by what is known or anew.
pub(super) fn read_lease(
    known: Option<&Leases>,
    text: &str,
) -> serde_json::Result<Arc<LeaseState>> {
    match known {
        Some(leases) => leases.read(text),
        None => serde_json::from_str(text).map(Arc::new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_found_again_and_one_in_use_is_not_lent_twice() {
        const SQL: &str = "SELECT ?1";
        let conn = Connection::open_in_memory().unwrap();
        let statements = Statements::default();
        let ask = |n: i64| -> i64 {
            let mut statement = statements.get(&conn, SQL).unwrap();
            let mut other = statements.get(&conn, SQL).unwrap();
            let mut rows = statement.query([n]).unwrap();
            let mut others = other.query([n + 1]).unwrap();
            let found: i64 = rows.next().unwrap().unwrap().get(0).unwrap();
            let next: i64 = others.next().unwrap().unwrap().get(0).unwrap();
            assert_eq!(next, found + 1);
            found
        };
        assert_eq!((ask(1), ask(5)), (1, 5));
        assert_eq!(statements.0.borrow().len(), 2);
    }

    #[test]
    fn leases_are_bounded_and_read_as_they_are_stored() {
        let leases = Leases::default();
        for n in 0..=LEASES as u64 {
            let lease = LeaseState { load_count: n, ..LeaseState::default() };
            let text = serde_json::to_string(&lease).unwrap();
            assert_eq!(*leases.read(&text).unwrap(), lease);
            assert_eq!(*leases.read(&text).unwrap(), lease);
        }
        assert_eq!(leases.0.borrow().len(), 1);
        assert!(leases.read("{").is_err());
    }
}
