//! The Elastic Cloud client: the adapter behind [`AccessProvider`](crate::ports::AccessProvider).
//!
//! Owns everything between a decision and the wire: the key, the budgets, what counts as done, refused or unknown,
//! and how the API's JSON maps to the domain. Never decides who may have what, never repeats a mutation that may
//! have had an effect, and never lets upstream's texts out beyond sanitised codes.

mod answer;
mod assignments;
mod client;
mod counts;
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
pub use self::counts::describe_metrics;
pub use self::limiter::LimiterOptions;
pub use self::options::{Error, Options};
