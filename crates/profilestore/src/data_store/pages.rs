//! Where a page of a listing begins, for backends with an index over store, scope and key.
//!
//! A database that is told a value of the first column begins to read at that value, and compares
//! what it reads with the last key of the page before. So each page would be looked for from the
//! first key of its store on, and a listing would cost the square of its length. Left are therefore
//! the columns whose value the query does not tell: they say where in the index to begin.

use super::KeyQuery;

/// The columns, first to last, that must together be greater than these names: those of the key that
/// the page goes on after. None of them when the page is the first.
pub(super) fn begins_after(query: &KeyQuery) -> Vec<(&'static str, &str)> {
    let Some(after) = &query.after else { return Vec::new() };
    let told = match (&query.store, &query.scope) {
        (Some(store), Some(scope)) if store == after.store() && scope == after.scope() => 2,
        (Some(store), _) if store == after.store() => 1,
        _ => 0,
    };
    [("store", after.store()), ("scope", after.scope()), ("key", after.key())]
        .into_iter()
        .skip(told)
        .collect()
}

/// Whether the page begins behind the first key with this prefix, so that it needs no other beginning.
pub(super) fn is_within(query: &KeyQuery, prefix: &str) -> bool {
    matches!(begins_after(query)[..], [("key", after)] if after >= prefix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{data_store::KeyFilter, key::ProfileKey};

    #[test]
    fn a_page_begins_after_what_the_query_does_not_tell() {
        let page = |store: Option<&str>, scope: Option<&str>| KeyQuery {
            store: store.map(str::to_owned),
            scope: scope.map(str::to_owned),
            filter: KeyFilter::All,
            after: Some(ProfileKey::new("B", "global", "7").expect("a key")),
            limit: 1,
        };
        let columns = |query: &KeyQuery| {
            begins_after(query).into_iter().map(|(column, _)| column).collect::<Vec<_>>()
        };
        assert_eq!(columns(&page(None, None)), ["store", "scope", "key"]);
        assert_eq!(columns(&page(None, Some("global"))), ["store", "scope", "key"]);
        assert_eq!(columns(&page(Some("B"), None)), ["scope", "key"]);
        assert_eq!(columns(&page(Some("B"), Some("z"))), ["scope", "key"]);
        assert_eq!(columns(&page(Some("B"), Some("global"))), ["key"]);
        assert_eq!(columns(&page(Some("A"), Some("global"))), ["store", "scope", "key"]);
        assert!(begins_after(&KeyQuery { after: None, ..page(None, None) }).is_empty());
        let within = page(Some("B"), Some("global"));
        assert!(is_within(&within, "7") && is_within(&within, "") && !is_within(&within, "70"));
        assert!(!is_within(&page(Some("B"), None), ""));
    }
}
