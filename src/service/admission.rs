//! Whether access can be taken away in time before it is given: the forecast at accept.
//!
//! Owns the memory of what ends when near the ends that are asked about, and the decision by policy. Never holds all
//! grants: the ledger counts them by second, a few minutes at a time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta};

use crate::domain::Timestamp;
use crate::domain::lateness::{Capacity, Endings};
use crate::domain::member::Subject;
use crate::domain::request::GrantRequest;

use super::error::{Result, ServiceError};
use super::{Integration, Service};

/// Seconds counted with one query.
const CHUNK: i64 = 256;
/// How long such a count is used, with what was accepted meanwhile added.
const FRESH: Duration = Duration::from_secs(10);
/// Most counts kept: more than an hour on either side of a few dozen ends.
const MOST_CHUNKS: usize = 1024;
/// How far around an end others are looked at, at least and at most.
const AROUND: (TimeDelta, TimeDelta) = (TimeDelta::minutes(2), TimeDelta::hours(1));

/// What to do with a grant whose removal would be late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLate {
    /// Accept it and say so.
    #[default]
    Accept,
    /// Refuse it and name an end that can be kept.
    Refuse,
}

/// How late a removal may become, and what to do when it would become later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatenessPolicy {
    /// The bound.
    pub bound: TimeDelta,
    /// What to do beyond it.
    pub on_exceeded: OnLate,
}

impl Default for LatenessPolicy {
    fn default() -> Self {
        Self {
            bound: TimeDelta::seconds(60),
            on_exceeded: OnLate::Accept,
        }
    }
}

/// Removals that fall due, as far as they were asked about lately.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    state: Mutex<State>,
    /// Held by whoever counts.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    chunks: BTreeMap<i64, Chunk>,
    /// Accepts on their way to the ledger, by second.
    pending: BTreeMap<i64, u64>,
}

#[derive(Debug)]
struct Chunk {
    counted_at: Duration,
    members: BTreeMap<i64, u64>,
}

/// An end that is forecast and not yet in the ledger; it counts for others from now on.
#[derive(Debug)]
pub(super) struct Reserved<'a> {
    outlook: &'a Outlook,
    second: i64,
    counts: bool,
}

impl Reserved<'_> {
    /// Gives the place back: nothing will end then.
    pub(super) fn forget(mut self) {
        self.counts = false;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut state = self.outlook.lock();
        if let Some(count) = state.pending.get_mut(&self.second) {
            *count -= 1;
            if *count == 0 {
                state.pending.remove(&self.second);
            }
        }
        // Whether it was recorded shows with the next count; until then it counts as if it had been.
        if self.counts
            && let Some(chunk) = state.chunks.get_mut(&self.second.div_euclid(CHUNK))
        {
            *chunk.members.entry(self.second).or_default() += 1;
        }
    }
}

impl Outlook {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stale(&self, chunks: std::ops::RangeInclusive<i64>, since_boot: Duration) -> Vec<i64> {
        let state = self.lock();
        chunks
            .filter(|index| {
                state
                    .chunks
                    .get(index)
                    .is_none_or(|chunk| since_boot.saturating_sub(chunk.counted_at) >= FRESH)
            })
            .collect()
    }

    fn put(&self, index: i64, counted_at: Duration, members: BTreeMap<i64, u64>) {
        let mut state = self.lock();
        if state.chunks.len() >= MOST_CHUNKS {
            state.chunks.clear();
        }
        let chunk = Chunk {
            counted_at,
            members,
        };
        state.chunks.insert(index, chunk);
    }

    /// Everything known from `first` to `last`; what should be over by `now` counts as due now.
    fn endings(&self, first: i64, last: i64, now: Timestamp) -> Endings {
        let state = self.lock();
        let mut endings = Endings::default();
        let chunks = state
            .chunks
            .range(first.div_euclid(CHUNK)..=last.div_euclid(CHUNK));
        let members = chunks.flat_map(|(_, chunk)| &chunk.members);
        for (second, count) in members.chain(&state.pending) {
            if (first..=last).contains(second)
                && let Some(at) = DateTime::from_timestamp(*second, 0)
            {
                endings.add(at.max(now), *count);
            }
        }
        endings
    }

    fn reserve(&self, at: Timestamp) -> Reserved<'_> {
        let second = at.timestamp();
        *self.lock().pending.entry(second).or_default() += 1;
        Reserved {
            outlook: self,
            second,
            counts: true,
        }
    }
}

impl Service {
    /// How late the removal of an end may become, where that is more than the bound.
    ///
    /// # Errors
    /// [`ServiceError::TooLate`] where policy refuses such an end, and failures of the ledger.
    pub(super) async fn forecast<'a>(
        &self,
        integration: &'a Integration,
        end: Option<Timestamp>,
    ) -> Result<(Option<TimeDelta>, Option<Reserved<'a>>)> {
        let (Some(end), Some(rate)) = (end, integration.provider.rate()) else {
            return Ok((None, None));
        };
        let LatenessPolicy { bound, on_exceeded } = self.settings.lateness;
        let window = TimeDelta::from_std(rate.window).unwrap_or(TimeDelta::hours(1));
        let capacity = Capacity {
            removals: rate.removals,
            kept: rate.kept,
            window,
        };
        let around = ((bound + window) * 3).clamp(AROUND.0, AROUND.1);
        let now = self.clock.now();
        let (first, last) = span(end, around, now);
        self.count(integration, first, last).await?;
        let outlook = &integration.outlook;
        let endings = outlook.endings(first.timestamp(), last.timestamp(), now);
        let predicted = endings.lateness_with(end, bound, &capacity);
        if predicted <= bound {
            return Ok((None, Some(outlook.reserve(end))));
        }
        match on_exceeded {
            OnLate::Accept => Ok((Some(predicted), Some(outlook.reserve(end)))),
            OnLate::Refuse => Err(ServiceError::TooLate {
                predicted,
                bound,
                asked: end,
                earliest: endings.earliest(end, bound, &capacity),
            }),
        }
    }

    /// Brings in the counts of a span that are missing or old.
    async fn count(
        &self,
        integration: &Integration,
        first: Timestamp,
        last: Timestamp,
    ) -> Result<()> {
        let outlook = &integration.outlook;
        let index = |at: Timestamp| at.timestamp().div_euclid(CHUNK);
        let span = index(first)..=index(last);
        if outlook
            .stale(span.clone(), self.clock.since_boot())
            .is_empty()
        {
            return Ok(());
        }
        let _turn = outlook.turn.lock().await;
        let counted_at = self.clock.since_boot();
        for chunk in outlook.stale(span, counted_at) {
            let edge = |index: i64| DateTime::from_timestamp(index.saturating_mul(CHUNK), 0);
            let (Some(from), Some(until)) = (edge(chunk), edge(chunk + 1)) else {
                continue;
            };
            let counted = self
                .ledger
                .endings(&integration.name, from, until)
                .await?
                .into_iter()
                .map(|(at, members)| (at.timestamp(), members))
                .collect();
            outlook.put(chunk, counted_at, counted);
        }
        Ok(())
    }

    /// When a grant that is accepted now would have to be removed; `None` while nobody knows when its clock begins.
    pub(super) fn expected_end(
        &self,
        request: &GrantRequest,
        subject: &Subject,
    ) -> Option<Timestamp> {
        if matches!(subject, Subject::Invitee(_)) {
            return None;
        }
        let now = self.clock.now();
        let begins = request.starts_at.map_or(now, |at| at.max(now));
        let ends = begins + request.duration.delta();
        Some(request.not_after.map_or(ends, |hard| hard.min(ends)))
    }
}

/// What is looked at of other ends to judge one: never nothing, also when the clock has just jumped past that end.
fn span(end: Timestamp, around: TimeDelta, now: Timestamp) -> (Timestamp, Timestamp) {
    // Removals that are overdue already lie before any chunk from now on.
    let first = if end - around <= now { now } else { end };
    (first - around, end.max(now) + around)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_judged_by_what_is_around_it_wherever_now_is() {
        let now: Timestamp = "2026-03-02T10:00:00Z".parse().expect("an instant");
        let minutes = TimeDelta::minutes;
        let around = minutes(2);
        let later = now + minutes(60);
        assert_eq!(span(later, around, now), (later - around, later + around));
        let soon = now + minutes(1);
        assert_eq!(span(soon, around, now), (now - around, soon + around));
        let past = now - minutes(60);
        assert_eq!(span(past, around, now), (now - around, now + around));
    }
}
