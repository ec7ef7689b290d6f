//! Games that use both modules, each for stores of its own.

use std::{sync::Arc, time::Duration};

use profilestore::{
    data_store::{
        MemoryStore,
        fault::{Call, Fate, FaultyStore, LineState, StorePlan},
    },
    messenger::LocalMessenger,
};
use profilestore_luau::{GameBuilder, Line};

use crate::run;

/// The script begins with these names and prints what both modules tell it.
const PRELUDE: &str = "
    local ProfileStore, ProfileService = require('ProfileStore'), require('ProfileService')
    local function says(name)
        return function(_, store, key) print(name, store, key) end
    end
    ProfileStore.OnError:Connect(says('OnError'))
    ProfileService.IssueSignal:Connect(says('IssueSignal'))
    ProfileStore.OnOverwrite:Connect(function(...) print('OnOverwrite', ...) end)
    ProfileService.CorruptionSignal:Connect(function(...) print('CorruptionSignal', ...) end)
    ";

/// What a script prints, and what is printed as warnings.
fn play(source: &str, set: impl FnOnce(GameBuilder) -> GameBuilder) -> (Vec<String>, Vec<String>) {
    let ran = run(&format!("{PRELUDE}{source}"), set);
    let warnings = ran.recorder.texts(Line::Warn);
    (ran.succeeded(), warnings)
}

/// Whether each warning begins as it should, and there are no others.
#[track_caller]
fn begin_with(warnings: &[String], wanted: &[&str]) {
    assert_eq!(warnings.len(), wanted.len(), "{warnings:#?}");
    for (warning, wanted) in warnings.iter().zip(wanted) {
        assert!(warning.starts_with(wanted), "{wanted}: {warnings:#?}");
    }
}

/// Both modules fired for both stores, and each warning was printed under the name of the other
/// module too.
#[test]
fn each_module_hears_of_errors_in_the_stores_that_it_opened() {
    let (printed, warnings) = play(
        "local function fail_to_save(profile)
            profile.Data.A = print
            profile:Save()
            task.wait(2)
            profile.Data.A = nil
        end
        local coins = ProfileStore.New('Coins', {}):StartSessionAsync('k')
        fail_to_save(coins)
        coins:EndSession()
        for _, index in { 'Pets', { Name = 'Coins', Scope = 'beta' } } do
            local pets = ProfileService.GetProfileStore(index, {}):LoadProfileAsync('k')
            fail_to_save(pets)
            pets:Release()
        end",
        |game| game,
    );
    assert_eq!(printed, ["OnError Coins k", "IssueSignal Pets k", "IssueSignal Coins k"]);
    begin_with(
        &warnings,
        &[
            "[ProfileStore]: DataStore API error (STORE:Coins; KEY:k) - ",
            "[ProfileService]: DataStore API error (STORE:Pets; KEY:k) - ",
            "[ProfileService]: DataStore API error (STORE:Coins; KEY:k) - ",
        ],
    );
}

#[test]
fn each_module_hears_of_overwritten_profiles_in_the_stores_that_it_opened() {
    let (printed, warnings) = play(
        "for _, name in { 'Coins', 'Pets' } do
            game:GetService('DataStoreService'):GetDataStore(name):SetAsync('k', 5)
        end
        ProfileStore.New('Coins', {}):StartSessionAsync('k')
        ProfileService.GetProfileStore('Pets', {}):LoadProfileAsync('k')",
        |game| game,
    );
    assert_eq!(printed, ["OnOverwrite Coins k", "CorruptionSignal Pets k"]);
    begin_with(
        &warnings,
        &[
            "[ProfileStore]: Invalid profile was overwritten (STORE:Coins; KEY:k)",
            "[ProfileService]: Invalid profile was overwritten (STORE:Pets; KEY:k)",
        ],
    );
}

#[test]
fn both_modules_hear_of_errors_in_a_store_that_both_opened_with_one_warning() {
    let (printed, warnings) = play(
        "ProfileService.GetProfileStore('Coins', {})
        local coins = ProfileStore.New('Coins', {}):StartSessionAsync('k')
        coins.Data.A = print
        coins:Save()
        task.wait(2)
        coins.Data.A = nil",
        |game| game,
    );
    assert_eq!(printed, ["OnError Coins k", "IssueSignal Coins k"]);
    begin_with(&warnings, &["[ProfileStore]: DataStore API error (STORE:Coins; KEY:k) - "]);
}

#[derive(Debug)]
struct Fair;

impl StorePlan for Fair {
    fn fate(&self, _: Call<'_>) -> Fate {
        Fate::default()
    }
}

/// Both modules printed that the state is critical, and each error of the server's own lease.
#[test]
fn an_outage_is_told_to_both_modules_and_printed_once() {
    let (printed, warnings) = play(
        "local errors, issues = 0, 0
        ProfileStore.OnError:Connect(function(_, store)
            errors += if store == nil then 1 else 0
        end)
        ProfileService.IssueSignal:Connect(function(_, store)
            issues += if store == nil then 1 else 0
        end)
        local toggles = {}
        ProfileStore.OnCriticalToggle:Connect(function(on)
            table.insert(toggles, `store {on}`)
        end)
        ProfileService.CriticalStateSignal:Connect(function(on)
            table.insert(toggles, `service {on}`)
        end)
        task.wait(10)
        assert(ProfileStore.New('Coins', {}):StartSessionAsync('k') == nil)
        task.wait(600)
        print('toggles', table.concat(toggles, ', '))
        print('told both', errors > 0 and errors == issues)",
        |game| {
            game.store(|env| {
                let store = FaultyStore::new(Arc::new(MemoryStore::new(env.clone())), Fair);
                let line = store.line().clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    line.set(LineState::Cut);
                    tokio::time::sleep(Duration::from_secs(195)).await;
                    line.set(LineState::Open);
                });
                Ok((Arc::new(store), Arc::new(LocalMessenger::new())))
            })
        },
    );
    let last = &printed[printed.len() - 2..];
    assert_eq!(
        last,
        ["toggles store true, service true, store false, service false", "told both true"]
    );
    let told = printed.iter().filter(|line| line.starts_with("OnError ")).count();
    let counted = |what: &str| warnings.iter().filter(|line| line.contains(what)).count();
    assert_eq!(counted("DataStore API error"), told, "{warnings:#?}");
    // It was printed as `(STORE:-; KEY:-)`.
    let of_no_profile = printed.iter().filter(|line| *line == "OnError nil nil").count();
    assert_eq!(counted("(about no single profile, such as this server's lease) - "), of_no_profile);
    assert_eq!(counted("STORE:-"), 0, "{warnings:#?}");
    assert_eq!(counted("ritical state"), 2, "{warnings:#?}");
    assert!(warnings.iter().all(|line| line.starts_with("[ProfileStore]: ")), "{warnings:#?}");
}
