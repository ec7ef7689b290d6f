use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::record::version::version_label;
use crate::{
    ProfileKey,
    data_store::{
        Cause, Holder, KeyState, MessageId, Request, RequestId, ServerId, ServerRow, VersionInfo,
    },
    record::{
        RecordError,
        tests::{any_json, any_table, raw},
    },
};

const WRITTEN_MS: i64 = 1_790_000_900_500;
const CREATED_MS: i64 = 1_790_000_000_042;

/// Equal, except that an empty list is an empty table and a number is a number however it is
/// written.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b || (is_empty_table(a) && is_empty_table(b)),
    }
}

#[track_caller]
fn assert_same(a: &Value, b: &Value) {
    assert!(same(a, b), "\n left: {a}\nright: {b}");
}

fn info(cause: Cause) -> VersionInfo {
    VersionInfo {
        number: 3,
        label: None,
        written_ms: WRITTEN_MS,
        stored_ms: WRITTEN_MS + 5,
        superseded_ms: None,
        removed: false,
        cause,
        author: "test".into(),
        load_count: 9,
        pinned: false,
        bytes: 0,
    }
}

fn parse(value: &Value) -> Document {
    let around =
        Surroundings { written_ms: WRITTEN_MS, created_ms: CREATED_MS, ..Surroundings::default() };
    Document::parse(&raw(value), around)
}

/// The key's state right after the document was imported.
fn live(document: &Document) -> KeyState {
    KeyState {
        lease: document.lease.clone(),
        inbox: Some(document.messages.clone()),
        last_message: document.last_message,
        ..KeyState::absent(ProfileKey::new("S", "global", "k").unwrap())
    }
}

fn composed(stored: &Stored, cause: Cause, live: Option<&KeyState>) -> Value {
    serde_json::from_str(compose(stored, &info(cause), live).get()).unwrap()
}

/// Through the stored bytes and back, as an earlier version and as the current one.
#[track_caller]
fn assert_round_trip(value: &Value) {
    let document = parse(value);
    let stored = Stored::decode(&document.stored.encode().unwrap()).unwrap();
    assert_same(&composed(&stored, Cause::Import, None), value);
    assert_same(&composed(&stored, Cause::Import, Some(&live(&document))), value);
}

fn profile_store() -> Value {
    json!({
        "UserIds": [7], "RobloxMetaData": { "Guild": "G" }, "GlobalUpdates": [3, [[2, { "Type": "Gift" }], [3, "text"]]],
        "WasOverwritten": false, "Data": { "Coins": 5, "Pets": [] }, "Custom": { "a": 1 },
        "MetaData": { "MetaTags": { "V": 1 }, "LastUpdate": 1_790_000_890, "ProfileCreateTime": 1_790_000_000,
            "SessionLoadCount": 4, "ActiveSession": [1001, "JOB", "SESSION"], "ForceLoadSession": [1002, "OTHER"], "Odd": 1 },
    })
}

fn profile_service() -> Value {
    json!({
        "GlobalUpdates": [2, [[1, 3, true, { "Type": "Gift" }], [2, 1, false, { "Type": "Mail" }]]], "Data": [],
        "MetaData": { "MetaTags": [], "LastUpdate": 1_790_000_890, "ProfileCreateTime": 1_790_000_000, "SessionLoadCount": 4,
            "ActiveSession": [1001, "JOB"] },
    })
}

#[test]
fn a_profile_store_document_is_taken_apart() {
    let document = parse(&profile_store());
    let Stored::Profile(record) = &document.stored else { panic!("{document:?}") };
    assert_eq!(document.foreign, None);
    assert_eq!(record.created_s, 1_790_000_000.into());
    assert_eq!(record.user_ids, [7]);
    assert_eq!(record.data.get(), r#"{"Coins":5,"Pets":[]}"#);
    assert_eq!(record.meta_tags["V"], 1);
    assert_eq!(Value::from(record.extra.clone()), json!({ "Custom": { "a": 1 } }));
    assert_eq!(Value::from(record.extra_meta.clone()), json!({ "Odd": 1 }));

    let holder = document.lease.holder.as_ref().unwrap();
    assert_eq!((holder.place_id, &*holder.job_id, &*holder.session), (1001, "JOB", "SESSION"));
    assert_eq!((holder.server, holder.last_update_ms), (None, Some(1_790_000_890_000)));
    let request = document.lease.request.as_ref().unwrap();
    assert_eq!((request.place_id, &*request.job_id, request.server), (1002, "OTHER", None));
    assert_eq!(document.lease.load_count, 4);
    assert_eq!(document.last_message, 3);
    let [first, second] = document.messages.as_slice() else { panic!("{document:?}") };
    assert_eq!(
        (first.index, first.revision, first.locked, &first.payload[..]),
        (2, 1, false, &br#"{"Type":"Gift"}"#[..])
    );
    assert_eq!(&second.payload[..], b"\"text\"");
    assert_ne!(first.id, second.id);
    assert_eq!(parse(&profile_store()), document, "the same document gives the same identities");
}

#[test]
fn a_profile_service_document_is_taken_apart() {
    let document = parse(&profile_service());
    let Stored::Profile(record) = &document.stored else { panic!("{document:?}") };
    assert_eq!(record.data.get(), "{}");
    let holder = document.lease.holder.as_ref().unwrap();
    assert_eq!((&*holder.job_id, &*holder.session), ("JOB", ""));
    let states: Vec<_> =
        document.messages.iter().map(|m| (m.index, m.revision, m.locked)).collect();
    assert_eq!(states, [(1, 3, true), (2, 1, false)]);
}

#[test]
fn documents_come_out_as_they_went_in() {
    assert_round_trip(&profile_store());
    assert_round_trip(&profile_service());
    assert_round_trip(
        &json!({ "GlobalUpdates": [2, [[1, 2, false, {}], [2, 1, false, {}]]], "UserIds": [1], "More": 1 }),
    );
    // What is odd stays odd: nothing is tidied up on the way.
    assert_round_trip(
        &json!({ "Data": [1, 2], "MetaData": [], "UserIds": ["7"], "RobloxMetaData": [1] }),
    );
    assert_round_trip(
        &json!({ "Data": {}, "MetaData": { "MetaTags": [1], "ProfileCreateTime": "then", "SessionLoadCount": 1.5,
        "ActiveSession": [1.5, 12, 99], "ForceLoadSession": "me", "LastUpdate": null }, "GlobalUpdates": null }),
    );
    assert_round_trip(
        &json!({ "Data": {}, "MetaData": { "ActiveSession": null }, "GlobalUpdates": [0, {}] }),
    );
}

#[test]
fn what_is_no_profile_is_kept_with_the_reason() {
    for (value, reason) in [
        (json!("not a profile"), "the value is not a table: found=`a string`"),
        (json!(12345), "the value is not a table: found=`a number`"),
        (json!(["ThisAintRight"]), "the value is a list, not a profile"),
        (json!(true), "the value is not a table: found=`a boolean`"),
        (json!({}), "Data is missing"),
        (
            json!({ "GlobalUpdates": [0, []], "Data": 5, "MetaData": [] }),
            "Data is not a table: found=`a number`",
        ),
        (
            json!({ "GlobalUpdates": [0, []], "Data": {}, "MetaData": "broken" }),
            "MetaData is not a table: found=`a string`",
        ),
        (json!({ "GlobalUpdates": [0, []], "Data": {} }), "MetaData is missing"),
        (
            json!({ "Data": {}, "MetaData": {}, "GlobalUpdates": 5 }),
            "GlobalUpdates is not a list: found=`a number`",
        ),
        (
            json!({ "Data": {}, "MetaData": {}, "GlobalUpdates": [0] }),
            "GlobalUpdates has not two elements: found=`1`",
        ),
        (
            json!({ "GlobalUpdates": [1, [[1, {}], [1, {}]]] }),
            "two messages in GlobalUpdates have the same index: index=`1`",
        ),
        (
            json!({ "GlobalUpdates": [1, [[1, 2, 3]]] }),
            "a message in GlobalUpdates has neither two nor four elements",
        ),
    ] {
        let document = parse(&value);
        assert_eq!(document.foreign.as_deref(), Some(reason), "{value}");
        assert!(matches!(document.stored, Stored::Foreign(_)));
        assert!(document.messages.is_empty() && document.lease == LeaseState::default());
        assert_round_trip(&value);
    }
}

#[test]
fn what_the_store_says_of_the_key_wins_and_the_document_still_comes_out() {
    let around = Surroundings {
        written_ms: WRITTEN_MS,
        created_ms: CREATED_MS,
        user_ids: Some(vec![8, 9]),
        metadata: Some(Map::from_iter([("Tier".into(), json!(1))])),
    };
    let document = Document::parse(&raw(&profile_store()), around);
    assert_eq!(document.stored.user_ids(), [8, 9]);
    assert_eq!(document.stored.metadata()["Tier"], 1);
    assert_same(&composed(&document.stored, Cause::Import, None), &profile_store());
}

#[test]
fn a_profile_of_our_own_is_shown_as_a_document() {
    let record =
        Record { user_ids: vec![7], ..Record::new(1_790_000_000, raw(&json!({ "Coins": 5 }))) };
    let stored = Stored::Profile(record);
    let earlier = json!({
        "Data": { "Coins": 5 }, "UserIds": [7], "RobloxMetaData": {}, "GlobalUpdates": [0, []],
        "MetaData": { "ProfileCreateTime": 1_790_000_000, "SessionLoadCount": 9, "LastUpdate": 1_790_000_900, "MetaTags": {} },
    });
    assert_eq!(composed(&stored, Cause::Save, None), earlier);

    let server = ServerId(uuid::Uuid::from_u128(1));
    let message = |index, locked| StoredMessage {
        index,
        id: MessageId::new(5, &format!("m{index}")).unwrap(),
        payload: bytes::Bytes::from_static(b"{\"Type\":\"Gift\"}"),
        locked,
        revision: 1,
        sent_ms: 5,
    };
    let holder = Holder {
        server: Some(server),
        place_id: 1,
        job_id: "job".into(),
        session: "session".into(),
        since_ms: 5,
        last_update_ms: None,
        document: None,
    };
    let request = Request {
        id: RequestId(server.0),
        server: Some(server),
        place_id: 2,
        job_id: "asker".into(),
        at_ms: 6,
        document: None,
    };
    let row = ServerRow {
        id: server,
        place_id: 1,
        job_id: "job".into(),
        revision: 4,
        lease_ms: 20_000,
        started_ms: 1,
        renewed_ms: WRITTEN_MS + 60_000,
        dead: false,
        host: None,
        generation: 0,
        owner: None,
    };
    let mut state = KeyState {
        lease: LeaseState {
            load_count: 10,
            holder: Some(holder),
            request: Some(request),
            offer: None,
        },
        holder_server: Some(row),
        inbox: Some(vec![message(4, false), message(6, false)]),
        last_message: 6,
        ..KeyState::absent(ProfileKey::new("S", "global", "k").unwrap())
    };
    let current = composed(&stored, Cause::Save, Some(&state));
    assert_eq!(current["MetaData"]["LastUpdate"], 1_790_000_960, "the server's renewal");
    assert_eq!(current["MetaData"]["SessionLoadCount"], 10);
    assert_eq!(current["MetaData"]["ActiveSession"], json!([1, "job", "session"]));
    assert_eq!(current["MetaData"]["ForceLoadSession"], json!([2, "asker"]));
    assert_eq!(
        current["GlobalUpdates"],
        json!([6, [[4, { "Type": "Gift" }], [6, { "Type": "Gift" }]]])
    );

    state.inbox = Some(vec![message(4, true), message(6, false)]);
    let current = composed(&stored, Cause::Save, Some(&state));
    assert_eq!(
        current["GlobalUpdates"],
        json!([6, [[4, 1, true, { "Type": "Gift" }], [6, 1, false, { "Type": "Gift" }]]])
    );

    state.lease.holder = None;
    state.holder_server = None;
    let current = composed(&stored, Cause::Save, Some(&state));
    assert_eq!(current["MetaData"]["LastUpdate"], 1_790_000_900, "the save");
    assert_eq!(current["MetaData"].get("ActiveSession"), None);
}

#[test]
fn the_current_imported_version_shows_what_happened_since() {
    let document = parse(&profile_service());
    let mut state = live(&document);
    state.inbox.as_mut().unwrap().remove(0);
    state.lease.holder = None;
    state.lease.load_count = 5;
    let current = composed(&document.stored, Cause::Import, Some(&state));
    assert_eq!(
        current["GlobalUpdates"],
        json!([2, [[2, 1, false, { "Type": "Mail" }]]]),
        "in the form it had"
    );
    assert_eq!(current["MetaData"].get("ActiveSession"), None);
    assert_eq!(current["MetaData"]["SessionLoadCount"], 5);
    assert_eq!(current["MetaData"]["LastUpdate"], 1_790_000_890);
}

#[test]
fn a_restored_version_does_not_repeat_what_its_document_said() {
    let document = parse(&profile_store());
    let restored = composed(&document.stored, Cause::Restore, None);
    assert_eq!(restored["MetaData"].get("ActiveSession"), None);
    assert_eq!(restored["MetaData"]["SessionLoadCount"], 9);
    assert_eq!(restored["GlobalUpdates"], json!([0, []]));
    assert_eq!(restored["Custom"], json!({ "a": 1 }));
}

#[test]
fn version_strings_have_the_form_of_the_services() {
    assert_eq!(
        version_label(1_790_000_007_056, 2, 1_790_000_000_042),
        "000001A0C4508790.0000000002.000001A0C4506C2A.01"
    );
}

#[test]
fn what_is_too_large_for_us_is_kept_as_foreign() {
    let large = json!({ "GlobalUpdates": [1, [[1, "x".repeat(300 << 10)]]] });
    assert!(parse(&large).foreign.unwrap().starts_with("a message is too large"));
    let data = json!({ "Data": { "a": "x".repeat(4 << 20) }, "MetaData": {} });
    let document = parse(&data);
    assert!(document.foreign.as_deref().unwrap().starts_with("Data is too large"));
    assert!(document.stored.encode().is_ok());
    let beyond = parse(&json!("x".repeat(5 << 20))).stored.encode();
    assert!(matches!(beyond, Err(RecordError::RecordTooLarge { .. })));
}

fn any_document() -> impl Strategy<Value = Value> {
    let user_ids =
        prop_oneof![prop::collection::vec(any::<i64>(), 0..3).prop_map(Value::from), any_json()];
    let entries = (
        prop::collection::btree_map(1u64..50, (any_json(), 0u64..4, any::<bool>()), 0..4),
        any::<bool>(),
    );
    let entries = entries.prop_map(|(rows, in_four)| {
        let row = |(index, (payload, revision, locked)): (u64, (Value, u64, bool))| match in_four {
            true => json!([index, revision, locked, payload]),
            false => json!([index, payload]),
        };
        json!([60, rows.into_iter().map(row).collect::<Vec<_>>()])
    });
    let updates = prop_oneof![8 => entries, 1 => any_json()];
    let session = || prop_oneof![Just(json!([1, "job"])), Just(json!([1, "job", 7])), any_json()];
    let number = || prop_oneof![(0u64..9).prop_map(Value::from), any_json()];
    let meta =
        (any_table(), number(), number(), number(), session(), session(), any_json(), any::<u8>());
    let meta = meta.prop_map(|(mut meta, created, count, update, session, request, tags, mask)| {
        let members = [
            (CREATED, created),
            (LOAD_COUNT, count),
            (LAST_UPDATE, update),
            (SESSION, session),
            (REQUEST, request),
            (TAGS, tags),
        ];
        for (bit, (name, value)) in members.into_iter().enumerate() {
            if mask >> bit & 1 == 1 {
                meta.insert(name.into(), value);
            }
        }
        Value::from(meta)
    });
    let data = prop_oneof![4 => any_table().prop_map(Value::from), 1 => any_json()];
    (
        any_table(),
        data,
        prop_oneof![6 => meta, 1 => any_json()],
        updates,
        user_ids,
        any_json(),
        any::<bool>(),
        any::<u8>(),
    )
        .prop_map(|(mut document, data, meta, updates, user_ids, roblox, mark, mask)| {
            document.insert(DATA.into(), data);
            document.insert(META.into(), meta);
            let members = [
                (UPDATES, updates),
                (USER_IDS, user_ids),
                (ROBLOX_META, roblox),
                (MARKS[0], mark.into()),
            ];
            for (bit, (name, value)) in members.into_iter().enumerate() {
                if mask >> bit & 1 == 1 {
                    document.insert(name.into(), value);
                }
            }
            Value::from(document)
        })
}

proptest! {
    #[test]
    fn any_document_comes_out_as_it_went_in(value in prop_oneof![6 => any_document(), 1 => any_json()]) {
        assert_round_trip(&value);
    }
}
