//! Modules that are brought along and keep profiles through the Roblox services, alone and beside
//! the built-in ones.

use std::time::Duration;

use profilestore_luau::Line;

use crate::{Ran, run};

/// Each player's coins grow by 100 with each server that the player joins. `which` says which
/// module a server uses.
fn visits(which: &str, players: &str, until: u64) -> Ran {
    let script = format!(
        "local Lock = require(game.ServerScriptService.SmallLock)
        local ProfileStore = require(game.ServerScriptService.ProfileStore)
        local store = ProfileStore.New('Players', {{ Cash = 0 }})
        local number = game:GetService('DataStoreService'):GetDataStore('Servers'):IncrementAsync('number')
        local small = ({which})[number]
        local began = os.clock()
        local profiles = {{}}
        game.Players.PlayerAdded:Connect(function(player)
            local from = os.clock()
            local profile = if small then Lock.start('Players', '1') else store:StartSessionAsync('1')
            print('loaded', number, profile.Data.Cash, profile.Data.Got or 0, `after {{string.format('%.1f', os.clock() - from)}}`)
            profile.Data.Cash += 100
            profiles[player] = profile
            if not small then
                profile:MessageHandler(function(_, processed) profile.Data.Got = (profile.Data.Got or 0) + 1 processed() end)
            end
        end)
        game.Players.PlayerRemoving:Connect(function(player)
            local profile = profiles[player]
            if profile and small and profile.active then
                Lock.save(profile, true)
            elseif profile and not small then
                profile:EndSession()
            end
        end)
        if number == 2 then
            task.wait(20)
            assert(store:MessageAsync('1', {{ gift = 1 }}))
        end"
    );
    run(&script, |game| {
        let game =
            game.servers(2).latency(Duration::from_millis(50)).until(Duration::from_secs(until));
        game.module("SmallLock", include_str!("small_lock.luau"))
            .players(players.parse().expect("a plan"))
    })
}

fn loads(ran: &Ran) -> Vec<String> {
    assert!(ran.report.is_success(), "{:?}\n{:?}", ran.report, ran.recorder);
    ran.recorder.texts(Line::Print)
}

/// What stands behind the words.
#[track_caller]
fn seconds(line: &str, words: &str) -> f64 {
    line.strip_prefix(words).unwrap_or_else(|| panic!("{line}")).parse().expect("seconds")
}

#[test]
fn a_brought_module_hands_over_to_its_like() {
    let ran = visits("{ true, true }", "1:join@1s,join@60s/2", 100);
    let loads = loads(&ran);
    assert_eq!(loads[0], "loaded 1 0 0 after 0.1");
    assert!(seconds(&loads[1], "loaded 2 100 1 after ") < 5.25, "{loads:?}");
}

#[test]
fn a_brought_module_hands_over_to_the_built_in_one() {
    let ran = visits("{ true, false }", "1:join@1s,join@60s/2", 100);
    let loads = loads(&ran);
    assert_eq!(loads.len(), 2);
    assert_eq!(loads[0], "loaded 1 0 0 after 0.1");
    // It is told at once, and lets go; nothing is stolen, nothing lost.
    assert!(seconds(&loads[1], "loaded 2 100 1 after ") < 1.0, "{loads:?}");
}

#[test]
fn the_built_in_module_hands_over_to_a_brought_one() {
    let ran = visits("{ false, true }", "1:join@1s,join@60s/2", 100);
    let loads = loads(&ran);
    assert_eq!(loads.len(), 2);
    assert!(loads[0].starts_with("loaded 1 0 0 after 0."), "{loads:?}");
    assert!(seconds(&loads[1], "loaded 2 100 1 after ") < 5.25, "{loads:?}");
}

#[test]
fn who_hops_at_once_finds_what_was_saved() {
    for which in ["{ true, true }", "{ true, false }", "{ false, true }"] {
        let ran = visits(which, "1:join@1s,hop@60s/2,hop@90s/1", 200);
        let loads = loads(&ran);
        let coins: Vec<_> =
            loads.iter().map(|line| line.split(" after").next().unwrap_or_default()).collect();
        assert_eq!(coins, ["loaded 1 0 0", "loaded 2 100 1", "loaded 1 200 1"], "{which}");
    }
}
