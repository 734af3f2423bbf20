//! Receipts, overdue access and giving up, as people see them.

use latchkey::cli::Exit;

use super::fake::{Fake, active};
use super::fake_operations::GRANT;
use super::run;

#[tokio::test]
async fn a_receipt_is_told_in_full_and_nothing_in_it_reaches_the_terminal_raw() {
    let fake = Fake::start().await;
    let ran = run(&fake, &["receipt", GRANT]).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    insta::assert_snapshot!("receipt", ran.out);
    let given_up = GRANT.replace("0002", "0001");
    let ran = run(&fake, &["receipt", &given_up]).await;
    insta::assert_snapshot!("receipt_given_up", ran.out);
    let ran = run(&fake, &["receipt", GRANT, "--output", "json"]).await;
    let document: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(document["assurance"], "seen_gone_twice");
    assert_eq!(document["due_to_gone_milliseconds"], 3_120);
    assert_eq!(document["lines"][0]["fate"], "removed");
    assert_eq!(document["lines"][0]["target"], "deployment/d1");
    assert_eq!(document["lines"][0]["second_look"], "done");
    assert_eq!(
        document["lines"][0]["removed"]["request_ids"][0],
        "req-remove"
    );
    assert_eq!(document["lines"][1]["added"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_grant_that_has_not_ended_has_no_receipt_yet() {
    let fake = Fake::start().await;
    let id = "0199f7a0-0003-7000-8000-000000000001";
    fake.world().grants = vec![active(id, "ada@example.com")];
    let ran = run(&fake, &["receipt", "0199f7a0-0003"]).await;
    assert_eq!(ran.exit, Exit::Conflict, "{ran:?}");
    assert!(ran.err.contains("that is active"), "{ran:?}");
}

#[tokio::test]
async fn receipts_are_listed_with_how_sure_they_are() {
    let fake = Fake::start().await;
    let ran = run(&fake, &["receipts", "--since", "08:00"]).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    insta::assert_snapshot!("receipts", ran.out);
    let ran = run(&fake, &["receipts", "--open"]).await;
    assert!(ran.err.contains("no receipt matches"), "{ran:?}");
    let ran = run(&fake, &["receipts", "--since", "soon"]).await;
    assert_eq!(ran.exit, Exit::Usage, "{ran:?}");
}

#[tokio::test]
async fn overdue_access_is_listed_and_the_exit_code_says_that_there_is_some() {
    let fake = Fake::start().await;
    let ran = run(&fake, &["overdue"]).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    assert!(ran.err.contains("nothing is overdue"), "{ran:?}");
    fake.world().overdue = true;
    let ran = run(&fake, &["overdue"]).await;
    assert_eq!(ran.exit, Exit::Overdue, "{ran:?}");
    assert_eq!(ran.exit.code(), 8);
    insta::assert_snapshot!("overdue", format!("{}\n{}", ran.out, ran.err));
    let ran = run(&fake, &["overdue", "--output", "json"]).await;
    assert_eq!(ran.exit, Exit::Overdue, "{ran:?}");
    let all: Vec<serde_json::Value> = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(all[0]["blocked_code"], "root.unauthorized");
    assert_eq!(all[0]["proposal"]["by"], "ada");
}

#[tokio::test]
async fn forgetting_says_what_it_means_at_every_step() {
    let fake = Fake::start().await;
    fake.world().overdue = true;
    let words = |who: &'static str| {
        [
            "forget",
            "--member",
            "101",
            "--role",
            "viewer",
            "--on",
            "deployment/d1",
            "--reason",
            "gone",
            "--requester",
            who,
        ]
    };
    let ran = run(&fake, &words("ada")).await;
    assert_eq!(ran.exit, Exit::Usage, "{ran:?}");
    assert!(ran.err.contains("may still be there"), "{ran:?}");
    for (who, name) in [("ada", "forget_proposed"), ("grace", "forget_confirmed")] {
        let mut line = words(who).to_vec();
        line.push("--yes");
        let ran = run(&fake, &line).await;
        assert_eq!(ran.exit, Exit::Done, "{ran:?}");
        insta::assert_snapshot!(name, ran.out);
    }
}

#[tokio::test]
async fn adopting_resolves_names_and_says_what_follows() {
    let fake = Fake::start().await;
    let ran = run(
        &fake,
        &[
            "adopt",
            "--member",
            "ada@example.com",
            "--role",
            "viewer",
            "--on",
            "prod-logs",
            "--reason",
            "on call",
            "--requester",
            "grace",
        ],
    )
    .await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    assert_eq!(
        ran.out,
        "deployment-viewer on deployment/d1 is standing access now: it will not be removed when a grant ends\n"
    );
}

#[tokio::test]
async fn a_key_is_shown_with_its_end_its_rights_and_its_rotation_and_never_itself() {
    let fake = Fake::start().await;
    let ran = run(&fake, &["key", "show"]).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    insta::assert_snapshot!("key_show", ran.out);
    assert!(!ran.out.contains('\u{1b}'), "{ran:?}");
    let ran = run(&fake, &["key", "show", "--output", "json"]).await;
    let document: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(document["key_id"], "72kse5wBzbyj5dh9Iz13");
    assert_eq!(document["rotation"]["stage"], "switched");
    assert_eq!(document["rotated_every_seconds"], 5_184_000);
}

#[tokio::test]
async fn a_rotation_is_told_when_the_new_key_is_in_use() {
    let fake = Fake::start().await;
    let ran = run(&fake, &["key", "rotate", "--reason", "ada has left"]).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    insta::assert_snapshot!("key_rotate", ran.out);
}
