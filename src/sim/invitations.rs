//! The life of an invitation: created, refreshed, cancelled, expired, accepted.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::access::Caller;
use super::core::Core;
use super::members::organization_body;
use super::reply::{Failure, Outcome, Reply};
use super::request::Request;
use super::roles::Purpose;
use super::route::Route;
use super::settings::{PartialCsv, Presence, SecondInvitation, Shown};
use super::text;
use super::world::{Invitation, Organization, Person};

/// The header in which a simulated person names their user id.
pub(crate) const USER_HEADER: &str = "x-sim-user";

/// Whether a person, not a key, may make this call.
pub(crate) fn person_calls(route: &Route, request: &Request) -> bool {
    request.header(USER_HEADER).is_some()
        && matches!(route, Route::InvitationGet(_) | Route::InvitationAccept(_))
}

impl Core {
    /// A call by a person who has no key.
    pub(crate) fn person(
        &mut self,
        route: &Route,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Outcome {
        if let Route::InvitationAccept(token) = route {
            return self.accept_by_request(token, request, now);
        }
        if let Route::InvitationGet(token) = route {
            return self.get_invitation(token, now);
        }
        Ok(Reply::html(404))
    }

    fn invitation_body(
        &mut self,
        caller: Option<&Caller>,
        organization: &Value,
        invitation: &Invitation,
        now: DateTime<Utc>,
    ) -> Value {
        let role_assignments = match caller {
            Some(caller) => self.shown_assignments(caller, &invitation.role_assignments),
            None if invitation.role_assignments.is_empty() => None,
            None => Some(
                invitation
                    .role_assignments
                    .to_json(self.settings.show_all_false),
            ),
        };
        json!({
            "token": invitation.token,
            "email": invitation.email,
            "created_at": text::rfc3339(invitation.created_at),
            "expires_at": text::rfc3339(invitation.expires_at),
            "expired": invitation.expires_at <= now,
            "organization": organization,
            "role_assignments": role_assignments,
        })
    }

    pub(crate) fn list_invitations(
        &mut self,
        caller: &Caller,
        organization_id: &str,
        now: DateTime<Utc>,
    ) -> Outcome {
        caller.own_organization(organization_id)?;
        let own = self.own(caller)?;
        let organization = organization_body(own);
        let hides_expired = self.settings.expired_invitations == Shown::Hidden;
        let open: Vec<Invitation> = own
            .invitations
            .iter()
            .filter(|invitation| !(hides_expired && invitation.expires_at <= now))
            .cloned()
            .collect();
        let bodies: Vec<Value> = open
            .iter()
            .map(|invitation| self.invitation_body(Some(caller), &organization, invitation, now))
            .collect();
        Ok(Reply::ok(json!({ "invitations": bodies })))
    }

    pub(crate) fn create_invitations(
        &mut self,
        caller: &Caller,
        organization_id: &str,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Outcome {
        caller.own_organization(organization_id)?;
        let body = request.json()?;
        let emails = addresses(&body)?;
        let lasts = self.invitation_length(&body)?;
        let mut wanted =
            self.parse_assignments(body.get("role_assignments").unwrap_or(&Value::Null))?;
        if !caller.is_owner() && wanted.is_empty() {
            return Err(Failure::new(
                403,
                "root.invalid_authentication",
                "The user may not invite to the organization",
            ));
        }
        self.validate(caller, &mut wanted, Purpose::Invite)?;
        self.check_addresses(organization_id, &emails, now)?;
        self.take_invitation_allowance(organization_id, emails.len(), now)?;
        let mut made = Vec::new();
        for email in emails {
            made.push(Invitation {
                token: text::token(&mut self.tokens, 32),
                email,
                created_at: now,
                expires_at: now + lasts,
                role_assignments: wanted.clone(),
            });
        }
        let Some(organization) = self.world.organization_mut(organization_id) else {
            return Err(Failure::new(
                404,
                "organization.not_found",
                "No such organization",
            ));
        };
        organization
            .invitations
            .retain(|old| !made.iter().any(|new| same_address(&old.email, &new.email)));
        organization.invitations.extend(made.clone());
        let organization = organization_body(organization);
        let bodies: Vec<Value> = made
            .iter()
            .map(|invitation| self.invitation_body(Some(caller), &organization, invitation, now))
            .collect();
        Ok(Reply::json(201, json!({ "invitations": bodies })))
    }

    fn invitation_length(&self, body: &Value) -> Result<TimeDelta, Failure> {
        let default = TimeDelta::try_hours(72).expect("three days fit");
        let lasts = match body.get("expires_in") {
            None => default,
            Some(value) => value.as_str().and_then(text::duration).ok_or_else(|| {
                Failure::new(400, "root.invalid_data", "expires_in is not a duration")
                    .field("expires_in")
            })?,
        };
        let most = self.settings.invitation_max_seconds;
        if most > 0 && lasts.num_seconds() > most {
            return Err(
                Failure::new(400, "root.invalid_data", "expires_in is too long")
                    .field("expires_in"),
            );
        }
        Ok(lasts)
    }

    fn check_addresses(
        &self,
        organization_id: &str,
        emails: &[String],
        now: DateTime<Utc>,
    ) -> Result<(), Failure> {
        let Some(organization) = self.world.organization(organization_id) else {
            return Ok(());
        };
        for email in emails {
            if organization
                .members
                .iter()
                .any(|member| same_address(&member.email, email))
            {
                return Err(Failure::new(
                    400,
                    "organization.user_organization_already_belongs",
                    format!("[{email}] already belongs to the organization"),
                ));
            }
            let is_open = organization.invitations.iter().any(|invitation| {
                same_address(&invitation.email, email) && invitation.expires_at > now
            });
            if is_open && self.settings.second_invitation == SecondInvitation::Conflict {
                return Err(Failure::new(
                    400,
                    "organization.invitation_already_exists",
                    format!("There is already an invitation for [{email}]"),
                ));
            }
        }
        Ok(())
    }

    fn take_invitation_allowance(
        &mut self,
        organization_id: &str,
        count: usize,
        now: DateTime<Utc>,
    ) -> Result<(), Failure> {
        let limit = usize::try_from(self.settings.invitation_limit).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(());
        }
        let window = TimeDelta::try_seconds(self.settings.invitation_window_seconds)
            .unwrap_or(TimeDelta::zero());
        let sent = self
            .sent_invitations
            .entry(organization_id.to_owned())
            .or_default();
        sent.retain(|at| now - *at < window);
        if sent.len() + count > limit {
            let mut failure = Failure::new(
                429,
                "organization.invitations_rate_limit_exceeded",
                "Too many invitations were sent",
            );
            if self.settings.invitation_retry_after == Presence::Present {
                let wait = sent.first().map_or(window, |first| *first + window - now);
                failure.retry_after = Some(wait.num_seconds().max(1).to_string());
            }
            return Err(failure);
        }
        sent.extend(std::iter::repeat_n(now, count));
        Ok(())
    }

    pub(crate) fn cancel_invitations(
        &mut self,
        caller: &Caller,
        organization_id: &str,
        tokens: &[String],
    ) -> Outcome {
        caller.own_organization(organization_id)?;
        caller.owner_only(self)?;
        if tokens.is_empty() {
            return Err(Failure::new(
                400,
                "root.invalid_data",
                "No valid token was supplied",
            ));
        }
        let tolerant = self.settings.partial_csv == PartialCsv::BestEffort;
        let Some(organization) = self.world.organization_mut(organization_id) else {
            return Err(Failure::new(
                404,
                "organization.not_found",
                "No such organization",
            ));
        };
        let is_known =
            |token: &&String| organization.invitations.iter().any(|i| i.token == **token);
        let known = tokens.iter().filter(is_known).count();
        if known == 0 || (known < tokens.len() && !tolerant) {
            return Err(not_found());
        }
        organization
            .invitations
            .retain(|invitation| !tokens.contains(&invitation.token));
        Ok(Reply::empty())
    }

    fn find_invitation(&self, token: &str) -> Option<(&Organization, &Invitation)> {
        self.world.organizations.iter().find_map(|organization| {
            let found = organization.invitations.iter().find(|i| i.token == token)?;
            Some((organization, found))
        })
    }

    pub(crate) fn get_invitation(&mut self, token: &str, now: DateTime<Utc>) -> Outcome {
        let (organization, invitation) = self.find_invitation(token).ok_or_else(not_found)?;
        let (organization, invitation) = (organization_body(organization), invitation.clone());
        Ok(Reply::ok(self.invitation_body(
            None,
            &organization,
            &invitation,
            now,
        )))
    }

    /// Accepting over the API: who accepts stands in a header of the simulator.
    pub(crate) fn accept_by_request(
        &mut self,
        token: &str,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Outcome {
        let Some(user_id) = request.header(USER_HEADER) else {
            return Err(Failure::new(
                403,
                "root.invalid_authentication",
                "An API key cannot accept an invitation",
            ));
        };
        let known = self
            .world
            .people
            .iter()
            .find(|person| person.user_id == user_id)
            .cloned();
        let person = match known {
            Some(person) => person,
            None if self.world.membership(user_id).is_some() => Person {
                user_id: user_id.to_owned(),
                email: String::new(),
                name: String::new(),
            },
            None => {
                let message = format!("User [{user_id}] was not found");
                return Err(Failure::new(404, "user.not_found", message));
            }
        };
        self.accept(token, person, now)?;
        Ok(Reply::empty())
    }

    /// A person joins with an invitation.
    pub(crate) fn accept(
        &mut self,
        token: &str,
        person: Person,
        now: DateTime<Utc>,
    ) -> Result<(), Failure> {
        let (organization, invitation) = self.find_invitation(token).ok_or_else(not_found)?;
        if invitation.expires_at <= now {
            return Err(not_found());
        }
        let (organization_id, invitation) = (organization.id.clone(), invitation.clone());
        if self.world.membership(&person.user_id).is_some() {
            return Err(Failure::new(
                400,
                "organization.user_organization_already_belongs",
                "The user already belongs to an organization",
            ));
        }
        let is_other = !same_address(&person.email, &invitation.email);
        if self.settings.accept_requires_email && is_other {
            return Err(Failure::new(
                403,
                "root.invalid_authentication",
                "The invitation was sent to another address",
            ));
        }
        if let Some(organization) = self.world.organization_mut(&organization_id) {
            organization.invitations.retain(|open| open.token != token);
        }
        self.join(&organization_id, person, invitation.role_assignments, now);
        Ok(())
    }
}

fn not_found() -> Failure {
    Failure::new(
        404,
        "organization.invitation_not_found",
        "The invitation was not found",
    )
}

fn same_address(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn addresses(body: &Value) -> Result<Vec<String>, Failure> {
    let wrong = || {
        Failure::new(
            400,
            "organization.invitation_invalid_email",
            "An e-mail address is invalid",
        )
        .field("emails")
    };
    let list = body
        .get("emails")
        .and_then(Value::as_array)
        .ok_or_else(wrong)?;
    if list.is_empty() {
        return Err(wrong());
    }
    let mut emails: Vec<String> = Vec::new();
    for value in list {
        let email = value.as_str().ok_or_else(wrong)?;
        let valid = email.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty() && host.contains('.') && !host.contains('@')
        });
        if !valid || email.chars().any(char::is_whitespace) {
            return Err(wrong());
        }
        if !emails.iter().any(|known| same_address(known, email)) {
            emails.push(email.to_owned());
        }
    }
    Ok(emails)
}
