//! What a seed decides, and what it must not decide.

use std::sync::{Arc, OnceLock};

use profilestore::{
    data_store::{DataStore, MemoryStore},
    messenger::LocalMessenger,
};
use profilestore_luau::GameBuilder;

use crate::run;

#[test]
fn runs_on_one_store_with_the_same_seed_lose_no_writes() {
    // Each run begins at the same moment in virtual time, and the store outlives it.
    let store: Arc<OnceLock<Arc<dyn DataStore>>> = Arc::default();
    let on_it = |game: GameBuilder| {
        let store = store.clone();
        game.seed(7).store(move |env| {
            let store = store.get_or_init(|| Arc::new(MemoryStore::new(env.clone()))).clone();
            Ok((store, Arc::new(LocalMessenger::new())))
        })
    };
    let mut jobs = Vec::new();
    for n in 1..=5 {
        let printed = run(
            "local raw = game:GetService('DataStoreService'):GetDataStore('Raw')
            local profile = require('ProfileStore').New('P', { n = 0 }):StartSessionAsync('k')
            local new = raw:UpdateAsync('k', function(n) return (n or 0) + 1 end)
            profile.Data.n += 1
            print(new, (raw:GetAsync('k')), profile.Data.n, profile.SessionLoadCount)
            print(game.JobId)
            print(math.random(), Random.new():NextInteger(1, 1000000))",
            on_it,
        )
        .succeeded();
        assert_eq!(printed[0], format!("{n} {n} {n} {n}"));
        jobs.push((printed[1].clone(), printed[2].clone()));
    }
    jobs.sort();
    jobs.dedup_by(|a, b| a.0 == b.0);
    assert_eq!(jobs.len(), 5, "identifiers differ from run to run");
    assert!(
        jobs.iter().all(|(_, chance)| *chance == jobs[0].1),
        "the seed decides the random numbers: {jobs:?}"
    );
}

#[test]
fn in_a_memory_of_its_own_the_same_seed_gives_the_same_run() {
    let printed = |seed| {
        let source = "print(game.JobId, game:GetService('HttpService'):GenerateGUID(), \
            math.random(), Random.new():NextNumber())";
        run(source, |game| game.seed(seed)).succeeded()
    };
    assert_eq!(printed(3), printed(3));
    assert_ne!(printed(3), printed(4));
}
