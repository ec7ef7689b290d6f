//! Several servers.

use super::two;

#[test]
fn a_profile_is_handed_over_with_its_last_changes() {
    let mut printed = two(
        "local store = Store('Players', { N = 0 })
        if server == 1 then
            local profile = store:StartSessionAsync('k')
            profile.OnSave:Connect(function() print('save', profile:IsActive()) end)
            profile.OnLastSave:Connect(function(reason) print('last', reason, profile:IsActive()) profile.Data.N += 1 end)
            profile.OnSessionEnd:Connect(function() print('end', profile:IsActive()) profile.Data.Late = true end)
            profile.OnAfterSave:Connect(function(data) print('after', data.N, profile.LastSavedData == data, profile:IsActive()) end)
            profile.Data.N = 1
        else
            at(5)
            local began = os.clock()
            local profile = store:StartSessionAsync('k')
            print('got', profile.Data.N, profile.Data.Late, profile.SessionLoadCount, os.clock() - began < 0.1)
        end
        at(10)",
    );
    // The two servers' lines of one moment may come in either order.
    let got =
        printed.iter().position(|line| line.starts_with("2 got")).expect("it was handed over");
    assert_eq!(printed.remove(got), "2 got 2 true 2 true");
    assert_eq!(
        printed,
        ["1 save true", "1 last External true", "1 end false", "1 after 2 true false"]
    );
}

#[test]
fn a_stolen_profile_ends_without_a_last_save() {
    let mut printed = two("local store = Store('Players', { N = 0 })
        if server == 1 then
            local profile = store:StartSessionAsync('k')
            profile.OnLastSave:Connect(function() print('never') end)
            profile.OnSessionEnd:Connect(function() print('end', profile:IsActive()) end)
            profile.OnAfterSave:Connect(function(data) print('after', data.By, profile:IsActive(), profile.LastSavedData.By) end)
            profile.Data.N = 1
        else
            at(5)
            local profile = store:StartSessionAsync('k', { Steal = true })
            assert(profile.Data.N == 0)
            profile.Data.By = 'thief'
            print('stolen')
        end
        at(20)");
    printed.retain(|line| line != "2 stolen");
    assert_eq!(printed, ["1 end false", "1 after nil false nil"]);
}

#[test]
fn of_two_servers_that_ask_at_the_same_time_one_gets_a_free_profile_and_the_other_takes_it_over() {
    let printed = two("local store = Store('Players', { N = 0 })
        at(5)
        local profile = store:StartSessionAsync('k')
        print('got', profile ~= nil)
        if profile ~= nil then
            profile.Data.N += 1
            profile.OnSessionEnd:Connect(function() if not ProfileStore.IsClosing then print('end') end end)
        end
        at(10)
        print(profile ~= nil and profile:IsActive())
        at(11)
        if profile ~= nil and profile:IsActive() then assert(profile.Data.N == 2, profile.Data.N) end
        at(12)");
    let count = |what: &str| printed.iter().filter(|line| line.ends_with(what)).count();
    assert_eq!((count("got true"), count("end"), count(" true")), (2, 1, 3), "{printed:?}");
}

#[test]
fn a_message_reaches_the_other_server_at_once() {
    two("local store = Store('Players', { N = 0 })
        if server == 1 then
            local profile = store:StartSessionAsync('k')
            profile:MessageHandler(function(message, processed)
                assert(os.clock() - message.At < 0.1)
                profile.Data.N += 1
                processed()
            end)
            at(8)
            assert(profile.LastSavedData.N == 20, profile.LastSavedData.N)
        else
            at(5)
            for n = 1, 20 do assert(store:MessageAsync('k', { At = os.clock() })) end
        end
        at(9)");
}

#[test]
fn a_view_shows_who_has_the_session() {
    two("local store = Store('Players', { N = 0 })
        if server == 1 then
            local profile = store:StartSessionAsync('k')
            at(10)
            assert(not profile:IsActive(), 'the view was written over it')
            assert(store:GetAsync('k').Data.N == 7)
        else
            at(5)
            local view = store:GetAsync('k')
            assert(type(view.Session.JobId) == 'string')
            view.Data.N = 7
            view:SetAsync()
        end
        at(11)");
}
