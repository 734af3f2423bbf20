//! Role assignments: set semantics, authorization, and every setting about them.

use serde_json::{Value, json};

use crate::harness::{Cloud, deployment_ids, sorted};

const VIEWER: &str = "deployment-viewer";
const ADMIN: &str = "deployment-admin";
const FORBIDDEN: &str = "role_assignments.unauthorized_role_assignments";

#[tokio::test]
async fn adding_unions_and_removing_subtracts_per_id() {
    let cloud = Cloud::start().await;
    let (user, a, b) = (cloud.user(6), cloud.deployment(0), cloud.deployment(1));
    cloud
        .add(&user, cloud.on_deployments(ADMIN, &[&a]))
        .await
        .is_empty_success();
    cloud
        .add(&user, cloud.on_deployments(ADMIN, &[&a, &b]))
        .await
        .is_empty_success();
    let shown = cloud.shown(&cloud.key, &user).await;
    assert_eq!(deployment_ids(&shown, ADMIN), sorted(&[&a, &b]));
    cloud
        .remove(&user, cloud.on_deployments(ADMIN, &[&a]))
        .await
        .is_empty_success();
    assert_eq!(
        deployment_ids(&cloud.shown(&cloud.key, &user).await, ADMIN),
        [b.as_str()]
    );
    cloud
        .remove(&user, cloud.on_deployments(ADMIN, &[&b]))
        .await
        .is_empty_success();
    assert_eq!(cloud.shown(&cloud.key, &user).await, Value::Null);
}

#[tokio::test]
async fn one_call_carries_roles_of_every_kind() {
    let cloud = Cloud::start().await;
    let (user, a, p) = (cloud.user(6), cloud.deployment(0), cloud.project(4));
    let mut all = cloud.on_deployments(VIEWER, &[&a]);
    all["organization"] = cloud.organization_role("billing-admin")["organization"].clone();
    all["project"] =
        cloud.on_projects("security", "security-t1-analyst", &[&p], &[])["project"].clone();
    cloud.add(&user, all.clone()).await.is_empty_success();
    let shown = cloud.shown(&cloud.key, &user).await;
    assert_eq!(
        shown, all,
        "an empty application_roles is kept apart from an absent one"
    );
    cloud.remove(&user, all).await.is_empty_success();
    assert_eq!(cloud.shown(&cloud.key, &user).await, Value::Null);
}

#[tokio::test]
async fn null_means_absent_as_the_go_sdk_sends_it() {
    let cloud = Cloud::start().await;
    let (user, a) = (cloud.user(6), cloud.deployment(0));
    let body = json!({
        "platform": null, "organization": null, "project": {
            "elasticsearch": null, "observability": null, "security": null,
        },
        "deployment": [{
            "role_id": VIEWER, "organization_id": cloud.org,
            "deployment_ids": [a], "application_roles": null,
        }],
    });
    cloud.add(&user, body).await.is_empty_success();
    let all = json!({ "deployment": [{
        "role_id": ADMIN, "organization_id": cloud.org, "all": true, "deployment_ids": null,
    }]});
    cloud.add(&user, all).await.is_empty_success();
    let shown = cloud.shown(&cloud.key, &user).await;
    assert_eq!(shown["deployment"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn unknown_fields_and_scopes_survive() {
    let cloud = Cloud::start().await;
    let user = cloud.user(6);
    let body = json!({
        "organization": [{
            "role_id": "organization-admin", "organization_id": cloud.org,
            "application_roles": ["admin"], "note": { "from": "afar" },
        }],
        "cloud_connected_resource": [{
            "role_id": "cloud-connected-admin", "organization_id": cloud.org,
            "resource_ids": ["x"],
        }],
    });
    cloud.add(&user, body.clone()).await.is_empty_success();
    assert_eq!(cloud.shown(&cloud.key, &user).await, body);
}

#[tokio::test]
async fn different_application_roles_are_different_entries() {
    let cloud = Cloud::start().await;
    let (user, p) = (cloud.user(6), cloud.project(4));
    for roles in [["one"], ["two"]] {
        let body = cloud.on_projects("security", "security-viewer", &[&p], &roles);
        cloud.add(&user, body).await.is_empty_success();
    }
    let shown = cloud.shown(&cloud.key, &user).await;
    assert_eq!(shown["project"]["security"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn remove_matches_application_roles_as_set() {
    for (choice, left) in [("ignore", 0), ("exact", 1)] {
        let cloud = Cloud::set(&[&format!("remove_matches={choice}")]).await;
        let (user, p) = (cloud.user(6), cloud.project(4));
        for roles in [["one"], ["two"]] {
            cloud
                .add(
                    &user,
                    cloud.on_projects("security", "security-viewer", &[&p], &roles),
                )
                .await;
        }
        let one = cloud.on_projects("security", "security-viewer", &[&p], &["one"]);
        cloud.remove(&user, one).await.is_empty_success();
        let shown = cloud.shown(&cloud.key, &user).await;
        let entries = shown["project"]["security"].as_array().map_or(0, Vec::len);
        assert_eq!(entries, left, "{choice}");
    }
}

#[tokio::test]
async fn adding_what_is_held_answers_as_set() {
    for (choice, status) in [("ok", 200), ("bad_request", 400)] {
        let cloud = Cloud::set(&[&format!("add_held={choice}")]).await;
        let (user, a) = (cloud.user(6), cloud.deployment(0));
        cloud
            .add(&user, cloud.on_deployments(VIEWER, &[&a]))
            .await
            .is_empty_success();
        let again = cloud.add(&user, cloud.on_deployments(VIEWER, &[&a])).await;
        assert_eq!(again.status, status, "{choice}");
    }
}

#[tokio::test]
async fn removing_what_is_not_held_answers_as_set() {
    for (choice, status) in [("ok", 200), ("forbidden", 403), ("not_found", 404)] {
        let cloud = Cloud::set(&[&format!("remove_not_held={choice}")]).await;
        let (user, a, b) = (cloud.user(6), cloud.deployment(0), cloud.deployment(1));
        cloud
            .add(&user, cloud.on_deployments(VIEWER, &[&a]))
            .await
            .is_empty_success();
        let answer = cloud
            .remove(&user, cloud.on_deployments(VIEWER, &[&a, &b]))
            .await;
        assert_eq!(answer.status, status, "{choice}");
        let left = deployment_ids(&cloud.shown(&cloud.key, &user).await, VIEWER);
        assert_eq!(left.is_empty(), status == 200, "all or nothing: {choice}");
    }
}

#[tokio::test]
async fn an_unknown_user_answers_as_set() {
    for (choice, status, code) in [
        (
            "bad_request",
            400,
            "role_assignments.invalid_target_user_id",
        ),
        ("not_found", 404, "user.not_found"),
    ] {
        let cloud = Cloud::set(&[&format!("unknown_user={choice}")]).await;
        let body = cloud.on_all_deployments(VIEWER);
        cloud.add("1", body.clone()).await.refused(status, code);
        cloud.remove("1", body).await.refused(status, code);
    }
}

#[tokio::test]
async fn an_unknown_role_answers_as_set() {
    for (choice, status) in [("reject", 400), ("accept", 200)] {
        let cloud = Cloud::set(&[&format!("unknown_role={choice}")]).await;
        let answer = cloud
            .add(&cloud.user(6), cloud.on_all_deployments("deployment-king"))
            .await;
        assert_eq!(answer.status, status, "{choice}");
    }
}

#[tokio::test]
async fn the_code_of_an_invalid_assignment_is_a_setting() {
    let cloud = Cloud::set(&["invalid_assignment_code=some.code"]).await;
    let answer = cloud
        .add(&cloud.user(6), cloud.on_all_deployments("deployment-king"))
        .await;
    answer.refused(400, "some.code");
}

#[tokio::test]
async fn all_and_ids_exclude_each_other_as_set() {
    for (choice, status) in [("reject", 400), ("accept", 200)] {
        let cloud = Cloud::set(&[&format!("all_with_ids={choice}")]).await;
        let mut both = cloud.on_deployments(VIEWER, &[&cloud.deployment(0)]);
        both["deployment"][0]["all"] = json!(true);
        assert_eq!(
            cloud.add(&cloud.user(6), both).await.status,
            status,
            "{choice}"
        );
        let neither = json!({ "deployment": [
            { "role_id": VIEWER, "organization_id": cloud.org, "all": false },
        ]});
        assert_eq!(
            cloud.add(&cloud.user(7), neither).await.status,
            status,
            "{choice}"
        );
    }
}

#[tokio::test]
async fn a_missing_organization_id_answers_as_set() {
    for (choice, status) in [("reject", 400), ("accept", 200)] {
        let cloud = Cloud::set(&[&format!("missing_organization_id={choice}")]).await;
        let user = cloud.user(6);
        let body = json!({ "organization": [{ "role_id": "billing-admin" }] });
        assert_eq!(cloud.add(&user, body).await.status, status, "{choice}");
        if status == 200 {
            let shown = cloud.shown(&cloud.key, &user).await;
            assert_eq!(
                shown["organization"][0]["organization_id"],
                cloud.org.as_str()
            );
        }
    }
}

#[tokio::test]
async fn short_role_ids_are_treated_as_set() {
    for (choice, stored) in [
        ("reject", None),
        ("alias", Some("security-threat-intel-analyst")),
        ("store", Some("threat_intel_analyst")),
    ] {
        let cloud = Cloud::set(&[&format!("short_role_ids={choice}")]).await;
        let (user, p) = (cloud.user(6), cloud.project(4));
        let body = cloud.on_projects("security", "threat_intel_analyst", &[&p], &[]);
        let answer = cloud.add(&user, body).await;
        assert_eq!(answer.status == 200, stored.is_some(), "{choice}");
        if let Some(stored) = stored {
            let shown = cloud.shown(&cloud.key, &user).await;
            assert_eq!(shown["project"]["security"][0]["role_id"], stored);
        }
    }
}

#[tokio::test]
async fn an_unknown_resource_answers_as_set() {
    for (choice, status) in [("forbidden", 403), ("bad_request", 400), ("accept", 200)] {
        let cloud = Cloud::set(&[&format!("unknown_target={choice}")]).await;
        let user = cloud.user(6);
        let nowhere = "0123456789abcdef0123456789abcdef";
        let answer = cloud
            .add(&user, cloud.on_deployments(VIEWER, &[nowhere]))
            .await;
        assert_eq!(answer.status, status, "{choice}");
        let project = cloud.on_projects("security", "security-viewer", &[nowhere], &[]);
        assert_eq!(cloud.add(&user, project).await.status, status, "{choice}");
    }
}

#[tokio::test]
async fn a_project_id_of_another_type_is_unknown() {
    let cloud = Cloud::start().await;
    let body = cloud.on_projects("security", "security-viewer", &[&cloud.project(0)], &[]);
    cloud
        .add(&cloud.user(6), body)
        .await
        .refused(403, FORBIDDEN);
}

#[tokio::test]
async fn removing_an_id_held_through_all_answers_as_set() {
    for (choice, status) in [("no_op", 200), ("error", 400)] {
        let cloud = Cloud::set(&[
            &format!("remove_id_under_all={choice}"),
            "remove_not_held=not_found",
        ])
        .await;
        let user = cloud.user(6);
        cloud
            .add(&user, cloud.on_all_deployments(VIEWER))
            .await
            .is_empty_success();
        let one = cloud.on_deployments(VIEWER, &[&cloud.deployment(0)]);
        assert_eq!(cloud.remove(&user, one).await.status, status, "{choice}");
        assert_eq!(
            cloud.shown(&cloud.key, &user).await["deployment"][0]["all"],
            true
        );
        cloud
            .remove(&user, cloud.on_all_deployments(VIEWER))
            .await
            .is_empty_success();
        assert_eq!(cloud.shown(&cloud.key, &user).await, Value::Null);
    }
}

#[tokio::test]
async fn a_hidden_deployment_poisons_changes_as_set() {
    for (choice, status) in [("true", 403), ("false", 200)] {
        let cloud = Cloud::set(&[&format!("hidden_blocks_changes={choice}")]).await;
        let (user, a, b) = (cloud.user(6), cloud.deployment(0), cloud.deployment(1));
        cloud
            .add(&user, cloud.on_deployments(VIEWER, &[&a, &b]))
            .await
            .is_empty_success();
        cloud
            .control("POST", &format!("deployments/{a}/hide"), Value::Null)
            .await;
        let both = cloud
            .remove(&user, cloud.on_deployments(VIEWER, &[&a, &b]))
            .await;
        assert_eq!(both.status, status, "{choice}");
        let left = deployment_ids(&cloud.shown(&cloud.key, &user).await, VIEWER);
        assert_eq!(left.is_empty(), status == 200, "members keep it: {choice}");
        cloud
            .control("POST", &format!("deployments/{a}/show"), Value::Null)
            .await;
        cloud
            .remove(&user, cloud.on_deployments(VIEWER, &[&a, &b]))
            .await
            .is_empty_success();
    }
}

#[tokio::test]
async fn all_is_refused_while_a_deployment_is_hidden_as_set() {
    for (choice, assign, invite) in [
        ("never", 200, 201),
        ("invitations", 200, 403),
        ("everywhere", 403, 403),
    ] {
        let cloud = Cloud::set(&[&format!("hidden_blocks_all={choice}")]).await;
        let a = cloud.deployment(0);
        cloud
            .control("POST", &format!("deployments/{a}/hide"), Value::Null)
            .await;
        let answer = cloud
            .add(&cloud.user(6), cloud.on_all_deployments(VIEWER))
            .await;
        assert_eq!(answer.status, assign, "{choice}");
        let body = json!({
            "emails": ["new@example.com"],
            "role_assignments": cloud.on_all_deployments(VIEWER),
        });
        let path = format!("/organizations/{}/invitations", cloud.org);
        assert_eq!(
            cloud.call("POST", &path, body).await.status,
            invite,
            "{choice}"
        );
    }
}

#[tokio::test]
async fn entries_collapse_as_set() {
    for (choice, entries) in [("true", 1), ("false", 2)] {
        let cloud = Cloud::set(&[&format!("collapse_entries={choice}")]).await;
        let user = cloud.user(6);
        for at in [0, 1] {
            cloud
                .add(
                    &user,
                    cloud.on_deployments(VIEWER, &[&cloud.deployment(at)]),
                )
                .await;
        }
        let shown = cloud.shown(&cloud.key, &user).await;
        assert_eq!(
            shown["deployment"].as_array().unwrap().len(),
            entries,
            "{choice}"
        );
    }
}

#[tokio::test]
async fn ids_come_in_the_set_order() {
    for choice in ["sorted", "insertion", "shuffled"] {
        let cloud = Cloud::set(&[&format!("id_order={choice}")]).await;
        let user = cloud.user(6);
        let mut ids: Vec<String> = (0..4).map(|at| cloud.deployment(at)).collect();
        ids.sort();
        ids.reverse();
        for id in &ids {
            cloud
                .add(&user, cloud.on_deployments(VIEWER, &[id]))
                .await
                .is_empty_success();
        }
        let mut orders = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let shown = cloud.shown(&cloud.key, &user).await;
            orders.insert(shown["deployment"][0]["deployment_ids"].to_string());
        }
        let inserted = json!(ids).to_string();
        ids.reverse();
        let ascending = json!(ids).to_string();
        match choice {
            "sorted" => assert_eq!(orders, [ascending].into()),
            "insertion" => assert_eq!(orders, [inserted].into()),
            _ => assert!(orders.len() > 3, "{orders:?}"),
        }
    }
}

#[tokio::test]
async fn holding_nothing_and_all_false_are_written_as_set() {
    let cloud = Cloud::set(&["empty_role_assignments=object", "show_all_false=true"]).await;
    let (user, a) = (cloud.user(6), cloud.deployment(0));
    assert_eq!(cloud.shown(&cloud.key, &user).await, json!({}));
    cloud.add(&user, cloud.on_deployments(VIEWER, &[&a])).await;
    assert_eq!(
        cloud.shown(&cloud.key, &user).await["deployment"][0]["all"],
        false
    );
}

#[tokio::test]
async fn one_unauthorized_id_refuses_the_whole_call() {
    let cloud = Cloud::start().await;
    let (user, a, b) = (cloud.user(6), cloud.deployment(0), cloud.deployment(1));
    let admin_of_a = cloud.key_with(cloud.on_deployments(ADMIN, &[&a])).await;
    let path = format!("/users/{user}/role_assignments");
    let both = cloud.on_deployments(VIEWER, &[&a, &b]);
    let one = cloud.on_deployments(VIEWER, &[&a]);
    cloud
        .call_as(&admin_of_a, "POST", &path, both.clone())
        .await
        .refused(403, FORBIDDEN);
    assert_eq!(cloud.shown(&cloud.key, &user).await, Value::Null);
    cloud
        .call_as(&admin_of_a, "POST", &path, one)
        .await
        .is_empty_success();
    cloud.add(&user, both.clone()).await.is_empty_success();
    cloud
        .call_as(&admin_of_a, "DELETE", &path, both)
        .await
        .refused(403, FORBIDDEN);
    let shown = cloud.shown(&cloud.key, &user).await;
    assert_eq!(deployment_ids(&shown, VIEWER), sorted(&[&a, &b]));
}

#[tokio::test]
async fn only_owners_give_organization_and_all_roles() {
    let cloud = Cloud::start().await;
    let admin = cloud
        .key_with(cloud.on_deployments(ADMIN, &[&cloud.deployment(0)]))
        .await;
    let path = format!("/users/{}/role_assignments", cloud.user(6));
    for body in [
        cloud.organization_role("billing-admin"),
        cloud.on_all_deployments(VIEWER),
    ] {
        cloud
            .call_as(&admin, "POST", &path, body)
            .await
            .refused(403, FORBIDDEN);
    }
    let platform = json!({ "platform": [{ "role_id": "anything" }] });
    cloud
        .add(&cloud.user(6), platform)
        .await
        .refused(403, FORBIDDEN);
    let foreign = json!({ "organization": [
        { "role_id": "billing-admin", "organization_id": "1" },
    ]});
    cloud
        .add(&cloud.user(6), foreign)
        .await
        .refused(403, FORBIDDEN);
}

#[tokio::test]
async fn a_key_without_ownership_gets_filtered_assignments_with_200() {
    let cloud = Cloud::start().await;
    let (user, a, b) = (cloud.user(6), cloud.deployment(0), cloud.deployment(1));
    cloud
        .add(&user, cloud.on_deployments(VIEWER, &[&a, &b]))
        .await
        .is_empty_success();
    cloud
        .add(&user, cloud.organization_role("billing-admin"))
        .await
        .is_empty_success();
    let admin = cloud.key_with(cloud.on_deployments(ADMIN, &[&a])).await;
    assert_eq!(
        cloud.shown(&admin, &user).await,
        cloud.on_deployments(VIEWER, &[&a])
    );
    assert_eq!(
        cloud.shown(&admin, &cloud.user(0)).await,
        Value::Null,
        "the owner's is hidden"
    );
}

#[tokio::test]
async fn the_last_owner_stays_as_set() {
    for (choice, status) in [("protect", 400), ("allow", 200)] {
        let cloud = Cloud::set(&[&format!("last_owner={choice}"), "last_owner_code=x.last"]).await;
        let (owner, other) = (cloud.user(0), cloud.user(6));
        let role = cloud.organization_role("organization-admin");
        cloud.add(&other, role.clone()).await.is_empty_success();
        cloud.remove(&other, role.clone()).await.is_empty_success();
        let answer = cloud.remove(&owner, role).await;
        assert_eq!(answer.status, status, "{choice}");
        if status == 400 {
            answer.refused(400, "x.last");
            let path = format!("/organizations/{}/members/{owner}", cloud.org);
            cloud
                .call("DELETE", &path, Value::Null)
                .await
                .refused(400, "x.last");
        }
    }
}

#[tokio::test]
async fn a_broken_body_is_refused_and_changes_nothing() {
    let cloud = Cloud::start().await;
    let user = cloud.user(6);
    for body in [
        json!([]),
        json!({ "deployment": {} }),
        json!({ "deployment": [{ "organization_id": cloud.org }] }),
        json!({ "deployment": [{ "role_id": 3 }] }),
        json!({ "project": [] }),
    ] {
        assert_eq!(cloud.add(&user, body.clone()).await.status, 400, "{body}");
    }
    assert_eq!(cloud.shown(&cloud.key, &user).await, Value::Null);
}
