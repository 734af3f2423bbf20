//! Clocks: the machine's, and one that tests move by hand.
//!
//! Owns reading the operating system's clocks, in this one place. Never waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta};

use crate::domain::Timestamp;
use crate::ports::Clock;

/// The clocks of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the injected clock that everybody else is told to ask"
        )]
        let now = chrono::Utc::now();
        now.trunc_subsecs(6)
    }

    fn since_boot(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }

    fn entropy(&self) -> [u8; 10] {
        rand::random()
    }
}

/// A clock that stands still until it is moved. Clones share the time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    state: Arc<Mutex<Manual>>,
}

#[derive(Debug)]
struct Manual {
    now: Timestamp,
    boot: Duration,
    drawn: u64,
}

impl ManualClock {
    /// A clock that shows `now`, an hour after boot. Its random bytes count upwards.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self {
            state: Arc::new(Mutex::new(Manual {
                now: now.trunc_subsecs(6),
                boot: Duration::from_secs(3600),
                drawn: 0,
            })),
        }
    }

    /// Lets time pass: wall time and boot time move together. A negative step moves neither.
    pub fn advance(&self, step: TimeDelta) {
        let passed = step.to_std().unwrap_or(Duration::ZERO);
        self.with(|state| {
            state.now += TimeDelta::from_std(passed).unwrap_or(TimeDelta::zero());
            state.boot += passed;
        });
    }

    /// Sets the wall clock alone, as an operator or a time service would: boot time does not follow.
    pub fn jump(&self, step: TimeDelta) {
        self.with(|state| state.now += step);
    }

    /// Sets the wall clock to an instant; boot time does not follow.
    pub fn set(&self, now: Timestamp) {
        self.with(|state| state.now = now.trunc_subsecs(6));
    }

    fn with<T>(&self, change: impl FnOnce(&mut Manual) -> T) -> T {
        // A panic in another test thread leaves plain numbers behind, which are still usable.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for ManualClock {
    /// The first instant of 2026.
    fn default() -> Self {
        Self::at(DateTime::from_timestamp(1_767_225_600, 0).expect("a constant in range"))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.with(|state| state.now)
    }

    fn since_boot(&self) -> Duration {
        self.with(|state| state.boot)
    }

    fn entropy(&self) -> [u8; 10] {
        self.with(|state| {
            state.drawn += 1;
            let mut bytes = [0; 10];
            bytes[2..].copy_from_slice(&state.drawn.to_be_bytes());
            bytes
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_has_whole_microseconds() {
        assert_eq!(SystemClock.now().timestamp_subsec_nanos() % 1000, 0);
    }

    #[test]
    fn boot_time_does_not_run_backwards_and_entropy_differs() {
        let first = SystemClock.since_boot();
        assert!(first > Duration::ZERO);
        assert!(SystemClock.since_boot() >= first);
        assert_ne!(SystemClock.entropy(), SystemClock.entropy());
    }

    #[test]
    fn a_manual_clock_stands_still_until_moved_and_a_jump_leaves_boot_time_alone() {
        let clock = ManualClock::default();
        let (now, boot) = (clock.now(), clock.since_boot());
        assert_eq!(clock.now(), now);
        clock.clone().advance(TimeDelta::seconds(90));
        assert_eq!(clock.now() - now, TimeDelta::seconds(90));
        assert_eq!(clock.since_boot() - boot, Duration::from_secs(90));
        clock.jump(TimeDelta::hours(-2));
        assert_eq!(
            clock.now() - now,
            TimeDelta::seconds(90) - TimeDelta::hours(2)
        );
        assert_eq!(clock.since_boot() - boot, Duration::from_secs(90));
        assert_ne!(clock.entropy(), clock.entropy());
    }
}
