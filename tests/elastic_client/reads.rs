//! Reads: members streamed and judged, listings, and what hostile answers come to.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use latchkey::domain::assignment::ProjectType;
use latchkey::domain::ids::{Email, ProjectId};
use latchkey::domain::observation::{Incomplete, Interest, MembersRead};
use latchkey::elastic::{Elastic, Options};
use latchkey::ports::AccessProvider;
use latchkey::ports::provider::{Priority, ReadError, Refusal};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower_http::compression::CompressionLayer;

use crate::support::{
    Fake, answer, client, failure, html, json_answer, member, now, options, user, with_header,
};

async fn read(elastic: &Elastic) -> Result<MembersRead, ReadError> {
    elastic
        .read_members(&Interest::user(user("1")), Priority::Verify)
        .await
        .map(|(read, _)| read)
        .map_err(|(error, _)| error)
}

async fn members_of(body: Value) -> MembersRead {
    let fake = Fake::serve(move |_, _| json_answer(200, &body)).await;
    read(&client(options(fake.url())).await)
        .await
        .expect("well formed")
}

fn code(error: ReadError) -> String {
    match error {
        ReadError::Unavailable { code } => code,
        ReadError::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

#[tokio::test]
async fn a_complete_list_shows_its_members_and_is_proof() {
    let read = members_of(json!({"members": [member("1", false), member("2", true)]})).await;
    assert!(read.is_complete());
    assert_eq!((read.total, read.owners, read.members.len()), (2, 1, 1));
    assert_eq!(read.started_at, now());
    let ada = read.member(&user("1")).expect("of interest");
    assert_eq!(ada.email, Email::parse("1@example.com").ok());
    assert_eq!(ada.assignments.len(), 2);
}

#[tokio::test]
async fn filtered_and_partial_lists_prove_presence_only() {
    let filtered = members_of(json!({"members": [member("1", false)]})).await;
    assert_eq!(filtered.incomplete, Some(Incomplete::KeyIsNotOwner));
    assert!(filtered.member(&user("1")).is_some());
    let partial = members_of(json!({"members": [member("1", true)], "next_page": "abc"})).await;
    assert_eq!(partial.incomplete, Some(Incomplete::MorePages));
}

/// Pieces of a body, counted as they are taken.
fn pieces(
    count: usize,
    taken: &Arc<AtomicUsize>,
    piece: impl Fn(usize) -> Bytes + Send + 'static,
) -> Body {
    let taken = Arc::clone(taken);
    Body::from_stream(futures::stream::iter((0..count).map(move |index| {
        taken.fetch_add(1, Ordering::SeqCst);
        Ok::<_, Infallible>(piece(index))
    })))
}

#[tokio::test]
async fn fifty_thousand_members_are_counted_while_two_are_kept() {
    const MEMBERS: usize = 50_000;
    let taken = Arc::default();
    let fake = Fake::serve(move |_, _| {
        let body = pieces(MEMBERS / 100, &taken, |index| {
            let mut text = String::new();
            if index == 0 {
                text.push_str("{\"members\":[");
            }
            for number in index * 100..(index + 1) * 100 {
                text.push_str(&member(&number.to_string(), number == 3).to_string());
                text.push(if number == MEMBERS - 1 { ']' } else { ',' });
            }
            if index == MEMBERS / 100 - 1 {
                text.push('}');
            }
            text.into()
        });
        answer(200, "application/json", body)
    })
    .await;
    let elastic = client(options(fake.url())).await;
    let mut interest = Interest::user(user("49999"));
    interest.merge(Interest::email(
        Email::parse("17@example.com").expect("valid"),
    ));
    let (read, _) = elastic
        .read_members(&interest, Priority::Verify)
        .await
        .expect("well formed");
    assert_eq!((read.total, read.owners), (MEMBERS, 1));
    assert!(read.is_complete());
    let kept: Vec<_> = read.members.keys().map(|id| id.as_str()).collect();
    assert_eq!(kept, ["17", "49999"]);
}

#[tokio::test]
async fn a_list_that_ends_early_is_an_error_and_not_a_short_list() {
    let cut = &b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"members\":[]}"[..];
    let chunked = &b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\ne\r\n{\"members\":[]}\r\n"[..];
    for said in [cut, chunked] {
        let fake = Fake::raw(said, false).await;
        let elastic = client(Options {
            members_budget: Duration::from_millis(300),
            connect: Duration::from_millis(100),
            ..options(fake.url())
        })
        .await;
        let error = read(&elastic).await.expect_err("half a list");
        assert!(["broken", "budget"].contains(&code(error).as_str()));
    }
    let fake = Fake::serve(|_, _| answer(200, "application/json", "{\"members\":[")).await;
    let error = read(&client(options(fake.url())).await)
        .await
        .expect_err("half a list");
    assert_eq!(code(error), "malformed");
}

#[tokio::test]
async fn a_body_without_end_is_cut_off_at_the_cap() {
    let taken: Arc<AtomicUsize> = Arc::default();
    let counter = Arc::clone(&taken);
    let fake = Fake::serve(move |_, _| {
        let body = pieces(16_384, &counter, |index| match index {
            0 => Bytes::from_static(b"{\"x\":\""),
            _ => Bytes::from(vec![b'x'; 65_536]),
        });
        answer(200, "application/json", body)
    })
    .await;
    let elastic = client(Options {
        max_members_body: 1 << 20,
        max_body: 1 << 20,
        max_list_body: 1 << 20,
        ..options(fake.url())
    })
    .await;
    let error = read(&elastic).await.expect_err("a gigabyte");
    assert!(["too_large", "malformed"].contains(&code(error).as_str()));
    let error = elastic
        .invitations(Priority::Verify)
        .await
        .expect_err("a gigabyte")
        .0;
    assert_eq!(code(error), "too_large");
    let taken = taken.load(Ordering::SeqCst) * 65_536;
    assert!(
        taken < 256 << 20,
        "{taken} bytes were taken of two gigabytes"
    );
}

#[tokio::test]
async fn a_compressed_bomb_counts_by_what_it_becomes() {
    // The body never ends, so only a cap on the decompressed bytes can end the read before its time does.
    let fake = Fake::serve_through(
        |_, _| {
            let zeros = (0..256).map(|_| Ok::<_, Infallible>(Bytes::from(vec![b' '; 65_536])));
            let endless =
                futures::StreamExt::chain(futures::stream::iter(zeros), futures::stream::pending());
            answer(200, "application/json", Body::from_stream(endless))
        },
        |router| router.layer(CompressionLayer::new()),
    )
    .await;
    let elastic = client(Options {
        max_members_body: 1 << 20,
        max_list_body: 1 << 20,
        ..options(fake.url())
    })
    .await;
    let began = Instant::now();
    assert_eq!(
        code(
            elastic
                .invitations(Priority::Verify)
                .await
                .expect_err("a bomb")
                .0
        ),
        "too_large"
    );
    let error = code(read(&elastic).await.expect_err("a bomb"));
    assert!(
        ["too_large", "malformed"].contains(&error.as_str()),
        "{error}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn hostile_answers_to_a_read_are_named_and_never_short_lists() {
    let deep = format!(
        "{{\"members\":[{{\"role_assignments\":{}",
        "[".repeat(1_000_000)
    );
    let cases: Vec<(Response, &str)> = vec![
        (html(200), "html"),
        (html(405), "html"),
        (answer(200, "application/json", deep), "malformed"),
        (json_answer(200, &json!({})), "malformed"),
        (
            with_header(
                answer(302, "text/html", ""),
                "location",
                "http://127.0.0.1:1/",
            ),
            "redirect",
        ),
    ];
    for (response, expected) in cases {
        let response = std::sync::Mutex::new(Some(response));
        let response = Arc::new(response);
        let fake = Fake::serve(move |_, _| {
            response
                .lock()
                .expect("not poisoned")
                .take()
                .expect("asked once")
        })
        .await;
        let error = read(&client(options(fake.url())).await)
            .await
            .expect_err(expected);
        assert_eq!(code(error), expected);
        assert_eq!(fake.seen().len(), 1, "{expected}");
    }
}

#[tokio::test]
async fn reads_are_repeated_after_5xx_and_throttling_and_not_after_refusals() {
    let fake = Fake::serve(|_, before| match before {
        0 => failure(503, "root.down"),
        1 => failure(429, "root.too_many"),
        2 => answer(502, "text/html", "<html>"),
        _ => json_answer(200, &json!({"members": [member("1", true)]})),
    })
    .await;
    let elastic = client(options(fake.url())).await;
    let (_, evidence) = elastic
        .read_members(&Interest::default(), Priority::Verify)
        .await
        .expect("the fourth answer is good");
    assert_eq!((evidence.attempts, evidence.status), (4, Some(200)));

    let fake = Fake::serve(|_, _| failure(404, "organization.not_found")).await;
    let error = read(&client(options(fake.url())).await)
        .await
        .expect_err("unknown");
    let expected = Refusal::NotFound {
        code: "organization.not_found".to_owned(),
    };
    assert_eq!(error, ReadError::Refused(expected));
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn a_stalled_list_ends_with_its_budget() {
    let half = &b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"members\":["[..];
    let fake = Fake::raw(half, true).await;
    let elastic = client(Options {
        members_budget: Duration::from_millis(400),
        idle: Duration::from_millis(100),
        ..options(fake.url())
    })
    .await;
    let began = Instant::now();
    let error = code(read(&elastic).await.expect_err("stalled"));
    assert!(["timeout", "budget"].contains(&error.as_str()), "{error}");
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_list_that_does_not_begin_is_asked_for_again_before_its_budget_is_used_up() {
    let asked: Arc<AtomicUsize> = Arc::default();
    let counter = Arc::clone(&asked);
    // A line that leads nowhere, the first time.
    let hang_once = middleware::from_fn(move |request: Request, next: Next| {
        let counter = Arc::clone(&counter);
        async move {
            if counter.fetch_add(1, Ordering::SeqCst) == 0 {
                std::future::pending::<()>().await;
            }
            next.run(request).await
        }
    });
    let fake = Fake::serve_through(
        |_, _| json_answer(200, &json!({"members": []})),
        |router| router.layer(hang_once),
    )
    .await;
    let elastic = client(Options {
        members_budget: Duration::from_secs(4),
        connect: Duration::from_millis(100),
        ..options(fake.url())
    })
    .await;
    let began = Instant::now();
    read(&elastic).await.expect("the second answer");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1), "a quarter: {took:?}");
}

async fn organization(pinned: bool, body: Value) -> Result<String, String> {
    let fake = Fake::serve(move |_, _| json_answer(200, &body)).await;
    let mut options = options(fake.url());
    if !pinned {
        options.organization = None;
    }
    match client(options)
        .await
        .organization(Priority::Discovery)
        .await
    {
        Ok((organization, _)) => Ok(organization.id.to_string()),
        Err((error, _)) => Err(code(error)),
    }
}

#[tokio::test]
async fn the_organization_is_the_pinned_one_or_the_only_one() {
    let one = || json!({"organizations": [{"id": "7", "name": "x"}]});
    let two = || json!({"organizations": [{"id": "8", "name": "y"}, {"id": "7", "name": "x"}]});
    let more = json!({"organizations": [{"id": "7", "name": "x"}], "next_page": "x"});
    let other = json!({"organizations": [{"id": "8", "name": "y"}]});
    let id = || Ok("7".to_owned());
    let error = |code: &str| Err(code.to_owned());
    assert_eq!(organization(true, one()).await, id());
    assert_eq!(organization(true, two()).await, id());
    assert_eq!(organization(false, one()).await, id());
    assert_eq!(
        organization(false, two()).await,
        error("several_organizations")
    );
    assert_eq!(
        organization(false, more).await,
        error("several_organizations")
    );
    assert_eq!(
        organization(true, other).await,
        error("organization_not_visible")
    );
    let none = json!({"organizations": []});
    assert_eq!(
        organization(false, none).await,
        error("organization_not_visible")
    );
}

#[tokio::test]
async fn an_organization_that_was_seen_alone_stays_the_one_in_use() {
    let fake = Fake::serve(|_, before| {
        let id = if before == 0 { "7" } else { "8" };
        json_answer(200, &json!({"organizations": [{"id": id, "name": "x"}]}))
    })
    .await;
    let elastic = client(Options {
        organization: None,
        ..options(fake.url())
    })
    .await;
    assert!(elastic.organization(Priority::Discovery).await.is_ok());
    let error = elastic
        .organization(Priority::Discovery)
        .await
        .expect_err("another one")
        .0;
    assert_eq!(code(error), "organization_not_visible");
}

#[tokio::test]
async fn deployments_are_paged_without_those_that_are_shut_down() {
    let fake = Fake::serve(|seen, _| {
        let body: Value = serde_json::from_str(&seen.body).expect("JSON");
        let page = match body["cursor"].as_str() {
            None => json!({"return_count": 2, "cursor": "next", "deployments": [
                {"id": "b", "name": "B", "alias": "bee", "healthy": true,
                 "resources": {"elasticsearch": [{"region": "gcp-1"}]},
                 "metadata": {"tags": [{"key": "team", "value": "x"}, {"key": "a", "value": "y"}]}},
                {"id": "hid", "name": "H", "metadata": {"hidden": true, "tags": null}},
            ]}),
            Some("next") => json!({"return_count": 1, "deployments": [
                {"id": "a", "name": "A", "resources": {"elasticsearch": []}}, {"id": "../x"}]}),
            Some(other) => panic!("unknown cursor {other}"),
        };
        json_answer(200, &page)
    })
    .await;
    let elastic = client(options(fake.url())).await;
    let (found, _) = elastic
        .deployments(Priority::Discovery)
        .await
        .expect("well formed");
    let ids: Vec<_> = found.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(found[1].alias.as_deref(), Some("bee"));
    assert_eq!(found[1].region, "gcp-1");
    assert_eq!(found[1].tags[0].0, "a");
}

#[tokio::test]
async fn a_cursor_that_never_ends_does() {
    let fake = Fake::serve(|_, before| {
        let page = json!({"cursor": before.to_string(), "deployments": [{"id": "a", "name": "A"}]});
        json_answer(200, &page)
    })
    .await;
    let elastic = client(Options {
        max_pages: 5,
        ..options(fake.url())
    })
    .await;
    let error = elastic
        .deployments(Priority::Discovery)
        .await
        .expect_err("endless")
        .0;
    assert_eq!(code(error), "too_many_pages");
    assert_eq!(fake.seen().len(), 5);
}

#[tokio::test]
async fn projects_and_their_roles_are_read_with_names_and_tags() {
    let fake = Fake::serve(|seen, _| match seen.path.as_str() {
        "/api/v1/serverless/projects/security" => json_answer(
            200,
            &json!({"items": [{"id": "p1", "name": "P", "alias": "p-1", "region_id": "r", "type": "security",
                               "metadata": {"tags": {"team": "x"}, "created_at": "2026-01-01T00:00:00Z"}}],
                    "next_page": null}),
        ),
        "/api/v1/serverless/projects/security/p1/roles" => json_answer(
            200,
            &json!({"p1": {"roles": [{"name": "jit", "description": "d"}, {"name": null}]}}),
        ),
        _ => failure(404, "root.resource_not_found"),
    })
    .await;
    let elastic = client(options(fake.url())).await;
    let security = ProjectType::Security;
    let (found, _) = elastic
        .projects(security, Priority::Discovery)
        .await
        .expect("well formed");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].region.as_str(), found[0].tags.len()), ("r", 1));
    let id = ProjectId::parse("p1").expect("valid id");
    let (roles, _) = elastic
        .project_roles(security, &id, Priority::Discovery)
        .await
        .expect("well formed");
    assert_eq!(roles.len(), 1);
    assert_eq!(roles[0].name, "jit");
}

#[tokio::test]
async fn open_invitations_are_listed_and_accepted_or_foreign_ones_are_not() {
    let fake = Fake::serve(|_, _| {
        let one = |token: &str, more: &Value| {
            let mut one = json!({"token": token, "email": format!("{token}@Example.com"),
                "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-04T00:00:00Z",
                "expired": false, "accepted_at": null, "organization": {"id": "7", "name": "x"}});
            for (key, value) in more.as_object().expect("an object") {
                one[key] = value.clone();
            }
            one
        };
        json_answer(
            200,
            &json!({"invitations": [
                one("a", &json!({})),
                one("b", &json!({"expired": true})),
                one("c", &json!({"accepted_at": "2026-01-02T00:00:00Z"})),
                one("d", &json!({"organization": {"id": "8", "name": "y"}})),
                one("e", &json!({"email": "not an address"})),
            ]}),
        )
    })
    .await;
    let elastic = client(options(fake.url())).await;
    let (found, _) = elastic
        .invitations(Priority::Verify)
        .await
        .expect("well formed");
    let shown: Vec<_> = found
        .iter()
        .map(|one| (one.token.as_str(), one.email.as_str(), one.expired))
        .collect();
    assert_eq!(
        shown,
        [("a", "a@example.com", false), ("b", "b@example.com", true)]
    );
}
