//! Documents come out as they went in.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::transfer::records;

/// Every value that the two published modules ever stored, written in their order under their keys.
#[tokio::test(start_paused = true)]
async fn every_value_that_the_modules_stored_reads_back_as_it_was() {
    for place in Place::both() {
        let server = place.server("a").await;
        let stores = RobloxDataStores::new(&server, Options::default());
        let text = records();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut written = 0;
        let mut last_messages = BTreeMap::<String, u64>::new();
        for line in lines {
            let line: Value = serde_json::from_slice(line).unwrap();
            let text = |name: &str| line[name].as_str().unwrap();
            let store = stores.data_store(text("store"), Some(text("scope"))).unwrap();
            let value = &line["value"];
            let user_ids: Vec<i64> = line["user_ids"]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_i64().unwrap())
                .collect();
            let metadata = line["metadata"].as_object().cloned().unwrap_or_default();
            let new = entry(value).user_ids(user_ids.clone()).metadata(metadata.clone());
            let answer = store.set(text("key"), new).await.unwrap();
            let found = store.get_uncached(text("key")).await.unwrap().unwrap();
            let mut expected = value.clone();
            if let Some(last) = expected.pointer_mut("/GlobalUpdates/0") {
                // Where a profile began anew the key goes on counting its messages.
                let newest = last_messages
                    .entry(format!("{} {} {}", text("store"), text("scope"), text("key")))
                    .or_default();
                *newest = (*newest).max(last.as_u64().unwrap());
                *last = (*newest).into();
            }
            assert_same(&parsed(&found), &expected);
            assert_same(&parsed(&answer), &expected);
            assert_eq!((found.info.user_ids, found.info.metadata), (user_ids, metadata));
            written += 1;
        }
        assert_eq!(written, 1959);
    }
}

#[tokio::test(start_paused = true)]
async fn an_odd_document_is_read_back_as_it_was_written() {
    for place in Place::both() {
        let server = place.server("a").await;
        let store = data_store(&server, "S");
        for value in [
            json!({ "Data": [1, 2], "MetaData": [], "UserIds": ["7"], "RobloxMetaData": [1] }),
            json!({ "Data": {}, "MetaData": { "MetaTags": [1], "ProfileCreateTime": "then", "SessionLoadCount": 1.5,
                "ActiveSession": [1.5, 12, 99], "ForceLoadSession": "me", "LastUpdate": null }, "GlobalUpdates": null }),
            json!({ "Data": {}, "MetaData": { "ActiveSession": null }, "GlobalUpdates": [0, {}], "More": { "a": [] } }),
            json!({ "GlobalUpdates": [0, []], "Data": {}, "MetaData": "broken" }),
            json!({ "Data": { "a": 1 }, "MetaData": {}, "GlobalUpdates": 5 }),
            json!({ "GlobalUpdates": [2, [[1, 2, false, {}], [2, 1, true, { "a": 1 }]]], "UserIds": [1], "More": 1 }),
            json!({ "WasOverwritten": true, "Data": {}, "MetaData": { "LastUpdate": 5 }, "GlobalUpdates": [9, [[5, "five"], [9, 9]]] }),
        ] {
            let key = format!("k{}", value.to_string().len());
            set(&store, &key, value.clone()).await;
            assert_same(&read(&store, &key).await.unwrap(), &value);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_number_that_another_message_had_is_not_given_out_again() {
    for place in Place::both() {
        let server = place.server("a").await;
        let store = data_store(&server, "S");
        let with = |updates: Value| json!({ "Data": {}, "MetaData": {}, "GlobalUpdates": updates });
        set(&store, "k", with(json!([2, [[1, "a"], [2, "b"]]]))).await;
        store.remove("k").await.unwrap().unwrap();
        let answer = set(&store, "k", with(json!([1, [[1, "new"]]]))).await;
        assert_eq!(
            parsed(&answer)["GlobalUpdates"],
            json!([3, [[3, "new"]]]),
            "the answer says what it became"
        );
        assert_same(&read(&store, "k").await.unwrap(), &parsed(&answer));
        // From then on the numbers are the document's own again.
        let next = with(json!([4, [[3, "new"], [4, "next"]]]));
        set(&store, "k", next.clone()).await;
        assert_same(&read(&store, "k").await.unwrap(), &next);
        assert_eq!(
            parsed(&set(&store, "k", with(json!([0, []]))).await)["GlobalUpdates"],
            json!([4, []])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn messages_that_a_value_does_not_show_outlive_its_replacement() {
    for place in Place::both() {
        let server = place.server("a").await;
        let store = players_in(&server);
        set(&store, "k", json!("not a profile")).await;
        let profiles = world::players(&server);
        profiles.send_message("k", &json!({ "gift": 1 })).await.unwrap();
        assert_eq!(read(&store, "k").await, Some(json!("not a profile")));
        set(&store, "k", document(5, Value::Null, 0)).await;
        assert_eq!(
            read(&store, "k").await.unwrap()["GlobalUpdates"],
            json!([1, [[1, { "gift": 1 }]]])
        );
        // Those that it shows go when a document leaves them out.
        set(&store, "k", document(5, Value::Null, 0)).await;
        assert_eq!(read(&store, "k").await.unwrap()["GlobalUpdates"], json!([1, []]));
    }
}

/// What one key of a plain map would hold, with the one thing that differs: numbers of messages are
/// never given out twice.
#[derive(Debug, Default)]
struct Model {
    value: Option<Value>,
    /// Numbers and payloads of what waits, and the newest number.
    waiting: BTreeMap<u64, Value>,
    last: u64,
    hidden: BTreeSet<u64>,
}

impl Model {
    /// Numbers and payloads that a document states, if it is one that has any.
    fn stated(value: &Value) -> Option<(u64, BTreeMap<u64, Value>)> {
        let is_table = |value: &Value| value.is_object() || value.is_array();
        let document = value.as_object()?;
        let is_profile = document.get("Data").is_some_and(is_table)
            && document.get("MetaData").is_some_and(is_table);
        let only_messages = !document.contains_key("Data") && !document.contains_key("MetaData");
        let Some(updates) = document.get("GlobalUpdates") else {
            return is_profile.then(Default::default);
        };
        if !is_profile && !only_messages {
            return None;
        }
        let rows = updates[1].as_array()?;
        let row = |row: &Value| {
            (row[0].as_u64().unwrap(), row.as_array().unwrap().last().unwrap().clone())
        };
        let rows: BTreeMap<_, _> = rows.iter().map(row).collect();
        let last = updates[0].as_u64()?.max(rows.keys().last().copied().unwrap_or(0));
        Some((last, rows))
    }

    fn set(&mut self, value: &Value) {
        let shows = self.value.as_ref().is_none_or(|value| Self::stated(value).is_some());
        if !shows {
            self.hidden.extend(self.waiting.keys());
        } else {
            self.hidden.clear();
        }
        let (said_last, rows) = Self::stated(value).unwrap_or_default();
        let mut last = self.last.max(said_last);
        let mut waiting: BTreeMap<_, _> = self
            .waiting
            .iter()
            .filter(|(n, _)| self.hidden.contains(n))
            .map(|(n, p)| (*n, p.clone()))
            .collect();
        let mut renumbered = Vec::new();
        for (n, payload) in rows {
            let stays = self.waiting.contains_key(&n) && !self.hidden.contains(&n);
            if stays || n > self.last {
                waiting.insert(n, payload);
            } else {
                renumbered.push(payload);
            }
        }
        for payload in renumbered {
            last += 1;
            waiting.insert(last, payload);
        }
        self.hidden.clear();
        (self.value, self.waiting, self.last) = (Some(value.clone()), waiting, last);
    }

    fn send(&mut self, payload: Value) {
        self.last += 1;
        self.waiting.insert(self.last, payload);
    }

    fn remove(&mut self) {
        self.value = None;
        self.waiting.clear();
    }

    #[track_caller]
    fn check(&self, found: Option<&Value>) {
        let Some(value) = &self.value else {
            match found {
                None => assert!(self.waiting.is_empty()),
                Some(found) => self.check_messages(found),
            }
            return;
        };
        let found = found.expect("the key holds something");
        if Self::stated(value).is_none_or(|(last, rows)| last == self.last && rows == self.waiting)
        {
            return assert_same(found, value);
        }
        let rest = |value: &Value| {
            let mut rest = value.as_object().unwrap().clone();
            rest.shift_remove("GlobalUpdates");
            Value::from(rest)
        };
        assert_same(&rest(found), &rest(value));
        self.check_messages(found);
    }

    #[track_caller]
    fn check_messages(&self, found: &Value) {
        let (last, rows) = Self::stated(found).unwrap();
        assert_eq!(last, self.last);
        assert_same(
            &json!(rows.into_iter().collect::<Vec<_>>()),
            &json!(self.waiting.clone().into_iter().collect::<Vec<_>>()),
        );
    }
}

#[derive(Debug, Clone)]
enum Op {
    Set(Value),
    Update(Value),
    Send(u8),
    Remove,
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1000i64..1000).prop_map(Value::from),
        any::<f32>().prop_filter("JSON has no others", |n| n.is_finite()).prop_map(|n| json!(n)),
        "[a-zA-Z \"\\\\ä\u{1F600}]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                .prop_map(|map| Value::from(Map::from_iter(map))),
        ]
    })
}

fn any_document() -> impl Strategy<Value = Value> {
    let rows = (
        prop::collection::btree_map(1u64..12, any_json(), 0..4),
        0u64..14,
        any::<bool>(),
        1u64..3,
        any::<bool>(),
    );
    let updates = rows.prop_map(|(rows, last, in_four, revision, locked)| {
        let row = |(n, payload): (u64, Value)| {
            if in_four { json!([n, revision, locked, payload]) } else { json!([n, payload]) }
        };
        let last = last.max(rows.keys().last().copied().unwrap_or(0));
        json!([last, rows.into_iter().map(row).collect::<Vec<_>>()])
    });
    let session = || {
        prop_oneof![
            4 => Just(None),
            3 => (1i64..4, "[ab]").prop_map(|(place, job)| Some(json!([place, job, "s"]))),
            1 => Just(Some(json!([1, 2, 3]))),
            1 => any_json().prop_map(Some),
        ]
    };
    let meta = (
        session(),
        session(),
        prop_oneof![4 => (0u64..4).prop_map(Value::from), 1 => any_json()],
        any_json(),
        any::<u8>(),
    );
    let meta = meta.prop_map(|(session, request, count, other, mask)| {
        let mut meta = Map::new();
        let members = [
            ("SessionLoadCount", Some(count)),
            ("ActiveSession", session),
            ("ForceLoadSession", request),
            ("LastUpdate", Some(json!(1_795_000_000))),
            ("MetaTags", Some(other.clone())),
            ("ProfileCreateTime", Some(json!(1_795_000_000))),
            ("Other", Some(other)),
        ];
        for (bit, (name, value)) in members.into_iter().enumerate() {
            if let Some(value) = value.filter(|_| mask >> bit & 1 == 1) {
                meta.insert(name.into(), value);
            }
        }
        Value::from(meta)
    });
    let table = prop::collection::btree_map("[a-z]{1,3}", any_json(), 0..4)
        .prop_map(|map| Value::from(Map::from_iter(map)));
    (table, meta, updates, any_json(), any::<u8>()).prop_map(
        |(data, meta, updates, other, mask)| {
            let mut document = Map::new();
            let members = [
                ("Data", data),
                ("MetaData", meta),
                ("GlobalUpdates", updates),
                ("UserIds", other.clone()),
                ("RobloxMetaData", other.clone()),
                ("WasCorrupted", json!(true)),
                ("Unknown", other),
            ];
            // Mostly whole profiles.
            let mask = if mask & 0x80 == 0 { mask | 0b111 } else { mask };
            for (bit, (name, value)) in members.into_iter().enumerate() {
                if mask >> bit & 1 == 1 {
                    document.insert(name.into(), value);
                }
            }
            Value::from(document)
        },
    )
}

fn any_op() -> impl Strategy<Value = Op> {
    let not_null = || any_json().prop_filter("null cannot be stored", |value| !value.is_null());
    let value = || prop_oneof![5 => any_document(), 1 => not_null()];
    prop_oneof![
        4 => value().prop_map(Op::Set),
        4 => value().prop_map(Op::Update),
        2 => any::<u8>().prop_map(Op::Send),
        1 => Just(Op::Remove),
    ]
}

async fn run(place: Place, ops: &[Op]) {
    let server = place.server("a").await;
    let store = players_in(&server);
    let profiles = world::players(&server);
    let mut model = Model::default();
    for op in ops {
        match op {
            Op::Set(value) => {
                let answer = store.set("k", entry(value)).await.unwrap();
                model.set(value);
                model.check(Some(&parsed(&answer)));
            }
            Op::Update(value) => {
                let new = value.clone();
                let (shown, seen) = tokio::sync::watch::channel(None);
                let update = store.update("k", move |now| {
                    let _ = shown.send(now.map(parsed));
                    Some(entry(&new))
                });
                let answer = update.await.unwrap().unwrap();
                model.check(seen.borrow().as_ref());
                model.set(value);
                model.check(Some(&parsed(&answer)));
            }
            Op::Send(n) => {
                profiles.send_message("k", n).await.unwrap();
                model.send(json!(n));
            }
            Op::Remove => {
                let was = store.remove("k").await.unwrap();
                model.check(was.as_ref().map(parsed).as_ref());
                model.remove();
            }
        }
        model.check(read(&store, "k").await.as_ref());
    }
    assert!(server.shutdown().await.is_complete());
}

fn in_paused_time(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_sequence_of_documents_reads_like_a_plain_map(ops in prop::collection::vec(any_op(), 1..14)) {
        in_paused_time(run(Place::in_memory(), &ops));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_sequence_of_documents_reads_like_a_plain_map_in_a_file(ops in prop::collection::vec(any_op(), 1..14)) {
        in_paused_time(run(Place::in_file(), &ops));
    }
}
