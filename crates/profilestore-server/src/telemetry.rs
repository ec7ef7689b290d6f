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
        describe();
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

/// What the server itself reports, beside the library's.
const LIMITED: (&str, &str) = (
    "profilestore_requests_limited_total",
    "requests that were refused, since their key or log-in had sent too many",
);

fn describe() {
    let (name, meaning) = LIMITED;
    metrics::describe_counter!(name, metrics::Unit::Count, meaning);
    // So that the first event counts as growth.
    metrics::counter!(name).increment(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_reports_is_documented() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let page = std::fs::read_to_string(page).unwrap();
        let (name, meaning) = LIMITED;
        assert!(page.contains(&format!("| `{name}` | counter | {meaning} |")), "{name}");
        assert!(include_str!("rates.rs").contains(&format!("counter!(\"{name}\")")));
    }
}
