//! Each project's Elasticsearch.

use serde_json::{Value, json};

use crate::harness::{Answer, Cloud};

struct Project<'a> {
    cloud: &'a Cloud,
    id: String,
    key: String,
}

impl Project<'_> {
    async fn call_as(&self, key: &str, method: &str, path: &str, body: Value) -> Answer {
        let path = format!("/_es/{}{path}", self.id);
        let answer = self.cloud.call_as(key, method, &path, body).await;
        assert_eq!(answer.header("x-elastic-product"), Some("Elasticsearch"));
        answer
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        self.call_as(&self.key, method, path, body).await
    }

    async fn put(&self, name: &str, body: Value) -> Answer {
        self.call("PUT", &format!("/_security/role/{name}"), body)
            .await
    }
}

fn project(cloud: &Cloud, at: usize) -> Project<'_> {
    let (id, key) = cloud.handle().with(|core| {
        let project = &core.world.organizations[0].projects[at];
        (
            project.id.clone(),
            project.elasticsearch_key.clone().unwrap(),
        )
    });
    Project { cloud, id, key }
}

fn reader() -> Value {
    json!({
        "cluster": ["monitor"],
        "indices": [{ "names": ["logs-*"], "privileges": ["read"], "query": "{\"match_all\":{}}" }],
        "applications": [
            { "application": "kibana-.kibana", "privileges": ["feature_discover.read"], "resources": ["*"] },
        ],
        "metadata": { "made_by": "test" },
        "description": "Reads logs",
    })
}

#[tokio::test]
async fn a_role_is_made_replaced_read_and_deleted() {
    let cloud = Cloud::start().await;
    let es = project(&cloud, 0);
    let created = |created: bool| json!({ "role": { "created": created } });
    assert_eq!(es.put("reader", reader()).await.body, created(true));
    assert_eq!(es.put("reader", reader()).await.body, created(false));
    es.call("POST", "/_security/role/second?refresh=wait_for", json!({}))
        .await;
    let read = es.call("GET", "/_security/role/reader", Value::Null).await;
    assert_eq!(read.body["reader"]["description"], "Reads logs");
    assert_eq!(
        read.body["reader"]["indices"][0]["allow_restricted_indices"],
        false
    );
    let count = async |path: &str| {
        es.call("GET", path, Value::Null)
            .await
            .body
            .as_object()
            .unwrap()
            .len()
    };
    assert_eq!(count("/_security/role").await, 2);
    assert_eq!(count("/_security/role/reader%2Csecond,third").await, 2);
    let none = es.call("GET", "/_security/role/third", Value::Null).await;
    assert_eq!((none.status, none.body), (404, json!({})));
    let path = format!("/serverless/projects/elasticsearch/{}/roles", es.id);
    let roles = cloud.get(&path).await.body;
    assert_eq!(
        roles[&es.id]["roles"][0],
        json!({ "name": "reader", "description": "Reads logs" })
    );
    let gone = es
        .call("DELETE", "/_security/role/reader", Value::Null)
        .await;
    assert_eq!((gone.status, gone.body), (200, json!({ "found": true })));
    let again = es
        .call("DELETE", "/_security/role/reader", Value::Null)
        .await;
    assert_eq!((again.status, again.body), (404, json!({ "found": false })));
}

#[tokio::test]
async fn wrong_roles_are_refused_in_elasticsearchs_shape() {
    let cloud = Cloud::start().await;
    let es = project(&cloud, 0);
    let validation = "action_request_validation_exception";
    for (name, body, kind) in [
        ("-x", json!({}), validation),
        ("a%20b", json!({}), validation),
        ("superuser", json!({}), validation),
        ("x", json!({ "cluster": ["everything"] }), validation),
        (
            "x",
            json!({ "indices": [{ "names": ["*"], "privileges": ["look"] }] }),
            validation,
        ),
        ("x", json!({ "metadata": { "_x": 1 } }), validation),
        ("x", json!({ "run_as": ["y"] }), validation),
        ("x", json!({ "description": "d".repeat(1_001) }), validation),
        (
            "x",
            json!({ "applications": [
                { "application": "No Name", "privileges": ["a"], "resources": ["*"] },
            ]}),
            validation,
        ),
        (
            "x",
            json!({ "indices": [{ "names": ["*"] }] }),
            "parse_exception",
        ),
        ("x", json!({ "unknown": 1 }), "parse_exception"),
    ] {
        let answer = es.put(name, body.clone()).await;
        assert_eq!(answer.status, 400, "{name} {body}");
        assert_eq!(answer.body["status"], 400);
        assert_eq!(answer.body["error"]["type"], kind, "{name} {body}");
        assert_eq!(answer.body["error"]["root_cause"][0]["type"], kind);
    }
    let refresh = es
        .call("PUT", "/_security/role/x?refresh=maybe", json!({}))
        .await;
    assert_eq!(refresh.body["error"]["type"], "illegal_argument_exception");
    assert_eq!(
        es.put("x", json!({ "description": "d".repeat(1_000) }))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn access_needs_a_key_of_the_project_or_a_cloud_key_with_stack_roles() {
    let cloud = Cloud::start().await;
    let es = project(&cloud, 4);
    let status =
        async |key: &str, path: &str| es.call_as(key, "GET", path, Value::Null).await.status;
    assert_eq!(status("", "/").await, 401);
    assert_eq!(
        status(&project(&cloud, 5).key, "/").await,
        401,
        "of another project"
    );
    assert_eq!(status(&cloud.key, "/").await, 403, "no stack roles");
    let with = async |roles: &[&str]| {
        let held = cloud.on_projects("security", "security-viewer", &[&es.id], roles);
        cloud.key_with(held).await
    };
    let viewer = with(&["viewer"]).await;
    assert_eq!(status(&viewer, "/").await, 200);
    assert_eq!(status(&viewer, "/_security/role").await, 403);
    assert_eq!(
        status(&with(&["admin"]).await, "/_security/role").await,
        200
    );
    es.put("role-keeper", json!({ "cluster": ["manage_security"] }))
        .await;
    let keeper = with(&["role-keeper"]).await;
    assert_eq!(status(&keeper, "/_security/role").await, 200);
    let me = es
        .call_as(&keeper, "GET", "/_security/_authenticate", Value::Null)
        .await;
    assert_eq!(me.body["roles"], json!(["role-keeper"]));
    assert_eq!(status(&with(&[]).await, "/").await, 403);
}

#[tokio::test]
async fn the_root_tells_a_serverless_elasticsearch() {
    let cloud = Cloud::start().await;
    let es = project(&cloud, 0);
    let root = es.call("GET", "/", Value::Null).await;
    assert_eq!(root.body["version"]["build_flavor"], "serverless");
    assert_eq!(root.body["tagline"], "You Know, for Search");
    assert_eq!(es.call("HEAD", "/", Value::Null).await.status, 200);
    assert_eq!(
        es.call("GET", "/_cat/indices", Value::Null).await.status,
        400
    );
}
