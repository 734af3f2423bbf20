//! Secret Manager and the metadata server of GKE, played: what is asked of them, and what their refusals mean.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::secrets::test_support::{assert_hushed, fetched};

const READ: &str = "/v1/projects/access/secrets/elastic-key/versions/latest:access";
const TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

fn options(server: &MockServer) -> GoogleOptions {
    GoogleOptions {
        project: "access".to_owned(),
        secret: "elastic-key".to_owned(),
        version: "latest".to_owned(),
        location: None,
        endpoint_url: Some(server.uri()),
        field: "api_key".to_owned(),
    }
}

/// A store whose pod has the metadata server `metadata`.
fn store(options: GoogleOptions, metadata: &MockServer) -> GoogleSecret {
    let mut store = GoogleSecret::new(options);
    store.metadata_server = Some(metadata.uri());
    store
}

fn token(text: &str) -> ResponseTemplate {
    ResponseTemplate::new(200)
        .set_body_json(json!({"access_token": text, "expires_in": 3600, "token_type": "Bearer"}))
}

fn tokens() -> wiremock::MockBuilder {
    Mock::given(method("GET"))
        .and(path(TOKEN))
        .and(header("Metadata-Flavor", "Google"))
}

fn reads(from: &str, token: &str) -> wiremock::MockBuilder {
    Mock::given(method("GET"))
        .and(path(from))
        .and(header("Authorization", format!("Bearer {token}").as_str()))
}

fn secret(content: &[u8]) -> ResponseTemplate {
    secret_with_sum(content, CHECKSUM.checksum(content))
}

fn secret_with_sum(content: &[u8], sum: u32) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({
        "name": "projects/17/secrets/elastic-key/versions/3",
        "payload": {"data": STANDARD.encode(content), "dataCrc32c": sum.to_string()},
    }))
}

fn refusal(status: u16, word: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(json!({
        "error": {"code": status, "message": "HUSH is what the service said", "status": word},
    }))
}

/// A server that gives out a token and answers `answer` to whoever shows it.
async fn answering(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    tokens()
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
    let server = answering(answer).await;
    let error = fetched(&store(options(&server), &server)).await;
    let error = error.expect_err("not a key");
    assert_hushed(&error);
    error
}

#[tokio::test]
async fn the_newest_version_is_read_with_one_token_of_the_metadata_server() {
    let server = MockServer::start().await;
    tokens()
        .respond_with(token("HUSH-token"))
        .expect(1)
        .mount(&server)
        .await;
    reads(READ, "HUSH-token")
        .respond_with(secret(b"essu_abc\n"))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    reads(READ, "HUSH-token")
        .respond_with(secret(br#"{"api_key": "essu_xyz"}"#))
        .expect(1)
        .mount(&server)
        .await;
    let store = store(options(&server), &server);
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_xyz"));
    let shown = format!("{store:?} {}", store.describe());
    assert!(
        !shown.contains("essu") && !shown.contains("HUSH"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_version_of_a_regional_secret_is_asked_for_by_its_path() {
    let server = MockServer::start().await;
    tokens()
        .respond_with(token("HUSH-token"))
        .mount(&server)
        .await;
    let from = "/v1/projects/access/locations/europe-west3/secrets/elastic-key/versions/7:access";
    reads(from, "HUSH-token")
        .respond_with(secret(br#"{"key": "essu_abc"}"#))
        .expect(1)
        .mount(&server)
        .await;
    let mut options = options(&server);
    options.version = "7".to_owned();
    options.location = Some("europe-west3".to_owned());
    options.field = "key".to_owned();
    let store = store(options, &server);
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
    assert!(
        store
            .describe()
            .ends_with("europe-west3/secrets/elastic-key/versions/7")
    );
}

#[test]
fn a_regional_secret_is_asked_for_in_its_region() {
    let mut store = GoogleSecret::new(GoogleOptions {
        project: "access".to_owned(),
        secret: "elastic-key".to_owned(),
        version: "latest".to_owned(),
        location: None,
        endpoint_url: None,
        field: "api_key".to_owned(),
    });
    assert_eq!(store.endpoint(), None);
    store.options.location = Some("europe-west3".to_owned());
    let regional = "https://secretmanager.europe-west3.rep.googleapis.com";
    assert_eq!(store.endpoint().as_deref(), Some(regional));
    store.options.endpoint_url = Some("https://secrets.internal".to_owned());
    assert_eq!(
        store.endpoint().as_deref(),
        Some("https://secrets.internal")
    );
}

#[tokio::test]
async fn every_refusal_has_its_own_meaning_and_remedy() {
    let cases = [
        (
            404,
            "NOT_FOUND",
            "secret_not_found",
            "versions add elastic-key",
        ),
        (
            403,
            "PERMISSION_DENIED",
            "secret_denied",
            "roles/secretmanager.secretAccessor",
        ),
        (401, "UNAUTHENTICATED", "secret_denied", "renew"),
        (
            400,
            "FAILED_PRECONDITION",
            "secret_denied",
            "enable that version",
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "secret_denied",
            "correct `project`",
        ),
        (429, "RESOURCE_EXHAUSTED", "secret_unavailable", "wait"),
        (500, "INTERNAL", "secret_unavailable", "wait"),
        (503, "UNAVAILABLE", "secret_unavailable", "wait"),
    ];
    for (status, word, expected, remedy) in cases {
        let error = refused(refusal(status, word)).await;
        assert_eq!(error.code(), expected, "{word}");
        assert!(
            error.remedy().contains(remedy),
            "{word}: {}",
            error.remedy()
        );
        let named = expected == "secret_not_found" || error.to_string().contains(word);
        assert!(named, "{error}");
    }
    // A proxy in between, which does not speak as the service does.
    let page = ResponseTemplate::new(403).set_body_string("<html>HUSH</html>");
    let error = refused(page).await;
    assert_eq!(error.code(), "secret_denied");
    assert!(error.to_string().contains("http_403"), "{error}");
}

#[tokio::test]
async fn what_is_not_a_key_is_refused_and_never_quoted() {
    for content in [
        &b"HUSH HUSH"[..],
        b"",
        b"{\"apiKey\": \"HUSH\"}",
        b"HUSH\xff\xfe",
    ] {
        let error = refused(secret(content)).await;
        assert_eq!(error.code(), "secret_malformed", "{error}");
    }
    let nothing = ResponseTemplate::new(200).set_body_json(json!({"name": "HUSH"}));
    assert_eq!(refused(nothing).await.code(), "secret_malformed");
    for odd in [
        ResponseTemplate::new(200).set_body_string("<html>HUSH</html>"),
        ResponseTemplate::new(200).set_body_json(json!({"payload": {"data": "HUSH!"}})),
        ResponseTemplate::new(304),
    ] {
        let error = refused(odd).await;
        assert_eq!(error.code(), "secret_unavailable", "{error}");
    }
}

#[tokio::test]
async fn what_does_not_match_its_checksum_is_refused_until_it_does() {
    /// CRC32C of `essu_abc`, by other means than ours.
    const SUM: u32 = 1_876_793_565;
    let server = MockServer::start().await;
    tokens()
        .respond_with(token("HUSH-token"))
        .mount(&server)
        .await;
    reads(READ, "HUSH-token")
        .respond_with(secret_with_sum(b"HUSH_abd", SUM))
        .up_to_n_times(1)
        .expect(1)
        .mount(&server)
        .await;
    reads(READ, "HUSH-token")
        .respond_with(secret_with_sum(b"essu_abc", SUM))
        .mount(&server)
        .await;
    let store = store(options(&server), &server);
    let error = fetched(&store).await.expect_err("damaged");
    assert!(
        matches!(&error, SecretError::Unavailable { code, .. } if code == "checksum_mismatch"),
        "{error:?}"
    );
    assert!(error.remedy().contains("checksum"), "{}", error.remedy());
    assert_hushed(&error);
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
}

#[tokio::test]
async fn an_answer_without_a_checksum_is_taken() {
    let bare = ResponseTemplate::new(200)
        .set_body_json(json!({"payload": {"data": STANDARD.encode("essu_abc")}}));
    let server = answering(bare).await;
    let read = fetched(&store(options(&server), &server)).await;
    assert_eq!(read.as_deref(), Ok("essu_abc"));
}

#[tokio::test]
async fn a_service_that_is_away_or_silent_is_unavailable() {
    let metadata = MockServer::start().await;
    tokens()
        .respond_with(token("HUSH-token"))
        .mount(&metadata)
        .await;
    // A port that was given back is shut.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = free.local_addr().expect("its address");
    drop(free);
    let mut away = options(&metadata);
    away.endpoint_url = Some(format!("http://{address}"));
    let error = fetched(&store(away, &metadata)).await.expect_err("away");
    assert!(
        matches!(&error, SecretError::Unavailable { code, .. } if code == "connect"),
        "{error:?}"
    );
    assert!(error.remedy().contains("DNS"));

    let slow = answering(secret(b"essu_abc").set_delay(Duration::from_secs(60))).await;
    let mut store = store(options(&slow), &slow);
    store.call_timeout = Duration::from_millis(100);
    let error = fetched(&store).await.expect_err("silent");
    assert!(
        matches!(&error, SecretError::Unavailable { code, .. } if code == "timeout"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_by_the_next_fetch() {
    let server = MockServer::start().await;
    tokens()
        .respond_with(token("first"))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    tokens().respond_with(token("second")).mount(&server).await;
    reads(READ, "first")
        .respond_with(refusal(401, "UNAUTHENTICATED"))
        .expect(1)
        .mount(&server)
        .await;
    reads(READ, "second")
        .respond_with(secret(b"essu_abc"))
        .expect(1)
        .mount(&server)
        .await;
    let store = store(options(&server), &server);
    assert_eq!(
        fetched(&store).await.expect_err("refused").code(),
        "secret_denied"
    );
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
}

#[tokio::test]
async fn missing_credentials_are_told_from_a_silent_metadata_server_and_both_heal() {
    let server = MockServer::start().await;
    tokens()
        .respond_with(ResponseTemplate::new(403).set_body_string("HUSH"))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    tokens()
        .respond_with(token("late").set_delay(Duration::from_secs(60)))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    tokens()
        .respond_with(token("HUSH-token"))
        .mount(&server)
        .await;
    reads(READ, "HUSH-token")
        .respond_with(secret(b"essu_abc"))
        .mount(&server)
        .await;
    let mut store = store(options(&server), &server);

    let error = fetched(&store).await.expect_err("no credentials");
    assert!(
        matches!(&error, SecretError::Denied { code, .. } if code == "no_credentials"),
        "{error:?}"
    );
    assert!(error.remedy().contains("workloadIdentityUser"));
    assert!(!format!("{error:?}").contains("HUSH"), "{error:?}");

    store.fetch_timeout = Duration::from_millis(300);
    let error = fetched(&store).await.expect_err("silent");
    assert!(
        matches!(&error, SecretError::Unavailable { code, .. } if code == "credentials_timeout"),
        "{error:?}"
    );
    assert!(error.remedy().contains("169.254.169.254"));

    store.fetch_timeout = FETCH_TIMEOUT;
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
}

#[tokio::test]
async fn nothing_is_asked_while_the_sdk_would_log_the_answer() {
    let server = answering(secret(b"essu_abc")).await;
    let mut store = store(options(&server), &server);
    store.sdk_logs = true;
    let error = fetched(&store).await.expect_err("it would be logged");
    assert_eq!(error.code(), "secret_denied");
    assert!(error.remedy().contains("GOOGLE_CLOUD_RUST_LOGGING"));
    assert_eq!(
        server.received_requests().await.map(|all| all.len()),
        Some(0)
    );
}

#[tokio::test]
async fn the_secret_is_only_ever_read() {
    let server = answering(secret(b"essu_abc")).await;
    let store = store(options(&server), &server);
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
