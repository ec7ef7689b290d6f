//! What `/metrics` shows.

use std::{sync::OnceLock, time::Duration};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// How often what was gathered is summed up, whether or not `/metrics` is asked for.
const SUM_UP: Duration = Duration::from_secs(5);

/// Records this process's metrics from now on, for [`crate::Parts::metrics`]. None when another
/// recorder is installed. To be called within a Tokio runtime.
pub fn record_metrics() -> Option<PrometheusHandle> {
    static RECORDED: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let recorded = RECORDED.get_or_init(|| {
        let handle = PrometheusBuilder::new().install_recorder().ok()?;
        profilestore::describe_metrics();
        let upkeep = handle.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SUM_UP).await;
                upkeep.run_upkeep();
            }
        });
        Some(handle)
    });
    recorded.clone()
}
