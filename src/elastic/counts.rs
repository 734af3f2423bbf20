//! The metrics of the client.
//!
//! Owns their names, help texts and labels. Never decides anything by them.

use std::time::Duration;

use super::client::Elastic;
use crate::domain::event::CallEvidence;
use crate::ports::provider::{Priority, Refusal};

const REQUESTS: &str = "latchkey_upstream_requests_total";
const SECONDS: &str = "latchkey_upstream_request_seconds";
const RATE_WAIT: &str = "latchkey_upstream_rate_limit_wait_seconds";
const REFUSALS: &str = "latchkey_upstream_refusals_total";
const THROTTLED: &str = "latchkey_upstream_throttled_total";
const RATE: &str = "latchkey_upstream_rate_per_second";

/// Describes the metrics of this module to the recorder in use.
pub fn describe_metrics() {
    metrics::describe_counter!(
        REQUESTS,
        metrics::Unit::Count,
        "Calls to Elastic Cloud by operation and outcome (done, refused, unknown, unavailable)"
    );
    metrics::describe_histogram!(
        SECONDS,
        metrics::Unit::Seconds,
        "Time of one call to Elastic Cloud, from its first byte to the last answer, by operation"
    );
    metrics::describe_histogram!(
        RATE_WAIT,
        metrics::Unit::Seconds,
        "Time a request waited for its turn in the rate budget, by priority"
    );
    metrics::describe_counter!(REFUSALS, "Calls that certainly had no effect, by reason");
    metrics::describe_counter!(
        THROTTLED,
        "Answers of Elastic Cloud that said to slow down (429), repeated or not"
    );
    metrics::describe_gauge!(
        RATE,
        "Requests a second that the rate budget allows, as last learnt"
    );
}

impl Elastic {
    /// The name of this integration in metrics; empty where nobody has given one.
    fn label(&self) -> String {
        self.notes
            .as_ref()
            .map(|notes| notes.integration.to_string())
            .unwrap_or_default()
    }

    pub(super) fn count(
        &self,
        operation: &'static str,
        outcome: &'static str,
        evidence: &CallEvidence,
    ) {
        metrics::counter!(REQUESTS, "integration" => self.label(), "operation" => operation, "outcome" => outcome)
            .increment(1);
        if evidence.attempts > 0 {
            metrics::histogram!(SECONDS, "integration" => self.label(), "operation" => operation)
                .record(Duration::from_millis(evidence.elapsed_ms).as_secs_f64());
        }
    }

    pub(super) fn count_refusal(&self, refusal: &Refusal) {
        let reason = match refusal {
            Refusal::Unauthenticated { .. } => "unauthenticated",
            Refusal::Forbidden { .. } => "forbidden",
            Refusal::NotFound { .. } => "not_found",
            Refusal::Invalid { .. } => "invalid",
            Refusal::Throttled { .. } => "throttled",
            Refusal::NotSent { .. } => "not_sent",
            Refusal::KeyRotated => "key_rotated",
        };
        metrics::counter!(REFUSALS, "integration" => self.label(), "reason" => reason).increment(1);
    }

    pub(super) fn count_throttled(&self) {
        metrics::counter!(THROTTLED, "integration" => self.label()).increment(1);
    }

    pub(super) fn show_rate(&self, per_second: f64) {
        metrics::gauge!(RATE, "integration" => self.label()).set(per_second);
    }

    pub(super) fn count_wait(&self, priority: Priority, waited: Duration) {
        let label = match priority {
            Priority::Revoke => "revoke",
            Priority::Verify => "verify",
            Priority::Retry => "retry",
            Priority::Grant => "grant",
            Priority::Discovery => "discovery",
        };
        metrics::histogram!(RATE_WAIT, "integration" => self.label(), "priority" => label)
            .record(waited.as_secs_f64());
    }
}
