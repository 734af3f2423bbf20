//! The window of members that are due soon. Pure: time is an argument.
//!
//! Owns the order: among what is due, removals first, then by power left open, then by time. Never grows past its
//! capacity; what does not fit stays in the ledger and comes with a later page.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::domain::Timestamp;
use crate::domain::member::{Due, DueKind, MemberKey};

/// Members by deadline, at most one entry each.
#[derive(Debug, Default)]
pub struct DueQueue {
    by_time: BTreeSet<(Timestamp, MemberKey)>,
    dues: BTreeMap<MemberKey, Due>,
    /// Those that are due, by kind, in the order in which they go.
    ready: [BTreeSet<Ready>; KINDS.len()],
    /// How many of those are due since when.
    ready_since: BTreeMap<Timestamp, usize>,
}

const KINDS: [DueKind; 4] = [
    DueKind::Remove,
    DueKind::Verify,
    DueKind::Grant,
    DueKind::Look,
];

/// Place in the order among those of a kind that are due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Ready {
    weight: Reverse<u32>,
    at: Timestamp,
    key: MemberKey,
}

impl Ready {
    fn new(key: MemberKey, due: Due) -> Self {
        Self {
            weight: Reverse(due.weight),
            at: due.at,
            key,
        }
    }
}

impl DueQueue {
    /// Members in the window.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dues.len()
    }

    /// Whether nobody is in the window.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dues.is_empty()
    }

    /// Sets when a member is due; replaces an earlier entry.
    pub fn schedule(&mut self, key: MemberKey, due: Due) {
        self.remove(&key);
        self.by_time.insert((due.at, key.clone()));
        self.dues.insert(key, due);
    }

    /// Sets when a member is due unless it is due sooner already ([`Due::or_sooner`]).
    pub fn schedule_sooner(&mut self, key: MemberKey, due: Due, now: Timestamp) {
        let known = self.dues.get(&key).copied();
        if known.is_none_or(|known| known.or_sooner(due, now) != known) {
            self.schedule(key, due);
        }
    }

    /// Like [`Self::schedule_sooner`], holding at most `capacity` members: where there is no room, the least urgent
    /// one gives way, whose due the ledger keeps.
    pub fn schedule_within(&mut self, key: MemberKey, due: Due, now: Timestamp, capacity: usize) {
        if self.dues.len() >= capacity && !self.dues.contains_key(&key) {
            let Some((last, its)) = self.least_urgent() else {
                return;
            };
            let order = |due: Due| (due.kind, Reverse(due.weight), due.at);
            if order(its) <= order(due) {
                return;
            }
            self.remove(&last);
        }
        self.schedule_sooner(key, due, now);
    }

    /// Forgets a member.
    pub fn remove(&mut self, key: &MemberKey) {
        if let Some(due) = self.dues.remove(key)
            && !self.by_time.remove(&(due.at, key.clone()))
        {
            self.unready(&Ready::new(key.clone(), due), due.kind);
        }
    }

    /// Takes the most urgent member that is due at `now`, among the kinds that `admit` lets through.
    pub fn pop_due(
        &mut self,
        now: Timestamp,
        admit: impl Fn(DueKind) -> bool,
    ) -> Option<(MemberKey, Due)> {
        self.pop_admitted(now, |due| admit(due.kind))
    }

    /// Takes the most urgent member that is due at `now` and that `admit` lets through. Of each kind only the most
    /// urgent one is asked about.
    pub fn pop_admitted(
        &mut self,
        now: Timestamp,
        admit: impl Fn(&Due) -> bool,
    ) -> Option<(MemberKey, Due)> {
        self.ripen(now);
        let (kind, chosen) = KINDS.into_iter().find_map(|kind| {
            let first = self.ready[place(kind)].first()?;
            let due = self.dues.get(&first.key)?;
            admit(due).then(|| (kind, first.clone()))
        })?;
        self.unready(&chosen, kind);
        let due = self.dues.remove(&chosen.key)?;
        Some((chosen.key, due))
    }

    /// Removals that are due and wait only for admission.
    #[must_use]
    pub fn ready_removals(&self) -> usize {
        self.ready[place(DueKind::Remove)].len()
    }

    /// When the next member becomes due; those that are due already do not count.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// The earliest deadline among those that are due but not started.
    #[must_use]
    pub fn oldest_ready(&self) -> Option<Timestamp> {
        self.ready_since.first_key_value().map(|(at, _)| *at)
    }

    fn ripen(&mut self, now: Timestamp) {
        while let Some((at, key)) = self.by_time.first().cloned() {
            if at > now {
                break;
            }
            self.by_time.remove(&(at, key.clone()));
            if let Some(due) = self.dues.get(&key) {
                self.ready[place(due.kind)].insert(Ready::new(key, *due));
                *self.ready_since.entry(at).or_default() += 1;
            }
        }
    }

    fn unready(&mut self, entry: &Ready, kind: DueKind) {
        if self.ready[place(kind)].remove(entry)
            && let Some(count) = self.ready_since.get_mut(&entry.at)
        {
            *count -= 1;
            if *count == 0 {
                self.ready_since.remove(&entry.at);
            }
        }
    }

    /// Who goes last: what is not due yet before what is.
    fn least_urgent(&self) -> Option<(MemberKey, Due)> {
        let waiting = || self.by_time.last().map(|(_, key)| key);
        let ready = || {
            KINDS
                .into_iter()
                .rev()
                .find_map(|kind| self.ready[place(kind)].last())
                .map(|ready| &ready.key)
        };
        let key = waiting().or_else(ready)?;
        Some((key.clone(), *self.dues.get(key)?))
    }
}

fn place(kind: DueKind) -> usize {
    match kind {
        DueKind::Remove => 0,
        DueKind::Verify => 1,
        DueKind::Grant => 2,
        DueKind::Look => 3,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::ids::{IntegrationName, UserId};
    use crate::domain::member::Subject;

    fn at(second: i64) -> Timestamp {
        chrono::DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    fn key(name: u32) -> MemberKey {
        MemberKey {
            integration: IntegrationName::parse("main").expect("valid"),
            subject: Subject::Member(UserId::parse(name.to_string()).expect("valid")),
        }
    }

    fn due(second: i64, kind: DueKind, weight: u32) -> Due {
        Due {
            at: at(second),
            kind,
            weight,
        }
    }

    #[test]
    fn rescheduling_replaces_the_old_deadline() {
        let mut queue = DueQueue::default();
        queue.schedule(key(1), due(10, DueKind::Remove, 1));
        queue.schedule(key(1), due(9, DueKind::Remove, 1));
        assert_eq!(
            queue.pop_due(at(9), |_| true),
            Some((key(1), due(9, DueKind::Remove, 1)))
        );
        assert_eq!(queue.pop_due(at(10), |_| true), None);
    }

    #[test]
    fn removals_come_first_then_power_then_age() {
        let mut queue = DueQueue::default();
        queue.schedule(key(1), due(1, DueKind::Grant, 100));
        queue.schedule(key(2), due(3, DueKind::Remove, 20));
        queue.schedule(key(3), due(4, DueKind::Remove, 80));
        queue.schedule(key(4), due(2, DueKind::Remove, 20));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop_due(at(5), |_| true))
            .map(|(key, _)| key)
            .collect();
        assert_eq!(order, [key(3), key(4), key(2), key(1)]);
    }

    #[test]
    fn what_is_not_admitted_stays_ready() {
        let mut queue = DueQueue::default();
        queue.schedule(key(1), due(1, DueKind::Remove, 1));
        queue.schedule(key(2), due(1, DueKind::Verify, 1));
        assert_eq!(
            queue
                .pop_due(at(1), |kind| kind == DueKind::Verify)
                .map(|(key, _)| key),
            Some(key(2))
        );
        assert_eq!(queue.oldest_ready(), Some(at(1)));
        assert_eq!(
            queue.pop_due(at(1), |_| true).map(|(key, _)| key),
            Some(key(1))
        );
    }

    #[test]
    fn how_old_the_oldest_is_ends_with_the_last_of_that_age() {
        let mut queue = DueQueue::default();
        assert_eq!(queue.next_wakeup(), None);
        for name in 1..=3 {
            queue.schedule(key(name), due(7, DueKind::Remove, name));
        }
        queue.schedule(key(4), due(9, DueKind::Remove, 1));
        assert_eq!(queue.next_wakeup(), Some(at(7)));
        assert_eq!(queue.oldest_ready(), None, "nobody is due yet");
        for left in (0..3).rev() {
            assert!(queue.pop_due(at(8), |_| true).is_some());
            assert_eq!(queue.oldest_ready(), (left > 0).then_some(at(7)));
        }
        assert_eq!(queue.next_wakeup(), Some(at(9)));
    }

    #[test]
    fn a_ready_member_can_be_rescheduled_and_forgotten() {
        let mut queue = DueQueue::default();
        queue.schedule(key(1), due(1, DueKind::Remove, 1));
        assert_eq!(queue.pop_due(at(2), |_| false), None);
        queue.schedule(key(1), due(50, DueKind::Look, 1));
        assert_eq!(queue.pop_due(at(2), |_| true), None);
        queue.remove(&key(1));
        assert!(queue.is_empty());
        assert_eq!(queue.pop_due(at(99), |_| true), None);
    }

    #[test]
    fn a_full_window_makes_room_for_the_more_urgent_only() {
        let mut queue = DueQueue::default();
        queue.schedule(key(1), due(1, DueKind::Look, 1));
        queue.schedule(key(2), due(1, DueKind::Remove, 20));
        assert_eq!(queue.pop_due(at(2), |_| false), None);
        queue.schedule_within(key(3), due(2, DueKind::Look, 1), at(2), 2);
        assert_eq!(queue.len(), 2);
        queue.schedule_within(key(4), due(2, DueKind::Remove, 80), at(2), 2);
        queue.schedule_within(key(5), due(2, DueKind::Remove, 10), at(2), 2);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop_due(at(5), |_| true))
            .map(|(key, _)| key)
            .collect();
        assert_eq!(order, [key(4), key(2)]);
    }

    #[test]
    fn a_removal_that_is_due_takes_the_place_of_an_earlier_look() {
        for removal_first in [false, true] {
            let mut queue = DueQueue::default();
            let mut both = [due(1, DueKind::Look, 1), due(4, DueKind::Remove, 20)];
            if removal_first {
                both.reverse();
            }
            for one in both {
                queue.schedule_sooner(key(1), one, at(5));
            }
            assert_eq!(queue.ready_removals(), 0, "nothing has ripened");
            let admitted = queue.pop_due(at(5), |kind| kind == DueKind::Remove);
            assert_eq!(admitted, Some((key(1), due(4, DueKind::Remove, 20))));
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn what_is_not_due_yet_takes_nobodys_place() {
        let mut queue = DueQueue::default();
        queue.schedule_sooner(key(1), due(1, DueKind::Look, 1), at(2));
        queue.schedule_sooner(key(1), due(9, DueKind::Remove, 20), at(2));
        let first = queue.pop_due(at(2), |_| true);
        assert_eq!(first, Some((key(1), due(1, DueKind::Look, 1))));
    }

    #[test]
    fn only_the_most_urgent_of_a_kind_is_asked_about() {
        let mut queue = DueQueue::default();
        queue.schedule(key(1), due(1, DueKind::Remove, 20));
        queue.schedule(key(2), due(1, DueKind::Remove, 80));
        queue.schedule(key(3), due(1, DueKind::Verify, 20));
        let heavy = |due: &Due| due.kind == DueKind::Remove && due.weight > 50;
        assert_eq!(
            queue.pop_admitted(at(2), heavy).map(|(key, _)| key),
            Some(key(2))
        );
        assert_eq!(queue.pop_admitted(at(2), heavy), None);
        assert_eq!(queue.ready_removals(), 1);
        assert_eq!(queue.oldest_ready(), Some(at(1)));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_doubled_or_early(entries in prop::collection::vec((0_u32..20, 0_i64..50, 0_u32..5), 0..60)) {
            let mut queue = DueQueue::default();
            let mut model = BTreeMap::new();
            for (name, second, weight) in entries {
                let entry = due(second, DueKind::Remove, weight);
                queue.schedule(key(name), entry);
                model.insert(key(name), entry);
            }
            for now in 0..50 {
                while let Some((key, entry)) = queue.pop_due(at(now), |_| true) {
                    prop_assert!(entry.at <= at(now));
                    prop_assert_eq!(model.remove(&key), Some(entry));
                }
                prop_assert!(model.values().all(|entry| entry.at > at(now)));
            }
            prop_assert!(model.is_empty() && queue.is_empty());
        }
    }
}
