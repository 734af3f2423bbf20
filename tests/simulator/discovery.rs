//! Organizations, the account, deployments, projects and regions.

use serde_json::{Value, json};

use crate::harness::Cloud;

#[tokio::test]
async fn the_key_sees_its_own_organization_only() {
    let cloud = Cloud::start().await;
    cloud.handle().with(|core| {
        let mut other = core.world.organizations[0].clone();
        other.id = "42".to_owned();
        other.members.clear();
        other.api_keys.clear();
        core.world.organizations.push(other);
    });
    let list = cloud.get("/organizations").await;
    assert_eq!(list.body["organizations"].as_array().unwrap().len(), 1);
    let own = cloud.get(&format!("/organizations/{}", cloud.org)).await;
    assert_eq!(own.body, list.body["organizations"][0]);
    cloud
        .get("/organizations/42")
        .await
        .refused(403, "organization.invalid_access");
    cloud
        .get("/organizations/43")
        .await
        .refused(404, "organization.not_found");
    for path in ["/organizations/42/members", "/organizations/42/invitations"] {
        cloud.get(path).await.refused(404, "organization.not_found");
    }
}

#[tokio::test]
async fn an_organization_is_renamed_within_limits() {
    let cloud = Cloud::start().await;
    let path = format!("/organizations/{}", cloud.org);
    let put = async |body: Value| cloud.call("PUT", &path, body).await;
    let renamed = put(json!({ "name": "New", "billing_contacts": ["b@example.com"] })).await;
    assert_eq!(renamed.body["name"], "New");
    assert_eq!(
        cloud.get(&path).await.body["billing_contacts"],
        json!(["b@example.com"])
    );
    assert_eq!(
        put(json!({ "enforce_authentication_method": null }))
            .await
            .status,
        200
    );
    for name in ["x".to_owned(), "x".repeat(31)] {
        put(json!({ "name": name }))
            .await
            .refused(400, "organization.invalid_name");
    }
}

#[tokio::test]
async fn the_account_takes_a_patch_as_json_and_as_text() {
    let cloud = Cloud::start().await;
    let off = json!({ "trust": { "trust_all": false } });
    let on = json!({ "trust": { "trust_all": true } });
    for (method, body, trust) in [
        ("PUT", off.clone(), false),
        ("PATCH", json!(on.to_string()), true),
        ("PATCH", off, false),
        ("PATCH", json!({ "trust": null }), false),
    ] {
        let answer = cloud.call(method, "/account", body).await;
        assert_eq!(
            answer.body,
            json!({ "id": cloud.org, "trust": { "trust_all": trust } })
        );
    }
}

#[tokio::test]
async fn a_hidden_deployment_is_read_but_not_listed() {
    let cloud = Cloud::start().await;
    let id = cloud.deployment(2);
    let listed = async || {
        let list = cloud.get("/deployments").await.body["deployments"]
            .as_array()
            .unwrap()
            .len();
        let search = cloud
            .call("POST", "/deployments/_search", Value::Null)
            .await
            .body;
        assert_eq!(search["match_count"], list);
        list
    };
    assert_eq!(listed().await, 4);
    cloud
        .control("POST", &format!("deployments/{id}/hide"), Value::Null)
        .await;
    assert_eq!(listed().await, 3);
    let read = cloud.get(&format!("/deployments/{id}")).await;
    assert_eq!(
        (read.status, &read.body["metadata"]["hidden"]),
        (200, &json!(true))
    );
    cloud
        .get("/deployments/nothing")
        .await
        .refused(404, "deployments.deployment_not_found");
}

#[tokio::test]
async fn search_understands_queries_and_pages() {
    let cloud = Cloud::start().await;
    let id = cloud.deployment(0);
    let count = async |query: Value| {
        let body = json!({ "query": query });
        cloud.call("POST", "/deployments/_search", body).await.body["match_count"].clone()
    };
    assert_eq!(count(json!({ "match_all": {} })).await, 4);
    assert_eq!(count(json!({ "match_none": {} })).await, 0);
    assert_eq!(count(json!({ "term": { "id": { "value": id } } })).await, 1);
    assert_eq!(
        count(json!({ "match": { "name": { "query": "Production" } } })).await,
        2
    );
    assert_eq!(
        count(json!({ "prefix": { "name.keyword": { "value": "sta" } } })).await,
        1
    );
    let owner = json!({ "nested": { "path": "metadata.tags", "query":
        { "term": { "metadata.tags.value": { "value": "sre" } } } } });
    assert_eq!(
        count(json!({ "bool": { "must": [owner.clone()] } })).await,
        1
    );
    assert_eq!(
        count(json!({ "bool": { "must_not": [owner.clone()] } })).await,
        3
    );
    assert_eq!(count(json!({ "bool": { "should": [owner] } })).await, 1);
    let odd = json!({ "query": { "fuzzy": {} } });
    assert_eq!(
        cloud.call("POST", "/deployments/_search", odd).await.status,
        400
    );

    let mut seen = std::collections::BTreeSet::new();
    let mut cursor = None;
    loop {
        let mut body = json!({ "size": 3, "sort": [{ "name": { "order": "asc" } }] });
        if let Some(cursor) = cursor {
            body["cursor"] = cursor;
        }
        let page = cloud.call("POST", "/deployments/_search", body).await.body;
        for deployment in page["deployments"].as_array().unwrap() {
            assert!(seen.insert(deployment["id"].to_string()));
        }
        cursor = page.get("cursor").cloned();
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 4);
}

#[tokio::test]
async fn projects_of_each_type_are_listed_and_read() {
    let cloud = Cloud::start().await;
    for (kind, count) in [("elasticsearch", 2), ("observability", 2), ("security", 3)] {
        let path = format!("/serverless/projects/{kind}");
        let items = cloud.get(&path).await.body["items"]
            .as_array()
            .unwrap()
            .clone();
        assert_eq!(items.len(), count);
        for item in items {
            let id = item["id"].as_str().unwrap();
            let read = cloud.get(&format!("{path}/{id}")).await;
            assert_eq!(read.body, item);
            assert!(read.header("etag").is_some());
            let status = cloud.get(&format!("{path}/{id}/status")).await;
            assert_eq!(status.body["phase"], "initialized");
            let roles = cloud.get(&format!("{path}/{id}/roles")).await;
            assert!(roles.body[id]["roles"].is_array());
        }
        for missing in ["", "/roles", "/status"] {
            let path = format!("{path}/{}{missing}", "a".repeat(32));
            assert_eq!(cloud.get(&path).await.status, 404);
        }
        assert_eq!(
            cloud.get(&format!("{path}?tags[env]=dev")).await.body["items"],
            json!([])
        );
        let tagged = cloud.get(&format!("{path}?tags%5Benv%5D=prod")).await;
        assert_eq!(tagged.body["items"].as_array().unwrap().len(), count);
    }
    let regions = cloud.get("/serverless/regions").await.body;
    let first = regions[0]["id"].as_str().unwrap();
    assert_eq!(
        cloud
            .get(&format!("/serverless/regions/{first}"))
            .await
            .body,
        regions[0]
    );
    assert_eq!(cloud.get("/serverless/regions/nowhere").await.status, 404);
}

#[tokio::test]
async fn a_limited_key_sees_its_scope_only() {
    let cloud = Cloud::start().await;
    let (a, p) = (cloud.deployment(0), cloud.project(4));
    let key = cloud
        .key_with(cloud.on_deployments("deployment-viewer", &[&a]))
        .await;
    let list = cloud
        .call_as(&key, "GET", "/deployments", Value::Null)
        .await;
    assert_eq!(list.body["deployments"].as_array().unwrap().len(), 1);
    let other = format!("/deployments/{}", cloud.deployment(1));
    let answer = cloud.call_as(&key, "GET", &other, Value::Null).await;
    answer.refused(403, "root.permission_denied");
    let projects = cloud
        .call_as(&key, "GET", "/serverless/projects/security", Value::Null)
        .await;
    assert_eq!(projects.body["items"], json!([]));
    let key = cloud
        .key_with(cloud.on_projects("security", "security-viewer", &[&p], &[]))
        .await;
    let projects = cloud
        .call_as(&key, "GET", "/serverless/projects/security", Value::Null)
        .await;
    assert_eq!(projects.body["items"].as_array().unwrap().len(), 1);
}
