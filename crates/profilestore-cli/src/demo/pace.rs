//! Whether this machine keeps up with the lease time of the game servers.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Watches for as long as it runs; the parent runs one, and each game server runs one. When a sleep
/// of an eighth of the lease time ends as much again too late, `stood_still` is told for how long:
/// game servers may have been kept from renewing their leases for a multiple of it. From then on a
/// session that is lost is no fault of theirs.
pub(super) async fn watch(lease_time: Duration, stood_still: impl FnOnce(Duration)) {
    let pause = lease_time / 8;
    loop {
        let begun = Instant::now();
        sleep(pause).await;
        let late = begun.elapsed().saturating_sub(pause);
        if late > pause {
            return stood_still(late);
        }
    }
}
