//! The roles that can be granted: canonical ids, short forms, power.
//!
//! Owns the mapping of what people write to what Elastic Cloud stores. Never passes on free text as a role.
//! Source: Elastic's API description and documentation; canonical ids are prefixed with their scope.

use super::assignment::{ProjectType, Scope};

/// One grantable role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    /// Canonical id, for example `elasticsearch-admin`.
    pub id: &'static str,
    /// Where it can be held.
    pub scope: Scope,
    /// Short form accepted at the edge, for example `admin`; only together with a target of the right scope.
    pub short: &'static str,
    /// Stack role that its holder becomes inside the deployment or project; `None` where there is no sign-in.
    pub stack_role: Option<&'static str>,
    /// Relative power, for the order of removals: higher leaves more open.
    pub weight: u32,
    /// What it allows, in a few words.
    pub summary: &'static str,
}

/// Weight of a role that the catalogue does not know: treated as strong, because nobody can tell.
pub const UNKNOWN_WEIGHT: u32 = 60;

const fn role(
    id: &'static str,
    scope: Scope,
    short: &'static str,
    stack_role: Option<&'static str>,
    weight: u32,
    summary: &'static str,
) -> Role {
    Role {
        id,
        scope,
        short,
        stack_role,
        weight,
        summary,
    }
}

const ES: Scope = Scope::Project(ProjectType::Elasticsearch);
const OBS: Scope = Scope::Project(ProjectType::Observability);
const SEC: Scope = Scope::Project(ProjectType::Security);

/// Every grantable role, strongest scope first.
pub const ROLES: &[Role] = &[
    role(
        "organization-admin",
        Scope::Organization,
        "organization-admin",
        Some("superuser"),
        100,
        "owns the organization: members, keys, every deployment and project",
    ),
    role(
        "billing-admin",
        Scope::Organization,
        "billing-admin",
        None,
        40,
        "manages invoices and payment",
    ),
    role(
        "deployment-admin",
        Scope::Deployment,
        "admin",
        Some("superuser"),
        80,
        "manages the deployment; superuser inside",
    ),
    role(
        "deployment-editor",
        Scope::Deployment,
        "editor",
        Some("editor"),
        50,
        "changes the deployment; editor inside",
    ),
    role(
        "deployment-viewer",
        Scope::Deployment,
        "viewer",
        Some("viewer"),
        20,
        "sees the deployment; viewer inside",
    ),
    role(
        "elasticsearch-admin",
        ES,
        "admin",
        Some("admin"),
        80,
        "manages the project; admin inside",
    ),
    role(
        "elasticsearch-developer",
        ES,
        "developer",
        Some("developer"),
        50,
        "builds on the project",
    ),
    role(
        "elasticsearch-viewer",
        ES,
        "viewer",
        Some("viewer"),
        20,
        "sees the project; viewer inside",
    ),
    role(
        "observability-admin",
        OBS,
        "admin",
        Some("admin"),
        80,
        "manages the project; admin inside",
    ),
    role(
        "observability-editor",
        OBS,
        "editor",
        Some("editor"),
        50,
        "changes the project; editor inside",
    ),
    role(
        "observability-viewer",
        OBS,
        "viewer",
        Some("viewer"),
        20,
        "sees the project; viewer inside",
    ),
    role(
        "security-admin",
        SEC,
        "admin",
        Some("admin"),
        80,
        "manages the project; admin inside",
    ),
    role(
        "security-editor",
        SEC,
        "editor",
        Some("editor"),
        50,
        "changes the project; editor inside",
    ),
    role(
        "security-viewer",
        SEC,
        "viewer",
        Some("viewer"),
        20,
        "sees the project; viewer inside",
    ),
    role(
        "security-t1-analyst",
        SEC,
        "t1_analyst",
        Some("t1_analyst"),
        25,
        "triages alerts",
    ),
    role(
        "security-t2-analyst",
        SEC,
        "t2_analyst",
        Some("t2_analyst"),
        30,
        "investigates alerts and opens cases",
    ),
    role(
        "security-t3-analyst",
        SEC,
        "t3_analyst",
        Some("t3_analyst"),
        45,
        "hunts, isolates hosts, responds",
    ),
    role(
        "security-threat-intel-analyst",
        SEC,
        "threat_intel_analyst",
        Some("threat_intelligence_analyst"),
        30,
        "works with indicators and intelligence",
    ),
    role(
        "security-rule-author",
        SEC,
        "rule_author",
        Some("rule_author"),
        45,
        "writes detection rules",
    ),
    role(
        "security-soc-manager",
        SEC,
        "soc_manager",
        Some("soc_manager"),
        55,
        "runs the operations centre",
    ),
    role(
        "security-detections-admin",
        SEC,
        "detections_admin",
        Some("detections_admin"),
        60,
        "administers detections",
    ),
    role(
        "security-platform-engineer",
        SEC,
        "platform_engineer",
        Some("platform_engineer"),
        60,
        "runs the platform",
    ),
    role(
        "security-endpoint-operations-analyst",
        SEC,
        "endpoint_operations_analyst",
        Some("endpoint_operations_analyst"),
        55,
        "operates endpoints",
    ),
    role(
        "security-endpoint-policy-manager",
        SEC,
        "endpoint_policy_manager",
        Some("endpoint_policy_manager"),
        55,
        "manages endpoint policies",
    ),
];

/// Finds a role by its canonical id.
#[must_use]
pub fn find(id: &str) -> Option<&'static Role> {
    ROLES.iter().find(|role| role.id == id)
}

/// A role that cannot be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownRole {
    /// No role of that name exists where it was asked for.
    #[error("no role of that name can be held on {scope}; choose one of {known}")]
    NotHere {
        /// The scope of the targets.
        scope: Scope,
        /// The canonical ids that exist there.
        known: String,
    },
}

/// Maps what a person wrote to a canonical role that can be held in `scope`. Short forms (`admin`, `t1_analyst`)
/// are understood because the scope makes them unambiguous.
///
/// # Errors
/// [`UnknownRole`] with the ids that would have been right.
pub fn resolve(written: &str, scope: Scope) -> Result<&'static Role, UnknownRole> {
    ROLES
        .iter()
        .find(|role| role.scope == scope && (role.id == written || role.short == written))
        .ok_or_else(|| UnknownRole::NotHere {
            scope,
            known: ROLES
                .iter()
                .filter(|role| role.scope == scope)
                .map(|role| role.id)
                .collect::<Vec<_>>()
                .join(", "),
        })
}

/// Maps a role id read from upstream under `scope` to its canonical form; ids the catalogue does not know are kept.
#[must_use]
pub fn canonical(read: &str, scope: Scope) -> String {
    resolve(read, scope).map_or_else(|_| read.to_owned(), |role| role.id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_depend_on_the_scope() {
        let id = |written, scope| resolve(written, scope).map(|role| role.id);
        assert_eq!(id("admin", Scope::Deployment), Ok("deployment-admin"));
        assert_eq!(id("admin", ES), Ok("elasticsearch-admin"));
        assert_eq!(id("t1_analyst", SEC), Ok("security-t1-analyst"));
    }

    #[test]
    fn case_space_and_look_alikes_are_not_roles() {
        for written in [
            "Deployment-Admin",
            "deployment-admin ",
            " deployment-admin",
            "deployment\u{2010}admin",
            "*",
            "",
        ] {
            assert!(
                resolve(written, Scope::Deployment).is_err(),
                "{written:?} was accepted"
            );
        }
        assert!(resolve("organization-admin", Scope::Deployment).is_err());
    }

    #[test]
    fn no_id_stands_twice() {
        let mut ids: Vec<_> = ROLES.iter().map(|role| role.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROLES.len());
    }

    #[test]
    fn what_upstream_says_becomes_the_name_of_the_catalogue_or_stays_as_it_is() {
        assert_eq!(canonical("admin", Scope::Deployment), "deployment-admin");
        assert_eq!(
            canonical("deployment-admin", Scope::Deployment),
            "deployment-admin"
        );
        assert_eq!(canonical("of-tomorrow", Scope::Deployment), "of-tomorrow");
    }
}
