//! When members are reconciled: a window of deadlines, one timer, a floor poll, a watchdog, periodic sweeps.
//!
//! Owns waiting. Never decides about access, never holds the only copy of a deadline (the ledger does), and never
//! hands a revocation to a cron job.

pub mod driver;
pub mod head_start;
pub mod hidden;
pub mod jump;
pub mod queue;
pub mod sweeps;
mod ticks;
pub mod watchdog;

pub use driver::{Driver, Limits, Waker};
pub use head_start::HeadStart;
pub use jump::{JumpWatch, Suspicion};
pub use queue::DueQueue;
