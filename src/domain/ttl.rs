//! How long access may last.
//!
//! Owns the bounds of a duration. Never means "for ever": an endless grant cannot be written down.

use std::fmt;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

/// A bounded length of time in whole seconds: at least one second, at most 366 days. Policy caps it further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Ttl(u32);

/// A duration outside of what a grant can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a duration of {seconds} s is out of range: give at least 1 s and at most {} s (366 days); there are no endless grants",
    Ttl::MAX_SECONDS
)]
pub struct InvalidTtl {
    /// What was asked for, in seconds.
    pub seconds: i64,
}

impl Ttl {
    /// The longest duration that can be written down, in seconds.
    pub const MAX_SECONDS: i64 = 366 * 24 * 3600;

    /// Checks the bounds.
    ///
    /// # Errors
    /// [`InvalidTtl`] for zero, negative and absurd lengths.
    pub fn from_seconds(seconds: i64) -> Result<Self, InvalidTtl> {
        if !(1..=Self::MAX_SECONDS).contains(&seconds) {
            return Err(InvalidTtl { seconds });
        }
        u32::try_from(seconds)
            .map(Self)
            .map_err(|_| InvalidTtl { seconds })
    }

    /// Whole seconds.
    #[must_use]
    pub fn seconds(self) -> i64 {
        i64::from(self.0)
    }

    /// The length as a difference of instants.
    #[must_use]
    pub fn delta(self) -> TimeDelta {
        TimeDelta::seconds(self.seconds())
    }
}

impl TryFrom<i64> for Ttl {
    type Error = InvalidTtl;
    fn try_from(seconds: i64) -> Result<Self, InvalidTtl> {
        Self::from_seconds(seconds)
    }
}

impl From<Ttl> for i64 {
    fn from(ttl: Ttl) -> i64 {
        ttl.seconds()
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, minutes, seconds) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        match (hours, minutes, seconds) {
            (0, 0, s) => write!(f, "{s}s"),
            (0, m, 0) => write!(f, "{m}m"),
            (0, m, s) => write!(f, "{m}m{s}s"),
            (h, 0, 0) => write!(f, "{h}h"),
            (h, m, 0) => write!(f, "{h}h{m}m"),
            (h, m, s) => write!(f, "{h}h{m}m{s}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_negative_and_endless_durations_cannot_be_written_down() {
        for seconds in [0, -1, i64::MIN, Ttl::MAX_SECONDS + 1, i64::MAX] {
            assert_eq!(Ttl::from_seconds(seconds), Err(InvalidTtl { seconds }));
        }
        assert_eq!(Ttl::from_seconds(1).map(Ttl::seconds), Ok(1));
    }

    #[test]
    fn durations_read_as_people_write_them() {
        let text = |seconds| Ttl::from_seconds(seconds).expect("in range").to_string();
        assert_eq!(
            [text(45), text(2700), text(3600), text(5405)],
            ["45s", "45m", "1h", "1h30m5s"]
        );
    }

    #[test]
    fn durations_are_stored_as_seconds_and_read_with_their_bounds() {
        let hour = Ttl::from_seconds(3600).expect("in range");
        assert_eq!(serde_json::to_string(&hour).expect("a number"), "3600");
        assert_eq!(serde_json::from_str::<Ttl>("3600").expect("in range"), hour);
        assert!(serde_json::from_str::<Ttl>("0").is_err());
    }
}
