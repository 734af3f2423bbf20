//! How late removals may become, given when they fall due and how many calls upstream allows. Pure.
//!
//! Owns the forecast. It is the worst that can happen while upstream keeps to its limit, in whatever order removals go:
//! once one has waited for a window, every other call of that window was a removal. Never looks at a clock and never
//! forecasts what upstream does beyond its limit.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta};

use super::Timestamp;

/// A timer and a call take a moment as well.
const SLACK: TimeDelta = TimeDelta::seconds(2);
/// Candidates looked at for an end that can be kept, at most.
const CANDIDATES: usize = 512;
/// Windows looked ahead, at most; whatever takes longer is said to take that long.
const MOST_WINDOWS: i64 = 10_000;

/// What removals can count on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Removals per window while they wait; at least one.
    pub removals: u32,
    /// How many removals find room at once, whatever else goes on.
    pub kept: u32,
    /// The window; at least a millisecond.
    pub window: TimeDelta,
}

/// How many members' removals fall due, by second since 1970. Several ends of a member in one second count once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endings(BTreeMap<i64, u64>);

/// Sums of what falls due, to count any span at once.
struct Sums(Vec<(i64, u64)>);

impl Sums {
    /// How many fall due from `first` to before `end`.
    fn between(&self, first: i64, end: i64) -> u64 {
        let before = |second: i64| {
            let place = self.0.partition_point(|(at, _)| *at < second);
            place.checked_sub(1).map_or(0, |last| self.0[last].1)
        };
        before(end) - before(first)
    }
}

impl Endings {
    /// Adds members whose removal falls due in the second of `at`.
    pub fn add(&mut self, at: Timestamp, members: u64) {
        if members > 0 {
            *self.0.entry(at.timestamp()).or_default() += members;
        }
    }

    /// How late a removal may become, its own or another, when one more falls due at `at`, given that the others keep
    /// to `bound`.
    #[must_use]
    pub fn lateness_with(&self, at: Timestamp, bound: TimeDelta, capacity: &Capacity) -> TimeDelta {
        let extra = at.timestamp();
        let window_ms = capacity.window.num_milliseconds().max(1);
        // Calls of a window ago were for removals that fell due up to the bound before.
        let reach = seconds_up(window_ms + bound.num_milliseconds()) + 1;
        let sums = self.sums_with(extra);
        let removals = u64::from(capacity.removals.max(1));
        let nearby = sums
            .0
            .iter()
            .map(|(second, _)| *second)
            .filter(|second| (extra - reach..=extra + reach).contains(second));
        let windows = nearby
            .map(|first| {
                // So few that all of them find the room that is kept free.
                if sums.between(first - reach, first + 1) <= u64::from(capacity.kept) {
                    return 0;
                }
                // Waiting that begins here is over when so many windows had room for all that came meanwhile.
                (1..=MOST_WINDOWS)
                    .find(|windows| {
                        let end = first + seconds_up(windows * window_ms) + 1;
                        sums.between(first, end) <= removals * windows.unsigned_abs()
                    })
                    .unwrap_or(MOST_WINDOWS)
            })
            .max()
            .unwrap_or(0);
        TimeDelta::milliseconds(windows * window_ms) + SLACK
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
        for tried in 0..CANDIDATES {
            let candidate = DateTime::from_timestamp(second, 0)?.max(at);
            if self.lateness_with(candidate, bound, capacity) <= bound {
                return Some(candidate);
            }
            // Close by to the second, further away in larger steps.
            second += if tried < CANDIDATES / 2 { 1 } else { 60 };
        }
        None
    }

    fn sums_with(&self, extra: i64) -> Sums {
        let there = self.0.get(&extra).copied().unwrap_or(0);
        let before = self.0.range(..extra).map(|(at, count)| (*at, *count));
        let after = self.0.range(extra + 1..).map(|(at, count)| (*at, *count));
        let mut sums = Vec::with_capacity(self.0.len() + 1);
        let mut sum = 0;
        for (second, count) in before.chain([(extra, there + 1)]).chain(after) {
            sum += count;
            sums.push((second, sum));
        }
        Sums(sums)
    }
}

/// Milliseconds as seconds, rounded up.
fn seconds_up(ms: i64) -> i64 {
    ms.div_euclid(1000) + i64::from(ms.rem_euclid(1000) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_A_SECOND: Capacity = Capacity {
        removals: 100,
        kept: 10,
        window: TimeDelta::seconds(10),
    };
    const MINUTE: TimeDelta = TimeDelta::seconds(60);

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
        of.lateness_with(at(second), MINUTE, &TEN_A_SECOND)
            .num_seconds()
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
        assert_eq!(seconds(&endings(&[(0, 100)]), 0), 22);
        assert_eq!(seconds(&endings(&[(0, 1_000)]), 0), 112);
    }

    #[test]
    fn neighbouring_seconds_share_the_budget_in_both_directions() {
        let storm = endings(&[(0, 300)]);
        assert_eq!(seconds(&storm, 0), 42);
        assert_eq!(seconds(&storm, -5), 32);
        assert_eq!(seconds(&storm, 5), 42);
        assert_eq!(seconds(&storm, 200), 2);
    }

    #[test]
    fn what_may_be_as_late_as_the_bound_counts_for_a_window_more_and_the_second_it_was_rounded_by()
    {
        let full = endings(&[(0, 10)]);
        assert_eq!(seconds(&full, 71), 12);
        assert_eq!(seconds(&full, 72), 2);
    }

    #[test]
    fn a_steady_stream_below_the_limit_waits_for_one_window_at_most() {
        let stream: Vec<(i64, u64)> = (0..600).map(|second| (second, 8)).collect();
        assert_eq!(seconds(&endings(&stream), 300), 12);
        let flood: Vec<(i64, u64)> = (0..600).map(|second| (second, 11)).collect();
        assert!(seconds(&endings(&flood), 300) > 60);
    }

    #[test]
    fn the_earliest_end_that_can_be_kept_lies_just_behind_the_storm() {
        let storm = endings(&[(0, 300)]);
        let bound = TimeDelta::seconds(40);
        let found = storm.earliest(at(0), bound, &TEN_A_SECOND).expect("near");
        assert!(found > at(30) && found < at(120), "{found}");
        assert!(storm.lateness_with(found, bound, &TEN_A_SECOND) <= bound);
        assert_eq!(storm.earliest(at(500), bound, &TEN_A_SECOND), Some(at(500)));
        let never = TimeDelta::seconds(1);
        assert_eq!(storm.earliest(at(0), never, &TEN_A_SECOND), None);
    }

    #[test]
    fn parts_of_a_second_count_as_whole_ones() {
        for (ms, seconds) in [(0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (2_500, 3)] {
            assert_eq!(seconds_up(ms), seconds, "{ms} ms");
        }
    }

    #[test]
    fn nobody_more_leaves_no_trace() {
        let mut endings = endings(&[(0, 3)]);
        let before = endings.clone();
        endings.add(at(7), 0);
        assert_eq!(endings, before);
    }

    #[test]
    fn far_from_a_long_storm_an_end_is_looked_for_in_larger_steps() {
        let near = i64::try_from(CANDIDATES).expect("small") / 2;
        let short: Vec<(i64, u64)> = (0..near + 10).map(|second| (second, 10)).collect();
        let found = endings(&short).earliest(at(0), TimeDelta::seconds(10), &TEN_A_SECOND);
        let past = (found.expect("near") - at(near)).num_seconds();
        assert!(past > 0 && past % 60 == 0, "{past}");
    }
}
