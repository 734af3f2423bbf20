//! What is known of a key, and asking for another one.
//!
//! Owns the answers to whoever asks what the connector may do and when that ends. Never shows a key.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;

use super::rotation::Rotator;
use super::{Result, Service, ServiceError, actor};
use crate::domain::ids::{CallerName, IntegrationName};
use crate::domain::rotation::{KeyRotation, Schedule};
use crate::ports::provider::KeyStatus;

/// What is known of the key of one integration, without any call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyReport {
    /// Whose key.
    pub integration: IntegrationName,
    /// What the last answers said of it.
    pub status: KeyStatus,
    /// Its id, where its text tells.
    pub id: Option<String>,
    /// Where it is kept, in words.
    pub place: String,
    /// Whether Latchkey can put another one there.
    pub can_be_replaced: bool,
    /// When it is rotated without being asked.
    pub schedule: Option<Schedule>,
    /// The rotation that is under way, or the last one.
    pub rotation: Option<KeyRotation>,
}

impl Service {
    /// The rotators of the integrations; without one a key is only ever replaced by hand.
    #[must_use]
    pub fn with_rotators(mut self, rotators: &BTreeMap<IntegrationName, Arc<Rotator>>) -> Self {
        for (name, integration) in &mut self.integrations {
            integration.rotator = rotators.get(name).cloned();
        }
        self
    }

    /// What is known of the key of an integration.
    ///
    /// # Errors
    /// [`ServiceError::UnknownIntegration`], and failures of the ledger.
    pub async fn get_key(&self, integration: Option<&IntegrationName>) -> Result<KeyReport> {
        let integration = self.integration(integration)?;
        let rotator = integration.rotator.as_deref();
        let (place, can_be_replaced) = rotator.map(Rotator::place).unwrap_or_default();
        let rotation = match rotator {
            Some(rotator) => rotator.last().await?,
            None => None,
        };
        Ok(KeyReport {
            integration: integration.name.clone(),
            status: integration.provider.key_status(),
            id: rotator.and_then(Rotator::key_id),
            place,
            can_be_replaced,
            schedule: rotator.and_then(Rotator::schedule),
            rotation,
        })
    }

    /// Asks for a new key. It is made by whoever works on the integration, soon; one that is under way is answered.
    ///
    /// # Errors
    /// Those of [`Rotator::ask`], and [`ServiceError::Unfit`] where there is no rotator.
    pub async fn rotate_key(
        &self,
        caller: &CallerName,
        integration: Option<&IntegrationName>,
        requester: String,
        reason: &str,
        lives: Option<TimeDelta>,
    ) -> Result<KeyRotation> {
        let integration = self.integration(integration)?;
        let by = actor(requester, caller);
        let asked = match &integration.rotator {
            Some(rotator) => rotator.ask(&by, reason, lives).await,
            None => Err(ServiceError::Unfit {
                code: "rotation_unavailable",
                problem: "this connector cannot rotate its key; put a new one into the secret store by hand",
            }),
        };
        self.audited("rotate_key", caller, Some(&integration.name), None, asked)
            .await
    }
}
