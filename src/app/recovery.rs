//! The witness and the clock: what makes a restored ledger or a wrong time noticed.
//!
//! Owns wiring both: the comparison before anything is sent, the task that looks after the witness, the readiness of
//! an integration in hold. Never releases a hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::domain::ids::IntegrationName;
use crate::ports::{Clock, Ledger, Witness};
use crate::reconcile::Hold;
use crate::reconcile::hold::settle_at_start;
use crate::runtime::{Readiness, Shutdown, SteadyClock, Tasks};
use crate::witness::FileWitness;

/// How often the witness is looked after.
const EVERY: Duration = Duration::from_secs(10);

/// How often it is looked whether a hold was released.
const LOOK: Duration = Duration::from_millis(500);

pub(super) type Holds = BTreeMap<IntegrationName, Arc<Hold>>;

/// Opens the witness and compares it with the ledger.
pub(super) async fn open(
    config: &Config,
    ledger: &Arc<dyn Ledger>,
    clock: &Arc<dyn Clock>,
    readiness: &Readiness,
    shutdown: &Shutdown,
    tasks: &mut Tasks,
) -> anyhow::Result<Holds> {
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
    tend(&holds, readiness, shutdown, tasks);
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

fn tend(holds: &Holds, readiness: &Readiness, shutdown: &Shutdown, tasks: &mut Tasks) {
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
        let mut every = tokio::time::interval(EVERY);
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = closing.closing() => return Ok(()),
                _ = every.tick() => {
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

/// Time never lies before what the ledger has seen, as long as anything is owed by it.
pub(super) async fn raise(clock: &SteadyClock, ledger: &dyn Ledger) -> anyhow::Result<()> {
    let census = ledger.census(clock.now()).await.context("counting")?;
    if census.grants.is_empty() && census.owned == 0 {
        return Ok(());
    }
    let Some(latest) = ledger
        .latest_instant()
        .await
        .context("reading the ledger")?
    else {
        return Ok(());
    };
    let behind = clock.raise(latest);
    if behind.num_seconds() > 0 {
        tracing::error!(
            seconds = behind.num_seconds(),
            "Wall clock is behind the ledger; ends do not move, time goes on from where the ledger was"
        );
    }
    Ok(())
}
