//! Sealing the audit of the configured ledger, and handing it out.
//!
//! Owns wiring the sealer, and what an export consists of. Verifying is not here: it needs
//! neither configuration nor ledger.

use std::sync::Arc;

use anyhow::Context as _;

use super::adapters;
use super::beside::Beside;
use crate::audit::verify::Head;
use crate::audit::{Block, Sealer, export};
use crate::config::Config;
use crate::ports::Ledger;
use crate::ports::audit::AuditStore;

/// The sealer, where a signing key is configured.
pub(super) async fn sealer(
    config: &Config,
    ledger: &dyn Ledger,
    store: Option<Arc<dyn AuditStore>>,
) -> anyhow::Result<Option<Arc<Sealer>>> {
    let section = config.audit.as_ref();
    let key = section.and_then(|section| section.signing_key.as_ref());
    let (Some(key), Some(store)) = (key, store) else {
        return Ok(None);
    };
    let key = adapters::secret(key)?;
    let identity = ledger
        .identity()
        .await
        .context("reading the ledger's identity")?;
    Ok(Some(Arc::new(Sealer::new(store, key, identity.id))))
}

/// What was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditExport {
    /// Blocks written.
    pub blocks: u64,
    /// Records written.
    pub records: u64,
    /// The newest block.
    pub head: Option<Head>,
}

/// Writes every sealed record from a block on, with the blocks, as lines; also while a connector runs.
///
/// # Errors
/// When the ledger cannot be read, a block in it is damaged, or a line cannot be written.
pub async fn export_audit(
    config: &Config,
    from: u64,
    mut put: impl FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<AuditExport> {
    let mut ledger = Beside::open(config).await?;
    let mut done = AuditExport {
        blocks: 0,
        records: 0,
        head: None,
    };
    let mut next = from.max(1);
    let mut last = match next.checked_sub(1).filter(|before| *before > 0) {
        None => 0,
        Some(before) => ledger
            .block(before)
            .await?
            .map(|block| block.last)
            .with_context(|| format!("there is no block {before}"))?,
    };
    while let Some(block) = ledger.block(next).await? {
        while last < block.last {
            let records = ledger.records(last, block.last).await?;
            let Some(newest) = records.last() else { break };
            last = newest.sequence;
            for record in &records {
                put(&export::record(record))?;
            }
            done.records += records.len() as u64;
        }
        put(&export::block(&block))?;
        let read = Block::read(&block.header, &block.leaves, block.signature)
            .with_context(|| format!("block {next} of the ledger is damaged"))?;
        done.blocks += 1;
        done.head = Some(Head {
            number: next,
            hash: read.hash(),
        });
        // A block that lost records still ends where it ends: verifying says which are missing.
        last = last.max(block.last);
        next += 1;
    }
    ledger.close().await;
    Ok(done)
}

/// The newest block of the configured ledger, to be kept elsewhere.
///
/// # Errors
/// When the ledger cannot be read, or its newest block is damaged.
pub async fn audit_head(config: &Config) -> anyhow::Result<Option<Head>> {
    let mut ledger = Beside::open(config).await?;
    let newest = ledger.last_block().await?;
    ledger.close().await;
    newest
        .map(|stored| {
            let block = Block::read(&stored.header, &stored.leaves, stored.signature)
                .context("the newest block of the ledger is damaged")?;
            Ok(Head {
                number: stored.number,
                hash: block.hash(),
            })
        })
        .transpose()
}
