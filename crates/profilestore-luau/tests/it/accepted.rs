//! Whatever a way in accepts, in Rust or in Luau, opens in Luau, is edited, exported, imported and
//! checked, and stays what it was.
//!
//! `PROFILESTORE_STORABLE_CASES` says how many random values there are beside the hostile ones (40
//! otherwise), and `PROFILESTORE_STORABLE_SEED` where they begin. A failure names the value.

use std::{collections::BTreeSet, io::Cursor, sync::Arc};

use profilestore::{
    Attribution, Edit, GameServer, ProfileKey, ProfileStore,
    data_store::{DataStore, MemoryStore},
    env::{Env, Rng, SeededRng},
    messenger::LocalMessenger,
    transfer::{ExportFilter, ImportOptions, document, export, import, verify},
};
use profilestore_luau::{GameBuilder, Line};
use serde_json::{Value, json, value::RawValue};

use crate::{Ran, run};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

/// JSON that stores, parsers and games stumble over.
fn hostile() -> Vec<String> {
    let mut texts: Vec<String> =
        r#"null true 0 -0 -0.0 0.1 1e308 1e309 -1e400 1e-400 5e-324 1E5 1.50 2.0 [] {} [[],{}] [null] [1,null,3,null] {"a":null}
        9007199254740993 9223372036854775807 9223372036854775808 -9223372036854775808 -9223372036854775809
        18446744073709551615 18446744073709551616 123456789012345678901234567890 0.12345678901234567890 [76561198000000001,1]
        [9007199254740993,9007199254740992] {"a":9223372036854775807,"b":9223372036854775808} [-9223372036854775808,-9223372036854775807]
        "\ud800" "\udc00\ud800" "\ud83d\ude00" "\u0000" "\u0001\u001f\u007f" "😀ä" {"\ud800":1} {"a":1,"a":1} {"a":1,"\u0061":2}
        {"":{"":0}} {"a/b":{"~":1}} {"1":{"2":[]}} {"$serde_json::private::RawValue":"1"} {"Data":{},"MetaData":{}}
        {"m":null,"t":"buffer","base64":"aGk="} {"t":"buffer","base64":"aGk="} {"m":null,"t":"buffer","base64":"aGk=","n":1}"#
            .split_whitespace()
            .map(str::to_owned)
            .collect();
    for depth in [1, 97, 98, 99, 100, 126, 5000] {
        texts.push(format!("{}1{}", "[".repeat(depth), "]".repeat(depth)));
        texts.push(format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)));
    }
    texts.extend(
        [(4 << 20) - 100, 4 << 20, 300 << 10].map(|bytes| format!("\"{}\"", "x".repeat(bytes))),
    );
    texts
}

/// Random JSON.
struct Dice(SeededRng);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        (self.0.bits() % u128::from(limit)) as u64
    }

    fn json(&mut self, depth: u32) -> String {
        let bits = self.0.bits();
        match self.below(if depth == 0 { 8 } else { 12 }) {
            0 => ["null", "true", "false", "[]", "{}", "\"\""][self.below(6) as usize].to_owned(),
            1 => (bits as i64).to_string(),
            2 => (bits as u64).to_string(),
            3 => (bits as i128).to_string(),
            4 => Some(f64::from_bits(bits as u64))
                .filter(|double| double.is_finite())
                .unwrap_or(0.5)
                .to_string(),
            5 => format!("{}.{}e{}", bits as i8, bits as u64, (bits >> 64) as i8),
            6 => (self.below(200) as i64 - 100).to_string(),
            7 => format!(
                "\"{}\\u{:04x}{}\"",
                ["", "é", "😀", "a b"][self.below(4) as usize],
                bits as u16,
                self.below(9)
            ),
            8 | 9 => {
                let mut items: Vec<_> = (0..self.below(5)).map(|_| self.json(depth - 1)).collect();
                if self.below(4) == 0 {
                    // Most of these are the same number to a script.
                    items.extend([bits as i64, (bits as i64) ^ 1].map(|n| n.to_string()));
                }
                format!("[{}]", items.join(","))
            }
            _ => {
                let mut members = Vec::new();
                for _ in 0..self.below(5) {
                    let name = ["", "a", "b", "a/~b", "1", "\\u0000", "é"][self.below(7) as usize];
                    members.push(format!("\"{name}\":{}", self.json(depth - 1)));
                }
                format!("{{{}}}", members.join(","))
            }
        }
    }
}

/// Data that has a text of JSON in it.
fn data_with(text: &str) -> String {
    format!("{{\"coins\":1,\"v\":{{\"x\":{text}}}}}")
}

fn line_with(key: &str, text: &str) -> String {
    let meta = r#""MetaData":{"ProfileCreateTime":1795695452,"SessionLoadCount":0,"MetaTags":{}},"GlobalUpdates":[0,[]]"#;
    format!(
        "{{\"store\":\"P\",\"scope\":\"global\",\"key\":\"{key}\",\"n\":1,\"created_ms\":1,\"updated_ms\":1,\"user_ids\":[],\
         \"metadata\":{{}},\"value\":{{\"Data\":{},{meta}}}}}\n",
        data_with(text)
    )
}

/// A game beside which a Rust program does something first, on a store of its own.
fn beside<F>(
    script: &str,
    modules: &[(&str, String)],
    first: impl FnOnce(MemoryStore, GameServer, Env) -> F + Send + 'static,
) -> (Ran, MemoryStore)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (tx, rx) = std::sync::mpsc::channel();
    let ran = run(&format!("task.wait(60) {script}"), |game: GameBuilder| {
        let game =
            modules.iter().fold(game, |game, (name, source)| game.module(*name, source.as_str()));
        game.store(move |env| {
            let store = MemoryStore::new(env.clone());
            let messenger = LocalMessenger::new();
            let builder =
                GameServer::builder(store.clone()).messenger(messenger.clone()).env(env.clone());
            tx.send(store.clone()).expect("the test waits");
            let (own, env) = (store.clone(), env.clone());
            tokio::spawn(async move {
                let server = builder.start().await.expect("a server");
                first(own, server.clone(), env).await;
                assert!(server.shutdown().await.is_complete());
            });
            let store: Arc<dyn DataStore> = Arc::new(store);
            Ok((store, Arc::new(messenger)))
        })
    });
    let store = rx.recv().expect("the game has a store");
    (ran, store)
}

/// What Rust's ways in do with the values. Those that are accepted leave a key `WAY-NUMBER`.
async fn ways_of_rust(
    texts: &[String],
    store: &MemoryStore,
    server: &GameServer,
    env: &Env,
) -> Vec<String> {
    let players: ProfileStore<Value> =
        server.store_builder("P").template(json!({ "coins": 1 })).build().expect("a store");
    let mut accepted = Vec::new();
    for (n, text) in texts.iter().enumerate() {
        let key = format!("import-{n}");
        let line = Cursor::new(line_with(&key, text));
        let report = import(store, env, line, &ImportOptions::default(), &mut |_| {})
            .await
            .expect("a report");
        if report.versions == 1 && report.foreign.is_empty() {
            accepted.push(key);
        }
        let key = format!("send-{n}");
        let raw = RawValue::from_string(data_with(text)).expect("JSON");
        if players.send_message(&key, &raw).await.is_ok() {
            accepted.push(key);
        }
        let Ok(data) = serde_json::from_str::<Value>(&data_with(text)) else { continue };
        let key = format!("rust-{n}");
        let profile = players.start_session(&key).await.expect("a session");
        profile.update(|had| *had = data).expect("an edit");
        if profile.end_session().await.is_ok() {
            accepted.push(key);
        } else {
            profile.update(|had| *had = json!({})).expect("an edit");
            profile.end_session().await.expect("it is mended");
        }
    }
    accepted
}

/// The same for Luau's; it prints the keys.
const WAYS_OF_LUAU: &str = "
    local Http = game:GetService('HttpService')
    local store, older = require('ProfileStore').New('P', { coins = 1 }), require('ProfileService').GetProfileStore('P', { coins = 1 })
    local raw = game:GetService('DataStoreService'):GetDataStore('P')
    local function mended(profile, key)
        if profile:IsActive() then profile.Data = {} else print(key) end
    end
    for n, text in require('Cases') do
        local n = n - 1
        local function data() return Http:JSONDecode('{\"coins\":1,\"v\":{\"x\":' .. text .. '}}') end
        if not pcall(data) then continue end
        local profile = store:StartSessionAsync('session-' .. n)
        profile.Data = data()
        profile:EndSession()
        mended(profile, profile.Key)
        local released = older:LoadProfileAsync('older-' .. n)
        released.Data = data()
        released:Release()
        mended(released, 'older-' .. n)
        local document = { Data = data(), MetaData = { ProfileCreateTime = 1, SessionLoadCount = 0 }, GlobalUpdates = { 0, {} } }
        if pcall(raw.SetAsync, raw, 'raw-' .. n, document) then print('raw-' .. n) end
        if pcall(raw.UpdateAsync, raw, 'update-' .. n, function() return document end) then print('update-' .. n) end
        store:StartSessionAsync('view-' .. n):EndSession()
        local view = store:GetAsync('view-' .. n)
        view.Data = data()
        view:SetAsync()
        if store:GetAsync('view-' .. n).Data.v then print('view-' .. n) end
        if store:MessageAsync('message-' .. n, data()) then print('message-' .. n) end
        local added = pcall(older.GlobalUpdateProfileAsync, older, 'global-' .. n, function(updates) updates:AddActiveUpdate(data()) end)
        if added then print('global-' .. n) end
    end
    task.wait(60)";

/// Opens and edits what is there, and says so.
const OPEN: &str = "
    local store = require('ProfileStore').New('P', { coins = 1 })
    for _, key in require('Keys') do
        local profile = store:StartSessionAsync(key)
        profile:MessageHandler(function(message, processed) profile.Data.v = message.v processed() end)
        profile.Data.coins += 1
        profile:EndSession()
        if not profile:IsActive() then print(key) end
    end
    task.wait(60)";

fn list(texts: &[String]) -> String {
    let items: Vec<_> = texts.iter().map(|text| format!("[=====[{text}]=====]")).collect();
    format!("return {{{}}}", items.join(", "))
}

/// Whether two values are the same: numbers by what they are worth, and zero with its sign.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            let worth = |number: &serde_json::Number| number.as_f64().expect("a number");
            worth(a) == worth(b) && worth(a).is_sign_negative() == worth(b).is_sign_negative()
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

async fn exported(store: &MemoryStore) -> Vec<u8> {
    let mut lines = Vec::new();
    export(store, &ExportFilter::default(), &mut lines, &mut |_| {}).await.expect("an export");
    lines
}

/// Nothing in the store is wrong, and each key has its value in it.
async fn is_whole(store: &MemoryStore, keys: &[String], texts: &[String], coins: Option<i64>) {
    let checked = verify(store, &ExportFilter::default(), &mut |_| {}).await.expect("a report");
    assert!(checked.unreadable.is_empty() && checked.unstorable.is_empty(), "{checked:?}");
    let Some(coins) = coins else { return };
    for name in keys {
        let n: usize = name.split_once('-').expect("a number").1.parse().expect("a number");
        let key = ProfileKey::new("P", "global", name).expect("a key");
        let found = document(store, &key, None).await.expect("it is read").expect("it is there");
        let found: Value = serde_json::from_str(found.value.expect("a value").get()).expect("JSON");
        let mut expected: Value = serde_json::from_str(&data_with(&texts[n])).expect("JSON");
        expected["coins"] = coins.into();
        let shown: String = texts[n].chars().take(200).collect();
        assert!(
            same(&found["Data"], &expected),
            "{name}: {shown}: {}",
            found["Data"].to_string().chars().take(200).collect::<String>()
        );
    }
}

/// Puts values in by every way, and looks at what becomes of those that are accepted. Gives how
/// many were, of each way.
fn all_ways(texts: &[String]) -> Vec<(String, usize)> {
    let (tx, rx) = std::sync::mpsc::channel();
    let own = texts.to_vec();
    let (ran, store) =
        beside(WAYS_OF_LUAU, &[("Cases", list(texts))], move |store, server, env| async move {
            tx.send(ways_of_rust(&own, &store, &server, &env).await).expect("the test waits");
        });
    let mut keys = rx.recv().expect("Rust's ways are done");
    assert!(ran.report.is_success(), "{:?} {:?}", ran.report, ran.recorder.texts(Line::Error));
    keys.extend(ran.recorder.texts(Line::Print));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let lines = runtime.block_on(async {
        is_whole(&store, &keys, texts, None).await;
        exported(&store).await
    });
    let (own, edited) = (lines.clone(), keys.clone());
    let (ran, again) =
        beside(OPEN, &[("Keys", list(&keys))], move |store, server, env| async move {
            let report =
                import(&store, &env, Cursor::new(&own), &ImportOptions::default(), &mut |_| {})
                    .await
                    .expect("a report");
            assert!(report.skipped.is_empty() && report.malformed.is_empty(), "{report:?}");
            assert!(exported(&store).await == own, "an import gives another export");
            let edit = Edit::new().increase("/coins", 5.into()).expect("an edit");
            for name in edited.iter().filter(|name| {
                !["send", "message", "global"].contains(&name.split('-').next().unwrap_or_default())
            }) {
                let key = ProfileKey::new("P", "global", name).expect("a key");
                server
                    .operator(Attribution::new("ann"))
                    .edit(&key, &edit)
                    .await
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        });
    assert!(ran.report.is_success(), "{:?} {:?}", ran.report, ran.recorder.texts(Line::Error));
    let opened: BTreeSet<_> = ran.recorder.texts(Line::Print).into_iter().collect();
    let closed: Vec<_> = keys.iter().filter(|key| !opened.contains(*key)).collect();
    assert!(
        closed.is_empty(),
        "these cannot be saved again: {closed:?} {:?}",
        ran.recorder.texts(Line::Warn)
    );
    let (sent, edited): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(|key| {
        key.starts_with("send") || key.starts_with("message") || key.starts_with("global")
    });
    runtime.block_on(async {
        is_whole(&again, &sent, texts, Some(2)).await;
        is_whole(&again, &edited, texts, Some(7)).await;
    });
    let ways: BTreeSet<_> =
        keys.iter().filter_map(|key| Some(key.split_once('-')?.0.to_owned())).collect();
    let count = |way: &str| keys.iter().filter(|key| key.split('-').next() == Some(way)).count();
    ways.into_iter().map(|way| (way.clone(), count(&way))).collect()
}

#[test]
fn hostile_json_that_any_way_in_accepts_stays_whole_in_luau() {
    let texts = hostile();
    let accepted = all_ways(&texts);
    println!("of {} values accepted: {accepted:?}", texts.len());
    assert_eq!(accepted.len(), 10, "each way accepts some: {accepted:?}");
    assert!(
        accepted.iter().all(|(_, count)| (20..texts.len() - 10).contains(count)),
        "{accepted:?}"
    );
}

#[test]
fn random_json_that_any_way_in_accepts_stays_whole_in_luau() {
    let (seed, cases) =
        (number("PROFILESTORE_STORABLE_SEED", 1), number("PROFILESTORE_STORABLE_CASES", 40));
    let texts: Vec<_> =
        (seed..seed + cases).map(|seed| Dice(SeededRng::new(seed)).json(4)).collect();
    let accepted = all_ways(&texts);
    println!(
        "of {} values from PROFILESTORE_STORABLE_SEED={seed} accepted: {accepted:?}",
        texts.len()
    );
    assert!(cases < 40 || accepted.iter().all(|(_, count)| *count > 10), "{accepted:?}");
}
