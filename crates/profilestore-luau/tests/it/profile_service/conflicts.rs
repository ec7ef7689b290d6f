//! Profiles that another server holds, and what becomes of a session that is taken away.

use super::two;

#[test]
fn a_force_load_makes_the_other_server_release() {
    let printed = two("local store = Store()
        if server == 1 then
            local profile = store:LoadProfileAsync('p')
            profile:ListenToRelease(function(...)
                print('release', ...)
                profile.Data.last = 'words'
            end)
            profile:ListenToHopReady(function() print('hop ready') end)
            at(20)
            assert(not profile:IsActive() and profile.MetaData.ActiveSession == nil)
        else
            at(10)
            local profile = store:LoadProfileAsync('p', 'ForceLoad')
            print('loaded', profile.Data.last, os.clock() - 110 < 1)
        end");
    assert_eq!(printed, ["1 release nil nil", "1 hop ready", "2 loaded words true"]);
}

#[test]
fn a_thief_is_named_to_whom_he_stole_from() {
    let printed = two("local store = Store()
        if server == 1 then
            local profile = store:LoadProfileAsync('p')
            at(9.9)
            profile.Data.lost = true
            profile:ListenToRelease(function(place_id, job_id)
                print('release', place_id, job_id ~= nil, profile:IsActive(), profile.MetaData.ActiveSession[2] == job_id)
            end)
            at(20)
        else
            at(10)
            local profile = store:LoadProfileAsync('p', 'Steal')
            print('stolen', profile.Data.lost)
        end");
    // Which of the two servers hears of it first is not what this is about.
    let mut printed = printed;
    printed.sort();
    assert_eq!(printed, ["1 release 0 true false true", "2 stolen nil"]);
}

#[test]
fn a_handler_decides_at_each_attempt() {
    let printed = two("local store = Store()
        if server == 1 then
            local profile = store:LoadProfileAsync('p')
            profile:ListenToRelease(function() print('released') end)
            at(60)
        else
            at(10)
            local calls = 0
            local profile = store:LoadProfileAsync('p', function(place_id, job_id)
                calls += 1
                print('asked', place_id, type(job_id), math.floor(os.clock() - 110))
                task.wait(0.1)
                return if calls < 3 then 'Repeat' else 'Cancel'
            end)
            print(profile)
            profile = store:LoadProfileAsync('p', function() return 'ForceLoad' end)
            print('loaded', profile.MetaData.SessionLoadCount)
        end");
    assert_eq!(
        printed,
        [
            "2 asked 0 string 0",
            "2 asked 0 string 7",
            "2 asked 0 string 14",
            "2 nil",
            "1 released",
            "2 loaded 2"
        ]
    );
}

#[test]
fn a_profile_that_becomes_free_is_not_asked_about_again() {
    let printed = two("local store = Store()
        if server == 1 then
            local profile = store:LoadProfileAsync('p')
            at(12)
            profile:Release()
        else
            at(10)
            local profile = store:LoadProfileAsync('p', function() print('asked') return 'Repeat' end)
            print('loaded', os.clock() - 110 < 3.2)
        end");
    assert_eq!(printed, ["2 asked", "2 loaded true"]);
}

#[test]
fn a_handler_may_steal_and_a_wrong_answer_is_an_error() {
    let printed = two("local store = Store()
        if server == 1 then
            local profile = store:LoadProfileAsync('p')
            at(9.9)
            profile.Data.lost = true
            at(30)
        else
            at(10)
            fails('returns \"Repeat\"', store.LoadProfileAsync, store, 'p', function() return 'Perhaps' end)
            local profile = store:LoadProfileAsync('p', function() return 'Steal' end)
            print(profile.Data.lost, profile:IsActive())
        end");
    assert_eq!(printed, ["2 nil true"]);
}

#[test]
fn of_two_loads_on_one_server_the_later_gets_the_profile() {
    let printed = two("local store = Store()
        if server == 1 then
            local profile = store:LoadProfileAsync('p')
            at(30)
        else
            at(10)
            task.spawn(function() print('first', store:LoadProfileAsync('p')) end)
            print('second', store:LoadProfileAsync('p'):IsActive())
        end");
    assert_eq!(printed, ["2 first nil", "2 second true"]);
}

#[test]
fn overwriting_and_wiping_end_the_session_elsewhere() {
    let printed = two("local store = Store()
        if server == 1 then
            for _, key in { 'p', 'q' } do
                local profile = store:LoadProfileAsync(key)
                profile.Data.x = 1
                profile:Save()
                profile:ListenToRelease(function(...) print(key, 'released', ...) end)
            end
            at(30)
        else
            at(10)
            local view = store:ViewProfileAsync('p')
            view.Data.x = 2
            view:OverwriteAsync()
            at(12)
            print(store:ViewProfileAsync('p').Data.x, store:WipeProfileAsync('q'))
            at(14)
            print(store:ViewProfileAsync('q'))
        end");
    assert_eq!(printed, ["1 p released nil nil", "2 2 true", "1 q released nil nil", "2 nil"]);
}
