//! What stores hold of the audit log, asked of several of them.

use std::collections::BTreeSet;

use profilestore::{
    Attribution, GameServer,
    audit::{AuditEntry, AuditQuery, audit_entries},
    data_store::DataStore,
};

async fn found(store: &dyn DataStore, mut query: AuditQuery) -> Vec<AuditEntry> {
    let mut all = Vec::new();
    loop {
        let page = audit_entries(store, &query).await.expect("the log can be read");
        assert_eq!(page.unreadable, []);
        all.extend(page.entries);
        let Some(next) = page.next else { return all };
        query.after = Some(next);
    }
}

/// Each profile that the log is about has the entries that a walk through all of it finds, and an
/// erasure that an earlier program left half done is completed by the next one.
pub(crate) async fn entries_are_found_by_their_profiles<S: DataStore + Clone>(store: &S) {
    let all = found(store, AuditQuery::default()).await;
    let keys: BTreeSet<_> = all.iter().flat_map(|entry| entry.keys.clone()).collect();
    assert!(all.len() >= 5 && keys.len() >= 3, "{all:?}");
    for key in keys {
        let about: Vec<_> = all.iter().filter(|entry| entry.keys.contains(&key)).cloned().collect();
        let query = AuditQuery { key: Some(key), ..AuditQuery::default() };
        assert_eq!(found(store, query).await, about);
    }
    let server = GameServer::builder(store.clone()).start().await.expect("a server starts");
    let report = server.operator(Attribution::new("ann")).erase_user(9, false).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    let erased = |entry: &AuditEntry| {
        let about = entry.keys.iter().any(|key| key.key() == "bob");
        about && entry.action != "erase" && !entry.details.is_empty()
    };
    let left: Vec<_> =
        found(store, AuditQuery::default()).await.into_iter().filter(erased).collect();
    assert_eq!(left, [], "user 9's profile was erased, and so was its content in the log");
    assert!(server.shutdown().await.is_complete());
}
