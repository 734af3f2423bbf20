//! Commands about what stands already: listing, watching, extending, ending, explaining.

use latchkey::api::pb;
use latchkey::cli::Exit;

use crate::fake::{self, Fake, active};
use crate::run;

fn three_grants(fake: &Fake) {
    let ended = pb::Grant {
        state: pb::GrantState::Ended.into(),
        ..active("0199f7a0-0001-7000-8000-000000000001", "ada@example.com")
    };
    fake.world().grants = vec![
        ended,
        active("0199f7a0-0002-7000-8000-000000000001", "ada@example.com"),
        active("0199f7a0-0003-7000-8000-000000000001", "grace@example.com"),
        active(
            "0199f7a1-0004-7000-8000-000000000001",
            "eve\u{1b}[2J@example.com",
        ),
    ];
}

#[tokio::test]
async fn lists_read_every_page_and_leave_out_what_has_ended() {
    let fake = Fake::start().await;
    let ran = run(&fake, &["list"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, ""), "{ran:?}");
    assert!(ran.err.contains("no grant matches"));

    three_grants(&fake);
    insta::assert_snapshot!("list", run(&fake, &["list"]).await.out);
    let ran = run(&fake, &["list", "--all", "--output", "json"]).await;
    let all: Vec<serde_json::Value> = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(all.len(), 4);
    assert_eq!(all[0]["beneficiary"], "eve\u{1b}[2J@example.com");
    let ran = run(&fake, &["list", "--limit", "1", "--output", "yaml"]).await;
    let one: Vec<serde_json::Value> = serde_yaml::from_str(&ran.out).expect("YAML");
    assert_eq!(one.len(), 1);
    assert!(ran.err.contains("only the newest 1"), "{ran:?}");
}

#[tokio::test]
async fn grants_are_shown_by_the_beginning_of_their_id() {
    let fake = Fake::start().await;
    three_grants(&fake);
    let ran = run(&fake, &["get", "0199f7a0-0002"]).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    insta::assert_snapshot!("get", ran.out);
    for (id, exit, hint) in [
        (
            "0199f7a0",
            Exit::Usage,
            "0199f7a0-0002-7000-8000-000000000001 (ada@example.com)",
        ),
        ("0199ffff", Exit::NotFound, "no grant of yours"),
        (
            "0199f7a0-0009-7000-8000-000000000001",
            Exit::NotFound,
            "no such grant",
        ),
        ("ada@example.com", Exit::Usage, "not a grant id"),
        ("019", Exit::Usage, "too short"),
    ] {
        let ran = run(&fake, &["get", id]).await;
        assert_eq!(ran.exit, exit, "{id}: {ran:?}");
        assert!(ran.err.contains(hint), "{id}: {ran:?}");
    }
}

#[tokio::test]
async fn a_watch_goes_on_after_a_broken_stream_where_it_was() {
    let fake = Fake::start().await;
    fake.world().grants = vec![active(
        "0199f7a0-0002-7000-8000-000000000001",
        "ada@example.com",
    )];
    let ran = run(&fake, &["watch", "--output", "json"]).await;
    // The fake ends the second stream with an error that is not the connection's.
    assert_eq!(ran.exit, Exit::Refused, "{ran:?}");
    let kinds: Vec<(String, String)> = ran
        .out
        .lines()
        .map(|line| {
            let change: serde_json::Value = serde_json::from_str(line).expect("JSON lines");
            (
                change["kind"].to_string(),
                change["grant"]["state"].to_string(),
            )
        })
        .collect();
    let expected = [
        ("snapshot", "\"active\""),
        ("synced", "null"),
        ("changed", "\"ended\""),
    ];
    let expected = expected.map(|(kind, state)| (format!("\"{kind}\""), state.to_owned()));
    assert_eq!(kinds, expected);
    assert!(ran.err.contains("trying again"), "{ran:?}");
    assert_eq!(fake.world().watches, ["", "t2"]);

    let ran = run(&fake, &["watch", "--once"]).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    assert_eq!(
        ran.out,
        "13:20 CET  active          0199f7a0-0002  ada@example.com deployment-viewer on deployment/prod-logs: \
         until 14:05 CET (44m)\n"
    );
}

#[tokio::test]
async fn an_extension_shows_the_new_end() {
    let fake = Fake::start().await;
    three_grants(&fake);
    let ran = run(&fake, &["extend", "0199f7a0-0002", "--by", "30m"]).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    assert!(
        ran.out.contains("until 14:35 CET, in 1 hour 14 minutes"),
        "{ran:?}"
    );
    let ran = run(&fake, &["extend", "0199f7a0-0001", "--by", "30m"]).await;
    assert_eq!(ran.exit, Exit::Conflict, "{ran:?}");
    assert!(ran.err.contains("latchkey get"), "{ran:?}");
}

#[tokio::test]
async fn a_revocation_is_waited_for_until_access_is_gone() {
    let fake = Fake::start().await;
    three_grants(&fake);
    let ran = run(
        &fake,
        &[
            "revoke",
            "0199f7a0-0002",
            "--requester",
            "grace",
            "--reason",
            "done",
        ],
    )
    .await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    assert!(
        ran.out.contains("is no longer deployment-viewer"),
        "{ran:?}"
    );
    assert!(ran.out.contains("revoked by grace"), "{ran:?}");
    let ran = run(&fake, &["revoke", "0199f7a0-0003", "--no-wait"]).await;
    assert!(ran.out.contains("is losing deployment-viewer"), "{ran:?}");
    let ran = run(&fake, &["revoke", "--request-id", "not-yet"]).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    assert!(
        ran.out.contains("request id not-yet will be refused"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn revoking_everything_needs_a_yes() {
    use pb::revoke_access_request::Selector;
    let fake = Fake::start().await;
    let ran = run(&fake, &["revoke-all", "--member", "ada@example.com"]).await;
    assert_eq!(ran.exit, Exit::Usage, "{ran:?}");
    assert!(ran.err.contains("--yes"), "{ran:?}");
    assert!(fake.world().revoked_all.is_empty());

    for what in [
        ["--member", "Ada Lovelace"],
        ["--on", "prod-logs"],
        ["--integration", "acme"],
    ] {
        let ran = run(&fake, &["revoke-all", what[0], what[1], "--yes"]).await;
        assert_eq!(ran.exit, Exit::Done, "{ran:?}");
        assert_eq!(ran.out, "2 grants on the way out now, 1 grant before\n");
    }
    let selectors: Vec<_> = fake
        .world()
        .revoked_all
        .iter()
        .map(|one| one.selector.clone())
        .collect();
    let ada = pb::Principal {
        kind: Some(pb::principal::Kind::UserId("101".to_owned())),
    };
    let expected = [
        Selector::Member(ada),
        Selector::Target(fake::deployment("d1")),
        Selector::Everything(true),
    ];
    assert_eq!(selectors, expected.map(Some));
}

#[tokio::test]
async fn draining_waits_until_nothing_is_left() {
    let fake = Fake::start().await;
    assert_eq!(run(&fake, &["drain"]).await.exit, Exit::Usage);
    assert_eq!(fake.world().drains, 0);
    let ran = run(&fake, &["drain", "--yes"]).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    assert_eq!(ran.out, "drained: 2 grants revoked, nothing is left\n");
    assert!(
        ran.err.contains("2 grants and 3 assignments left"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_hold_is_shown_with_its_plan_and_released_with_a_reason() {
    let fake = Fake::start().await;
    let ran = run(&fake, &["hold"]).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    for words in ["In hold", "it was restored", "u1", "not proven"] {
        assert!(ran.out.contains(words), "{words}: {ran:?}");
    }
    let ran = run(&fake, &["hold", "--output", "json"]).await;
    let hold: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(hold["reasons"][0]["code"], "ledger_behind");
    assert_eq!(hold["items"][0]["action"], "remove");
    let ran = run(&fake, &["hold", "--integration", "calm"]).await;
    assert_eq!(ran.out, "there is no hold\n");
    let ran = run(&fake, &["hold", "release", "--reason", "looked"]).await;
    assert!(ran.out.starts_with("released"), "{ran:?}");
}

#[tokio::test]
async fn why_names_the_reason_for_each_role() {
    let fake = Fake::start().await;
    let ran = run(&fake, &["why", "ada lovelace"]).await;
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    insta::assert_snapshot!("why", ran.out);
    assert!(ran.err.contains("filtered list"), "{ran:?}");
    let ran = run(&fake, &["why", "zoe@example.com"]).await;
    assert_eq!(ran.exit, Exit::NotFound, "{ran:?}");
}

#[tokio::test]
async fn the_directory_can_be_listed() {
    let fake = Fake::start().await;
    insta::assert_snapshot!("members", run(&fake, &["members"]).await.out);
    insta::assert_snapshot!("roles", run(&fake, &["roles"]).await.out);
    insta::assert_snapshot!("resources", run(&fake, &["resources"]).await.out);

    let ran = run(&fake, &["members", "HOPPER", "-o", "json"]).await;
    let members: Vec<serde_json::Value> = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(members.len(), 2);
    let ran = run(&fake, &["roles", "--kind", "security", "-o", "json"]).await;
    let roles: Vec<serde_json::Value> = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(roles[0]["kind"], "security");
    let ran = run(
        &fake,
        &["resources", "staging", "--kind", "security", "-o", "json"],
    )
    .await;
    let resources: Vec<serde_json::Value> = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(resources[0]["target"], "security/s1");
    assert!(
        run(&fake, &["members", "nobody"])
            .await
            .err
            .contains("no member matches")
    );
}
