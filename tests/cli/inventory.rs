//! What the connector is set up with, and what is said where something else answers.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use latchkey::cli::Exit;

use crate::fake::Fake;
use crate::{run, run_with};

#[tokio::test]
async fn an_integration_that_does_not_exist_is_answered_with_those_that_do() {
    let fake = Fake::start().await;
    for words in [&["list"][..], &["invitations"]] {
        let words: Vec<&str> = words
            .iter()
            .copied()
            .chain(["--integration", "nope"])
            .collect();
        let ran = run(&fake, &words).await;
        assert_eq!(ran.exit, Exit::NotFound, "{ran:?}");
        assert!(
            ran.err
                .contains("hint: write --integration with one of: acme, staging"),
            "{ran:?}"
        );
    }
}

#[tokio::test]
async fn what_the_connector_is_set_up_with_is_shown_as_tables() {
    let fake = Fake::start().await;
    let mut shown = Vec::new();
    for words in [
        &["integrations"][..],
        &["limits"],
        &["invitations"],
        &["project-roles", "security/staging"],
    ] {
        let ran = run(&fake, words).await;
        assert_eq!(ran.exit, Exit::Done, "{ran:?}");
        shown.push(ran.out);
    }
    insta::assert_snapshot!("inventory", shown.join("\n"));
}

#[tokio::test]
async fn what_the_connector_is_set_up_with_is_one_document_each_for_programs() {
    let fake = Fake::start().await;
    let json = async |words: &[&str]| -> serde_json::Value {
        let words: Vec<&str> = words.iter().copied().chain(["--output", "json"]).collect();
        serde_json::from_str(&run(&fake, &words).await.out).expect("JSON")
    };
    let integrations = json(&["integrations"]).await;
    assert_eq!(integrations[1]["health"], "down");
    assert_eq!(integrations[1]["health_code"], "last_call_failed");
    assert_eq!(integrations[0]["key"]["expires_at"], "2027-01-01T00:00:00Z");
    let limits = json(&["limits"]).await;
    assert_eq!(limits["max_duration_seconds"], 43_200);
    assert_eq!(limits["organization_roles_allowed"], false);
    let invitations = json(&["invitations"]).await;
    assert_eq!(invitations[1]["is_expired"], true);
    let roles = json(&["project-roles", "security/staging"]).await;
    assert_eq!(roles[0]["name"], "reader-of-s1");
}

#[tokio::test]
async fn only_a_project_has_roles_of_its_own() {
    let fake = Fake::start().await;
    for target in ["prod-logs", "security/all", "organization"] {
        let ran = run(&fake, &["project-roles", target]).await;
        assert_eq!(ran.exit, Exit::Usage, "{ran:?}");
        assert!(ran.err.contains("is not one project"), "{ran:?}");
    }
}

#[tokio::test]
async fn a_drain_says_that_second_looks_are_owed_and_until_when() {
    let fake = Fake::start().await;
    let ran = run(&fake, &["drain", "--yes"]).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    assert!(
        ran.err
            .contains("1 assignment gone and looked at once more until 13:30 CET"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_web_server_at_the_address_is_named_as_one() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let server = format!("http://{}", listener.local_addr().expect("bound"));
    let web = async {
        loop {
            let (mut client, _) = listener.accept().await.expect("a connection");
            let mut asked = [0; 1024];
            drop(client.read(&mut asked).await);
            let answer =
                b"HTTP/1.1 400 Bad Request\r\nServer: acme-web\r\nContent-Length: 0\r\n\r\n";
            drop(client.write_all(answer).await);
        }
    };
    tokio::pin!(web);
    for words in [&["list"][..], &["watch"]] {
        let ran = tokio::select! {
            ran = run_with(&server, CancellationToken::new(), words) => ran,
            () = &mut web => unreachable!("the server goes on for ever"),
        };
        assert_eq!(ran.exit, Exit::Unavailable, "{ran:?}");
        for part in [
            &format!("what answers at {server} is not a connector")[..],
            "a web server that speaks HTTP/1.1 (400 Bad Request, server acme-web)",
            "listen.grpc",
        ] {
            assert!(ran.err.contains(part), "{part}: {ran:?}");
        }
    }
}
