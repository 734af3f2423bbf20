//! Where the cron scheduler keeps its jobs: it is told of them only when one is about to be due.
//!
//! Owns the wait in between. The scheduler asks twice a second whatever there is to run, which would wake an idle
//! process more often than everything else together. Never decides when a job runs.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_cron_scheduler::job::job_data::{JobAndNextTick, JobStoredData};
use tokio_cron_scheduler::store::{DataStore, InitStore};
use tokio_cron_scheduler::{JobSchedulerError, MetaDataStorage, SimpleMetadataStore};
use uuid::Uuid;

use crate::ports::Clock;

/// The scheduler pauses this long after each question: the answer comes so much before a job is due.
const PAUSE: Duration = Duration::from_millis(450);

/// Longest wait: what a jump of the wall clock costs at most.
const LONGEST: Duration = Duration::from_secs(10);

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, JobSchedulerError>> + Send>>;

/// The simple store, which answers what is to run next only when something is.
pub(super) struct PatientStore {
    inner: SimpleMetadataStore,
    clock: Arc<dyn Clock>,
}

impl PatientStore {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            inner: SimpleMetadataStore::default(),
            clock,
        }
    }
}

/// How long to wait before answering, given the seconds since 1970 at which jobs run next; 0 is never.
fn wait(next_ticks: impl Iterator<Item = u64>, now: DateTime<Utc>) -> Duration {
    let next = next_ticks.filter(|next| *next > 0).min();
    let at = next
        .and_then(|next| i64::try_from(next).ok())
        .and_then(|next| DateTime::from_timestamp(next, 0));
    at.map_or(LONGEST, |at| (at - now).to_std().unwrap_or_default())
        .saturating_sub(PAUSE)
        .min(LONGEST)
}

impl DataStore<JobStoredData> for PatientStore {
    fn get(&mut self, id: Uuid) -> Answer<Option<JobStoredData>> {
        self.inner.get(id)
    }

    fn add_or_update(&mut self, data: JobStoredData) -> Answer<()> {
        self.inner.add_or_update(data)
    }

    fn delete(&mut self, id: Uuid) -> Answer<()> {
        self.inner.delete(id)
    }
}

impl InitStore for PatientStore {
    fn init(&mut self) -> Answer<()> {
        self.inner.init()
    }

    fn inited(&mut self) -> Answer<bool> {
        self.inner.inited()
    }
}

impl MetaDataStorage for PatientStore {
    fn list_next_ticks(&mut self) -> Answer<Vec<JobAndNextTick>> {
        let (listing, clock) = (self.inner.list_next_ticks(), Arc::clone(&self.clock));
        Box::pin(async move {
            let jobs = listing.await?;
            // Nobody else needs the store meanwhile: all jobs are added before the scheduler starts, and what it
            // writes after a run was written in the pause before this question.
            tokio::time::sleep(wait(jobs.iter().map(|job| job.next_tick), clock.now())).await;
            Ok(jobs)
        })
    }

    fn set_next_and_last_tick(
        &mut self,
        id: Uuid,
        next_tick: Option<DateTime<Utc>>,
        last_tick: Option<DateTime<Utc>>,
    ) -> Answer<()> {
        self.inner.set_next_and_last_tick(id, next_tick, last_tick)
    }

    fn time_till_next_job(&mut self) -> Answer<Option<Duration>> {
        self.inner.time_till_next_job()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_comes_just_before_the_next_job_and_at_least_every_ten_seconds() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        let waits = |next: &[u64]| wait(next.iter().copied(), now);
        assert_eq!(waits(&[]), LONGEST - PAUSE);
        assert_eq!(
            waits(&[0, 1_800_000_003, 1_800_000_060]),
            Duration::from_millis(2550)
        );
        assert_eq!(waits(&[1_800_000_060]), LONGEST);
        assert_eq!(waits(&[1_799_999_999, 1_800_000_060]), Duration::ZERO);
    }
}
