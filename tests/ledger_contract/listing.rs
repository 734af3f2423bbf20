//! Listings: whole, in order, filtered, a page at a time.

use latchkey::domain::assignment::Target;
use latchkey::domain::drift::Watched;
use latchkey::domain::grant::{Grant, GrantedAssignment, Holding};
use latchkey::domain::ids::UserId;
use latchkey::domain::member::MemberRecord;
use latchkey::ports::ledger::{GrantFilter, RequestRecord};

use crate::support::*;

on_every_ledger!(
    pages_of_grants_neither_lose_nor_repeat,
    grants_are_filtered_by_every_field,
    members_come_in_order_and_only_with_grants_ownership_or_something_watched,
    subjects_are_those_with_open_grants_on_a_target,
    pruning_forgets_only_what_nothing_needs,
);

fn ids(grants: &[Grant]) -> Vec<String> {
    grants
        .iter()
        .map(|grant| grant.request_id.to_string())
        .collect()
}

async fn pages_of_grants_neither_lose_nor_repeat(ledger: AnyLedger) {
    for n in 1..=25 {
        create(&ledger, grant(n, user("1"))).await;
    }
    for limit in [1, 4, 5, 24, 25, 26] {
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = ledger
                .list_grants(&GrantFilter::default(), before, limit)
                .await
                .expect("readable");
            assert!(page.items.len() <= limit);
            seen.extend(ids(&page.items));
            match page.next {
                Some(next) => before = Some(next),
                None => break,
            }
        }
        let all: Vec<String> = (1..=25).rev().map(|n| format!("r{n}")).collect();
        assert_eq!(seen, all, "{limit} a page");
    }
}

async fn grants_are_filtered_by_every_field(ledger: AnyLedger) {
    let mut ada = grant(1, user("1"));
    ada.beneficiary = "Ada@Example.com".to_owned();
    create(&ledger, ada).await;
    let mut wide = grant(2, invitee("bob@example.com"));
    wide.caller = caller("local");
    wide.assignments = [Target::AllDeployments, deployment("b")]
        .map(|target| GrantedAssignment {
            assignment: assignment(target),
            holding: Holding::Undecided,
        })
        .to_vec();
    create(&ledger, wide).await;
    let mut elsewhere = grant(3, user("1"));
    elsewhere.integration = integration("other");
    create(&ledger, elsewhere).await;
    create(&ledger, grant(4, user("4"))).await;
    let mut record = ledger.member(&key(user("4"))).await.expect("readable");
    end_all(&mut record, 10);
    ledger.commit(commit(record)).await.expect("committed");

    let of = GrantFilter::default;
    let subject = |text: &str| GrantFilter {
        subject: Some(text.to_owned()),
        ..of()
    };
    let target = |target| GrantFilter {
        target: Some(target),
        ..of()
    };
    let states = |names: &[&str]| GrantFilter {
        states: names.iter().map(|name| (*name).to_owned()).collect(),
        ..of()
    };
    for (filter, expected) in [
        (of(), vec!["r4", "r3", "r2", "r1"]),
        (
            GrantFilter {
                caller: Some(caller("local")),
                ..of()
            },
            vec!["r2"],
        ),
        (
            GrantFilter {
                integration: Some(integration("main")),
                ..of()
            },
            vec!["r4", "r2", "r1"],
        ),
        (states(&["ended"]), vec!["r4"]),
        (states(&["activating", "active"]), vec!["r3", "r2", "r1"]),
        (
            states(&["activating", "ended"]),
            vec!["r4", "r3", "r2", "r1"],
        ),
        (states(&["no such state"]), vec![]),
        (subject("user:1"), vec!["r3", "r1"]),
        (subject("email:Bob@example.com"), vec!["r2"]),
        (subject("ADA@example.com"), vec!["r1"]),
        (subject("%"), vec![]),
        (target(deployment("a")), vec!["r4", "r3", "r1"]),
        (target(deployment("b")), vec!["r2"]),
        (target(Target::AllDeployments), vec!["r2"]),
        (target(Target::Organization), vec![]),
        (
            GrantFilter {
                integration: Some(integration("other")),
                ..subject("user:1")
            },
            vec!["r3"],
        ),
    ] {
        let page = ledger
            .list_grants(&filter, None, 10)
            .await
            .expect("readable");
        assert_eq!(ids(&page.items), expected, "{filter:?}");
    }
}

async fn members_come_in_order_and_only_with_grants_ownership_or_something_watched(
    ledger: AnyLedger,
) {
    for (n, id) in [(1, "7"), (2, "10"), (3, "9")] {
        create(&ledger, grant(n, user(id))).await;
    }
    create(&ledger, grant(4, invitee("ada@example.com"))).await;
    let mut elsewhere = grant(5, user("8"));
    elsewhere.integration = integration("other");
    create(&ledger, elsewhere).await;
    let mut owner = MemberRecord::new(key(user("11")));
    owner.owned = vec![owned(deployment("a"))];
    ledger.commit(commit(owner)).await.expect("committed");
    let mut watched = MemberRecord::new(key(user("13")));
    watched.watched = vec![Watched {
        assignment: owned(deployment("a")).assignment,
        gone_at: at(1),
        until: at(9),
    }];
    ledger.commit(commit(watched)).await.expect("committed");
    let quiet = MemberRecord::new(key(user("12")));
    ledger.commit(commit(quiet)).await.expect("committed");
    let mut record = ledger.member(&key(user("9"))).await.expect("readable");
    end_all(&mut record, 10);
    ledger.commit(commit(record)).await.expect("committed");

    for limit in 1..5 {
        let (mut seen, mut after) = (Vec::new(), None::<UserId>);
        loop {
            let page = ledger
                .members(&integration("main"), after.as_ref(), limit)
                .await
                .expect("readable");
            assert!(page.items.len() <= limit);
            seen.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let order: Vec<String> = seen
            .iter()
            .map(|record| record.key.subject.to_string())
            .collect();
        assert_eq!(
            order,
            ["user:10", "user:11", "user:13", "user:7"],
            "{limit} a page"
        );
        assert_eq!((seen[0].grants.len(), seen[1].owned.len()), (1, 1));
    }
}

async fn subjects_are_those_with_open_grants_on_a_target(ledger: AnyLedger) {
    create(&ledger, grant(1, user("2"))).await;
    create(&ledger, grant(2, user("2"))).await;
    create(&ledger, grant(3, invitee("ada@example.com"))).await;
    let mut other = grant(4, user("3"));
    other.assignments[0].assignment.target = deployment("b");
    create(&ledger, other).await;
    create(&ledger, grant(5, user("4"))).await;
    let mut record = ledger.member(&key(user("4"))).await.expect("readable");
    end_all(&mut record, 10);
    ledger.commit(commit(record)).await.expect("committed");
    let main = integration("main");
    assert_eq!(
        ledger.subjects(&main, None).await.expect("readable"),
        [
            key(invitee("ada@example.com")),
            key(user("2")),
            key(user("3"))
        ]
    );
    let on_b = ledger.subjects(&main, Some(&deployment("b"))).await;
    assert_eq!(on_b.expect("readable"), [key(user("3"))]);
}

async fn pruning_forgets_only_what_nothing_needs(ledger: AnyLedger) {
    // 1 and 2 end, 3 stays open; every request id is remembered until 100.
    for n in 1..=3 {
        let subject = user(&n.to_string());
        let mut one = accept(grant(n, subject.clone()));
        one.remember_until = at(100);
        ledger.accept(one).await.expect("accepted");
        if n < 3 {
            let mut record = ledger.member(&key(subject)).await.expect("readable");
            end_all(&mut record, i64::from(n) * 10);
            ledger.commit(commit(record)).await.expect("committed");
        }
    }
    let local = caller("control-plane");
    ledger
        .tombstone(&local, &request_id("gone"), at(50), Vec::new())
        .await
        .expect("closed");
    let events = ledger.last_sequence().await.expect("readable");

    // Ended grants stay while their request ids are remembered.
    assert_eq!(ledger.prune(at(50), at(1000), 99).await.expect("pruned"), 0);
    assert_eq!(ledger.prune(at(51), at(1000), 99).await.expect("pruned"), 1);
    let tombstone = ledger.find_request(&local, &request_id("gone")).await;
    assert_eq!(tombstone.expect("readable"), None);

    // Two request ids (the third has an open grant) and the grant that ended before 20.
    assert_eq!(ledger.prune(at(101), at(20), 99).await.expect("pruned"), 3);
    for (n, is_kept) in [(1, false), (2, true), (3, true)] {
        let one = grant(n, user("1"));
        let found = ledger.grant(one.id).await.expect("readable");
        assert_eq!(found.is_some(), is_kept, "grant {n}");
        let request = ledger.find_request(&local, &one.request_id).await;
        assert_eq!(request.expect("readable").is_some(), n == 3, "request {n}");
    }

    // A call about a grant keeps it too.
    let record = ledger.member(&key(user("1"))).await.expect("readable");
    let mut call = commit(record);
    let done = RequestRecord::Done {
        fingerprint: fingerprint(1),
        grant: Some(grant(2, user("2")).id),
    };
    call.request = Some((local.clone(), request_id("revoke"), done, at(2000)));
    ledger.commit(call).await.expect("committed");
    assert_eq!(
        ledger.prune(at(101), at(1000), 99).await.expect("pruned"),
        0
    );
    assert_eq!(
        ledger.prune(at(3000), at(1000), 1).await.expect("pruned"),
        1
    );
    assert_eq!(
        ledger.prune(at(3000), at(1000), 1).await.expect("pruned"),
        1
    );
    assert_eq!(
        ledger.prune(at(3000), at(1000), 1).await.expect("pruned"),
        0
    );
    assert_eq!(ledger.last_sequence().await.expect("readable"), events);
    let open = ledger.member(&key(user("3"))).await.expect("readable");
    assert_eq!(open.grants.len(), 1);
}
