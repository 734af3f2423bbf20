//! Time and chance of one run: both follow from the seed and from nothing else.
//!
//! Owns the connector's wall clock, which can jump, and upstream's, which cannot. Never reads a clock of the machine.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use latchkey::domain::Timestamp;
use latchkey::ports::Clock;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

/// Virtual milliseconds since the run began.
pub(crate) type Ms = i64;

pub(crate) const SECOND: Ms = 1_000;
pub(crate) const MINUTE: Ms = 60 * SECOND;

/// The clocks of one run.
#[derive(Debug)]
pub(crate) struct SimClock {
    start: Timestamp,
    epoch: Instant,
    jumped: AtomicI64,
    entropy: Mutex<ChaCha8Rng>,
}

impl SimClock {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            start: DateTime::from_timestamp(1_767_225_600, 0).expect("a constant in range"),
            epoch: Instant::now(),
            jumped: AtomicI64::new(0),
            entropy: Mutex::new(ChaCha8Rng::seed_from_u64(seed ^ 0x5eed)),
        }
    }

    /// Time that has passed, whatever the wall clock says.
    pub(crate) fn elapsed(&self) -> Ms {
        Ms::try_from(self.epoch.elapsed().as_millis()).unwrap_or(Ms::MAX)
    }

    /// Moves the connector's wall clock alone.
    pub(crate) fn jump(&self, by: Ms) {
        self.jumped.fetch_add(by, Ordering::Relaxed);
    }

    /// Upstream's clock.
    pub(crate) fn upstream(&self, at: Ms) -> Timestamp {
        self.start + TimeDelta::milliseconds(at)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let jumped = TimeDelta::milliseconds(self.jumped.load(Ordering::Relaxed));
        self.upstream(self.elapsed()) + jumped
    }

    fn since_boot(&self) -> Duration {
        Duration::from_secs(3600) + self.epoch.elapsed()
    }

    fn entropy(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        self.entropy
            .lock()
            .expect("no code panics while it holds this lock")
            .fill_bytes(&mut bytes);
        bytes
    }
}

/// Sleeps so many virtual milliseconds.
pub(crate) async fn sleep(ms: Ms) {
    tokio::time::sleep(Duration::from_millis(u64::try_from(ms).unwrap_or(0))).await;
}

/// Seeded chance. Every stream of decisions has its own, so that one more decision in one does not change the others.
#[derive(Debug)]
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// True with that probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.0.random_bool(probability.min(1.0))
    }

    /// A number of `from..to`.
    pub(crate) fn range(&mut self, from: i64, to: i64) -> i64 {
        if from >= to {
            return from;
        }
        self.0.random_range(from..to)
    }

    /// An index below `len`.
    pub(crate) fn below(&mut self, len: usize) -> usize {
        self.0.random_range(0..len.max(1))
    }

    /// One of several.
    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}
