//! Searching profiles by value: `filter::scan`, and edits of what a search finds.

use std::time::Duration;

use profilestore::{
    Attribution, Edit, ErrorKind,
    audit::{AuditQuery, audit_entries},
    data_store::{DataStore, KeyFilter, KeyQuery},
    filter::{Filter, ScanLimits, ScanPage, scan},
    operator::{BulkEdit, EditScope},
};
use serde_json::json;
use tokio::time::Instant;

use crate::world::{World, coins, earn, open, players};

const ALL: ScanLimits = ScanLimits { matches: usize::MAX, until: None };

fn filter(text: &str) -> Filter {
    text.parse().unwrap()
}

fn query(limit: usize) -> KeyQuery {
    let store = Some("PlayerData".to_owned());
    KeyQuery { store, scope: None, filter: KeyFilter::All, after: None, limit }
}

fn names(page: &ScanPage) -> Vec<&str> {
    page.matches.iter().map(|state| state.key.key()).collect()
}

async fn search(store: &dyn DataStore, query: &KeyQuery, text: &str) -> ScanPage {
    scan(store, query, &filter(text), ALL).await.unwrap()
}

/// Profiles `p000`, `p001` and so on, with as many coins.
async fn world_of(profiles: i64) -> World {
    let world = World::new();
    let server = world.server("a").await;
    for number in 0..profiles {
        let profile = open(&server, &format!("p{number:03}")).await;
        earn(&profile, number);
        profile.end_session().await.unwrap();
    }
    assert!(server.shutdown().await.is_complete());
    world
}

#[tokio::test]
async fn a_search_finds_the_profiles_whose_saved_data_matches_and_says_how_many_it_looked_at() {
    let world = world_of(300).await;
    let server = world.server("a").await;
    players(&server).send_message("only-messages", &1).await.unwrap();
    assert!(players(&server).remove("p299").await.unwrap());
    let found = search(&world.store, &query(1000), "/coins >= 297").await;
    assert_eq!(names(&found), ["p297", "p298"]);
    assert_eq!((found.looked_at, found.next), (301, None));
    assert!(found.unreadable.is_empty());
    assert!(found.matches.iter().all(|state| state.value.is_none() && state.head.is_some()));

    let by_prefix = KeyQuery { filter: KeyFilter::Prefix("p01".into()), ..query(1000) };
    let found = search(&world.store, &by_prefix, "/coins < 12").await;
    assert_eq!((names(&found), found.looked_at), (vec!["p010", "p011"], 10));

    let elsewhere = KeyQuery { store: Some("Others".into()), ..query(1000) };
    let found = search(&world.store, &elsewhere, "has /coins").await;
    assert_eq!((found.matches.len(), found.looked_at, found.next), (0, 0, None));
    // The library's own books are not among them.
    let everywhere = KeyQuery { store: None, ..query(1000) };
    assert_eq!(search(&world.store, &everywhere, "has \"\"").await.looked_at, 301);
}

#[tokio::test]
async fn pages_of_a_search_join_without_a_gap_whatever_ends_them() {
    let world = world_of(300).await;
    let text = "not /coins < 100";
    let all = search(&world.store, &query(1000), text).await;
    assert_eq!(all.matches.len(), 200);
    let long_ago = Instant::now();
    for (keys, matches, until) in [
        (1, usize::MAX, None),
        (128, usize::MAX, None),
        (300, usize::MAX, None),
        (1000, 1, None),
        (1000, 64, None),
        (77, 10, None),
        (1000, usize::MAX, Some(long_ago)),
    ] {
        let mut query = query(keys);
        let (mut found, mut looked_at, mut pages) = (Vec::new(), 0, 0);
        loop {
            let limits = ScanLimits { matches, until };
            let page = scan(&world.store, &query, &filter(text), limits).await.unwrap();
            assert!(page.looked_at <= keys as u64 && page.matches.len() <= matches);
            found.extend(page.matches);
            looked_at += page.looked_at;
            pages += 1;
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        assert_eq!((&found, looked_at), (&all.matches, 300), "{keys} {matches}");
        assert!(pages > 1 || keys > 300, "{keys} {matches}");
    }
}

#[tokio::test]
async fn a_search_for_nothing_at_all_says_where_to_go_on() {
    let world = world_of(3).await;
    for (keys, matches) in [(0, 10), (10, 0)] {
        let limits = ScanLimits { matches, until: None };
        let after = query(1).after;
        let page = scan(&world.store, &query(keys), &filter("has \"\""), limits).await.unwrap();
        assert_eq!((page.looked_at, page.next), (0, after));
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_what_a_search_finds_changes_and_books_nothing_else() {
    let world = world_of(300).await;
    let server = world.server("a").await;
    let scope = EditScope { filter: Some(filter("/coins >= 297")), ..EditScope::all("PlayerData") };
    let operation = world.env.uuid();
    let edit = Edit::new().set("/coins", json!(0)).unwrap();
    let bulk = BulkEdit::new(operation, scope, edit);
    let operator = server.operator(Attribution::new("ops"));
    let report = operator.edit_all(&bulk, |_| {}).await.unwrap();
    assert_eq!((report.done, report.unmatched, report.refused.len()), (3, 297, 0));
    for (name, left) in [("p296", 296), ("p297", 0), ("p299", 0), ("p000", 0)] {
        assert_eq!(coins(&server, name).await, left, "{name}");
    }
    let asked = AuditQuery { operation: Some(operation), ..AuditQuery::default() };
    let booked = audit_entries(&world.store, &asked).await.unwrap().entries;
    assert_eq!(booked.len(), 4, "the operation and three profiles");
    let head = booked.iter().find(|entry| entry.keys.is_empty()).unwrap();
    assert_eq!(head.details["where"], json!("/coins >= 297"));

    // What no longer matches because it was edited is not looked for again, and is undone.
    let undone = operator.edit_all(&BulkEdit::undo(world.env.uuid(), operation), |_| {}).await;
    assert_eq!(undone.unwrap().done, 3);
    assert_eq!(coins(&server, "p298").await, 298);
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_what_a_search_finds_goes_to_the_holder_of_what_is_saved() {
    let world = world_of(3).await;
    let (holder, other) = (world.server("a").await, world.server("b").await);
    let rich = open(&holder, "p001").await;
    let poor = open(&holder, "p002").await;
    let scope = EditScope { filter: Some(filter("/coins = 1")), ..EditScope::all("PlayerData") };
    let edit = Edit::new().increase("/coins", 10.into()).unwrap();
    let bulk = BulkEdit::new(world.env.uuid(), scope, edit);
    let operator = other.operator(Attribution::new("ops"));
    let report = operator.edit_all(&bulk, |_| {}).await.unwrap();
    assert_eq!((report.done, report.by_holders, report.unmatched), (1, 1, 2));
    assert_eq!((rich.data().coins, poor.data().coins), (11, 2));
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_what_a_search_finds_is_resumed_with_its_search() {
    let world = world_of(300).await;
    let (holder, server) = (world.server("a").await, world.server("b").await);
    let held = open(&holder, "p250").await;
    let scope = EditScope { filter: Some(filter("/coins >= 200")), ..EditScope::all("PlayerData") };
    let operation = world.env.uuid();
    let edit = Edit::new().set("/coins", json!(0)).unwrap();
    let mut bulk = BulkEdit::new(operation, scope, edit);
    // The holder is not waited for, so the operation is not complete.
    bulk.patience = Duration::ZERO;
    let operator = server.operator(Attribution::new("ops"));
    let report = operator.edit_all(&bulk, |_| {}).await.unwrap();
    assert_eq!((report.done, report.waiting.len(), report.unmatched), (99, 1, 200));
    let resumed = BulkEdit::resume(&world.store, operation).await.unwrap();
    let report = operator.edit_all(&resumed, |_| {}).await.unwrap();
    // Those that were edited no longer match, and are known all the same.
    assert_eq!((report.done + report.before, report.unmatched), (100, 200));
    for (name, left) in [("p199", 199), ("p200", 0), ("p299", 0)] {
        assert_eq!(coins(&server, name).await, left, "{name}");
    }
    assert_eq!(held.data().coins, 0);
}

#[tokio::test(start_paused = true)]
async fn a_standing_edit_takes_no_search() {
    let world = world_of(1).await;
    let server = world.server("a").await;
    let scope = EditScope { filter: Some(filter("/coins = 1")), ..EditScope::all("PlayerData") };
    let edit = Edit::new().set("/coins", json!(0)).unwrap();
    let bulk = BulkEdit::new(world.env.uuid(), scope, edit).new_too();
    let refused = server.operator(Attribution::new("ops")).edit_all(&bulk, |_| {}).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
}
