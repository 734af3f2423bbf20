//! Cloud API keys.

use serde_json::{Value, json};

use crate::harness::{Answer, Cloud};

const KEYS: &str = "/users/auth/keys";

impl Cloud {
    async fn make_key(&self, body: Value) -> Answer {
        self.call("POST", KEYS, body).await
    }

    async fn key_ids(&self) -> Vec<String> {
        let body = self.get(KEYS).await.body;
        let keys = body["keys"].as_array().unwrap();
        assert!(
            keys.iter().all(|key| key.get("key").is_none()),
            "the value is shown only once"
        );
        keys.iter()
            .map(|key| key["id"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[tokio::test]
async fn a_new_key_works_until_it_ends() {
    let cloud = Cloud::start().await;
    let made = cloud
        .make_key(json!({ "description": "x", "expiration": "1d" }))
        .await;
    assert_eq!(made.status, 201);
    assert_eq!(made.body["expiration_date"], "2026-03-03T12:00:00.000Z");
    assert_eq!(
        made.body["role_assignments"],
        cloud.organization_role("organization-admin")
    );
    let key = made.body["key"].as_str().unwrap();
    assert!(key.starts_with("essu_"), "{key}");
    let answer = cloud
        .call_as(key, "GET", "/organizations", Value::Null)
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("x-elastic-api-key-expiration"),
        Some("2026-03-03T12:00:00.000Z")
    );
    cloud.advance(86_400);
    cloud
        .call_as(key, "GET", "/organizations", Value::Null)
        .await
        .refused(401, "root.unauthorized");
    let id = made.body["id"].as_str().unwrap().to_owned();
    assert!(!cloud.key_ids().await.contains(&id), "ended keys vanish");
}

#[tokio::test]
async fn keys_are_read_and_deleted() {
    let cloud = Cloud::start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let made = cloud.make_key(json!({ "description": "x" })).await;
        assert_eq!(
            made.body["expiration_date"], "2026-05-31T12:00:00.000Z",
            "three months"
        );
        ids.push(made.body["id"].as_str().unwrap().to_owned());
    }
    let path = format!("{KEYS}/{}", ids[0]);
    assert_eq!(cloud.get(&path).await.body["id"], ids[0].as_str());
    cloud
        .call("DELETE", &path, Value::Null)
        .await
        .is_empty_success();
    cloud
        .get(&path)
        .await
        .refused(404, "api_keys.key_not_found");
    cloud
        .call("DELETE", &path, Value::Null)
        .await
        .refused(404, "api_keys.key_not_found");
    let rest = json!({ "keys": [ids[1], ids[2], "unknown"] });
    cloud.call("DELETE", KEYS, rest).await.is_empty_success();
    assert_eq!(cloud.key_ids().await.len(), 1);
}

#[tokio::test]
async fn expirations_follow_the_settings() {
    for (settings, expiration, status) in [
        (&[][..], "3h", 201),
        (&[], "3mo", 201),
        (&[], "2y", 201),
        (&[], "never", 201),
        (&[], "soon", 400),
        (&[], "0d", 400),
        (&["key_never=reject"], "never", 400),
        (&["key_max_seconds=31536000"], "366d", 400),
        (&["key_max_seconds=31536000"], "365d", 201),
        (&["key_max_seconds=31536000"], "never", 400),
    ] {
        let cloud = Cloud::set(settings).await;
        let made = cloud
            .make_key(json!({ "description": "x", "expiration": expiration }))
            .await;
        assert_eq!(made.status, status, "{settings:?} {expiration}");
        assert_eq!(made.status == 400, made.body.get("errors").is_some());
    }
}

#[tokio::test]
async fn a_description_is_needed_as_set() {
    for (choice, status) in [("required", 400), ("optional", 201)] {
        let cloud = Cloud::set(&[&format!("key_description={choice}")]).await;
        assert_eq!(cloud.make_key(json!({})).await.status, status, "{choice}");
    }
}

#[tokio::test]
async fn the_number_of_keys_is_limited_as_set() {
    for (limit, status) in [(2, 400), (0, 201)] {
        let cloud = Cloud::set(&[&format!("key_limit={limit}")]).await;
        assert_eq!(
            cloud.make_key(json!({ "description": "x" })).await.status,
            201
        );
        let third = cloud.make_key(json!({ "description": "x" })).await;
        assert_eq!(third.status, status, "{limit}");
    }
}

#[tokio::test]
async fn keys_of_others_are_listed_as_set() {
    for (choice, listed) in [("organization", 2), ("creator", 1)] {
        let cloud = Cloud::set(&[&format!("key_scope={choice}")]).await;
        let body = json!({ "user_id": cloud.user(6) });
        cloud.control("POST", "keys", body).await;
        assert_eq!(cloud.key_ids().await.len(), listed, "{choice}");
    }
}

#[tokio::test]
async fn keys_without_ownership_manage_keys_as_set() {
    for (choice, list, make) in [
        ("forbidden", 403, 403),
        ("list_only", 200, 403),
        ("allowed", 200, 201),
    ] {
        let cloud = Cloud::set(&[&format!("non_owner_keys={choice}")]).await;
        let key = cloud
            .key_with(cloud.on_deployments("deployment-admin", &[&cloud.deployment(0)]))
            .await;
        let answer = cloud.call_as(&key, "GET", KEYS, Value::Null).await;
        assert_eq!(answer.status, list, "{choice}");
        let body = json!({ "description": "x" });
        assert_eq!(
            cloud.call_as(&key, "POST", KEYS, body).await.status,
            make,
            "{choice}"
        );
        let wider = json!({
            "description": "x",
            "role_assignments": cloud.organization_role("organization-admin"),
        });
        assert_eq!(
            cloud.call_as(&key, "POST", KEYS, wider).await.status,
            403,
            "{choice}"
        );
    }
}

#[tokio::test]
async fn fast_deletions_fail_as_set() {
    let cloud = Cloud::set(&["key_delete_min_interval_ms=1000"]).await;
    for wait in [0, 2] {
        let made = cloud.make_key(json!({ "description": "x" })).await;
        let path = format!("{KEYS}/{}", made.body["id"].as_str().unwrap());
        cloud.advance(wait);
        cloud
            .call("DELETE", &path, Value::Null)
            .await
            .is_empty_success();
        assert_eq!(cloud.call("DELETE", &path, Value::Null).await.status, 500);
    }
}

#[tokio::test]
async fn the_expiration_header_has_the_set_format() {
    for (choice, value) in [
        ("rfc3339", Some("2099-01-01T00:00:00.000Z")),
        ("http_date", Some("Thu, 01 Jan 2099 00:00:00 GMT")),
        ("absent", None),
    ] {
        let cloud = Cloud::set(&[&format!("expiration_header={choice}")]).await;
        let answer = cloud.get("/organizations").await;
        assert_eq!(answer.header("x-elastic-api-key-expiration"), value);
    }
    let cloud = Cloud::start().await;
    let endless = cloud
        .key_with(cloud.organization_role("organization-admin"))
        .await;
    let answer = cloud
        .call_as(&endless, "GET", "/organizations", Value::Null)
        .await;
    assert_eq!(answer.header("x-elastic-api-key-expiration"), None);
}
