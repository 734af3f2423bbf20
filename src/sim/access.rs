//! Who calls, and what the caller may change and see. Never changes anything.

use chrono::{DateTime, Utc};

use super::assignments::{Assignments, Pair, Scope, Target};
use super::core::Core;
use super::reply::Failure;
use super::request::Request;

/// The holder of a valid Cloud API key.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) key_id: String,
    pub(crate) organization_id: String,
    pub(crate) user_id: String,
    pub(crate) expiration_date: Option<DateTime<Utc>>,
    pub(crate) role_assignments: Assignments,
}

impl Caller {
    pub(crate) fn of(core: &Core, request: &Request, now: DateTime<Utc>) -> Result<Self, Failure> {
        let refused = || {
            Failure::new(
                401,
                core.settings.credentials_code.clone(),
                "The supplied authentication is invalid",
            )
        };
        let value = request.api_key().ok_or_else(refused)?;
        for organization in &core.world.organizations {
            for key in &organization.api_keys {
                if key.key == value && !key.is_expired(now) {
                    return Ok(Self {
                        key_id: key.id.clone(),
                        organization_id: organization.id.clone(),
                        user_id: key.user_id.clone(),
                        expiration_date: key.expiration_date,
                        role_assignments: key.role_assignments.clone(),
                    });
                }
            }
        }
        Err(refused())
    }

    pub(crate) fn is_owner(&self) -> bool {
        self.role_assignments
            .has_organization_role(&self.organization_id, "organization-admin")
    }

    /// Whether this pair may be given and taken by the caller.
    pub(crate) fn administers(&self, pair: &Pair) -> bool {
        if self.is_owner() {
            return pair.scope != Scope::Platform;
        }
        let role = match &pair.scope {
            Scope::Deployment => "deployment-admin".to_owned(),
            Scope::Project(kind) => format!("{kind}-admin"),
            Scope::Platform | Scope::Organization | Scope::Other(_) => return false,
        };
        self.reaches(pair, Some(&role))
    }

    /// Whether this pair is shown to the caller.
    pub(crate) fn sees(&self, pair: &Pair) -> bool {
        self.is_owner() || self.administers(pair)
    }

    /// Whether the caller has any role on this resource.
    pub(crate) fn reaches_id(&self, scope: Scope, id: &str) -> bool {
        let pair = Pair {
            scope,
            role_id: String::new(),
            organization_id: None,
            target: Target::Id(id.to_owned()),
            application_roles: None,
        };
        self.is_owner() || self.reaches(&pair, None)
    }

    fn reaches(&self, pair: &Pair, role: Option<&str>) -> bool {
        self.role_assignments.entries.iter().any(|entry| {
            entry.scope == pair.scope
                && role.is_none_or(|role| entry.role_id == role)
                && match &pair.target {
                    Target::Id(id) => {
                        entry.all == Some(true) || entry.ids.iter().flatten().any(|own| own == id)
                    }
                    Target::All => entry.all == Some(true),
                    Target::Whole => false,
                }
        })
    }

    /// Requires ownership of the organization.
    pub(crate) fn owner_only(&self, core: &Core) -> Result<(), Failure> {
        if self.is_owner() {
            return Ok(());
        }
        Err(Failure::new(
            403,
            core.settings.forbidden_code.clone(),
            "The user does not have the required authorization",
        ))
    }

    /// Requires the organization of the path to be the caller's.
    pub(crate) fn own_organization(&self, id: &str) -> Result<(), Failure> {
        if self.organization_id == id {
            return Ok(());
        }
        Err(Failure::new(
            404,
            "organization.not_found",
            format!("Organization [{id}] was not found"),
        ))
    }
}
