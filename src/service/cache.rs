//! What was looked up a moment ago: members by id and address, deployments, projects.
//!
//! Owns bounded, short-lived memory of reads, and that one read serves all who miss at once. Never proves absence
//! from memory: what is not found is read afresh before anybody is told so.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::ids::UserId;
use crate::domain::request::Principal;
use crate::ports::Clock;
use crate::ports::provider::ReadError;

/// User ids by what callers name members with.
#[derive(Debug)]
pub(super) struct MemberCache {
    ttl: Duration,
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    found: BTreeMap<Principal, (UserId, Duration)>,
    order: VecDeque<Principal>,
}

impl MemberCache {
    pub(super) fn new(ttl: Duration, capacity: usize) -> Self {
        Self {
            ttl,
            capacity,
            inner: Mutex::default(),
        }
    }

    /// The user id found less than the time to live ago.
    pub(super) fn get(&self, who: &Principal, since_boot: Duration) -> Option<UserId> {
        let inner = lock(&self.inner);
        let (user, at) = inner.found.get(who)?;
        (since_boot.saturating_sub(*at) < self.ttl).then(|| user.clone())
    }

    /// Remembers what a complete read that began at `since_boot` showed.
    pub(super) fn put(&self, who: Principal, user: UserId, since_boot: Duration) {
        let mut inner = lock(&self.inner);
        if inner
            .found
            .insert(who.clone(), (user, since_boot))
            .is_none()
        {
            inner.order.push_back(who);
        }
        while inner.found.len() > self.capacity {
            let Some(oldest) = inner.order.pop_front() else {
                break;
            };
            inner.found.remove(&oldest);
        }
    }
}

/// One whole list, as read at one time.
#[derive(Debug)]
pub(super) struct Snapshot<K, V> {
    /// When its read began, since boot.
    started: Duration,
    /// The items in order.
    pub(super) items: BTreeMap<K, V>,
}

/// A list that is read as a whole and shared.
#[derive(Debug)]
pub(super) struct Listing<K, V> {
    current: Mutex<Option<Arc<Snapshot<K, V>>>>,
    failed: Mutex<Option<(Duration, ReadError)>>,
    /// Held by whoever reads.
    turn: tokio::sync::Mutex<()>,
}

impl<K, V> Default for Listing<K, V> {
    fn default() -> Self {
        Self {
            current: Mutex::default(),
            failed: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }
}

impl<K: Ord, V> Listing<K, V> {
    /// The list, read at `not_before` or later. Whoever waits meanwhile shares the read, also when it fails.
    pub(super) async fn at_least<F>(
        &self,
        clock: &dyn Clock,
        not_before: Duration,
        read: impl FnOnce() -> F,
    ) -> Result<Arc<Snapshot<K, V>>, ReadError>
    where
        F: Future<Output = Result<BTreeMap<K, V>, ReadError>>,
    {
        if let Some(fresh) = self.fresh(not_before) {
            return Ok(fresh);
        }
        let waited_from = clock.since_boot();
        let _turn = self.turn.lock().await;
        if let Some(fresh) = self.fresh(not_before) {
            return Ok(fresh);
        }
        if let Some((at, error)) = lock(&self.failed).as_ref()
            && *at > waited_from
        {
            return Err(error.clone());
        }
        let started = clock.since_boot();
        match read().await {
            Ok(items) => {
                let snapshot = Arc::new(Snapshot { started, items });
                *lock(&self.current) = Some(Arc::clone(&snapshot));
                Ok(snapshot)
            }
            Err(error) => {
                *lock(&self.failed) = Some((clock.since_boot(), error.clone()));
                Err(error)
            }
        }
    }

    /// The last list that was read, however old.
    pub(super) fn last(&self) -> Option<Arc<Snapshot<K, V>>> {
        lock(&self.current).clone()
    }

    fn fresh(&self, not_before: Duration) -> Option<Arc<Snapshot<K, V>>> {
        self.last()
            .filter(|snapshot| snapshot.started >= not_before)
    }
}

/// These values are replaced whole, so a panic elsewhere cannot leave one half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Email;

    fn who(n: u32) -> Principal {
        Principal::Email(Email::parse(format!("p{n}@example.com")).expect("valid"))
    }

    #[test]
    fn the_cache_of_members_forgets_with_time_and_never_outgrows_its_capacity() {
        let cache = MemberCache::new(Duration::from_secs(60), 2);
        let user = UserId::parse("1").expect("valid");
        for n in 0..3 {
            cache.put(who(n), user.clone(), Duration::from_secs(10));
        }
        let at = |n, secs| cache.get(&who(n), Duration::from_secs(secs)).is_some();
        assert!(!at(0, 10), "the oldest made room");
        assert!(at(1, 69) && at(2, 69));
        assert!(!at(2, 70), "an old look-up is not used");
    }
}
