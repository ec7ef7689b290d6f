//! What a damaged value means for sessions, edits, searches and erasures.

use futures_util::StreamExt as _;
use profilestore::{
    Advice, Attribution, Edit, ErrorKind, GameServer,
    audit::{AuditQuery, audit_entries},
    data_store::{KeyFilter, KeyQuery, VersionRef},
    filter::{ScanLimits, scan},
    operator::{BulkEdit, EditScope},
    roblox::{NewEntry, Options as DataStores, RobloxDataStores},
    transfer::{ExportFilter, document, salvage},
};
use rusqlite::Connection;

use super::{damage::flip, *};
use crate::world::{earn, players};

async fn server(store: &SqliteStore) -> GameServer {
    GameServer::builder(store.clone()).start().await.expect("the server starts")
}

/// A profile with three versions, of which the last one is damaged.
async fn damaged_profile(dir: &TempDir) -> SqliteStore {
    let store = open(&path(dir));
    let server = server(&store).await;
    let players = players(&server);
    for _ in 0..2 {
        let profile = players.start_session("p").await.unwrap();
        earn(&profile, 10);
        profile.end_session().await.unwrap();
    }
    assert!(server.shutdown().await.is_complete());
    let newest = state(&store, &key("p")).await.version;
    flip(&Connection::open(path(dir)).unwrap(), &key("p"), newest, 40);
    store
}

#[tokio::test]
async fn opening_a_damaged_profile_says_what_to_do_and_a_rollback_out_of_it_works() {
    let dir = folder();
    let store = damaged_profile(&dir).await;
    let damaged = store.read_one(&key("p"), Returning::HEAD).await.unwrap().1.version;
    let server = server(&store).await;
    let players = players(&server);
    let errors = [
        players.start_session("p").await.err(),
        players.get("p").await.err(),
        players.get_version("p", VersionRef::Number(damaged)).await.err(),
    ];
    for error in errors {
        let error = error.expect("the value is damaged");
        assert_eq!((error.kind(), error.advice()), (ErrorKind::Damaged, Advice::Fix));
        assert_eq!(error.key(), Some(&key("p")));
        let text = error.to_string();
        for part in ["roll the profile back", "PlayerData/p", &format!("version=`{damaged}`")] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    // The start left nothing behind that would keep others out.
    assert!(!store.read_one(&key("p"), Returning::HEAD).await.unwrap().1.lease.is_held());

    let mut versions = players.versions("p").unwrap().newest_first();
    let current = versions.next().await.unwrap().unwrap();
    let before = versions.next().await.unwrap().unwrap();
    assert_eq!(current.info.number, damaged);
    let operator = server.operator(Attribution::new("ann"));
    let restored =
        operator.restore(&key("p"), VersionRef::Number(before.info.number)).await.unwrap();
    assert_eq!((restored.restored, restored.replaced), (before.info.number, damaged));
    let profile = players.start_session("p").await.unwrap();
    assert_eq!(profile.data().coins, 10);
    profile.end_session().await.unwrap();
    // What was damaged stays what it is, for as long as the history keeps it.
    let left = store.check(|_, _| {}).unwrap().damaged;
    assert_eq!(left.iter().map(|left| left.version).collect::<Vec<_>>(), [damaged]);
    let again = operator.restore(&key("p"), VersionRef::Number(damaged)).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Damaged);
    assert!(server.shutdown().await.is_complete());
}

#[tokio::test]
async fn a_damaged_profile_is_left_out_of_edits_and_can_be_removed() {
    let dir = folder();
    let store = damaged_profile(&dir).await;
    let server = server(&store).await;
    let players = players(&server);
    for name in ["a", "z"] {
        let profile = players.start_session(name).await.unwrap();
        profile.end_session().await.unwrap();
    }
    let operator = server.operator(Attribution::new("ann"));
    let edit = Edit::new().increase("/coins", 5.into()).unwrap();
    let refused = operator.edit(&key("p"), &edit).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Damaged);
    let bulk = BulkEdit::new(Env::system().uuid(), EditScope::all("PlayerData"), edit);
    let report = operator.edit_all(&bulk, |_| {}).await.unwrap();
    assert_eq!(report.done, 2);
    assert_eq!(report.refused.iter().map(|(key, _)| key.key()).collect::<Vec<_>>(), ["p"]);
    assert!(players.remove("p").await.unwrap());
    assert!(players.get("p").await.unwrap().is_none());
    assert!(server.shutdown().await.is_complete());
}

#[tokio::test]
async fn a_listing_of_profiles_goes_on_behind_a_damaged_one() {
    let dir = folder();
    let store = damaged_profile(&dir).await;
    let server = server(&store).await;
    let players = players(&server);
    for name in ["a", "z"] {
        players.start_session(name).await.unwrap().end_session().await.unwrap();
    }
    let all: Vec<_> = players.keys().scan().collect().await;
    let damaged = all.iter().filter_map(|found| found.as_ref().err().map(|error| error.kind()));
    assert_eq!(damaged.collect::<Vec<_>>(), [ErrorKind::Damaged]);
    assert_eq!(all.len(), 3);
}

#[tokio::test]
async fn a_damaged_list_of_standing_edits_keeps_no_new_player_out() {
    let dir = folder();
    let store = open(&path(&dir));
    let one = server(&store).await;
    let edit = Edit::new().increase("/coins", 5.into()).unwrap();
    let bulk = BulkEdit::new(Env::system().uuid(), EditScope::all("PlayerData"), edit).new_too();
    one.operator(Attribution::new("ann")).edit_all(&bulk, |_| {}).await.unwrap();
    let list = ProfileKey::new("~profilestore", "standing", "PlayerData").unwrap();
    flip(&Connection::open(path(&dir)).unwrap(), &list, 1, 40);
    let two = server(&store).await;
    players(&two).start_session("new").await.unwrap();
}

/// One page after another is overwritten: whatever it held, a check comes to its end, and a salvage
/// writes every version that can still be read.
#[tokio::test]
async fn a_file_with_a_damaged_page_is_checked_to_the_end_and_salvaged() {
    const PAGE: usize = 4096;
    let dir = folder();
    let store = open(&path(&dir));
    let names: Vec<_> = (0..60).map(|n| key(&format!("p{n:02}"))).collect();
    for name in &names {
        let value = format!("\u{2}\0{{\"value\":\"{}\"}}", "x".repeat(900));
        put(&store, name, &value).await.unwrap();
    }
    store.empty_log().await.unwrap();
    let whole = std::fs::read(path(&dir)).unwrap();
    drop(store);
    let (mut opened, mut named) = (0, 0);
    for page in 1..whole.len() / PAGE {
        let mut bytes = whole.clone();
        bytes[page * PAGE..(page + 1) * PAGE].fill(0x5a);
        let file = dir.path().join(format!("damaged-{page}.db"));
        std::fs::write(&file, bytes).unwrap();
        // Without what SQLite itself needs there is nothing to be salvaged.
        let Ok(store) = SqliteStore::open(&file, fast()) else { continue };
        let Ok(report) = store.check(|_, _| {}) else { continue };
        let problems = report.problems.len() + report.damaged.len();
        assert!(problems > 0, "page {page}");
        let copy = dir.path().join(format!("copy-{page}.db"));
        if let Ok(backed_up) = store.backup(&copy, |_, _| {}) {
            assert_eq!(backed_up.damaged, report.damaged, "page {page}");
            assert!(!backed_up.problems.is_empty() || !backed_up.damaged.is_empty());
        }
        let mut lines = Vec::new();
        let filter = ExportFilter::default();
        let keys = store.every_key().unwrap();
        let salvaged = salvage(&store, keys, &filter, &mut lines, &mut |_| {}).await.unwrap();
        let text = String::from_utf8(lines).unwrap();
        for name in &names {
            let is_written = text.contains(&format!("\"key\":\"{}\"", name.key()));
            let is_readable = store.version(name, &VersionRef::Number(1)).await.is_ok();
            let is_told = salvaged.unreadable.iter().any(|left| left.key == *name);
            assert!(is_written || !is_readable, "page {page}: {name}");
            assert!(is_written != is_told, "page {page}: {name} {:?}", salvaged.unreadable);
            let says = |problem: &String| problem.contains(&name.to_string());
            let is_named = report.problems.iter().any(says)
                || report.damaged.iter().any(|damaged| damaged.key == *name);
            if is_told {
                assert!(is_named, "page {page}: {name} {:?}", report.problems);
                named += 1;
            }
        }
        opened += 1;
    }
    assert!(opened > 10 && named > 10, "{opened} {named}");
}

#[tokio::test]
async fn a_damaged_entry_of_the_log_hides_no_other_and_is_told() {
    let dir = folder();
    let store = open(&path(&dir));
    let server = server(&store).await;
    let players = players(&server);
    let profile = players.start_session("p").await.unwrap();
    profile.add_user_id(7).unwrap();
    profile.end_session().await.unwrap();
    let operator = server.operator(Attribution::new("ann"));
    for coins in [1, 2, 3] {
        let edit = Edit::new().increase("/coins", coins.into()).unwrap();
        operator.edit(&key("p"), &edit).await.unwrap();
    }
    let all = audit_entries(&store, &AuditQuery::default()).await.unwrap();
    assert_eq!((all.entries.len(), all.unreadable.len()), (3, 0));
    let damaged = all.entries[1].key();
    let newest = state(&store, &damaged).await.version;
    flip(&Connection::open(path(&dir)).unwrap(), &damaged, newest, 40);

    let page = audit_entries(&store, &AuditQuery::default()).await.unwrap();
    assert_eq!(page.entries, [all.entries[0].clone(), all.entries[2].clone()]);
    assert_eq!(page.unreadable[0].key, damaged);
    // Entries about other profiles are not read.
    let other = players.start_session("q").await.unwrap();
    other.end_session().await.unwrap();
    let edit = Edit::new().increase("/coins", 1.into()).unwrap();
    let about_other = operator.edit(&key("q"), &edit).await.unwrap().key();
    let newest = state(&store, &about_other).await.version;
    flip(&Connection::open(path(&dir)).unwrap(), &about_other, newest, 40);
    let report = operator.erase_user(7, false).await.unwrap();
    assert_eq!((report.erased.len(), report.audit_entries), (1, 2));
    assert_eq!(report.unreadable_entries, [damaged]);
    assert!(!report.is_complete(), "it may hold something of the user");
    assert!(server.shutdown().await.is_complete());
}

#[tokio::test]
async fn a_damaged_profile_that_is_removed_stays_its_users_and_is_erased() {
    let of_user =
        KeyQuery { store: None, scope: None, filter: KeyFilter::User(7), after: None, limit: 10 };
    for removed in [true, false] {
        let dir = folder();
        let store = open(&path(&dir));
        let server = server(&store).await;
        let players = players(&server);
        let profile = players.start_session("p").await.unwrap();
        profile.add_user_id(7).unwrap();
        profile.end_session().await.unwrap();
        let profile = players.start_session("p").await.unwrap();
        earn(&profile, 10);
        profile.end_session().await.unwrap();
        let newest = state(&store, &key("p")).await.version;
        flip(&Connection::open(path(&dir)).unwrap(), &key("p"), newest, 40);
        let operator = server.operator(Attribution::new("ann"));
        if removed {
            assert!(operator.remove(&key("p")).await.unwrap());
        }
        assert_eq!(store.keys(&of_user).await.unwrap().len(), 1);
        // The damaged version may have been another's too.
        let report = operator.erase_user(7, false).await.unwrap();
        assert!(report.failed[0].why.contains("who else has a part"), "{report:?}");
        let report = operator.erase_user(7, true).await.unwrap();
        assert_eq!((report.erased.len(), report.failed), (1, vec![]));
        assert_eq!(store.keys(&of_user).await.unwrap().len(), 0);
        assert_eq!(store.check(|_, _| {}).unwrap().damaged, vec![]);
        assert!(server.shutdown().await.is_complete());
    }
}

/// Where no version can be read, nobody knows who else has a part; with shared profiles it goes.
#[tokio::test]
async fn a_profile_of_which_nothing_can_be_read_is_erased_with_shared_ones() {
    let dir = folder();
    let store = open(&path(&dir));
    put(&store, &key("p"), "{}").await.unwrap();
    flip(&Connection::open(path(&dir)).unwrap(), &key("p"), 1, 0);
    let server = server(&store).await;
    let operator = server.operator(Attribution::new("ann"));
    let report = operator.erase_user(7, false).await.unwrap();
    assert!(report.failed[0].why.contains("cannot be read"), "{report:?}");
    let report = operator.erase_user(7, true).await.unwrap();
    assert_eq!((report.erased.len(), report.failed), (1, vec![]));
    assert!(server.shutdown().await.is_complete());
}

#[tokio::test]
async fn an_earlier_version_is_shown_while_the_current_one_is_damaged() {
    let dir = folder();
    let store = damaged_profile(&dir).await;
    let earlier = document(&store, &key("p"), Some(&VersionRef::Number(2))).await.unwrap();
    assert!(earlier.unwrap().value.is_some());
    assert!(document(&store, &key("p"), None).await.is_err());
}

/// The holder has the value whole, whatever became of the stored one.
#[tokio::test]
async fn a_start_elsewhere_asks_the_holder_of_a_damaged_profile() {
    let dir = folder();
    let store = open(&path(&dir));
    let one = server(&store).await;
    let held = players(&one).start_session("p").await.unwrap();
    held.save().await.unwrap();
    earn(&held, 10);
    let newest = state(&store, &key("p")).await.version;
    flip(&Connection::open(path(&dir)).unwrap(), &key("p"), newest, 40);
    let two = server(&store).await;
    let taken = players(&two).start_session("p").await.unwrap();
    assert_eq!(taken.data().coins, 10);
    assert!(held.is_over());
    assert!(one.shutdown().await.is_complete() && two.shutdown().await.is_complete());
}

#[tokio::test]
async fn a_write_and_a_removal_of_a_raw_data_store_repair_a_damaged_value() {
    let dir = folder();
    let store = damaged_profile(&dir).await;
    let server = server(&store).await;
    let raw = RobloxDataStores::new(&server, DataStores::default())
        .data_store("PlayerData", None)
        .unwrap();
    assert!(raw.get("p").await.is_err(), "it is not handed out");
    raw.set("p", NewEntry::json(&5).unwrap()).await.unwrap();
    assert_eq!(raw.get_uncached("p").await.unwrap().unwrap().value.get(), "5");
    let newest = state(&store, &key("p")).await.version;
    flip(&Connection::open(path(&dir)).unwrap(), &key("p"), newest, 4);
    raw.remove("p").await.unwrap();
    assert!(!store.read_one(&key("p"), Returning::HEAD).await.unwrap().1.exists());
    assert!(server.shutdown().await.is_complete());
}

#[tokio::test]
async fn a_search_by_value_names_a_damaged_profile_and_goes_on() {
    let dir = folder();
    let store = open(&path(&dir));
    let names = ["p", "q", "r"].map(key);
    for (name, coins) in names.iter().zip([1, 2, 3]) {
        let value = format!("\u{1}\0{{\"created\":0,\"data\":{{\"coins\":{coins}}}}}");
        put(&store, name, &value).await.unwrap();
    }
    put(&store, &key("s"), "\u{2}\0{\"value\":{\"coins\":9}}").await.unwrap();
    put(&store, &key("t"), "\u{1}\0{}").await.unwrap();
    flip(&Connection::open(path(&dir)).unwrap(), &names[1], 1, 40);
    let query =
        KeyQuery { store: None, scope: None, filter: KeyFilter::All, after: None, limit: 100 };
    let limits = ScanLimits { matches: 10, until: None };
    let found = scan(&store, &query, &"/coins > 0".parse().unwrap(), limits).await.unwrap();
    let keys: Vec<_> = found.matches.iter().map(|state| state.key.clone()).collect();
    assert_eq!(keys, [names[0].clone(), names[2].clone()]);
    let unreadable: Vec<_> = found.unreadable.iter().map(|found| found.key.clone()).collect();
    assert_eq!(unreadable, [names[1].clone(), key("t")], "{:?}", found.unreadable);
    assert_eq!((found.looked_at, found.next), (5, None));
}
