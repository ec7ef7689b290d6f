//! What a store holds beside live profiles travels too: tombstones, messages, versions by name.

use profilestore::{storable::MAX_DATA_BYTES, transfer::MAX_LINE_BYTES};

use super::*;

#[tokio::test]
async fn tombstones_and_waiting_messages_travel() {
    let store = memory();
    let removed = line("removed", 2, Value::Null);
    let again = removed
        .replace("\"n\":2", "\"n\":3")
        .replace("removed-2", "removed-3")
        .replace("\"value\":null", "\"deleted\":true");
    let report = imported(&store, line("removed", 1, profile(1)) + &removed + &again).await;
    assert_eq!((report.versions, report.tombstones, report.foreign.len()), (3, 2, 0));
    write(&store, Change::message(&key("removed"), "m")).await;
    write(&store, Change::message(&key("waiting"), "m")).await;

    let (lines, report) = exported(&store).await;
    assert_eq!(
        (report.keys, report.versions, report.tombstones, report.pending.entries),
        (2, 5, 2, 2)
    );
    let values: Vec<_> = lines
        .iter()
        .map(|line| (line["key"].as_str().unwrap(), line["n"].as_u64().unwrap(), &line["value"]))
        .collect();
    let waiting = json!({ "GlobalUpdates": [1, [[1, { "Gift": 1 }]]] });
    assert_eq!(
        values[1..],
        [
            ("removed", 2, &Value::Null),
            ("removed", 3, &Value::Null),
            ("removed", 4, &waiting),
            ("waiting", 1, &waiting)
        ]
    );
    let label = lines[4]["version"].as_str().unwrap();
    assert!(label.ends_with(".01") && label.contains(".0000000001."), "{label}");

    let other = memory();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let report = imported(&other, text).await;
    assert_eq!((report.versions, report.tombstones, report.pending.entries), (5, 2, 2));
    assert_same_lines(lines, exported(&other).await.0);
}

#[tokio::test]
async fn a_version_is_found_by_every_name_it_has() {
    let store = memory();
    imported(&store, line("a", 1, profile(1))).await;
    let state = store.read_one(&key("a"), Returning::ALL).await.unwrap().1;
    write(&store, Change::write(&state, NewValue::Bytes(state.value.clone().unwrap()))).await;
    let label = exported(&store).await.0[1]["version"].as_str().unwrap().to_owned();
    for (name, number) in [
        (VersionRef::Number(2), Some(2)),
        (VersionRef::Label("a-1".into()), Some(1)),
        (VersionRef::Label(label.clone()), Some(2)),
        (VersionRef::Label(label.replace(".0000000002.", ".0000000001.")), None),
        (VersionRef::Label(label.replace(".01", ".02")), None),
        (VersionRef::Number(3), None),
    ] {
        let found = document(&store, &key("a"), Some(&name)).await.unwrap();
        assert_eq!(found.and_then(|found| found.info).map(|info| info.number), number, "{name:?}");
    }
    let current = document(&store, &key("a"), None).await.unwrap().unwrap();
    assert_eq!(
        (current.label, current.content, current.user_ids),
        (label, Content::Profile, vec![7.into()])
    );
    assert!(document(&store, &key("b"), None).await.unwrap().is_none());
}

#[tokio::test]
async fn values_that_cannot_be_read_are_reported_and_left_out() {
    let store = memory();
    imported(&store, line("a", 1, profile(1))).await;
    let state = store.read_one(&key("a"), Returning::HEAD).await.unwrap().1;
    write(&store, Change::write(&state, NewValue::Bytes(Bytes::from_static(b"\x07\x00{}")))).await;
    let (lines, report) = exported(&store).await;
    assert_eq!((lines.len(), report.versions), (1, 1));
    assert_eq!((report.unreadable[0].number, report.unreadable[0].key.key()), (2, "a"));
    assert!(report.unreadable[0].why.contains("form=`7`"));
    let verified = verify(&store, &ExportFilter::default(), &mut |_| {}).await.unwrap();
    assert_eq!(verified.unreadable, report.unreadable);
}

#[tokio::test]
async fn an_export_can_be_narrowed() {
    let store = memory();
    imported(&store, records()).await;
    let mut text = Vec::new();
    let filter = ExportFilter { scope: Some("Season1".into()), ..ExportFilter::default() };
    let report = export(&store, &filter, &mut text, &mut |_| {}).await.unwrap();
    assert_eq!(report.keys, 41);
    assert!(parsed(&text).iter().all(|line| line["store"] == "LegacyData"));
}

#[tokio::test]
async fn an_import_says_that_its_temporary_files_cannot_be_made_and_stores_nothing() {
    let store = memory();
    let folder = std::env::temp_dir().join("no such folder of profilestore");
    let options = ImportOptions { folder: Some(folder.clone()), ..ImportOptions::default() };
    let text = line("a", 1, profile(1));
    let error = import(&store, &Env::system(), text.as_bytes(), &options, &mut |_| {}).await;
    let error = error.unwrap_err();
    assert!(matches!(&error, TransferError::Temporary { folder: found, .. } if *found == folder));
    assert_eq!(exported(&store).await.0, Vec::<Value>::new());
}

/// Messages that a game can send, until they are so many bytes or more.
async fn send(store: &dyn DataStore, name: &str, bytes: usize) {
    let text = "x".repeat(200_000);
    for n in 1..=bytes.div_ceil(text.len()) {
        let id = MessageId::new(Env::system().unix_ms(), &format!("m{n}")).unwrap();
        let payload = json!({ "n": n, "text": text }).to_string().into();
        let message = NewMessage { id, payload };
        write(store, Change::AppendMessage { key: key(name), message, cap: 1000 }).await;
    }
}

/// They were one line, which an import refused for its length, and the key with it.
#[tokio::test]
async fn messages_that_are_too_large_for_one_line_come_in_again() {
    let (store, other) = (memory(), memory());
    imported(&store, line("many", 1, profile(1)) + &line("many", 2, profile(2))).await;
    imported(&store, line("foreign", 1, json!("text"))).await;
    send(&store, "many", MAX_LINE_BYTES + 1).await;
    send(&store, "unborn", MAX_DATA_BYTES + 1).await;
    send(&store, "foreign", 1).await;

    let mut text = Vec::new();
    let filter = ExportFilter::default();
    let report = export(&store, &filter, &mut text, &mut |_| {}).await.unwrap();
    assert_eq!((report.keys, report.versions, report.pending.keys), (3, 4, 3));
    assert!(text.split(|byte| *byte == b'\n').all(|line| line.len() < 2 << 20));
    let report = imported(&other, &text).await;
    assert_eq!((report.keys, report.versions, report.pending.keys), (3, 4, 3));
    assert_eq!((report.skipped.len(), report.malformed.len()), (0, 0));
    for name in ["many", "unborn", "foreign"] {
        let (sent, found) = (waiting(&store, name).await, waiting(&other, name).await);
        assert!(!sent.1.is_empty() && sent == found, "{name}");
    }
    let again = exported(&other).await.0;
    assert_eq!(again.len(), parsed(&text).len());
    assert!(parsed(&text).iter().zip(&again).all(|(a, b)| same(a, b)));
    let repeated = imported(&other, &text).await;
    assert_eq!((repeated.already_there.keys, repeated.skipped.len()), (3, 0));
}

/// The newest index, and each message's index and payload.
async fn waiting(store: &dyn DataStore, name: &str) -> (u64, Vec<(u64, Bytes)>) {
    let state = store.read_one(&key(name), Returning::ALL).await.unwrap().1;
    let inbox = state.inbox.unwrap().into_iter();
    (state.last_message, inbox.map(|message| (message.index, message.payload)).collect())
}

/// An earlier export had them in the document, up to the longest line. The version had no room for
/// them, and the key was refused.
#[tokio::test]
async fn a_document_with_more_messages_than_a_version_may_hold_comes_in() {
    let mut value = profile(1);
    let messages: Vec<Value> = (1..=30).map(|n| json!([n, "x".repeat(200_000)])).collect();
    value["GlobalUpdates"] = json!([31, messages]);
    let store = memory();
    let report = imported(&store, line("a", 1, value)).await;
    assert_eq!((report.keys, report.skipped.len(), report.pending.entries), (1, 0, 30));
    let (last, found) = waiting(&store, "a").await;
    assert_eq!((last, found.len()), (31, 30));
    assert!(found.iter().all(|(_, payload)| payload.len() == 200_002));
}

#[tokio::test]
async fn lines_of_messages_that_fit_no_version_leave_their_key_out() {
    let messages = |name: &str, n: u64, index: u64| {
        let line = json!({ "store": "PlayerData", "key": name, "n": n, "updated_ms": 5,
            "messages": [9, [[index, { "Gift": 1 }]]] });
        format!("{line}\n")
    };
    let both = line("both", 1, profile(1)).replace("\"n\":1", "\"n\":1,\"messages\":[0,[]]");
    let text = [
        messages("good", 2, 8),
        line("good", 1, profile(1)) + &line("good", 2, profile(2)),
        messages("good", 2, 3) + &messages("good", 1, 5),
        line("twice", 1, profile(1)) + &messages("twice", 1, 4) + &messages("twice", 1, 4),
        line("ahead", 1, profile(1)) + &messages("ahead", 2, 4),
        messages("alone", 1, 4),
        line("broken", 1, profile(1)) + &messages("broken", 1, 4).replace("[[4,", "[[0,"),
        both,
    ];
    let store = memory();
    let report = imported(&store, text.concat()).await;
    let skipped: Vec<_> =
        report.skipped.iter().map(|skipped| (skipped.key.key(), &*skipped.why)).collect();
    let missing = |n: u64| format!("messages are given of a version that is missing: n=`{n}`");
    assert_eq!(skipped.len(), 5, "{skipped:?}");
    assert_eq!(skipped[0], ("ahead", &*missing(2)));
    assert_eq!(skipped[1], ("alone", &*missing(1)));
    assert!(skipped[2].0 == "both" && skipped[2].1.ends_with("either a value or messages"));
    assert!(skipped[3].0 == "broken" && skipped[3].1.ends_with("has no index"), "{skipped:?}");
    assert_eq!(skipped[4], ("twice", "a message is given twice: index=`4`"));
    assert_eq!((report.keys, report.versions, report.pending.entries), (1, 2, 2));
    let (last, found) = waiting(&store, "good").await;
    assert_eq!((last, found.iter().map(|one| one.0).collect::<Vec<_>>()), (9, vec![3, 8]));
}

/// They were counted and left out.
#[tokio::test]
async fn messages_of_a_profile_whose_newest_version_cannot_be_read_come_out() {
    let (store, other) = (memory(), memory());
    imported(&store, line("a", 1, profile(1))).await;
    let state = store.read_one(&key("a"), Returning::HEAD).await.unwrap().1;
    write(&store, Change::write(&state, NewValue::Bytes(Bytes::from_static(b"\x07\x00{}")))).await;
    send(&store, "a", 1).await;
    let mut text = Vec::new();
    let filter = ExportFilter::default();
    let report = export(&store, &filter, &mut text, &mut |_| {}).await.unwrap();
    assert_eq!((report.versions, report.unreadable.len(), parsed(&text).len()), (1, 1, 2));
    assert_eq!(imported(&other, &text).await.pending.entries, 1);
    assert_eq!(waiting(&other, "a").await, waiting(&store, "a").await);
}

/// They were counted and left out, for want of a version that they could come with.
#[tokio::test]
async fn messages_of_a_profile_of_which_no_version_can_be_read_come_out() {
    let (store, other) = (memory(), memory());
    let state = store.read_one(&key("a"), Returning::HEAD).await.unwrap().1;
    write(&store, Change::write(&state, NewValue::Bytes(Bytes::from_static(b"\x07\x00{}")))).await;
    send(&store, "a", 1).await;
    let mut text = Vec::new();
    let filter = ExportFilter::default();
    let report = export(&store, &filter, &mut text, &mut |_| {}).await.unwrap();
    assert_eq!((report.versions, report.unreadable.len(), report.pending.entries), (1, 1, 1));
    let imported = imported(&other, &text).await;
    assert_eq!((imported.versions, imported.pending.entries), (1, 1));
    assert_eq!(waiting(&other, "a").await, waiting(&store, "a").await);
}
