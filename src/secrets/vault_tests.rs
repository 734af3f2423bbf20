//! A store that is played: what is asked of it, and what its refusals mean.

use std::path::Path;

use serde_json::json;
use wiremock::matchers::{body_json, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::secrets::test_support::{assert_hushed, fetched};

fn options(server: &MockServer, auth: VaultAuth) -> VaultOptions {
    VaultOptions {
        address: Url::parse(&server.uri()).expect("the server's address"),
        namespace: Some("team-a".to_owned()),
        mount: "kv/teams".to_owned(),
        path: "latchkey/elastic".to_owned(),
        field: "api_key".to_owned(),
        ca_file: None,
        auth,
    }
}

fn token(folder: &Path) -> VaultAuth {
    let file = folder.join("token");
    std::fs::write(&file, "first-token\n").expect("writable");
    VaultAuth::Token { file }
}

fn approle(folder: &Path) -> VaultAuth {
    let secret_id_file = folder.join("secret-id");
    std::fs::write(&secret_id_file, "HUSH-secret-id\n").expect("writable");
    VaultAuth::AppRole {
        mount: "teams/approle".to_owned(),
        role_id: "latchkey".to_owned(),
        secret_id_file,
    }
}

fn read() -> wiremock::MockBuilder {
    Mock::given(method("GET")).and(path("/v1/kv/teams/data/latchkey/elastic"))
}

fn secret(key: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({
        "request_id": "r",
        "data": {"data": {"api_key": key, "note": {"owner": "platform"}}, "metadata": {"version": 3}},
    }))
}

fn login(token: &str, lease: u64) -> ResponseTemplate {
    ResponseTemplate::new(200)
        .set_body_json(json!({"auth": {"client_token": token, "lease_duration": lease}}))
}

#[tokio::test]
async fn approle_logs_in_once_and_reads_with_the_token_it_was_given() {
    let (server, folder) = (
        MockServer::start().await,
        tempfile::tempdir().expect("a folder"),
    );
    Mock::given(method("POST"))
        .and(path("/v1/auth/teams/approle/login"))
        .and(header("X-Vault-Namespace", "team-a"))
        .and(body_json(
            json!({"role_id": "latchkey", "secret_id": "HUSH-secret-id"}),
        ))
        .respond_with(login("given", 3600))
        .expect(1)
        .mount(&server)
        .await;
    read()
        .and(header("X-Vault-Token", "given"))
        .and(header("X-Vault-Request", "true"))
        .respond_with(secret("essu_abc"))
        .expect(2)
        .mount(&server)
        .await;
    let store = VaultSecret::new(options(&server, approle(folder.path())));
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
}

#[tokio::test]
async fn a_session_that_the_store_ended_is_replaced_by_another_login() {
    let (server, folder) = (
        MockServer::start().await,
        tempfile::tempdir().expect("a folder"),
    );
    let auth = token(folder.path());
    read()
        .and(header("X-Vault-Token", "first-token"))
        .respond_with(secret("essu_abc"))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    read()
        .and(header("X-Vault-Token", "first-token"))
        .respond_with(ResponseTemplate::new(403))
        .mount(&server)
        .await;
    read()
        .and(header("X-Vault-Token", "second-token"))
        .respond_with(secret("essu_xyz"))
        .mount(&server)
        .await;
    let store = VaultSecret::new(options(&server, auth));
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
    std::fs::write(folder.path().join("token"), "second-token").expect("writable");
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_xyz"));
}

#[tokio::test]
async fn a_session_near_its_end_is_not_used_again() {
    let (server, folder) = (
        MockServer::start().await,
        tempfile::tempdir().expect("a folder"),
    );
    Mock::given(method("POST"))
        .respond_with(login("given", 3600))
        .expect(2)
        .mount(&server)
        .await;
    read().respond_with(secret("essu_abc")).mount(&server).await;
    let store = VaultSecret::new(options(&server, approle(folder.path())));
    assert!(fetched(&store).await.is_ok());
    if let Some(session) = store.session.lock().await.as_mut() {
        session.until = Some(Instant::now());
    }
    assert!(fetched(&store).await.is_ok());
}

#[tokio::test]
async fn every_refusal_has_its_own_meaning_and_none_repeats_a_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let deleted =
        json!({"data": {"data": null, "metadata": {"deletion_time": "2026-01-01T00:00:00Z"}}});
    let version_one = json!({"data": {"api_key": "HUSH"}});
    let hush = json!({"errors": ["HUSH"]});
    let cases = [
        (200, deleted, "secret_not_found", "kv put"),
        (200, version_one, "secret_malformed", "version 2"),
        (200, json!("HUSH"), "secret_malformed", "version 2"),
        (403, hush.clone(), "secret_denied", "capabilities"),
        (404, hush.clone(), "secret_not_found", "mount"),
        (429, hush.clone(), "secret_unavailable", "stand-by"),
        (500, hush.clone(), "secret_unavailable", "log"),
        (503, hush, "secret_unavailable", "unseal"),
    ];
    for (status, body, code, remedy) in cases {
        let server = MockServer::start().await;
        read()
            .respond_with(ResponseTemplate::new(status).set_body_json(&body))
            .mount(&server)
            .await;
        let store = VaultSecret::new(options(&server, token(folder.path())));
        let error = fetched(&store).await.expect_err("refused");
        assert_eq!(error.code(), code, "{status} {body}: {error}");
        assert!(
            error.remedy().contains(remedy),
            "{status}: {}",
            error.remedy()
        );
        assert_hushed(&error);
    }
}

#[tokio::test]
async fn a_login_that_cannot_be_made_says_which_part_to_look_at() {
    let (server, folder) = (
        MockServer::start().await,
        tempfile::tempdir().expect("a folder"),
    );
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(400).set_body_json(json!({"errors": ["HUSH"]})))
        .mount(&server)
        .await;
    let store = VaultSecret::new(options(&server, approle(folder.path())));
    let refused = fetched(&store).await.expect_err("refused");
    assert!(refused.remedy().contains("new secret id"), "{refused:?}");
    std::fs::remove_file(folder.path().join("secret-id")).expect("there");
    let missing = fetched(&store).await.expect_err("no secret id");
    assert!(
        missing.remedy().contains("approle.secret_id_file"),
        "{missing:?}"
    );
    for error in [refused, missing] {
        assert_eq!(error.code(), "secret_denied");
        assert_hushed(&error);
    }
}

#[tokio::test]
async fn one_redirect_to_the_active_server_is_followed_and_a_second_is_not() {
    let (standby, active) = (MockServer::start().await, MockServer::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let there = format!("{}/v1/kv/teams/data/latchkey/elastic", active.uri());
    read()
        .respond_with(ResponseTemplate::new(307).insert_header("Location", there.as_str()))
        .mount(&standby)
        .await;
    read()
        .and(header("X-Vault-Token", "first-token"))
        .respond_with(secret("essu_abc"))
        .up_to_n_times(1)
        .mount(&active)
        .await;
    let store = VaultSecret::new(options(&standby, token(folder.path())));
    assert_eq!(fetched(&store).await.as_deref(), Ok("essu_abc"));
    read()
        .respond_with(ResponseTemplate::new(307).insert_header("Location", there.as_str()))
        .mount(&active)
        .await;
    let error = fetched(&store).await.expect_err("goes round");
    assert!(
        matches!(&error, SecretError::Unavailable { code, .. } if code == "redirect"),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_authority_that_is_none_is_named() {
    let (server, folder) = (
        MockServer::start().await,
        tempfile::tempdir().expect("a folder"),
    );
    let mut options = options(&server, token(folder.path()));
    for content in [None, Some("not a certificate")] {
        let ca = folder.path().join("ca.pem");
        if let Some(content) = content {
            std::fs::write(&ca, content).expect("writable");
        }
        options.ca_file = Some(ca.clone());
        let error = fetched(&VaultSecret::new(options.clone()))
            .await
            .expect_err("no authority");
        assert_eq!(error.code(), "secret_unavailable");
        assert!(error.remedy().contains("ca.pem"), "{error:?}");
    }
}

#[tokio::test]
async fn a_key_is_written_by_check_and_set_beside_what_the_secret_holds() {
    use crate::ports::secrets::digest;

    let server = MockServer::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    read().respond_with(secret("essu_one")).mount(&server).await;
    let body = json!({
        "options": {"cas": 3},
        "data": {"api_key": "essu_two", "note": {"owner": "platform"}},
    });
    Mock::given(method("POST"))
        .and(path("/v1/kv/teams/data/latchkey/elastic"))
        .and(header("X-Vault-Token", "first-token"))
        .and(header("X-Vault-Namespace", "team-a"))
        .and(body_json(body))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"data": {"version": 4}})))
        .expect(1)
        .mount(&server)
        .await;
    let store = VaultSecret::new(options(&server, token(folder.path())));
    let one = digest(&SecretString::from("essu_one"));
    let two = SecretString::from("essu_two");
    let replacement = |expected| Replacement {
        expected,
        key: &two,
        token: "t",
    };
    store
        .replace(&replacement(one.as_str()))
        .await
        .expect("written");
    // Whoever expects another key than the one that is there writes nothing.
    let other = digest(&SecretString::from("essu_other"));
    let changed = store.replace(&replacement(other.as_str())).await;
    assert_eq!(changed.expect_err("another key").code(), "secret_changed");
}

#[tokio::test]
async fn a_write_that_was_overtaken_and_one_that_is_not_allowed_are_told_apart() {
    use crate::ports::secrets::digest;

    for (status, code) in [
        (400, "secret_changed"),
        (403, "secret_denied"),
        (503, "secret_unavailable"),
    ] {
        let server = MockServer::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        read().respond_with(secret("essu_one")).mount(&server).await;
        Mock::given(method("POST"))
            .respond_with(ResponseTemplate::new(status).set_body_string("HUSH"))
            .mount(&server)
            .await;
        let store = VaultSecret::new(options(&server, token(folder.path())));
        let replacement = Replacement {
            expected: &digest(&SecretString::from("essu_one")),
            key: &SecretString::from("essu_two"),
            token: "t",
        };
        let error = store.replace(&replacement).await.expect_err("refused");
        assert_eq!(error.code(), code, "{status}");
        let all = format!("{error} {error:?} {}", error.remedy());
        assert!(!all.contains("HUSH") && !all.contains("essu_"), "{all}");
    }
}
