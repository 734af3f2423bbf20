//! The command line against a connector that answers from memory: whole commands, their output and exit codes.

mod fake;
mod fake_directory;
mod fake_operations;
mod inventory;
mod operations;
mod signing;
mod standing;

use std::ffi::OsString;
use std::io::Write;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use latchkey::api::pb;
use latchkey::cli::{self, Exit, Streams, time::Zone};
use latchkey::runtime::ManualClock;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use fake::{Fake, NOW, at};

#[derive(Debug, Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("UTF-8")
    }
}

#[derive(Debug)]
struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

async fn run_with(server: &str, interrupt: CancellationToken, words: &[&str]) -> Ran {
    let args = ["latchkey", "--server", server]
        .into_iter()
        .chain(words.iter().copied())
        .map(OsString::from);
    let parsed = cli::parse(args).expect("the test's command line is right");
    let (out, err) = (Captured::default(), Captured::default());
    let mut streams = Streams {
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
        out_is_terminal: false,
        err_is_terminal: false,
        allow_colour: true,
        width: None,
        clock: Arc::new(ManualClock::at(at(NOW))),
        zone: Zone::Named(chrono_tz::Europe::Berlin),
        interrupt,
    };
    let exit = cli::run(parsed, &mut streams).await;
    let ran = Ran {
        exit,
        out: out.text(),
        err: err.text(),
    };
    for text in [&ran.out, &ran.err] {
        assert!(
            !text.chars().any(|c| c != '\n' && cli::text::is_unsafe(c)),
            "unescaped: {text:?}"
        );
    }
    ran
}

async fn run(fake: &Fake, words: &[&str]) -> Ran {
    run_with(
        &format!("http://{}", fake.address),
        CancellationToken::new(),
        words,
    )
    .await
}

const GRANT: [&str; 8] = [
    "grant",
    "ada@example.com",
    "viewer",
    "--on",
    "prod-logs",
    "--for",
    "45m",
    "--reason",
];

fn grant<'a>(more: &[&'a str]) -> Vec<&'a str> {
    GRANT.iter().copied().chain(more.iter().copied()).collect()
}

#[tokio::test]
async fn a_grant_is_waited_for_and_says_when_it_ends() {
    let fake = Fake::start().await;
    let ran = run(&fake, &grant(&["INC-123"])).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    assert_eq!(
        ran.out,
        "ada@example.com is deployment-viewer on deployment/prod-logs\n\
         until 14:05 CET, in 45 minutes\n\
         grant 0199f7a0-1b2c-7000-8000-000000000001; end it early with: latchkey revoke 0199f7a0-1b2c\n"
    );
    assert!(
        ran.err
            .contains("waiting until Elastic Cloud shows the access"),
        "{ran:?}"
    );
    assert!(
        ran.err
            .contains("warning: roles look mapped by \\u{1b}[31mSSO"),
        "{ran:?}"
    );
    assert!(
        ran.err
            .contains("warning: logins \\u{1b}[31moverwrite roles here"),
        "{ran:?}"
    );

    let world = fake.world();
    let created = world.created.first().expect("one request");
    let spec = created.spec.as_ref().expect("with a body");
    assert_eq!(spec.role, "deployment-viewer");
    assert_eq!(spec.targets, [fake::deployment("d1")]);
    assert_eq!(
        spec.duration.as_ref().map(|length| length.seconds),
        Some(2_700)
    );
    assert_eq!(created.wait(), pb::GrantWait::Accepted);
    assert!(uuid::Uuid::try_parse(&created.request_id).is_ok_and(|id| id.get_version_num() == 7));
}

#[tokio::test]
async fn a_grant_can_be_scheduled_without_waiting_and_with_everything_chosen() {
    let fake = Fake::start().await;
    let words = [
        "grant",
        "Ada Lovelace",
        "t1_analyst",
        "--on",
        "security/staging",
        "--for",
        "2h",
        "--starts",
        "14:00",
        "--until",
        "17:00",
        "--as-roles",
        "t1_analyst, viewer",
        "--request-id",
        "mine",
        "--integration",
        "acme",
        "--requester",
        "grace",
        "--no-wait",
        "--output",
        "json",
    ];
    let ran = run(&fake, &words).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    let grant: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(grant["state"], "scheduled");
    assert_eq!(grant["starts_at"], "2026-11-21T13:00:00Z");
    assert_eq!(grant["request_id"], "mine");
    assert_eq!(grant["assignments"][0]["target"], "security/s1");

    let world = fake.world();
    let spec = world.created[0].spec.clone().expect("with a body");
    assert_eq!(
        spec.beneficiary.and_then(|principal| principal.kind),
        Some(pb::principal::Kind::Email("ada@example.com".to_owned())),
        "a display name becomes an address that people can read"
    );
    assert_eq!(
        spec.application_roles.expect("given").names,
        ["t1_analyst", "viewer"]
    );
    assert_eq!(
        spec.not_after.expect("given").seconds,
        at("2026-11-21T16:00:00Z").timestamp()
    );
    assert_eq!(
        (spec.integration.as_str(), spec.requester.as_str()),
        ("acme", "grace")
    );
}

#[tokio::test]
async fn refusals_exit_with_their_codes_and_say_what_to_do() {
    let fake = Fake::start().await;
    for (reason, exit, hint) in [
        (
            "refuse",
            Exit::Refused,
            "hint: --for: policy allows at most 12h",
        ),
        ("reused", Exit::Conflict, "--request-id"),
        ("slow-down", Exit::Unavailable, "try again in 3s"),
        (
            "fails",
            Exit::Failed,
            "access could not be given (role_unknown)",
        ),
    ] {
        let ran = run(&fake, &grant(&[reason])).await;
        assert_eq!(ran.exit, exit, "{ran:?}");
        assert!(ran.err.contains(hint), "{ran:?}");
        assert!(ran.err.contains("error: "), "{ran:?}");
    }
}

#[tokio::test]
async fn names_that_are_ambiguous_or_unknown_ask_for_nothing() {
    let fake = Fake::start().await;
    let cases: [(&[&str], Exit, &str); 6] = [
        (
            &[
                "grant",
                "Grace Hopper",
                "viewer",
                "--on",
                "prod-logs",
                "--for",
                "45m",
            ],
            Exit::Usage,
            "grace@example.com (102), grace@example.org (103)",
        ),
        (
            &[
                "grant",
                "ada@example.com",
                "viewer",
                "--on",
                "staging",
                "--for",
                "45m",
            ],
            Exit::Usage,
            "deployment/d2 (staging), security/s1 (staging)",
        ),
        (
            &[
                "grant",
                "nobody",
                "viewer",
                "--on",
                "prod-logs",
                "--for",
                "45m",
            ],
            Exit::NotFound,
            "no member is called",
        ),
        (
            &[
                "grant",
                "ada@example.com",
                "viewer",
                "--on",
                "prod",
                "--for",
                "45m",
            ],
            Exit::NotFound,
            "did you mean deployment/d1 (prod-logs)?",
        ),
        (
            &[
                "grant",
                "ada@example.com",
                "owner",
                "--on",
                "prod-logs",
                "--for",
                "45m",
            ],
            Exit::NotFound,
            "deployment-admin",
        ),
        (
            &["grant", "ada@example.com", "viewer", "--for", "45m"],
            Exit::Usage,
            "--on",
        ),
    ];
    for (words, exit, hint) in cases {
        let ran = run(&fake, words).await;
        assert_eq!(ran.exit, exit, "{ran:?}");
        assert!(ran.err.contains(hint), "{ran:?}");
    }
    assert!(fake.world().created.is_empty());
}

#[tokio::test]
async fn waiting_ends_in_time_and_leaves_the_grant_alone() {
    let fake = Fake::start().await;
    let ran = run(&fake, &grant(&["never", "--timeout", "1s"])).await;
    assert_eq!(ran.exit, Exit::TimedOut, "{ran:?}");
    assert!(
        ran.err
            .contains("grant 0199f7a0-1b2c-7000-8000-000000000001 goes on"),
        "{ran:?}"
    );
    assert_eq!(fake.world().grants[0].state(), pb::GrantState::Activating);
}

#[tokio::test]
async fn ctrl_c_says_that_the_grant_goes_on_and_how_to_revoke_it() {
    let fake = Fake::start().await;
    let interrupt = CancellationToken::new();
    let server = format!("http://{}", fake.address);
    let words = grant(&["never"]);
    let waiting = run_with(&server, interrupt.clone(), &words);
    let pressing = async {
        // A look at the grant means that its id is known to the command.
        while !fake.world().was_looked_at() {
            tokio::task::yield_now().await;
        }
        interrupt.cancel();
    };
    let (ran, ()) = tokio::join!(waiting, pressing);
    assert_eq!(ran.exit, Exit::Interrupted, "{ran:?}");
    let id = "0199f7a0-1b2c-7000-8000-000000000001";
    assert!(
        ran.err
            .contains(&format!("interrupted; grant {id} goes on")),
        "{ran:?}"
    );
    assert!(
        ran.err.contains(&format!("latchkey revoke {id}")),
        "{ran:?}"
    );
}

/// A grant whose names need no look-up, so that the first call is the one that creates it.
const DIRECT: [&str; 9] = [
    "grant",
    "ada@example.com",
    "viewer",
    "--on",
    "deployment/0123456789abcdef0123456789abcdef",
    "--for",
    "45m",
    "--request-id",
    "mine",
];

#[tokio::test]
async fn ctrl_c_before_the_answer_says_how_to_make_sure() {
    let fake = Fake::start().await;
    let interrupt = CancellationToken::new();
    interrupt.cancel();
    let ran = run_with(&format!("http://{}", fake.address), interrupt, &DIRECT).await;
    assert_eq!(ran.exit, Exit::Interrupted, "{ran:?}");
    assert!(
        ran.err.contains("latchkey revoke --request-id mine"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_request_whose_connection_breaks_is_repeated_with_the_same_id() {
    let fake = Fake::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let server = format!("http://{}", listener.local_addr().expect("bound"));
    let proxy = async {
        // The first connection carries the request and breaks before any answer passes.
        let (client, _) = listener.accept().await.expect("a connection");
        let mut upstream = TcpStream::connect(fake.address)
            .await
            .expect("the fake listens");
        let (mut from_client, _to_client) = client.into_split();
        tokio::select! {
            copied = tokio::io::copy(&mut from_client, &mut upstream) => panic!("ended early: {copied:?}"),
            () = async {
                while fake.world().created.is_empty() {
                    tokio::task::yield_now().await;
                }
            } => {}
        }
        drop((from_client, _to_client, upstream));
        let (mut client, _) = listener.accept().await.expect("a second connection");
        let mut upstream = TcpStream::connect(fake.address)
            .await
            .expect("the fake listens");
        tokio::io::copy_bidirectional(&mut client, &mut upstream)
            .await
            .ok();
        std::future::pending().await
    };
    let words: Vec<&str> = DIRECT[..7].iter().copied().chain(["--no-wait"]).collect();
    let ran = tokio::select! {
        ran = run_with(&server, CancellationToken::new(), &words) => ran,
        () = proxy => unreachable!("the proxy goes on for ever"),
    };
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    let world = fake.world();
    let ids: Vec<&str> = world
        .created
        .iter()
        .map(|one| one.request_id.as_str())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_plan_shows_calls_and_their_inverse_and_creates_nothing() {
    let fake = Fake::start().await;
    let words = [
        "plan",
        "ada@example.com",
        "viewer",
        "--on",
        "prod-logs",
        "--for",
        "45m",
    ];
    let ran = run(&fake, &words).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    insta::assert_snapshot!("plan", ran.out);
    let json: Vec<&str> = words.iter().copied().chain(["-o", "json"]).collect();
    let plan: serde_json::Value = serde_json::from_str(&run(&fake, &json).await.out).expect("JSON");
    assert_eq!(
        plan["inverse_calls"][0]["body"]["deployment"][0]["role_id"],
        "deployment-viewer"
    );
    assert!(fake.world().created.is_empty());
}

#[tokio::test]
async fn a_connector_that_is_away_exits_with_6() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    for words in [&["list"][..], &["watch"], &["drain", "--yes"], &["members"]] {
        let ran = run_with(&server, CancellationToken::new(), words).await;
        assert_eq!(ran.exit, Exit::Unavailable, "{ran:?}");
        assert!(
            ran.err
                .contains("cannot reach the connector at http://127.0.0.1"),
            "{ran:?}"
        );
        assert!(ran.err.contains("LATCHKEY_SERVER"), "{ran:?}");
    }
    for server in ["https://localhost", "localhost:7443", "ftp://x"] {
        let ran = run_with(server, CancellationToken::new(), &["list"]).await;
        assert_eq!(ran.exit, Exit::Usage, "{ran:?}");
    }
}

#[tokio::test]
async fn a_connector_that_never_answers_exits_with_7() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let server = format!("http://{}", listener.local_addr().expect("bound"));
    let ran = run_with(
        &server,
        CancellationToken::new(),
        &["list", "--timeout", "1s"],
    )
    .await;
    assert_eq!(ran.exit, Exit::TimedOut, "{ran:?}");
    let words: Vec<&str> = DIRECT.iter().copied().chain(["--timeout", "1s"]).collect();
    let ran = run_with(&server, CancellationToken::new(), &words).await;
    assert_eq!(ran.exit, Exit::TimedOut, "{ran:?}");
    assert!(
        ran.err.contains("--request-id mine cannot grant twice"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn completions_and_manual_pages_come_from_the_definition() {
    let fake = Fake::start().await;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(&fake, &["completions", shell]).await;
        assert_eq!(ran.exit, Exit::Done);
        assert!(ran.out.contains("revoke-all"), "{shell}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let pages = dir.path().join("man1");
    let ran = run(&fake, &["man", pages.to_str().expect("UTF-8")]).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    for page in ["latchkey.1", "latchkey-grant.1", "latchkey-revoke-all.1"] {
        let text = std::fs::read_to_string(pages.join(page)).expect(page);
        assert!(text.contains(".TH"), "{page}");
    }
    assert!(run(&fake, &["man"]).await.out.contains("latchkey\\-grant"));
}

#[tokio::test]
async fn the_binary_survives_a_closed_pipe_and_reports_its_codes() {
    let binary = || {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_latchkey"));
        command
            .env_remove("LATCHKEY_SERVER")
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command
    };
    let mut child = binary()
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // Nobody reads: the first write meets a closed pipe.
    drop(child.stdout.take());
    let output = child.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");

    for (words, code) in [
        (&["--version"][..], 0),
        (&["grant"], 2),
        (&["get", "ada"], 2),
    ] {
        let output = binary().args(words).output().await.expect("it runs");
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    }
}
