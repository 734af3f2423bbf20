//! The customer's law: Cedar policies that decide what callers may do.
//!
//! Owns the schema, the shipped default, loading with validation, and the decision. Never loosens anything: what it
//! cannot answer it refuses, and a set that does not fit the schema never comes into force.

pub mod cases;
#[cfg(feature = "cedar")]
mod facts;
mod source;

#[cfg(feature = "cedar")]
mod cedar;
#[cfg(not(feature = "cedar"))]
#[path = "none.rs"]
mod cedar;

pub use cedar::{CedarLaw, Checked, check};
pub use source::{DEFAULT, LawError, SCHEMA, Source};

/// What became of reading the policies anew.
#[derive(Debug)]
pub enum Reload {
    /// They are as they were.
    Unchanged,
    /// New ones are in force.
    Changed {
        /// First 16 hexadecimal digits of the SHA-256 of their texts.
        digest: String,
    },
    /// They cannot be used; what was in force stays. The error is there when this is news.
    Kept(Option<LawError>),
}

const RELOADS: &str = "latchkey_law_reloads_total";
const STALE: &str = "latchkey_law_is_stale";
const DECISIONS: &str = "latchkey_law_decisions_total";

/// Registers help texts.
pub fn describe_metrics() {
    metrics::describe_counter!(
        RELOADS,
        "Times that changed policies were taken, or could not be and the old ones were kept"
    );
    metrics::describe_gauge!(
        STALE,
        "1 while the policies cannot be used and older ones are in force"
    );
    metrics::describe_counter!(
        DECISIONS,
        "Decisions of the law, by action and outcome (allowed, refused, undecided)"
    );
}

#[cfg(feature = "cedar")]
fn count_reloads(outcome: &'static str, by: u64) {
    metrics::counter!(RELOADS, "outcome" => outcome).increment(by);
}

#[cfg(feature = "cedar")]
fn set_stale(is_stale: bool) {
    metrics::gauge!(STALE).set(f64::from(u8::from(is_stale)));
}

#[cfg(feature = "cedar")]
fn count_decision(action: &'static str, outcome: &'static str) {
    metrics::counter!(DECISIONS, "action" => action, "outcome" => outcome).increment(1);
}
