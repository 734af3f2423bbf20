//! Suspicion of time jumps.
//!
//! Owns rule 11: a jump of the wall clock that would end the access of many members at once waits for upstream's
//! `Date` to agree, for a bounded time, and then goes on. Never holds anything itself: while a jump is suspected the
//! clock does not follow it, so nothing becomes due by it.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::Timestamp;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::member::DueKind;
use crate::ports::ledger::LedgerError;
use crate::ports::{Clock, Ledger};
use crate::reconcile::Reconciler;
use crate::runtime::steady::Jump;
use crate::runtime::{Pace, SteadyClock};

const JUMPS: &str = "latchkey_clock_jumps_total";
const BEHIND: &str = "latchkey_clock_behind_seconds";

/// How often the clock is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Seconds between two questions to upstream while a jump is suspected.
const ASK_EVERY: u64 = 5;

/// Members looked at to see how many become due.
const LOOKED_AT: usize = 10_000;

/// Registers help texts.
pub fn describe_metrics() {
    describe_counter!(
        JUMPS,
        "Changes of the wall clock beyond the time that passed, by direction and by what came of them"
    );
    describe_gauge!(
        BEHIND,
        Unit::Seconds,
        "How far the wall clock is behind the time that ends are decided by"
    );
}

/// When a jump is suspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// Members that may become due by a jump without anybody being asked.
    pub members: usize,
    /// How well upstream's clock must agree with the wall clock to vouch for it.
    pub agreement: TimeDelta,
}

/// Watches the clock on behalf of all integrations.
#[derive(Debug)]
pub struct JumpWatch {
    clock: Arc<SteadyClock>,
    ledger: Arc<dyn Ledger>,
    reconcilers: Vec<Arc<Reconciler>>,
    suspicion: Suspicion,
    is_told: bool,
    epoch: Option<Instant>,
}

impl JumpWatch {
    /// A watch over one clock.
    #[must_use]
    pub fn new(
        clock: Arc<SteadyClock>,
        ledger: Arc<dyn Ledger>,
        reconcilers: Vec<Arc<Reconciler>>,
        suspicion: Suspicion,
    ) -> Self {
        Self {
            clock,
            ledger,
            reconcilers,
            suspicion,
            is_told: false,
            epoch: None,
        }
    }

    /// Looks in step with everything else that shares the epoch.
    #[must_use]
    pub fn in_step(mut self, epoch: Option<Instant>) -> Self {
        self.epoch = epoch;
        self
    }

    /// Looks until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut every = Pace::new(self.epoch, EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = every.tick() => self.look().await,
            }
        }
    }

    /// Looks once.
    pub async fn look(&mut self) {
        if let Some(back) = self.clock.setback() {
            tracing::error!(
                seconds = back.num_seconds(),
                "Wall clock was set back; ends do not move, time goes on as before"
            );
            self.note(-back, "set_back", "no end moves later").await;
        }
        let behind = self.clock.behind().to_std().unwrap_or(Duration::ZERO);
        gauge!(BEHIND).set(behind.as_secs_f64());
        if let Some(jump) = self.clock.suspected() {
            self.judge(jump).await;
        } else if let Some(ahead) = self.clock.outlasted() {
            self.is_told = false;
            tracing::error!(
                seconds = ahead.num_seconds(),
                "Wall clock stayed ahead; it is believed, and what is due by it ends now"
            );
            self.note(ahead, "outlasted", "believed after the pause")
                .await;
        } else {
            self.is_told = false;
        }
    }

    async fn judge(&mut self, jump: Jump) {
        let ahead = jump.ahead.num_seconds();
        match self.made_due(jump).await {
            Ok(members) if members <= self.suspicion.members => {
                self.clock.believe();
                self.is_told = false;
                tracing::warn!(
                    seconds = ahead,
                    members,
                    "Wall clock jumped ahead; it is believed, since few are due by it"
                );
                self.note(jump.ahead, "believed", "few members are due by it")
                    .await;
                return;
            }
            Ok(members) if !self.is_told => {
                self.is_told = true;
                tracing::error!(
                    seconds = ahead,
                    members,
                    "Wall clock jumped ahead and would end the access of many; upstream is asked for the time"
                );
                self.note(jump.ahead, "suspected", "held for upstream's clock")
                    .await;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(
                    code = error.code(),
                    "Ledger cannot say what a jump makes due"
                );
            }
        }
        if !jump.lasting.as_secs().is_multiple_of(ASK_EVERY) {
            return;
        }
        for reconciler in &self.reconcilers {
            let Some(skew) = reconciler.measure_skew().await else {
                continue;
            };
            // Measured against the line: a jump that is right shows as a skew of the same size.
            if (skew - jump.ahead).abs() <= self.suspicion.agreement {
                self.clock.believe();
                self.is_told = false;
                tracing::warn!(
                    seconds = ahead,
                    "Upstream's clock agrees with the wall clock; it is believed"
                );
                self.note(jump.ahead, "agreed", "upstream's clock agrees")
                    .await;
                return;
            }
        }
    }

    /// Members whose access would end by the jump alone.
    async fn made_due(&self, jump: Jump) -> Result<usize, LedgerError> {
        let now = self.clock.now();
        let until: Timestamp = now.checked_add_signed(jump.ahead).unwrap_or(now);
        let mut members = 0;
        for reconciler in &self.reconcilers {
            let due = self
                .ledger
                .due(reconciler.integration(), until, LOOKED_AT)
                .await?;
            members += due
                .iter()
                .filter(|member| member.due.at > now && member.due.kind == DueKind::Remove)
                .count();
        }
        Ok(members)
    }

    async fn note(&self, moved: TimeDelta, outcome: &'static str, action: &str) {
        let direction = if moved < TimeDelta::zero() {
            "back"
        } else {
            "forward"
        };
        counter!(JUMPS, "direction" => direction, "outcome" => outcome).increment(1);
        let kind = EventKind::ClockJumped {
            seconds: moved.num_seconds(),
            action: action.to_owned(),
        };
        let event = AuditEvent::connector(self.clock.now(), kind);
        if let Err(error) = self.ledger.append(vec![event]).await {
            tracing::warn!(
                code = error.code(),
                "Change of the clock left no audit event"
            );
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
