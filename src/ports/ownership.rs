//! Who of several replicas works on which organization.
//!
//! Owns the claim as everybody in this process sees it: its epoch, and until when it may be used by a clock that runs
//! on while the machine sleeps. Never asks anybody: an adapter keeps it up to date.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::domain::Timestamp;
use crate::domain::ids::IntegrationName;

/// What a replica may do for one organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenure {
    /// Somebody else has it, or nobody.
    Not,
    /// This replica has it.
    Held,
    /// This replica has it and is to let go once what it has begun is done: somebody else has less to do.
    Yielding,
}

/// How far a claim reached at some instant. Of what is read from then on, an end at or before `deadline` is moved by
/// nobody but the owner, however often the claim is renewed (`Ledger::commit_beyond`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Which claim.
    pub epoch: u64,
    /// When it ends, since boot.
    pub until: Duration,
    /// When it ends by the clock of the ledger. Renewing it later does not change this.
    pub deadline: Timestamp,
}

/// The claim of this process on one organization.
#[derive(Debug)]
pub struct Standing {
    /// 0 without a claim.
    epoch: AtomicU64,
    /// How far the claim reaches, where the ledger said so, and since boot when the claim before it ended.
    reach: Mutex<(Option<Reach>, Option<Duration>)>,
    /// Milliseconds since boot; `u64::MAX` for a claim that never ends.
    until_ms: AtomicU64,
    wanted: AtomicBool,
    tenure: watch::Sender<Tenure>,
}

impl Standing {
    /// No claim yet.
    #[must_use]
    pub fn none() -> Self {
        Self {
            epoch: AtomicU64::new(0),
            reach: Mutex::default(),
            until_ms: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            tenure: watch::channel(Tenure::Not).0,
        }
    }

    /// The claim of the only process that there can be.
    #[must_use]
    pub fn sole() -> Self {
        let standing = Self::none();
        standing.epoch.store(1, Ordering::SeqCst);
        standing.until_ms.store(u64::MAX, Ordering::SeqCst);
        standing.tenure.send_replace(Tenure::Held);
        standing
    }

    /// Epoch of the claim; 0 without one.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Whether the claim stands at `since_boot` and for `lifetime` beyond it: what is begun now has ended before
    /// anybody else can begin.
    #[must_use]
    pub fn covers(&self, since_boot: Duration, lifetime: Duration) -> bool {
        let until = self.until_ms.load(Ordering::SeqCst);
        until == u64::MAX || u128::from(until) > (since_boot + lifetime).as_millis()
    }

    /// Follows what this replica may do.
    pub fn tenure(&self) -> watch::Receiver<Tenure> {
        self.tenure.subscribe()
    }

    /// Says whether a claim is of use now: what an earlier one began must have ended first.
    pub fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::SeqCst);
    }

    /// Whether a claim is of use now.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// For the adapter: the claim stands until `until` since boot. A later epoch is another claim.
    pub fn hold(&self, epoch: u64, until: Duration) {
        self.stand_until(until);
        self.epoch.store(epoch, Ordering::SeqCst);
        self.tenure.send_if_modified(|tenure| {
            let is_new = *tenure == Tenure::Not;
            if is_new {
                *tenure = Tenure::Held;
            }
            is_new
        });
    }

    /// For the adapter: the claim stands as far as this.
    pub fn hold_to(&self, reach: Reach) {
        self.lock().0 = Some(reach);
        self.hold(reach.epoch, reach.until);
    }

    /// For the adapter: the claim was renewed, and stands as far as this. Nothing comes of it where the claim was lost or
    /// let go meanwhile: whoever has it next does not know of this renewal.
    pub fn renew_to(&self, reach: Reach) {
        self.tenure.send_if_modified(|tenure| {
            if *tenure != Tenure::Not && reach.epoch == self.epoch() {
                self.lock().0 = Some(reach);
                self.stand_until(reach.until);
            }
            false
        });
    }

    fn stand_until(&self, until: Duration) {
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX - 1);
        self.until_ms.store(until, Ordering::SeqCst);
    }

    /// For the adapter: when the claim of whoever had it before ended, or will have ended at the latest.
    pub fn follows(&self, ended: Duration) {
        self.lock().1 = Some(ended);
    }

    /// How far the claim reaches now; `None` without one, and where there is only one process.
    #[must_use]
    pub fn reach(&self) -> Option<Reach> {
        self.lock().0
    }

    /// Since boot, when the claim before this one ended: until then somebody else may have removed what was due.
    #[must_use]
    pub fn earlier_end(&self) -> Option<Duration> {
        self.lock().1
    }

    fn lock(&self) -> MutexGuard<'_, (Option<Reach>, Option<Duration>)> {
        // Set in single steps, so a panic elsewhere cannot leave it half written.
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the adapter: asks for the claim back, in order.
    pub fn ask_back(&self) {
        self.tenure.send_if_modified(|tenure| {
            let is_held = *tenure == Tenure::Held;
            if is_held {
                *tenure = Tenure::Yielding;
            }
            is_held
        });
    }

    /// For the adapter: the claim is over. Its epoch is kept, so that what still runs is refused under its own.
    pub fn lose(&self) {
        self.tenure.send_if_modified(|tenure| {
            self.lock().0 = None;
            self.until_ms.store(0, Ordering::SeqCst);
            let was_held = *tenure != Tenure::Not;
            *tenure = Tenure::Not;
            was_held
        });
    }
}

/// Claims over all replicas.
#[async_trait]
pub trait Ownership: Debug + Send + Sync {
    /// The claim on one organization, kept up to date from now on.
    fn standing(&self, integration: &IntegrationName) -> std::sync::Arc<Standing>;

    /// Lets go of an organization at once, so that another replica need not wait for the claim to run out. Whatever
    /// was begun under it must have ended.
    async fn release(&self, integration: &IntegrationName);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_covers_only_what_ends_before_it_does() {
        let standing = Standing::none();
        let (now, second) = (Duration::from_secs(100), Duration::from_secs(1));
        assert!(!standing.covers(now, Duration::ZERO));
        standing.hold(7, now + second * 5);
        assert!(standing.covers(now, second * 4));
        assert!(!standing.covers(now, second * 5), "nothing may end with it");
        assert!(!standing.covers(now + second * 5, Duration::ZERO));
        standing.lose();
        assert!(!standing.covers(now, Duration::ZERO));
        assert_eq!(
            standing.epoch(),
            7,
            "what still runs is refused under its own epoch"
        );
    }

    #[test]
    fn a_claim_that_is_asked_back_stands_until_it_is_let_go() {
        let standing = Standing::none();
        let tenure = standing.tenure();
        standing.hold(1, Duration::from_secs(5));
        standing.ask_back();
        assert_eq!(*tenure.borrow(), Tenure::Yielding);
        standing.hold(1, Duration::from_secs(6));
        assert_eq!(
            *tenure.borrow(),
            Tenure::Yielding,
            "renewing does not take it back"
        );
        standing.lose();
        standing.ask_back();
        assert_eq!(*tenure.borrow(), Tenure::Not);
    }

    #[test]
    fn a_renewal_that_comes_after_the_claim_was_lost_brings_nothing_back() {
        let standing = Standing::none();
        let reach = |epoch, seconds| Reach {
            epoch,
            until: Duration::from_secs(seconds),
            deadline: Timestamp::default(),
        };
        standing.hold_to(reach(1, 5));
        standing.renew_to(reach(1, 6));
        assert!(standing.covers(Duration::from_secs(5), Duration::ZERO));
        standing.renew_to(reach(2, 9));
        assert_eq!(standing.reach(), Some(reach(1, 6)), "of another claim");
        standing.lose();
        standing.renew_to(reach(1, 7));
        assert!(!standing.covers(Duration::from_secs(5), Duration::ZERO));
        assert_eq!(standing.reach(), None);
        assert_eq!(*standing.tenure().borrow(), Tenure::Not);
    }

    #[test]
    fn the_only_process_may_always() {
        let standing = Standing::sole();
        assert!(standing.covers(Duration::MAX / 4, Duration::MAX / 4));
        assert_eq!(*standing.tenure().borrow(), Tenure::Held);
    }
}
