//! What operators see of a running process: logs, metrics, health.
//!
//! Owns the log format, the metrics registry and the health listener. Never decides anything and never logs a key,
//! a token, a justification or a body.

pub mod http;
pub mod logging;
pub mod metrics;

pub use http::Health;
pub use logging::LogFormat;
pub use metrics::Metrics;
