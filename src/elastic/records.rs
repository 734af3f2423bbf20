//! Records of API keys: that of the key in use, and those of others with its power.
//!
//! Owns the calls that list and read them. Never shows a key, makes none and deletes none: `desk` does.

use std::time::Duration;

use reqwest::Method;
use tokio::time::Instant;

use super::answer::parse_instant;
use super::assignments;
use super::client::{Elastic, Limits, Notes};
use super::path::Path;
use super::provider::call;
use super::wire;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::ids::UserId;
use crate::ports::provider::{KeyPin, ObservedKey, Priority, ReadError, ReadResult};

/// Where the records are.
pub(super) const KEYS: &str = "/users/auth/keys";
/// Pause before the record of the key is asked for again after no answer.
const OWN_RECORD_EVERY: Duration = Duration::from_secs(60);
/// Longest wait for that record: other work waits behind it.
const OWN_RECORD_BUDGET: Duration = Duration::from_secs(3);

impl Elastic {
    /// Keys that could give and take roles as this one does.
    pub(super) async fn list_owner_keys(&self, priority: Priority) -> ReadResult<Vec<ObservedKey>> {
        let (keys, evidence) = self.list_every_key(priority).await?;
        let owners = keys.into_iter().filter(|(_, may_own)| *may_own);
        Ok((owners.map(|(key, _)| key).collect(), evidence))
    }

    /// Keys that upstream lists, each with whether it could give and take roles as this one does.
    pub(super) async fn list_every_key(
        &self,
        priority: Priority,
    ) -> ReadResult<Vec<(ObservedKey, bool)>> {
        let call = call("keys", "GET /users/auth/keys", Method::GET, Path::new(KEYS));
        let own = self.keys.current().and_then(|key| key.id.clone());
        let (list, evidence): (wire::ApiKeys, _) = self.read_list(call, priority).await?;
        let organization = self.organization.get();
        let listed = list.keys.into_iter().filter_map(|key| {
            // Without roles of its own a key has those of whoever made it.
            let roles = assignments::read(
                key.role_assignments.as_ref(),
                organization.map_or("", |id| id.as_str()),
            );
            let may_own = roles.is_owner || roles.is_odd || key.role_assignments.is_none();
            let id = key.id.into_string()?;
            let key = ObservedKey {
                is_own: own.as_deref() == Some(&id),
                id,
                description: key.description.into_string().unwrap_or_default(),
                expires_at: key.expiration_date.as_str().and_then(parse_instant),
            };
            Some((key, may_own))
        });
        Ok((listed.collect(), evidence))
    }

    /// Asks, once for each key, who is behind it and until when. Best effort: not every key names itself.
    pub(super) async fn learn_own_record(&self, priority: Priority) {
        let Some(key) = self.keys.current() else {
            return;
        };
        let Some(path) = key.id.as_deref().and_then(|id| Path::new(KEYS).id(id)) else {
            return;
        };
        {
            let mut asked = self.lock_own_record();
            let settled = asked.is_some_and(|(pin, at, answered)| {
                pin == key.pin && (answered || at.elapsed() < OWN_RECORD_EVERY)
            });
            if settled {
                return;
            }
            *asked = Some((key.pin, Instant::now(), false));
        }
        let call = call(
            "own_key",
            "GET /users/auth/keys/{api_key_id}",
            Method::GET,
            path,
        );
        let limits = Limits {
            budget: OWN_RECORD_BUDGET,
            ..self.read_limits()
        };
        let read: ReadResult<wire::ApiKey> = self
            .read(call, priority, limits, self.options.max_body)
            .await;
        self.note_own_call(&read).await;
        let answered = match read {
            Ok((record, _)) => {
                let user = record.user_id.into_string();
                let organization = self.organization.get().map_or("", |id| id.as_str());
                let roles = record.role_assignments.as_ref().map(|shown| {
                    let shown = assignments::read(Some(shown), organization).assignments;
                    shown.iter().map(ToString::to_string).collect()
                });
                self.keys.own_record(
                    key.pin,
                    user.and_then(|id| UserId::parse(id).ok()),
                    record.expiration_date.as_str().and_then(parse_instant),
                    roles,
                );
                true
            }
            Err((ReadError::Refused(refusal), _)) => !refusal.is_transient(),
            Err((ReadError::Unavailable { .. }, _)) => false,
        };
        if answered {
            *self.lock_own_record() = Some((key.pin, Instant::now(), true));
        }
    }

    /// Nobody asked for this call, so nobody else notes it.
    async fn note_own_call<T>(&self, read: &ReadResult<T>) {
        let Some(Notes {
            integration,
            ledger,
        }) = &self.notes
        else {
            return;
        };
        let (outcome, evidence) = match read {
            Ok((_, evidence)) => ("done", evidence),
            Err((_, evidence)) => ("refused", evidence),
        };
        let kind = EventKind::CallMade {
            outcome: outcome.to_owned(),
            evidence: evidence.clone(),
        };
        let event = AuditEvent::integration(self.clock.now(), integration, kind);
        if let Err(error) = ledger.append(vec![event]).await {
            tracing::warn!(%integration, code = error.code(), "Call left no audit event");
        }
    }

    fn lock_own_record(&self) -> std::sync::MutexGuard<'_, Option<(KeyPin, Instant, bool)>> {
        self.own_record
            .lock()
            .expect("no code panics while it holds this lock")
    }
}
