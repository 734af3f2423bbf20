//! Credentials, headers, encodings and odd paths.

use serde_json::{Value, json};

use crate::harness::{Cloud, read};

#[tokio::test]
async fn bad_credentials_are_401_with_the_set_code() {
    for code in ["root.unauthorized", "root.unauthenticated"] {
        let cloud = Cloud::set(&[&format!("credentials_code={code}")]).await;
        for key in ["", "wrong", "essu_wrong"] {
            for path in [
                "/organizations",
                "/deployments",
                "/serverless/projects/security",
            ] {
                cloud
                    .call_as(key, "GET", path, Value::Null)
                    .await
                    .refused(401, code);
            }
        }
    }
}

#[tokio::test]
async fn only_the_api_key_scheme_works_in_any_case() {
    let cloud = Cloud::start().await;
    for (scheme, status) in [
        ("ApiKey", 200),
        ("apikey", 200),
        ("apiKey", 200),
        ("Bearer", 401),
    ] {
        let request = cloud
            .http
            .get(format!("{}/api/v1/organizations", cloud.base()))
            .header("authorization", format!("{scheme} {}", cloud.key));
        assert_eq!(read(request).await.unwrap().status, status, "{scheme}");
    }
}

#[tokio::test]
async fn rate_limit_headers_stand_on_every_answer_as_set() {
    let cloud = Cloud::set(&["rate_limit=50", "rate_interval_seconds=10"]).await;
    for (left, path) in [(49, "/organizations"), (48, "/deployments/nothing")] {
        let answer = cloud.get(path).await;
        assert_eq!(answer.header("x-ratelimit-limit"), Some("50"));
        assert_eq!(answer.header("x-ratelimit-interval"), Some("10s"));
        assert_eq!(
            answer.header("x-ratelimit-remaining"),
            Some(left.to_string().as_str())
        );
    }
    cloud
        .control(
            "PATCH",
            "settings",
            json!({ "rate_interval_format": "seconds" }),
        )
        .await;
    let answer = cloud.get("/organizations").await;
    assert_eq!(answer.header("x-ratelimit-interval"), Some("10"));
    cloud
        .control("PATCH", "settings", json!({ "rate_headers": "absent" }))
        .await;
    assert_eq!(
        cloud
            .get("/organizations")
            .await
            .header("x-ratelimit-limit"),
        None
    );
}

#[tokio::test]
async fn calls_over_the_rate_limit_are_429_until_the_window_ends() {
    for (choice, told) in [("absent", None), ("present", Some("10"))] {
        let cloud = Cloud::set(&[
            "rate_limit=2",
            "rate_interval_seconds=10",
            "rate_code=some.code",
            &format!("rate_retry_after={choice}"),
        ])
        .await;
        assert_eq!(cloud.get("/organizations").await.status, 200);
        assert_eq!(cloud.get("/organizations").await.status, 200);
        let answer = cloud.get("/organizations").await;
        answer.refused(429, "some.code");
        assert_eq!(answer.header("retry-after"), told);
        assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
        cloud.advance(10);
        assert_eq!(cloud.get("/organizations").await.status, 200);
    }
}

#[tokio::test]
async fn the_rate_limit_is_shared_as_set() {
    for (choice, status) in [("key", 200), ("organization", 429)] {
        let cloud = Cloud::set(&["rate_limit=1", &format!("rate_scope={choice}")]).await;
        let other = cloud
            .key_with(cloud.organization_role("organization-admin"))
            .await;
        assert_eq!(cloud.get("/organizations").await.status, 200);
        let answer = cloud
            .call_as(&other, "GET", "/organizations", Value::Null)
            .await;
        assert_eq!(answer.status, status, "{choice}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_answer_html() {
    let cloud = Cloud::start().await;
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/serverless/projects/vectordb", 404),
        ("PUT", "/deployments", 405),
        ("GET", "/users/1/role_assignments", 405),
    ] {
        let answer = cloud.call(method, path, Value::Null).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("content-type"), Some("text/html"));
        assert!(
            answer.text.starts_with(&format!("<html><title>{status}: ")),
            "{}",
            answer.text
        );
        assert!(answer.header("access-control-allow-methods").is_some());
    }
}

#[tokio::test]
async fn bodies_are_unpacked_and_answers_packed() {
    let cloud = Cloud::start().await;
    // `{"description":"packed"}` through gzip.
    let packed = [
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0xff, 0xab, 0x56, 0x4a, 0x49, 0x2d,
        0x4e, 0x2e, 0xca, 0x2c, 0x28, 0xc9, 0xcc, 0xcf, 0x53, 0xb2, 0x52, 0x2a, 0x48, 0x4c, 0xce,
        0x4e, 0x4d, 0x51, 0xaa, 0x05, 0x00, 0x47, 0x90, 0xdc, 0x58, 0x18, 0x00, 0x00, 0x00,
    ];
    let request = cloud
        .http
        .post(format!("{}/api/v1/users/auth/keys", cloud.base()))
        .header("authorization", format!("ApiKey {}", cloud.key))
        .header("content-encoding", "gzip")
        .body(packed.to_vec());
    let made = read(request).await.unwrap();
    assert_eq!(
        (made.status, &made.body["description"]),
        (201, &json!("packed")),
        "{}",
        made.text
    );

    let plain = reqwest::Client::builder()
        .no_proxy()
        .no_gzip()
        .build()
        .unwrap();
    let response = plain
        .get(format!(
            "{}/api/v1/organizations/{}/members",
            cloud.base(),
            cloud.org
        ))
        .header("authorization", format!("ApiKey {}", cloud.key))
        .header("accept-encoding", "gzip")
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
}

#[tokio::test]
async fn an_unreadable_body_is_400() {
    let cloud = Cloud::start().await;
    for (encoding, body) in [("gzip", "not gzip"), ("identity", "{not json")] {
        let request = cloud
            .http
            .post(format!("{}/api/v1/users/auth/keys", cloud.base()))
            .header("authorization", format!("ApiKey {}", cloud.key))
            .header("content-encoding", encoding)
            .body(body);
        let answer = read(request).await.unwrap();
        answer.refused(400, "root.invalid_data");
    }
}

#[tokio::test]
async fn ece_has_no_organizations_as_set() {
    for (choice, status) in [("not_found", 404), ("not_implemented", 501)] {
        let pairs = [
            "ece=true".to_owned(),
            format!("ece_organization_paths={choice}"),
        ];
        let cloud = Cloud::set(&[&pairs[0], &pairs[1]]).await;
        let members = format!("/organizations/{}/members", cloud.org);
        for path in ["/organizations", members.as_str()] {
            assert_eq!(cloud.get(path).await.status, status, "{choice}");
        }
        let body = cloud.organization_role("billing-admin");
        assert_eq!(
            cloud.add(&cloud.user(6), body).await.status,
            status,
            "{choice}"
        );
        assert_eq!(cloud.get("/deployments").await.status, 200);
    }
}

#[tokio::test]
async fn the_date_header_follows_the_simulated_clock() {
    let cloud = Cloud::start().await;
    let answer = cloud.get("/organizations").await;
    assert_eq!(answer.header("date"), Some("Mon, 02 Mar 2026 12:00:00 GMT"));
}
