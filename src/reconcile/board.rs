//! What the engine of one organization knows of itself, shared with those who report it.
//!
//! Owns the breaker of repairs and the suspicion against the key. In memory only: what must outlive the process
//! stands in the member records. Never decides about a single member's access.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::domain::ids::UserId;
use crate::domain::member::MemberKey;
use crate::ports::provider::KeyPin;

/// Targets whose removals one key was refused, with no call of it done since, before the key is at fault.
const REFUSED_TARGETS: usize = 2;

/// State of one organization's engine.
#[derive(Debug, Default)]
pub struct Board {
    /// Members whose roles were to be repaired lately.
    repairs: Mutex<BTreeMap<MemberKey, Timestamp>>,
    breaker_open: AtomicBool,
    held: AtomicU64,
    overwritten: AtomicBool,
    refused: Mutex<Refused>,
    /// Whether removals leave neighbours alone, as seen: those on the same target, and those on others.
    exact: Mutex<[Option<bool>; 2]>,
    own: Mutex<Option<UserId>>,
}

#[derive(Debug, Default)]
struct Refused {
    pin: Option<KeyPin>,
    targets: BTreeSet<String>,
}

impl Board {
    /// Whether one more member may be repaired: at most `max` within `window`, and none while the breaker is open.
    pub(super) fn may_repair(
        &self,
        key: &MemberKey,
        now: Timestamp,
        max: u32,
        window: TimeDelta,
    ) -> bool {
        if self.is_breaker_open() {
            return false;
        }
        let mut repairs = lock(&self.repairs);
        repairs.retain(|_, at| *at + window > now);
        repairs.insert(key.clone(), now);
        let fits = repairs.len() <= usize::try_from(max).unwrap_or(usize::MAX);
        if !fits {
            self.breaker_open.store(true, Ordering::Relaxed);
        }
        fits
    }

    /// Opens the breaker: a member is held that another process, or an earlier run, stopped at.
    pub(super) fn open_breaker(&self) {
        self.breaker_open.store(true, Ordering::Relaxed);
    }

    /// Tells how many members are held, as counted. With none left the breaker closes.
    pub(super) fn count_held(&self, members: u64) {
        self.held.store(members, Ordering::Relaxed);
        if members == 0 {
            lock(&self.repairs).clear();
        }
        self.breaker_open.store(members > 0, Ordering::Relaxed);
    }

    /// Whether repairs are stopped until an operator confirms them.
    #[must_use]
    pub fn is_breaker_open(&self) -> bool {
        self.breaker_open.load(Ordering::Relaxed)
    }

    /// Members that wait for an operator, as of the last sweep.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn note_overwritten(&self) {
        self.overwritten.store(true, Ordering::Relaxed);
    }

    /// Whether logins are known to overwrite roles here.
    #[must_use]
    pub fn overwrites_seen(&self) -> bool {
        self.overwritten.load(Ordering::Relaxed)
    }

    /// A removal of one pair was refused for good on this key.
    pub(super) fn note_refused(&self, pin: KeyPin, target: String) {
        let mut refused = lock(&self.refused);
        if refused.pin != Some(pin) {
            *refused = Refused {
                pin: Some(pin),
                targets: BTreeSet::new(),
            };
        }
        if refused.targets.len() < REFUSED_TARGETS {
            refused.targets.insert(target);
        }
    }

    /// A call that changes something was done with this key.
    pub(super) fn note_done(&self) {
        lock(&self.refused).targets.clear();
    }

    /// A removal left a neighbour alone, or took it along, which stays so.
    pub(super) fn note_removal(&self, same_target: bool, spared: bool) {
        let mut exact = lock(&self.exact);
        let known = &mut exact[usize::from(same_target)];
        *known = Some(spared && *known != Some(false));
    }

    /// Whether removals were seen to leave neighbours alone, and never seen to take one along.
    pub(super) fn is_removal_exact(&self, same_target: bool) -> bool {
        lock(&self.exact)[usize::from(same_target)] == Some(true)
    }

    /// The member behind the key: as told now, or else as last known, since a new key mostly belongs to the same one.
    pub(super) fn own_identity(&self, told: Option<UserId>) -> Option<UserId> {
        let mut own = lock(&self.own);
        if told.is_some() {
            own.clone_from(&told);
        }
        own.clone()
    }

    /// Whether everything is refused to the key in use: the integration is at fault, and no single pair.
    #[must_use]
    pub fn is_key_refused(&self, pin: KeyPin) -> bool {
        let refused = lock(&self.refused);
        refused.pin == Some(pin) && refused.targets.len() >= REFUSED_TARGETS
    }
}

/// These values are changed in single steps, so a panic elsewhere cannot leave one half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::IntegrationName;
    use crate::domain::member::Subject;

    #[test]
    fn the_breaker_closes_and_forgets_only_when_nobody_is_held() {
        let board = Board::default();
        let now = Timestamp::from_timestamp(1_800_000_000, 0).expect("in range");
        let may = |name: &str| {
            let key = MemberKey {
                integration: IntegrationName::parse("main").expect("well formed"),
                subject: Subject::parse(name).expect("well formed"),
            };
            board.may_repair(&key, now, 2, TimeDelta::hours(1))
        };
        assert!(may("user:ada") && may("user:ada") && may("user:bob"));
        assert!(!may("user:eve"), "a third member within the window");
        board.count_held(1);
        assert_eq!((board.is_breaker_open(), board.held()), (true, 1));
        assert!(!may("user:ada"));
        board.count_held(0);
        assert_eq!((board.is_breaker_open(), board.held()), (false, 0));
        assert!(may("user:eve") && may("user:ada"));
        assert!(!may("user:bob"));
        board.count_held(0);
        assert!(may("user:cleo") && may("user:dan"), "nobody was held");
    }

    #[test]
    fn a_repair_counts_for_less_than_its_window() {
        let start = Timestamp::from_timestamp(1_800_000_000, 0).expect("in range");
        let hour = TimeDelta::hours(1);
        for (after, fits) in [(hour - TimeDelta::milliseconds(1), false), (hour, true)] {
            let board = Board::default();
            let may = |name: &str, now: Timestamp| {
                let key = MemberKey {
                    integration: IntegrationName::parse("main").expect("well formed"),
                    subject: Subject::parse(name).expect("well formed"),
                };
                board.may_repair(&key, now, 1, hour)
            };
            assert!(may("user:ada", start));
            assert_eq!(may("user:bob", start + after), fits, "{after}");
        }
    }

    #[test]
    fn nothing_is_suspected_before_it_was_seen() {
        let board = Board::default();
        assert!(!board.is_breaker_open() && !board.overwrites_seen());
        board.open_breaker();
        assert!(board.is_breaker_open() && !board.overwrites_seen());
        board.note_overwritten();
        assert!(board.overwrites_seen());
    }

    #[test]
    fn a_key_is_at_fault_from_the_second_target_and_no_more_are_remembered() {
        let board = Board::default();
        let pin = KeyPin(1);
        for (target, at_fault) in [("a", false), ("a", false), ("b", true), ("c", true)] {
            board.note_refused(pin, target.to_owned());
            assert_eq!(board.is_key_refused(pin), at_fault, "{target}");
        }
        assert_eq!(lock(&board.refused).targets.len(), REFUSED_TARGETS);
        assert!(!board.is_key_refused(KeyPin(2)));
    }
}
