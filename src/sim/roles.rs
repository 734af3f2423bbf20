//! Changing role assignments: what is valid, what is allowed, and the change itself.
//!
//! One unauthorized pair refuses the whole call; nothing is applied in part.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::access::Caller;
use super::assignments::{Assignments, Pair, Scope, Target};
use super::core::Core;
use super::reply::{Failure, Outcome, Reply};
use super::request::Request;
use super::settings::{
    AddHeld, HiddenBlocksAll, IdOrder, LastOwner, Leniency, Match, Missing, RemoveNotHeld,
    ShortRoleIds, UnderAll, UnknownTarget,
};
use super::text;
use super::world::{Organization, ProjectType};

/// What assignments in a request are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Assign,
    Invite,
    Key,
}

const ORGANIZATION_ROLES: [&str; 2] = ["organization-admin", "billing-admin"];
const DEPLOYMENT_ROLES: [&str; 3] = ["deployment-admin", "deployment-editor", "deployment-viewer"];
const ELASTICSEARCH_ROLES: [&str; 3] = ["admin", "developer", "viewer"];
const OBSERVABILITY_ROLES: [&str; 3] = ["admin", "editor", "viewer"];
const SECURITY_ROLES: [&str; 13] = [
    "admin",
    "editor",
    "viewer",
    "t1-analyst",
    "t2-analyst",
    "t3-analyst",
    "threat-intel-analyst",
    "rule-author",
    "soc-manager",
    "detections-admin",
    "platform-engineer",
    "endpoint-operations-analyst",
    "endpoint-policy-manager",
];

fn project_roles(kind: ProjectType) -> &'static [&'static str] {
    match kind {
        ProjectType::Elasticsearch => &ELASTICSEARCH_ROLES,
        ProjectType::Observability => &OBSERVABILITY_ROLES,
        ProjectType::Security => &SECURITY_ROLES,
    }
}

/// The prefixed form of a project role given short, with hyphens or underscores.
fn prefixed(kind: &str, role_id: &str) -> Option<String> {
    let plain = role_id.replace('_', "-");
    let known = project_roles(ProjectType::of(kind)?);
    known
        .contains(&plain.as_str())
        .then(|| format!("{kind}-{plain}"))
}

fn is_known_role(scope: &Scope, role_id: &str) -> bool {
    match scope {
        Scope::Platform | Scope::Other(_) => true,
        Scope::Organization => ORGANIZATION_ROLES.contains(&role_id),
        Scope::Deployment => DEPLOYMENT_ROLES.contains(&role_id),
        Scope::Project(kind) => ProjectType::of(kind).is_some_and(|known| {
            role_id
                .strip_prefix(kind.as_str())
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|plain| project_roles(known).contains(&plain))
        }),
    }
}

fn unauthorized(what: &str) -> Failure {
    Failure::new(
        403,
        "role_assignments.unauthorized_role_assignments",
        format!("The user is not authorized to manage the role assignments: {what}"),
    )
}

impl Core {
    fn invalid(&self, message: impl Into<String>) -> Failure {
        Failure::new(400, self.settings.invalid_assignment_code.clone(), message)
    }

    /// Reads assignments out of a request.
    pub(crate) fn parse_assignments(&self, value: &Value) -> Result<Assignments, Failure> {
        Assignments::parse(value).map_err(|message| self.invalid(message))
    }

    /// Checks that a caller may give or take these, and brings them into the stored form.
    pub(crate) fn validate(
        &self,
        caller: &Caller,
        wanted: &mut Assignments,
        purpose: Purpose,
    ) -> Result<(), Failure> {
        self.check_form(caller, wanted)?;
        let organization = self
            .world
            .organization(&caller.organization_id)
            .ok_or_else(|| Failure::new(404, "organization.not_found", "No such organization"))?;
        for pair in wanted.pairs() {
            self.check_target(organization, &pair, purpose)?;
            if !caller.administers(&pair) {
                return Err(unauthorized(&pair.label()));
            }
        }
        Ok(())
    }

    fn check_form(&self, caller: &Caller, wanted: &mut Assignments) -> Result<(), Failure> {
        for entry in &mut wanted.entries {
            if let Scope::Project(kind) = &entry.scope {
                let short = prefixed(kind, &entry.role_id);
                match (self.settings.short_role_ids, short) {
                    (ShortRoleIds::Alias, Some(full)) => entry.role_id = full,
                    (ShortRoleIds::Store, Some(_)) => {
                        self.check_entry(caller, entry, true)?;
                        continue;
                    }
                    _ => {}
                }
            }
            self.check_entry(caller, entry, false)?;
        }
        wanted.fill_organization(&caller.organization_id);
        Ok(())
    }

    fn check_entry(
        &self,
        caller: &Caller,
        entry: &super::assignments::Assignment,
        is_known: bool,
    ) -> Result<(), Failure> {
        let known = is_known || is_known_role(&entry.scope, &entry.role_id);
        if !known && self.settings.unknown_role == Leniency::Reject {
            return Err(self
                .invalid(format!("Unknown role [{}]", entry.role_id))
                .field("role_id"));
        }
        match &entry.organization_id {
            Some(id) if *id != caller.organization_id => {
                return Err(unauthorized(&format!("organization {id}")));
            }
            None if entry.scope != Scope::Platform
                && self.settings.missing_organization_id == Leniency::Reject =>
            {
                return Err(self
                    .invalid("organization_id is required")
                    .field("organization_id"));
            }
            Some(_) | None => {}
        }
        if let Some(ids_field) = entry.scope.ids_field()
            && (entry.all == Some(true)) == entry.ids.is_some()
            && self.settings.all_with_ids == Leniency::Reject
        {
            let message = format!("{ids_field} must be absent if all is true, else present");
            return Err(self.invalid(message).field(ids_field));
        }
        Ok(())
    }

    fn check_target(
        &self,
        organization: &Organization,
        pair: &Pair,
        purpose: Purpose,
    ) -> Result<(), Failure> {
        let exists = match (&pair.scope, &pair.target) {
            (Scope::Deployment, Target::All) => {
                let blocks = match self.settings.hidden_blocks_all {
                    HiddenBlocksAll::Never => false,
                    HiddenBlocksAll::Invitations => purpose == Purpose::Invite,
                    HiddenBlocksAll::Everywhere => true,
                };
                if blocks && organization.deployments.iter().any(|d| d.hidden) {
                    return Err(unauthorized(&pair.label()));
                }
                true
            }
            (Scope::Deployment, Target::Id(id)) => {
                let found = organization.deployments.iter().find(|d| d.id == *id);
                if self.settings.hidden_blocks_changes && found.is_some_and(|d| d.hidden) {
                    return Err(unauthorized(&pair.label()));
                }
                found.is_some()
            }
            (Scope::Project(kind), Target::Id(id)) => organization
                .projects
                .iter()
                .any(|project| project.id == *id && project.kind.name() == kind),
            _ => true,
        };
        match self.settings.unknown_target {
            _ if exists => Ok(()),
            UnknownTarget::Accept => Ok(()),
            UnknownTarget::Forbidden => Err(unauthorized(&pair.label())),
            UnknownTarget::BadRequest => {
                Err(self.invalid(format!("Unknown resource in {}", pair.label())))
            }
        }
    }

    fn target_member(&self, caller: &Caller, user_id: &str) -> Result<Assignments, Failure> {
        let member = self
            .world
            .organization(&caller.organization_id)
            .and_then(|organization| organization.member(user_id));
        match (member, self.settings.unknown_user) {
            (Some(member), _) => Ok(member.role_assignments.clone()),
            (None, Missing::NotFound) => Err(Failure::new(
                404,
                "user.not_found",
                format!("User [{user_id}] was not found"),
            )),
            (None, Missing::BadRequest | Missing::NotImplemented) => Err(Failure::new(
                400,
                "role_assignments.invalid_target_user_id",
                format!("The target user id [{user_id}] is invalid"),
            )),
        }
    }

    pub(crate) fn add_assignments(
        &mut self,
        caller: &Caller,
        user_id: &str,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Outcome {
        let mut wanted = self.parse_assignments(&request.json()?)?;
        let held = self.target_member(caller, user_id)?;
        self.validate(caller, &mut wanted, Purpose::Assign)?;
        if self.settings.add_held == AddHeld::BadRequest
            && let Some(pair) = wanted.pairs().iter().find(|pair| held.holds(pair, true))
        {
            let message = format!("The user already has {}", pair.label());
            return Err(Failure::new(
                400,
                "role_assignments.invalid_config",
                message,
            ));
        }
        self.before_change(&caller.organization_id, user_id, now);
        if let Some(member) = self.world.member_mut(user_id) {
            member.role_assignments.add(&wanted);
        }
        Ok(Reply::empty())
    }

    pub(crate) fn remove_assignments(
        &mut self,
        caller: &Caller,
        user_id: &str,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Outcome {
        let mut unwanted = self.parse_assignments(&request.json()?)?;
        let held = self.target_member(caller, user_id)?;
        self.validate(caller, &mut unwanted, Purpose::Assign)?;
        let exact = self.settings.remove_matches == Match::Exact;
        for pair in unwanted
            .pairs()
            .iter()
            .filter(|pair| !held.holds(pair, exact))
        {
            if held.holds_all_over(pair) {
                if self.settings.remove_id_under_all == UnderAll::Error {
                    let message = format!("{} is held through all", pair.label());
                    return Err(Failure::new(
                        400,
                        "role_assignments.invalid_config",
                        message,
                    ));
                }
                continue;
            }
            let message = format!("The user does not have {}", pair.label());
            match self.settings.remove_not_held {
                RemoveNotHeld::Ok => {}
                RemoveNotHeld::Forbidden => return Err(unauthorized(&message)),
                RemoveNotHeld::NotFound => {
                    return Err(Failure::new(404, "root.resource_not_found", message));
                }
            }
        }
        self.check_last_owner(&caller.organization_id, &[user_id], |left| {
            left.remove(&unwanted, exact);
        })?;
        self.before_change(&caller.organization_id, user_id, now);
        if let Some(member) = self.world.member_mut(user_id) {
            member.role_assignments.remove(&unwanted, exact);
        }
        Ok(Reply::empty())
    }

    /// Refuses a change to these members after which the organization has no owner.
    pub(crate) fn check_last_owner(
        &self,
        organization_id: &str,
        user_ids: &[&str],
        change: impl Fn(&mut Assignments),
    ) -> Result<(), Failure> {
        let Some(organization) = self.world.organization(organization_id) else {
            return Ok(());
        };
        let owns = |a: &Assignments| a.has_organization_role(organization_id, "organization-admin");
        let lost: BTreeSet<&str> = user_ids
            .iter()
            .filter_map(|id| organization.member(id))
            .filter(|member| owns(&member.role_assignments))
            .filter(|member| {
                let mut after = member.role_assignments.clone();
                change(&mut after);
                !owns(&after)
            })
            .map(|member| member.user_id.as_str())
            .collect();
        let is_last = !lost.is_empty() && organization.owners() == lost.len();
        if is_last && self.settings.last_owner == LastOwner::Protect {
            return Err(Failure::new(
                400,
                self.settings.last_owner_code.clone(),
                "The last organization owner cannot be removed",
            ));
        }
        Ok(())
    }

    /// Assignments as a listing shows them to this caller.
    pub(crate) fn listed(&mut self, caller: &Caller, held: &Assignments) -> Assignments {
        let mut shown = if self.settings.collapse_entries {
            held.collapsed()
        } else {
            held.clone()
        };
        if !caller.is_owner() {
            for entry in &mut shown.entries {
                let visible: Vec<Target> = entry
                    .pairs()
                    .into_iter()
                    .filter(|pair| caller.sees(pair))
                    .map(|pair| pair.target)
                    .collect();
                if visible.is_empty() {
                    entry.role_id.clear();
                } else if let Some(ids) = &mut entry.ids {
                    ids.retain(|id| visible.contains(&Target::Id(id.clone())));
                }
            }
            shown.entries.retain(|entry| !entry.role_id.is_empty());
        }
        match self.settings.id_order {
            IdOrder::Insertion => {}
            IdOrder::Sorted => {
                shown
                    .entries
                    .sort_by(|a, b| (&a.role_id, &a.ids).cmp(&(&b.role_id, &b.ids)));
                shown
                    .entries
                    .iter_mut()
                    .filter_map(|e| e.ids.as_mut())
                    .for_each(|ids| ids.sort());
            }
            IdOrder::Shuffled => {
                text::shuffle(&mut self.shuffles, &mut shown.entries);
                for ids in shown
                    .entries
                    .iter_mut()
                    .filter_map(|entry| entry.ids.as_mut())
                {
                    text::shuffle(&mut self.shuffles, ids);
                }
            }
        }
        shown
    }
}
