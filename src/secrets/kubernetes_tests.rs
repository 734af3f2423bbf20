//! A store that is played: what is asked of it, and what its refusals mean.

use secrecy::ExposeSecret;
use serde_json::json;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;

struct Account(tempfile::TempDir);

impl Account {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("token"), "account-token\n").expect("writable");
        std::fs::write(folder.path().join("namespace"), "access").expect("writable");
        Self(folder)
    }

    fn store(&self, server: &MockServer, namespace: Option<&str>) -> KubernetesSecret {
        KubernetesSecret::new(KubernetesOptions {
            api_server: Some(Url::parse(&server.uri()).expect("the server's address")),
            service_account: self.0.path().to_owned(),
            namespace: namespace.map(str::to_owned),
            name: "elastic-key".to_owned(),
            key: "api-key".to_owned(),
            field: "api_key".to_owned(),
        })
    }
}

async fn fetched(store: &KubernetesSecret) -> Result<String, SecretError> {
    store
        .fetch()
        .await
        .map(|key| key.expose_secret().to_owned())
}

fn object(data: &serde_json::Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({
        "kind": "Secret", "apiVersion": "v1",
        "metadata": {"name": "elastic-key", "namespace": "access"},
        "type": "Opaque",
        "data": data,
    }))
}

#[tokio::test]
async fn one_named_secret_is_got_with_the_service_account_of_the_pod() {
    let (server, account) = (MockServer::start().await, Account::new());
    for (namespace, key) in [
        ("access", "essu_abc"),
        ("keys", r#"{"api_key":"essu_abc"}"#),
    ] {
        Mock::given(method("GET"))
            .and(path(format!(
                "/api/v1/namespaces/{namespace}/secrets/elastic-key"
            )))
            .and(header("Authorization", "Bearer account-token"))
            .respond_with(object(
                &json!({"other": "SFVTSA==", "api-key": STANDARD.encode(key)}),
            ))
            .expect(1)
            .mount(&server)
            .await;
    }
    for namespace in [None, Some("keys")] {
        let store = account.store(&server, namespace);
        assert_eq!(
            fetched(&store).await.as_deref(),
            Ok("essu_abc"),
            "{namespace:?}"
        );
    }
}

#[tokio::test]
async fn every_refusal_has_its_own_meaning_and_none_repeats_a_secret() {
    let account = Account::new();
    let refusal = json!({"kind": "Status", "message": "HUSH"});
    let cases = [
        (401, refusal.clone(), "secret_denied", "cluster"),
        (
            403,
            refusal.clone(),
            "secret_denied",
            "resourceNames [elastic-key]",
        ),
        (
            404,
            refusal.clone(),
            "secret_not_found",
            "create the Secret",
        ),
        (500, refusal, "secret_unavailable", "API server"),
        (
            200,
            json!({"data": {"other": "SFVTSA=="}}),
            "secret_not_found",
            "api-key",
        ),
        (
            200,
            json!({"kind": "Secret"}),
            "secret_not_found",
            "api-key",
        ),
        (
            200,
            json!({"data": {"api-key": "%"}}),
            "secret_unavailable",
            "address",
        ),
        (
            200,
            json!({"data": {"api-key": "/w=="}}),
            "secret_malformed",
            "bare key",
        ),
        (200, json!("HUSH"), "secret_unavailable", "address"),
    ];
    for (status, body, code, remedy) in cases {
        let server = MockServer::start().await;
        Mock::given(method("GET"))
            .respond_with(ResponseTemplate::new(status).set_body_json(&body))
            .mount(&server)
            .await;
        let store = account.store(&server, None);
        let error = fetched(&store).await.expect_err("refused");
        assert_eq!(error.code(), code, "{status} {body}: {error}");
        assert!(
            error.remedy().contains(remedy),
            "{status}: {}",
            error.remedy()
        );
        assert!(!format!("{error} {error:?}").contains("HUSH"), "{error:?}");
    }
}

#[tokio::test]
async fn a_pod_without_a_token_is_told_to_mount_one() {
    let (server, account) = (MockServer::start().await, Account::new());
    let store = account.store(&server, None);
    std::fs::remove_file(account.0.path().join("token")).expect("there");
    let error = fetched(&store).await.expect_err("no token");
    assert!(
        error.remedy().contains("automountServiceAccountToken"),
        "{error:?}"
    );
}

#[test]
fn the_api_server_is_that_of_the_pods_environment() {
    let named = |host: &str| address(Some(host.to_owned()), Some("443".to_owned()));
    let text = |url: Option<Url>| url.map(|url| url.to_string());
    assert_eq!(
        text(named("10.0.0.1")).as_deref(),
        Some("https://10.0.0.1/")
    );
    assert_eq!(
        text(named("fd00::1")).as_deref(),
        Some("https://[fd00::1]/")
    );
    assert_eq!(address(Some("10.0.0.1".to_owned()), None), None);
}

fn versioned(key: &str, version: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({
        "kind": "Secret", "apiVersion": "v1",
        "metadata": {"name": "elastic-key", "namespace": "access", "resourceVersion": version},
        "data": {"other": "SFVTSA==", "api-key": STANDARD.encode(key)},
    }))
}

#[tokio::test]
async fn a_key_is_patched_for_the_version_that_was_read_and_no_other() {
    use crate::ports::secrets::digest;

    let one = digest(&SecretString::from("essu_one"));
    let replacement = Replacement {
        expected: &one,
        key: &SecretString::from("essu_two"),
        token: "t",
    };
    let patch = json!({
        "metadata": {"resourceVersion": "4711", "annotations": {"latchkey/rotation": "t"}},
        "data": {"api-key": STANDARD.encode("essu_two")},
    });
    for (status, outcome) in [
        (200, Ok(())),
        (409, Err("secret_changed")),
        (403, Err("secret_denied")),
        (422, Err("secret_denied")),
        (500, Err("secret_unavailable")),
    ] {
        let (server, account) = (MockServer::start().await, Account::new());
        Mock::given(method("GET"))
            .respond_with(versioned("essu_one", "4711"))
            .mount(&server)
            .await;
        Mock::given(method("PATCH"))
            .and(path("/api/v1/namespaces/access/secrets/elastic-key"))
            .and(header("Content-Type", "application/merge-patch+json"))
            .and(header("Authorization", "Bearer account-token"))
            .and(wiremock::matchers::body_json(&patch))
            .respond_with(ResponseTemplate::new(status).set_body_string("HUSH"))
            .expect(1)
            .mount(&server)
            .await;
        let store = account.store(&server, None);
        let written = store.replace(&replacement).await;
        let code = written.as_ref().err().map(|error| error.code());
        assert_eq!(code, outcome.err(), "{status}");
        assert!(!format!("{written:?}").contains("HUSH"), "{written:?}");
    }
}

#[tokio::test]
async fn a_key_that_is_there_already_is_not_patched_again() {
    use crate::ports::secrets::digest;

    let (server, account) = (MockServer::start().await, Account::new());
    Mock::given(method("GET"))
        .respond_with(versioned("essu_two", "4712"))
        .mount(&server)
        .await;
    let replacement = Replacement {
        expected: &digest(&SecretString::from("essu_one")),
        key: &SecretString::from("essu_two"),
        token: "t",
    };
    let store = account.store(&server, None);
    store.replace(&replacement).await.expect("there already");
}

#[tokio::test]
async fn a_fence_changes_the_object_so_that_nothing_lands_behind_it() {
    use crate::ports::secrets::digest;

    let (server, account) = (MockServer::start().await, Account::new());
    Mock::given(method("GET"))
        .respond_with(versioned("essu_one", "4711"))
        .mount(&server)
        .await;
    let patch = json!({
        "metadata": {"resourceVersion": "4711", "annotations": {"latchkey/rotation": "t-undone"}},
        "data": {"api-key": STANDARD.encode("essu_one")},
    });
    Mock::given(method("PATCH"))
        .and(wiremock::matchers::body_json(&patch))
        .respond_with(ResponseTemplate::new(200).set_body_string("{}"))
        .expect(1)
        .mount(&server)
        .await;
    let one = SecretString::from("essu_one");
    let fence = Replacement {
        expected: &digest(&one),
        key: &one,
        token: "t",
    };
    let store = account.store(&server, None);
    store.replace(&fence).await.expect("written once more");
}
