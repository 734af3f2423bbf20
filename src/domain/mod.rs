//! The vocabulary: ids, roles, assignments, grants and their life cycle, the member aggregate, audit events.
//!
//! Owns every rule that can be decided from values alone. Time is always an argument. It never does I/O, never
//! reads a clock, never logs, and knows nothing of gRPC, SQL or HTTP.

pub mod asked;
pub mod assignment;
pub mod authority;
pub mod caller;
pub mod catalogue;
pub mod drift;
pub mod event;
pub mod evidence;
pub mod grant;
pub mod host;
pub mod ids;
pub mod lateness;
pub mod law;
pub mod member;
pub mod observation;
pub mod overdue;
pub mod receipt;
pub mod request;
pub mod rotation;
pub mod sight;
pub mod ttl;

/// Wall time as it decides access: UTC, microsecond precision in the ledger.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
