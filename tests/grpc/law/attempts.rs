//! Asks that must be refused, each with its answer and the policy that says so.

use super::*;

fn all_deployments() -> pb::Target {
    pb::Target {
        kind: Some(pb::target::Kind::AllDeployments(
            pb::AllDeploymentsTarget {},
        )),
    }
}

fn organization() -> pb::Target {
    pb::Target {
        kind: Some(pb::target::Kind::Organization(pb::OrganizationTarget {})),
    }
}

fn all_projects(kind: pb::ProjectType) -> pb::Target {
    pb::Target {
        kind: Some(pb::target::Kind::AllProjects(pb::AllProjectsTarget {
            project_type: kind.into(),
        })),
    }
}

fn project(kind: pb::ProjectType, id: &str) -> pb::Target {
    pb::Target {
        kind: Some(pb::target::Kind::Project(pb::ProjectTarget {
            project_type: kind.into(),
            project_id: id.to_owned(),
        })),
    }
}

/// Asks that the law or a built-in rule refuses, with the code and the policy that says so.
pub(super) fn refused_asks() -> Vec<(&'static str, pb::GrantSpec, Code, &'static str)> {
    use pb::ProjectType::{Elasticsearch, Observability, Security};
    const DENIED: Code = Code::PermissionDenied;
    let plain = |_: &mut pb::GrantSpec| {};
    let lasting = |length: i64| {
        move |spec: &mut pb::GrantSpec| {
            spec.duration = seconds(length);
        }
    };
    let a = || vec![on_deployment("a")];
    vec![
        (
            "an owner",
            ask("organization-admin", vec![organization()], plain),
            DENIED,
            "no-organization-roles",
        ),
        (
            "an owner for a second",
            ask("organization-admin", vec![organization()], lasting(1)),
            DENIED,
            "no-organization-roles",
        ),
        (
            "an owner for a year",
            ask(
                "organization-admin",
                vec![organization()],
                lasting(365 * 24 * HOUR),
            ),
            DENIED,
            "no-organization-roles",
        ),
        (
            "billing",
            ask("billing-admin", vec![organization()], plain),
            DENIED,
            "no-organization-roles",
        ),
        (
            "an owner by invitation",
            ask("organization-admin", vec![organization()], |spec| {
                spec.beneficiary = email("new@example.com");
                spec.invite = true;
            }),
            DENIED,
            "no-organization-roles",
        ),
        (
            "an owner in the name of somebody else",
            ask("organization-admin", vec![organization()], |spec| {
                spec.requester = "ceo@example.com".to_owned();
            }),
            DENIED,
            "no-organization-roles",
        ),
        (
            "an owner, with a good reason",
            ask("organization-admin", vec![organization()], |spec| {
                spec.justification = "approved by everybody".to_owned();
            }),
            DENIED,
            "no-organization-roles",
        ),
        (
            "an owner until a hard end",
            ask("organization-admin", vec![organization()], |spec| {
                spec.not_after = instant("2026-01-01T00:01:00Z");
            }),
            DENIED,
            "no-organization-roles",
        ),
        (
            "an owner tomorrow",
            ask("organization-admin", vec![organization()], |spec| {
                spec.starts_at = instant("2026-01-02T00:00:00Z");
            }),
            DENIED,
            "no-organization-roles",
        ),
        (
            "admin of all deployments",
            ask("deployment-admin", vec![all_deployments()], plain),
            DENIED,
            "no-all-scopes",
        ),
        (
            "editor of all deployments",
            ask("deployment-editor", vec![all_deployments()], plain),
            DENIED,
            "no-all-scopes",
        ),
        (
            "viewer of all deployments",
            ask("deployment-viewer", vec![all_deployments()], plain),
            DENIED,
            "no-all-scopes",
        ),
        (
            "by its short name",
            ask("viewer", vec![all_deployments()], plain),
            DENIED,
            "no-all-scopes",
        ),
        (
            "all hidden behind one",
            ask("viewer", vec![on_deployment("a"), all_deployments()], plain),
            DENIED,
            "no-all-scopes",
        ),
        (
            "all for a second",
            ask("viewer", vec![all_deployments()], lasting(1)),
            DENIED,
            "no-all-scopes",
        ),
        (
            "all Elasticsearch projects",
            ask(
                "elasticsearch-admin",
                vec![all_projects(Elasticsearch)],
                plain,
            ),
            DENIED,
            "no-all-scopes",
        ),
        (
            "all observability projects",
            ask(
                "observability-viewer",
                vec![all_projects(Observability)],
                plain,
            ),
            DENIED,
            "no-all-scopes",
        ),
        (
            "all security projects",
            ask("security-viewer", vec![all_projects(Security)], plain),
            DENIED,
            "no-all-scopes",
        ),
        (
            "all of a kind beside one",
            ask(
                "security-viewer",
                vec![project(Security, "s1"), all_projects(Security)],
                plain,
            ),
            DENIED,
            "no-all-scopes",
        ),
        (
            "a second too long",
            ask("viewer", a(), lasting(12 * HOUR + 1)),
            DENIED,
            "capped-duration",
        ),
        (
            "an hour too long",
            ask("viewer", a(), lasting(13 * HOUR)),
            DENIED,
            "capped-duration",
        ),
        (
            "a day",
            ask("viewer", a(), lasting(24 * HOUR)),
            DENIED,
            "capped-duration",
        ),
        (
            "longer than any total",
            ask("viewer", a(), lasting(24 * HOUR + 1)),
            DENIED,
            "capped-total",
        ),
        (
            "a week",
            ask("viewer", a(), lasting(7 * 24 * HOUR)),
            DENIED,
            "capped-duration",
        ),
        (
            "a year",
            ask("viewer", a(), lasting(366 * 24 * HOUR)),
            DENIED,
            "capped-duration",
        ),
        (
            "too long behind a near hard end",
            ask("viewer", a(), |spec| {
                spec.duration = seconds(13 * HOUR);
                spec.not_after = instant("2026-01-01T01:00:00Z");
            }),
            DENIED,
            "capped-duration",
        ),
        (
            "too long for somebody else",
            ask("viewer", a(), |spec| {
                spec.duration = seconds(13 * HOUR);
                spec.beneficiary = email("bob@example.com");
            }),
            DENIED,
            "capped-duration",
        ),
        (
            "begins too late",
            ask("viewer", a(), |spec| {
                spec.starts_at = instant("2026-02-01T00:00:00Z");
            }),
            DENIED,
            "capped-start",
        ),
        (
            "another organization's deployment",
            ask("viewer", vec![on_deployment("zz")], plain),
            Code::NotFound,
            "latchkey.this-organization-only",
        ),
        (
            "one of ours and one of another's",
            ask(
                "viewer",
                vec![on_deployment("a"), on_deployment("zz")],
                plain,
            ),
            Code::NotFound,
            "latchkey.this-organization-only",
        ),
        (
            "another organization's project",
            ask("security-viewer", vec![project(Security, "zz")], plain),
            Code::NotFound,
            "latchkey.this-organization-only",
        ),
        (
            "a project under another type",
            ask("security-viewer", vec![project(Security, "e1")], plain),
            Code::NotFound,
            "latchkey.this-organization-only",
        ),
        (
            "the connector itself by address",
            ask("viewer", a(), |spec| {
                spec.beneficiary = email("key@example.com");
            }),
            Code::PermissionDenied,
            "latchkey.never-itself",
        ),
        (
            "the connector itself by id",
            ask("viewer", a(), |spec| {
                spec.beneficiary = by_id("9");
            }),
            Code::PermissionDenied,
            "latchkey.never-itself",
        ),
    ]
}
