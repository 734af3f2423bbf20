//! Numbers of the ledger and of the keys, as gauges.
//!
//! Owns counting what is there. Never acts on a number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use metrics::{Unit, describe_gauge, gauge};
use tokio::time::Instant;

use crate::domain::Timestamp;
use crate::domain::ids::IntegrationName;
use crate::domain::overdue::class_of;
use crate::ports::ledger::{LateRemovals, Removals};
use crate::ports::{AccessProvider, Clock, Ledger};
use crate::runtime::{Pace, ReadinessHandle, Shutdown, TaskError};
use crate::scheduler::HeadStart;

/// How often to count. Alerts look at minutes.
const EVERY: Duration = Duration::from_secs(10);

/// How often to count a ledger to which nothing was written meanwhile: only time makes something overdue there.
const AT_LEAST_EVERY: TimeDelta = TimeDelta::seconds(30);

const GRANTS: &str = "latchkey_grants";
const OWNED: &str = "latchkey_owned_assignments";
const BLOCKED: &str = "latchkey_blocked_removals";
const OVERDUE: &str = "latchkey_overdue_members";
const OLDEST: &str = "latchkey_oldest_overdue_seconds";
const LATE: &str = "latchkey_overdue_removals";
const KEY_EXPIRES: &str = "latchkey_key_expires_in_seconds";
const KEY_LOADED: &str = "latchkey_key_loaded";
const SKEW: &str = "latchkey_upstream_clock_skew_seconds";
const SEES_OWNERS: &str = "latchkey_key_sees_owners";
const UP: &str = "latchkey_integration_up";
const WRITABLE: &str = "latchkey_ledger_writable";
const REVIEWS: &str = "latchkey_reviews_open";

/// Registers help texts.
pub(super) fn describe_metrics() {
    describe_gauge!(
        GRANTS,
        "Grants that have not ended, by integration and state"
    );
    describe_gauge!(
        OWNED,
        "Assignments that are ours to remove, those awaiting their second look included"
    );
    describe_gauge!(
        BLOCKED,
        "Removals that are refused and retried slowly; each needs a person to look"
    );
    describe_gauge!(OVERDUE, "Members whose removal is due and not sent");
    describe_gauge!(
        OLDEST,
        Unit::Seconds,
        "How long the oldest access that is due to go has been due, until it is seen gone"
    );
    describe_gauge!(
        LATE,
        "Members with access that should have been gone for more than a minute, by the strongest power they still hold"
    );
    describe_gauge!(
        KEY_EXPIRES,
        Unit::Seconds,
        "Time until the key expires, where its expiry is known"
    );
    describe_gauge!(KEY_LOADED, "1 when a key is loaded");
    describe_gauge!(SKEW, Unit::Seconds, "Upstream's clock minus ours");
    describe_gauge!(
        SEES_OWNERS,
        "1 when the last complete read showed organization owners, as an owner's key must"
    );
    describe_gauge!(
        UP,
        "1 unless there is no key, or the last call that says something of it failed"
    );
    describe_gauge!(
        WRITABLE,
        "1 when the ledger could be written at the last look; without that no grant is accepted"
    );
    describe_gauge!(
        REVIEWS,
        "Reviews of emergency grants that nobody has closed; `latchkey review list` names them"
    );
}

/// What is counted.
#[derive(Debug)]
pub(super) struct Census {
    pub(super) providers: Vec<(IntegrationName, Arc<dyn AccessProvider>)>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether grants can be made durable.
    pub(super) ready: ReadinessHandle,
    /// What goes before the first count.
    pub(super) head: HeadStart,
}

impl Census {
    /// Counts until the process stops.
    pub(super) async fn run(
        self,
        epoch: Option<Instant>,
        shutdown: Shutdown,
    ) -> Result<(), TaskError> {
        tokio::select! {
            () = shutdown.closing() => return Ok(()),
            () = self.head.over() => {}
        }
        let mut shown = BTreeMap::new();
        let mut alarm = Alarm::default();
        let mut counted = Counted::default();
        let mut every = Pace::new(epoch, EVERY);
        loop {
            tokio::select! {
                () = shutdown.closing() => return Ok(()),
                () = every.tick() => {
                    self.keys();
                    self.writable().await;
                    let (stamp, now) = (self.stamp(), self.clock.now());
                    if !counted.stands(stamp, now) && self.ledger(&mut shown, &mut alarm).await {
                        counted = Counted(stamp.map(|stamp| (stamp, now)));
                    }
                }
            }
        }
    }

    /// Changes with every write, where that can be told: members and grants have their stamp, everything else an event.
    fn stamp(&self) -> Option<Stamp> {
        let events = *self.ledger.changes().borrow();
        self.ledger.stamp().map(|stamp| (stamp, events))
    }

    /// A ledger that cannot be written accepts nothing: this process should be given no work.
    async fn writable(&self) {
        match self.ledger.check().await {
            Ok(()) => {
                gauge!(WRITABLE).set(1.0);
                self.ready.set_ready();
            }
            Err(error) => {
                gauge!(WRITABLE).set(0.0);
                tracing::error!(
                    code = error.code(),
                    "Ledger cannot be written; grants are refused, revocations go on"
                );
                self.ready.set_waiting(format!(
                    "{}: look at the volume of the ledger",
                    error.code()
                ));
            }
        }
    }

    fn keys(&self) {
        let now = self.clock.now();
        for (name, provider) in &self.providers {
            let status = provider.key_status();
            let label = || name.to_string();
            gauge!(KEY_LOADED, "integration" => label()).set(if status.loaded { 1.0 } else { 0.0 });
            let up = status.loaded && status.last_failure.is_none();
            gauge!(UP, "integration" => label()).set(if up { 1.0 } else { 0.0 });
            if let Some(sees) = status.sees_owners {
                gauge!(SEES_OWNERS, "integration" => label()).set(if sees { 1.0 } else { 0.0 });
            }
            if let Some(expires_at) = status.expires_at {
                gauge!(KEY_EXPIRES, "integration" => label())
                    .set(seconds((expires_at - now).num_milliseconds()));
            }
            if let Some(skew) = status.skew_ms {
                gauge!(SKEW, "integration" => label()).set(seconds(skew));
            }
        }
    }

    /// Whether it could be counted. States without grants are shown as 0 once they were shown at all.
    async fn ledger(&self, shown: &mut BTreeMap<(String, String), ()>, alarm: &mut Alarm) -> bool {
        let now = self.clock.now();
        let census = match self.ledger.census(now).await {
            Ok(census) => census,
            Err(error) => {
                tracing::warn!(code = error.code(), "Ledger cannot be counted");
                return false;
            }
        };
        let mut counts: BTreeMap<(String, String), u64> =
            shown.keys().map(|series| (series.clone(), 0)).collect();
        for (integration, state, count) in census.grants {
            counts.insert((integration.to_string(), state), count);
        }
        for ((integration, state), count) in counts {
            gauge!(GRANTS, "integration" => integration.clone(), "state" => state.clone())
                .set(number(count));
            shown.insert((integration, state), ());
        }
        for (name, _) in &self.providers {
            let of = census.open_reviews.iter().find(|(one, _)| one == name);
            let open = of.map_or(0, |(_, count)| *count);
            gauge!(REVIEWS, "integration" => name.to_string()).set(number(open));
        }
        self.late(&census.late);
        alarm.sound(&census.late, now);
        let mut removals: BTreeMap<IntegrationName, Removals> = census
            .removals
            .into_iter()
            .map(|entry| (entry.integration.clone(), entry))
            .collect();
        for (name, _) in &self.providers {
            // An integration with nothing to remove is shown with zeros.
            removals
                .entry(name.clone())
                .or_insert_with(|| Removals::new(name.clone()));
        }
        for entry in removals.into_values() {
            let label = || entry.integration.to_string();
            gauge!(OWNED, "integration" => label()).set(number(entry.owned));
            gauge!(BLOCKED, "integration" => label()).set(number(entry.blocked));
            gauge!(OVERDUE, "integration" => label()).set(number(entry.overdue));
            let age = entry
                .oldest
                .map_or(0, |at| (now - at).num_milliseconds().max(0));
            gauge!(OLDEST, "integration" => label()).set(seconds(age));
        }
        true
    }

    /// Every integration and class is shown, also with 0: an alert must see the end as well.
    fn late(&self, late: &[LateRemovals]) {
        for (name, _) in &self.providers {
            let of = || late.iter().filter(|one| one.integration == *name);
            for class in CLASSES {
                let members: u64 = of()
                    .filter(|one| class_of(one.weight) == class)
                    .map(|one| one.members)
                    .sum();
                gauge!(LATE, "integration" => name.to_string(), "power" => class)
                    .set(number(members));
            }
        }
    }
}

/// Every class of power, strongest first.
const CLASSES: [&str; 4] = ["critical", "high", "medium", "low"];

type Stamp = (u64, u64);

/// The stamp of the ledger when it was last counted, and when that was.
#[derive(Debug, Clone, Copy, Default)]
struct Counted(Option<(Stamp, Timestamp)>);

impl Counted {
    /// Whether it need not be counted again yet.
    fn stands(self, stamp: Option<Stamp>, now: Timestamp) -> bool {
        match (stamp, self.0) {
            (Some(stamp), Some((counted, at))) => {
                // A clock that was set back does not put it off.
                stamp == counted && at <= now && now < at + AT_LEAST_EVERY
            }
            (None, _) | (_, None) => false,
        }
    }
}

/// Pause between two lines of log that say the same.
const ALARM_EVERY: TimeDelta = TimeDelta::minutes(5);

/// Says in the log that something is overdue: at once when that begins, then at a bounded rate.
#[derive(Debug, Default)]
struct Alarm {
    last: Option<(Timestamp, u64)>,
}

impl Alarm {
    /// Whether a line is due for so many members.
    fn is_due(&mut self, members: u64, now: Timestamp) -> bool {
        if members == 0 {
            self.last = None;
            return false;
        }
        let is_due = self.last.is_none_or(|(at, _)| at + ALARM_EVERY <= now);
        if is_due {
            self.last = Some((now, members));
        }
        is_due
    }

    fn sound(&mut self, late: &[LateRemovals], now: Timestamp) {
        let members: u64 = late.iter().map(|one| one.members).sum();
        let had = self.last;
        if !self.is_due(members, now) {
            if members == 0 && had.is_some() {
                tracing::info!("Nothing is overdue any more");
            }
            return;
        }
        let oldest = late.iter().map(|one| one.oldest).min();
        let strongest = late.iter().map(|one| one.weight).max().unwrap_or(0);
        tracing::error!(
            members,
            power = class_of(strongest),
            oldest_seconds = oldest.map_or(0, |at| (now - at).num_seconds()),
            "Access is overdue: it should be gone and is not; `latchkey overdue` names it"
        );
    }
}

fn seconds(millis: i64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge needs no more than 52 bits of milliseconds"
    )]
    let value = millis as f64 / 1000.0;
    value
}

fn number(count: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge needs no more than 52 bits"
    )]
    let value = count as f64;
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_sounds_at_once_and_then_at_a_bounded_rate() {
        let start = Timestamp::from_timestamp(1_800_000_000, 0).expect("in range");
        let mut alarm = Alarm::default();
        assert!(!alarm.is_due(0, start));
        assert!(alarm.is_due(1, start));
        assert!(!alarm.is_due(50, start + TimeDelta::seconds(10)));
        assert!(alarm.is_due(50, start + ALARM_EVERY));
        assert!(!alarm.is_due(0, start + ALARM_EVERY));
        assert!(alarm.is_due(1, start + ALARM_EVERY));
    }

    #[test]
    fn a_ledger_that_nobody_wrote_to_is_counted_less_often_and_others_each_time() {
        let start = Timestamp::from_timestamp(1_800_000_000, 0).expect("in range");
        let counted = Counted(Some(((7, 3), start)));
        let ten = start + TimeDelta::seconds(10);
        assert!(counted.stands(Some((7, 3)), ten));
        for written in [(8, 3), (7, 4)] {
            assert!(!counted.stands(Some(written), ten), "written to");
        }
        assert!(!counted.stands(Some((7, 3)), start + AT_LEAST_EVERY));
        assert!(!counted.stands(Some((7, 3)), start - TimeDelta::seconds(1)));
        assert!(!counted.stands(None, ten), "others may have written");
        assert!(!Counted::default().stands(Some((7, 3)), ten));
    }

    #[test]
    fn every_class_of_power_has_its_gauge() {
        for weight in [0, 20, 40, 59, 60, 99, 100, 200] {
            assert!(CLASSES.contains(&class_of(weight)), "{weight}");
        }
    }
}
