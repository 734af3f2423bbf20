//! Time as the core sees it.
//!
//! Owns the split between wall time, which decides access, and elapsed time, which only waits. Never offers a
//! wait: waiting is `tokio::time`, whose clock tests can pause.

use std::fmt::Debug;
use std::time::Duration;

use crate::domain::Timestamp;

/// A source of the current time.
pub trait Clock: Debug + Send + Sync {
    /// Wall time in UTC, cut to whole microseconds as the ledger stores it.
    fn now(&self) -> Timestamp;

    /// Time since boot, counting while the machine is suspended. Only differences carry meaning.
    fn since_boot(&self) -> Duration;

    /// Random bytes for ids, so that seeded runs repeat.
    fn entropy(&self) -> [u8; 10];
}
