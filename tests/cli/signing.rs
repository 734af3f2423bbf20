//! Approvals and emergency tokens made on the command line, and taken by the keyring of a connector.

use std::os::unix::fs::PermissionsExt as _;

use chrono::TimeDelta;
use latchkey::cli::Exit;
use latchkey::identity::seal::{ApproverOptions, EmergencyKeyOptions, Keyring, KeyringOptions};
use latchkey::ports::Seals as _;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::fake::{Fake, NOW, at};
use super::{Ran, grant, run, run_with};

/// Nobody answers there: these commands ask nobody.
const NOBODY: &str = "http://127.0.0.1:1";

const REQUEST: &str = "kind: create
request_id: r-1
integration: acme
beneficiary: Ada@Example.com
role: viewer
targets: [deployment/b, deployment/a]
duration_s: 3600
";

async fn alone(words: &[&str]) -> Ran {
    run_with(NOBODY, CancellationToken::new(), words).await
}

fn put(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

async fn key(folder: &TempDir, command: &str) -> (String, String) {
    let file = folder.path().join(format!("{command}.key"));
    let path = file.display().to_string();
    let made = alone(&[command, "keygen", "--key", &path]).await;
    assert_eq!(made.exit, Exit::Done, "{made:?}");
    let mode = std::fs::metadata(&file).expect("written").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600, "for its owner alone");
    let again = alone(&[command, "keygen", "--key", &path]).await;
    assert_eq!(again.exit, Exit::Failed, "a key is never overwritten");
    (path, made.out)
}

#[tokio::test]
async fn an_approval_made_here_is_taken_and_is_of_the_digest_that_is_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (private, public) = key(&folder, "approval").await;
    let request = put(&folder, "request.yaml", REQUEST);
    let told = alone(&["approval", "digest", "--request", &request]).await;
    let (canonical, digest) = told.out.trim().split_once('\n').expect("two lines");
    assert!(canonical.contains(r#""beneficiary":"ada@example.com""#));
    assert!(canonical.contains(r#""targets":["deployment/a","deployment/b"]"#));
    let sign = [
        "approval",
        "sign",
        "--key",
        &private,
        "--approver",
        "bob",
        "--request",
        &request,
    ];
    let signed = alone(&sign).await;
    assert_eq!(signed.exit, Exit::Done, "{signed:?}");
    assert!(signed.err.contains("deployment-viewer"), "what is signed");
    let keyring = Keyring::open(KeyringOptions {
        approvers: vec![ApproverOptions {
            name: "bob".to_owned(),
            names: vec!["bob@example.com".to_owned()],
            key_file: put(&folder, "bob.pem", &public).into(),
        }],
        max_age: TimeDelta::hours(1),
        emergency: Vec::new(),
    });
    let keyring = keyring.expect("a usable key");
    let taken = keyring.approval(signed.out.trim(), at(NOW)).expect("taken");
    assert_eq!(taken.request, digest);

    let fake = Fake::start().await;
    let approval = put(&folder, "bob.jws", &signed.out);
    let more = [
        "INC-123",
        "--no-wait",
        "--request-id",
        "r-1",
        "--approval",
        &approval,
    ];
    run(&fake, &grant(&more)).await;
    let world = fake.world();
    let created = world.created.first().expect("one request");
    assert_eq!(created.approvals, [signed.out.trim()]);
    assert_eq!(created.request_id, "r-1");
}

#[tokio::test]
async fn a_token_made_here_is_taken_and_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let (private, public) = key(&folder, "break-glass").await;
    let issue = |role: &'static str| {
        let words = [
            "break-glass",
            "issue",
            "--key",
            &private,
            "--name",
            "safe",
            "--integration",
            "acme",
            "--member",
            "Ada@Example.com",
            "--role",
            role,
            "--on",
            "deployment/a",
            "--max-duration",
            "2h",
            "--not-after",
            "+90d",
            "--reason",
            "on-call",
        ];
        words.map(str::to_owned)
    };
    let words = issue("admin");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let issued = alone(&words).await;
    assert_eq!(issued.exit, Exit::Done, "{issued:?}");
    let keyring = Keyring::open(KeyringOptions {
        emergency: vec![EmergencyKeyOptions {
            name: "safe".to_owned(),
            key_file: put(&folder, "safe.pem", &public).into(),
        }],
        ..KeyringOptions::default()
    });
    let keyring = keyring.expect("a usable key");
    let token = keyring
        .emergency(issued.out.trim(), at(NOW))
        .expect("taken");
    assert_eq!(token.role, "deployment-admin", "written out");
    assert_eq!(token.beneficiaries, ["ada@example.com".to_owned()].into());
    assert_eq!(token.max_duration_s, 7200);
    let file = put(&folder, "token", &issued.out);
    let shown = alone(&["break-glass", "inspect", &file]).await;
    assert!(shown.out.contains("\"reason\": \"on-call\""), "{shown:?}");
    assert!(shown.err.contains("not checked"), "{shown:?}");
    let words = issue("emperor");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(alone(&words).await.exit, Exit::Usage);
}
