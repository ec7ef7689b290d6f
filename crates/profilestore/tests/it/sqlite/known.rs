//! Heads that the writer knows from its own transactions: what another connection wrote counts all
//! the same, and what was rolled back does not.

use profilestore::data_store::ConflictKind;

use super::*;

#[tokio::test]
async fn what_another_connection_wrote_to_a_known_head_counts() {
    let dir = folder();
    let store = open(&path(&dir));
    put(&store, &key("k"), "1").await.unwrap();
    let before = put(&store, &key("k"), "2").await.unwrap();
    let other = rusqlite::Connection::open(path(&dir)).unwrap();
    assert_eq!(other.execute("UPDATE head SET epoch = 7", []).unwrap(), 1);
    let late = store.commit_one(make(&store, vec![write(&before, "3")]).await).await;
    let Err(StoreError::Conflict(conflict)) = late else { panic!("it was applied: {late:?}") };
    let found = conflict.state.map(|state| state.epoch);
    assert_eq!((conflict.kind, found), (ConflictKind::Epoch, Some(7)));
    let after = put(&store, &key("k"), "3").await.unwrap();
    assert_eq!((after.epoch, after.version), (7, 3));
}

/// A commit that does not fit into the file takes those of its transaction with it.
#[tokio::test]
async fn a_head_that_was_rolled_back_is_not_known() {
    let dir = folder();
    let options = SqliteOptions { max_file_bytes: Some(1 << 20), ..fast() };
    let store = SqliteStore::open(path(&dir), options).unwrap();
    let before = put(&store, &key("k"), "1").await.unwrap();
    let small = make(&store, vec![write(&before, "2")]).await;
    let large = make(&store, vec![write(&at(&key("large"), 0), &"x".repeat(2 << 20))]).await;
    for reply in store.commit(vec![small, large]).await {
        assert!(matches!(reply, Err(StoreError::Unavailable { .. })), "{reply:?}");
    }
    let again = make(&store, vec![write(&before, "2")]).await;
    let after = store.commit_one(again).await.unwrap().states.remove(0);
    assert_eq!((after.version, text(&after)), (2, Some("2")));
}
