//! Cloud API keys: made, listed, read and deleted over the API.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::access::Caller;
use super::assignments::Assignments;
use super::core::Core;
use super::reply::{Failure, Outcome, Reply};
use super::request::Request;
use super::roles::Purpose;
use super::settings::{KeyScope, Leniency, Need, NonOwnerKeys};
use super::text;
use super::world::ApiKey;

fn invalid(message: &str, field: &str) -> Failure {
    Failure::new(400, "api_keys.invalid_input", message).field(field)
}

fn not_found(id: &str) -> Failure {
    Failure::new(
        404,
        "api_keys.key_not_found",
        format!("API key [{id}] was not found"),
    )
}

impl Core {
    fn may_use_keys(&self, caller: &Caller, only_lists: bool) -> Result<(), Failure> {
        match self.settings.non_owner_keys {
            NonOwnerKeys::Allowed => Ok(()),
            NonOwnerKeys::ListOnly if only_lists => Ok(()),
            NonOwnerKeys::Forbidden | NonOwnerKeys::ListOnly => caller.owner_only(self),
        }
    }

    /// The caller's keys that have not ended; ended ones vanish by themselves.
    fn visible_keys(&self, caller: &Caller, now: DateTime<Utc>) -> Result<Vec<ApiKey>, Failure> {
        Ok(self
            .own(caller)?
            .api_keys
            .iter()
            .filter(|key| !key.is_expired(now))
            .filter(|key| match self.settings.key_scope {
                KeyScope::Organization => true,
                KeyScope::Creator => key.user_id == caller.user_id,
            })
            .cloned()
            .collect())
    }

    fn key_body(&mut self, caller: &Caller, key: &ApiKey, shows_value: bool) -> Value {
        let role_assignments = self.listed(caller, &key.role_assignments);
        let role_assignments = role_assignments.to_json(self.settings.show_all_false);
        json!({
            "id": key.id,
            "description": key.description,
            "creation_date": text::rfc3339(key.creation_date),
            "expiration_date": key.expiration_date.map(text::rfc3339),
            "user_id": key.user_id,
            "organization_id": caller.organization_id,
            "role_assignments": role_assignments,
            "key": shows_value.then_some(&key.key),
        })
    }

    pub(crate) fn create_key(
        &mut self,
        caller: &Caller,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Outcome {
        self.may_use_keys(caller, false)?;
        let body = request.json()?;
        let description = match body.get("description").and_then(Value::as_str) {
            Some(text) if !text.trim().is_empty() => text.to_owned(),
            _ if self.settings.key_description == Need::Optional => String::new(),
            _ => return Err(invalid("A description is required", "description")),
        };
        let expiration_date = self.key_end(&body, now)?;
        let role_assignments = match body.get("role_assignments") {
            None => caller.role_assignments.clone(),
            Some(value) => {
                let mut wanted = self.parse_assignments(value)?;
                self.validate(caller, &mut wanted, Purpose::Key)?;
                wanted
            }
        };
        let limit = self.settings.key_limit;
        let live = self
            .own(caller)?
            .api_keys
            .iter()
            .filter(|key| !key.is_expired(now))
            .count();
        if limit > 0 && live >= limit {
            return Err(Failure::new(
                400,
                "api_keys.invalid_input",
                format!("The limit of {limit} keys is reached"),
            ));
        }
        let key = self.new_key(
            &caller.user_id,
            description,
            role_assignments,
            expiration_date,
            now,
        );
        let body = self.key_body(caller, &key, true);
        if let Some(organization) = self.world.organization_mut(&caller.organization_id) {
            organization.api_keys.push(key);
        }
        Ok(Reply::json(201, body))
    }

    /// A key with a fresh id and secret, in no organization yet.
    pub(crate) fn new_key(
        &mut self,
        user_id: &str,
        description: String,
        role_assignments: Assignments,
        expiration_date: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> ApiKey {
        let id = text::token(&mut self.tokens, 20);
        let secret = text::token(&mut self.tokens, 22);
        ApiKey {
            key: text::cloud_key(&id, &secret),
            id,
            description,
            creation_date: now,
            expiration_date,
            user_id: user_id.to_owned(),
            role_assignments,
        }
    }

    fn key_end(&self, body: &Value, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, Failure> {
        let wrong = || invalid("The expiration is not valid", "expiration");
        let most = self.settings.key_max_seconds;
        let lasts = match body.get("expiration") {
            None => TimeDelta::try_days(90).expect("three months fit"),
            Some(value) => {
                let word = value.as_str().ok_or_else(wrong)?;
                if word.eq_ignore_ascii_case("never") {
                    let is_allowed = self.settings.key_never == Leniency::Accept && most == 0;
                    return if is_allowed { Ok(None) } else { Err(wrong()) };
                }
                text::duration(word).ok_or_else(wrong)?
            }
        };
        if lasts <= TimeDelta::zero() || (most > 0 && lasts.num_seconds() > most) {
            return Err(wrong());
        }
        now.checked_add_signed(lasts).map(Some).ok_or_else(wrong)
    }

    pub(crate) fn list_keys(&mut self, caller: &Caller, now: DateTime<Utc>) -> Outcome {
        self.may_use_keys(caller, true)?;
        let keys = self.visible_keys(caller, now)?;
        let bodies: Vec<Value> = keys
            .iter()
            .map(|key| self.key_body(caller, key, false))
            .collect();
        Ok(Reply::ok(json!({ "keys": bodies })))
    }

    pub(crate) fn get_key(&mut self, caller: &Caller, id: &str, now: DateTime<Utc>) -> Outcome {
        self.may_use_keys(caller, true)?;
        let keys = self.visible_keys(caller, now)?;
        let key = keys
            .iter()
            .find(|key| key.id == id)
            .ok_or_else(|| not_found(id))?;
        Ok(Reply::ok(self.key_body(caller, key, false)))
    }

    pub(crate) fn delete_key(&mut self, caller: &Caller, id: &str, now: DateTime<Utc>) -> Outcome {
        self.may_use_keys(caller, false)?;
        self.pace_key_deletion(now)?;
        let keys = self.visible_keys(caller, now)?;
        if !keys.iter().any(|key| key.id == id) {
            return Err(not_found(id));
        }
        self.drop_keys(caller, &[id]);
        Ok(Reply::empty())
    }

    pub(crate) fn delete_keys(
        &mut self,
        caller: &Caller,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Outcome {
        self.may_use_keys(caller, false)?;
        let body = request.json()?;
        let list = body
            .get("keys")
            .and_then(Value::as_array)
            .ok_or_else(|| invalid("keys must be a list", "keys"))?;
        self.pace_key_deletion(now)?;
        let visible = self.visible_keys(caller, now)?;
        let ids: Vec<&str> = list
            .iter()
            .filter_map(Value::as_str)
            .filter(|id| visible.iter().any(|key| key.id == *id))
            .collect();
        self.drop_keys(caller, &ids);
        Ok(Reply::empty())
    }

    fn drop_keys(&mut self, caller: &Caller, ids: &[&str]) {
        if let Some(organization) = self.world.organization_mut(&caller.organization_id) {
            organization
                .api_keys
                .retain(|key| !ids.contains(&key.id.as_str()));
        }
    }

    fn pace_key_deletion(&mut self, now: DateTime<Utc>) -> Result<(), Failure> {
        let least = self.settings.key_delete_min_interval_ms;
        let last = self.last_key_deletion.replace(now);
        let is_too_fast = last.is_some_and(|last| (now - last).num_milliseconds().abs() < least);
        if is_too_fast {
            return Err(Failure::new(
                500,
                "root.internal_error",
                "Internal server error",
            ));
        }
        Ok(())
    }
}
