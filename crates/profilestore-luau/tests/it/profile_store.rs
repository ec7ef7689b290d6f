//! The module ProfileStore.

use crate::check;

#[test]
fn a_session_saves_and_ends() {
    let printed = check(
        "local ProfileStore = require('ProfileStore')
        local store = ProfileStore.New('Players', { Coins = 5, Items = {} })
        local profile = store:StartSessionAsync('a')
        assert(profile:IsActive() and profile.Data.Coins == 5 and profile.SessionLoadCount == 1)
        profile.OnSave:Connect(function() print('save', profile:IsActive()) end)
        profile.OnLastSave:Connect(function(reason) print('last', reason, profile:IsActive()) end)
        profile.OnSessionEnd:Connect(function() print('end', profile:IsActive()) profile.Data.Late = true end)
        profile.OnAfterSave:Connect(function(data) print('after', data.Coins, data == profile.LastSavedData, data ~= profile.Data) end)
        profile.Data.Coins += 1
        profile:Save()
        print('called')
        task.wait(1)
        profile.Data.Coins += 1
        profile:EndSession()
        print('ended')
        assert(not profile:IsActive())
        task.wait(1)
        local view = store:GetAsync('a')
        assert(view.Data.Coins == 7 and view.Data.Late and view.Session == nil and view.SessionLoadCount == 1)",
    );
    assert_eq!(
        printed,
        [
            "save true",
            "called",
            "after 6 true true",
            "save true",
            "last Manual true",
            "end false",
            "ended",
            "after 7 true true"
        ]
    );
}
