//! What game servers cost a host while nothing happens.

use tokio::runtime::Handle;

use super::*;

/// What the kernel says that this process has in memory.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("0");
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or_default()
}

/// Prints what a game server takes; a build without optimisation, so no measure of speed:
/// `cargo nextest run -p profilestore --all-features idle_game_servers --no-capture`
#[tokio::test(start_paused = true)]
async fn idle_game_servers_cost_one_task_each_and_share_the_rest() {
    const SERVERS: usize = 1000;
    let world = World::new();
    let host = host(&world);
    let (tasks, before) = (Handle::current().metrics().num_alive_tasks(), resident_kib());
    let mut servers = Vec::new();
    for number in 0..SERVERS {
        servers.push(host.register(registration(&format!("{number}"))).await.unwrap());
    }
    for _ in 0..30 {
        servers.iter().for_each(|server| {
            server.pong();
        });
        tokio::time::sleep(2 * SECOND).await;
    }
    let each = Handle::current().metrics().num_alive_tasks() - tasks;
    let kib = resident_kib().saturating_sub(before);
    println!("{SERVERS} idle game servers: {each} tasks, {:.1} KiB each", kib as f64 / 1000.0);
    assert_eq!(each, SERVERS);
    assert!(servers.iter().all(|server| server.stopped().is_none()));
    assert!(servers.iter().all(|server| server.confirmed_age() < 6 * SECOND));
    // All of them end with their host's handles.
    drop(servers);
    tokio::time::sleep(SECOND).await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks);
}
