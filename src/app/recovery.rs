//! The witness and the clock: what makes a restored ledger or a wrong time noticed.
//!
//! Owns wiring both: the comparison before anything is sent, the task that looks after the witness, the readiness of
//! an integration in hold. Never releases a hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::Config;
use crate::domain::Timestamp;
use crate::domain::ids::IntegrationName;
use crate::ports::ledger::Census;
use crate::ports::{Clock, Ledger, Witness};
use crate::reconcile::Hold;
use crate::reconcile::hold::settle_at_start;
use crate::runtime::{Pace, Readiness, Shutdown, SteadyClock, Tasks};
use crate::witness::FileWitness;

/// How often the witness is looked after.
const EVERY: Duration = Duration::from_secs(10);

/// How often it is looked whether a hold was released.
const LOOK: Duration = Duration::from_millis(500);

pub(super) type Holds = BTreeMap<IntegrationName, Arc<Hold>>;

/// What holds are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'p> {
    pub(super) config: &'p Config,
    pub(super) ledger: &'p Arc<dyn Ledger>,
    pub(super) clock: &'p Arc<dyn Clock>,
    pub(super) readiness: &'p Readiness,
    /// The witness is looked after in step with everything else that shares this.
    pub(super) epoch: Option<Instant>,
}

/// Opens the witness and compares it with the ledger.
pub(super) async fn open(
    parts: Parts<'_>,
    shutdown: &Shutdown,
    tasks: &mut Tasks,
) -> anyhow::Result<Holds> {
    let Parts {
        config,
        ledger,
        clock,
        readiness,
        epoch,
    } = parts;
    let witness: Option<Arc<dyn Witness>> = match &config.witness {
        None => {
            tracing::warn!(
                "There is no witness: a ledger that was restored or lost is not noticed"
            );
            None
        }
        Some(section) => {
            let (witness, writer) =
                FileWitness::open(&section.path).context("opening the witness")?;
            let (closing, handle) = (shutdown.clone(), witness.clone());
            tasks.attend("witness", async move {
                tokio::pin!(writer);
                tokio::select! {
                    () = &mut writer => return Err("the writer of the witness ended".into()),
                    () = closing.closing() => {}
                }
                let ((), ()) = tokio::join!(handle.close(), writer);
                Ok(())
            });
            Some(Arc::new(witness))
        }
    };
    let names: Vec<IntegrationName> = config
        .integrations
        .iter()
        .map(|section| section.name.clone())
        .collect();
    let holds = settle_at_start(Arc::clone(ledger), witness, &names, Arc::clone(clock))
        .await
        .context("comparing the ledger with its witness")?;
    tend(&holds, readiness, epoch, shutdown, tasks);
    Ok(holds)
}

/// The same for a run without a connector; the writer of the witness ends when the holds are gone.
pub(super) async fn of_a_sweep(
    config: &Config,
    ledger: &Arc<dyn Ledger>,
    clock: &Arc<dyn Clock>,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<Holds> {
    let witness: Option<Arc<dyn Witness>> = match &config.witness {
        None => None,
        Some(section) => {
            let (witness, writer) =
                FileWitness::open(&section.path).context("opening the witness")?;
            tasks.spawn(writer);
            Some(Arc::new(witness))
        }
    };
    let names: Vec<IntegrationName> = config
        .integrations
        .iter()
        .map(|section| section.name.clone())
        .collect();
    settle_at_start(Arc::clone(ledger), witness, &names, Arc::clone(clock))
        .await
        .context("comparing the ledger with its witness")
}

fn tend(
    holds: &Holds,
    readiness: &Readiness,
    epoch: Option<Instant>,
    shutdown: &Shutdown,
    tasks: &mut Tasks,
) {
    let mut waiting = Vec::new();
    for (name, hold) in holds {
        if let Some(record) = hold.record() {
            let handle = readiness.component(format!("hold of {name}"));
            let codes: Vec<&str> = record.reasons.iter().map(|r| r.code.as_str()).collect();
            handle.set_waiting(format!(
                "{}: nothing is granted until `latchkey hold release`",
                codes.join(", ")
            ));
            waiting.push((Arc::clone(hold), handle));
        }
    }
    let holds: Vec<Arc<Hold>> = holds.values().cloned().collect();
    let closing = shutdown.clone();
    tasks.attend("holds", async move {
        let mut every = Pace::new(epoch, EVERY);
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = closing.closing() => return Ok(()),
                () = every.tick() => {
                    for hold in &holds {
                        hold.tend().await;
                    }
                }
                _ = look.tick(), if !waiting.is_empty() => waiting.retain(|(hold, handle)| {
                    let held = hold.record().is_some();
                    if !held {
                        handle.set_ready();
                    }
                    held
                }),
            }
        }
    });
}

/// What a start has to know of its ledger before anything is sent.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) census: Census,
    latest: Option<Timestamp>,
}

/// Reads it.
pub(super) async fn look(ledger: &dyn Ledger, now: Timestamp) -> anyhow::Result<Found> {
    let (census, latest) = tokio::join!(ledger.census(now), ledger.latest_instant());
    Ok(Found {
        census: census.context("counting what the ledger holds")?,
        latest: latest.context("reading the ledger")?,
    })
}

/// Time never lies before what the ledger has seen, as long as anything is owed by it.
pub(super) fn raise(clock: &SteadyClock, found: &Found) {
    if found.census.grants.is_empty() && found.census.owned == 0 {
        return;
    }
    let Some(latest) = found.latest else { return };
    let behind = clock.raise(latest);
    if behind.num_seconds() > 0 {
        tracing::error!(
            seconds = behind.num_seconds(),
            "Wall clock is behind the ledger; ends do not move, time goes on from where the ledger was"
        );
    }
}
