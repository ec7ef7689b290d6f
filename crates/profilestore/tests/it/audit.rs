//! The audit log beside the profiles: booked with the change, and out of the way of everything that
//! is about profiles.

use std::io::Cursor;

use profilestore::{
    Attribution, ErrorKind, ProfileKey,
    audit::{AuditEntry, AuditQuery, audit_entries},
    data_store::{
        Commit, CommitId, DataStore, DataStoreExt, KeyFilter, KeyQuery, MemoryStore, Retention,
        Returning,
    },
    env::{Env, ManualClock},
    key::RESERVED_STORE,
    transfer::{ExportFilter, ImportOptions, export, import, verify},
};

use crate::world::{Player, World};

async fn book(store: &MemoryStore, env: &Env, count: usize) {
    let incarnation = store.identity().await.unwrap().incarnation;
    for n in 0..count {
        let key = ProfileKey::new("PlayerData", "global", &format!("p{n}")).unwrap();
        let entry = AuditEntry::new(env.uuid(), "pin", vec![key], Attribution::new("ann"));
        let changes = vec![entry.change().unwrap()];
        let commit = Commit {
            id: CommitId(env.uuid()),
            incarnation,
            from: None,
            changes,
            returning: Returning::HEAD,
            fingerprint: None,
        };
        store.commit_one(commit).await.unwrap();
    }
}

#[tokio::test]
async fn the_log_is_not_among_the_profiles_and_no_profile_can_be_in_it() {
    let clock = ManualClock::default();
    let env = clock.env(1);
    let store = MemoryStore::new(env.clone());
    // Stores before and behind the reserved one in the order of names.
    let lines: String = ["A", "zz", "é"]
        .map(|name| {
            format!(
                "{{\"store\":\"{name}\",\"key\":\"k\",\"n\":1,\"created_ms\":1,\"updated_ms\":1,\"value\":{{\"Data\":{{}},\"MetaData\":{{}}}}}}\n"
            )
        })
        .concat();
    let forged = lines.lines().next().unwrap().replace("\"A\"", &format!("{RESERVED_STORE:?}"));
    let input = format!("{lines}{forged}\n");
    let report = import(&store, &env, Cursor::new(input), &ImportOptions::default(), &mut |_| {})
        .await
        .unwrap();
    assert_eq!((report.keys, report.malformed.len()), (3, 1), "{report:?}");
    book(&store, &env, 600).await;

    let mut names = Vec::new();
    let mut query =
        KeyQuery { store: None, scope: None, filter: KeyFilter::All, after: None, limit: 2 };
    loop {
        let (page, next) = store.profiles(&query).await.unwrap();
        names.extend(page.into_iter().map(|state| state.key.store().to_owned()));
        query.after = next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(names, ["A", "zz", "é"]);
    let filter = ExportFilter::default();
    let mut text = Vec::new();
    assert_eq!(export(&store, &filter, &mut text, &mut |_| {}).await.unwrap().keys, 3);
    let checked = verify(&store, &filter, &mut |_| {}).await.unwrap();
    assert_eq!(
        (checked.keys, checked.foreign, checked.books),
        (3, 0, 600),
        "but a check reads all of it"
    );
    let asked_for = ExportFilter { store: Some(RESERVED_STORE.into()), ..filter };
    assert_eq!(export(&store, &asked_for, &mut Vec::new(), &mut |_| {}).await.unwrap().keys, 600);

    let server = World::new().server("a").await;
    assert_eq!(server.store::<Player>(RESERVED_STORE).unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn entries_stay_whatever_the_retention_and_are_read_in_pages() {
    let clock = ManualClock::default();
    let env = clock.env(2);
    let store = MemoryStore::new(env.clone());
    book(&store, &env, 600).await;
    clock.advance(400 * 24 * 60 * 60 * 1000);
    let mut cursor = None;
    loop {
        let report = store.sweep(Retention { history_ms: 0 }, cursor).await.unwrap();
        cursor = report.next;
        if cursor.is_none() {
            break;
        }
    }
    let (mut entries, mut query) = (0, AuditQuery::default());
    loop {
        let page = audit_entries(&store, &query).await.unwrap();
        entries += page.entries.len();
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(entries, 600);
}
