//! A store that cannot be reached for a while, and one that loses answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use profilestore::{
    data_store::{
        MemoryStore,
        fault::{Call, Fate, Fault, FaultyStore, LineState, StorePlan},
    },
    messenger::LocalMessenger,
};
use profilestore_luau::GameBuilder;

use super::play;

/// Every `each`-th commit's answer is lost; 0: none.
#[derive(Debug, Default)]
struct LostAnswers {
    each: u64,
    commits: AtomicU64,
}

impl StorePlan for LostAnswers {
    fn fate(&self, call: Call<'_>) -> Fate {
        let mut fate = Fate::default();
        if matches!(call, Call::Commit(_))
            && self.each > 0
            && self.commits.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.each)
        {
            fate.fault = Some(Fault::AnswerLost);
        }
        fate
    }
}

/// A store whose connection is cut at some second of the game and opened again at another. A
/// server's clock begins about then at 100.
fn cut(from: u64, to: u64) -> impl FnOnce(GameBuilder) -> GameBuilder {
    move |game| {
        game.store(move |env| {
            let store =
                FaultyStore::new(Arc::new(MemoryStore::new(env.clone())), LostAnswers::default());
            let line = store.line().clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(from)).await;
                line.set(LineState::Cut);
                tokio::time::sleep(Duration::from_secs(to - from)).await;
                line.set(LineState::Open);
            });
            Ok((Arc::new(store), Arc::new(LocalMessenger::new())))
        })
    }
}

#[test]
fn a_start_during_an_outage_gives_up_after_its_time_and_the_state_becomes_critical() {
    let ran = play(
        false,
        1,
        "local errors = 0
        ProfileStore.OnError:Connect(function() errors += 1 end)
        ProfileStore.OnCriticalToggle:Connect(function(is_critical)
            assert(is_critical == ProfileStore.IsCriticalState)
            print('critical', is_critical)
        end)
        local store = Store('Players')
        task.wait(10)
        local began = os.clock()
        assert(store:StartSessionAsync('k') == nil)
        assert(os.clock() - began >= 120 and os.clock() - began < 125, os.clock() - began)
        assert(errors >= 5 and ProfileStore.IsCriticalState)
        task.wait(600)
        assert(store:StartSessionAsync('k'):IsActive() and not ProfileStore.IsCriticalState)",
        cut(5, 200),
    );
    assert_eq!(ran.succeeded(), ["critical true", "critical false"]);
}

#[test]
fn cancel_ends_a_start_during_an_outage_and_lifts_its_time_limit() {
    play(
        false,
        1,
        "local store = Store('Players')
        task.wait(10)
        local began, left = os.clock(), false
        task.delay(150, function() left = true end)
        assert(store:StartSessionAsync('k', { Cancel = function() return left end }) == nil)
        assert(math.abs(os.clock() - began - 150) < 1, os.clock() - began)
        assert(ProfileStore.Test().ActiveProfileLoadJobs == 0)",
        cut(5, 300),
    )
    .succeeded();
}

#[test]
fn a_session_outlives_an_outage_and_is_saved_after_it() {
    let printed = play(
        false,
        1,
        "local store = Store('Players', { N = 0 })
        local profile, ending = store:StartSessionAsync('k'), store:StartSessionAsync('e')
        profile.OnSessionEnd:Connect(function() if not ProfileStore.IsClosing then print('never') end end)
        ending.OnSessionEnd:Connect(function() print('ended', ending:IsActive()) end)
        ending.OnAfterSave:Connect(function(data) print('saved', data.N) end)
        task.wait(60)
        assert(not profile:IsActive(), 'nobody can know')
        profile.Data.N, ending.Data.N = 1, 2
        profile:Save()
        ending:EndSession()
        ending:EndSession()
        assert(profile.LastSavedData.N == 0 and not ending:IsActive())
        task.wait(100)
        assert(profile:IsActive() and profile.LastSavedData.N == 1)
        assert(store:GetAsync('e').Data.N == 2)",
        cut(5, 100),
    )
    .succeeded();
    assert_eq!(printed, ["ended false", "saved 2"]);
}

#[test]
fn calls_during_an_outage_answer_nil_or_false() {
    play(
        false,
        1,
        "local store = Store('Players')
        store:StartSessionAsync('k'):EndSession()
        task.wait(10)
        assert(store:GetAsync('k') == nil and store:MessageAsync('k', {}) == false and store:RemoveAsync('k') == false)
        assert(store:VersionQuery('k'):NextAsync() == nil)",
        cut(5, 1000),
    )
    .succeeded();
}

#[test]
fn lost_answers_cost_nothing() {
    let latency = |game: GameBuilder| {
        game.store(|env| {
            let plan = LostAnswers { each: 2, ..LostAnswers::default() };
            let store = FaultyStore::new(Arc::new(MemoryStore::new(env.clone())), plan);
            Ok((Arc::new(store), Arc::new(LocalMessenger::new())))
        })
    };
    play(
        false,
        2,
        "local store = Store('Players', { N = 0, Seen = {} })
        for round = 1, 10 do
            if round % 2 == server % 2 then
                local profile = store:StartSessionAsync('k')
                assert(profile.SessionLoadCount == round and profile.Data.N == round - 1, profile.SessionLoadCount)
                profile.Data.N += 1
                profile:MessageHandler(function(message, processed)
                    assert(profile.Data.Seen[message.Round] == nil)
                    profile.Data.Seen[message.Round] = true
                    processed()
                end)
            else
                assert(store:MessageAsync('k', { Round = 'r' .. round }))
            end
            at(round * 30)
        end
        local count = 0
        for _ in store:GetAsync('k').Data.Seen do count += 1 end
        assert(count == 10, count)",
        latency,
    )
    .succeeded();
}
