//! Metrics of reconciliation.
//!
//! Owns their names and help texts. Never labels by member or grant.

use chrono::TimeDelta;
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use crate::domain::ids::IntegrationName;

/// From the instant access had to go to the instant its removal was sent.
pub const REVOCATION_LATENESS: &str = "latchkey_revocation_lateness_seconds";
/// From the removal being sent to a complete read that no longer showed the access.
pub const REVOCATION_VERIFIED: &str = "latchkey_revocation_verified_seconds";
/// Grants that ended.
pub const GRANTS_ENDED: &str = "latchkey_grants_ended_total";

/// Registers help texts.
pub fn describe_metrics() {
    describe_histogram!(
        REVOCATION_LATENESS,
        Unit::Seconds,
        "From due to the removal being sent"
    );
    describe_histogram!(
        REVOCATION_VERIFIED,
        Unit::Seconds,
        "From the removal being sent to verified gone"
    );
    describe_counter!(GRANTS_ENDED, "Grants that ended, by cause");
}

pub(super) fn removal_sent(integration: &IntegrationName, lateness: TimeDelta) {
    histogram!(REVOCATION_LATENESS, "integration" => integration.to_string())
        .record(seconds(lateness));
}

pub(super) fn grant_ended(
    integration: &IntegrationName,
    cause: &'static str,
    verified: Option<TimeDelta>,
) {
    counter!(GRANTS_ENDED, "integration" => integration.to_string(), "cause" => cause).increment(1);
    if let Some(verified) = verified {
        histogram!(REVOCATION_VERIFIED, "integration" => integration.to_string())
            .record(seconds(verified));
    }
}

fn seconds(delta: TimeDelta) -> f64 {
    delta.to_std().map_or(0.0, |delta| delta.as_secs_f64())
}
