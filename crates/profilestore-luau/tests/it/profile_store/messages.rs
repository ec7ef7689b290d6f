//! Messages and their handlers.

use super::{both, live, play};

#[test]
fn messages_reach_a_live_profile_and_one_that_starts_later() {
    let printed = both(
        "local store = Store('Players', { Coins = 0 })
        assert(store:MessageAsync('k', { Coins = 1 }) == true)
        local profile = store:StartSessionAsync('k')
        profile:MessageHandler(function(message, processed)
            profile.Data.Coins += message.Coins
            processed()
            print(message.Coins)
        end)
        assert(store:MessageAsync('k', { Coins = 10 }) == true)
        task.wait(1)
        assert(profile.Data.Coins == 11 and profile.LastSavedData.Coins == 11, 'saved without waiting for an autosave')
        assert(#profile.global_updates[2] == 0)
        profile:EndSession()
        task.wait(1)
        local again = store:StartSessionAsync('k')
        again:MessageHandler(function() print('never') end)
        task.wait(1)",
    );
    assert_eq!(printed, ["1", "10"]);
}

#[test]
fn an_unprocessed_message_goes_to_every_handler_once_and_comes_again_next_time() {
    let printed = both(
        "local store = Store('Players')
        local profile = store:StartSessionAsync('k')
        profile:MessageHandler(function(message) print('first', message.N) message.N = 'changed' end)
        profile:MessageHandler(function(message, processed) print('second', message.N) if message.N == 2 then processed() end end)
        profile:MessageHandler(function(message) print('third', message.N) end)
        for n = 1, 2 do store:MessageAsync('k', { N = n }) end
        task.wait(1)
        profile:MessageHandler(function(message, processed) print('late', message.N) end)
        profile:Save()
        task.wait(1)
        profile:EndSession()
        profile:MessageHandler(function() print('never') end)
        task.wait(1)
        local again = store:StartSessionAsync('k')
        again:MessageHandler(function(message, processed) print('again', message.N) processed() end)
        task.wait(1)
        assert(#again.global_updates[2] == 0)",
    );
    assert_eq!(
        printed,
        ["first 1", "second 1", "third 1", "first 2", "second 2", "late 1", "again 1"],
        "in the order of the messages, and of the handlers"
    );
}

#[test]
fn a_handler_may_wait_before_it_has_processed_a_message() {
    let printed = both(
        "local store = Store('Players', { N = 0 })
        local profile = store:StartSessionAsync('k')
        profile:MessageHandler(function(message, processed)
            task.wait(5)
            profile.Data.N += 1
            processed()
            processed()
            print('processed')
        end)
        profile:MessageHandler(function() print('second') end)
        store:MessageAsync('k', {})
        task.wait(10)
        assert(profile.LastSavedData.N == 1 and #profile.global_updates[2] == 0)",
    );
    assert_eq!(printed, ["second", "processed"]);
}

#[test]
fn a_handler_that_fails_leaves_the_message_to_the_next() {
    let ran = play(
        false,
        1,
        "local store = Store('Players')
        local profile = store:StartSessionAsync('k')
        profile:MessageHandler(function() error('on purpose') end)
        profile:MessageHandler(function(_, processed) processed() print('second') end)
        store:MessageAsync('k', {})
        task.wait(1)
        assert(#profile.global_updates[2] == 0)
        fails('function', profile.MessageHandler, profile, 5)",
        |game| game,
    );
    assert_eq!(ran.report.failures, 1);
    assert_eq!(ran.recorder.texts(profilestore_luau::Line::Print), ["second"]);
}

#[test]
fn a_handler_may_end_the_session() {
    both(
        "local store = Store('Players', { N = 0 })
        local profile = store:StartSessionAsync('k')
        profile:MessageHandler(function(message, processed)
            profile.Data.N += 1
            processed()
            profile:EndSession()
        end)
        profile:MessageHandler(function() error('never') end)
        store:MessageAsync('k', {}) store:MessageAsync('k', {})
        task.wait(1)
        local again = store:StartSessionAsync('k')
        assert(again.Data.N == 1 and #again.global_updates[2] == 1, #again.global_updates[2])",
    );
}

#[test]
fn arrived_messages_are_there_before_on_after_save() {
    live(
        "local store = Store('Players')
        local profile = store:StartSessionAsync('k')
        local seen
        profile.OnAfterSave:Connect(function() seen = #profile.global_updates[2] end)
        task.spawn(function() store:MessageAsync('k', {}) end)
        profile:Save()
        task.wait(1)
        profile:Save()
        task.wait(1)
        assert(seen == 1, seen)",
    );
}

#[test]
fn a_burst_costs_few_saves_and_loses_nothing() {
    live(
        "local store = Store('Players', { N = 0 })
        local profile = store:StartSessionAsync('k')
        local saves, seen = 0, {}
        profile.OnSave:Connect(function() saves += 1 end)
        profile:MessageHandler(function(message, processed) profile.Data.N += 1 table.insert(seen, message.N) processed() end)
        for n = 1, 100 do task.spawn(store.MessageAsync, store, 'k', { N = n }) end
        task.wait(1)
        assert(profile.LastSavedData.N == 100 and saves <= 100, saves)
        for n = 1, 100 do assert(seen[n] == n) end",
    );
}

#[test]
fn a_full_inbox_refuses_and_drops_nothing() {
    let ran = play(
        false,
        1,
        "ProfileStore.SetConstant('MAX_MESSAGE_QUEUE', 3)
        local store = Store('Players')
        local errors = 0
        ProfileStore.OnError:Connect(function(_, name, key) errors += 1 assert(name == 'Players' and (key == 'k' or key == 'x')) end)
        for n = 1, 3 do assert(store:MessageAsync('k', { N = n })) end
        assert(store:MessageAsync('k', { N = 4 }) == false and errors == 1)
        local view = store:GetAsync('k')
        assert(#view.global_updates[2] == 3 and view.global_updates[2][1][2].N == 1)
        fails('message', store.MessageAsync, store, 'k', 'text')
        assert(store:MessageAsync('x', { print }) == false and errors == 2)",
        |game| game,
    );
    ran.succeeded();
}
