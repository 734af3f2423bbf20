//! Single-flight reads of an organization's members.
//!
//! Owns who shares which read: whoever needs an observation newer than an instant joins the next read, and one
//! read serves everybody who waits. Never lets a caller use a read that started too early for it, and never
//! decides what a read means.

use std::sync::Arc;

use tokio::sync::{Mutex, oneshot};

use super::board::Board;
use crate::domain::event::AuditEvent;
use crate::domain::event::EventKind;
use crate::domain::ids::IntegrationName;
use crate::domain::observation::{Interest, MembersRead};
use crate::ports::provider::{Priority, ReadError};
use crate::ports::{AccessProvider, Clock, Ledger};

type Shared = Result<Arc<MembersRead>, ReadError>;

/// Reads members on behalf of many.
#[derive(Debug)]
pub struct Observer {
    integration: IntegrationName,
    provider: Arc<dyn AccessProvider>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    /// Those waiting for the next read to start.
    waiting: std::sync::Mutex<Vec<Waiter>>,
    /// Held by whoever performs the read.
    turn: Mutex<()>,
    board: Arc<Board>,
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
            waiting: std::sync::Mutex::default(),
            turn: Mutex::new(()),
            board: Arc::default(),
        }
    }

    /// What the engine of this organization knows of itself.
    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Reads the members of interest with a read that starts after this call. Everybody who asks while another
    /// read is on its way shares the one that follows it.
    ///
    /// # Errors
    /// [`ReadError`] when upstream gave no usable answer; all who shared the read get the same.
    pub async fn observe(&self, interest: Interest, priority: Priority) -> Shared {
        loop {
            let (answer, mut mine) = oneshot::channel();
            self.lock_waiting().push(Waiter {
                interest: interest.clone(),
                priority,
                answer,
            });
            let answered = loop {
                tokio::select! {
                    biased;
                    answered = &mut mine => break answered,
                    // Whoever gets the turn reads for all who wait.
                    turn = self.turn.lock() => {
                        self.read_for_all().await;
                        drop(turn);
                    }
                }
            };
            // The reader's own caller may have gone away in the middle of the read: ask again.
            if let Ok(shared) = answered {
                return shared;
            }
        }
    }

    async fn read_for_all(&self) {
        let waiters = std::mem::take(&mut *self.lock_waiting());
        let Some(priority) = waiters.iter().map(|waiter| waiter.priority).min() else {
            return;
        };
        let mut interest = Interest::default();
        for waiter in &waiters {
            interest.merge(waiter.interest.clone());
        }
        let at = self.clock.now();
        let (result, outcome, evidence) =
            match self.provider.read_members(&interest, priority).await {
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
        for waiter in waiters {
            // A waiter that gave up meanwhile needs no answer.
            drop(waiter.answer.send(result.clone()));
        }
    }

    fn lock_waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waiter>> {
        self.waiting
            .lock()
            .expect("no code panics while it holds this lock")
    }
}
