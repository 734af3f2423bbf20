//! Organizations and the account.

use serde_json::{Value, json};

use super::access::Caller;
use super::core::Core;
use super::members::organization_body;
use super::reply::{Failure, Outcome, Reply};
use super::request::Request;
use super::world::Organization;

impl Core {
    pub(crate) fn own(&self, caller: &Caller) -> Result<&Organization, Failure> {
        self.world
            .organization(&caller.organization_id)
            .ok_or_else(|| {
                Failure::new(
                    404,
                    "organization.not_found",
                    "The organization was not found",
                )
            })
    }

    fn accessible(&self, caller: &Caller, id: &str) -> Result<&Organization, Failure> {
        let organization = self.world.organization(id).ok_or_else(|| {
            Failure::new(
                404,
                "organization.not_found",
                format!("Organization [{id}] was not found"),
            )
        })?;
        if organization.id == caller.organization_id {
            Ok(organization)
        } else {
            Err(Failure::new(
                403,
                "organization.invalid_access",
                format!("The user has no access to organization [{id}]"),
            ))
        }
    }

    pub(crate) fn list_organizations(&self, caller: &Caller) -> Outcome {
        let own = self.own(caller)?;
        Ok(Reply::ok(
            json!({ "organizations": [organization_body(own)] }),
        ))
    }

    pub(crate) fn get_organization(&self, caller: &Caller, id: &str) -> Outcome {
        Ok(Reply::ok(organization_body(self.accessible(caller, id)?)))
    }

    pub(crate) fn update_organization(
        &mut self,
        caller: &Caller,
        id: &str,
        request: &Request,
    ) -> Outcome {
        self.accessible(caller, id)?;
        if !caller.is_owner() {
            return Err(Failure::new(
                403,
                "organization.invalid_access",
                "Only an organization owner may change the organization",
            ));
        }
        let Value::Object(mut fields) = request.json()? else {
            return Err(Failure::new(
                400,
                "root.invalid_data",
                "The body must be an object",
            ));
        };
        let name = fields.remove("name");
        fields.remove("id");
        if let Some(name) = &name {
            let length = name.as_str().map_or(0, |name| name.chars().count());
            if !(2..=30).contains(&length) {
                return Err(Failure::new(
                    400,
                    "organization.invalid_name",
                    "The name must have 2 to 30 characters",
                )
                .field("name"));
            }
        }
        let organization = self
            .world
            .organization_mut(id)
            .ok_or_else(|| Failure::new(404, "organization.not_found", "No such organization"))?;
        if let Some(name) = name.as_ref().and_then(Value::as_str) {
            name.clone_into(&mut organization.name);
        }
        organization.details.extend(fields);
        Ok(Reply::ok(organization_body(organization)))
    }

    pub(crate) fn get_account(&self, caller: &Caller) -> Outcome {
        let own = self.own(caller)?;
        Ok(Reply::ok(
            json!({ "id": own.id, "trust": { "trust_all": own.trust_all } }),
        ))
    }

    /// PUT and PATCH: the patch comes as JSON, or as a JSON string that holds JSON.
    pub(crate) fn update_account(&mut self, caller: &Caller, request: &Request) -> Outcome {
        caller.owner_only(self)?;
        let mut patch = request.json()?;
        if let Value::String(inner) = &patch {
            patch = serde_json::from_str(inner).map_err(|error| {
                Failure::new(
                    400,
                    "root.invalid_data",
                    format!("The patch is not JSON: {error}"),
                )
            })?;
        }
        let trust = patch.pointer("/trust/trust_all").cloned();
        let Some(own) = self.world.organization_mut(&caller.organization_id) else {
            return Err(Failure::new(
                404,
                "accounts.not_found",
                "The account was not found",
            ));
        };
        match trust {
            None | Some(Value::Null) => {}
            Some(Value::Bool(trust_all)) => own.trust_all = trust_all,
            Some(_) => {
                return Err(
                    Failure::new(400, "root.invalid_data", "trust_all must be a boolean")
                        .field("trust.trust_all"),
                );
            }
        }
        self.get_account(caller)
    }
}
