//! Bytes from outside: whatever they are, they are read or refused. Real inputs with random damage,
//! from a seed.
//!
//! `PROFILESTORE_HOSTILE_CASES` says how many of each (400 otherwise), `PROFILESTORE_HOSTILE_SEED`
//! where they begin. A failure names the seed of its case.

use std::{io::Cursor, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use profilestore::{
    Edit, MessageId, ProfileKey,
    data_store::MemoryStore,
    document::{Document, Surroundings},
    env::{Env, Rng, SeededRng},
    record::{Record, Stored},
    transfer::{ExportFilter, ImportOptions, export, import, verify},
};
use serde_json::{Value, json, value::RawValue};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Runs a target on as many cases as asked for, each from a seed of its own.
async fn each_case(target: impl AsyncFn(&mut Dice)) {
    let (first, cases) =
        (number("PROFILESTORE_HOSTILE_SEED", 1), number("PROFILESTORE_HOSTILE_CASES", 400));
    for seed in first..first + cases {
        let run = AssertUnwindSafe(target(&mut Dice(SeededRng::new(seed)))).catch_unwind().await;
        assert!(run.is_ok(), "PROFILESTORE_HOSTILE_SEED={seed} PROFILESTORE_HOSTILE_CASES=1");
    }
}

struct Dice(SeededRng);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.0.bits() % limit.max(1) as u128).unwrap()
    }

    /// Some damage: bytes changed, cut out, doubled, put elsewhere, or replaced by what parsers
    /// stumble over.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        const STUMBLING: [&[u8]; 14] = [
            b"null",
            b"-1",
            b"1e999",
            b"18446744073709551616",
            b"-0.0",
            b"\"\\ud800\"",
            b"\xff\xfe",
            b"\0",
            b"[[[[[[[[",
            b"{\"\":",
            b"\"",
            b"}",
            b"]",
            b"\n",
        ];
        for _ in 0..=self.below(4) {
            let (at, to) = (self.below(bytes.len() + 1), self.below(bytes.len() + 1));
            let (from, to) = (at.min(to), at.max(to).min(at.min(to) + 1 + self.below(40)));
            match self.below(6) {
                0 => bytes.truncate(from),
                1 => drop(bytes.drain(from..to)),
                2 => {
                    let piece = bytes[from..to].to_vec();
                    let at = self.below(bytes.len() + 1);
                    bytes.splice(at..at, piece);
                }
                3 => drop(
                    bytes.splice(from..to, STUMBLING[self.below(STUMBLING.len())].iter().copied()),
                ),
                _ if bytes.is_empty() => bytes.push(self.below(256) as u8),
                _ => {
                    let at = self.below(bytes.len());
                    bytes[at] ^= 1 << self.below(8);
                }
            }
        }
    }
}

fn real_lines() -> Vec<String> {
    let text = zstd::decode_all(&include_bytes!("../data/upstream-records.jsonl.zst")[..]).unwrap();
    String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
}

fn raw(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).ok()
}

#[tokio::test]
async fn damaged_import_lines_are_refused_or_become_a_sound_store() {
    let lines = real_lines();
    each_case(async |dice: &mut Dice| {
        let first = dice.below(lines.len() - 12);
        let mut text = lines[first..first + 12].join("\n").into_bytes();
        dice.damage(&mut text);
        let env = Env::system();
        let store = MemoryStore::new(env.clone());
        let done =
            import(&store, &env, Cursor::new(text), &ImportOptions::default(), &mut |_| {}).await;
        let report = verify(&store, &ExportFilter::default(), &mut |_| {}).await.unwrap();
        assert!(report.unreadable.is_empty(), "{:?}", report.unreadable);
        assert!(report.unstorable.is_empty(), "{:?}", report.unstorable);
        if let Ok(done) = done {
            assert_eq!(report.keys, done.keys);
        }
        // What came in can go out, and come in again as the same.
        let mut out = Vec::new();
        let exported =
            export(&store, &ExportFilter::default(), &mut out, &mut |_| {}).await.unwrap();
        let again = MemoryStore::new(env.clone());
        let imported =
            import(&again, &env, Cursor::new(out), &ImportOptions::default(), &mut |_| {})
                .await
                .unwrap();
        assert_eq!((imported.keys, imported.versions), (exported.keys, exported.versions));
    })
    .await;
}

#[tokio::test]
async fn damaged_records_are_read_or_refused() {
    let data = json!({ "coins": 7, "items": ["sword", "shield"], "text": "x".repeat(300) });
    let encoded = Record::new(1_790_000_000, raw(&data.to_string()).unwrap()).encode().unwrap();
    let plain = Record::new(1_790_000_000, raw("{\"coins\":7}").unwrap()).encode().unwrap();
    each_case(async |dice: &mut Dice| {
        let mut bytes = if dice.below(2) == 0 { encoded.to_vec() } else { plain.to_vec() };
        dice.damage(&mut bytes);
        if let Ok(Stored::Profile(record)) = Stored::decode(&bytes) {
            let again = Stored::decode(&record.encode().unwrap()).unwrap();
            assert_eq!(again, Stored::Profile(record));
        }
    })
    .await;
}

/// A few bytes that claim to be gigabytes cost neither the memory nor the time.
#[test]
fn a_record_that_unpacks_beyond_the_limit_is_refused() {
    let encoded =
        Record::new(0, raw(&format!("\"{}\"", "x".repeat(300))).unwrap()).encode().unwrap();
    for size in [5 << 20, 64 << 20] {
        let mut bomb = encoded[..2].to_vec();
        bomb.extend(zstd::bulk::compress(&vec![b' '; size], 1).unwrap());
        assert!(bomb.len() < 64 << 10);
        assert!(Stored::decode(&bomb).is_err());
    }
    // The frame states a size that it does not have.
    let mut lie = encoded.to_vec();
    lie[7] ^= 0xff;
    assert!(Stored::decode(&lie).is_err());
}

#[tokio::test]
async fn damaged_documents_become_something_that_can_be_stored() {
    let values: Vec<String> = real_lines()
        .iter()
        .filter_map(|line| {
            Some(serde_json::from_str::<Value>(line).unwrap().get("value")?.to_string())
        })
        .collect();
    assert!(values.len() > 1000);
    each_case(async |dice: &mut Dice| {
        let mut text = values[dice.below(values.len())].clone().into_bytes();
        dice.damage(&mut text);
        let Some(text) = String::from_utf8(text).ok().and_then(|text| raw(&text)) else { return };
        let document = Document::parse(&text, Surroundings::default());
        let bytes = document.stored.encode().unwrap();
        Stored::decode(&bytes).unwrap();
    })
    .await;
}

#[tokio::test]
async fn damaged_edits_are_refused_or_applied() {
    let patch = json!([
        { "op": "test", "path": "/items/0", "value": "sword" },
        { "op": "increase", "path": "/coins", "by": 500 },
        { "op": "add", "path": "/items/-", "value": { "a~b/c": [1, 2.5, null] } },
        { "op": "move", "from": "/pet/name", "path": "/names/0" },
        { "op": "copy", "from": "/coins", "path": "/was" },
        { "op": "remove", "path": "/items/1" },
        { "op": "merge", "patch": { "pet": null, "x": { "y": 1 } } },
        { "op": "set", "path": "/event", "value": "summer" },
    ])
    .to_string();
    let data =
        json!({ "coins": 7, "items": ["sword", "shield"], "pet": { "name": "Rex" }, "names": [] });
    assert_eq!(Edit::from_patch(&patch).unwrap().apply(&data).unwrap()["coins"], 507);
    each_case(async |dice: &mut Dice| {
        let mut text = patch.clone().into_bytes();
        dice.damage(&mut text);
        let Ok(text) = String::from_utf8(text) else { return };
        let Ok(edit) = Edit::from_patch(&text) else { return };
        if let Ok(after) = edit.apply(&data)
            && let Some(undo) = edit.undo(&data, &after)
        {
            assert_eq!(undo.apply(&after).unwrap(), data, "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn damaged_names_are_refused_or_show_themselves() {
    each_case(async |dice: &mut Dice| {
        let mut text = b"1790000000000:purchase-4711".to_vec();
        dice.damage(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        if let Ok(id) = text.parse::<MessageId>() {
            assert_eq!(id.to_string().parse::<MessageId>().unwrap(), id);
        }
        if let Ok(key) = ProfileKey::new(&text, "global", &text) {
            assert_eq!((key.store(), key.key()), (&*text, &*text));
            let json = serde_json::to_string(&key).unwrap();
            assert_eq!(serde_json::from_str::<ProfileKey>(&json).unwrap(), key);
        }
    })
    .await;
}
