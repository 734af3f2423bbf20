//! The metrics registry.
//!
//! Owns the recorder, the buckets and the text that Prometheus reads. Never names a metric of another module: each
//! describes its own, and the composition root hands their functions to [`Metrics::install`].

use std::time::Duration;

use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tokio::time::Instant;

use crate::runtime::{Pace, Shutdown, TaskError};

/// Registers the names, units and texts of one module's metrics, and creates its counters at 0.
pub type Describe = fn();

/// Buckets of how late a removal was, in seconds: from at once to an hour.
pub const LATENESS_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
    1800.0, 3600.0,
];

/// Buckets of how long a revocation took from due to verified gone, in seconds: from a tenth of a second to a day,
/// dense around a minute, where the objective usually lies.
pub const REVOCATION_BUCKETS: &[f64] = &[
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 600.0, 1800.0,
    3600.0, 7200.0, 21600.0, 43200.0, 86400.0,
];

/// Buckets of every other histogram in seconds.
const SECONDS_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Buckets of histograms in bytes.
const BYTES_BUCKETS: &[f64] = &[
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Buckets of histograms that count things.
const COUNT_BUCKETS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 10_000.0,
];

/// How often histograms are folded, so that memory stays flat when nobody scrapes.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
#[error("installing the metrics recorder")]
pub struct MetricsError(#[from] BuildError);

/// A handle to the registry. Clones share it.
#[derive(Debug, Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the registry for the whole process and describes every module's metrics.
    ///
    /// # Errors
    /// [`MetricsError`] when one was installed before.
    pub fn install(modules: &[Describe]) -> Result<Self, MetricsError> {
        let handle = builder()?.install_recorder()?;
        describe(modules);
        Ok(Self { handle })
    }

    /// A registry of its own for tests; use it with [`metrics::with_local_recorder`].
    ///
    /// # Errors
    /// [`MetricsError`] when the buckets are refused, which a test shows they are not.
    pub fn local(modules: &[Describe]) -> Result<(Self, PrometheusRecorder), MetricsError> {
        let recorder = builder()?.build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || describe(modules));
        Ok((Self { handle }, recorder))
    }

    /// Everything, in the text format that Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Keeps memory flat, in step with everything else that shares the epoch; a task for
    /// [`crate::runtime::Tasks::attend`].
    ///
    /// # Errors
    /// None; the type is that of a task.
    pub async fn upkeep(self, epoch: Option<Instant>, shutdown: Shutdown) -> Result<(), TaskError> {
        let mut every = Pace::new(epoch, UPKEEP_PERIOD);
        loop {
            tokio::select! {
                () = shutdown.closing() => return Ok(()),
                () = every.tick() => self.handle.run_upkeep(),
            }
        }
    }
}

/// Describes every module's metrics, and this one's, to the recorder in use.
pub fn describe(modules: &[Describe]) {
    metrics::describe_gauge!(
        "latchkey_build_info",
        "Always 1; its label tells the version that runs"
    );
    metrics::gauge!("latchkey_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for module in modules {
        module();
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets(COUNT_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), BYTES_BUCKETS)?
        .set_buckets_for_metric(
            Matcher::Full("latchkey_revocation_lateness_seconds".to_owned()),
            LATENESS_BUCKETS,
        )?
        .set_buckets_for_metric(
            Matcher::Full("latchkey_revocation_verified_seconds".to_owned()),
            LATENESS_BUCKETS,
        )?
        .set_buckets_for_metric(
            Matcher::Full("latchkey_revocation_seconds".to_owned()),
            REVOCATION_BUCKETS,
        )?
        .set_buckets_for_metric(
            Matcher::Full("latchkey_activation_seconds".to_owned()),
            REVOCATION_BUCKETS,
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() {
        metrics::describe_histogram!(
            "latchkey_revocation_lateness_seconds",
            metrics::Unit::Seconds,
            "How late removals were"
        );
        metrics::describe_counter!("latchkey_samples_total", "Samples");
        metrics::counter!("latchkey_samples_total").absolute(0);
    }

    #[test]
    fn lateness_has_buckets_from_at_once_to_an_hour() {
        let (metrics, recorder) = Metrics::local(&[sample]).expect("valid buckets");
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("latchkey_revocation_lateness_seconds").record(0.004);
        });
        let text = metrics.render();
        for bucket in [r#"le="0.005"} 1"#, r#"le="3600"} 1"#, r#"le="+Inf"} 1"#] {
            assert!(text.contains(bucket), "no {bucket} in\n{text}");
        }
        assert!(text.contains("# HELP latchkey_revocation_lateness_seconds How late"));
    }

    #[test]
    fn the_promise_has_buckets_from_a_tenth_of_a_second_to_a_day() {
        let (metrics, recorder) = Metrics::local(&[]).expect("valid buckets");
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("latchkey_revocation_seconds").record(61.0);
        });
        let text = metrics.render();
        for bucket in [
            r#"le="0.1"} 0"#,
            r#"le="60"} 0"#,
            r#"le="90"} 1"#,
            r#"le="86400"} 1"#,
        ] {
            assert!(text.contains(bucket), "no {bucket} in\n{text}");
        }
    }

    #[test]
    fn described_counters_show_before_they_count() {
        let (metrics, _recorder) = Metrics::local(&[sample]).expect("valid buckets");
        let text = metrics.render();
        assert!(text.contains("latchkey_samples_total 0"), "{text}");
        assert!(text.contains("latchkey_build_info{version="), "{text}");
    }
}
