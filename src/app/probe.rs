//! What `doctor` looks at: each integration's adapters, without a running connector.
//!
//! Owns building them from the configuration. Never opens the ledger for writing: a running process holds it.

use std::sync::Arc;

use crate::config::{Config, LedgerKind};
use crate::domain::ids::IntegrationName;
use crate::ports::ledger::HoldRecord;
use crate::ports::{AccessProvider, Clock};
use crate::service::doctor::{IntegrationProbe, SinkProbe, WitnessProbe};
use crate::witness::inspect;

use super::adapters;
use super::beside::Beside;

/// The integrations of a configuration, each with the key that its secret store has now.
///
/// # Errors
/// When a client cannot be built at all.
pub async fn probes(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Vec<IntegrationProbe>> {
    let mut probes = Vec::new();
    for section in &config.integrations {
        let secret = adapters::secret(&section.secret)?;
        let elastic = adapters::elastic(section, Arc::clone(&secret), Arc::clone(clock), None)?;
        // The doctor asks the secret store itself and says what is wrong with it.
        drop(elastic.load_key().await);
        let provider: Arc<dyn AccessProvider> = elastic;
        probes.push(IntegrationProbe {
            name: section.name.clone(),
            pinned: section.organization_id.clone(),
            provider,
            secret,
        });
    }
    Ok(probes)
}

/// What is known of the witness without opening it for writing; `None` when none is configured.
#[must_use]
pub fn probe_witness(config: &Config) -> Option<WitnessProbe> {
    let section = config.witness.as_ref()?;
    let volume = |path: &std::path::Path| {
        let nearest = path.ancestors().find(|ancestor| ancestor.exists())?;
        let found = std::fs::metadata(nearest).ok()?;
        Some(std::os::unix::fs::MetadataExt::dev(&found))
    };
    let with_ledger = config.ledger.kind == LedgerKind::Sqlite
        && volume(&section.path).is_some()
        && volume(&section.path) == volume(&config.ledger.path);
    Some(WitnessProbe {
        place: section.path.display().to_string(),
        found: inspect(&section.path).map(|(found, open)| (found.condition, open.len())),
        with_ledger,
    })
}

/// Integrations in hold, as far as the ledger can be read beside a running connector.
pub async fn held(config: &Config) -> Vec<HoldRecord> {
    let Some(mut ledger) = beside(config).await else {
        return Vec::new();
    };
    // A ledger of an earlier release has no holds yet; one that cannot be read has findings of its own.
    let holds = ledger.holds().await.unwrap_or_default();
    ledger.close().await;
    holds
}

/// Reviews of emergency grants that nobody has closed, by integration, as far as the ledger can be read.
pub async fn owed_reviews(config: &Config) -> Vec<(IntegrationName, u64)> {
    let Some(mut ledger) = beside(config).await else {
        return Vec::new();
    };
    // A ledger of an earlier release knows of no reviews.
    let open = ledger.open_reviews().await.unwrap_or_default();
    ledger.close().await;
    open
}

/// The ledger, where it is there and can be read.
async fn beside(config: &Config) -> Option<Beside> {
    let is_there = config.ledger.kind != LedgerKind::Sqlite || config.ledger.path.is_file();
    if !is_there {
        return None;
    }
    Beside::open(config).await.ok()
}

/// What is wrong with a ledger that is a database; nothing where it is none.
pub async fn probe_database(config: &Config) -> Option<String> {
    if config.ledger.kind != LedgerKind::Postgres {
        return None;
    }
    match Beside::open(config).await {
        Ok(ledger) => {
            ledger.close().await;
            None
        }
        Err(error) => Some(format!("{error:#}")),
    }
}

/// How far the sinks of the audit are, as far as the ledger can be read beside a running connector.
pub async fn probe_sinks(config: &Config) -> Vec<SinkProbe> {
    let Some(audit) = config
        .audit
        .as_ref()
        .filter(|audit| !audit.sinks.is_empty())
    else {
        return Vec::new();
    };
    let mut ledger = beside(config).await;
    let mut probes = Vec::new();
    for sink in &audit.sinks {
        // A ledger of an earlier release has no cursors yet.
        let found = match &mut ledger {
            Some(ledger) => ledger.cursor(&sink.name).await.ok(),
            None => None,
        };
        probes.push(SinkProbe {
            name: sink.name.clone(),
            behind: found.map(|(cursor, last)| last.saturating_sub(cursor)),
        });
    }
    if let Some(ledger) = ledger {
        ledger.close().await;
    }
    probes
}
