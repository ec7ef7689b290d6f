//! What games see of time: two servers on a store whose every call takes a while, in virtual time.

use std::{sync::Arc, time::Duration};

use profilestore::{
    data_store::{
        MemoryStore,
        fault::{Call, Fate, FaultyStore, StorePlan},
    },
    messenger::LocalMessenger,
};
use profilestore_luau::GameBuilder;

use super::play;

/// Every call takes as long.
#[derive(Debug)]
struct Latency(Duration);

impl StorePlan for Latency {
    fn fate(&self, _: Call<'_>) -> Fate {
        let mut fate = Fate::default();
        (fate.there, fate.back) = (self.0 / 2, self.0 / 2);
        fate
    }
}

fn with_latency(ms: u64) -> impl FnOnce(GameBuilder) -> GameBuilder {
    move |game| {
        game.store(move |env| {
            let store = FaultyStore::new(
                Arc::new(MemoryStore::new(env.clone())),
                Latency(Duration::from_millis(ms)),
            );
            Ok((Arc::new(store), Arc::new(LocalMessenger::new())))
        })
    }
}

/// What the script measured, in milliseconds.
#[track_caller]
fn measured(ms: u64, source: &str) -> Vec<f64> {
    let printed = play(false, 2, source, with_latency(ms)).succeeded();
    printed.iter().map(|line| line.parse::<f64>().expect("a number") * 1000.0).collect()
}

const FRAME: f64 = 1000.0 / 60.0;

#[test]
fn a_hand_over_takes_four_calls_and_a_frame_a_hop() {
    for ms in [10, 50, 200] {
        let took = measured(
            ms,
            "local store = Store('Players', { N = 0 })
            if server == 1 then
                local profile = store:StartSessionAsync('k')
                profile.Data.N = 1
            else
                at(20)
                local began = os.clock()
                assert(store:StartSessionAsync('k').Data.N == 1)
                print(os.clock() - began)
            end
            at(30)",
        );
        println!("hand-over at {ms} ms: {took:.1?} ms");
        assert!(took[0] <= 4.0 * ms as f64 + 2.0 * FRAME, "{took:?}");
    }
}

#[test]
fn a_message_takes_four_calls() {
    for ms in [10, 50, 200] {
        let took = measured(
            ms,
            "local store = Store('Players', { N = 0 })
            if server == 1 then
                local profile = store:StartSessionAsync('k')
                profile:MessageHandler(function(message, processed) print(tick() - message.At) processed() end)
            else
                at(20)
                store:MessageAsync('k', { At = tick() })
            end
            at(30)",
        );
        println!("message at {ms} ms: {took:.1?} ms");
        assert!(took[0] <= 4.0 * ms as f64 + FRAME, "{took:?}");
    }
}

#[test]
fn a_burst_of_messages_waits_for_no_autosave() {
    for ms in [10, 50, 200] {
        let took = measured(
            ms,
            "local store = Store('Players', { N = 0 })
            if server == 1 then
                local profile = store:StartSessionAsync('k')
                profile:MessageHandler(function(message, processed)
                    profile.Data.N += 1
                    processed()
                    print(tick() - message.At)
                end)
                at(40)
                assert(profile.LastSavedData.N == 20)
            else
                at(20)
                for n = 1, 20 do
                    task.spawn(store.MessageAsync, store, 'k', { At = tick() })
                    task.wait(0.5)
                end
            end
            at(40)",
        );
        let max = took.iter().copied().fold(0.0, f64::max);
        println!("20 messages at 2 a second, {ms} ms: at most {max:.1} ms");
        assert!(took.len() == 20 && max <= 4.0 * ms as f64 + FRAME, "{took:?}");
    }
}

#[test]
fn a_take_over_after_a_crash_takes_the_lease_time() {
    for ms in [10, 50, 200] {
        let source = "local store = Store('Players', { N = 0 })
            if server == 1 then
                local profile = store:StartSessionAsync('k')
                profile.Data.N = 1
                profile:Save()
                at(60)
                print('never')
            else
                at(30)
                local began = os.clock()
                assert(store:StartSessionAsync('k').Data.N == 1)
                print(os.clock() - began)
                at(70)
            end";
        // A server is some seconds old when it begins.
        let crash = "server1:crash@110s".parse().expect("a plan");
        let latency = with_latency(ms);
        let printed = play(false, 2, source, |game| latency(game).players(crash)).succeeded();
        let took: f64 = printed[0].parse().expect("a number");
        println!("take-over after a crash at {ms} ms: {took:.1} s");
        assert!(printed.len() == 1 && took <= 21.0, "{printed:?}");
    }
}
