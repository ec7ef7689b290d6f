//! Data and documents that are too large, or nearly.

use std::sync::Arc;

use profilestore::{GameServer, data_store::DataStore, env::Env, storable::MAX_MESSAGE_BYTES};
use profilestore_luau::Line;
use serde_json::json;

use crate::{
    run,
    stored_values::{beside_store, store_bytes},
};

/// A Roblox document with a gift that is too large, kept as it came.
async fn store_gift_that_is_too_large(server: GameServer, store: Arc<dyn DataStore>, env: Env) {
    let gift = "x".repeat(MAX_MESSAGE_BYTES);
    let document =
        json!({ "Data": { "coins": 5 }, "MetaData": {}, "GlobalUpdates": [1, [[1, gift]]] });
    let json = format!("{{\"value\":{document}}}");
    store_bytes(server, store, env, [b"\x02\x00".as_slice(), json.as_bytes()].concat()).await;
}

/// A new profile began in its place.
#[test]
fn a_document_that_is_only_too_large_gives_no_session_and_stays() {
    let source = "local ProfileStore, ProfileService = require('ProfileStore'), require('ProfileService')
        for _, signal in { ProfileStore.OnError, ProfileService.IssueSignal } do
            signal:Connect(function(message, name, key)
                print(name, key, string.match(message, 'too large to be opened here; it is left alone'))
            end)
        end
        ProfileStore.OnOverwrite:Connect(function() error('it was overwritten') end)
        ProfileService.CorruptionSignal:Connect(function() error('it was overwritten') end)
        local store = ProfileStore.New('P', {})
        assert(store:StartSessionAsync('k') == nil and store:StartSessionAsync('k') == nil)
        assert(ProfileService.GetProfileStore('P', {}):LoadProfileAsync('k') == nil)
        game:GetService('DataStoreService'):GetDataStore('P'):UpdateAsync('k', function(document)
            document.GlobalUpdates = { 1, {} }
            return document
        end)
        local profile = store:StartSessionAsync('k')
        print(profile.Data.coins)
        profile:EndSession()";
    let ran = beside_store(source, store_gift_that_is_too_large, |_| async {});
    let told = "P k too large to be opened here; it is left alone";
    assert_eq!(ran.succeeded(), [told, told, told, "5"]);
}

#[test]
fn data_that_is_too_large_keeps_its_session_until_it_is_mended() {
    for (module, load, finish) in [
        ("ProfileStore", "New('P', {}):StartSessionAsync", "EndSession"),
        ("ProfileService", "GetProfileStore('P', {}):LoadProfileAsync", "Release"),
    ] {
        let ran = run(
            &format!(
                "local module = require('{module}')
                local errors = 0
                (module.OnError or module.IssueSignal):Connect(function(message) errors += 1 assert(message:find('Data: ', 1, true), message) end)
                local profile = module.{load}('k')
                profile.Data.coins = 500
                profile.Data.log = string.rep('x', 4300000)
                profile:{finish}()
                task.wait(10)
                assert(profile:IsActive() and errors == 1, errors)
                profile.Data.log = nil
                task.wait(30)
                assert(not profile:IsActive() and errors == 1)
                assert(require('ProfileStore').New('P', {{}}):GetAsync('k').Data.coins == 500)"
            ),
            |game| game,
        );
        ran.succeeded();
    }
}

#[test]
fn data_of_four_fifths_of_what_can_be_stored_is_told_of_once() {
    for (module, load, signal) in [
        ("ProfileStore", "New('P', {}):StartSessionAsync", "OnNearlyFull"),
        ("ProfileService", "GetProfileStore('P', {}):LoadProfileAsync", "NearlyFullSignal"),
    ] {
        let ran = run(
            &format!(
                "local module = require('{module}')
                module.{signal}:Connect(function(name, key, size, limit) print(name, key, size, limit) end)
                local profile = module.{load}('k')
                profile.Data.log = string.rep('x', 3500000)
                for _ = 1, 3 do profile:Save() task.wait(1) end
                profile.Data.log = nil
                profile:Save()
                task.wait(1)
                profile.Data.log = string.rep('x', 3400000)
                profile:Save()
                task.wait(1)"
            ),
            |game| game,
        );
        let warnings = ran.recorder.texts(Line::Warn);
        assert!(
            warnings.len() == 2 && warnings[0].contains("83 %") && warnings[1].contains("81 %"),
            "{warnings:?}"
        );
        assert_eq!(ran.succeeded(), ["P k 3500010 4194304", "P k 3400010 4194304"]);
    }
}

#[test]
fn a_profile_says_how_large_it_is() {
    for (module, load, view) in [
        ("ProfileStore", "New('P', { n = 1 }):StartSessionAsync", "New('P', {}):GetAsync"),
        (
            "ProfileService",
            "GetProfileStore('P', { n = 1 }):LoadProfileAsync",
            "GetProfileStore('P', {}):ViewProfileAsync",
        ),
    ] {
        crate::check(&format!(
            "local module = require('{module}')
            local profile = module.{load}('k')
            local size, limit = profile:GetSize()
            assert(size == #'{{\"n\":1}}' and limit == 4194304)
            profile.Data.log = string.rep('x', 5000000)
            assert(profile:GetSize() == 5000016, 'also when it is too much')
            profile.Data.log = print
            local ok, problem = pcall(profile.GetSize, profile)
            assert(not ok and problem:find('Data.log: a function cannot be stored', 1, true), problem)
            profile.Data.log = 'é'
            profile:Save()
            task.wait(1)
            assert(module.{view}('k'):GetSize() == 18, module.{view}('k'):GetSize())"
        ));
    }
}
