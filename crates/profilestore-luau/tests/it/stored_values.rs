//! What is stored comes back as it was stored, and what cannot be read blocks nothing else.

use std::sync::Arc;

use profilestore::{
    Attribution, Edit, ErrorKind, GameServer, MessageId, ProfileKey, ProfileStore,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt, MemoryStore, NewMessage,
        NewValue, Returning,
    },
    env::Env,
    messenger::LocalMessenger,
};
use profilestore_luau::{GameBuilder, Line};
use serde_json::{Value, json};

use crate::{Ran, run};

/// A game on a store in which a Rust program does something first, and says `ready` in the data
/// store `Signs`; later it does something else, one minute of the game's time after the beginning.
fn beside<F, L>(
    source: &str,
    first: impl FnOnce(GameServer) -> F + Send + 'static,
    last: impl FnOnce(GameServer) -> L + Send + 'static,
) -> Ran
where
    F: Future<Output = ()> + Send + 'static,
    L: Future<Output = ()> + Send + 'static,
{
    beside_store(source, |server, _, _| first(server), last)
}

/// The same, with the store itself and its clock for what comes first.
pub(super) fn beside_store<F, L>(
    source: &str,
    first: impl FnOnce(GameServer, Arc<dyn DataStore>, Env) -> F + Send + 'static,
    last: impl FnOnce(GameServer) -> L + Send + 'static,
) -> Ran
where
    F: Future<Output = ()> + Send + 'static,
    L: Future<Output = ()> + Send + 'static,
{
    let script = format!("task.wait(1) {source}");
    run(&script, |game: GameBuilder| {
        game.until(std::time::Duration::from_secs(70)).store(move |env| {
            let store: Arc<dyn DataStore> = Arc::new(MemoryStore::new(env.clone()));
            let messenger = LocalMessenger::new();
            let builder =
                GameServer::builder(store.clone()).messenger(messenger.clone()).env(env.clone());
            let (below, clock) = (store.clone(), env.clone());
            tokio::spawn(async move {
                let server = builder.start().await.expect("a server");
                first(server.clone(), below, clock).await;
                tokio::time::sleep(std::time::Duration::from_secs(60)).await;
                last(server.clone()).await;
                assert!(server.shutdown().await.is_complete());
            });
            Ok((store, Arc::new(messenger)))
        })
    })
}

/// A change below the library, which would refuse it.
async fn commit(store: &Arc<dyn DataStore>, env: &Env, change: Change) {
    let incarnation = store.identity().await.expect("a store").incarnation;
    let id = CommitId(env.uuid());
    let commit = Commit {
        id,
        incarnation,
        from: None,
        changes: vec![change],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    store.commit_one(commit).await.expect("it is stored");
}

async fn store_data(server: GameServer, name: &str, data: Value) {
    let store: ProfileStore<Value> =
        server.store_builder(name).template(data).build().expect("a store");
    let profile = store.start_session("k").await.expect("a session");
    profile.end_session().await.expect("it is stored");
}

/// The data of a profile as a Rust program reads it.
async fn stored(server: GameServer, name: &str) -> Value {
    let store: ProfileStore<Value> =
        server.store_builder(name).template(json!({})).build().expect("a store");
    store.get("k").await.expect("an answer").expect("a profile").data
}

#[test]
fn a_64_bit_number_that_the_script_never_touches_is_kept_to_the_digit() {
    let data = json!({
        "steam": 76_561_198_000_000_001_i64, "ids": [76_561_198_000_000_003_i64, i64::MIN, u64::MAX], "zero": -0.0, "coins": 0,
    });
    let (tx, rx) = std::sync::mpsc::channel();
    for module in ["ProfileStore", "ProfileService"] {
        let (data, tx) = (data.clone(), tx.clone());
        let source = if module == "ProfileStore" {
            "local store = require('ProfileStore').New('P', {})
            local profile = store:StartSessionAsync('k')
            profile.Data.coins = 5
            profile:EndSession()"
        } else {
            "local store = require('ProfileService').GetProfileStore('P', {})
            local profile = store:LoadProfileAsync('k')
            profile.Data.coins = 5
            profile:Release()"
        };
        let first = move |server: GameServer| async move { store_data(server, "P", data).await };
        let last = move |server: GameServer| async move {
            tx.send(stored(server, "P").await).expect("the test waits")
        };
        beside(source, first, last).succeeded();
        let stored = rx.recv().expect("it was read");
        let expected = json!({
            "steam": 76_561_198_000_000_001_i64, "ids": [76_561_198_000_000_003_i64, i64::MIN, u64::MAX], "zero": -0.0, "coins": 5,
        });
        assert_eq!(stored, expected, "{module}");
        assert!(stored["zero"].as_f64().expect("a number").is_sign_negative(), "{module}");
    }
}

#[test]
fn a_raw_data_store_and_a_message_keep_numbers_too() {
    let (tx, rx) = std::sync::mpsc::channel();
    let first = |server: GameServer| async move {
        let store: ProfileStore<Value> =
            server.store_builder("P").template(json!({})).build().expect("a store");
        store
            .send_message("k", &json!({ "id": 76_561_198_000_000_001_i64 }))
            .await
            .expect("it is sent");
    };
    let last = move |server: GameServer| async move {
        tx.send(stored(server, "P").await).expect("the test waits")
    };
    beside(
        "local raw = game:GetService('DataStoreService'):GetDataStore('P')
        local profile = require('ProfileStore').New('P', {}):StartSessionAsync('k')
        profile:MessageHandler(function(message, processed) profile.Data.gift = message processed() end)
        profile:EndSession()
        task.wait(1)
        raw:UpdateAsync('k', function(stored) stored.Data.seen = true return stored end)",
        first,
        last,
    )
    .succeeded();
    assert_eq!(
        rx.recv().expect("it was read"),
        json!({ "gift": { "id": 76_561_198_000_000_001_i64 }, "seen": true })
    );
}

/// Stores bytes in the place of a profile, which the library would refuse.
pub(super) async fn store_bytes(
    server: GameServer,
    store: Arc<dyn DataStore>,
    env: Env,
    bytes: Vec<u8>,
) {
    store_data(server, "P", json!({})).await;
    let key = ProfileKey::new("P", "global", "k").expect("a key");
    let (_, state) = store.read_one(&key, Returning::HEAD).await.expect("it is there");
    let write = Change::Write {
        key,
        epoch: state.epoch,
        version: state.version,
        value: NewValue::Bytes(bytes.into()),
        user_ids: Vec::new(),
        cause: Cause::Save,
        author: "earlier".into(),
        keep_previous: false,
        seal: false,
        imported: None,
    };
    commit(&store, &env, write).await;
}

/// Stores a profile with a text that is no Unicode (half of a surrogate pair), as an earlier version
/// of the library would have.
async fn store_half_of_a_character(server: GameServer, store: Arc<dyn DataStore>, env: Env) {
    let bytes = [b"\x01\x00".as_slice(), br#"{"created":1,"data":{"name":"\ud800"}}"#].concat();
    store_bytes(server, store, env, bytes).await;
}

#[test]
fn a_profile_that_cannot_be_read_gives_no_session_and_keeps_no_lock() {
    for module in ["ProfileStore", "ProfileService"] {
        let source = if module == "ProfileStore" {
            "local ProfileStore = require('ProfileStore')
            local errors = 0
            ProfileStore.OnError:Connect(function(message, name, key)
                assert(name == 'P' and key == 'k')
                assert(string.find(message, 'the profile cannot be read: at `/name`: ', 1, true), message)
                errors += 1
            end)
            local store = ProfileStore.New('P', {})
            assert(store:StartSessionAsync('k') == nil and store:StartSessionAsync('k') == nil and store:GetAsync('k') == nil)
            assert(errors == 3, errors)"
        } else {
            "local ProfileService = require('ProfileService')
            local errors = 0
            ProfileService.IssueSignal:Connect(function(message, name, key)
                assert(name == 'P' and key == 'k')
                assert(string.find(message, 'the profile cannot be read: at `/name`: ', 1, true), message)
                errors += 1
            end)
            local store = ProfileService.GetProfileStore('P', {})
            assert(store:LoadProfileAsync('k') == nil and store:LoadProfileAsync('k') == nil and store:ViewProfileAsync('k') == nil)
            assert(errors == 3, errors)"
        };
        beside_store(source, store_half_of_a_character, |_| async {}).succeeded();
    }
}

/// The session began, and nothing of it could be saved.
#[test]
fn data_that_is_a_buffer_to_a_script_gives_no_session() {
    let (tx, rx) = std::sync::mpsc::channel();
    let ran = beside(
        "local ProfileStore = require('ProfileStore')
        ProfileStore.OnError:Connect(function(message) print(string.match(message, 'Data .*')) end)
        local store = ProfileStore.New('P', {})
        print(store:StartSessionAsync('k'), store:GetAsync('k'))",
        |server| store_data(server, "P", json!({ "m": null, "t": "buffer", "base64": "aGk=" })),
        move |server| async move { tx.send(stored(server, "P").await).expect("the test waits") },
    );
    let told = "Data stands for a buffer, and is no table to a script";
    assert_eq!(ran.succeeded(), [told, told, "nil nil"]);
    let data = rx.recv().expect("it was read");
    assert_eq!(data, json!({ "m": null, "t": "buffer", "base64": "aGk=" }));
}

/// The script did not get it, and the operator was told that the data is so already.
#[test]
fn an_edit_that_would_give_a_script_a_buffer_for_its_data_is_refused() {
    let (tx, rx) = std::sync::mpsc::channel();
    let ran = beside(
        "local profile = require('ProfileStore').New('P', {}):StartSessionAsync('k')
        task.wait(65)
        print(profile.Data.coins)",
        |server| store_data(server, "P", json!({ "coins": 5 })),
        move |server| async move {
            let patch =
                r#"[{"op":"set","path":"","value":{"m":null,"t":"buffer","base64":"aGk="}}]"#;
            let edit = Edit::from_patch(patch).expect("an edit");
            let key = ProfileKey::new("P", "global", "k").expect("a key");
            let edited = server.operator(Attribution::new("ann")).edit(&key, &edit).await;
            tx.send(edited.map(drop).map_err(|error| error.kind())).expect("the test waits");
        },
    );
    assert_eq!(ran.succeeded(), ["5"]);
    assert_eq!(rx.recv().expect("it was tried"), Err(ErrorKind::EditRefused));
}

/// It ended the thread that asked for it, also within `pcall`.
#[test]
fn a_value_of_a_data_store_that_cannot_be_read_is_an_error_that_a_script_catches() {
    let ran = beside_store(
        "local store = game:GetService('DataStoreService'):GetDataStore('P')
        local function try(name, ...)
            local ok, problem = pcall(store[name], store, 'k', ...)
            print(name, ok, problem and string.match(problem, '^501: .*/Data/name`'))
        end
        try('GetAsync')
        try('UpdateAsync', function(value) return value end)
        try('RemoveAsync')
        task.wait(5)
        try('GetAsync')",
        store_half_of_a_character,
        |_| async {},
    );
    let problem = "501: what is stored cannot be read: at `/Data/name`";
    let told =
        ["GetAsync", "UpdateAsync", "RemoveAsync"].map(|name| format!("{name} false {problem}"));
    let printed = ran.recorder.texts(Line::Print);
    assert_eq!(printed, [told.as_slice(), &["GetAsync true nil".to_owned()]].concat());
    assert!(ran.report.is_success(), "{:?}", ran.report);
}

#[test]
fn a_message_that_cannot_be_read_does_not_block_those_behind_it() {
    // `send_message` refuses half of a surrogate pair; the store itself takes any bytes.
    let first = |server: GameServer, below: Arc<dyn DataStore>, env: Env| async move {
        let store: ProfileStore<Value> =
            server.store_builder("P").template(json!({})).build().expect("a store");
        let id = MessageId::new(env.unix_ms(), "broken").expect("an id");
        let message = NewMessage { id, payload: br#"{"text":"\udc00"}"#[..].into() };
        let change =
            Change::AppendMessage { key: store.key("k").expect("a key"), message, cap: 10 };
        commit(&below, &env, change).await;
        store.send_message("k", &json!({ "text": "behind" })).await.expect("it is sent");
    };
    let ran = beside_store(
        "local ProfileStore, ProfileService = require('ProfileStore'), require('ProfileService')
        for _, signal in { ProfileStore.OnError, ProfileService.IssueSignal } do
            signal:Connect(function(message, name, key)
                print(`{name} {key} {string.match(message, '^message 1 cannot be read and stays in the inbox')}`)
            end)
        end
        local profile = ProfileStore.New('P', {}):StartSessionAsync('k')
        for handler = 1, 2 do
            profile:MessageHandler(function(message) print(handler, message.text) end)
        end
        profile:EndSession()
        task.wait(1)
        local older = ProfileService.GetProfileStore('P', {}):LoadProfileAsync('k')
        for _, update in older.GlobalUpdates:GetActiveUpdates() do print('update', update[2].text) end",
        first,
        |_| async {},
    );
    let told = "P k message 1 cannot be read and stays in the inbox";
    assert_eq!(
        ran.recorder.texts(Line::Print),
        [told, "1 behind", "2 behind", told, "update behind"]
    );
    assert!(ran.report.is_success(), "{:?}", ran.report);
}

#[test]
fn a_message_that_is_null_reaches_the_game_and_does_not_wait_for_ever() {
    let first = |server: GameServer, _: Arc<dyn DataStore>, _: Env| async move {
        let store: ProfileStore<Value> =
            server.store_builder("P").template(json!({})).build().expect("a store");
        for key in ["k", "s"] {
            store.send_message(key, &Value::Null).await.expect("it is sent");
        }
    };
    let ran = beside_store(
        "local ProfileStore, ProfileService = require('ProfileStore'), require('ProfileService')
        local store = ProfileStore.New('P', {})
        local profile = store:StartSessionAsync('k')
        profile:MessageHandler(function(message, processed) print('message', message) processed() end)
        task.wait(1)
        profile:EndSession()
        task.wait(1)
        store:GetAsync('k'):MessageHandler(function() error('it was processed') end)
        local older = ProfileService.GetProfileStore('P', {}):LoadProfileAsync('s')
        for _, update in older.GlobalUpdates:GetActiveUpdates() do
            print('update', update[2])
            older.GlobalUpdates:LockActiveUpdate(update[1])
        end
        task.wait(1)
        for _, update in older.GlobalUpdates:GetLockedUpdates() do older.GlobalUpdates:ClearLockedUpdate(update[1]) end
        older:Release()
        task.wait(1)
        store:GetAsync('s'):MessageHandler(function() error('it was cleared') end)",
        first,
        |_| async {},
    );
    assert_eq!(ran.recorder.texts(Line::Print), ["message nil", "update nil"]);
    assert!(ran.report.is_success(), "{:?}", ran.report);
}

#[test]
fn user_ids_up_to_the_largest_whole_number_are_stored() {
    crate::check(
        "local store = require('ProfileStore').New('P', {})
        local profile = store:StartSessionAsync('k')
        for _, id in { 0, 2 ^ 53 - 1, 2 ^ 53, 1.5, -5 } do profile:AddUserId(id) end
        profile.Data.n = 5
        profile:EndSession()
        task.wait(1)
        local view = store:GetAsync('k')
        assert(view.Data.n == 5 and #view.UserIds == 2 and view.UserIds[2] == 2 ^ 53 - 1)
        local raw = game:GetService('DataStoreService'):GetDataStore('Raw')
        raw:SetAsync('k', 1, { 2 ^ 53 - 1 })
        local _, info = raw:GetAsync('k')
        assert(info:GetUserIds()[1] == 2 ^ 53 - 1)",
    );
}

#[test]
fn what_cannot_be_stored_when_the_game_closes_does_not_keep_it_open() {
    let ran = run(
        "local profile = require('ProfileStore').New('P', {}):StartSessionAsync('k')
        profile.Data.bad = print
        profile:EndSession()
        assert(profile:IsActive())",
        |game| game,
    );
    assert_eq!(ran.report.failures, 0);
    assert!(ran.recorder.texts(Line::Warn)[0].contains("Data.bad"), "{:?}", ran.recorder);
}

#[test]
fn users_of_a_rust_program_that_a_double_does_not_tell_apart_stay() {
    let (tx, rx) = std::sync::mpsc::channel();
    let ids = [5, (1_i64 << 53) + 1, i64::MAX];
    let first = move |server: GameServer| async move {
        let store: ProfileStore<Value> =
            server.store_builder("P").template(json!({})).build().expect("a store");
        let profile = store.start_session("k").await.expect("a session");
        for id in ids {
            profile.add_user_id(id).expect("an id");
        }
        profile.end_session().await.expect("it is stored");
    };
    let last = move |server: GameServer| async move {
        let store: ProfileStore<Value> =
            server.store_builder("P").template(json!({})).build().expect("a store");
        tx.send(store.get("k").await.expect("an answer").expect("a profile").user_ids().to_vec())
            .expect("the test waits");
    };
    beside(
        "local profile = require('ProfileStore').New('P', {}):StartSessionAsync('k')
        profile:AddUserId(7)
        profile:EndSession()
        task.wait(1)
        assert(not profile:IsActive())
        local view = require('ProfileStore').New('P', {}):GetAsync('k')
        view:RemoveUserId(5)
        view:SetAsync()",
        first,
        last,
    )
    .succeeded();
    assert_eq!(rx.recv().expect("it was read"), [ids[1], ids[2], 7]);
}
