//! Several replicas on one ledger: who works on which organization.
//!
//! Owns wiring the claims: their task, and each integration's share of them. Never decides who gets what.

use std::sync::Arc;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::adapters;
use crate::config::{Config, LedgerKind};
use crate::domain::ids::IntegrationName;
use crate::ports::audit::AuditStore;
use crate::ports::ownership::Standing;
use crate::ports::{Clock, Ledger, Ownership};
use crate::runtime::{Shutdown, Tasks};
use crate::store::postgres::{Claiming, PostgresOwnership};
use crate::store::{Place, PostgresLedger, SoleOwnership, copy};

/// How many processes there can be on this ledger.
#[derive(Debug)]
pub(super) enum Replicas {
    /// This one alone.
    One,
    /// Any number.
    Several(Box<PostgresLedger>),
}

/// The claims of this process.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    pub(super) ownership: Arc<dyn Ownership>,
    shared: Option<PostgresLedger>,
}

impl Replicas {
    /// The audit of a database, where there is one.
    pub(super) fn audit(&self) -> Option<Arc<dyn AuditStore>> {
        match self {
            Self::One => None,
            Self::Several(ledger) => Some(Arc::new(PostgresLedger::clone(ledger))),
        }
    }

    /// Starts claiming; nothing is claimed before an integration wants it.
    pub(super) fn claim(
        self,
        config: &Config,
        clock: &Arc<dyn Clock>,
        shutdown: &Shutdown,
        tasks: &mut Tasks,
    ) -> anyhow::Result<Claims> {
        let Self::Several(ledger) = self else {
            return Ok(Claims {
                ownership: Arc::new(SoleOwnership),
                shared: None,
            });
        };
        let claiming = claiming(config, clock.as_ref())?;
        tracing::info!(
            replica = claiming.replica,
            "Shares the ledger with other replicas"
        );
        let ownership = PostgresOwnership::new(
            &adapters::postgres_options(&config.ledger),
            claiming,
            Arc::clone(clock),
        )
        .context("setting up claims")?;
        let (closing, handle) = (shutdown.clone(), ownership.clone());
        tasks.attend("claims", async move {
            let stop = CancellationToken::new();
            // Claims are renewed while passes that have begun are finished.
            let work = handle.clone().run(stop.clone());
            tokio::pin!(work);
            tokio::select! {
                () = &mut work => return Err("claiming ended".into()),
                () = closing.closing() => stop.cancel(),
            }
            work.await;
            handle.leave().await;
            Ok(())
        });
        Ok(Claims {
            ownership: Arc::new(ownership),
            shared: Some(*ledger),
        })
    }
}

impl Claims {
    /// The claim on an integration, and the ledger for the writes that it covers.
    pub(super) fn of(
        &self,
        integration: &IntegrationName,
        ledger: &Arc<dyn Ledger>,
    ) -> (Arc<Standing>, Arc<dyn Ledger>) {
        let standing = self.ownership.standing(integration);
        let bound = match &self.shared {
            None => Arc::clone(ledger),
            Some(shared) => Arc::new(shared.bound_to(integration.clone(), Arc::clone(&standing))),
        };
        (standing, bound)
    }

    /// Whether there are other replicas to hear from.
    pub(super) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }
}

/// How this process claims the organizations of its configuration.
pub(super) fn claiming(config: &Config, clock: &dyn Clock) -> anyhow::Result<Claiming> {
    let claim = config.ledger.claim.get();
    for section in &config.integrations {
        anyhow::ensure!(
            section.upstream.mutation_budget.get() * 2 <= claim,
            "integration {}: upstream.mutation_budget is more than half of ledger.claim, so a change could still be under way when another replica takes over: make ledger.claim longer",
            section.name
        );
    }
    Ok(Claiming {
        replica: name(clock),
        claim,
        integrations: config
            .integrations
            .iter()
            .map(|section| section.name.clone())
            .collect(),
    })
}

/// A name unlike that of any other process: the host's, for people, and a random part.
fn name(clock: &dyn Clock) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = Some(host.trim()).filter(|host| !host.is_empty());
    format!(
        "{}-{}",
        host.unwrap_or("replica"),
        hex::encode(&clock.entropy()[..6])
    )
}

/// Brings up the schema of a PostgreSQL ledger, with the rights of whoever runs this. Answers the versions that were
/// applied now.
///
/// # Errors
/// When the ledger is not a database, or it cannot be reached or changed.
pub async fn migrate(config: &Config) -> anyhow::Result<Vec<i64>> {
    anyhow::ensure!(
        config.ledger.kind == LedgerKind::Postgres,
        "only a ledger of kind postgres is migrated by itself: the others do it when they are opened"
    );
    let options = adapters::postgres_options(&config.ledger);
    Ok(crate::store::postgres::migrate(&options).await?)
}

/// Copies the ledger of one configuration to the empty one of another. Answers how many rows of each table.
///
/// # Errors
/// When one of them cannot be opened or is in use, or the target is not empty; then it stays as it was.
pub async fn copy_ledger(from: &Config, to: &Config) -> anyhow::Result<Vec<(&'static str, u64)>> {
    Ok(copy(&place(from)?, &place(to)?).await?)
}

fn place(config: &Config) -> anyhow::Result<Place> {
    Ok(match config.ledger.kind {
        LedgerKind::Sqlite => Place::File(config.ledger.path.clone()),
        LedgerKind::Postgres => Place::Server(Box::new(adapters::postgres_options(&config.ledger))),
        LedgerKind::Memory => anyhow::bail!("a ledger in memory cannot be copied"),
    })
}
