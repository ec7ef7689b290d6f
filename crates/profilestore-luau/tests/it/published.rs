//! The published modules, brought along: that they work on our services, and behave in time as they
//! were seen to behave. They are no part of the project, so these tests are no part of the gate.
//! They run with `PROFILESTORE_PUBLISHED_MODULES=PROFILE_STORE_FILE:PROFILE_SERVICE_FILE cargo
//! nextest run -p profilestore-luau --run-ignored all published`.

use std::{env, fs, time::Duration};

use profilestore_luau::{GameBuilder, Line};

use crate::{Ran, run};

const VARIABLE: &str = "PROFILESTORE_PUBLISHED_MODULES";

/// The texts of both modules.
pub(crate) fn published() -> [String; 2] {
    let files = env::var(VARIABLE).unwrap_or_else(|_| {
        panic!("{VARIABLE} names the files of both modules, with a colon in between")
    });
    let (store, service) = files.split_once(':').expect("two files with a colon in between");
    [store, service]
        .map(|file| fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}")))
}

/// A player's data is loaded at the join and released at the leave; each load adds 100. Printed:
/// what happens when, in seconds.
const PROFILE_STORE_GAME: &str = "
    local ProfileStore = require(game.ServerScriptService.ProfileStore)
    local Players = game:GetService('Players')
    local store = ProfileStore.New('Players', { Cash = 0 })
    local profiles = {}
    local began = os.clock()
    local function at() return string.format('%.3f', os.clock() - began) end
    Players.PlayerAdded:Connect(function(player)
        local from = os.clock()
        local profile = store:StartSessionAsync(tostring(player.UserId), { Cancel = function() return player.Parent ~= Players end })
        if not profile then
            print('refused', at())
            return player:Kick()
        end
        print('loaded', string.format('%.3f', os.clock() - from), profile.Data.Cash)
        profile:AddUserId(player.UserId)
        profile:Reconcile()
        profile.OnSessionEnd:Connect(function()
            print('ended', at())
            profiles[player] = nil
            player:Kick()
        end)
        profile:MessageHandler(function(message, processed)
            print('message', string.format('%.3f', DateTime.now().UnixTimestampMillis / 1000 - message.at))
            processed()
        end)
        profiles[player] = profile
        profile.Data.Cash += 100
    end)
    Players.PlayerRemoving:Connect(function(player)
        local profile = profiles[player]
        if profile then
            profile:EndSession()
        end
    end)
";

const PROFILE_SERVICE_GAME: &str = "
    local ProfileService = require(game.ServerScriptService.ProfileService)
    local Players = game:GetService('Players')
    local store = ProfileService.GetProfileStore('Players', { Cash = 0 })
    local profiles = {}
    local began = os.clock()
    local function at() return string.format('%.3f', os.clock() - began) end
    Players.PlayerAdded:Connect(function(player)
        local from = os.clock()
        local profile = store:LoadProfileAsync(tostring(player.UserId), 'ForceLoad')
        if not profile then
            return player:Kick()
        end
        print('loaded', string.format('%.3f', os.clock() - from), profile.Data.Cash)
        profile:AddUserId(player.UserId)
        profile:Reconcile()
        profile:ListenToRelease(function()
            print('ended', at())
            profiles[player] = nil
            player:Kick()
        end)
        profiles[player] = profile
        profile.Data.Cash += 100
    end)
    Players.PlayerRemoving:Connect(function(player)
        local profile = profiles[player]
        if profile then
            profile:Release()
        end
    end)
";

/// Plays a game on two servers, with 50 ms a call.
fn play(
    script: &str,
    players: &str,
    until: u64,
    set: impl FnOnce(GameBuilder) -> GameBuilder,
) -> Ran {
    let [store, service] = published();
    run(script, |game| {
        let game =
            game.servers(2).latency(Duration::from_millis(50)).until(Duration::from_secs(until));
        let game = game.module("ProfileStore", store).module("ProfileService", service);
        set(game.players(players.parse().expect("a plan")))
    })
}

/// What was printed: the first word, the number behind it, the rest.
fn printed(ran: &Ran) -> Vec<(String, f64, String)> {
    assert!(ran.report.is_success(), "{:?}\n{:?}", ran.report, ran.recorder);
    let line = |text: String| {
        let mut words = text.splitn(3, ' ').map(str::to_owned);
        let mut next = || words.next().unwrap_or_default();
        (next(), next().parse().unwrap_or(f64::NAN), next())
    };
    ran.recorder.texts(Line::Print).into_iter().map(line).filter(|line| !line.1.is_nan()).collect()
}

#[track_caller]
fn near(seen: f64, expected: f64) {
    assert!((seen - expected).abs() < 0.02, "{seen} is not {expected}");
}

#[test]
#[ignore = "needs the published modules, see PROFILESTORE_PUBLISHED_MODULES"]
fn published_profile_store_hands_over_as_it_was_seen_to() {
    let ran = play(PROFILE_STORE_GAME, "1:join@1s,hop@60s,leave@120s", 130, |game| game);
    let lines = printed(&ran);
    near(lines[0].1, 0.067);
    near(lines[2].1, 0.067);
    assert_eq!(lines[2].2, "100");
    // The player joins while the other server still has the profile.
    let ran = play(PROFILE_STORE_GAME, "1:join@1s,join@60s/2,leave@120s", 130, |game| game);
    let lines = printed(&ran);
    near(lines[1].1, 60.117);
    near(lines[2].1, 5.134);
    assert_eq!(lines[2].2, "100");
}

#[test]
#[ignore = "needs the published modules, see PROFILESTORE_PUBLISHED_MODULES"]
fn published_profile_store_takes_over_after_a_crash_as_it_was_seen_to() {
    let ran = play(
        PROFILE_STORE_GAME,
        "1:join@1s,join@101s/2,leave@400s; server1:crash@100s",
        410,
        |game| game,
    );
    let lines = printed(&ran);
    near(lines[1].1, 45.4);
    assert_eq!(lines[1].2, "0", "the crash lost what was not saved");
}

#[test]
#[ignore = "needs the published modules, see PROFILESTORE_PUBLISHED_MODULES"]
fn published_profile_store_delivers_messages_as_it_was_seen_to() {
    let script = format!(
        "{PROFILE_STORE_GAME}
        task.wait(5)
        if #Players:GetPlayers() == 0 then
            for n = 1, 5 do
                task.wait(20)
                assert(store:MessageAsync('1', {{ at = DateTime.now().UnixTimestampMillis / 1000 }}))
            end
        end"
    );
    let ran = play(&script, "1:join@1s", 200, |game| game);
    let messages: Vec<_> = printed(&ran).into_iter().filter(|line| line.0 == "message").collect();
    assert_eq!(messages.len(), 5);
    for message in messages {
        near(message.1, 0.184);
    }
}

#[test]
#[ignore = "needs the published modules, see PROFILESTORE_PUBLISHED_MODULES"]
fn published_profile_service_works_as_it_was_seen_to() {
    let ran = play(PROFILE_SERVICE_GAME, "1:join@1s,hop@60s,leave@120s", 130, |game| game);
    let lines = printed(&ran);
    near(lines[0].1, 0.067);
    near(lines[2].1, 0.067);
    assert_eq!(lines[2].2, "100");
    let ran = play(PROFILE_SERVICE_GAME, "1:join@1s,join@80s/2,leave@170s", 180, |game| game);
    let lines = printed(&ran);
    let handed = lines[2].1;
    assert!((7.0..36.0).contains(&handed) && lines[2].2 == "100", "{lines:?}");
    let ran = play(
        PROFILE_SERVICE_GAME,
        "1:join@1s,join@101s/2,leave@400s; server1:crash@100s",
        410,
        |game| game,
    );
    let lines = printed(&ran);
    near(lines[1].1, 63.217);
}

#[test]
#[ignore = "needs the published modules, see PROFILESTORE_PUBLISHED_MODULES"]
fn published_modules_read_each_others_profiles() {
    let script = format!(
        "if game:GetService('DataStoreService'):GetDataStore('n'):IncrementAsync('n') == 1 then \
            {PROFILE_SERVICE_GAME} else {PROFILE_STORE_GAME} end"
    );
    let ran = play(&script, "1:join@1s,hop@60s,hop@90s,leave@120s", 130, |game| game);
    let coins: Vec<_> =
        printed(&ran).into_iter().filter(|line| line.0 == "loaded").map(|line| line.2).collect();
    assert_eq!(coins, ["0", "100", "200"]);
}

#[test]
#[ignore = "needs the published modules, see PROFILESTORE_PUBLISHED_MODULES"]
fn published_profile_store_and_the_built_in_one_hand_over_to_each_other() {
    let [store, _] = published();
    for brought_first in [true, false] {
        let choose = format!(
            "local number = game:GetService('DataStoreService'):GetDataStore('n'):IncrementAsync('n')
            local ProfileStore = require(game.ServerScriptService[if (number == 1) == {brought_first} then 'Brought' else 'ProfileStore'])"
        );
        let script = PROFILE_STORE_GAME.replace(
            "local ProfileStore = require(game.ServerScriptService.ProfileStore)",
            &choose,
        );
        let ran = run(&script, |game| {
            let game =
                game.servers(2).latency(Duration::from_millis(50)).until(Duration::from_secs(200));
            game.module("Brought", store.as_str())
                .players("1:join@1s,join@60s/2,leave@120s".parse().expect("a plan"))
        });
        let lines = printed(&ran);
        let loads: Vec<_> = lines.iter().filter(|line| line.0 == "loaded").collect();
        assert_eq!((loads.len(), loads[1].2.as_str()), (2, "100"), "{lines:?}");
        assert!(loads[1].1 < 5.5, "{lines:?}");
    }
}
