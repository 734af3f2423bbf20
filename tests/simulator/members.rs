//! Members: leaving, lists of ids, stale reads.

use serde_json::{Value, json};

use crate::harness::Cloud;

fn ids(body: &Value) -> Vec<String> {
    let list = body["members"].as_array().unwrap();
    list.iter()
        .map(|member| member["user_id"].as_str().unwrap().to_owned())
        .collect()
}

impl Cloud {
    async fn member_ids(&self) -> Vec<String> {
        ids(&self
            .get(&format!("/organizations/{}/members", self.org))
            .await
            .body)
    }

    async fn dismiss(&self, users: &str) -> crate::harness::Answer {
        let path = format!("/organizations/{}/members/{users}?force=true", self.org);
        self.call("DELETE", &path, Value::Null).await
    }
}

#[tokio::test]
async fn an_encoded_comma_separates_members() {
    let cloud = Cloud::start().await;
    let (a, b) = (cloud.user(6), cloud.user(7));
    cloud
        .dismiss(&format!("{a}%2C{b}"))
        .await
        .is_empty_success();
    let left = cloud.member_ids().await;
    assert!(!left.contains(&a) && !left.contains(&b) && left.len() == 7);
}

#[tokio::test]
async fn a_partly_unknown_list_answers_as_set() {
    for (choice, status) in [("all_or_nothing", 404), ("best_effort", 200)] {
        let cloud = Cloud::set(&[&format!("partial_csv={choice}")]).await;
        let known = cloud.user(6);
        assert_eq!(
            cloud.dismiss(&format!("{known},1")).await.status,
            status,
            "{choice}"
        );
        assert_eq!(
            cloud.member_ids().await.contains(&known),
            status == 404,
            "{choice}"
        );
        assert_eq!(
            cloud.dismiss("1").await.status,
            404,
            "nothing known: {choice}"
        );
    }
}

#[tokio::test]
async fn membership_not_found_has_the_set_status() {
    for (choice, status) in [("not_found", 404), ("bad_request", 400)] {
        let cloud = Cloud::set(&[&format!("membership_not_found={choice}")]).await;
        cloud
            .dismiss("1")
            .await
            .refused(status, "organization.membership_not_found");
    }
}

#[tokio::test]
async fn a_member_who_left_leaves_keys_behind() {
    let cloud = Cloud::start().await;
    let user = cloud.user(6);
    let body = json!({ "user_id": user, "role_assignments":
        cloud.on_deployments("deployment-admin", &[&cloud.deployment(0)]) });
    let key = cloud.control("POST", "keys", body).await["key"]
        .as_str()
        .unwrap()
        .to_owned();
    cloud.dismiss(&user).await.is_empty_success();
    let answer = cloud
        .call_as(&key, "GET", "/organizations", Value::Null)
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn only_owners_remove_members() {
    let cloud = Cloud::set(&["forbidden_code=some.code"]).await;
    let key = cloud
        .key_with(cloud.on_all_deployments("deployment-admin"))
        .await;
    let path = format!("/organizations/{}/members/{}", cloud.org, cloud.user(6));
    cloud
        .call_as(&key, "DELETE", &path, Value::Null)
        .await
        .refused(403, "some.code");
}

#[tokio::test]
async fn reads_are_stale_for_the_set_number_of_times() {
    let cloud = Cloud::set(&["stale_reads=2"]).await;
    let user = cloud.user(6);
    cloud
        .add(&user, cloud.organization_role("billing-admin"))
        .await
        .is_empty_success();
    for _ in 0..2 {
        assert_eq!(cloud.shown(&cloud.key, &user).await, Value::Null);
    }
    assert_ne!(cloud.shown(&cloud.key, &user).await, Value::Null);
    cloud
        .remove(&user, cloud.organization_role("billing-admin"))
        .await
        .is_empty_success();
    for _ in 0..2 {
        assert_ne!(cloud.shown(&cloud.key, &user).await, Value::Null);
    }
    assert_eq!(cloud.shown(&cloud.key, &user).await, Value::Null);
    cloud.dismiss(&user).await.is_empty_success();
    assert!(
        cloud.member_ids().await.contains(&user),
        "one who left is still shown"
    );
}

#[tokio::test]
async fn reads_are_stale_for_the_set_time() {
    let cloud = Cloud::set(&["stale_ms=1500"]).await;
    let user = cloud.user(6);
    cloud
        .add(&user, cloud.organization_role("billing-admin"))
        .await
        .is_empty_success();
    cloud.advance(1);
    assert_eq!(cloud.shown(&cloud.key, &user).await, Value::Null);
    cloud.advance(1);
    assert_ne!(cloud.shown(&cloud.key, &user).await, Value::Null);
}

#[tokio::test]
async fn a_drawn_number_of_stale_reads_repeats_with_the_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let cloud = Cloud::set(&["stale_reads=9", "stale_random=true"]).await;
        let mut counts = Vec::new();
        for at in [6, 7, 8] {
            let user = cloud.user(at);
            cloud
                .add(&user, cloud.organization_role("billing-admin"))
                .await;
            let mut stale = 0;
            while cloud.shown(&cloud.key, &user).await.is_null() {
                stale += 1;
            }
            counts.push(stale);
        }
        assert!(counts.iter().all(|count| *count <= 9));
        runs.push(counts);
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn a_large_listing_shows_a_change_at_once() {
    let cloud =
        Cloud::with(|options| options.world = latchkey::sim::World::large(3, 1_500, 50)).await;
    for _ in 0..2 {
        assert_eq!(cloud.member_ids().await.len(), 1_500);
    }
    let user = cloud.user(1_400);
    cloud
        .add(&user, cloud.organization_role("billing-admin"))
        .await
        .is_empty_success();
    let shown = cloud.shown(&cloud.key, &user).await;
    assert_eq!(shown["organization"][0]["role_id"], "billing-admin");
    assert_eq!(shown["deployment"].as_array().unwrap().len(), 2);
}
