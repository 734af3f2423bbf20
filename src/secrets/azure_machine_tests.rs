//! The managed identity of a machine: its metadata service played in the place of the one address that the SDK knows.

use serde_json::json;
use wiremock::matchers::{header, method, path, query_param, query_param_is_missing};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::tests::{challenges, reads, refusal, secret};
use super::*;
use crate::secrets::test_support::{assert_hushed, fetched};

const READ: &str = "/secrets/elastic-key/";

/// A store on `server`, which is the vault and the metadata service of the machine as well.
fn store(server: &MockServer, client: Option<&str>) -> AzureSecret {
    let address = Url::parse(&server.uri()).expect("the server's address");
    let mut store = AzureSecret::new(AzureOptions {
        vault_url: address.clone(),
        secret: "elastic-key".to_owned(),
        version: None,
        field: "api_key".to_owned(),
    });
    store.metadata_server = Some(address);
    store.identity = Some(Identity {
        client: client.map(str::to_owned),
        ..Identity::default()
    });
    store
}

/// The question for a token as the metadata service takes it. Without the header it answers nobody: what was sent on
/// by mistake does not have it.
fn tokens() -> wiremock::MockBuilder {
    Mock::given(method("GET"))
        .and(path("/metadata/identity/oauth2/token"))
        .and(header("metadata", "true"))
        .and(query_param("api-version", "2019-08-01"))
        .and(query_param("resource", "https://vault.azure.net"))
}

fn token(text: &str) -> ResponseTemplate {
    // Seconds since 1970, as text: in the year 2100.
    ResponseTemplate::new(200).set_body_json(json!({
        "access_token": text,
        "expires_on": "4102444800",
        "resource": "https://vault.azure.net",
        "token_type": "Bearer",
    }))
}

#[tokio::test]
async fn the_machine_s_own_identity_is_asked_for_one_token() {
    let server = MockServer::start().await;
    challenges(&server).await;
    tokens()
        .and(query_param_is_missing("client_id"))
        .respond_with(token("HUSH-token"))
        .expect(1)
        .mount(&server)
        .await;
    reads(READ, "HUSH-token")
        .respond_with(secret("essu_abc"))
        .expect(2)
        .mount(&server)
        .await;
    let store = store(&server, None);
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
}

#[tokio::test]
async fn an_identity_that_was_given_to_the_machine_is_asked_for_by_its_client_id() {
    let server = MockServer::start().await;
    challenges(&server).await;
    tokens()
        .and(query_param("client_id", "client-1"))
        .respond_with(token("HUSH-token"))
        .expect(1)
        .mount(&server)
        .await;
    reads(READ, "HUSH-token")
        .respond_with(secret("essu_abc"))
        .mount(&server)
        .await;
    let store = store(&server, Some("client-1"));
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
}

#[tokio::test]
async fn a_machine_without_an_identity_is_told_from_one_that_does_not_answer_and_both_heal() {
    let server = MockServer::start().await;
    challenges(&server).await;
    // The SDK repeats what the service says in passing, for longer than a fetch may take.
    for (answer, times) in [(refusal(400), 1), (refusal(503), 1)] {
        tokens()
            .respond_with(answer)
            .up_to_n_times(times)
            .expect(times)
            .mount(&server)
            .await;
    }
    tokens()
        .respond_with(token("HUSH-token"))
        .mount(&server)
        .await;
    reads(READ, "HUSH-token")
        .respond_with(secret("essu_abc"))
        .mount(&server)
        .await;
    let mut store = store(&server, None);

    let error = fetched(&store).await.expect_err("no identity");
    assert!(
        matches!(&error, SecretError::Denied { code, .. } if code == "login:http_400"),
        "{error:?}"
    );
    assert!(error.remedy().contains("managed identity"));
    assert_hushed(&error);

    store.fetch_timeout = Duration::from_millis(500);
    let error = fetched(&store).await.expect_err("away");
    assert!(
        matches!(&error, SecretError::Unavailable { code, .. } if code == "timeout"),
        "{error:?}"
    );
    assert!(error.remedy().contains("169.254.169.254 port 80"));
    assert_hushed(&error);

    store.fetch_timeout = FETCH_TIMEOUT;
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
}

#[tokio::test]
async fn a_page_in_the_place_of_a_token_is_no_token() {
    let server = MockServer::start().await;
    challenges(&server).await;
    tokens()
        .respond_with(ResponseTemplate::new(200).set_body_string("<html>HUSH</html>"))
        .mount(&server)
        .await;
    let error = fetched(&store(&server, None)).await.expect_err("a page");
    assert_eq!(error.code(), "secret_denied", "{error:?}");
    assert_hushed(&error);
}
