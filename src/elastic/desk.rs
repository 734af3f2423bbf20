//! The keys of the organization: making one, proving it, deleting one.
//!
//! Owns the calls behind [`KeyDesk`]. Never logs a key, and never makes one with more than an owner's role.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};

use super::answer::parse_instant;
use super::client::{Elastic, Notes};
use super::path::Path;
use super::provider::{call, evidence, json, not_sent, unavailable};
use super::records::KEYS;
use super::transport::Call;
use super::wire;
use crate::domain::event::CallEvidence;
use crate::domain::observation::{Incomplete, Interest, MembersRead};
use crate::ports::keys::{KeyInUse, MadeKey};
use crate::ports::provider::{
    Claim, ObservedKey, Outcome, Priority, ReadError, ReadResult, Refusal,
};
use crate::ports::secrets::SecretError;
use crate::ports::{AccessProvider, KeyDesk, SecretStore};

const MAKE: &str = "POST /users/auth/keys";
const DELETE: &str = "DELETE /users/auth/keys/{api_key_id}";

/// The one role that Latchkey needs.
const OWNER: &str = "organization-admin";

/// A key that is not stored yet, as a place to fetch it from.
struct InHand(SecretString);

// Whatever it holds, this cannot show it.
impl std::fmt::Debug for InHand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InHand")
    }
}

#[async_trait]
impl SecretStore for InHand {
    async fn fetch(&self) -> Result<SecretString, SecretError> {
        Ok(self.0.clone())
    }

    fn describe(&self) -> String {
        "the new key".to_owned()
    }
}

#[async_trait]
impl KeyDesk for Elastic {
    fn in_use(&self) -> Option<KeyInUse> {
        self.keys.current().map(|key| KeyInUse {
            id: key.id.clone(),
            digest: key.digest(),
        })
    }

    async fn make_key(&self, description: &str, lives: TimeDelta) -> Outcome<MadeKey> {
        // Before anything else: what is found out on the way may reload the key.
        let pin = self.pin();
        let organization = match self.organization_id(Priority::Discovery).await {
            Ok(organization) => organization,
            Err(error) => return not_sent(MAKE, error),
        };
        let body = serde_json::json!({
            "description": description,
            "expiration": expiration(lives),
            "role_assignments": {
                "organization": [{"role_id": OWNER, "organization_id": organization.as_str()}],
            },
        });
        let call = Call {
            body: Some(json(&body)),
            ..call("make_key", MAKE, Method::POST, Path::new(KEYS))
        };
        let claim = Claim::of(Priority::Discovery);
        self.mutate(call, pin, (claim, None), |bytes| {
            let wire::MadeApiKey {
                id,
                key,
                expiration_date,
            } = serde_json::from_slice(bytes).ok()?;
            let id = id.into_string().filter(|id| !id.is_empty())?;
            Some(MadeKey {
                id,
                key: key.filter(|key| !key.expose_secret().is_empty())?,
                expires_at: expiration_date.as_str().and_then(parse_instant),
            })
        })
        .await
    }

    async fn list_keys(&self) -> ReadResult<Vec<ObservedKey>> {
        let (keys, evidence) = self.list_every_key(Priority::Discovery).await?;
        let listed = keys.into_iter().map(|(key, _)| key).collect();
        Ok((listed, evidence))
    }

    async fn delete_key(&self, id: &str) -> Outcome<()> {
        let Some(path) = Path::new(KEYS).id(id) else {
            let refusal = Refusal::NotSent {
                code: "path".to_owned(),
            };
            return Outcome::Refused(refusal, evidence(DELETE));
        };
        let call = call("delete_key", DELETE, Method::DELETE, path);
        let claim = Claim::of(Priority::Discovery);
        self.mutate(call, self.pin(), (claim, None), |_| Some(()))
            .await
    }

    async fn prove(&self, key: &SecretString) -> ReadResult<bool> {
        const CALL: &str = "GET /organizations/{organization_id}/members";
        let mut options = self.options.clone();
        options.organization = self.organization.get().cloned();
        let secret = Arc::new(InHand(key.clone()));
        let failed = |code: &str| Err((unavailable(code), evidence(CALL)));
        // A client of its own: this one goes on with the key that works.
        let Ok(candidate) = Self::new(options, secret, Arc::clone(&self.clock)) else {
            return failed("client");
        };
        let candidate = match &self.notes {
            Some(Notes {
                integration,
                ledger,
            }) => candidate.with_notes(integration.clone(), Arc::clone(ledger)),
            None => candidate,
        };
        if let Err(error) = candidate.load_key().await {
            return failed(error.code());
        }
        verdict(
            candidate
                .read_members(&Interest::default(), Priority::Verify)
                .await,
        )
    }

    async fn prove_in_use(&self) -> ReadResult<bool> {
        verdict(
            self.read_members(&Interest::default(), Priority::Verify)
                .await,
        )
    }

    async fn reload(&self) -> Result<bool, SecretError> {
        self.reload_key().await
    }
}

/// Whether a read of the members is one that an owner gets.
fn verdict(read: ReadResult<MembersRead>) -> ReadResult<bool> {
    let (read, evidence): (MembersRead, CallEvidence) = read?;
    let odd = |code: &str| ReadError::Unavailable {
        code: code.to_owned(),
    };
    match read.incomplete {
        None => Ok((true, evidence)),
        Some(Incomplete::KeyIsNotOwner) => Ok((false, evidence)),
        Some(Incomplete::OtherOrganization) => Err((odd("other_organization"), evidence)),
        // The owners are there to be seen; what else is odd about the list is not the key's fault.
        Some(Incomplete::MorePages | Incomplete::Ambiguous) => Ok((read.owners > 0, evidence)),
    }
}

/// How long a key lives, as upstream writes it: whole days where they are.
fn expiration(lives: TimeDelta) -> String {
    let hours = lives.num_hours().max(1);
    if hours % 24 == 0 {
        format!("{}d", hours / 24)
    } else {
        format!("{hours}h")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_written_in_days_where_it_has_no_rest() {
        assert_eq!(expiration(TimeDelta::days(90)), "90d");
        assert_eq!(expiration(TimeDelta::hours(25)), "25h");
        assert_eq!(expiration(TimeDelta::minutes(1)), "1h");
    }
}
