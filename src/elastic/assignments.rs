//! Role assignments between the wire and the domain.
//!
//! Owns both directions: entries that were shown become pairs of role and target, and pairs to send become entries.
//! What was shown but does not fit a pair is left out of both, so that nothing can ever be sent that would touch it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::wire::{ProjectAssignments, RoleAssignments, SentEntry, ShownEntry, Text};
use crate::domain::assignment::{ApplicationRoles, Assignment, ProjectType, Scope, Target};
use crate::domain::catalogue;
use crate::domain::ids::{ApplicationRole, DeploymentId, ProjectId};

/// The role of an organization's owner.
const OWNER: &str = "organization-admin";
/// Longest role id that is passed on; known ones have at most 36 characters.
const MAX_ROLE: usize = 128;

/// What a member's `role_assignments` showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// Every pair that fits the domain.
    pub(super) assignments: BTreeSet<Assignment>,
    /// Whether the owner's role was among them, in whatever form.
    pub(super) is_owner: bool,
    /// Whether something had a shape that cannot be read, so that a pair missing above proves nothing.
    pub(super) is_odd: bool,
}

/// Reads the assignments in one organization.
pub(super) fn read(value: Option<&Value>, organization: &str) -> Shown {
    let mut shown = Shown::default();
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return shown;
    };
    let Some(scopes) = value.as_object() else {
        shown.is_odd = true;
        return shown;
    };
    shown.take(
        scopes.get("organization"),
        Scope::Organization,
        organization,
    );
    shown.take(scopes.get("deployment"), Scope::Deployment, organization);
    match scopes.get("project") {
        None | Some(Value::Null) => {}
        Some(Value::Object(types)) => {
            for project_type in ProjectType::ALL {
                shown.take(
                    types.get(project_type.as_str()),
                    Scope::Project(project_type),
                    organization,
                );
            }
        }
        Some(_) => shown.is_odd = true,
    }
    shown
}

impl Shown {
    fn take(&mut self, entries: Option<&Value>, scope: Scope, organization: &str) {
        let entries = match entries {
            None | Some(Value::Null) => return,
            Some(Value::Array(entries)) => entries,
            Some(_) => {
                self.is_odd = true;
                return;
            }
        };
        for entry in entries.iter().filter(|entry| !entry.is_null()) {
            match ShownEntry::deserialize(entry) {
                Ok(entry) => self.take_entry(entry, scope, organization),
                Err(_) => self.is_odd = true,
            }
        }
    }

    fn take_entry(&mut self, entry: ShownEntry, scope: Scope, organization: &str) {
        let ShownEntry {
            role_id,
            organization_id,
            all,
            deployment_ids,
            project_ids,
            application_roles,
        } = entry;
        let Text::Is(role) = role_id else {
            self.is_odd = true;
            return;
        };
        // Another organization's entry is none of ours; one without an organization can only mean this one.
        if organization_id
            .as_str()
            .is_some_and(|id| id != organization)
        {
            return;
        }
        if role.is_empty() || role.len() > MAX_ROLE || !role.bytes().all(|b| b.is_ascii_graphic()) {
            return;
        }
        let role = catalogue::canonical(&role, scope);
        self.is_owner |= scope == Scope::Organization && role == OWNER;
        let application_roles = match application_roles {
            None => ApplicationRoles::Mapped,
            Some(names) => {
                let parsed: Option<BTreeSet<_>> = names
                    .into_iter()
                    .map(|name| ApplicationRole::parse(name.into_string()?).ok())
                    .collect();
                // Nothing that we could have written: it stays as it is, unseen.
                let Some(parsed) = parsed else { return };
                ApplicationRoles::Exactly(parsed)
            }
        };
        let mut add = |target| {
            self.assignments.insert(Assignment {
                role: role.clone(),
                target,
                application_roles: application_roles.clone(),
            });
        };
        match scope {
            Scope::Organization => add(Target::Organization),
            Scope::Deployment => {
                if all == Some(true) {
                    add(Target::AllDeployments);
                }
                for id in deployment_ids {
                    if let Some(Ok(id)) = id.into_string().map(DeploymentId::parse) {
                        add(Target::Deployment { id });
                    }
                }
            }
            Scope::Project(project_type) => {
                if all == Some(true) {
                    add(Target::AllProjects { project_type });
                }
                for id in project_ids {
                    if let Some(Ok(id)) = id.into_string().map(ProjectId::parse) {
                        add(Target::Project { project_type, id });
                    }
                }
            }
        }
    }
}

/// Writes assignments as one body: pairs of equal role and application roles share an entry.
pub(super) fn write<'a>(
    assignments: impl IntoIterator<Item = &'a Assignment>,
    organization: &str,
) -> RoleAssignments {
    type Group<'a> = (Scope, &'a str, &'a ApplicationRoles, bool);
    let mut groups: BTreeMap<Group<'a>, BTreeSet<&'a str>> = BTreeMap::new();
    for assignment in assignments {
        let Assignment {
            role,
            target,
            application_roles,
        } = assignment;
        let ids = groups
            .entry((target.scope(), role, application_roles, target.is_all()))
            .or_default();
        match target {
            Target::Organization | Target::AllDeployments | Target::AllProjects { .. } => {}
            Target::Deployment { id } => {
                ids.insert(id.as_str());
            }
            Target::Project { id, .. } => {
                ids.insert(id.as_str());
            }
        }
    }
    let mut body = RoleAssignments::default();
    for ((scope, role, application_roles, is_all), ids) in groups {
        let ids = || Some(ids.iter().map(|id| (*id).to_owned()).collect());
        let entry = SentEntry {
            role_id: role.to_owned(),
            organization_id: organization.to_owned(),
            all: is_all.then_some(true),
            deployment_ids: (scope == Scope::Deployment && !is_all).then(ids).flatten(),
            project_ids: (matches!(scope, Scope::Project(_)) && !is_all)
                .then(ids)
                .flatten(),
            application_roles: match application_roles {
                ApplicationRoles::Mapped => None,
                ApplicationRoles::Exactly(names) => {
                    Some(names.iter().map(|name| name.as_str().to_owned()).collect())
                }
            },
        };
        let ProjectAssignments {
            elasticsearch,
            observability,
            security,
        } = &mut body.project;
        match scope {
            Scope::Organization => body.organization.push(entry),
            Scope::Deployment => body.deployment.push(entry),
            Scope::Project(ProjectType::Elasticsearch) => elasticsearch.push(entry),
            Scope::Project(ProjectType::Observability) => observability.push(entry),
            Scope::Project(ProjectType::Security) => security.push(entry),
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn deployment(id: &str) -> Target {
        Target::Deployment {
            id: DeploymentId::parse(id).expect("valid id"),
        }
    }

    fn exactly(names: &[&str]) -> ApplicationRoles {
        ApplicationRoles::Exactly(
            names
                .iter()
                .map(|name| ApplicationRole::parse(*name).expect("valid name"))
                .collect(),
        )
    }

    fn pair(role: &str, target: Target, application_roles: ApplicationRoles) -> Assignment {
        Assignment {
            role: role.to_owned(),
            target,
            application_roles,
        }
    }

    #[test]
    fn equal_pairs_share_an_entry_and_nothing_is_null() {
        let mapped = ApplicationRoles::Mapped;
        let pairs = [
            pair("deployment-viewer", deployment("b"), mapped.clone()),
            pair("deployment-viewer", deployment("a"), mapped.clone()),
            pair("deployment-viewer", deployment("c"), exactly(&[])),
            pair("deployment-viewer", Target::AllDeployments, mapped.clone()),
            pair("billing-admin", Target::Organization, mapped),
        ];
        assert_eq!(
            serde_json::to_value(write(&pairs, "7")).expect("serialises"),
            json!({
                "organization": [{"role_id": "billing-admin", "organization_id": "7"}],
                "deployment": [
                    {"role_id": "deployment-viewer", "organization_id": "7", "deployment_ids": ["a", "b"]},
                    {"role_id": "deployment-viewer", "organization_id": "7", "all": true},
                    {"role_id": "deployment-viewer", "organization_id": "7", "deployment_ids": ["c"],
                     "application_roles": []},
                ],
            })
        );
    }

    #[test]
    fn null_is_absent_and_short_ids_become_canonical() {
        let shown = read(
            Some(&json!({
                "platform": null, "organization": null,
                "deployment": [{"role_id": "viewer", "organization_id": "7", "all": null,
                                "deployment_ids": ["b", "a"], "application_roles": null}],
                "project": {"elasticsearch": null, "observability": null,
                            "security": [{"role_id": "t1_analyst", "all": true, "project_ids": null}],
                            "vectordb": [{"role_id": "x"}]},
            })),
            "7",
        );
        let security = ProjectType::Security;
        assert_eq!(
            shown,
            Shown {
                assignments: BTreeSet::from([
                    pair(
                        "deployment-viewer",
                        deployment("a"),
                        ApplicationRoles::Mapped
                    ),
                    pair(
                        "deployment-viewer",
                        deployment("b"),
                        ApplicationRoles::Mapped
                    ),
                    pair(
                        "security-t1-analyst",
                        Target::AllProjects {
                            project_type: security
                        },
                        ApplicationRoles::Mapped
                    ),
                ]),
                is_owner: false,
                is_odd: false,
            }
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_other_organizations_too() {
        let shown = read(
            Some(&json!({
                "cloud_connected_resource": [{"role_id": "cloud-connected-admin", "resource_ids": ["x"]}],
                "organization": [{"role_id": "organization-admin", "organization_id": "8"}],
                "deployment": [
                    {"role_id": "deployment-viewer", "deployment_ids": ["../x", "*", 7]},
                    {"role_id": "deployment-viewer", "deployment_ids": ["a"], "application_roles": ["a b"]},
                    {"role_id": "new\u{0}role", "all": true},
                ],
            })),
            "7",
        );
        assert_eq!(shown, Shown::default());
    }

    #[test]
    fn shapes_that_cannot_be_read_are_told() {
        for odd in [
            json!("roles"),
            json!({"deployment": {}}),
            json!({"deployment": ["x"]}),
            json!({"deployment": [{"role_id": 7}]}),
            json!({"deployment": [{"role_id": "x", "deployment_ids": "a"}]}),
            json!({"project": []}),
        ] {
            assert!(read(Some(&odd), "7").is_odd, "{odd}");
        }
    }

    #[test]
    fn the_owner_counts_with_and_without_application_roles() {
        let entry = json!({"organization": [
            {"role_id": "organization-admin", "organization_id": "7", "application_roles": ["admin"]}]});
        let shown = read(Some(&entry), "7");
        assert!(shown.is_owner);
        assert_eq!(
            shown.assignments,
            BTreeSet::from([pair(
                "organization-admin",
                Target::Organization,
                exactly(&["admin"])
            )])
        );
    }

    fn any_assignment() -> impl Strategy<Value = Assignment> {
        let id = "[a-z0-9]{1,4}";
        let kind = prop_oneof![
            Just(ProjectType::Elasticsearch),
            Just(ProjectType::Observability),
            Just(ProjectType::Security)
        ];
        let target = prop_oneof![
            Just(Target::Organization),
            Just(Target::AllDeployments),
            id.prop_map(|id| deployment(&id)),
            kind.clone()
                .prop_map(|project_type| Target::AllProjects { project_type }),
            (kind, id).prop_map(|(project_type, id)| Target::Project {
                project_type,
                id: ProjectId::parse(id).expect("valid id"),
            }),
        ];
        let roles = prop_oneof![
            Just(ApplicationRoles::Mapped),
            Just(exactly(&[])),
            Just(exactly(&["admin", "viewer"])),
        ];
        ("[a-z]{3,5}-x", target, roles).prop_map(|(role, target, roles)| pair(&role, target, roles))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_as_the_same_set(
            pairs in proptest::collection::btree_set(any_assignment(), 0..20)
        ) {
            let body = serde_json::to_value(write(&pairs, "7")).expect("serialises");
            prop_assert!(!body.to_string().contains("null"));
            let shown = read(Some(&body), "7");
            prop_assert_eq!(shown.assignments, pairs);
            prop_assert!(!shown.is_odd);
        }
    }
}
