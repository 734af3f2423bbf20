//! Metrics of reconciliation.
//!
//! Owns their names and help texts, and what counts as a revocation in time. Never labels by member or grant.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::domain::drift::DriftKind;
use crate::domain::grant::{EndCause, Grant, GrantState};
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
/// From the instant access had to go to a complete read that no longer showed it.
pub const REVOCATION: &str = "latchkey_revocation_seconds";
/// Revocations by whether they kept the objective.
pub const REVOCATIONS: &str = "latchkey_revocations_total";
/// From the instant access was to be given to a read that showed it.
pub const ACTIVATION: &str = "latchkey_activation_seconds";
/// Differences that somebody else made.
pub const DRIFT: &str = "latchkey_drift_total";

/// Removals that were sent while the ledger was away.
pub const WITHOUT_LEDGER: &str = "latchkey_removals_without_ledger_total";
/// Removals in the journal that the ledger does not know of yet.
pub const JOURNAL_WAITING: &str = "latchkey_journal_waiting";

/// A step of a grant whose length is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Access was verified this long after it was to be given.
    Activated(TimeDelta),
    /// Access that we took away was verified gone this long after it was due to go.
    Revoked(TimeDelta),
}

impl Step {
    /// What a change of state measures, if anything. A revocation counts when a removal was sent for it: what
    /// standing access or another grant still covers, and what somebody else took away, was not ours to be late with.
    #[must_use]
    pub fn between(before: &GrantState, grant: &Grant) -> Option<Self> {
        match (before, &grant.state) {
            (GrantState::Activating { since, .. }, GrantState::Active { activated_at, .. }) => {
                Some(Self::Activated(*activated_at - *since))
            }
            (GrantState::Revoking { since, .. }, GrantState::Ended { at, cause })
                if grant.removal_sent_at.is_some() && *cause != EndCause::MemberLeft =>
            {
                Some(Self::Revoked(*at - *since))
            }
            _ => None,
        }
    }
}

/// Registers help texts.
pub fn describe_metrics() {
    describe_histogram!(
        REVOCATION,
        Unit::Seconds,
        "From due to verified gone, of revocations that Latchkey sent"
    );
    describe_counter!(
        REVOCATIONS,
        "Revocations that were verified gone, by whether that was within the objective"
    );
    describe_histogram!(
        ACTIVATION,
        Unit::Seconds,
        "From access to be given to verified there"
    );
    describe_counter!(
        DRIFT,
        "Differences that somebody else made in what Latchkey gave or left, by kind"
    );
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
    describe_counter!(
        WITHOUT_LEDGER,
        "Removals that were sent while the ledger was away, by outcome"
    );
    describe_gauge!(
        JOURNAL_WAITING,
        "Removals in the journal of this replica that the ledger does not know of yet"
    );
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

pub(super) fn removed_without_ledger(integration: &IntegrationName, outcome: &'static str) {
    counter!(WITHOUT_LEDGER, "integration" => integration.to_string(), "outcome" => outcome)
        .increment(1);
}

pub(super) fn journal_waiting(count: usize) {
    gauge!(JOURNAL_WAITING).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
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

/// Shows the counters of an integration before they count: an error budget needs its zeros.
pub fn begin(integration: &IntegrationName) {
    for outcome in ["on_time", "late"] {
        counter!(REVOCATIONS, "integration" => integration.to_string(), "outcome" => outcome)
            .increment(0);
    }
}

pub(super) fn steps_done(integration: &IntegrationName, steps: &[Step], within: TimeDelta) {
    for step in steps {
        match step {
            Step::Activated(took) => {
                histogram!(ACTIVATION, "integration" => integration.to_string())
                    .record(seconds(*took));
            }
            Step::Revoked(took) => {
                let outcome = if *took <= within { "on_time" } else { "late" };
                histogram!(REVOCATION, "integration" => integration.to_string())
                    .record(seconds(*took));
                counter!(REVOCATIONS, "integration" => integration.to_string(), "outcome" => outcome)
                    .increment(1);
            }
        }
    }
}

pub(super) fn drift_met(integration: &IntegrationName, kind: String) {
    counter!(DRIFT, "integration" => integration.to_string(), "kind" => kind).increment(1);
}

fn seconds(delta: TimeDelta) -> f64 {
    delta.to_std().map_or(0.0, |delta| delta.as_secs_f64())
}
