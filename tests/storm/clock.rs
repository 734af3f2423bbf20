//! Wall time on top of tokio's paused clock, so that one thing moves both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta};
use latchkey::domain::Timestamp;
use latchkey::ports::Clock;
use tokio::time::Instant;

#[derive(Debug, Clone)]
pub(crate) struct VirtualClock {
    epoch: Timestamp,
    began: Instant,
    drawn: Arc<AtomicU64>,
}

impl VirtualClock {
    /// The first second of 2026, from now on.
    pub(crate) fn new() -> Self {
        Self {
            epoch: DateTime::from_timestamp(1_767_225_600, 0).expect("a constant in range"),
            began: Instant::now(),
            drawn: Arc::default(),
        }
    }

    pub(crate) fn epoch(&self) -> Timestamp {
        self.epoch
    }

    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        self.began + (at - self.epoch).to_std().expect("after the beginning")
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let passed = TimeDelta::from_std(self.began.elapsed()).expect("virtual years are few");
        (self.epoch + passed).trunc_subsecs(6)
    }

    fn since_boot(&self) -> Duration {
        Duration::from_secs(3600) + self.began.elapsed()
    }

    fn entropy(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        let number = self.drawn.fetch_add(1, Ordering::Relaxed) + 1;
        bytes[2..].copy_from_slice(&number.to_be_bytes());
        bytes
    }
}
