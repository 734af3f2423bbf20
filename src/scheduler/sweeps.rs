//! Periodic sweeps, driven by cron expressions in UTC.
//!
//! Owns when sweeps run and that none overlaps itself. Each asks the ledger or upstream what is due. Never carries
//! a revocation: a sweep that is lost costs nothing but time until the next one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_cron_scheduler::{
    Job, JobScheduler, JobSchedulerError, SimpleJobCode, SimpleNotificationCode,
    SimpleNotificationStore,
};
use tokio_util::sync::CancellationToken;

use super::ticks::PatientStore;
use crate::ports::Clock;

/// One run of a sweep: what it did, in a few words, or the code of its failure.
pub type Run = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// A named sweep with its schedule.
pub struct Sweep {
    /// Stable name, for logs and metrics.
    pub name: &'static str,
    /// Cron expression with seconds, in UTC.
    pub schedule: String,
    /// Starts one run.
    pub run: Arc<dyn Fn() -> Run + Send + Sync>,
}

impl std::fmt::Debug for Sweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweep")
            .field("name", &self.name)
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}

/// Messages that may wait between the parts of the scheduler, as by its own default.
const CHANNEL: usize = 200;

/// Runs the sweeps until `stop`. `clock` is the wall clock, which the scheduler reads for itself as well.
///
/// # Errors
/// [`JobSchedulerError`] when a schedule cannot be read; configuration checks them before.
pub async fn run(
    sweeps: Vec<Sweep>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<(), JobSchedulerError> {
    let mut scheduler = JobScheduler::new_with_storage_and_code(
        Box::new(PatientStore::new(clock)),
        Box::new(SimpleNotificationStore::default()),
        Box::new(SimpleJobCode::default()),
        Box::new(SimpleNotificationCode::default()),
        CHANNEL,
    )
    .await?;
    for sweep in sweeps {
        scheduler.add(job(sweep)?).await?;
    }
    scheduler.start().await?;
    stop.cancelled().await;
    scheduler.shutdown().await
}

fn job(sweep: Sweep) -> Result<Job, JobSchedulerError> {
    let Sweep {
        name,
        schedule,
        run,
    } = sweep;
    let busy = Arc::new(AtomicBool::new(false));
    Job::new_async(schedule.as_str(), move |_, _| {
        let (run, busy) = (Arc::clone(&run), Arc::clone(&busy));
        Box::pin(async move {
            let Some(_turn) = Turn::take(&busy) else {
                count(name, "overlapped");
                tracing::warn!(
                    sweep = name,
                    "Sweep is still running; this turn is left out"
                );
                return;
            };
            match run().await {
                Ok(done) => {
                    count(name, "done");
                    tracing::debug!(sweep = name, done, "Sweep finished");
                }
                Err(code) => {
                    count(name, "failed");
                    tracing::warn!(
                        sweep = name,
                        code,
                        "Sweep failed; the next turn tries again"
                    );
                }
            }
        })
    })
}

/// Held while a sweep runs.
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(busy: &Arc<AtomicBool>) -> Option<Self> {
        (!busy.swap(true, Ordering::AcqRel)).then(|| Self(Arc::clone(busy)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn count(name: &'static str, outcome: &'static str) {
    metrics::counter!("latchkey_sweeps_total", "sweep" => name, "outcome" => outcome).increment(1);
}

/// Registers help texts.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "latchkey_sweeps_total",
        "Runs of periodic sweeps, by outcome"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;
    use crate::runtime::SystemClock;

    #[test]
    fn a_sweep_that_runs_leaves_out_its_next_turn_and_not_the_one_after() {
        let busy = Arc::new(AtomicBool::new(false));
        let turn = Turn::take(&busy).expect("nobody runs");
        assert!(Turn::take(&busy).is_none());
        drop(turn);
        assert!(Turn::take(&busy).is_some());
    }

    #[tokio::test]
    async fn sweeps_run_by_their_schedule_until_they_are_stopped() {
        let (turns, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counter, told) = (Arc::clone(&turns), Arc::clone(&again));
        let sweep = Sweep {
            name: "test",
            schedule: "* * * * * *".to_owned(),
            run: Arc::new(move || {
                let (counter, told) = (Arc::clone(&counter), Arc::clone(&told));
                Box::pin(async move {
                    counter.fetch_add(1, Ordering::SeqCst);
                    told.notify_one();
                    Ok(String::new())
                })
            }),
        };
        let stop = CancellationToken::new();
        let running = run(vec![sweep], Arc::new(SystemClock), stop.clone());
        let waiting = async {
            for _ in 0..2 {
                tokio::time::timeout(Duration::from_secs(60), again.notified())
                    .await
                    .expect("every second");
            }
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(running, waiting);
        ended.expect("in order");
        assert!(turns.load(Ordering::SeqCst) >= 2);
    }
}
