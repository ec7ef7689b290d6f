use proptest::prelude::*;
use serde_json::json;

use super::{codec::MAX_PAYLOAD, *};

/// Any JSON value, with the numbers that tend to go wrong.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| Number::from_f64(f).map_or(Value::Null, Value::Number)),
        Just(json!(1790000000)),
        Just(json!(1.0)),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        ".*".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((".{0,8}", inner), 0..6)
                .prop_map(|rows| Value::Object(rows.into_iter().collect())),
        ]
    })
}

pub(crate) fn any_table() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec((".{0,8}", any_json()), 0..5).prop_map(|rows| rows.into_iter().collect())
}

pub(crate) fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

fn any_origin() -> impl Strategy<Value = Option<Box<Origin>>> {
    let origin = (any_table(), any_table(), prop::collection::vec(".{0,8}", 0..3));
    prop::option::of(
        origin.prop_map(|(document, meta, absent)| Box::new(Origin { document, meta, absent })),
    )
}

fn any_stored() -> impl Strategy<Value = Stored> {
    let users = || prop::collection::vec(0..i64::MAX, 0..4);
    let metadata = || prop::collection::vec(("[a-z]{1,10}", 0..1000), 0..4);
    let metadata = move || {
        metadata().prop_map(|rows| {
            rows.into_iter().map(|(k, v)| (k, Value::from(v))).collect::<Map<_, _>>()
        })
    };
    let profile = (
        any::<i64>(),
        users(),
        metadata(),
        any_table(),
        any_table(),
        any_table(),
        any_origin(),
        any_json(),
    );
    let profile = profile.prop_map(
        |(created_s, user_ids, roblox_metadata, meta_tags, extra, extra_meta, origin, data)| {
            let rest = Record::new(created_s, raw(&data));
            Stored::Profile(Record {
                user_ids,
                roblox_metadata,
                meta_tags,
                extra,
                extra_meta,
                origin,
                ..rest
            })
        },
    );
    let foreign = (users(), metadata(), any_json());
    let foreign = foreign.prop_map(|(user_ids, metadata, value)| {
        Stored::Foreign(Foreign { user_ids, metadata, value: raw(&value) })
    });
    let messages = (users(), metadata(), any_table(), any_origin()).prop_map(
        |(user_ids, metadata, extra, origin)| {
            Stored::MessagesOnly(MessagesOnly { user_ids, metadata, extra, origin })
        },
    );
    prop_oneof![profile, foreign, messages]
}

proptest! {
    #[test]
    fn a_stored_record_is_decoded_as_it_was_encoded(stored in any_stored()) {
        let bytes = stored.encode().unwrap();
        prop_assert_eq!(Stored::decode(&bytes).unwrap(), stored);
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..300), form in 0u8..5, codec in 0u8..3) {
        // Most random bytes fail at the first two; these get further.
        let _ = Stored::decode(&bytes);
        if bytes.len() > 2 {
            (bytes[0], bytes[1]) = (form, codec);
            let _ = Stored::decode(&bytes);
        }
    }

    #[test]
    fn damage_to_stored_bytes_is_survived(stored in any_stored(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = stored.encode().unwrap().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Stored::decode(&bytes);
        let cut = cut.index(bytes.len());
        let _ = Stored::decode(&bytes[..cut]);
    }
}

/// The forms of the golden files, with what they mean.
fn golden() -> [(&'static str, &'static [u8], Stored); 4] {
    let small = Record::new(1_790_000_000, raw(&json!({ "Coins": 5 })));
    let large = Record {
        created_s: Number::from_f64(1_790_000_000.25).unwrap(),
        user_ids: vec![7, 42],
        roblox_metadata: Map::from_iter([
            ("Guild".into(), json!("Guild2")),
            ("Tier".into(), json!(0)),
        ]),
        meta_tags: Map::from_iter([("DataVersion".into(), json!(3))]),
        extra: Map::from_iter([("Custom".into(), json!([1, 2]))]),
        extra_meta: Map::from_iter([("Hidden".into(), json!(true))]),
        origin: Some(Box::new(Origin {
            document: Map::from_iter([(
                "GlobalUpdates".into(),
                json!([1, [[1, { "Type": "Gift" }]]]),
            )]),
            meta: Map::from_iter([
                ("LastUpdate".into(), json!(1_790_000_300)),
                ("SessionLoadCount".into(), json!(2)),
            ]),
            absent: vec!["UserIds".into()],
        })),
        ..Record::new(0, raw(&json!({ "Items": vec!["Wyvern Scale"; 20], "Name": "Ключ ☕" })))
    };
    let foreign =
        Foreign { user_ids: vec![7], metadata: Map::new(), value: raw(&json!("not a profile")) };
    let messages = MessagesOnly {
        user_ids: Vec::new(),
        metadata: Map::new(),
        extra: Map::new(),
        origin: None,
    };
    [
        (
            "profile-plain",
            include_bytes!("../../tests/data/stored/profile-plain.bin"),
            Stored::Profile(small),
        ),
        (
            "profile-zstd",
            include_bytes!("../../tests/data/stored/profile-zstd.bin"),
            Stored::Profile(large),
        ),
        (
            "foreign",
            include_bytes!("../../tests/data/stored/foreign.bin"),
            Stored::Foreign(foreign),
        ),
        (
            "messages-only",
            include_bytes!("../../tests/data/stored/messages-only.bin"),
            Stored::MessagesOnly(messages),
        ),
    ]
}

#[test]
fn stored_bytes_of_before_are_read() {
    for (name, bytes, stored) in golden() {
        assert_eq!(Stored::decode(bytes).unwrap(), stored, "{name}");
    }
}

#[test]
fn stored_bytes_stay_the_same() {
    for (name, bytes, stored) in golden() {
        let now = stored.encode().unwrap();
        assert_eq!(now[..2], bytes[..2], "{name}");
        // Another version of zstd may pack the same content otherwise.
        if bytes[1] == 0 {
            assert_eq!(now, bytes, "{name}");
        }
    }
}

#[test]
fn what_a_newer_version_wrote_is_named() {
    let unknown = |bytes: &[u8]| Stored::decode(bytes).unwrap_err().to_string();
    assert_eq!(
        unknown(&[9, 0, b'{']),
        "the stored value was written by a newer version, or is damaged: form=`9`"
    );
    assert_eq!(
        unknown(&[1, 7, b'{']),
        "the stored value was written by a newer version, or is damaged: codec=`7`"
    );
    assert!(unknown(b"\x01").contains("only 1 bytes"));
    let with_more = br#"{"created":1,"data":{},"invented":1}"#;
    assert!(unknown(&[&[1, 0], &with_more[..]].concat()).contains("invented"));
}

#[test]
fn a_frame_that_claims_too_much_is_refused_before_memory_is_allocated() {
    let huge = zstd::bulk::compress(&vec![b' '; MAX_PAYLOAD + 1], 1).unwrap();
    let err = Stored::decode(&[&[1, 1], &huge[..]].concat()).unwrap_err();
    assert_eq!(
        err,
        RecordError::RecordTooLarge { size: MAX_PAYLOAD as u64 + 1, limit: MAX_PAYLOAD }
    );

    // A header without content: single segment, a size of 2^62 in eight bytes.
    let liar =
        [&[1u8, 1, 0x28, 0xb5, 0x2f, 0xfd, 0b1110_0000][..], &(1u64 << 62).to_le_bytes()].concat();
    assert_eq!(
        Stored::decode(&liar).unwrap_err(),
        RecordError::RecordTooLarge { size: 1 << 62, limit: MAX_PAYLOAD }
    );
}

#[test]
fn the_largest_data_fits_and_one_byte_more_does_not() {
    // Hexadecimal digits of a digest chain: text that compresses badly.
    let mut text = String::new();
    let mut digest = crate::data_store::Digest::of(b"seed");
    while text.len() < MAX_DATA_BYTES {
        digest = crate::data_store::Digest::of(&digest.0);
        text.extend(
            digest
                .0
                .iter()
                .map(|byte| char::from(b'0' + byte % 64))
                .map(|c| if c == '\\' { 'z' } else { c }),
        );
    }
    text.truncate(MAX_DATA_BYTES - 2);
    let largest = Record::new(0, raw(&json!(text)));
    assert_eq!(largest.data.get().len(), MAX_DATA_BYTES);
    let bytes = largest.encode().unwrap();
    assert!(bytes.len() <= crate::data_store::MAX_VALUE_BYTES);
    assert_eq!(Stored::decode(&bytes).unwrap(), Stored::Profile(largest));

    text.push('x');
    let err = Record::new(0, raw(&json!(text))).encode().unwrap_err();
    assert_eq!(err.to_string(), "at `/Data`: it is too large: size=`4194305` limit=`4194304`");
}

#[test]
fn a_check_without_compression_refuses_what_encoding_refuses() {
    let fits = Record::new(0, raw(&json!("x".repeat(1000))));
    let too_large = Record::new(0, raw(&json!("x".repeat(MAX_PAYLOAD))));
    let mut negative = fits.clone();
    negative.user_ids = vec![-1];
    for (record, is_fine) in [(fits, true), (too_large, false), (negative, false)] {
        let encoded = record.encode_checked().map(drop);
        assert_eq!((record.check_encodes(), encoded.is_ok()), (encoded.clone(), is_fine));
    }
}

#[test]
fn metadata_has_limits() {
    let checked =
        |key: &str, value: Value| check_metadata(&Map::from_iter([(key.to_owned(), value)]));
    assert!(checked(&"ä".repeat(50), json!(1)).is_ok());
    assert!(
        checked(&"ä".repeat(51), json!(1))
            .unwrap_err()
            .to_string()
            .contains("a key characters=`51` limit=`50`")
    );
    assert!(checked("k", json!("x".repeat(250))).is_ok());
    assert!(
        checked("k", json!("x".repeat(251)))
            .unwrap_err()
            .to_string()
            .contains("characters=`251` limit=`250`")
    );

    let all = |last: usize| {
        let rows = [("a", "x".repeat(150)), ("b", "y".repeat(last))]
            .map(|(key, value)| (key.to_owned(), value.into()));
        check_metadata(&Map::from_iter(rows))
    };
    // Braces, two keys with quotes and colons, a comma and four quotes come to 15 characters.
    assert!(all(300 - 150 - 15).is_ok());
    assert!(all(301 - 150 - 15).unwrap_err().to_string().contains("characters=`301` limit=`300`"));

    let record = Record {
        roblox_metadata: Map::from_iter([("k".into(), json!("x".repeat(251)))]),
        ..Record::new(0, raw(&json!({})))
    };
    let error = record.encode().unwrap_err().to_string();
    assert!(
        error.starts_with("at `/RobloxMetaData/k`: the metadata is too long: a value"),
        "{error}"
    );
}

#[test]
fn user_ids_are_not_negative() {
    let record = Record { user_ids: vec![0, 1], ..Record::new(0, raw(&json!({}))) };
    assert!(record.encode().is_ok());
    let record = Record { user_ids: vec![1, -1], ..record };
    assert_eq!(
        record.encode().unwrap_err().to_string(),
        "at `/UserIds/1`: a user id must not be negative: user_id=`-1`"
    );
}

#[test]
fn numbers_keep_their_form() {
    for text in ["1", "1.0", "18446744073709551615", "-1", "1.5e300", "0.1"] {
        let data: Box<RawValue> = serde_json::from_str(&format!(
            r#"{{"n":{text},"float":0.123456789012345678901234567890}}"#
        ))
        .unwrap();
        let created_s: Number = serde_json::from_str(text).unwrap();
        let record = Record { created_s, ..Record::new(0, data) };
        let Stored::Profile(back) = Stored::decode(&record.encode().unwrap()).unwrap() else {
            panic!("not a profile")
        };
        assert_eq!(back.created_s.to_string(), record.created_s.to_string());
        assert_eq!(back.data.get(), record.data.get());
    }
}
