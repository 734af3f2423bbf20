//! The priority rate limiter: removals first, those that leave more open before others, then reads that prove, then
//! additions, then discovery.
//!
//! Owns the waiting for a turn to send. Never starts a task of its own: whoever waits longest wakes the others, so
//! a dropped call cannot leave the rest behind. The rules are in [`core`], which is pure.

pub mod core;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, Notify, oneshot};
use tokio::time::Instant;

use self::core::{Core, Step, Ticket};
pub use self::core::{Feedback, LimiterOptions};
use crate::ports::provider::{Claim, Priority, Rate};

/// A budget shared by every call of one integration.
#[derive(Debug, Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    epoch: Instant,
    state: Mutex<State>,
    /// Held by the one waiter that watches the clock for all.
    watch: Turn<()>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    core: Core,
    waiting: BTreeMap<Ticket, oneshot::Sender<Permit>>,
}

/// Leave to send one request. Dropped without an answer, it only ends being in flight.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    admitted_at: Duration,
    told: bool,
}

impl Permit {
    /// Tells the budget what the answer said.
    pub fn answered(mut self, feedback: Feedback) {
        self.told = true;
        let now = self.shared.epoch.elapsed();
        self.shared.lock().core.answered(now, feedback);
        self.shared.changed.notify_one();
    }

    /// Gives it back: nothing was sent.
    pub fn unsent(mut self) {
        self.told = true;
        self.shared.lock().core.unsent(self.admitted_at);
        self.shared.changed.notify_one();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.told {
            self.shared.lock().core.finished();
        }
    }
}

/// Takes a waiter out of the queue when its call is dropped.
struct Place<'a> {
    shared: &'a Shared,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let sender = {
            let mut state = self.shared.lock();
            state.core.cancel(self.ticket);
            state.waiting.remove(&self.ticket)
        };
        if sender.is_some() {
            // The next in line may be waiting for a shorter time.
            self.shared.changed.notify_one();
        }
    }
}

impl Limiter {
    /// A budget of which nothing is spent.
    #[must_use]
    pub fn new(options: LimiterOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                epoch: Instant::now(),
                state: Mutex::new(State {
                    core: Core::new(options),
                    waiting: BTreeMap::new(),
                }),
                watch: Turn::new(()),
                changed: Notify::new(),
            }),
        }
    }

    /// Requests a second that the budget allows now.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        let state = self.shared.lock();
        let budget = u32::try_from(state.core.budget()).unwrap_or(u32::MAX);
        f64::from(budget) / state.core.window().as_secs_f64()
    }

    /// Waits for a turn. Dropping the future leaves the queue.
    pub async fn acquire(&self, priority: Priority) -> Permit {
        self.acquire_claim(Claim::of(priority)).await
    }

    /// What is known of the budget now.
    #[must_use]
    pub fn rate(&self) -> Rate {
        let now = self.shared.epoch.elapsed();
        self.shared.lock().core.rate(now)
    }

    /// Waits for a turn. Dropping the future leaves the queue.
    pub async fn acquire_claim(&self, claim: Claim) -> Permit {
        let (sender, mut turn) = oneshot::channel();
        let ticket = {
            let mut state = self.shared.lock();
            let ticket = state.core.enqueue_claim(claim);
            state.waiting.insert(ticket, sender);
            ticket
        };
        let _place = Place {
            shared: &self.shared,
            ticket,
        };
        // Whoever watches must learn that somebody with a better claim has come.
        self.shared.changed.notify_one();
        let permit = tokio::select! {
            biased;
            permit = &mut turn => permit,
            _watching = self.shared.watch.lock() => {
                loop {
                    let wait = Shared::admit(&self.shared);
                    tokio::select! {
                        biased;
                        permit = &mut turn => break permit,
                        () = tokio::time::sleep(wait) => {}
                        () = self.shared.changed.notified() => {}
                    }
                }
            }
        };
        permit.expect("the sender stays in the queue until it is used or this call is dropped")
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code panics while it holds this lock")
    }

    /// Admits everybody who may go now; answers how long to wait before asking again.
    fn admit(shared: &Arc<Self>) -> Duration {
        let mut admitted = Vec::new();
        let now = shared.epoch.elapsed();
        let wait = {
            let mut state = shared.lock();
            loop {
                match state.core.poll(now) {
                    Step::Admit(ticket) => admitted.extend(state.waiting.remove(&ticket)),
                    Step::Wait(until) => break until.saturating_sub(now),
                    Step::Idle => break Duration::from_secs(1),
                }
            }
        };
        for sender in admitted {
            // One that gave up in this instant has spent its turn; the permit that comes back ends it.
            drop(sender.send(Permit {
                shared: Arc::clone(shared),
                admitted_at: now,
                told: false,
            }));
        }
        wait
    }
}
