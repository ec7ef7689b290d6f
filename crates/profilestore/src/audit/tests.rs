use uuid::Uuid;

use super::*;
use crate::{
    ProfileKey,
    data_store::{
        Commit, CommitId, ConflictKind, DataStore as _, DataStoreExt as _, MemoryStore, Returning,
    },
    env::{Env, ManualClock},
    error::ErrorKind,
};

fn profile(name: &str) -> ProfileKey {
    ProfileKey::new("S", "global", name).unwrap()
}

async fn book(
    store: &MemoryStore,
    env: &Env,
    entry: &AuditEntry,
    version: u64,
) -> Result<(), crate::data_store::StoreError> {
    let incarnation = store.identity().await.unwrap().incarnation;
    let changes = vec![entry.change_at(version).unwrap()];
    let commit = Commit {
        id: CommitId(env.uuid()),
        incarnation,
        from: None,
        changes,
        returning: Returning::HEAD,
        fingerprint: None,
    };
    store.commit_one(commit).await.map(drop)
}

#[tokio::test]
async fn entries_come_newest_first_and_are_found_by_time_profile_author_and_operation() {
    let clock = ManualClock::default();
    let env = clock.env(1);
    let store = MemoryStore::new(env.clone());
    let mut operations = Vec::new();
    for n in 0..5 {
        clock.advance(1000);
        let operation = env.uuid();
        operations.push(operation);
        for name in ["a", "b"] {
            let by = Attribution::new(if n == 3 { "eve" } else { "ann" }).because("a test");
            let entry = AuditEntry::new(operation, "edit", vec![profile(name)], by).detail("n", n);
            book(&store, &env, &entry, 0).await.unwrap();
        }
    }
    let all = audit_entries(&store, &AuditQuery::default()).await.unwrap();
    assert_eq!(all.next, None);
    let order: Vec<Uuid> = all.entries.iter().map(|entry| entry.operation).collect();
    let newest_first: Vec<Uuid> =
        operations.iter().rev().flat_map(|operation| [*operation, *operation]).collect();
    assert_eq!(order, newest_first);
    assert_eq!(all.entries[0].details["n"], 4);
    assert_eq!(all.entries[0].stored_ms, env.unix_ms());
    assert_eq!(all.entries[0].by, Attribution::new("ann").because("a test"));

    let count =
        async |query: AuditQuery| audit_entries(&store, &query).await.unwrap().entries.len();
    let at = |n: usize| Some(all.entries[(4 - n) * 2].began_ms);
    assert_eq!(
        count(AuditQuery { since_ms: at(1), until_ms: at(3), ..Default::default() }).await,
        6
    );
    assert_eq!(
        count(AuditQuery { since_ms: at(4).map(|ms| ms + 1), ..Default::default() }).await,
        0
    );
    assert_eq!(count(AuditQuery { key: Some(profile("b")), ..Default::default() }).await, 5);
    assert_eq!(count(AuditQuery { author: Some("eve".into()), ..Default::default() }).await, 2);
    assert_eq!(count(AuditQuery { operation: Some(operations[2]), ..Default::default() }).await, 2);
}

/// A listing read each of a bulk edit's entries, so everyday commands grew slow with the log.
#[tokio::test]
async fn a_bulk_edit_is_one_entry_of_a_grouped_listing_however_many_profiles_it_edited() {
    let clock = ManualClock::default();
    let env = clock.env(1);
    let store = MemoryStore::new(env.clone());
    let ann = || Attribution::new("ann");
    let mut expected = Vec::new();
    let mut bulks = Vec::new();
    for n in 0..6 {
        clock.advance(1000);
        let operation = env.uuid();
        let single = AuditEntry::new(operation, "pin", vec![profile("p0000")], ann());
        let bulk = AuditEntry::new(operation, "edit all", Vec::new(), ann()).detail("edited", 700);
        let own = if n % 2 == 0 { bulk } else { single };
        book(&store, &env, &own, 0).await.unwrap();
        expected.push((operation, own.action.clone()));
        if n % 2 == 0 {
            bulks.push(operation);
            for n in 0..700 {
                let keys = vec![profile(&format!("p{n:04}"))];
                let entry = AuditEntry::new(operation, "edit", keys, ann());
                book(&store, &env, &entry, 0).await.unwrap();
            }
        }
    }
    expected.reverse();
    let all = async |mut query: AuditQuery| {
        let (mut found, mut pages) = (Vec::new(), 0);
        loop {
            let page = audit_entries(&store, &query).await.unwrap();
            pages += 1;
            found.extend(page.entries.into_iter().map(|entry| (entry.operation, entry.action)));
            let Some(next) = page.next else { return (found, pages) };
            query.after = Some(next);
        }
    };
    let grouped = || AuditQuery { grouped: true, ..AuditQuery::default() };
    let (found, pages) = all(grouped()).await;
    assert_eq!(found, expected);
    assert!(pages <= 4, "each page steps over a bulk edit: pages=`{pages}`");
    assert_eq!(all(AuditQuery::default()).await.0.len(), 6 + 3 * 700);
    let of = AuditQuery { operation: Some(bulks[1]), ..grouped() };
    assert_eq!(all(of).await.0.len(), 701);
    let about = AuditQuery { key: Some(profile("p0000")), ..grouped() };
    let (found, pages) = all(about).await;
    assert_eq!((found.len(), pages), (6, 1), "three edits and three pins");
}

#[tokio::test]
async fn an_operation_is_booked_once_a_profile_and_a_pending_one_gets_its_outcome() {
    let env = ManualClock::default().env(1);
    let store = MemoryStore::new(env.clone());
    let asked = AuditEntry::new(env.uuid(), "edit", vec![profile("a")], Attribution::new("ann"))
        .outcome(AuditOutcome::Pending);
    book(&store, &env, &asked, 0).await.unwrap();
    let again = book(&store, &env, &asked, 0).await.unwrap_err();
    assert_eq!(again.conflict(), Some(&ConflictKind::Version));
    let refused =
        asked.clone().outcome(AuditOutcome::Refused { why: "there is no such path".into() });
    book(&store, &env, &refused, 1).await.unwrap();
    let page = audit_entries(&store, &AuditQuery::default()).await.unwrap();
    assert_eq!(
        page.entries.iter().map(|entry| &entry.outcome).collect::<Vec<_>>(),
        [&refused.outcome]
    );
}

#[test]
fn an_order_names_its_operation_and_other_identities_name_none() {
    let operation = ManualClock::default().env(1).uuid();
    assert_eq!(operation_of_order(order_id(operation)), Some(operation));
    assert_eq!(operation_of_order(operation), None);
}

#[test]
fn an_entry_without_author_or_with_too_long_a_reason_is_refused() {
    let entry = |by| {
        AuditEntry::new(Uuid::nil(), "pin", vec![profile("a")], by)
            .change()
            .map(drop)
            .map_err(|e| e.kind())
    };
    assert_eq!(entry(Attribution::new("")), Err(ErrorKind::Invalid));
    assert_eq!(
        entry(Attribution::new("ann").because("x".repeat(MAX_REASON_BYTES + 1))),
        Err(ErrorKind::Invalid)
    );
    assert_eq!(entry(Attribution::new("ann").because("x".repeat(MAX_REASON_BYTES))), Ok(()));
}
