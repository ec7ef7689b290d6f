//! What a store holds beside live profiles travels too: tombstones, messages, versions by name.

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
