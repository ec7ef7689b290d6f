//! Global updates: sent from anywhere, changed while active, locked, cleared.

use super::{both, live, two};

#[test]
fn an_update_is_active_then_locked_then_cleared() {
    let printed = both(
        "local store = Store()
        local profile = store:LoadProfileAsync('p')
        profile.Data.n = 0
        local updates = profile.GlobalUpdates
        updates:ListenToNewActiveUpdate(function(id, data)
            print('active', id, data.n)
            assert(profile:IsActive())
            updates:LockActiveUpdate(id)
            updates:LockActiveUpdate(id)
            for _, update in updates:GetActiveUpdates() do assert(update[1] ~= id, 'on its way') end
        end)
        updates:ListenToNewLockedUpdate(function(id, data)
            print('locked', id, data.n)
            profile.Data.n += data.n
            updates:ClearLockedUpdate(id)
            for _, update in updates:GetLockedUpdates() do assert(update[1] ~= id) end
        end)
        local sent = store:GlobalUpdateProfileAsync('p', function(sent)
            sent:AddActiveUpdate({ n = 5 })
            sent:AddActiveUpdate({ n = 6 })
            print('in the handler', gifts(sent:GetActiveUpdates()))
        end)
        print('sent', gifts(sent:GetActiveUpdates()))
        task.wait(1)
        local view = store:ViewProfileAsync('p')
        print(view.Data.n, #view.GlobalUpdates:GetActiveUpdates(), #view.GlobalUpdates:GetLockedUpdates())
        assert(#updates._updates_latest[2] == 0 and updates._updates_latest[1] == 2)",
    );
    assert_eq!(
        printed,
        [
            "in the handler 1:5 2:6",
            "sent 1:5 2:6",
            "active 1 5",
            "active 2 6",
            "locked 1 5",
            "locked 2 6",
            "11 0 0"
        ]
    );
}

#[test]
fn what_was_sent_before_the_first_session_waits_for_it() {
    let printed = both(
        "local store = Store()
        store:GlobalUpdateProfileAsync('p', function(updates) updates:AddActiveUpdate({ n = 1 }) end)
        local view = store:ViewProfileAsync('p')
        assert(view.MetaData.SessionLoadCount == 0 and #view.GlobalUpdates:GetActiveUpdates() == 1)
        local profile = store:LoadProfileAsync('p')
        print(gifts(profile.GlobalUpdates:GetActiveUpdates()))
        profile.GlobalUpdates:LockActiveUpdate(1)
        task.wait(1)
        print(gifts(profile.GlobalUpdates:GetLockedUpdates()))
        profile:Release()
        task.wait(1)
        profile = store:LoadProfileAsync('p')
        print(gifts(profile.GlobalUpdates:GetLockedUpdates()), gifts(profile.GlobalUpdates:GetActiveUpdates()))",
    );
    assert_eq!(printed, ["1:1", "1:1", "1:1 "]);
}

#[test]
fn active_updates_are_changed_and_cleared_and_locked_ones_are_not() {
    let printed = both(
        "local store = Store()
        local function update(f) return store:GlobalUpdateProfileAsync('p', f) end
        update(function(updates) for n = 1, 3 do updates:AddActiveUpdate({ n = n }) end end)
        local profile = store:LoadProfileAsync('p')
        profile.GlobalUpdates:LockActiveUpdate(3)
        task.wait(1)
        local seen = {}
        profile.GlobalUpdates:ListenToNewActiveUpdate(function(id, data) print('changed', id, data.n) end)
        update(function(updates)
            updates:ChangeActiveUpdate(1, { n = 10 })
            updates:ClearActiveUpdate(2)
            updates:AddActiveUpdate({ n = 4 })
            updates:AddActiveUpdate({ n = 5 })
            updates:ChangeActiveUpdate(4, { n = 40 })
            updates:ClearActiveUpdate(5)
            fails('is locked', updates.ChangeActiveUpdate, updates, 3, {})
            fails('is locked', updates.ClearActiveUpdate, updates, 3)
            fails('no global update', updates.ClearActiveUpdate, updates, 9)
            fails('no global update', updates.ChangeActiveUpdate, updates, 2, {})
            print(gifts(updates:GetActiveUpdates()), '/', gifts(updates:GetLockedUpdates()))
        end)
        task.wait(1)
        print(gifts(profile.GlobalUpdates:GetActiveUpdates()), '/', gifts(profile.GlobalUpdates:GetLockedUpdates()))
        profile.GlobalUpdates:ClearLockedUpdate(1)
        task.wait(1)
        print(#profile.GlobalUpdates:GetActiveUpdates(), 'one that is not locked is not cleared')",
    );
    assert_eq!(
        printed,
        [
            "1:10 4:40 / 3:3",
            "changed 1 10",
            "changed 4 40",
            "1:10 4:40 / 3:3",
            "2 one that is not locked is not cleared"
        ]
    );
}

#[test]
fn each_method_works_only_where_it_belongs() {
    both(
        "local store = Store()
        store:GlobalUpdateProfileAsync('p', function(updates)
            updates:AddActiveUpdate({ n = 1 })
            fails('inside an update handler', updates.LockActiveUpdate, updates, 1)
            fails('inside an update handler', updates.ClearLockedUpdate, updates, 1)
            fails('inside an update handler', updates.ListenToNewActiveUpdate, updates, print)
            fails('inside an update handler', updates.ListenToNewLockedUpdate, updates, print)
            fails('is a table', updates.AddActiveUpdate, updates, 'x')
            fails('update_data.f: a function', updates.AddActiveUpdate, updates, { f = print })
            fails('is a number', updates.ChangeActiveUpdate, updates, '1', {})
        end)
        local profile = store:LoadProfileAsync('p')
        local updates = profile.GlobalUpdates
        fails('outside of', updates.AddActiveUpdate, updates, {})
        fails('outside of', updates.ChangeActiveUpdate, updates, 1, {})
        fails('outside of', updates.ClearActiveUpdate, updates, 1)
        fails('no global update', updates.LockActiveUpdate, updates, 7)
        local view = store:ViewProfileAsync('p').GlobalUpdates
        fails('view mode', view.LockActiveUpdate, view, 1)
        fails('view mode', view.ListenToNewActiveUpdate, view, print)",
    );
}

#[test]
fn a_handler_that_waits_or_fails_throws_and_changes_nothing() {
    both(
        "local store = Store()
        fails('must not yield', store.GlobalUpdateProfileAsync, store, 'p', function(updates)
            updates:AddActiveUpdate({ n = 1 })
            task.wait(1)
            print('never')
        end)
        fails('on purpose', store.GlobalUpdateProfileAsync, store, 'p', function(updates)
            updates:AddActiveUpdate({ n = 1 })
            error('on purpose')
        end)
        task.wait(2)
        assert(store:ViewProfileAsync('p') == nil)
        local updates = store:GlobalUpdateProfileAsync('p', function() end)
        assert(#updates:GetActiveUpdates() == 0)",
    );
}

#[test]
fn an_update_reaches_a_profile_on_another_server_within_moments() {
    let printed = two("local store = Store()
        if server == 1 then
            local profile = store:LoadProfileAsync('p')
            local updates = profile.GlobalUpdates
            updates:ListenToNewActiveUpdate(function(id) updates:LockActiveUpdate(id) end)
            updates:ListenToNewLockedUpdate(function(id, data)
                print('got', data.n, os.clock() - 110 < 1)
                updates:ClearLockedUpdate(id)
            end)
            at(15)
        else
            at(10)
            store:GlobalUpdateProfileAsync('p', function(updates) updates:AddActiveUpdate({ n = 1 }) end)
            at(15)
            assert(#store:ViewProfileAsync('p').GlobalUpdates._updates_latest[2] == 0)
        end");
    assert_eq!(printed, ["1 got 1 true"]);
}

#[test]
fn updates_that_two_servers_stack_are_all_counted() {
    let printed = two("local store = Store()
        at(10)
        for _ = 1, 10 do
            store:GlobalUpdateProfileAsync('p', function(updates)
                local there = updates:GetActiveUpdates()[1]
                if there == nil then
                    updates:AddActiveUpdate({ n = 1 })
                else
                    updates:ChangeActiveUpdate(there[1], { n = there[2].n + 1 })
                end
            end)
        end
        at(20)
        if server == 1 then
            local total = 0
            for _, update in store:ViewProfileAsync('p').GlobalUpdates:GetActiveUpdates() do total += update[2].n end
            print(total)
        end");
    assert_eq!(printed, ["1 20"]);
}

/// The modules write different rows in the store of Roblox; each reads the other's here.
#[test]
fn profiles_messages_and_updates_of_either_module_open_in_the_other() {
    let printed = live(
        "local ProfileStore = require('ProfileStore')
        local old, new = Store('S', {}), ProfileStore.New('S', {})
        local profile = old:LoadProfileAsync('p')
        profile.Data.x = 1
        profile:SetMetaTag('DataVersion', 2)
        profile.GlobalUpdates:ListenToNewActiveUpdate(function(id, data)
            print('update', id, data.hello)
            profile.GlobalUpdates:LockActiveUpdate(id)
        end)
        new:MessageAsync('p', { hello = 'message' })
        task.wait(1)
        print(#profile.GlobalUpdates:GetLockedUpdates())
        old:GlobalUpdateProfileAsync('p', function(updates) updates:AddActiveUpdate({ hello = 'update' }) end)
        profile:Release()
        task.wait(1)
        local session = new:StartSessionAsync('p')
        assert(session.Data.x == 1 and session.SessionLoadCount == 2)
        session:MessageHandler(function(message, processed) print('message', message.hello) processed() end)
        session:EndSession()
        task.wait(1)
        local again = old:LoadProfileAsync('p')
        assert(again.MetaData.MetaTags.DataVersion == 2, 'tags survive the newer module')
        print(#again.GlobalUpdates:GetActiveUpdates(), #again.GlobalUpdates:GetLockedUpdates())",
    );
    assert_eq!(printed, ["update 1 message", "1", "message message", "message update", "0 0"]);
}
