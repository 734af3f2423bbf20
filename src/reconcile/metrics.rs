//! Metrics of reconciliation.
//!
//! Owns their names and help texts. Never labels by member or grant.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::domain::drift::DriftKind;
use crate::domain::ids::IntegrationName;

/// From the instant access had to go to the instant its removal was sent.
pub const REVOCATION_LATENESS: &str = "latchkey_revocation_lateness_seconds";
/// From the removal being sent to a complete read that no longer showed the access.
pub const REVOCATION_VERIFIED: &str = "latchkey_revocation_verified_seconds";
/// Grants that ended.
pub const GRANTS_ENDED: &str = "latchkey_grants_ended_total";

/// Open differences.
pub const DRIFT_OPEN: &str = "latchkey_drift_open";
/// Whether repairs wait for an operator.
pub const BREAKER_OPEN: &str = "latchkey_breaker_open";
/// Whether everything is refused to the key.
pub const KEY_REFUSED: &str = "latchkey_key_refused";

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
    describe_gauge!(
        DRIFT_OPEN,
        "Differences between Elastic Cloud and the ledger that are open, by kind, as of the last drift sweep"
    );
    describe_gauge!(
        BREAKER_OPEN,
        "1 when repairs wait for an operator because too many members lost roles at once"
    );
    describe_gauge!(
        KEY_REFUSED,
        "1 when every removal is refused to the key, so that the integration is at fault and no single pair"
    );
}

/// Sets how many differences are open, by kind.
pub(super) fn drift_open(integration: &IntegrationName, counts: &BTreeMap<DriftKind, u64>) {
    for kind in DriftKind::ALL {
        let open = counts.get(&kind).copied().unwrap_or_default();
        #[expect(
            clippy::cast_precision_loss,
            reason = "a gauge needs no more than 52 bits"
        )]
        let open = open as f64;
        gauge!(DRIFT_OPEN, "integration" => integration.to_string(), "kind" => kind.as_str())
            .set(open);
    }
}

pub(super) fn breaker(integration: &IntegrationName, open: bool) {
    gauge!(BREAKER_OPEN, "integration" => integration.to_string()).set(f64::from(u8::from(open)));
}

pub(super) fn key_refused(integration: &IntegrationName, refused: bool) {
    gauge!(KEY_REFUSED, "integration" => integration.to_string()).set(f64::from(u8::from(refused)));
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
