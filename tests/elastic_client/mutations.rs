//! Mutations: what counts as done, refused and unknown, and how often anything is sent.

use std::time::Duration;

use axum::response::Response;
use latchkey::domain::ids::{Email, InvitationToken};
use latchkey::domain::member::WriteKind;
use latchkey::elastic::{Elastic, LimiterOptions, Options};
use latchkey::ports::AccessProvider;
use latchkey::ports::provider::{Outcome, Refusal};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::{
    Fake, KEY, answer, client, failure, html, json_answer, options, user, viewer, with_header,
};

async fn remove(elastic: &Elastic) -> Outcome<()> {
    elastic
        .remove(elastic.pin(), &user("1"), &[viewer("a"), viewer("b")])
        .await
}

async fn removed_by(
    answer: impl Fn(usize) -> Response + Clone + Send + Sync + 'static,
) -> (Outcome<()>, Fake) {
    let fake = Fake::serve(move |_, before| answer(before)).await;
    let elastic = client(options(fake.url())).await;
    (remove(&elastic).await, fake)
}

#[tokio::test]
async fn what_is_previewed_is_what_is_sent_with_key_and_name() {
    let fake = Fake::serve(|_, _| json_answer(200, &json!({}))).await;
    let elastic = client(options(fake.url())).await;
    let pairs = [viewer("b"), viewer("a")];
    for kind in [WriteKind::Add, WriteKind::Remove] {
        let outcome = match kind {
            WriteKind::Add => elastic.add(elastic.pin(), &user("1"), &pairs).await,
            WriteKind::Remove => elastic.remove(elastic.pin(), &user("1"), &pairs).await,
        };
        assert_eq!(outcome.name(), "done");
        assert_eq!(outcome.evidence().attempts, 1);
        let seen = fake.seen().pop().expect("one request");
        let plan = elastic.preview(kind, &user("1"), &pairs);
        assert_eq!((seen.method, seen.path), (plan.method, plan.path.clone()));
        assert_eq!(plan.path, "/api/v1/users/1/role_assignments");
        assert_eq!(seen.body, plan.body);
        assert_eq!(
            serde_json::from_str::<Value>(&seen.body).expect("JSON"),
            json!({"deployment": [{"role_id": "deployment-viewer", "organization_id": "7",
                                   "deployment_ids": ["a", "b"]}]})
        );
        assert_eq!(seen.authorization, format!("ApiKey {KEY}"));
        assert!(
            seen.user_agent.starts_with("latchkey/"),
            "{}",
            seen.user_agent
        );
    }
}

#[tokio::test]
async fn a_connection_that_breaks_after_sending_leaves_the_outcome_unknown_and_is_not_repeated() {
    let fake = Fake::raw(b"", false).await;
    let elastic = client(options(fake.url())).await;
    let outcome = remove(&elastic).await;
    assert_eq!(outcome.name(), "unknown");
    assert_eq!(fake.seen().len(), 1);
    assert_eq!(outcome.evidence().attempts, 1);
}

#[tokio::test]
async fn a_refused_connection_is_known_to_have_sent_nothing_and_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let url = format!("http://{address}").parse().expect("valid URL");
    let elastic = client(Options {
        mutation_budget: Duration::from_millis(300),
        connect: Duration::from_millis(50),
        ..options(url)
    })
    .await;
    let outcome = remove(&elastic).await;
    let refusal = Refusal::NotSent {
        code: "connect".to_owned(),
    };
    assert!(outcome.evidence().attempts > 1, "{outcome:?}");
    assert!(matches!(outcome, Outcome::Refused(found, _) if found == refusal));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_has_sent_nothing() {
    let url = "https://latchkey.invalid".parse().expect("valid URL");
    let elastic = client(Options {
        mutation_budget: Duration::from_secs(1),
        connect: Duration::from_millis(200),
        ..options(url)
    })
    .await;
    let outcome = remove(&elastic).await;
    assert!(
        matches!(&outcome, Outcome::Refused(Refusal::NotSent { code }, _) if code == "dns" || code == "connect"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn definite_refusals_are_refusals_with_the_sanitised_code_and_are_sent_once() {
    let code = || "role_assignments.unauthorized_role_assignments".to_owned();
    for (status, refusal) in [
        (403, Refusal::Forbidden { code: code() }),
        (404, Refusal::NotFound { code: code() }),
        (400, Refusal::Invalid { code: code() }),
        (409, Refusal::Invalid { code: code() }),
        (401, Refusal::Unauthenticated { code: code() }),
    ] {
        let (outcome, fake) = removed_by(move |_| failure(status, &code())).await;
        assert!(
            matches!(&outcome, Outcome::Refused(found, _) if *found == refusal),
            "{outcome:?}"
        );
        assert_eq!(fake.seen().len(), 1);
        assert!(!format!("{outcome:?}").contains("secret text"));
    }
    let (outcome, _fake) = removed_by(|_| answer(403, "application/json", "")).await;
    assert!(
        matches!(&outcome, Outcome::Refused(Refusal::Forbidden { code }, _) if code == "http_403")
    );
}

#[tokio::test]
async fn several_codes_are_evidence_and_the_first_one_stands_for_them() {
    let (outcome, _fake) = removed_by(|_| {
        with_header(
            failure(403, "body.code, Not A Code"),
            "x-cloud-error-codes",
            "root.permission_denied, <script>, user.not_found",
        )
    })
    .await;
    let Outcome::Refused(Refusal::Forbidden { code }, evidence) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(code, "root.permission_denied");
    assert_eq!(
        evidence.code.as_deref(),
        Some("root.permission_denied,user.not_found,body.code")
    );
    assert_eq!(evidence.status, Some(403));
    assert_eq!(evidence.call, "DELETE /users/{user_id}/role_assignments");
}

#[tokio::test]
async fn answers_that_prove_nothing_leave_the_outcome_unknown_and_are_not_repeated() {
    let deep = || format!("{{\"a\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    type Make = fn(String) -> Response;
    let answers: [(&str, Make); 10] = [
        ("html 200", |_| html(200)),
        ("html 405", |_| html(405)),
        ("html 403", |_| html(403)),
        ("500", |_| failure(500, "root.error")),
        ("503 empty", |_| answer(503, "text/plain", "")),
        ("408", |_| failure(408, "timeout")),
        ("list", |_| json_answer(200, &json!([]))),
        ("empty 200", |_| answer(200, "application/json", "")),
        ("half a body", |_| {
            answer(200, "application/json", "{\"a\":")
        }),
        ("deep", |deep| answer(200, "application/json", deep)),
    ];
    for (name, make) in answers {
        let (outcome, fake) = removed_by(move |_| make(deep())).await;
        assert_eq!(outcome.name(), "unknown", "{name}");
        assert_eq!(fake.seen().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_unknown_for_good_and_for_bad_answers() {
    for head in [
        &b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{}"[..],
        &b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{}"[..],
    ] {
        let fake = Fake::raw(head, false).await;
        let elastic = client(options(fake.url())).await;
        assert_eq!(remove(&elastic).await.name(), "unknown");
        assert_eq!(fake.seen().len(), 1);
    }
}

#[tokio::test]
async fn throttling_is_waited_out_within_the_budget() {
    let (outcome, fake) = removed_by(|before| match before {
        0 => failure(429, "root.too_many"),
        1 => with_header(html(429), "retry-after", "0"),
        _ => json_answer(200, &json!({})),
    })
    .await;
    assert_eq!(outcome.name(), "done");
    assert_eq!(outcome.evidence().attempts, 3);
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn a_long_retry_after_is_handed_on_clamped_instead_of_waited_for() {
    let began = Instant::now();
    let (outcome, fake) =
        removed_by(|_| with_header(failure(429, "root.too_many"), "retry-after", "86400")).await;
    let expected = Refusal::Throttled {
        retry_after: Some(Duration::from_secs(60)),
    };
    assert!(matches!(outcome, Outcome::Refused(found, _) if found == expected));
    assert_eq!(fake.seen().len(), 1);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_redirect_is_never_followed_and_the_key_goes_nowhere_else() {
    let elsewhere = Fake::serve(|_, _| json_answer(200, &json!({}))).await;
    let target = format!("http://{}/steal", elsewhere.address);
    let fake = Fake::serve(move |_, before| {
        let status = [301, 302, 307, 308][before % 4];
        with_header(
            answer(status, "application/json", "{}"),
            "location",
            &target,
        )
    })
    .await;
    let elastic = client(options(fake.url())).await;
    for _ in 0..4 {
        assert_eq!(remove(&elastic).await.name(), "unknown");
    }
    assert_eq!(fake.seen().len(), 4);
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn a_hanging_upstream_ends_as_unknown_within_the_request_lifetime() {
    let half =
        &b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"[..];
    for said in [&b""[..], half] {
        let fake = Fake::raw(said, true).await;
        let elastic = client(Options {
            mutation_budget: Duration::from_millis(400),
            ..options(fake.url())
        })
        .await;
        let began = Instant::now();
        assert_eq!(remove(&elastic).await.name(), "unknown");
        let lifetime = elastic.request_lifetime();
        assert!(began.elapsed() >= lifetime / 2, "{:?}", began.elapsed());
        assert!(
            began.elapsed() < lifetime + Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(fake.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_mutation_that_finds_no_turn_in_time_was_not_sent() {
    let fake = Fake::serve(|_, _| json_answer(200, &json!({}))).await;
    let elastic = client(Options {
        mutation_wait: Duration::from_millis(50),
        limiter: LimiterOptions {
            initial: 1,
            maximum: 1,
            interval: Duration::from_secs(600),
            ..LimiterOptions::default()
        },
        ..options(fake.url())
    })
    .await;
    assert_eq!(remove(&elastic).await.name(), "done");
    let expected = Refusal::NotSent {
        code: "budget".to_owned(),
    };
    let outcome = remove(&elastic).await;
    assert_eq!(outcome.evidence().attempts, 0);
    assert!(matches!(outcome, Outcome::Refused(found, _) if found == expected));
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn nothing_to_write_is_not_sent() {
    let fake = Fake::serve(|_, _| json_answer(200, &json!({}))).await;
    let elastic = client(options(fake.url())).await;
    let outcome = elastic.remove(elastic.pin(), &user("1"), &[]).await;
    assert_eq!(outcome.name(), "done");
    assert!(fake.seen().is_empty());
}

fn invitation(token: &str, email: &str) -> Value {
    json!({"token": token, "email": email, "created_at": "2026-01-01T00:00:00Z",
           "expires_at": "2026-01-04T00:00:00Z", "expired": false,
           "organization": {"id": "7", "name": "x"}})
}

#[tokio::test]
async fn an_invitation_carries_no_roles_and_its_answer_must_show_it() {
    let fake = Fake::serve(|_, before| {
        let email = ["Ada@example.com", "other@example.com"][before % 2];
        json_answer(201, &json!({"invitations": [invitation("tok", email)]}))
    })
    .await;
    let elastic = client(options(fake.url())).await;
    let ada = Email::parse("ada@example.com").expect("valid");
    let invite = || elastic.invite(elastic.pin(), &ada, Duration::from_secs(90 * 60));
    let Outcome::Done(invited, _) = invite().await else {
        panic!("the invitation was shown");
    };
    assert_eq!((invited.token.as_str(), invited.expired), ("tok", false));
    assert_eq!(invite().await.name(), "unknown");
    assert_eq!(
        serde_json::from_str::<Value>(&fake.seen()[0].body).expect("JSON"),
        json!({"emails": ["ada@example.com"], "expires_in": "2h"})
    );
}

#[tokio::test]
async fn a_token_stays_one_segment_of_the_path_or_nothing_is_sent() {
    let fake = Fake::serve(|_, _| json_answer(200, &json!({}))).await;
    let elastic = client(options(fake.url())).await;
    let cancel = async |token: &str| {
        let token = InvitationToken::parse(token).expect("fits the grammar");
        elastic.cancel_invitation(elastic.pin(), &token).await
    };
    assert_eq!(cancel("a+b=~.c").await.name(), "done");
    assert_eq!(
        fake.seen()[0].path,
        "/api/v1/organizations/7/invitations/a%2Bb%3D~.c"
    );
    for hostile in [".", ".."] {
        let outcome = cancel(hostile).await;
        assert!(
            matches!(&outcome, Outcome::Refused(Refusal::NotSent { code }, _) if code == "path"),
            "{outcome:?}"
        );
    }
    assert_eq!(fake.seen().len(), 1);
}
