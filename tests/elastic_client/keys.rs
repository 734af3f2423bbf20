//! The key: loading, rotation, pins, what is known of it, and that it is never shown.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use latchkey::domain::observation::Interest;
use latchkey::elastic::Elastic;
use latchkey::ports::AccessProvider;
use latchkey::ports::provider::{KeyPin, Outcome, Priority, Refusal};
use latchkey::ports::secrets::SecretError;
use serde_json::json;

use crate::support::{
    Fake, KEY, StillClock, Store, client, failure, json_answer, member, now, options, user, viewer,
    with_header, with_store,
};

#[tokio::test]
async fn a_401_loads_the_new_key_and_ends_the_pass_of_the_old_one() {
    let fake = Fake::serve(|seen, _| match seen.authorization.as_str() {
        "ApiKey test-key-two" => json_answer(200, &json!({})),
        _ => failure(401, "root.unauthorized"),
    })
    .await;
    let store = Store::new(KEY);
    let elastic = with_store(options(fake.url()), Arc::clone(&store)).await;
    let old = elastic.pin();
    store.put("test-key-two");
    let outcome = elastic.add(old, &user("1"), &[viewer("a")]).await;
    assert!(matches!(
        outcome,
        Outcome::Refused(Refusal::Unauthenticated { .. }, _)
    ));
    assert_ne!(elastic.pin(), old);
    assert_eq!(store.fetches(), 2);
    let outcome = elastic.add(old, &user("1"), &[viewer("a")]).await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::KeyRotated, _)));
    assert_eq!(fake.seen().len(), 1, "a stale pin sends nothing");
    let outcome = elastic.add(elastic.pin(), &user("1"), &[viewer("a")]).await;
    assert_eq!(outcome.name(), "done");
}

#[tokio::test]
async fn many_401s_fetch_the_secret_once_and_a_scheduled_fetch_is_always_made() {
    let fake = Fake::serve(|_, _| failure(401, "root.unauthorized")).await;
    let store = Store::new(KEY);
    let elastic = with_store(options(fake.url()), Arc::clone(&store)).await;
    let (pin, ada, pairs) = (elastic.pin(), user("1"), [viewer("a")]);
    let calls = (0..8).map(|_| elastic.remove(pin, &ada, &pairs));
    futures::future::join_all(calls).await;
    assert_eq!(store.fetches(), 2);
    assert_eq!(elastic.pin(), pin, "the same text is the same key");
    assert_eq!(elastic.reload_key().await, Ok(false));
    assert_eq!(store.fetches(), 3);
    assert_eq!(
        elastic
            .key_status()
            .last_failure
            .map(|(code, _)| code)
            .as_deref(),
        Some("root.unauthorized")
    );
}

#[tokio::test]
async fn concurrent_reloads_share_a_fetch() {
    let store = Store::new(KEY);
    let url = "http://127.0.0.1:9".parse().expect("valid URL");
    let elastic = with_store(options(url), Arc::clone(&store)).await;
    store.put("test-key-two");
    let results = futures::future::join_all((0..20).map(|_| elastic.reload_key())).await;
    assert!(results.iter().all(Result::is_ok));
    assert!(store.fetches() <= 3, "{} fetches", store.fetches());
    assert_eq!(elastic.pin(), KeyPin(2));
}

#[tokio::test]
async fn text_that_cannot_stand_in_a_header_is_no_key_and_calls_without_one_send_nothing() {
    let fake = Fake::serve(|_, _| json_answer(200, &json!({}))).await;
    for text in [
        "",
        "a\r\nx-evil: 1",
        "a b",
        "schlüssel",
        "a\n",
        &"x".repeat(5_000),
    ] {
        let elastic = Elastic::new(options(fake.url()), Store::new(text), Arc::new(StillClock))
            .expect("usable options");
        let error = elastic.load_key().await.expect_err("not a key");
        assert!(matches!(error, SecretError::Malformed { .. }), "{text:?}");
        assert!(!elastic.key_status().loaded);
        let outcome = elastic.add(elastic.pin(), &user("1"), &[viewer("a")]).await;
        assert!(
            matches!(&outcome, Outcome::Refused(Refusal::NotSent { code }, _) if code == "no_key"),
            "{outcome:?}"
        );
    }
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn an_unusable_secret_leaves_the_key_in_use() {
    let fake = Fake::serve(|_, _| json_answer(200, &json!({}))).await;
    let store = Store::new(KEY);
    let elastic = with_store(options(fake.url()), Arc::clone(&store)).await;
    store.put("not a key");
    assert!(elastic.reload_key().await.is_err());
    let outcome = elastic.add(elastic.pin(), &user("1"), &[viewer("a")]).await;
    assert_eq!(outcome.name(), "done");
}

#[tokio::test]
async fn expiry_and_skew_are_read_on_every_answer_good_or_bad() {
    for (status, expiration) in [
        (200, "2026-03-01T10:00:00Z"),
        (403, "Sun, 01 Mar 2026 10:00:00 GMT"),
    ] {
        let fake = Fake::serve(move |_, _| {
            let answer = with_header(
                json_answer(status, &json!({})),
                "x-elastic-api-key-expiration",
                expiration,
            );
            with_header(answer, "date", "Thu, 01 Jan 2026 00:00:05 GMT")
        })
        .await;
        let elastic = client(options(fake.url())).await;
        let _outcome = elastic.add(elastic.pin(), &user("1"), &[viewer("a")]).await;
        let status = elastic.key_status();
        assert_eq!(status.expires_at, "2026-03-01T10:00:00Z".parse().ok());
        assert_eq!(status.skew_ms, Some(5_000));
    }
}

#[tokio::test]
async fn the_member_behind_the_key_is_found_through_the_id_in_its_text() {
    let inner = STANDARD.encode("72kse5wBzbyj5dh9Iz13:0123456789012345678901");
    let key = format!("essu_{}", STANDARD.encode(format!("{inner}checksum")));
    let fake = Fake::serve(|seen, _| match seen.path.as_str() {
        "/api/v1/users/auth/keys/72kse5wBzbyj5dh9Iz13" => json_answer(
            200,
            &json!({"id": "72kse5wBzbyj5dh9Iz13", "user_id": "99", "description": "x",
                    "creation_date": "2026-01-01T00:00:00Z", "expiration_date": "2026-02-01T00:00:00Z"}),
        ),
        _ => json_answer(200, &json!({"members": [member("99", true)]})),
    })
    .await;
    let elastic = with_store(options(fake.url()), Store::new(&key)).await;
    for _ in 0..2 {
        let read = elastic
            .read_members(&Interest::user(user("1")), Priority::Verify)
            .await;
        assert!(read.is_ok(), "{read:?}");
    }
    let status = elastic.key_status();
    assert_eq!(status.own_user_id, Some(user("99")));
    assert_eq!(status.expires_at, "2026-02-01T00:00:00Z".parse().ok());
    assert_eq!(status.sees_owners, Some(true));
    assert_eq!(status.last_success_at, Some(now()));
    assert_eq!(fake.seen().len(), 3, "the record is asked for once");
}

#[tokio::test]
async fn the_key_is_in_no_debug_text() {
    let fake = Fake::serve(|_, _| failure(401, "root.unauthorized")).await;
    let elastic = client(options(fake.url())).await;
    let outcome = elastic.add(elastic.pin(), &user("1"), &[viewer("a")]).await;
    let shown = format!("{elastic:?} {outcome:?} {:?}", elastic.key_status());
    assert!(!shown.contains(KEY) && !shown.contains("ApiKey"), "{shown}");
    let fingerprint = elastic.key_status().fingerprint.expect("a key is loaded");
    assert_eq!(fingerprint.len(), 8);
}

#[tokio::test]
async fn keys_with_the_rights_of_an_owner_are_listed_and_the_one_in_use_is_recognized() {
    let owner =
        json!({"organization": [{"organization_id": "7", "role_id": "organization-admin"}]});
    let viewer = json!({"deployment": [{"organization_id": "7", "role_id": "deployment-viewer", "all": true}]});
    let fake = Fake::serve(move |_, _| {
        let key = |id: &str, roles: &serde_json::Value| {
            json!({"id": id, "description": "d", "creation_date": "2026-01-01T00:00:00Z", "role_assignments": roles})
        };
        json_answer(
            200,
            &json!({"keys": [key("mine", &owner), key("other", &owner), key("reads", &viewer),
                {"id": "bare", "description": null}, {"description": "no id"}]}),
        )
    })
    .await;
    let inner = STANDARD.encode("mine:0123456789012345678901");
    let text = format!("essu_{}", STANDARD.encode(format!("{inner}checksum")));
    let elastic = with_store(options(fake.url()), Store::new(&text)).await;
    let (keys, _) = elastic
        .owner_keys(Priority::Discovery)
        .await
        .expect("well formed");
    let shown: Vec<_> = keys
        .iter()
        .map(|key| (key.id.as_str(), key.is_own))
        .collect();
    // A key without roles of its own has those of its maker.
    assert_eq!(shown, [("mine", true), ("other", false), ("bare", false)]);
}
