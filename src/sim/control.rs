//! The control API under `/_sim`: what a person or an administrator does, and what tests ask.
//!
//! It has no authentication; the server listens on loopback only.

use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::assignments::Assignments;
use super::edge::{Shared, State};
use super::faults::FaultRule;
use super::reply::{Failure, Outcome, Reply};
use super::request::Request;
use super::server::ready_line;
use super::text;
use super::world::{Person, World};

/// A control call that comes from the same process.
pub(crate) fn call(shared: &Shared, method: &str, path: &str, body: &Value) -> Reply {
    let request = Request {
        method: Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET),
        path: format!("/_sim/{}", path.trim_start_matches('/')),
        query: Vec::new(),
        headers: HeaderMap::new(),
        body: if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        },
    };
    handle(shared, &request)
}

/// Answers a control call.
pub(crate) fn handle(shared: &Shared, request: &Request) -> Reply {
    let segments: Vec<String> = request
        .path
        .split('/')
        .filter(|part| !part.is_empty())
        .skip(1)
        .map(text::decode)
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let outcome = match segments.as_slice() {
        ["clock"] => clock(shared, request),
        _ => {
            let (mut state, now) = shared.settled();
            if request.method != Method::GET {
                state.core.touch();
            }
            state.control(request, &segments, now)
        }
    };
    outcome.unwrap_or_else(Reply::from)
}

fn wrong(message: impl std::fmt::Display) -> Failure {
    Failure::new(400, "sim.invalid", message.to_string())
}

fn missing(what: &str) -> Failure {
    Failure::new(404, "sim.not_found", format!("{what} does not exist"))
}

fn read<T: DeserializeOwned>(request: &Request) -> Result<T, Failure> {
    serde_json::from_value(request.json()?).map_err(wrong)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockChange {
    advance_seconds: Option<f64>,
    now: Option<DateTime<Utc>>,
    freeze: Option<bool>,
}

fn clock(shared: &Shared, request: &Request) -> Outcome {
    if request.method != Method::GET {
        let change: ClockChange = read(request)?;
        if let Some(now) = change.now {
            shared.clock.set(now);
        }
        if let Some(frozen) = change.freeze {
            shared.clock.freeze(frozen);
        }
        if let Some(seconds) = change.advance_seconds {
            shared.clock.advance(milliseconds(seconds)?);
        }
    }
    let now = shared.settled().1;
    Ok(Reply::ok(
        json!({ "now": text::rfc3339(now), "frozen": shared.clock.is_frozen() }),
    ))
}

/// Seconds with a fraction, kept in the range in which the cast is exact.
fn milliseconds(seconds: f64) -> Result<TimeDelta, Failure> {
    let text = format!("{:.0}", seconds * 1_000.0);
    text.parse()
        .ok()
        .and_then(TimeDelta::try_milliseconds)
        .ok_or_else(|| wrong("advance_seconds is out of range"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepting {
    user_id: Option<String>,
    email: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SsoLogin {
    user_id: String,
    #[serde(default)]
    role_assignments: Assignments,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Joining {
    organization_id: Option<String>,
    #[serde(default)]
    email: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    role_assignments: Assignments,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    organization_id: Option<String>,
    user_id: Option<String>,
    #[serde(default)]
    description: String,
    expires_in: Option<String>,
    role_assignments: Option<Assignments>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reduced {
    #[serde(default)]
    role_assignments: Assignments,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    rules: Vec<FaultRule>,
}

impl State {
    fn control(&mut self, request: &Request, segments: &[&str], now: DateTime<Utc>) -> Outcome {
        match (request.method.as_str(), segments) {
            ("GET", ["ready"]) => Ok(Reply::ok(ready_line(&self.core))),
            ("GET", ["world"]) => to_reply(&self.core.world.normalised()),
            ("PUT", ["world"]) => {
                let text = String::from_utf8_lossy(&request.body);
                self.core
                    .load(World::from_text(&text).map_err(|error| wrong(chain(&error)))?);
                Ok(Reply::ok(ready_line(&self.core)))
            }
            ("GET", ["settings"]) => to_reply(&self.core.settings),
            ("PATCH" | "PUT" | "POST", ["settings"]) => {
                let patch: serde_json::Map<String, Value> = read(request)?;
                self.core.settings.patch(&patch).map_err(wrong)?;
                to_reply(&self.core.settings)
            }
            ("POST", ["invitations", which, "accept"]) => self.accepting(which, request, now),
            ("POST", ["sso-login"]) => {
                let login: SsoLogin = read(request)?;
                self.assign(&login.user_id, now, |held| *held = login.role_assignments)
            }
            ("POST", ["deployments", id, "hide"]) => self.set_hidden(id, true),
            ("POST", ["deployments", id, "show"]) => self.set_hidden(id, false),
            ("GET", ["members", user, "assignments"]) => self.assign(user, now, |_| ()),
            ("POST", ["members", user, "assignments"]) => {
                let more: Assignments = read(request)?;
                self.assign(user, now, |held| held.add(&more))
            }
            ("DELETE", ["members", user, "assignments"]) => {
                let less: Assignments = read(request)?;
                self.assign(user, now, |held| held.remove(&less, false))
            }
            ("PUT", ["members", user, "assignments"]) => {
                let all: Assignments = read(request)?;
                self.assign(user, now, |held| *held = all)
            }
            ("PUT", ["members", user]) => self.joining(user, request, now),
            ("DELETE", ["members", user]) => self.leaving(user, now),
            (_, ["keys", ..]) => self.keys(request, &segments[1..], now),
            ("GET", ["faults"]) => Ok(Reply::ok(json!({ "rules": self.faults.rules() }))),
            ("PUT", ["faults"]) => {
                let rules: Rules = read(request)?;
                self.faults.set(rules.rules);
                Ok(Reply::ok(json!({ "rules": self.faults.rules() })))
            }
            ("DELETE", ["faults"]) => {
                self.faults.set(Vec::new());
                Ok(Reply::empty())
            }
            ("GET", ["calls"]) => to_reply(&self.calls.report()),
            ("DELETE", ["calls"]) => {
                self.calls.reset();
                Ok(Reply::empty())
            }
            _ => Err(missing(&request.path)),
        }
    }

    fn first_organization(&self, given: Option<String>) -> Result<String, Failure> {
        let first = || self.core.world.organizations.first().map(|o| o.id.clone());
        let id = given.or_else(first).unwrap_or_default();
        match self.core.world.organization(&id) {
            Some(_) => Ok(id),
            None => Err(missing(&format!("organization {id}"))),
        }
    }

    /// Changes what a member holds; answers what the member holds then.
    fn assign(
        &mut self,
        user_id: &str,
        now: DateTime<Utc>,
        change: impl FnOnce(&mut Assignments),
    ) -> Outcome {
        let found = self.core.world.membership(user_id);
        let organization_id = found
            .map(|(organization, _)| organization.id.clone())
            .ok_or_else(|| missing(&format!("member {user_id}")))?;
        let mut held = found
            .map(|(_, m)| m.role_assignments.clone())
            .unwrap_or_default();
        let before = held.clone();
        change(&mut held);
        held.fill_organization(&organization_id);
        if held != before {
            self.core.before_change(&organization_id, user_id, now);
        }
        if let Some(member) = self.core.world.member_mut(user_id) {
            member.role_assignments = held.clone();
        }
        Ok(Reply::ok(
            json!({ "user_id": user_id, "role_assignments": held.normalised() }),
        ))
    }

    fn accepting(&mut self, which: &str, request: &Request, now: DateTime<Utc>) -> Outcome {
        let asked: Accepting = read(request)?;
        let found = self
            .core
            .world
            .organizations
            .iter()
            .find_map(|organization| {
                let fits = |open: &&super::world::Invitation| {
                    open.token == which
                        || (open.email.eq_ignore_ascii_case(which) && open.expires_at > now)
                };
                organization
                    .invitations
                    .iter()
                    .find(fits)
                    .map(|open| (&organization.id, open))
            });
        let (organization_id, invitation) =
            found.ok_or_else(|| missing(&format!("invitation {which}")))?;
        let (organization_id, token) = (organization_id.clone(), invitation.token.clone());
        let email = asked.email.unwrap_or_else(|| invitation.email.clone());
        let known = self
            .core
            .world
            .people
            .iter()
            .find(|person| match &asked.user_id {
                Some(user_id) => person.user_id == *user_id,
                None => person.email.eq_ignore_ascii_case(&email),
            })
            .cloned();
        let user_id = asked
            .user_id
            .or_else(|| known.as_ref().map(|person| person.user_id.clone()))
            .unwrap_or_else(|| text::digits(&mut self.core.tokens, 16));
        let name = asked
            .name
            .or_else(|| known.map(|person| person.name))
            .unwrap_or_default();
        let person = Person {
            user_id: user_id.clone(),
            email: email.clone(),
            name,
        };
        self.core.accept(&token, person, now)?;
        Ok(Reply::ok(json!({
            "organization_id": organization_id,
            "user_id": user_id,
            "email": email,
        })))
    }

    fn set_hidden(&mut self, id: &str, hidden: bool) -> Outcome {
        let deployment = self
            .core
            .world
            .deployment_mut(id)
            .ok_or_else(|| missing(&format!("deployment {id}")))?;
        deployment.hidden = hidden;
        Ok(Reply::ok(json!({ "id": id, "hidden": hidden })))
    }

    fn joining(&mut self, user_id: &str, request: &Request, now: DateTime<Utc>) -> Outcome {
        let joining: Joining = read(request)?;
        let organization_id = self.first_organization(joining.organization_id)?;
        if self.core.world.membership(user_id).is_some() {
            return Err(wrong(format!("{user_id} is a member already")));
        }
        let known = self.core.world.people.iter().find(|p| p.user_id == user_id);
        let or_known = |given: String, known: Option<&String>| match known {
            Some(known) if given.is_empty() => known.clone(),
            _ => given,
        };
        let person = Person {
            email: or_known(joining.email, known.map(|p| &p.email)),
            name: or_known(joining.name, known.map(|p| &p.name)),
            user_id: user_id.to_owned(),
        };
        let mut held = joining.role_assignments;
        held.fill_organization(&organization_id);
        self.core.join(&organization_id, person, held, now);
        Ok(Reply::ok(
            json!({ "organization_id": organization_id, "user_id": user_id }),
        ))
    }

    fn leaving(&mut self, user_id: &str, now: DateTime<Utc>) -> Outcome {
        let organization_id = self
            .core
            .world
            .membership(user_id)
            .map(|(organization, _)| organization.id.clone())
            .ok_or_else(|| missing(&format!("member {user_id}")))?;
        self.core.leave(&organization_id, user_id, now);
        Ok(Reply::empty())
    }

    fn keys(&mut self, request: &Request, segments: &[&str], now: DateTime<Utc>) -> Outcome {
        match (request.method.as_str(), segments) {
            ("GET", []) => {
                let all: Vec<_> = self
                    .core
                    .world
                    .organizations
                    .iter()
                    .flat_map(|organization| &organization.api_keys)
                    .collect();
                Ok(Reply::ok(json!({ "keys": all })))
            }
            ("POST", []) => self.make_key(request, now),
            ("POST", [id, "expire"]) => self.change_key(id, |key| key.expiration_date = Some(now)),
            ("POST", [id, "reduce"]) => {
                let reduced: Reduced = read(request)?;
                self.change_key(id, |key| key.role_assignments = reduced.role_assignments)
            }
            ("DELETE", [id]) => {
                self.change_key(id, |_| ())?;
                for organization in &mut self.core.world.organizations {
                    organization.api_keys.retain(|key| key.id != *id);
                }
                Ok(Reply::empty())
            }
            _ => Err(missing(&request.path)),
        }
    }

    fn make_key(&mut self, request: &Request, now: DateTime<Utc>) -> Outcome {
        let asked: NewKey = read(request)?;
        let organization_id = self.first_organization(asked.organization_id)?;
        let end = match asked.expires_in.as_deref() {
            None => None,
            Some(length) => Some(
                text::duration(length)
                    .and_then(|length| now.checked_add_signed(length))
                    .ok_or_else(|| wrong("expires_in is not a duration"))?,
            ),
        };
        let organization = self.core.world.organization(&organization_id);
        let creator = organization
            .and_then(|o| o.members.first())
            .map(|m| m.user_id.clone());
        let user_id = asked.user_id.or(creator).unwrap_or_default();
        let mut held = asked.role_assignments.unwrap_or_else(|| {
            let owner = super::assignments::Assignment::organization(
                &organization_id,
                "organization-admin",
            );
            Assignments::new(vec![owner])
        });
        held.fill_organization(&organization_id);
        let key = self
            .core
            .new_key(&user_id, asked.description, held, end, now);
        let body = json!(key);
        if let Some(organization) = self.core.world.organization_mut(&organization_id) {
            organization.api_keys.push(key);
        }
        Ok(Reply::json(201, body))
    }

    fn change_key(&mut self, id: &str, change: impl FnOnce(&mut super::world::ApiKey)) -> Outcome {
        let organizations = self.core.world.organizations.iter_mut();
        for organization in organizations {
            let organization_id = organization.id.clone();
            if let Some(key) = organization.api_keys.iter_mut().find(|key| key.id == id) {
                change(key);
                key.role_assignments.fill_organization(&organization_id);
                return Ok(Reply::ok(json!(key)));
            }
        }
        Err(missing(&format!("key {id}")))
    }
}

fn to_reply(value: &impl serde::Serialize) -> Outcome {
    serde_json::to_value(value).map(Reply::ok).map_err(wrong)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
