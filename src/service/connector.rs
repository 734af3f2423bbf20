//! The connector as its operators and control planes see it.
//!
//! Owns what is said of each integration's health. Never makes a call to find out.

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::domain::ids::IntegrationName;
use crate::ports::ledger::Page;
use crate::ports::provider::KeyStatus;

use super::{Details, Integration, Service};

/// Health of an integration, from its last calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Ok,
    /// It works, with something to look at.
    Degraded(&'static str),
    /// Nothing can be granted or removed at present.
    Down(&'static str),
    /// Nothing was asked yet.
    Unknown,
}

/// One integration and how it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegrationStatus {
    /// Its name.
    pub name: IntegrationName,
    /// What the configuration says of it.
    pub details: Details,
    /// What is known of its key.
    pub key: KeyStatus,
    /// How it does.
    pub health: Health,
    /// Whether it refuses new grants.
    pub is_draining: bool,
}

impl Service {
    /// Integrations in order of name, from what is known without any call.
    pub async fn list_integrations(
        &self,
        after: Option<&IntegrationName>,
        limit: usize,
    ) -> Page<IntegrationStatus, IntegrationName> {
        let now = self.clock.now();
        let mut items = Vec::new();
        let mut next = None;
        for integration in self.integrations.values() {
            if after.is_some_and(|after| integration.name <= *after) {
                continue;
            }
            if items.len() == limit {
                next = items
                    .last()
                    .map(|last: &IntegrationStatus| last.name.clone());
                break;
            }
            let key = integration.provider.key_status();
            items.push(IntegrationStatus {
                name: integration.name.clone(),
                details: integration.details.clone(),
                health: match &integration.hold {
                    Some(hold) if hold.record().is_some() => Health::Down("hold"),
                    _ => health(&key, now, &engine(integration)),
                },
                key,
                is_draining: *integration.draining.read().await,
            });
        }
        Page { items, next }
    }
}

/// What the engine says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Engine {
    is_key_refused: bool,
    is_breaker_open: bool,
}

fn engine(integration: &Integration) -> Engine {
    let board = integration.observer.board();
    Engine {
        is_key_refused: board.is_key_refused(integration.provider.pin()),
        is_breaker_open: board.is_breaker_open(),
    }
}

/// Judges what is known of a key and of the engine. Pure.
fn health(key: &KeyStatus, now: Timestamp, engine: &Engine) -> Health {
    if !key.loaded {
        return Health::Down("no_key");
    }
    if key.expires_at.is_some_and(|at| at <= now) {
        return Health::Down("key_expired");
    }
    if engine.is_key_refused {
        return Health::Down("key_refused");
    }
    if key.last_failure.is_some() {
        return Health::Down("last_call_failed");
    }
    if key.last_success_at.is_none() {
        return Health::Unknown;
    }
    if key.sees_owners == Some(false) {
        return Health::Degraded("key_is_not_owner");
    }
    if engine.is_breaker_open {
        return Health::Degraded("repairs_held");
    }
    if key
        .expires_at
        .is_some_and(|at| at - now < TimeDelta::days(30))
    {
        return Health::Degraded("key_expires_soon");
    }
    if key.skew_ms.is_some_and(|skew| skew.abs() > 60_000) {
        return Health::Degraded("clock_skew");
    }
    Health::Ok
}
