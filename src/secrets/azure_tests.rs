//! A key vault and its identity service, played: what is asked of them, and what their refusals mean.

use std::path::Path;

use serde_json::json;
use wiremock::matchers::{
    body_string_contains, header, header_exists, method, path, query_param_contains,
};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::secrets::test_support::{assert_hushed, fetched};

const READ: &str = "/secrets/elastic-key/";
const LOGIN: &str = "/tenant-1/oauth2/v2.0/token";

/// A store on `server`, which is the vault and gives out the tokens as well.
fn store(server: &MockServer, folder: &Path) -> AzureSecret {
    let token_file = folder.join("token");
    std::fs::write(&token_file, "HUSH-assertion").expect("writable");
    let mut store = AzureSecret::new(AzureOptions {
        vault_url: Url::parse(&server.uri()).expect("the server's address"),
        secret: "elastic-key".to_owned(),
        version: None,
        field: "api_key".to_owned(),
    });
    store.identity = Some(Identity {
        tenant: Some("tenant-1".to_owned()),
        client: Some("client-1".to_owned()),
        token_file: Some(token_file),
        client_secret: None,
        authority: Some(server.uri().replace("http://", "https://")),
    });
    store
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

pub(super) fn reads(from: &str, token: &str) -> wiremock::MockBuilder {
    Mock::given(method("GET"))
        .and(path(from))
        .and(query_param_contains("api-version", "20"))
        .and(header("Authorization", format!("Bearer {token}").as_str()))
}

pub(super) fn secret(text: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({
        "value": text,
        "id": "https://access.vault.azure.net/secrets/elastic-key/0123abc",
        "attributes": {"enabled": true},
    }))
}

pub(super) fn refusal(status: u16) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(
        json!({"error": {"code": "HUSH", "message": "HUSH is what the service said"}}),
    )
}

fn logins() -> wiremock::MockBuilder {
    Mock::given(method("POST")).and(path(LOGIN))
}

fn token(text: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(
        json!({"token_type": "Bearer", "expires_in": 3600, "ext_expires_in": 3600, "access_token": text}),
    )
}

/// The answer to whoever shows no token: where and for what to get one.
pub(super) async fn challenges(server: &MockServer) {
    let challenge = "Bearer authorization=\"https://login.microsoftonline.com/tenant-1\", resource=\"https://vault.azure.net\"";
    Mock::given(method("GET"))
        .respond_with(refusal(401).insert_header("WWW-Authenticate", challenge))
        .with_priority(200)
        .mount(server)
        .await;
}

/// A vault that gives out a token and answers `answer` to whoever shows it.
async fn answering(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    challenges(&server).await;
    logins()
        .respond_with(token("HUSH-token"))
        .mount(&server)
        .await;
    reads(READ, "HUSH-token")
        .respond_with(answer)
        .mount(&server)
        .await;
    server
}

async fn refused(answer: ResponseTemplate) -> SecretError {
    let (server, folder) = (answering(answer).await, folder());
    let error = fetched(&store(&server, folder.path())).await;
    let error = error.expect_err("not a key");
    assert_hushed(&error);
    error
}

#[tokio::test]
async fn workload_identity_logs_in_once_and_reads_the_newest_version() {
    let (server, folder) = (MockServer::start().await, folder());
    challenges(&server).await;
    logins()
        .and(body_string_contains("client_assertion=HUSH-assertion"))
        .and(body_string_contains("client_id=client-1"))
        .and(body_string_contains(
            "scope=https%3A%2F%2Fvault.azure.net%2F.default",
        ))
        .respond_with(token("HUSH-token"))
        .expect(1)
        .mount(&server)
        .await;
    reads(READ, "HUSH-token")
        .respond_with(secret("essu_abc\n"))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    reads(READ, "HUSH-token")
        .respond_with(secret(r#"{"api_key": "essu_xyz"}"#))
        .expect(1)
        .mount(&server)
        .await;
    let store = store(&server, folder.path());
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_xyz"));
    let shown = format!("{store:?} {}", store.describe());
    assert!(
        !shown.contains("essu") && !shown.contains("HUSH"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_client_secret_and_a_version_are_sent_where_they_are_set() {
    let (server, folder) = (MockServer::start().await, folder());
    challenges(&server).await;
    logins()
        .and(body_string_contains("client_secret=HUSH-secret"))
        .respond_with(token("HUSH-token"))
        .expect(1)
        .mount(&server)
        .await;
    reads("/secrets/elastic-key/0123abc", "HUSH-token")
        .respond_with(secret(r#"{"key": "essu_abc"}"#))
        .expect(1)
        .mount(&server)
        .await;
    let mut store = store(&server, folder.path());
    store.options.version = Some("0123abc".to_owned());
    store.options.field = "key".to_owned();
    let identity = store.identity.as_mut().expect("set above");
    identity.token_file = None;
    identity.client_secret = Some(SecretString::from("HUSH-secret"));
    assert!(!format!("{identity:?}").contains("HUSH"));
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
    assert!(store.describe().contains("0123abc"));
}

#[tokio::test]
async fn every_refusal_has_its_own_meaning_and_remedy() {
    let cases = [
        (404, "secret_not_found", "az keyvault secret set"),
        (403, "secret_denied", "Key Vault Secrets User"),
        (401, "secret_denied", "tenant"),
        (400, "secret_denied", "`version`"),
        (429, "secret_unavailable", "wait"),
        (500, "secret_unavailable", "wait"),
        (503, "secret_unavailable", "wait"),
        (302, "secret_unavailable", "vault_url"),
    ];
    for (status, expected, remedy) in cases {
        let error = refused(refusal(status)).await;
        assert_eq!(error.code(), expected, "{status}");
        assert!(
            error.remedy().contains(remedy),
            "{status}: {}",
            error.remedy()
        );
        let named = status == 404 || error.to_string().contains(&format!("(http_{status})"));
        assert!(named, "{error}");
    }
}

#[tokio::test]
async fn what_is_not_a_key_is_refused_and_never_quoted() {
    for text in ["HUSH HUSH", "", r#"{"apiKey": "HUSH"}"#] {
        let error = refused(secret(text)).await;
        assert_eq!(error.code(), "secret_malformed", "{error}");
    }
    let nothing = ResponseTemplate::new(200).set_body_json(json!({"id": "HUSH"}));
    assert_eq!(refused(nothing).await.code(), "secret_malformed");
    let page = ResponseTemplate::new(200).set_body_string("<html>HUSH</html>");
    assert_eq!(refused(page).await.code(), "secret_unavailable");
}

#[tokio::test]
async fn a_login_that_is_refused_is_told_from_one_that_fails_and_both_heal() {
    let (server, folder) = (MockServer::start().await, folder());
    challenges(&server).await;
    for status in [400, 503] {
        let answer = ResponseTemplate::new(status)
            .set_body_json(json!({"error_codes": [700_213], "error_description": "HUSH"}));
        logins()
            .respond_with(answer)
            .up_to_n_times(1)
            .mount(&server)
            .await;
    }
    logins()
        .respond_with(token("HUSH-token"))
        .mount(&server)
        .await;
    reads(READ, "HUSH-token")
        .respond_with(secret("essu_abc"))
        .mount(&server)
        .await;
    let store = store(&server, folder.path());

    let error = fetched(&store).await.expect_err("refused");
    assert!(
        matches!(&error, SecretError::Denied { code, .. } if code == "login:http_400"),
        "{error:?}"
    );
    assert!(error.remedy().contains("federated credential"));
    assert_hushed(&error);

    let error = fetched(&store).await.expect_err("failing");
    assert!(
        matches!(&error, SecretError::Unavailable { code, .. } if code == "login:http_503"),
        "{error:?}"
    );
    assert_hushed(&error);

    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
}

#[tokio::test]
async fn a_token_file_that_is_not_there_is_denied_until_it_is() {
    let (server, folder) = (answering(secret("essu_abc")).await, folder());
    let store = store(&server, folder.path());
    std::fs::remove_file(folder.path().join("token")).expect("there");
    let error = fetched(&store).await.expect_err("no token");
    assert_eq!(error.code(), "secret_denied");
    assert!(error.remedy().contains("workload identity"));
    std::fs::write(folder.path().join("token"), "HUSH-assertion").expect("writable");
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
}

#[tokio::test]
async fn a_vault_or_a_login_that_is_away_or_silent_is_unavailable() {
    // A port that was given back is shut.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = free.local_addr().expect("its address");
    drop(free);
    let (server, folder) = (MockServer::start().await, folder());
    let unavailable = |error: &SecretError, expected: &str| {
        let fits = matches!(error, SecretError::Unavailable { code, .. } if code == expected);
        assert!(fits, "{expected}: {error:?}");
    };

    let mut away = store(&server, folder.path());
    away.options.vault_url = Url::parse(&format!("http://{address}")).expect("a URL");
    let error = fetched(&away).await.expect_err("away");
    unavailable(&error, "connect");
    assert!(error.remedy().contains("vault_url"));

    challenges(&server).await;
    let mut nobody = store(&server, folder.path());
    let identity = nobody.identity.as_mut().expect("set above");
    identity.authority = Some(format!("https://{address}"));
    let error = fetched(&nobody).await.expect_err("nobody gives out tokens");
    unavailable(&error, "login:connect");
    assert!(error.remedy().contains("login.microsoftonline.com"));

    let slow = answering(secret("essu_abc").set_delay(Duration::from_secs(60))).await;
    let mut silent = store(&slow, folder.path());
    silent.call_timeout = Duration::from_millis(200);
    let error = fetched(&silent).await.expect_err("silent");
    unavailable(&error, "timeout");
}

#[tokio::test]
async fn a_token_goes_nowhere_without_tls_except_to_a_vault_on_this_machine() {
    let (server, folder) = (MockServer::start().await, folder());
    challenges(&server).await;
    Mock::given(header_exists("Authorization"))
        .respond_with(secret("essu_abc"))
        .expect(0)
        .mount(&server)
        .await;
    logins()
        .respond_with(token("HUSH-token"))
        .expect(0)
        .mount(&server)
        .await;
    let mut store = store(&server, folder.path());
    // The same server, spoken to as a vault elsewhere would be: with TLS, which it does not have.
    store
        .options
        .vault_url
        .set_scheme("https")
        .expect("a web address");
    let error = fetched(&store).await.expect_err("no TLS");
    assert_eq!(error.code(), "secret_unavailable");
}

#[tokio::test]
async fn the_secret_is_only_ever_read() {
    let (server, folder) = (answering(secret("essu_abc")).await, folder());
    let store = store(&server, folder.path());
    assert!(!store.can_replace());
    let key = SecretString::from("essu_new");
    let replacement = crate::ports::secrets::Replacement {
        expected: "",
        key: &key,
        token: "0123456789abcdef0123456789abcdef",
    };
    let error = store.replace(&replacement).await.expect_err("read only");
    assert_eq!(error.code(), "secret_unwritable");
    assert_eq!(
        server.received_requests().await.map(|all| all.len()),
        Some(0)
    );
}
