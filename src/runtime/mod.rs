//! The process around the core: clocks, supervised tasks, shutdown in two stages, readiness, backoff.
//!
//! Owns how work is started, watched and stopped. Never knows what the work is about.

pub mod backoff;
pub mod clock;
pub mod limits;
pub mod pace;
pub mod readiness;
pub mod shutdown;
pub mod steady;
pub mod tasks;

pub use backoff::Backoff;
pub use clock::{ManualClock, SystemClock};
pub use pace::Pace;
pub use readiness::{Readiness, ReadinessHandle};
pub use shutdown::Shutdown;
pub use steady::SteadyClock;
pub use tasks::{TaskError, TaskFailure, Tasks};
