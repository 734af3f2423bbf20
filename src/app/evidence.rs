//! The evidence of a period, out of the configured ledger.
//!
//! Owns finding the blocks that cover the period, and what goes into the folder. Never seals anything.

use std::path::Path;

use anyhow::Context as _;

use super::beside::Beside;
use super::{VERSION, adapters};
use crate::audit::SigningKey;
use crate::audit::block::Header;
use crate::audit::pack::{Facts, Manifest, PackWriter, ServiceLevel, happened_at};
use crate::config::Config;
use crate::domain::Timestamp;
use crate::ports::audit::AuditRecord;
use crate::ports::ledger::ReceiptFilter;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What the pack says about itself.
    pub manifest: Manifest,
    /// How punctual revocations were.
    pub level: ServiceLevel,
    /// Why it is not signed, where a key is configured and could not be used.
    pub unsigned: Option<String>,
    /// Whether events of the period are not sealed yet, and so are missing.
    pub is_incomplete: bool,
}

/// Writes the evidence of the period from `from` until before `to` into a folder, also while a connector runs.
///
/// # Errors
/// When the ledger cannot be read, the folder is not empty or cannot be written, or nothing of the period is sealed.
pub async fn evidence(
    config: &Config,
    (from, to): (Timestamp, Timestamp),
    made_at: Timestamp,
    folder: &Path,
) -> anyhow::Result<Evidence> {
    let mut ledger = Beside::open(config).await?;
    let within = config.service_level.revocation_within.get().as_millis();
    let facts = Facts {
        ledger: ledger.identity().await?.id,
        from,
        to,
        made_at,
        version: VERSION.to_owned(),
        within_ms: u64::try_from(within).unwrap_or(u64::MAX),
    };
    let mut pack = PackWriter::create(folder, facts)?;
    let last = blocks(&mut ledger, (from, to), &mut pack).await?;
    // What was written up to this instant and is not sealed is of the period, or nearly.
    let rest = ledger.events(last).await?;
    let is_incomplete = rest
        .iter()
        .any(|stored| stored.event.at >= from && stored.event.at < to);
    receipts(&mut ledger, (from, to), &mut pack).await?;
    ledger.close().await;
    let (key, unsigned) = match signing_key(config).await {
        Ok(key) => (key, None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let (manifest, level) = pack.end(key.as_ref())?;
    Ok(Evidence {
        manifest,
        level,
        unsigned,
        is_incomplete,
    })
}

async fn signing_key(config: &Config) -> anyhow::Result<Option<SigningKey>> {
    let Some(section) = config
        .audit
        .as_ref()
        .and_then(|audit| audit.signing_key.as_ref())
    else {
        return Ok(None);
    };
    let text = adapters::secret(section)?.fetch().await?;
    Ok(Some(SigningKey::parse(&text)?))
}

/// Writes the blocks that hold events of the period. Answers the highest sequence that is sealed at all.
async fn blocks(
    ledger: &mut Beside,
    (from, to): (Timestamp, Timestamp),
    pack: &mut PackWriter,
) -> anyhow::Result<u64> {
    let Some(newest) = ledger.last_block().await? else {
        return Ok(0);
    };
    // An event is sealed after it happened, and blocks rise in time: the first one sealed in the period or later.
    let (mut number, mut beyond) = (1, newest.number + 1);
    while number < beyond {
        let middle = number + (beyond - number) / 2;
        let block = ledger.block(middle).await?;
        let block = block.with_context(|| format!("there is no block {middle}"))?;
        let header = Header::parse(&block.header)
            .with_context(|| format!("block {middle} of the ledger is damaged"))?;
        if header.sealed_at >= from {
            beyond = middle;
        } else {
            number = middle + 1;
        }
    }
    let mut last = match number.checked_sub(1).filter(|before| *before > 0) {
        None => 0,
        Some(before) => ledger.block(before).await?.map_or(0, |block| block.last),
    };
    while let Some(block) = ledger.block(number).await? {
        let header = Header::parse(&block.header)
            .with_context(|| format!("block {number} of the ledger is damaged"))?;
        let mut records = Vec::new();
        while last < block.last {
            let next = ledger.records(last, block.last).await?;
            let Some(newest) = next.last() else { break };
            last = newest.sequence;
            records.extend(next);
        }
        last = last.max(block.last);
        // One block beyond the period at most is looked at; it goes along when it still holds something.
        let is_later = header.sealed_at >= to;
        if is_later && !records.iter().any(|record| happened_in(record, from, to)) {
            break;
        }
        for record in &records {
            pack.record(record)?;
        }
        pack.block(&block)?;
        number += 1;
    }
    Ok(newest.last)
}

fn happened_in(record: &AuditRecord, from: Timestamp, to: Timestamp) -> bool {
    happened_at(record).is_some_and(|at| at >= from && at < to)
}

async fn receipts(
    ledger: &mut Beside,
    (from, to): (Timestamp, Timestamp),
    pack: &mut PackWriter,
) -> anyhow::Result<()> {
    let filter = ReceiptFilter {
        since: Some(from),
        until: Some(to),
        ..ReceiptFilter::default()
    };
    let mut before = None;
    loop {
        let page = ledger.receipts(&filter, before).await?;
        for receipt in &page.items {
            pack.receipt(receipt)?;
        }
        match page.next {
            None => return Ok(()),
            next => before = next,
        }
    }
}
