//! The objective for revocations, as gauges: alerts and boards read it from here instead of repeating it.
//!
//! Owns showing what the configuration says. Never measures anything.

use metrics::{Unit, describe_gauge, gauge};

use crate::config::ServiceLevel;

const WITHIN: &str = "latchkey_objective_revocation_seconds";
const RATIO: &str = "latchkey_objective_ratio";
const WINDOW: &str = "latchkey_objective_window_seconds";

/// Registers help texts.
pub(super) fn describe_metrics() {
    describe_gauge!(
        WITHIN,
        Unit::Seconds,
        "Configured: what takes longer from due to verified gone is late"
    );
    describe_gauge!(
        RATIO,
        "Configured: the share of revocations that is to be in time"
    );
    describe_gauge!(
        WINDOW,
        Unit::Seconds,
        "Configured: the time over which that share is counted"
    );
}

/// Shows the objective.
pub(super) fn announce(level: &ServiceLevel) {
    gauge!(WITHIN).set(level.revocation_within.get().as_secs_f64());
    gauge!(RATIO).set(level.objective.get());
    gauge!(WINDOW).set(level.window.get().as_secs_f64());
}
