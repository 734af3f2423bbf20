//! From the ledger to one sink, in order.
//!
//! Owns the cursor: it moves only after the sink has acknowledged, and only from where it was read, so that two
//! replicas at most repeat each other. Never gives up, and never looks into an event.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ports::Clock;
use crate::ports::audit::{AuditRecord, AuditSink, AuditStore, Undelivered};
use crate::ports::ownership::Tenure;
use crate::runtime::{Backoff, Shutdown, TaskError};

const LAG: &str = "latchkey_audit_sink_lag";
const DELIVERIES: &str = "latchkey_audit_sink_deliveries_total";

/// How long news is gathered before it is delivered: a request for each event of a pass would only be slower, and the
/// cursor of each costs a commit.
const GATHER: Duration = Duration::from_millis(200);

/// Pauses after what may pass by itself. Cap: a minute, which is how late the audit may be after an outage.
const UNAVAILABLE: Backoff = Backoff {
    initial: Duration::from_secs(1),
    cap: Duration::from_secs(60),
};

/// Pauses after a refusal, which somebody has to cure.
const REFUSED: Backoff = Backoff {
    initial: Duration::from_secs(30),
    cap: Duration::from_secs(600),
};

pub(super) fn describe_metrics() {
    metrics::describe_gauge!(
        LAG,
        "Audit events that a sink has not acknowledged, counted by sequence; 0 on replicas that do not deliver"
    );
    metrics::describe_counter!(
        DELIVERIES,
        "Batches of audit events for a sink, by outcome (delivered, refused, failed)"
    );
}

/// How much goes to a sink at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// The most events.
    pub events: usize,
    /// The most bytes of stored events; a single larger one goes alone.
    pub bytes: usize,
}

/// Delivers the audit of one ledger to one sink.
#[derive(Debug)]
pub struct Delivery {
    name: String,
    sink: Arc<dyn AuditSink>,
    batch: Batch,
    store: Arc<dyn AuditStore>,
    changes: watch::Receiver<u64>,
    tenure: watch::Receiver<Tenure>,
    clock: Arc<dyn Clock>,
    /// Where the cursor stands, as long as nobody else can have moved it.
    cursor: Option<u64>,
}

/// What came of one turn.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Something was delivered; there may be more.
    Delivered,
    /// There is nothing to deliver.
    UpToDate,
    /// Nothing can be delivered now, for the sink's sake or the ledger's.
    Failed {
        code: String,
        problem: String,
        is_refused: bool,
        retry_after: Option<Duration>,
        has_moved: bool,
    },
}

impl Delivery {
    /// A delivery to the sink `name` of what is in `store`; `changes` follows the newest sequence.
    ///
    /// Of several replicas the one with the tenure delivers.
    #[must_use]
    pub fn new(
        name: String,
        (sink, batch): (Arc<dyn AuditSink>, Batch),
        store: Arc<dyn AuditStore>,
        changes: watch::Receiver<u64>,
        tenure: watch::Receiver<Tenure>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            name,
            sink,
            batch,
            store,
            changes,
            tenure,
            clock,
            cursor: None,
        }
    }

    /// Delivers from the moment of `begin` until the process closes; a task for [`crate::runtime::Tasks::attend`], so
    /// that what a drain writes still goes out. What is left is delivered after the next start.
    ///
    /// # Errors
    /// None; the type is that of a task.
    pub async fn run(
        mut self,
        begin: CancellationToken,
        shutdown: Shutdown,
    ) -> Result<(), TaskError> {
        for outcome in ["delivered", "failed", "refused"] {
            self.count(outcome, 0);
        }
        let work = async {
            begin.cancelled().await;
            self.deliver().await
        };
        tokio::select! {
            () = shutdown.closing() => Ok(()),
            never = work => match never {},
        }
    }

    fn count(&self, outcome: &'static str, by: u64) {
        metrics::counter!(DELIVERIES, "sink" => self.name.clone(), "outcome" => outcome)
            .increment(by);
    }

    fn show_lag(&self) {
        if let Some(cursor) = self.cursor {
            self.set_lag(self.changes.borrow().saturating_sub(cursor));
        }
    }

    fn set_lag(&self, lag: u64) {
        // As a gauge, precise up to 2^53.
        metrics::gauge!(LAG, "sink" => self.name.clone()).set(lag as f64);
    }

    async fn deliver(&mut self) -> Infallible {
        let mut failures = 0_u32;
        loop {
            self.until_ours().await;
            match self.turn().await {
                Turn::Delivered => {
                    if failures > 0 {
                        tracing::info!(sink = self.name, "Sink of the audit takes events again");
                    }
                    failures = 0;
                    self.count("delivered", 1);
                }
                Turn::UpToDate => {
                    failures = 0;
                    self.until_news().await;
                }
                Turn::Failed {
                    code,
                    problem,
                    is_refused,
                    retry_after,
                    has_moved,
                } => {
                    self.count(if is_refused { "refused" } else { "failed" }, 1);
                    failures = if has_moved {
                        1
                    } else {
                        failures.saturating_add(1)
                    };
                    let backoff = if is_refused { REFUSED } else { UNAVAILABLE };
                    let pause = backoff.delay(failures, self.jitter());
                    let pause = pause.max(retry_after.unwrap_or_default().min(REFUSED.cap));
                    let lag = self
                        .cursor
                        .map_or(0, |at| self.changes.borrow().saturating_sub(at));
                    tracing::warn!(
                        sink = self.name,
                        code,
                        problem,
                        lag,
                        retry_in = ?pause,
                        "Sink of the audit did not take events; they are kept and delivered later"
                    );
                    self.pause(pause).await;
                }
            }
            self.show_lag();
        }
    }

    /// One batch.
    async fn turn(&mut self) -> Turn {
        // Before reading, so that what comes meanwhile is news.
        let newest = *self.changes.borrow_and_update();
        let cursor = match self.cursor {
            Some(cursor) => cursor,
            None => match self.store.cursor(&self.name).await {
                Ok(cursor) => cursor,
                Err(error) => return ledger(error.code()),
            },
        };
        self.cursor = Some(cursor);
        self.show_lag();
        if newest <= cursor {
            return Turn::UpToDate;
        }
        let mut records = match self.store.records(cursor, self.batch.events.max(1)).await {
            Ok(records) => records,
            Err(error) => return ledger(error.code()),
        };
        shorten(&mut records, self.batch.bytes);
        let Some(last) = records.last().map(|record| record.sequence) else {
            return Turn::UpToDate;
        };
        let outcome = self.sink.deliver(&records).await;
        let arrived = match &outcome {
            Ok(()) => last,
            Err(failed) => failed.acknowledged.min(last),
        };
        let has_moved = arrived > cursor;
        if has_moved {
            // Whatever comes of it, it is read again unless this process alone moved it.
            self.cursor = None;
            match self.store.move_cursor(&self.name, cursor, arrived).await {
                Ok(true) => self.cursor = Some(arrived),
                Ok(false) => tracing::info!(
                    sink = self.name,
                    "Another replica delivered the same events to this sink of the audit"
                ),
                Err(error) => return ledger(error.code()),
            }
        }
        match outcome {
            Ok(()) => Turn::Delivered,
            Err(Undelivered {
                acknowledged: _,
                code,
                problem,
                is_refused,
                retry_after,
            }) => Turn::Failed {
                code,
                problem,
                is_refused,
                retry_after,
                has_moved,
            },
        }
    }

    /// Waits until this replica is the one that delivers.
    async fn until_ours(&mut self) {
        if *self.tenure.borrow_and_update() != Tenure::Not {
            return;
        }
        self.cursor = None;
        self.set_lag(0);
        let ours = |tenure: &Tenure| *tenure != Tenure::Not;
        if self.tenure.wait_for(ours).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits for an event, or for the end of our tenure.
    async fn until_news(&mut self) {
        tokio::select! {
            changed = self.changes.changed() => match changed {
                Ok(()) => tokio::time::sleep(GATHER).await,
                // The ledger is closed, and soon this task is as well.
                Err(_) => std::future::pending().await,
            },
            Ok(()) = self.tenure.changed() => {}
        }
    }

    /// Waits, and shows meanwhile how much there is to deliver.
    async fn pause(&mut self, length: Duration) {
        let over = tokio::time::sleep(length);
        tokio::pin!(over);
        loop {
            self.show_lag();
            tokio::select! {
                () = &mut over => return,
                Ok(()) = self.changes.changed() => {}
            }
        }
    }

    fn jitter(&self) -> f64 {
        let [first, second, ..] = self.clock.entropy();
        f64::from(u16::from_be_bytes([first, second])) / f64::from(u16::MAX)
    }
}

fn ledger(code: &str) -> Turn {
    Turn::Failed {
        code: code.to_owned(),
        problem: "the ledger could not be read or written".to_owned(),
        is_refused: false,
        retry_after: None,
        has_moved: false,
    }
}

/// Leaves as many records as fit, at least one.
fn shorten(records: &mut Vec<AuditRecord>, bytes: usize) {
    let mut sum = 0;
    let fitting = records
        .iter()
        .take_while(|record| {
            sum += record.body.len();
            sum <= bytes
        })
        .count();
    records.truncate(fitting.max(1));
}

#[cfg(test)]
mod tests;
