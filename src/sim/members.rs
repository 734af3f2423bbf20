//! Listing and removing the members of an organization.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};

use super::access::Caller;
use super::assignments::Assignments;
use super::core::{Core, Listing};
use super::reply::{Failure, JSON, Outcome, Reply};
use super::settings::{EmptyAssignments, Missing, PartialCsv};
use super::text::rfc3339;
use super::world::{Member, Person};

/// From here on a listing is kept, and only members that changed are written anew.
const LARGE: usize = 1_000;

#[derive(Serialize)]
struct MemberBody<'a> {
    organization_id: &'a str,
    user_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    email: &'a str,
    member_since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    role_assignments: Option<Value>,
}

impl Core {
    /// What a caller sees of assignments, ready to be sent.
    pub(crate) fn shown_assignments(
        &mut self,
        caller: &Caller,
        held: &Assignments,
    ) -> Option<Value> {
        let listed = self.listed(caller, held);
        let hides_empty = self.settings.empty_role_assignments == EmptyAssignments::Absent;
        (!(listed.is_empty() && hides_empty)).then(|| listed.to_json(self.settings.show_all_false))
    }

    pub(crate) fn list_members(
        &mut self,
        caller: &Caller,
        organization_id: &str,
        now: DateTime<Utc>,
    ) -> Outcome {
        caller.own_organization(organization_id)?;
        let stale = self.take_stale(organization_id, now);
        let is_plain = stale.is_empty() && caller.is_owner();
        if is_plain
            && let Some(listing) = &self.listing
            && listing.version == Some(self.version)
            && listing.organization_id == organization_id
        {
            return Ok(Reply::raw(200, JSON, listing.body.clone()));
        }
        let members = match self.world.organization_mut(organization_id) {
            Some(organization) => std::mem::take(&mut organization.members),
            None => Vec::new(),
        };
        let is_kept = caller.is_owner() && members.len() > LARGE;
        let mut listing = is_kept.then(|| self.kept_listing(organization_id));
        let mut text = b"{\"members\":[".to_vec();
        let gone = stale.iter().filter_map(|(user_id, before)| {
            before
                .as_ref()
                .filter(|_| !members.iter().any(|member| member.user_id == *user_id))
        });
        let present = members
            .iter()
            .filter_map(|member| match stale.get(&member.user_id) {
                Some(before) => before.as_ref(),
                None => Some(member),
            });
        let empty = text.len();
        for member in present.chain(gone) {
            if text.len() > empty {
                text.push(b',');
            }
            let written = listing
                .as_ref()
                .and_then(|kept| kept.fragments.get(&member.user_id));
            if let Some((_, fragment)) = written.filter(|(held, _)| held == member) {
                text.extend_from_slice(fragment);
                continue;
            }
            let shown = self.shown_assignments(caller, &member.role_assignments);
            let fragment = body(organization_id, member, shown);
            text.extend_from_slice(&fragment);
            if let Some(kept) = &mut listing {
                let user_id = member.user_id.clone();
                kept.fragments.insert(user_id, (member.clone(), fragment));
            }
        }
        text.extend_from_slice(b"]}");
        if let Some(organization) = self.world.organization_mut(organization_id) {
            organization.members = members;
        }
        let text = Bytes::from(text);
        if let Some(mut listing) = listing {
            listing.version = is_plain.then_some(self.version);
            listing.body = text.clone();
            self.listing = Some(Arc::new(listing));
        }
        Ok(Reply::raw(200, JSON, text))
    }

    /// What is left of the last listing of a large organization, or an empty one.
    fn kept_listing(&mut self, organization_id: &str) -> Listing {
        self.listing
            .take()
            .filter(|kept| {
                kept.organization_id == organization_id && kept.settings == self.settings
            })
            .map_or_else(
                || Listing {
                    organization_id: organization_id.to_owned(),
                    settings: self.settings.clone(),
                    version: None,
                    body: Bytes::new(),
                    fragments: BTreeMap::new(),
                },
                Arc::unwrap_or_clone,
            )
    }

    pub(crate) fn remove_members(
        &mut self,
        caller: &Caller,
        organization_id: &str,
        user_ids: &[String],
        now: DateTime<Utc>,
    ) -> Outcome {
        caller.own_organization(organization_id)?;
        caller.owner_only(self)?;
        let organization = self
            .world
            .organization(organization_id)
            .ok_or_else(|| Failure::new(404, "organization.not_found", "No such organization"))?;
        let (known, unknown): (Vec<&str>, Vec<&str>) = user_ids
            .iter()
            .map(String::as_str)
            .partition(|id| organization.member(id).is_some());
        let tolerant = self.settings.partial_csv == PartialCsv::BestEffort && !known.is_empty();
        if let Some(id) = unknown.first().filter(|_| !tolerant) {
            let status = match self.settings.membership_not_found {
                Missing::BadRequest => 400,
                Missing::NotFound | Missing::NotImplemented => 404,
            };
            let message = format!("User [{id}] is not a member of the organization");
            return Err(Failure::new(
                status,
                "organization.membership_not_found",
                message,
            ));
        }
        self.check_last_owner(organization_id, &known, |left| left.entries.clear())?;
        for user_id in known {
            self.leave(organization_id, user_id, now);
        }
        Ok(Reply::empty())
    }

    /// Ends a membership; the person stays known, and keys go on working.
    pub(crate) fn leave(
        &mut self,
        organization_id: &str,
        user_id: &str,
        now: DateTime<Utc>,
    ) -> bool {
        self.before_change(organization_id, user_id, now);
        let Some(organization) = self.world.organization_mut(organization_id) else {
            return false;
        };
        let Some(at) = organization
            .members
            .iter()
            .position(|m| m.user_id == user_id)
        else {
            return false;
        };
        let member = organization.members.remove(at);
        self.world.people.push(Person {
            user_id: member.user_id,
            email: member.email,
            name: member.name,
        });
        true
    }

    /// Makes a person a member.
    pub(crate) fn join(
        &mut self,
        organization_id: &str,
        person: Person,
        role_assignments: Assignments,
        now: DateTime<Utc>,
    ) {
        self.before_change(organization_id, &person.user_id, now);
        self.world
            .people
            .retain(|known| known.user_id != person.user_id);
        if let Some(organization) = self.world.organization_mut(organization_id) {
            organization.members.push(Member {
                user_id: person.user_id,
                email: person.email,
                name: person.name,
                member_since: now,
                role_assignments,
            });
        }
    }
}

fn body(organization_id: &str, member: &Member, role_assignments: Option<Value>) -> Bytes {
    let body = MemberBody {
        organization_id,
        user_id: &member.user_id,
        name: &member.name,
        email: &member.email,
        member_since: rfc3339(member.member_since),
        role_assignments,
    };
    serde_json::to_vec(&body)
        .expect("members are maps with text keys")
        .into()
}

/// The organization as it is embedded in answers.
pub(crate) fn organization_body(organization: &super::world::Organization) -> Value {
    let mut fields = organization.details.clone();
    fields.insert("id".to_owned(), json!(organization.id));
    fields.insert("name".to_owned(), json!(organization.name));
    Value::Object(fields)
}
