//! Random sequences of transactions and of what meets them: coins are conserved.

use super::*;
use proptest::prelude::*;

const PROFILES: usize = 4;
const EACH: i64 = 1000;

/// A server's sessions.
type Live = Vec<Option<Profile<Player>>>;

#[derive(Debug, Clone)]
enum Step {
    Trade { on: usize, from: usize, to: usize, amount: i64, deadline_s: u64 },
    Give { on: usize, from: usize, to: usize, amount: i64 },
    Save { on: usize, profile: usize },
    End { on: usize, profile: usize },
    Start { on: usize, profile: usize, steal: bool },
    Fail { on: usize, fault: usize, count: u64 },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (on, who, amount) = (0..2_usize, 0..PROFILES, 1..50_i64);
    prop_oneof![
        4 => (on.clone(), who.clone(), who.clone(), amount.clone(), 0..8_u64)
            .prop_map(|(on, from, to, amount, deadline_s)| Step::Trade { on, from, to, amount, deadline_s }),
        4 => (on.clone(), who.clone(), who.clone(), amount).prop_map(|(on, from, to, amount)| Step::Give { on, from, to, amount }),
        1 => (on.clone(), who.clone()).prop_map(|(on, profile)| Step::Save { on, profile }),
        2 => (on.clone(), who.clone()).prop_map(|(on, profile)| Step::End { on, profile }),
        3 => (on.clone(), who, any::<bool>()).prop_map(|(on, profile, steal)| Step::Start { on, profile, steal }),
        2 => (on, 0..3_usize, 1..4_u64).prop_map(|(on, fault, count)| Step::Fail { on, fault, count }),
        3 => (0..3000_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// Coins only ever move by transactions, so whatever fails, ends or is stolen when, their sum
/// stays.
async fn play(steps: Vec<Step>) {
    let world = World::new();
    let ways = [world.another_way(), world.another_way()];
    let servers =
        [world.server_on("a", ways[0].clone()).await, world.server_on("b", ways[1].clone()).await];
    for n in 0..PROFILES {
        let profile = open(&servers[0], &format!("p{n}")).await;
        earn(&profile, EACH);
        profile.end_session().await.unwrap();
    }
    let live: [Arc<Mutex<Live>>; 2] =
        std::array::from_fn(|_| Arc::new(Mutex::new(vec![None; PROFILES])));
    let at = |on: usize, profile: usize| live[on].lock()[profile].clone();
    let mut under_way = tokio::task::JoinSet::new();
    for step in steps {
        match step {
            Step::Trade { on, from, to, amount, deadline_s } => {
                if let (Some(from), Some(to)) = (at(on, from), at(on, to)) {
                    let builder =
                        servers[on].transaction().deadline(Duration::from_secs(deadline_s));
                    let trading = move_coins(builder, &from, &to, amount);
                    under_way.spawn(async move { drop(trading.await) });
                }
            }
            Step::Give { on, from, to, amount } => {
                if let Some(from) = at(on, from) {
                    let giving = give(&from, &format!("p{to}"), amount, None);
                    under_way.spawn(async move { drop(giving.await) });
                }
            }
            Step::Save { on, profile } => {
                if let Some(profile) = at(on, profile) {
                    let saving = profile.save();
                    under_way.spawn(async move { drop(saving.await) });
                }
            }
            Step::End { on, profile } => {
                if let Some(profile) = live[on].lock()[profile].take() {
                    let ending = profile.end_session();
                    under_way.spawn(async move { drop(ending.await) });
                }
            }
            Step::Start { on, profile, steal } => {
                let mut options = StartOptions::new().timeout(60 * SECOND);
                if steal {
                    options = options.steal();
                }
                let starting =
                    players(&servers[on]).start_session_with(&format!("p{profile}"), options);
                let live = live[on].clone();
                under_way.spawn(async move {
                    if let Ok(started) = starting.await {
                        take_gifts(&started);
                        live.lock()[profile] = Some(started);
                    }
                });
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Step::Fail { on, fault, count } => {
                ways[on]
                    .plan()
                    .fail([Fault::Refused, Fault::AnswerLost, Fault::RequestLost][fault], count);
            }
            Step::Wait { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }
    ways.iter().for_each(|way| way.plan().heal());
    while under_way.join_next().await.transpose().unwrap().is_some() {}
    for server in &servers {
        // What a thief took had nothing that was not durable.
        let report = server.shutdown().await;
        assert!(
            report.not_saved.iter().all(|(_, error)| error.kind() == ErrorKind::SessionEnded),
            "{report:?}"
        );
    }
    let last = world.server("last").await;
    let mut sum = 0;
    for n in 0..PROFILES {
        let profile = open(&last, &format!("p{n}")).await;
        take_gifts(&profile);
        sum += profile.data().coins;
        assert!(profile.waiting_messages().is_empty());
    }
    assert_eq!(sum, EACH * PROFILES as i64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn coins_are_conserved(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(steps));
    }
}
