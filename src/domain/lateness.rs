//! How late removals may become, given when they fall due and how many calls upstream allows. Pure.
//!
//! Owns the forecast. It is the worst that can happen while upstream keeps to its limit: all other calls were made just
//! before the first removal of a stretch fell due, and whoever asks goes last, because the strongest go first. Never
//! looks at a clock and never forecasts what upstream does beyond its limit.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, TimeDelta};

use super::Timestamp;

/// Ends are counted by whole seconds, and a timer and a call take a moment as well.
const SLACK_MS: i64 = 2_000;
/// Candidates looked at for an end that can be kept, at most.
const CANDIDATES: usize = 512;

/// What removals can count on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Removals per window while they wait; at least one.
    pub removals: u32,
    /// Of those, how many find room at once, whatever else goes on.
    pub kept: u32,
    /// The window; at least a millisecond.
    pub window: TimeDelta,
}

/// How many members' removals fall due, by second since 1970. Several ends of a member in one second count once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endings(BTreeMap<i64, u64>);

/// A time in which removals are waiting without a break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    first_ms: i64,
    last_ms: i64,
}

impl Endings {
    /// Adds members whose removal falls due in the second of `at`.
    pub fn add(&mut self, at: Timestamp, members: u64) {
        if members > 0 {
            *self.0.entry(at.timestamp()).or_default() += members;
        }
    }

    /// How late the removals may become that fall due together with one more at `at`: the time from the first of them
    /// to the last call.
    #[must_use]
    pub fn lateness_with(&self, at: Timestamp, capacity: &Capacity) -> TimeDelta {
        let second = at.timestamp();
        let stretch = self.stretch_of(second, capacity);
        TimeDelta::milliseconds(stretch.last_ms - stretch.first_ms + SLACK_MS)
    }

    /// The first end at or after `at`, to the second, that keeps everybody within `bound`. `None` when none was found
    /// near by.
    #[must_use]
    pub fn earliest(
        &self,
        at: Timestamp,
        bound: TimeDelta,
        capacity: &Capacity,
    ) -> Option<Timestamp> {
        let mut second = at.timestamp();
        let mut step = 1;
        for tried in 0..CANDIDATES {
            let candidate = DateTime::from_timestamp(second, 0)?.max(at);
            if self.lateness_with(candidate, capacity) <= bound {
                return Some(candidate);
            }
            // Close by to the second, further away in larger steps.
            if tried >= CANDIDATES / 2 {
                step = 60;
            }
            second += step;
        }
        None
    }

    /// The stretch that a removal falls into that is due in `extra` besides the others.
    fn stretch_of(&self, extra: i64, capacity: &Capacity) -> Stretch {
        let window = capacity.window.num_milliseconds().max(1);
        let removals = u64::from(capacity.removals.max(1));
        let kept = u64::from(capacity.kept).min(removals);
        let before = self.0.range(..extra).map(|(at, count)| (*at, *count));
        let there = self.0.get(&extra).copied().unwrap_or(0) + 1;
        let after = self.0.range(extra + 1..).map(|(at, count)| (*at, *count));
        let mut arrivals = before
            .chain(std::iter::once((extra, there)))
            .chain(after)
            .map(|(second, count)| (second * 1000, count))
            .peekable();
        // Our own calls of the window that has passed, and how many they are.
        let mut own: VecDeque<(i64, u64)> = VecDeque::new();
        let mut spent = 0;
        while let Some((first, mut waiting)) = arrivals.next() {
            let mut now = first;
            loop {
                while let Some((at, count)) = own.front().copied()
                    && at + window <= now
                {
                    own.pop_front();
                    spent -= count;
                }
                // Other calls hold their places for a window at most: while a removal waits, nobody else is let in.
                let places = if now - first >= window {
                    removals
                } else {
                    kept
                };
                let served = waiting.min(places.saturating_sub(spent));
                if served > 0 {
                    own.push_back((now, served));
                    spent += served;
                    waiting -= served;
                }
                if waiting == 0 {
                    break;
                }
                let freed = own.front().map(|(at, _)| at + window);
                let others = (now - first < window).then_some(first + window);
                let next = arrivals.peek().map(|(at, _)| *at);
                now = [freed, others, next]
                    .into_iter()
                    .flatten()
                    .filter(|at| *at > now)
                    .min()
                    .unwrap_or(now + window);
                while let Some((_, count)) = arrivals.next_if(|(at, _)| *at <= now) {
                    waiting += count;
                }
            }
            if now >= extra * 1000 {
                return Stretch {
                    first_ms: first,
                    last_ms: now,
                };
            }
        }
        unreachable!("the extra removal is one of the arrivals")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_A_SECOND: Capacity = Capacity {
        removals: 100,
        kept: 10,
        window: TimeDelta::seconds(10),
    };

    fn at(second: i64) -> Timestamp {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    fn endings(all: &[(i64, u64)]) -> Endings {
        let mut endings = Endings::default();
        for (second, members) in all {
            endings.add(at(*second), *members);
        }
        endings
    }

    fn seconds(of: &Endings, second: i64) -> i64 {
        of.lateness_with(at(second), &TEN_A_SECOND).num_seconds()
    }

    #[test]
    fn a_lone_end_is_only_a_moment_late() {
        assert_eq!(seconds(&endings(&[]), 0), 2);
        assert_eq!(seconds(&endings(&[(-500, 300), (500, 300)]), 0), 2);
    }

    #[test]
    fn what_is_kept_free_goes_at_once_and_the_rest_waits_for_whole_windows() {
        assert_eq!(seconds(&endings(&[(0, 9)]), 0), 2);
        assert_eq!(seconds(&endings(&[(0, 10)]), 0), 12);
        assert_eq!(seconds(&endings(&[(0, 99)]), 0), 12);
        assert_eq!(seconds(&endings(&[(0, 109)]), 0), 12);
        assert_eq!(seconds(&endings(&[(0, 110)]), 0), 22);
    }

    #[test]
    fn neighbouring_seconds_share_the_budget() {
        let storm = endings(&[(0, 300)]);
        assert_eq!(seconds(&storm, 5), seconds(&storm, 0));
        assert_eq!(seconds(&storm, 60), 2);
    }

    #[test]
    fn calls_of_an_earlier_stretch_still_count_against_what_is_kept() {
        assert_eq!(seconds(&endings(&[(0, 10)]), 3), 9, "free again at ten");
        assert_eq!(seconds(&endings(&[(0, 10)]), 10), 2);
    }

    #[test]
    fn the_earliest_end_that_can_be_kept_lies_just_behind_the_storm() {
        let storm = endings(&[(0, 400)]);
        let bound = TimeDelta::seconds(30);
        let found = storm.earliest(at(0), bound, &TEN_A_SECOND).expect("near");
        assert!(found > at(30) && found < at(60), "{found}");
        assert!(storm.lateness_with(found, &TEN_A_SECOND) <= bound);
        assert_eq!(storm.earliest(at(500), bound, &TEN_A_SECOND), Some(at(500)));
        let never = TimeDelta::seconds(1);
        assert_eq!(storm.earliest(at(0), never, &TEN_A_SECOND), None);
    }
}
