//! The calls, one by one.

use super::*;
use profilestore::{
    data_store::Order,
    roblox::{BudgetRules, KeysQuery, MAX_VALUE_BYTES, RequestType, VersionsQuery},
};
use serde_json::{Map, value::RawValue};

#[tokio::test(start_paused = true)]
async fn values_of_every_kind_read_back_with_users_and_metadata() {
    for place in Place::both() {
        let server = place.server("a").await;
        let store = data_store(&server, "S");
        assert!(store.get("k").await.unwrap().is_none());
        for value in [
            json!(5),
            json!(-0.5),
            json!("text"),
            json!(true),
            json!([1, [2]]),
            json!({}),
            json!({ "a": { "b": [] } }),
        ] {
            let metadata: Map<_, _> = [("Tier".to_owned(), json!("gold"))].into_iter().collect();
            let new = entry(&value).user_ids(vec![3, 5]).metadata(metadata.clone());
            let written = store.set("k", new).await.unwrap();
            let found = store.get_uncached("k").await.unwrap().unwrap();
            assert_eq!(parsed(&found), value);
            assert_eq!(
                (found.info.user_ids.as_slice(), &found.info.metadata),
                (&[3, 5][..], &metadata)
            );
            assert_eq!((&written.info, written.value.get()), (&found.info, found.value.get()));
        }
        let bare = set(&store, "k", json!(1)).await;
        assert!(
            bare.info.user_ids.is_empty() && bare.info.metadata.is_empty(),
            "what is left out is cleared"
        );
        assert_eq!(bare.info.created_ms, 1_795_000_000_000);
        assert_eq!(bare.info.version, "000001A1EE565E00.0000000008.000001A1EE565E00.01");
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_sees_what_is_there_may_call_itself_off_and_clears_what_it_leaves_out() {
    for place in Place::both() {
        let server = place.server("a").await;
        let store = data_store(&server, "S");
        let made = store
            .update("k", |now| (now.is_none()).then(|| entry(&json!(1)).user_ids(vec![9])))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((parsed(&made), made.info.user_ids), (json!(1), vec![9]));
        assert!(store.update("k", |_| None).await.unwrap().is_none());
        assert_eq!(
            store.get("k").await.unwrap().unwrap().info.user_ids,
            [9],
            "nothing was written"
        );
        let next = store
            .update("k", |now| {
                let now = now.unwrap();
                assert_eq!((now.info.user_ids.as_slice(), now.value.get()), (&[9][..], "1"));
                Some(entry(&json!(2)))
            })
            .await
            .unwrap()
            .unwrap();
        assert!(next.info.user_ids.is_empty());
        assert_eq!(
            code(store.update("k", |_| Some(entry(&Value::Null))).await),
            Code::CantStoreValue
        );
        assert_eq!(read(&store, "k").await, Some(json!(2)));
    }
}

#[tokio::test(start_paused = true)]
async fn updates_from_two_servers_are_all_there() {
    for place in Place::both() {
        let (a, b) = (place.server("a").await, place.server("b").await);
        let add = |store: RobloxDataStore| async move {
            let mut called = 0;
            for _ in 0..50 {
                let (calls, counted) = tokio::sync::watch::channel(0);
                store
                    .update("k", move |now| {
                        calls.send_modify(|calls| *calls += 1);
                        let before = now.map_or(0, |now| parsed(now).as_i64().unwrap());
                        Some(entry(&json!(before + 1)))
                    })
                    .await
                    .unwrap()
                    .unwrap();
                called += *counted.borrow();
            }
            called
        };
        let stores = [data_store(&a, "S"), data_store(&a, "S"), data_store(&b, "S")];
        let called =
            tokio::join!(add(stores[0].clone()), add(stores[1].clone()), add(stores[2].clone()));
        assert_eq!(read(&stores[0], "k").await, Some(json!(150)));
        assert!(called.0 + called.1 + called.2 >= 150, "{called:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transform_that_goes_away_leaves_nothing_and_blocks_nobody() {
    let place = Place::in_memory();
    let server = place.server("a").await;
    let store = data_store(&server, "S");
    drop(store.update("k", |_| Some(entry(&json!(1)))));
    assert_eq!(read(&store, "k").await, None);
    // One that is never polled keeps the key's other calls waiting for a while, and not for ever.
    let stuck = store.update("k", |_| Some(entry(&json!(2))));
    let began = tokio::time::Instant::now();
    set(&store, "k", json!(3)).await;
    assert_eq!(began.elapsed(), seconds(15));
    assert_eq!(code(stuck.await), Code::BadResponse);
    assert_eq!(read(&store, "k").await, Some(json!(3)));
}

#[tokio::test(start_paused = true)]
async fn numbers_are_added_to_and_nothing_else_is() {
    for place in Place::both() {
        let server = place.server("a").await;
        let store = data_store(&server, "S");
        assert_eq!(store.increment("k", 5).await.unwrap().value.get(), "5");
        assert_eq!(store.increment("k", -7).await.unwrap().value.get(), "-2");
        set(&store, "k", json!(3.0)).await;
        assert_eq!(
            parsed(&store.increment_with("k", 1, vec![4], Map::new()).await.unwrap()),
            json!(4)
        );
        assert_eq!(store.get_uncached("k").await.unwrap().unwrap().info.user_ids, [4]);
        set(&store, "k", json!(i64::MAX)).await;
        assert_eq!(code(store.increment("k", 1).await), Code::RequestRejected);
        for value in [json!("5"), json!(1.5), json!({}), document(1, Value::Null, 0)] {
            set(&store, "k", value.clone()).await;
            assert_eq!(code(store.increment("k", 1).await), Code::RequestRejected, "{value}");
            assert_same(&read(&store, "k").await.unwrap(), &value);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_answers_with_what_was_there_once_and_leaves_the_versions() {
    for place in Place::both() {
        let server = place.server("a").await;
        let store = data_store(&server, "S");
        assert!(store.remove("k").await.unwrap().is_none());
        let written = store.set("k", entry(&json!("v")).user_ids(vec![8])).await.unwrap();
        let was = store.remove("k").await.unwrap().unwrap();
        assert_eq!((parsed(&was), was.info.user_ids), (json!("v"), vec![8]));
        assert!(
            store.get("k").await.unwrap().is_none()
                && store.get_uncached("k").await.unwrap().is_none()
        );
        assert!(store.remove("k").await.unwrap().is_none());
        let old = store.get_version("k", &written.info.version).await.unwrap();
        assert_eq!((old.value.unwrap().get(), old.info), ("\"v\"", written.info.clone()));
        let versions = store.list_versions("k", VersionsQuery::default()).await.unwrap();
        let [first, second] = versions.current_page() else { panic!("{versions:?}") };
        assert_eq!(
            (first.is_deleted, second.is_deleted, &first.version),
            (false, true, &written.info.version)
        );
        let tombstone = store.get_version("k", &second.version).await.unwrap();
        assert!(tombstone.value.is_none());
        assert_eq!(tombstone.info.version, second.version);
        // What comes after a removal begins as a new value on the same key.
        let again = set(&store, "k", json!(1)).await;
        assert_eq!((again.info.number, again.info.created_ms), (3, written.info.created_ms));
    }
}

#[tokio::test(start_paused = true)]
async fn versions_are_kept_by_the_hour_or_all_of_them() {
    for (every_save, expected) in [(false, vec![2, 5, 6]), (true, vec![1, 2, 3, 4, 5, 6])] {
        for mut place in Place::both() {
            place.settings.keep_every_save = every_save;
            let server = place.server("a").await;
            let store = data_store(&server, "S");
            // 1_795_000_000 is 26 minutes and 40 seconds past the hour.
            for (n, pause) in [(1, 10), (2, 3600), (3, 10), (4, 10), (5, 3600), (6, 0)] {
                set(&store, "k", json!(n)).await;
                tokio::time::sleep(seconds(pause)).await;
            }
            let pages = store.list_versions("k", VersionsQuery::default()).await.unwrap();
            let mut found = Vec::new();
            for version in pages.current_page() {
                found.push(parsed_version(&store, "k", &version.version).await);
            }
            assert_eq!(found, expected.iter().map(|n| json!(n)).collect::<Vec<_>>());
        }
    }
}

async fn parsed_version(store: &RobloxDataStore, key: &str, version: &str) -> Value {
    let version = store.get_version(key, version).await.unwrap();
    serde_json::from_str(version.value.unwrap().get()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn versions_come_in_pages_by_time_and_direction() {
    for mut place in Place::both() {
        place.settings.keep_every_save = true;
        let server = place.server("a").await;
        let store = data_store(&server, "S");
        let mut written = Vec::new();
        for n in 1..=7 {
            written.push(set(&store, "k", json!(n)).await.info);
            tokio::time::sleep(seconds(1)).await;
        }
        let names = |from: usize, to: usize| {
            written[from..to].iter().map(|info| info.version.clone()).collect::<Vec<_>>()
        };
        let query = VersionsQuery { page_size: 3, ..VersionsQuery::default() };
        let mut pages = store.list_versions("k", query.clone()).await.unwrap();
        for (from, to) in [(0, 3), (3, 6), (6, 7)] {
            assert_eq!(
                pages.current_page().iter().map(|v| v.version.clone()).collect::<Vec<_>>(),
                names(from, to)
            );
            assert_eq!(pages.is_finished(), to == 7);
            if to < 7 {
                pages.advance().await.unwrap();
            }
        }
        let error = pages.advance().await.unwrap_err();
        assert!(error.message.contains("No pages to advance to"), "{error}");
        let times = VersionsQuery {
            order: Order::Descending,
            min_ms: Some(written[2].updated_ms),
            max_ms: Some(written[4].updated_ms),
            ..query.clone()
        };
        let pages = store.list_versions("k", times.clone()).await.unwrap();
        let mut expected = names(2, 5);
        expected.reverse();
        assert_eq!(
            pages.current_page().iter().map(|v| v.version.clone()).collect::<Vec<_>>(),
            expected
        );
        assert!(pages.is_finished(), "a page that is exactly full is the last one");
        let none = store.list_versions("nothing", query.clone()).await.unwrap();
        assert!(none.current_page().is_empty() && none.is_finished());

        let turned = VersionsQuery { min_ms: times.max_ms, max_ms: times.min_ms, ..query.clone() };
        assert_eq!(code(store.list_versions("k", turned).await), Code::MinMaxOrder);
        for page_size in [0, 1025] {
            let query = VersionsQuery { page_size, ..query.clone() };
            assert_eq!(code(store.list_versions("k", query).await), Code::PageSizeInvalid);
        }
        let error = store.get_version("k", "no such version").await.unwrap_err();
        assert!(error.message.contains("not valid"), "{error}");
        assert!(
            store
                .get_version("nothing", &written[0].version)
                .await
                .unwrap_err()
                .message
                .contains("not valid")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn keys_come_in_pages_by_prefix_and_without_removed_ones_if_wanted() {
    for place in Place::both() {
        let server = place.server("a").await;
        let stores = RobloxDataStores::new(&server, Options::default());
        let store = stores.data_store("S", None).unwrap();
        for n in 0..60 {
            set(&store, &format!("p{n:02}"), json!(n)).await;
        }
        set(&store, "q", json!(1)).await;
        set(&stores.data_store("S", Some("other")).unwrap(), "elsewhere", json!(1)).await;
        set(&stores.data_store("S2", None).unwrap(), "elsewhere", json!(1)).await;
        for n in 10..55 {
            store.remove(&format!("p{n}")).await.unwrap().unwrap();
        }
        let collect = |query: KeysQuery| {
            let store = store.clone();
            async move {
                let mut pages = store.list_keys(query).await.unwrap();
                let mut sizes = vec![pages.current_page().len()];
                let mut keys = pages.current_page().to_vec();
                while !pages.is_finished() {
                    pages.advance().await.unwrap();
                    sizes.push(pages.current_page().len());
                    keys.extend_from_slice(pages.current_page());
                }
                assert!(keys.is_sorted());
                (keys.len(), sizes)
            }
        };
        assert_eq!(collect(KeysQuery::default()).await, (61, vec![50, 11]));
        let prefix = KeysQuery { prefix: "p".into(), page_size: 20, ..KeysQuery::default() };
        assert_eq!(collect(prefix.clone()).await, (60, vec![20, 20, 20]));
        assert_eq!(
            collect(KeysQuery { exclude_removed: true, page_size: 5, ..prefix }).await,
            (15, vec![5, 5, 5])
        );
        assert_eq!(
            collect(KeysQuery { prefix: "z".into(), ..KeysQuery::default() }).await,
            (0, vec![0])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_object_answers_from_its_cache_for_four_seconds() {
    let place = Place::in_memory();
    let server = place.server("a").await;
    let stores = RobloxDataStores::new(&server, Options::default());
    let [mine, other] = [0, 1].map(|_| stores.data_store("S", None).unwrap());
    assert!(mine.get("k").await.unwrap().is_none());
    set(&other, "k", json!(1)).await;
    assert!(mine.get("k").await.unwrap().is_none(), "nothing is remembered too");
    assert!(mine.update("k", |_| None).await.unwrap().is_none());
    assert!(mine.get("k").await.unwrap().is_none());
    tokio::time::sleep(Duration::from_millis(4001)).await;
    assert_eq!(mine.get("k").await.unwrap().unwrap().value.get(), "1");
    set(&mine, "k", json!(2)).await;
    set(&other, "k", json!(3)).await;
    assert_eq!(mine.get("k").await.unwrap().unwrap().value.get(), "2", "what it wrote itself");
    assert_eq!(mine.get_uncached("k").await.unwrap().unwrap().value.get(), "3");
    assert_eq!(mine.get("k").await.unwrap().unwrap().value.get(), "3");
    assert_eq!(mine.clone().get("k").await.unwrap().unwrap().value.get(), "3");
    mine.remove("k").await.unwrap();
    assert!(mine.get("k").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_breaks_a_limit_is_refused_with_its_code() {
    let place = Place::in_memory();
    let server = place.server("a").await;
    let stores = RobloxDataStores::new(&server, Options::default());
    let long = "x".repeat(51);
    assert_eq!(code(stores.data_store("", None)), Code::KeyNameEmpty);
    assert_eq!(code(stores.data_store(&long, None)), Code::KeyNameLimit);
    assert_eq!(code(stores.data_store("S", Some(&long))), Code::KeyNameLimit);
    assert_eq!(code(stores.data_store("~profilestore", None)), Code::NotAllowed);
    let store = stores.data_store("S", None).unwrap();
    assert_eq!(code(store.get("").await), Code::KeyNameEmpty);
    assert_eq!(code(store.set(&long, entry(&json!(1))).await), Code::KeyNameLimit);
    assert_eq!(code(store.update(&long, |_| Some(entry(&json!(1)))).await), Code::KeyNameLimit);
    assert_eq!(code(store.set("k", entry(&Value::Null)).await), Code::CantStoreValue);
    let largest = |bytes: usize| {
        NewEntry::new(RawValue::from_string(format!("\"{}\"", "x".repeat(bytes - 2))).unwrap())
    };
    assert_eq!(code(store.set("k", largest(MAX_VALUE_BYTES + 1)).await), Code::ValueTooLarge);
    assert_eq!(
        store.set("k", largest(MAX_VALUE_BYTES)).await.unwrap().value.get().len(),
        MAX_VALUE_BYTES
    );
    let metadata = |key: usize, value: usize| {
        [("k".repeat(key), json!("v".repeat(value)))].into_iter().collect::<Map<_, _>>()
    };
    for (key, value) in [(51, 1), (1, 251), (50, 250)] {
        // The last one's parts are small enough, and all of it is not.
        let new = entry(&json!(1)).metadata(metadata(key, value));
        assert_eq!(code(store.set("k", new).await), Code::MetadataTooLarge, "{key} {value}");
    }
    store.set("k", entry(&json!(1)).metadata(metadata(40, 240))).await.unwrap();
    assert_eq!(
        code(store.set("k", entry(&json!(1)).user_ids(vec![-1])).await),
        Code::UserIdInvalid
    );
    assert!(server.shutdown().await.is_complete());
    assert_eq!(code(store.get_uncached("k").await), Code::DataModelNoAccess);
    assert_eq!(code(store.list_keys(KeysQuery::default()).await), Code::DataModelNoAccess);
    let shown = code(store.remove("k").await);
    assert_eq!((shown.number(), shown.name()), (401, "DataModelNoAccess"));
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_budget_wait_and_then_fail() {
    let place = Place::in_memory();
    let server = place.server("a").await;
    let mut options = Options::default();
    options.budgets = Some(BudgetRules::Newer);
    let stores = RobloxDataStores::new(&server, options);
    stores.set_players(1);
    assert_eq!(
        (stores.budget(RequestType::Write), stores.budget(RequestType::List)),
        (Some(100), Some(7))
    );
    let store = stores.data_store("S", None).unwrap();
    let began = tokio::time::Instant::now();
    let calls: Vec<_> = (0..131).map(|n| store.set(&format!("k{n}"), entry(&json!(n)))).collect();
    assert_eq!(stores.budget(RequestType::Write), Some(0));
    let mut failed = 0;
    for call in calls {
        failed += u32::from(call.await.is_err_and(|error| error.code == Code::SetAsyncThrottle));
    }
    assert_eq!(failed, 1);
    let waited = began.elapsed();
    assert!(
        (seconds(17)..seconds(19)).contains(&waited),
        "30 of them waited at 100 a minute: {waited:?}"
    );
    assert_eq!(stores.budget(RequestType::Read), Some(100));
    assert_eq!(RobloxDataStores::new(&server, Options::default()).budget(RequestType::Read), None);
}

#[tokio::test(start_paused = true)]
async fn latency_and_failures_come_as_asked_for_and_half_of_the_failures_take_effect() {
    let place = Place::in_memory();
    let server = place.server("a").await;
    let run = |seed| {
        let server = server.clone();
        async move {
            let mut options = Options::default();
            (options.latency, options.errors, options.seed) =
                (Duration::from_millis(50), 20.0, seed);
            let store = RobloxDataStores::new(&server, options)
                .data_store(&format!("S{seed}"), None)
                .unwrap();
            let (mut told, mut log) = (0, Vec::new());
            for _ in 0..200 {
                let began = tokio::time::Instant::now();
                let done = store
                    .update("k", |now| {
                        Some(entry(&json!(now.map_or(0, |now| parsed(now).as_i64().unwrap()) + 1)))
                    })
                    .await;
                assert_eq!(began.elapsed(), Duration::from_millis(50));
                told += i64::from(done.is_ok());
                log.push(done.map_err(|error| error.code).map(|_| ()));
            }
            let plain = data_store(&server, &format!("S{seed}"));
            (told, read(&plain, "k").await.unwrap().as_i64().unwrap(), log)
        }
    };
    let (told, applied, log) = run(1).await;
    assert!((140..180).contains(&told), "{told}");
    assert!(applied - told >= 10 && 200 - applied >= 10, "applied={applied} told={told}");
    assert!(log.iter().all(|call| *call == Ok(()) || *call == Err(Code::BadResponse)));
    assert_ne!(run(2).await.2, log);
}
