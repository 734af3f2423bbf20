//! Working on a ledger while no connector does.
//!
//! Owns opening it for one run and, where replicas share it, the claims that keep them out meanwhile. Never takes an
//! organization from a replica that lives.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::last_resort::SweepError;
use super::{adapters, replicas};
use crate::config::{Config, LedgerKind};
use crate::domain::ids::IntegrationName;
use crate::ports::ownership::{Standing, Tenure};
use crate::ports::{Clock, Ledger, Ownership};
use crate::store::postgres::PostgresOwnership;
use crate::store::sqlite::OpenError;
use crate::store::{PostgresLedger, SqliteLedger, SqliteOptions};

/// A ledger that nobody else works on.
pub(super) struct Alone {
    pub(super) ledger: Arc<dyn Ledger>,
    shared: Option<Shared>,
}

/// What keeps replicas out.
struct Shared {
    ledger: PostgresLedger,
    /// None for a run that changes nothing.
    ownership: Option<PostgresOwnership>,
    claim: Duration,
    at: String,
    stop: CancellationToken,
}

impl Alone {
    /// Opens the configured ledger. The second answer is the work behind it, to be polled until [`Self::close`] is done.
    pub(super) async fn open(
        config: &Config,
        clock: &Arc<dyn Clock>,
        changes: bool,
    ) -> Result<(Self, BoxFuture<'static, ()>), SweepError> {
        match config.ledger.kind {
            LedgerKind::Memory => Err(SweepError::NoLedger),
            LedgerKind::Sqlite => file(config).await,
            LedgerKind::Postgres => Ok(database(config, clock, changes).await?),
        }
    }

    /// Waits until every organization is ours; nothing to wait for where the ledger is a file.
    pub(super) async fn take(
        &self,
        organizations: impl Iterator<Item = &IntegrationName>,
    ) -> Result<(), SweepError> {
        let Some(Shared {
            ownership: Some(ownership),
            claim,
            at,
            ..
        }) = &self.shared
        else {
            return Ok(());
        };
        let in_use = || SweepError::InUse { path: at.clone() };
        // A replica that was killed is listed until its claims would have run out.
        let gone = async {
            while !ownership.others().await?.is_empty() {
                tokio::time::sleep(*claim / 5).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(*claim * 2, gone)
            .await
            .map_err(|_| in_use())??;
        for organization in organizations {
            let standing = ownership.standing(organization);
            standing.want(true);
            let mut tenure = standing.tenure();
            tokio::time::timeout(*claim * 2, tenure.wait_for(|now| *now != Tenure::Not))
                .await
                .map_err(|_| in_use())?
                .context("claiming ended")?;
        }
        Ok(())
    }

    /// The claim on an organization, and the ledger for the writes that it covers.
    pub(super) fn of(
        &self,
        organization: &IntegrationName,
    ) -> (Option<Arc<Standing>>, Arc<dyn Ledger>) {
        let Some(Shared {
            ledger,
            ownership: Some(ownership),
            ..
        }) = &self.shared
        else {
            return (None, Arc::clone(&self.ledger));
        };
        let standing = ownership.standing(organization);
        let bound = ledger.bound_to(organization.clone(), Arc::clone(&standing));
        (Some(standing), Arc::new(bound))
    }

    /// Lets others in.
    pub(super) async fn close(self, organizations: impl Iterator<Item = &IntegrationName>) {
        if let Some(shared) = &self.shared {
            shared.stop.cancel();
            if let Some(ownership) = &shared.ownership {
                for organization in organizations {
                    ownership.standing(organization).want(false);
                    ownership.release(organization).await;
                }
                ownership.leave().await;
            }
        }
        self.ledger.close().await;
    }
}

async fn file(config: &Config) -> Result<(Alone, BoxFuture<'static, ()>), SweepError> {
    let path = &config.ledger.path;
    if !path.exists() {
        return Err(SweepError::Other(anyhow::anyhow!(
            "there is no ledger at {}",
            path.display()
        )));
    }
    match SqliteLedger::open(path, SqliteOptions::default()).await {
        Ok((ledger, writer)) => {
            let alone = Alone {
                ledger: Arc::new(ledger),
                shared: None,
            };
            Ok((alone, writer.boxed()))
        }
        Err(OpenError::Locked { path }) => Err(SweepError::InUse {
            path: path.display().to_string(),
        }),
        Err(error) => Err(SweepError::Other(error.into())),
    }
}

async fn database(
    config: &Config,
    clock: &Arc<dyn Clock>,
    changes: bool,
) -> anyhow::Result<(Alone, BoxFuture<'static, ()>)> {
    let options = adapters::postgres_options(&config.ledger);
    let claiming = replicas::claiming(config, clock.as_ref())?;
    let claim = claiming.claim;
    let (ledger, work) = PostgresLedger::open(options.clone())
        .await
        .context("opening the ledger")?;
    let ownership = if changes {
        let made = PostgresOwnership::new(&options, claiming, Arc::clone(clock));
        Some(made.context("setting up claims")?)
    } else {
        None
    };
    let stop = CancellationToken::new();
    let renewing = ownership.clone().map(|claims| claims.run(stop.clone()));
    let alone = Alone {
        ledger: Arc::new(ledger.clone()),
        shared: Some(Shared {
            at: "in the database of ledger.url".to_owned(),
            ledger,
            ownership,
            claim,
            stop,
        }),
    };
    let work = async move {
        tokio::join!(work, futures::future::OptionFuture::from(renewing));
    };
    Ok((alone, work.boxed()))
}
