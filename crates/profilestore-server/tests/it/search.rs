//! Search by value over HTTP.

use profilestore_server::keys::Scope;
use serde_json::{Value, json};

use crate::{Served, client::Client, fill, operation, put, refused};

const PROFILES: &str = "/v1/stores/PlayerData/profiles";

fn player(number: u64) -> (String, String) {
    (format!("p{number:05}"), format!("{{\"coins\":{number},\"name\":\"n{}\"}}", number % 7))
}

/// Every page of a search.
async fn pages(caller: &Client, parameters: &str) -> Vec<Value> {
    let (mut pages, mut token) = (Vec::new(), String::new());
    loop {
        let page = caller.get(&format!("{PROFILES}?{parameters}{token}")).await.is(200);
        let next = page["next_page_token"].as_str().map(|next| format!("&page_token={next}"));
        pages.push(page);
        match next {
            Some(next) => token = next,
            None => return pages,
        }
    }
}

fn keys(pages: &[Value]) -> Vec<&str> {
    let items = pages.iter().flat_map(|page| page["items"].as_array().unwrap());
    items.map(|item| item["key"].as_str().unwrap()).collect()
}

fn scanned(pages: &[Value]) -> u64 {
    pages.iter().map(|page| page["scanned"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn a_search_finds_by_value_in_pages_and_says_that_it_scans() {
    let served = Served::start().await;
    fill(&served.store, (0..300).map(player)).await;
    let reader = served.caller(&[Scope::ProfilesRead]).await;

    // /coins > 290 and /name != "n0"
    let text = "where=%2Fcoins%20%3E%20290%20and%20%2Fname%20!%3D%20%22n0%22";
    let found = pages(&reader, &format!("{text}&page_size=3")).await;
    assert_eq!(
        keys(&found),
        ["p00291", "p00292", "p00293", "p00295", "p00296", "p00297", "p00298", "p00299"]
    );
    assert_eq!(scanned(&found), 300, "each key is looked at once");
    assert!(found.iter().all(|page| page["items"].as_array().unwrap().len() <= 3));
    assert!(found.iter().all(|page| page["found_by"] == "scan" && page["unreadable"] == json!([])));
    let item = &found[0]["items"][0];
    assert_eq!((&item["version"], &item["author"]), (&json!(1), &json!("test")));

    // What has an index is looked up there first.
    let within = pages(&reader, "where=has%20%2Fcoins&prefix=p0001").await;
    assert_eq!((keys(&within).len(), scanned(&within)), (10, 10));
    let held = pages(&reader, "where=has%20%2Fcoins&held=true").await;
    assert_eq!((keys(&held).len(), scanned(&held)), (0, 0));
    for (parameters, by) in [("prefix=p", "index"), ("updated_since=0", "scan")] {
        let listed = reader.get(&format!("{PROFILES}?{parameters}")).await.is(200);
        assert_eq!(listed["found_by"], by, "{parameters}");
        assert_eq!(listed["scanned"], 100, "{parameters}");
    }
}

#[tokio::test]
async fn profiles_are_found_by_messages_that_wait() {
    let served = Served::start().await;
    let admin = served.admin();
    fill(&served.store, (0..700).map(player)).await;
    // Two wait for one profile, one for another, one for a player who has never played.
    for key in ["p00003", "p00003", "p00650", "x-new"] {
        let sender = admin.header("Idempotency-Key", &operation());
        sender.post(&format!("{PROFILES}/{key}/messages"), r#"{"message":1}"#).await.is(201);
    }
    let found = pages(&admin, "messages_waiting=true").await;
    assert_eq!(keys(&found), ["p00003", "p00650", "x-new"]);
    assert_eq!(scanned(&found), 701, "each key is looked at once");
    assert!(found.iter().all(|page| page["found_by"] == "scan"));
    let items: Vec<_> = found.iter().flat_map(|page| page["items"].as_array().unwrap()).collect();
    assert_eq!(items[0]["messages_waiting"], 2);
    assert_eq!((&items[2]["messages_waiting"], &items[2]["version"]), (&json!(1), &json!(0)));
    let within = pages(&admin, "messages_waiting=true&prefix=p006").await;
    assert_eq!(keys(&within), ["p00650"]);
    // /coins < 100
    let by_value = pages(&admin, "messages_waiting=true&where=%2Fcoins%20%3C%20100").await;
    assert_eq!(keys(&by_value), ["p00003"]);
    let all = admin.get(&format!("{PROFILES}?prefix=p00003")).await.is(200);
    assert_eq!(all["items"][0]["messages_waiting"], json!(null), "not asked for");
    assert_eq!(all["found_by"], "index");

    // What was processed does not wait any more.
    let game = served.game("game").await;
    let players = game.store::<Value>("PlayerData").unwrap();
    let profile = players.start_session("p00650").await.unwrap();
    profile.message_handler(|_, message| message.processed());
    profile.end_session().await.unwrap();
    assert_eq!(keys(&pages(&admin, "messages_waiting=true").await), ["p00003", "x-new"]);
    assert!(game.shutdown().await.is_complete());
}

/// A search that finds nothing would otherwise read a whole store in one request.
#[tokio::test]
async fn an_answer_to_a_search_looks_at_a_bounded_number_of_keys() {
    let served = Served::start().await;
    fill(&served.store, (0..5200).map(player)).await;
    let found = pages(&served.admin(), "where=%2Fcoins%20%3C%200").await;
    assert!(found.len() > 1, "{}", found.len());
    assert!(found.iter().all(|page| page["scanned"].as_u64().unwrap() <= 5000));
    assert_eq!((keys(&found).len(), scanned(&found)), (0, 5200));
}

#[tokio::test]
async fn a_search_that_is_wrong_is_refused_with_the_place() {
    let served = Served::start().await;
    let answer =
        served.admin().get(&format!("{PROFILES}?where=%2Fcoins%20%3E%205%20AND%20x")).await;
    refused(&answer, 400, "invalid");
    assert_eq!(answer.json()["at"], 12);
    assert!(answer.text().contains("found `AND`, which is written `and`"), "{}", answer.text());
    let long = format!("{PROFILES}?where=has%20%2F{}", "x".repeat(5000));
    refused(&served.admin().get(&long).await, 400, "invalid");
}

#[tokio::test]
async fn a_search_with_a_narrowed_key_finds_nothing_beyond_its_prefix() {
    let served = Served::start().await;
    fill(&served.store, (0..300).map(player)).await;
    let read = [Scope::ProfilesRead];
    let narrowed = served.narrowed(&read, "PlayerData", Some("p0000")).await;
    let found = pages(&narrowed, "where=has%20%2Fcoins").await;
    assert_eq!((keys(&found).len(), scanned(&found)), (10, 10));
    let elsewhere = format!("{PROFILES}?where=has%20%2Fcoins&prefix=p0001");
    refused(&narrowed.get(&elsewhere).await, 403, "forbidden");
    let other = served.narrowed(&read, "Others", None).await;
    refused(&other.get(&format!("{PROFILES}?where=has%20%2Fcoins")).await, 403, "forbidden");
    let writer = served.caller(&[Scope::ProfilesWrite]).await;
    refused(&writer.get(&format!("{PROFILES}?where=has%20%2Fcoins")).await, 403, "forbidden");
}

#[tokio::test]
async fn a_search_names_the_profiles_that_it_cannot_read() {
    let served = Served::start().await;
    fill(&served.store, [player(0), player(2)]).await;
    put(&served.store, [("p00001".to_owned(), "no value of a known form".into())]).await;
    let found = pages(&served.admin(), "where=has%20%2Fcoins").await;
    assert_eq!(keys(&found), ["p00000", "p00002"]);
    let unreadable: Vec<_> =
        found.iter().flat_map(|page| page["unreadable"].as_array().unwrap()).collect();
    assert_eq!(unreadable.len(), 1, "{found:?}");
    assert_eq!(unreadable[0]["profile"], "PlayerData/p00001");
    assert!(!unreadable[0]["why"].as_str().unwrap().is_empty());
}

/// A list by holder or by user went through keys of others, and said how many there are and where
/// it was.
#[tokio::test]
async fn a_list_with_a_narrowed_key_tells_of_nothing_beyond_its_prefix() {
    let served = Served::start().await;
    fill(&served.store, (0..300).map(player)).await;
    let game = served.game("game").await;
    let players = game.store::<Value>("PlayerData").unwrap();
    let mut held = Vec::new();
    for key in ["p00000", "p00005", "p00100", "p00200"] {
        held.push(players.start_session(key).await.unwrap());
    }
    let narrowed = served.narrowed(&[Scope::ProfilesRead], "PlayerData", Some("p0000")).await;
    for parameters in ["held=true", "held=true&page_size=1", "held=true&where=has%20%2Fcoins"] {
        let found = pages(&narrowed, parameters).await;
        assert_eq!((keys(&found), scanned(&found)), (vec!["p00000", "p00005"], 2), "{parameters}");
    }
    for parameters in ["updated_since=0", "updated_since=0&page_size=3", "page_size=4"] {
        let found = pages(&narrowed, parameters).await;
        assert_eq!((keys(&found).len(), scanned(&found)), (10, 10), "{parameters}");
    }
    let found = pages(&narrowed, "user=7").await;
    assert_eq!((keys(&found).len(), scanned(&found)), (0, 0));
    // A token of another caller leads no further.
    let beyond = served.admin().get(&format!("{PROFILES}?page_size=150")).await.is(200);
    let token = beyond["next_page_token"].as_str().unwrap();
    let found = pages(&narrowed, &format!("held=true&page_token={token}")).await;
    assert_eq!((keys(&found).len(), scanned(&found)), (0, 0));
    assert!(game.shutdown().await.is_complete());
}

/// There is no index on when a profile was stored: one request read all of a store.
#[tokio::test]
async fn a_list_by_time_looks_at_a_bounded_number_of_keys() {
    let served = Served::start().await;
    fill(&served.store, (0..5700).map(player)).await;
    let found = pages(&served.admin(), "updated_since=2100-01-01T00:00:00Z").await;
    assert!(found.len() > 1, "{}", found.len());
    assert!(found.iter().all(|page| page["scanned"].as_u64().unwrap() <= 5500));
    assert!(found.iter().all(|page| page["found_by"] == "scan"));
    assert_eq!((keys(&found).len(), scanned(&found)), (0, 5700));
}
