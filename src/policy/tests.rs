//! The policy table.

use super::*;
use crate::domain::assignment::{ApplicationRoles, ProjectType, Target};
use crate::domain::grant::{Certainty, GrantedAssignment, Holding};
use crate::domain::ids::{CallerName, DeploymentId, GrantId, IntegrationName, RequestId, UserId};
use crate::domain::member::Subject;
use crate::domain::request::Principal;

fn at(text: &str) -> Timestamp {
    chrono::DateTime::parse_from_rfc3339(text)
        .expect("a valid instant")
        .to_utc()
}

const NOW: &str = "2026-01-01T00:00:00Z";

fn ttl(seconds: i64) -> Ttl {
    Ttl::from_seconds(seconds).expect("in range")
}

fn deployment() -> Target {
    Target::Deployment {
        id: DeploymentId::parse("a").expect("valid"),
    }
}

fn request(role: &str, target: Target) -> GrantRequest {
    GrantRequest {
        caller: CallerName::parse("local").expect("valid"),
        request_id: RequestId::parse("r").expect("valid"),
        integration: IntegrationName::parse("main").expect("valid"),
        beneficiary: Principal::User(UserId::parse("1").expect("valid")),
        requester: String::new(),
        justification: String::new(),
        role: role.to_owned(),
        targets: BTreeSet::from([target]),
        application_roles: ApplicationRoles::Mapped,
        duration: ttl(3600),
        starts_at: None,
        not_after: None,
        invite: false,
    }
}

fn viewer() -> GrantRequest {
    request("deployment-viewer", deployment())
}

fn refusal(request: &GrantRequest, rules: &Rules) -> Option<(Kind, &'static str, &'static str)> {
    match decide(request, rules, at(NOW)) {
        Decision::Allow => None,
        Decision::Refuse(Refusal {
            kind, code, field, ..
        }) => Some((kind, code, field)),
    }
}

#[test]
fn a_fresh_installation_refuses_what_is_too_strong_too_long_or_too_wide() {
    let rules = Rules::default();
    let rows = [
        (viewer(), None),
        (
            GrantRequest {
                duration: ttl(12 * 3600),
                ..viewer()
            },
            None,
        ),
        (
            GrantRequest {
                duration: ttl(12 * 3600 + 1),
                ..viewer()
            },
            Some((Kind::Denied, "duration_too_long", "duration")),
        ),
        (
            request("organization-admin", Target::Organization),
            Some((Kind::Denied, "organization_roles_disabled", "role")),
        ),
        (
            request("billing-admin", Target::Organization),
            Some((Kind::Denied, "organization_roles_disabled", "role")),
        ),
        (
            request("deployment-viewer", Target::AllDeployments),
            Some((Kind::Denied, "all_targets_disabled", "targets")),
        ),
        (
            request(
                "security-viewer",
                Target::AllProjects {
                    project_type: ProjectType::Security,
                },
            ),
            Some((Kind::Denied, "all_targets_disabled", "targets")),
        ),
        (
            GrantRequest {
                not_after: Some(at(NOW)),
                ..viewer()
            },
            Some((Kind::Impossible, "not_after_past", "not_after")),
        ),
        (
            GrantRequest {
                starts_at: Some(at("2026-01-02T00:00:00Z")),
                not_after: Some(at("2026-01-02T00:00:00Z")),
                ..viewer()
            },
            Some((Kind::Impossible, "not_after_before_start", "not_after")),
        ),
        (
            GrantRequest {
                starts_at: Some(at("2026-01-31T00:00:00Z")),
                ..viewer()
            },
            None,
        ),
        (
            GrantRequest {
                starts_at: Some(at("2026-01-31T00:00:01Z")),
                ..viewer()
            },
            Some((Kind::Denied, "start_too_late", "starts_at")),
        ),
        (
            GrantRequest {
                starts_at: Some(at("2025-01-01T00:00:00Z")),
                ..viewer()
            },
            None,
        ),
    ];
    for (request, expected) in rows {
        assert_eq!(refusal(&request, &rules), expected, "{request:?}");
    }
}

#[test]
fn each_rule_can_be_set_on_its_own() {
    let strong = request("organization-admin", Target::Organization);
    let wide = request("deployment-viewer", Target::AllDeployments);
    let organization = Rules {
        organization_roles: true,
        ..Rules::default()
    };
    assert_eq!(refusal(&strong, &organization), None);
    assert!(refusal(&wide, &organization).is_some());
    let all = Rules {
        all_targets: true,
        ..Rules::default()
    };
    assert_eq!(refusal(&wide, &all), None);
    assert!(refusal(&strong, &all).is_some());

    let uninvited = Rules {
        invitations: false,
        ..Rules::default()
    };
    let invite = GrantRequest {
        invite: true,
        ..viewer()
    };
    assert_eq!(
        refusal(&invite, &uninvited),
        Some((Kind::Denied, "invitations_disabled", "invite"))
    );
    assert_eq!(refusal(&viewer(), &uninvited), None);

    let listed = Rules {
        allowed_roles: Some(BTreeSet::from(["deployment-editor".to_owned()])),
        ..Rules::default()
    };
    assert_eq!(
        refusal(&viewer(), &listed),
        Some((Kind::Denied, "role_not_allowed", "role"))
    );
    assert_eq!(
        refusal(&request("deployment-editor", deployment()), &listed),
        None
    );
}

fn active(expires_at: &str, not_after: Option<&str>) -> Grant {
    let ask = viewer();
    Grant {
        id: GrantId::new(at(NOW), [0; 10]),
        integration: ask.integration.clone(),
        subject: Subject::Member(UserId::parse("1").expect("valid")),
        caller: ask.caller.clone(),
        request_id: ask.request_id.clone(),
        beneficiary: "1".to_owned(),
        requester: String::new(),
        justification: String::new(),
        assignments: ask
            .assignments()
            .into_iter()
            .map(|assignment| GrantedAssignment {
                assignment,
                holding: Holding::Owned,
            })
            .collect(),
        duration: ask.duration,
        starts_at: None,
        not_after: not_after.map(at),
        created_at: at(NOW),
        state: GrantState::Active {
            activated_at: at(NOW),
            expires_at: at(expires_at),
        },
        version: 1,
        certainty: Certainty::Verified,
        externally_modified: false,
        invited: false,
        attempts: 0,
        last_error: None,
        verified_at: Some(at(NOW)),
        removal_sent_at: None,
        authority: None,
    }
}

#[test]
fn a_refusal_says_what_would_be_allowed_and_is_an_error() {
    let rules = Rules {
        max_start_delay: TimeDelta::hours(6),
        ..Rules::default()
    };
    let late = GrantRequest {
        starts_at: Some(at("2026-01-02T00:00:00Z")),
        ..viewer()
    };
    let refused = decide(&late, &rules, at(NOW)).into_result();
    let refusal = refused.expect_err("it starts too late");
    assert!(refusal.remedy.contains("at most 6h "), "{}", refusal.remedy);
    assert_eq!(decide(&viewer(), &rules, at(NOW)).into_result(), Ok(()));
}

#[test]
fn an_extension_stops_at_the_hard_end_and_at_the_total_of_the_approval() {
    let rules = Rules {
        max_total: TimeDelta::hours(4),
        ..Rules::default()
    };
    let by = |grant: &Grant, seconds| {
        decide_extension(grant, ttl(seconds), &rules)
            .map(Ttl::seconds)
            .map_err(|refusal| refusal.code)
    };
    let free = active("2026-01-01T01:00:00Z", None);
    assert_eq!(by(&free, 3600), Ok(3600));
    assert_eq!(by(&free, 4 * 3600), Ok(3 * 3600));
    assert_eq!(by(&free, 4 * 3600 + 1), Err("duration_too_long"));
    assert_eq!(
        by(&active("2026-01-01T04:00:00Z", None), 1),
        Err("total_reached")
    );
    let hard = active("2026-01-01T01:00:00Z", Some("2026-01-01T01:10:00Z"));
    assert_eq!(by(&hard, 3600), Ok(600));
    let full = active("2026-01-01T01:10:00Z", Some("2026-01-01T01:10:00Z"));
    assert_eq!(by(&full, 3600), Err("hard_end_reached"));
    let both = active("2026-01-01T04:00:00Z", Some("2026-01-01T04:00:00Z"));
    assert_eq!(
        by(&both, 1),
        Err("total_reached"),
        "what the approval allowed is said first"
    );
}

#[test]
fn an_extension_obeys_rules_that_changed_after_the_grant() {
    let grant = active("2026-01-01T01:00:00Z", None);
    let rules = Rules {
        allowed_roles: Some(BTreeSet::new()),
        ..Rules::default()
    };
    assert_eq!(
        decide_extension(&grant, ttl(60), &rules).map_err(|refusal| refusal.code),
        Err("role_not_allowed")
    );
}

#[test]
fn a_role_is_offered_where_both_its_scope_and_its_name_are_allowed() {
    let mut rules = Rules::default();
    for (organization, named, scope, offered) in [
        (false, None, Scope::Organization, false),
        (true, None, Scope::Organization, true),
        (false, None, Scope::Deployment, true),
        (true, Some("deployment-viewer"), Scope::Organization, false),
        (true, Some("billing-admin"), Scope::Organization, true),
        (false, Some("billing-admin"), Scope::Organization, false),
        (false, Some("billing-admin"), Scope::Deployment, true),
        (false, Some("deployment-viewer"), Scope::Deployment, false),
    ] {
        rules.organization_roles = organization;
        rules.allowed_roles = named.map(|role| BTreeSet::from([role.to_owned()]));
        let case = (organization, named, scope);
        assert_eq!(
            is_role_grantable("billing-admin", scope, &rules),
            offered,
            "{case:?}"
        );
    }
}
