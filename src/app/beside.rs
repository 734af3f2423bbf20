//! Reading the configured ledger beside a running connector.
//!
//! Owns the choice between the file of a ledger and a database that replicas share. Never writes, and keeps nobody from
//! writing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;

use super::adapters;
use crate::config::{Config, LedgerKind};
use crate::domain::ids::IntegrationName;
use crate::domain::receipt::Receipt;
use crate::ports::Ledger as _;
use crate::ports::audit::{AuditBlock, AuditRecord, AuditStore as _};
use crate::ports::ledger::{
    EventFilter, HoldRecord, Identity, Page, ReceiptCursor, ReceiptFilter, Result, StoredEvent,
};
use crate::store::{Glance, PostgresLedger};

/// Rows read from a database at a time.
const PAGE: usize = 1_000;
/// Connections to a database: what reads, and what the ledger itself keeps open.
const CONNECTIONS: u32 = 2;

/// A ledger that is only read.
pub(super) enum Beside {
    File(Glance),
    Database {
        ledger: Box<PostgresLedger>,
        /// The work behind the ledger; it ends with this value.
        _work: JoinSet<()>,
    },
}

impl Beside {
    /// Opens the configured ledger.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is in the memory of another process.
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        match config.ledger.kind {
            LedgerKind::Memory => {
                bail!("the ledger is in the connector's memory: nothing can be read beside it")
            }
            LedgerKind::Sqlite => {
                let glance = Glance::at(&config.ledger.path).await;
                Ok(Self::File(glance.context("opening the ledger")?))
            }
            LedgerKind::Postgres => {
                let mut options = adapters::postgres_options(&config.ledger);
                options.migrate = false;
                options.max_connections = CONNECTIONS;
                // Whoever asks what is wrong wants to hear it, not to wait for a server that is gone.
                options.wait = Duration::ZERO;
                let (ledger, work) = PostgresLedger::open(options)
                    .await
                    .context("opening the ledger")?;
                let mut running = JoinSet::new();
                running.spawn(work);
                Ok(Self::Database {
                    ledger: Box::new(ledger),
                    _work: running,
                })
            }
        }
    }

    /// Which ledger it is.
    pub(super) async fn identity(&mut self) -> Result<Identity> {
        match self {
            Self::File(glance) => glance.identity().await,
            Self::Database { ledger, .. } => ledger.identity().await,
        }
    }

    /// Integrations in hold.
    pub(super) async fn holds(&mut self) -> Result<Vec<HoldRecord>> {
        match self {
            Self::File(glance) => glance.holds().await,
            Self::Database { ledger, .. } => ledger.holds().await,
        }
    }

    /// Reviews of emergency grants that nobody has closed, by integration.
    pub(super) async fn open_reviews(&mut self) -> Result<Vec<(IntegrationName, u64)>> {
        match self {
            Self::File(glance) => glance.open_reviews().await,
            Self::Database { ledger, .. } => {
                let mut open: BTreeMap<IntegrationName, u64> = BTreeMap::new();
                let mut before = None;
                loop {
                    let page = ledger.reviews(true, before, PAGE).await?;
                    for review in page.items {
                        *open.entry(review.integration).or_default() += 1;
                    }
                    before = page.next;
                    if before.is_none() {
                        return Ok(open.into_iter().collect());
                    }
                }
            }
        }
    }

    /// The next events after a sequence, oldest first; none at the end.
    pub(super) async fn events(&mut self, after: u64) -> Result<Vec<StoredEvent>> {
        match self {
            Self::File(glance) => glance.events(after).await,
            Self::Database { ledger, .. } => {
                ledger.events(&EventFilter::default(), after, PAGE).await
            }
        }
    }

    /// The newest sequence; 0 when there is none.
    pub(super) async fn last_sequence(&mut self) -> Result<u64> {
        match self {
            Self::File(glance) => glance.last_sequence().await,
            Self::Database { ledger, .. } => ledger.last_sequence().await,
        }
    }

    /// The next audit records after a sequence, up to another one, as they are stored; none at the end.
    pub(super) async fn records(&mut self, after: u64, up_to: u64) -> Result<Vec<AuditRecord>> {
        match self {
            Self::File(glance) => glance.records(after, up_to).await,
            Self::Database { ledger, .. } => {
                let mut records = ledger.records(after, PAGE).await?;
                records.retain(|record| record.sequence <= up_to);
                Ok(records)
            }
        }
    }

    /// A block of the audit.
    pub(super) async fn block(&mut self, number: u64) -> Result<Option<AuditBlock>> {
        match self {
            Self::File(glance) => glance.block(number).await,
            Self::Database { ledger, .. } => {
                let found = ledger.blocks(number, 1).await?;
                Ok(found.into_iter().find(|block| block.number == number))
            }
        }
    }

    /// The newest block of the audit.
    pub(super) async fn last_block(&mut self) -> Result<Option<AuditBlock>> {
        match self {
            Self::File(glance) => glance.last_block().await,
            Self::Database { ledger, .. } => ledger.last_block().await,
        }
    }

    /// How far a sink of the audit has acknowledged, and the newest sequence.
    pub(super) async fn cursor(&mut self, sink: &str) -> Result<(u64, u64)> {
        match self {
            Self::File(glance) => glance.cursor(sink).await,
            Self::Database { ledger, .. } => {
                let cursor = ledger.cursor(sink).await?;
                Ok((cursor, ledger.last_sequence().await?))
            }
        }
    }

    /// Receipts, those of the latest ends first, beginning below `before`.
    pub(super) async fn receipts(
        &mut self,
        filter: &ReceiptFilter,
        before: Option<ReceiptCursor>,
    ) -> Result<Page<Receipt, ReceiptCursor>> {
        match self {
            Self::File(glance) => glance.receipts(filter, before).await,
            Self::Database { ledger, .. } => ledger.list_receipts(filter, before, PAGE).await,
        }
    }

    /// Lets go of it.
    pub(super) async fn close(self) {
        match self {
            Self::File(glance) => glance.close().await,
            Self::Database { ledger, .. } => ledger.close().await,
        }
    }
}
