//! Shared reads of an organization's members.
//!
//! Owns who shares which read: whoever needs an observation newer than an instant joins the next read, and one
//! read serves everybody who waits. One read is on its way at a time, but for those that outrank it: a read may wait
//! for long until the rate budget has room for its kind, and what a removal needs must not wait behind it. Never lets
//! a caller use a read that started too early for it, and never decides what a read means.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Notify, oneshot};

use super::board::Board;
use crate::domain::event::AuditEvent;
use crate::domain::event::EventKind;
use crate::domain::ids::IntegrationName;
use crate::domain::observation::{Interest, MembersRead};
use crate::ports::ownership::{Standing, Tenure};
use crate::ports::provider::{Priority, ReadError};
use crate::ports::{AccessProvider, Clock, Ledger};

/// How long a read may go on once its claim is asked back or lost. What has been begun under a claim ends before
/// anybody works on the organization again: a few seconds let a pass come to its end, and one line that leads nowhere
/// must not keep everybody else's access open.
const GIVING_BACK: Duration = Duration::from_secs(3);

type Shared = Result<Arc<MembersRead>, ReadError>;

/// Reads members on behalf of many.
#[derive(Debug)]
pub struct Observer {
    integration: IntegrationName,
    provider: Arc<dyn AccessProvider>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    desk: Mutex<Desk>,
    /// A read has ended.
    ended: Notify,
    board: Arc<Board>,
    standing: Option<Arc<Standing>>,
}

#[derive(Debug, Default)]
struct Desk {
    /// Those waiting for the next read to start.
    waiting: Vec<Waiter>,
    /// Ranks of the reads on their way.
    reading: BTreeSet<Priority>,
}

impl Desk {
    /// Takes everybody who waits, and the best rank among them, unless a read that they do not outrank is on its way.
    fn begin(&mut self) -> Option<(Priority, Vec<Waiter>)> {
        let best = self.waiting.iter().map(|waiter| waiter.priority).min()?;
        if self.reading.first().is_some_and(|first| *first <= best) {
            return None;
        }
        self.reading.insert(best);
        Some((best, std::mem::take(&mut self.waiting)))
    }
}

/// One read on its way. Its reader may be dropped at any point.
struct Reading<'a> {
    observer: &'a Observer,
    rank: Priority,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.observer.desk().reading.remove(&self.rank);
        self.observer.ended.notify_waiters();
    }
}

#[derive(Debug)]
struct Waiter {
    interest: Interest,
    priority: Priority,
    answer: oneshot::Sender<Shared>,
}

impl Observer {
    /// An observer of one organization.
    #[must_use]
    pub fn new(
        integration: IntegrationName,
        provider: Arc<dyn AccessProvider>,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            integration,
            provider,
            ledger,
            clock,
            desk: Mutex::default(),
            ended: Notify::new(),
            board: Arc::default(),
            standing: None,
        }
    }

    /// Reads begun under this claim end soon after it does.
    #[must_use]
    pub fn under(mut self, standing: Arc<Standing>) -> Self {
        self.standing = Some(standing);
        self
    }

    /// What the engine of this organization knows of itself.
    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Reads the members of interest with a read that starts after this call. Everybody who asks while another
    /// read is on its way shares the one that follows it, or the one that somebody starts who outranks it.
    ///
    /// # Errors
    /// [`ReadError`] when upstream gave no usable answer; all who shared the read get the same.
    pub async fn observe(&self, interest: Interest, priority: Priority) -> Shared {
        loop {
            let (answer, mut mine) = oneshot::channel();
            self.desk().waiting.push(Waiter {
                interest: interest.clone(),
                priority,
                answer,
            });
            let answered = loop {
                let ended = self.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                match mine.try_recv() {
                    Ok(shared) => break Ok(shared),
                    Err(TryRecvError::Closed) => break Err(()),
                    Err(TryRecvError::Empty) => {}
                }
                // Whoever can start a read reads for all who wait.
                let begun = self.desk().begin();
                if let Some((rank, waiters)) = begun {
                    let reading = Reading {
                        observer: self,
                        rank,
                    };
                    self.read_for_all(rank, waiters).await;
                    drop(reading);
                    continue;
                }
                tokio::select! {
                    biased;
                    answered = &mut mine => break answered.map_err(drop),
                    () = ended => {}
                }
            };
            // The reader's own caller may have gone away in the middle of the read: ask again.
            if let Ok(shared) = answered {
                return shared;
            }
        }
    }

    async fn read_for_all(&self, priority: Priority, waiters: Vec<Waiter>) {
        let mut interest = Interest::default();
        for waiter in &waiters {
            interest.merge(waiter.interest.clone());
        }
        let at = self.clock.now();
        let read = tokio::select! {
            biased;
            read = self.provider.read_members(&interest, priority) => read,
            () = self.given_back() => {
                tracing::info!(integration = %self.integration, "A read of members was given up with the claim");
                let code = "claim_given_back".to_owned();
                answer(waiters, &Err(ReadError::Unavailable { code }));
                return;
            }
        };
        let (result, outcome, evidence) = match read {
            Ok((read, evidence)) => (Ok(Arc::new(read)), "done", evidence),
            Err((error, evidence)) => (Err(error), "refused", evidence),
        };
        let event = EventKind::CallMade {
            outcome: outcome.to_owned(),
            evidence,
        };
        if let Err(error) = self
            .ledger
            .append(vec![AuditEvent::integration(at, &self.integration, event)])
            .await
        {
            tracing::warn!(integration = %self.integration, error = error.code(), "Read of members left no audit event");
        }
        answer(waiters, &result);
    }

    /// Waits until a claim that stands now does not any more, and a little longer. Whoever reads without one, for a
    /// caller of this replica, is not hurried.
    async fn given_back(&self) {
        let Some(mut tenure) = self.standing.as_ref().map(|standing| standing.tenure()) else {
            return std::future::pending().await;
        };
        if *tenure.borrow_and_update() != Tenure::Held {
            return std::future::pending().await;
        }
        // The other end lives as long as this.
        drop(tenure.wait_for(|now| *now != Tenure::Held).await);
        tokio::time::sleep(GIVING_BACK).await;
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

fn answer(waiters: Vec<Waiter>, result: &Shared) {
    for waiter in waiters {
        // A waiter that gave up meanwhile needs no answer.
        drop(waiter.answer.send(result.clone()));
    }
}
