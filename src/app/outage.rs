//! Removals while the shared ledger is away: the journal, and the task that tells the ledger afterwards.
//!
//! Owns whether that is on, and saying so. Never decides what may be removed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::replicas::Claims;
use crate::config::Config;
use crate::ports::ownership::Standing;
use crate::ports::{Journal, Ledger};
use crate::reconcile::{self, Outage, Reconciler};
use crate::runtime::TaskError;
use crate::witness::FileJournal;

/// How often the ledger is tried while it does not know of everything.
const EVERY: Duration = Duration::from_secs(1);

/// The journal of this replica, where one is configured.
pub(super) struct Journaling {
    journal: Option<Arc<dyn Journal>>,
    claim: Duration,
}

/// Opens the journal; what it holds of an earlier process is told once integrations are at work.
///
/// # Errors
/// When it cannot be used, or belongs to another ledger.
pub(super) async fn open(
    config: &Config,
    claims: &Claims,
    ledger: &dyn Ledger,
) -> anyhow::Result<Journaling> {
    let claim = config.ledger.claim.get();
    let off = Journaling {
        journal: None,
        claim,
    };
    if !claims.is_shared() {
        return Ok(off);
    }
    let Some(place) = config.ledger.journal.clone() else {
        tracing::info!(
            "ledger.journal is not set: while the database is away nothing is removed that it would have to be asked for"
        );
        return Ok(off);
    };
    let identity = ledger.identity().await.context("reading the ledger")?;
    let opened = tokio::task::spawn_blocking(move || FileJournal::open(&place, &identity.id));
    let journal = opened.await.context("opening the journal")??;
    let waiting = journal.waiting().len();
    tracing::info!(
        waiting,
        "While the database is away, access that is known to end is removed for the rest of a claim and noted in the journal"
    );
    Ok(Journaling {
        journal: Some(Arc::new(journal)),
        claim,
    })
}

impl Journaling {
    /// What one integration removes without the ledger, if anything.
    pub(super) fn of(
        &self,
        ledger: &Arc<dyn Ledger>,
        standing: &Arc<Standing>,
    ) -> Option<Arc<Outage>> {
        let outage = Outage::new(
            Arc::clone(self.journal.as_ref()?),
            Arc::clone(ledger),
            Arc::clone(standing),
            Some(reconcile::patience(self.claim)),
        );
        outage.count();
        Some(Arc::new(outage))
    }

    pub(super) fn is_on(&self) -> bool {
        self.journal.is_some()
    }
}

/// Tells the ledger what it does not know yet, whoever owns the organizations by now.
pub(super) async fn tell(
    reconcilers: Vec<Arc<Reconciler>>,
    stop: CancellationToken,
) -> Result<(), TaskError> {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = every.tick() => {}
        }
        for reconciler in &reconcilers {
            let told = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                told = reconciler.tell(None) => told,
            };
            if let Err(error) = told {
                tracing::debug!(
                    code = error.code(),
                    "Ledger cannot be told yet what was sent without it"
                );
                break;
            }
        }
    }
}
