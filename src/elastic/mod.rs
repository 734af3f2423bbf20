//! The Elastic Cloud client: the adapter behind [`AccessProvider`](crate::ports::AccessProvider).
//!
//! Owns everything between a decision and the wire: the key, the budgets, what counts as done, refused or unknown,
//! and how the API's JSON maps to the domain. Never decides who may have what, never repeats a mutation that may
//! have had an effect, and never lets upstream's texts out beyond sanitised codes.

mod answer;
mod assignments;
mod client;
mod desk;
mod ended;
#[doc(hidden)]
pub mod fuzz;
mod key;
pub mod limiter;
mod listings;
mod members;
mod options;
mod path;
mod provider;
mod records;
mod transport;
mod wire;

pub use self::client::Elastic;
pub use self::limiter::LimiterOptions;
pub use self::options::{Error, Options};

/// Describes the metrics of this module to the recorder in use.
pub fn describe_metrics() {
    metrics::describe_counter!(
        client::REQUESTS,
        metrics::Unit::Count,
        "Calls to Elastic Cloud by operation and outcome (done, refused, unknown, unavailable)"
    );
    metrics::describe_histogram!(
        client::SECONDS,
        metrics::Unit::Seconds,
        "Time of one call to Elastic Cloud, from its first byte to the last answer, by operation"
    );
    metrics::describe_histogram!(
        client::RATE_WAIT,
        metrics::Unit::Seconds,
        "Time a request waited for its turn in the rate budget, by priority"
    );
    metrics::describe_counter!(
        client::REFUSALS,
        "Calls that certainly had no effect, by reason"
    );
    metrics::describe_counter!(
        client::THROTTLED,
        "Answers of Elastic Cloud that said to slow down (429), repeated or not"
    );
    metrics::describe_gauge!(
        client::RATE,
        "Requests a second that the rate budget allows, as last learnt"
    );
}
