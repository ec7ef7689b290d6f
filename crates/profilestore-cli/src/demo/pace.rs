//! Whether this machine keeps up with the lease time of the game servers.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Shared, locked, say};

/// Watches for as long as it runs. When a sleep of an eighth of the lease time ends more than a
/// quarter of it late, game servers may have been kept from renewing their leases for just as long.
/// From then on a session that is lost is no fault of theirs.
pub(super) async fn watch(world: Shared, lease_time: Duration) {
    loop {
        let begun = Instant::now();
        sleep(lease_time / 8).await;
        let late = begun.elapsed().saturating_sub(lease_time / 8);
        if late > lease_time / 4 {
            locked(&world).may_lose = true;
            say(&format!(
                "this machine stood still for {} ms: from now on a lost session is no fault",
                late.as_millis()
            ));
            return;
        }
    }
}
