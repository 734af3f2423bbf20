//! Capped exponential backoff.
//!
//! Owns the arithmetic only: jitter is an argument, so that seeded runs repeat. Never waits and never gives up.

use std::time::Duration;

/// How the wait grows with each failure in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure, before jitter.
    pub initial: Duration,
    /// The longest wait, before jitter; jitter only shortens.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row: doubled each time up to the cap, then shortened by jitter to
    /// between one half and the whole of that. `jitter` is 0 ..= 1; anything else is taken as the nearest bound.
    /// No failure means no wait.
    #[must_use]
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        // 2^63 of anything above a nanosecond is beyond every sensible cap, so the shift is bounded.
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let whole = self.initial.saturating_mul(factor).min(self.cap);
        let jitter = if jitter.is_nan() {
            1.0
        } else {
            jitter.clamp(0.0, 1.0)
        };
        whole.mul_f64(0.5 + jitter / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        initial: Duration::from_secs(1),
        cap: Duration::from_secs(60),
    };

    #[test]
    fn the_wait_doubles_up_to_the_cap() {
        let waits: Vec<u64> = (0..9)
            .map(|failures| BACKOFF.delay(failures, 1.0).as_secs())
            .collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(BACKOFF.delay(u32::MAX, 1.0), BACKOFF.cap);
    }

    #[test]
    fn jitter_keeps_the_wait_between_half_and_whole() {
        assert_eq!(BACKOFF.delay(3, 0.0), Duration::from_secs(2));
        assert_eq!(BACKOFF.delay(3, 0.5), Duration::from_secs(3));
        for absurd in [f64::NAN, f64::INFINITY, -7.0, 9.0] {
            let wait = BACKOFF.delay(3, absurd);
            assert!(wait >= Duration::from_secs(2) && wait <= Duration::from_secs(4));
        }
    }
}
