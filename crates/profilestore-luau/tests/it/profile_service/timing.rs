//! What games see of time: two servers on a store whose every call takes a while, in virtual time.

use std::time::Duration;

use super::play;

const FRAME: f64 = 1000.0 / 60.0;

/// What the script measured, in milliseconds, on two servers at a latency.
#[track_caller]
fn measured(ms: u64, source: &str) -> Vec<f64> {
    let printed =
        play(false, 2, source, |game| game.latency(Duration::from_millis(ms))).succeeded();
    printed.iter().map(|line| line.parse::<f64>().expect("a number") * 1000.0).collect()
}

#[test]
fn a_force_load_takes_four_calls_and_a_frame_a_hop() {
    for ms in [10, 50, 200] {
        let took = measured(
            ms,
            "local store = Store()
            if server == 1 then
                local profile = store:LoadProfileAsync('p')
                profile.Data.n = 1
            else
                at(20)
                local began = os.clock()
                assert(store:LoadProfileAsync('p').Data.n == 1)
                print(os.clock() - began)
            end
            at(30)",
        );
        assert!(took[0] <= 4.0 * ms as f64 + 2.0 * FRAME, "{took:?} at {ms} ms");
    }
}

/// It is read and written by the sender, noticed and locked by the holder.
#[test]
fn an_update_is_active_after_four_calls_and_locked_after_five() {
    for ms in [10, 50, 200] {
        let took = measured(
            ms,
            "local store = Store()
            if server == 1 then
                local profile = store:LoadProfileAsync('p')
                local updates = profile.GlobalUpdates
                updates:ListenToNewActiveUpdate(function(id, data)
                    print(tick() - data.at)
                    updates:LockActiveUpdate(id)
                end)
                updates:ListenToNewLockedUpdate(function(id, data)
                    print(tick() - data.at)
                    updates:ClearLockedUpdate(id)
                end)
            else
                at(20)
                local began = tick()
                store:GlobalUpdateProfileAsync('p', function(updates) updates:AddActiveUpdate({ at = began }) end)
            end
            at(30)",
        );
        let [active, locked] = took[..] else { panic!("{took:?}") };
        assert!(active <= 4.0 * ms as f64 + 2.0 * FRAME, "{active} at {ms} ms");
        assert!(locked <= 5.0 * ms as f64 + 3.0 * FRAME, "{locked} at {ms} ms");
    }
}

#[test]
fn a_burst_of_updates_waits_for_no_autosave() {
    let took = measured(
        50,
        "local store = Store()
        if server == 1 then
            local profile = store:LoadProfileAsync('p')
            local updates = profile.GlobalUpdates
            updates:ListenToNewActiveUpdate(function(id) updates:LockActiveUpdate(id) end)
            updates:ListenToNewLockedUpdate(function(id, data)
                print(tick() - data.at)
                updates:ClearLockedUpdate(id)
            end)
        else
            at(20)
            for _ = 1, 20 do
                task.spawn(function()
                    local began = tick()
                    store:GlobalUpdateProfileAsync('p', function(updates) updates:AddActiveUpdate({ at = began }) end)
                end)
                task.wait(0.5)
            end
        end
        at(60)",
    );
    assert_eq!(took.len(), 20);
    assert!(took.iter().all(|ms| *ms <= 1000.0), "{took:?}");
}

#[test]
fn a_crashed_servers_profile_is_there_after_its_lease() {
    // `at` counts from 90 s after the beginning.
    let source = "local store = Store()
    if server == 1 then
        local profile = store:LoadProfileAsync('p')
        profile.Data.n = 1
        profile:Save()
        at(60)
    else
        at(20.5)
        local began = os.clock()
        -- Also for a handler that would wait for ever.
        local profile = store:LoadProfileAsync('p', function() return 'Repeat' end)
        assert(profile.Data.n == 1)
        print(os.clock() - began)
    end";
    let ran =
        play(false, 2, source, |game| game.players("server1:crash@110s".parse().expect("a plan")));
    let printed = ran.succeeded();
    let took: f64 = printed[0].parse().expect("seconds");
    assert!(took <= 21.5, "{took}");
}
