//! Many transactions over the same few profiles at once, on real threads.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_over_crossing_participants_never_wait_for_each_other_for_ever() {
    const PROFILES: usize = 6;
    let world = World::new();
    let a = world.server("a").await;
    let mut profiles = Vec::new();
    for n in 0..PROFILES {
        let profile = open(&a, &format!("p{n}")).await;
        earn(&profile, 1000);
        take_gifts(&profile);
        profiles.push(profile);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8_usize {
        let (a, profiles) = (a.clone(), profiles.clone());
        tasks.spawn(async move {
            for round in 0..40_usize {
                // Every pair in both orders, from all sides at once.
                let (from, to) = ((task + round) % PROFILES, (task * 5 + round * 3 + 1) % PROFILES);
                match round % 4 {
                    0 => profiles[from].update_when_free(|data| data.coins += 1).await.unwrap(),
                    1 => give(&profiles[from], &format!("p{to}"), 3, None).await.unwrap(),
                    2 => profiles[from].save().await.unwrap(),
                    _ => drop(
                        move_coins(a.transaction(), &profiles[from], &profiles[to], 7)
                            .await
                            .unwrap(),
                    ),
                }
            }
        });
    }
    let all = async { while tasks.join_next().await.transpose().unwrap().is_some() {} };
    tokio::time::timeout(60 * SECOND, all).await.expect("no transaction waits for ever");
    for profile in &profiles {
        profile.save().await.unwrap();
        profile.save().await.unwrap();
    }
    let live: i64 = profiles.iter().map(|profile| profile.data().coins).sum();
    assert_eq!(live, 6 * 1000 + 8 * 10);
    assert!(a.shutdown().await.is_complete());
    let b = world.server("b").await;
    let mut stored = 0;
    for n in 0..PROFILES {
        stored += coins(&b, &format!("p{n}")).await;
    }
    assert_eq!(stored, live);
}
