//! What `doctor` looks at: each integration's adapters, without a running connector.
//!
//! Owns building them from the configuration. Never opens the ledger: a running process holds it.

use std::sync::Arc;

use crate::config::Config;
use crate::ports::{AccessProvider, Clock};
use crate::service::doctor::IntegrationProbe;

use super::adapters;

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
