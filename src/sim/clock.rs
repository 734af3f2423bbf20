//! The simulator's own clock: the system's, moved by an offset, or standing still.
//!
//! It never decides anything; it only says what time it is in the simulated cloud.

use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};

/// A clock that tests and the control API can move.
#[derive(Debug, Default)]
pub struct SimClock {
    state: Mutex<Mode>,
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    Offset(TimeDelta),
    Frozen(DateTime<Utc>),
}

impl Default for Mode {
    fn default() -> Self {
        Self::Offset(TimeDelta::zero())
    }
}

impl SimClock {
    /// A clock that stands still until it is moved.
    #[must_use]
    pub fn frozen(at: DateTime<Utc>) -> Self {
        Self {
            state: Mutex::new(Mode::Frozen(at)),
        }
    }

    /// The simulated wall time.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        match *self.lock() {
            Mode::Offset(offset) => system_now() + offset,
            Mode::Frozen(at) => at,
        }
    }

    /// Moves the clock, backwards for a negative length.
    pub fn advance(&self, by: TimeDelta) {
        let mut mode = self.lock();
        *mode = match *mode {
            Mode::Offset(offset) => Mode::Offset(offset + by),
            Mode::Frozen(at) => Mode::Frozen(at + by),
        };
    }

    /// Sets the time; a frozen clock stays frozen.
    pub fn set(&self, now: DateTime<Utc>) {
        let mut mode = self.lock();
        *mode = match *mode {
            Mode::Offset(_) => Mode::Offset(now - system_now()),
            Mode::Frozen(_) => Mode::Frozen(now),
        };
    }

    /// Stops the clock where it is, or lets it run on from there.
    pub fn freeze(&self, frozen: bool) {
        let now = self.now();
        *self.lock() = if frozen {
            Mode::Frozen(now)
        } else {
            Mode::Offset(now - system_now())
        };
    }

    /// Whether the clock stands still.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        matches!(*self.lock(), Mode::Frozen(_))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Mode> {
        self.state
            .lock()
            .expect("no code panics while it holds the clock")
    }
}

#[expect(clippy::disallowed_methods, reason = "the simulator's own clock")]
fn system_now() -> DateTime<Utc> {
    Utc::now()
}
