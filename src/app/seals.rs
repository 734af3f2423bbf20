//! Keys of approvers and of emergency tokens: setting them up, and making what they sign.
//!
//! Owns the way from the configuration to the keyring, and what the command line needs to sign away from a connector.

use std::sync::Arc;

use anyhow::Context as _;
use chrono::TimeDelta;

use crate::config::Config;
use crate::identity::seal::{
    ApproverOptions, EmergencyKeyOptions, Keyring, KeyringOptions, Reread,
};

pub use crate::identity::seal::{ApprovalDraft, MakeError, SealKey, TokenDraft, claims_of};

/// Whether there are keys of approvers or of emergencies at all.
pub(super) fn has_keys(config: &Config) -> bool {
    !config.approvals.approvers.is_empty() || !config.break_glass.keys.is_empty()
}

/// The keys that the configuration names.
pub(super) fn keyring(config: &Config) -> anyhow::Result<Arc<Keyring>> {
    let approvers = config.approvals.approvers.iter();
    let options = KeyringOptions {
        approvers: approvers
            .map(|one| ApproverOptions {
                name: one.name.clone(),
                names: std::iter::once(&one.person)
                    .chain(&one.aliases)
                    .cloned()
                    .collect(),
                key_file: one.key_file.clone(),
            })
            .collect(),
        max_age: TimeDelta::from_std(config.approvals.max_age.get())
            .context("approvals.max_age")?,
        emergency: config
            .break_glass
            .keys
            .iter()
            .map(|one| EmergencyKeyOptions {
                name: one.name.clone(),
                key_file: one.key_file.clone(),
            })
            .collect(),
    };
    let (approvers, keys) = (options.approvers.len(), options.emergency.len());
    let keyring =
        Keyring::open(options).context("reading the keys of approvals and break_glass")?;
    if approvers + keys > 0 {
        tracing::info!(approvers, break_glass_keys = keys, "Signatures are taken");
    }
    Ok(Arc::new(keyring))
}

/// Reads the keys again, and says what became of it.
pub(super) fn look(keyring: &Keyring) {
    match keyring.reread() {
        Reread::Unchanged | Reread::Kept(None) => {}
        Reread::Changed => {
            tracing::warn!("Changed keys of approvers or of emergency tokens are in force");
        }
        Reread::Kept(Some(error)) => tracing::error!(
            %error,
            "Changed keys of approvers or of emergency tokens cannot be used; those from before stay in force. Put \
             them right"
        ),
    }
}
