//! The queue is the state: what is due, in which order, and when to look next.

use chrono::TimeDelta;
use latchkey::domain::grant::{EndCause, Grant, GrantState};
use latchkey::domain::member::{Blocked, DueKind, MemberRecord, Subject};
use latchkey::ports::ledger::{Accepted, Census, DueMember, Removals};

use crate::support::*;

on_every_ledger!(
    removals_go_first_then_power_then_time,
    the_next_due_is_the_earliest_after_an_instant,
    an_accepted_grant_never_postpones_what_is_due,
    a_quiet_member_is_not_due,
    instants_are_kept_to_the_microsecond_rounded_down,
    a_census_counts_what_is_open_owned_blocked_and_overdue,
    ends_are_counted_by_second_and_once_for_each_member,
    what_need_not_be_removed_any_more_does_not_end,
);

async fn store_due(ledger: &AnyLedger, subject: Subject, seconds: i64, kind: DueKind, weight: u32) {
    let mut record = MemberRecord::new(key(subject));
    record.due = Some(due(seconds, kind, weight));
    ledger.commit(commit(record)).await.expect("committed");
}

fn subjects(found: &[DueMember]) -> Vec<String> {
    found
        .iter()
        .map(|member| member.key.subject.to_string())
        .collect()
}

async fn removals_go_first_then_power_then_time(ledger: AnyLedger) {
    for (subject, seconds, kind, weight) in [
        (user("look"), 1, DueKind::Look, 100),
        (user("grant"), 2, DueKind::Grant, 100),
        (user("verify"), 3, DueKind::Verify, 100),
        (user("weak-late"), 9, DueKind::Remove, 1),
        (user("weak-early"), 8, DueKind::Remove, 1),
        (user("strong-late"), 10, DueKind::Remove, 80),
        (user("strong-early"), 7, DueKind::Remove, 80),
        (invitee("ada@example.com"), 7, DueKind::Remove, 80),
        (user("not-yet"), 11, DueKind::Remove, u32::MAX),
    ] {
        store_due(&ledger, subject, seconds, kind, weight).await;
    }
    let main = integration("main");
    let found = ledger.due(&main, at(10), 100).await.expect("readable");
    let order = [
        "email:ada@example.com",
        "user:strong-early",
        "user:strong-late",
        "user:weak-early",
        "user:weak-late",
        "user:verify",
        "user:grant",
        "user:look",
    ];
    assert_eq!(subjects(&found), order);
    assert_eq!(found[2].due, due(10, DueKind::Remove, 80));
    for limit in 0..order.len() {
        let some = ledger.due(&main, at(10), limit).await.expect("readable");
        assert_eq!(subjects(&some), order[..limit]);
    }
    let other = ledger.due(&integration("other"), at(10), 100).await;
    assert_eq!(other.expect("readable"), []);
}

async fn the_next_due_is_the_earliest_after_an_instant(ledger: AnyLedger) {
    store_due(&ledger, user("1"), 30, DueKind::Remove, 9).await;
    store_due(&ledger, user("2"), 10, DueKind::Look, 1).await;
    store_due(&ledger, user("3"), 20, DueKind::Remove, 1).await;
    let main = integration("main");
    for (after, next) in [
        (0, Some(10)),
        (9, Some(10)),
        (10, Some(20)),
        (20, Some(30)),
        (30, None),
    ] {
        let found = ledger.next_due(&main, at(after)).await.expect("readable");
        assert_eq!(found, next.map(at), "after {after}");
    }
    let other = ledger.next_due(&integration("other"), at(0)).await;
    assert_eq!(other.expect("readable"), None);
}

async fn an_accepted_grant_never_postpones_what_is_due(ledger: AnyLedger) {
    for (n, seconds, kind, expected) in [
        (1, 50, DueKind::Grant, due(50, DueKind::Grant, 10)),
        (2, 60, DueKind::Remove, due(50, DueKind::Grant, 10)),
        (3, 40, DueKind::Look, due(40, DueKind::Look, 10)),
        (4, 40, DueKind::Remove, due(40, DueKind::Remove, 10)),
        (5, 40, DueKind::Verify, due(40, DueKind::Remove, 10)),
    ] {
        let mut one = accept(grant(n, user("1")));
        one.due = due(seconds, kind, 10);
        assert!(matches!(ledger.accept(one).await, Ok(Accepted::Created(_))));
        let record = ledger.member(&key(user("1"))).await.expect("readable");
        assert_eq!(record.due, Some(expected), "after grant {n}");
    }
}

async fn a_quiet_member_is_not_due(ledger: AnyLedger) {
    create(&ledger, grant(1, user("1"))).await;
    let main = integration("main");
    assert_eq!(
        ledger.due(&main, at(100), 9).await.expect("readable").len(),
        1
    );
    let mut record = ledger.member(&key(user("1"))).await.expect("readable");
    end_all(&mut record, 10);
    ledger.commit(commit(record)).await.expect("committed");
    assert_eq!(ledger.due(&main, at(100), 9).await.expect("readable"), []);
    assert_eq!(
        ledger.next_due(&main, at(-1)).await.expect("readable"),
        None
    );
}

async fn instants_are_kept_to_the_microsecond_rounded_down(ledger: AnyLedger) {
    let mut record = MemberRecord::new(key(user("1")));
    let mut exact = due(1, DueKind::Remove, 1);
    exact.at += chrono::TimeDelta::nanoseconds(1_999);
    record.due = Some(exact);
    ledger.commit(commit(record)).await.expect("committed");
    let stored = at(1) + chrono::TimeDelta::microseconds(1);
    let main = integration("main");
    let found = ledger.due(&main, stored, 9).await.expect("readable");
    assert_eq!(found[0].due.at, stored);
    assert_eq!(
        ledger.next_due(&main, stored).await.expect("readable"),
        None
    );
}

async fn a_census_counts_what_is_open_owned_blocked_and_overdue(ledger: AnyLedger) {
    assert_eq!(
        ledger.census(at(0)).await.expect("readable"),
        Census::default()
    );
    create(&ledger, grant(1, user("1"))).await;
    create(&ledger, grant(2, user("2"))).await;
    create(&ledger, grant(3, user("3"))).await;
    let mut record = ledger.member(&key(user("1"))).await.expect("readable");
    end_all(&mut record, 10);
    record.owned = vec![owned(deployment("a")), owned(deployment("b"))];
    record.owned[0].blocked = Some(Blocked {
        code: "last_owner".to_owned(),
        since: at(1),
        retry_at: at(2),
        refusals: 1,
    });
    record.due = Some(due(20, DueKind::Remove, 5));
    ledger.commit(commit(record)).await.expect("committed");
    store_due(&ledger, user("4"), 15, DueKind::Remove, 90).await;
    store_due(&ledger, user("5"), 21, DueKind::Remove, 90).await;
    store_due(&ledger, user("6"), 1, DueKind::Look, 90).await;
    let census = ledger.census(at(20)).await.expect("readable");
    assert_eq!(
        census,
        Census {
            grants: vec![(integration("main"), "activating".to_owned(), 2)],
            owned: 2,
            blocked: 1,
            overdue: 2,
            oldest_overdue: Some(at(15)),
            late: Vec::new(),
            removals: vec![Removals {
                integration: integration("main"),
                owned: 2,
                blocked: 1,
                overdue: 2,
                oldest: Some(at(15)),
            }],
            open_reviews: Vec::new(),
        }
    );
    // What is being revoked is old since its end, also while a pause puts the next try into the future.
    let mut record = ledger.member(&key(user("2"))).await.expect("readable");
    for grant in &mut record.grants {
        assert!(grant.begin_revoke(EndCause::MemberLeft, at(7)));
        grant.version += 1;
    }
    record.due = Some(due(500, DueKind::Remove, 5));
    ledger.commit(commit(record)).await.expect("committed");
    let census = ledger.census(at(20)).await.expect("readable");
    assert_eq!(census.oldest_overdue, Some(at(15)));
    assert_eq!(census.removals[0].oldest, Some(at(7)));
}

/// A grant of a member that is active until `end`.
fn ending(n: u8, subject: Subject, end: i64) -> Grant {
    let mut grant = grant(n, subject);
    grant.state = GrantState::Active {
        activated_at: at(0),
        expires_at: at(end),
    };
    grant
}

async fn ends_are_counted_by_second_and_once_for_each_member(ledger: AnyLedger) {
    create(&ledger, ending(1, user("1"), 100)).await;
    create(&ledger, ending(2, user("1"), 100)).await;
    create(&ledger, ending(3, user("2"), 100)).await;
    create(&ledger, ending(4, user("3"), 101)).await;
    // It ends an hour after it began, and that is a millisecond into its second.
    let mut activating = grant(5, user("4"));
    activating.state = GrantState::Activating {
        since: at(-3499) + TimeDelta::milliseconds(1),
        must_end_by: None,
    };
    create(&ledger, activating).await;
    // Nobody knows yet when this one's clock begins.
    let mut waiting = grant(6, invitee("ada@example.com"));
    waiting.state = GrantState::AwaitingMember {
        invited_at: at(0),
        lapses_at: at(100),
    };
    create(&ledger, waiting).await;
    let mut elsewhere = ending(7, user("1"), 100);
    elsewhere.integration = integration("other");
    create(&ledger, elsewhere).await;

    let main = integration("main");
    let count = |from: i64, until: i64| {
        let (ledger, main) = (&ledger, &main);
        async move {
            ledger
                .endings(main, at(from), at(until))
                .await
                .expect("readable")
        }
    };
    assert_eq!(count(0, 200).await, [(at(100), 2), (at(101), 2)]);
    assert_eq!(count(101, 102).await, [(at(101), 2)]);
    assert_eq!(count(0, 100).await, []);
    assert_eq!(count(102, 500).await, []);
}

async fn what_need_not_be_removed_any_more_does_not_end(ledger: AnyLedger) {
    let main = integration("main");
    let created = create(&ledger, ending(1, user("1"), 100)).await;
    let endings = || {
        let (ledger, main) = (&ledger, &main);
        async move {
            ledger
                .endings(main, at(0), at(1_000))
                .await
                .expect("readable")
        }
    };
    assert_eq!(endings().await, [(at(100), 1)]);
    // Extended: it moves.
    let mut record = ledger.member(&key(user("1"))).await.expect("readable");
    record.grants[0].state = GrantState::Active {
        activated_at: at(0),
        expires_at: at(300),
    };
    record.grants[0].version += 1;
    ledger.commit(commit(record)).await.expect("committed");
    assert_eq!(endings().await, [(at(300), 1)]);
    // Due and waiting: it counts from when it was due.
    let mut record = ledger.member(&key(user("1"))).await.expect("readable");
    record.grants[0].state = GrantState::Revoking {
        since: at(300),
        cause: EndCause::Expired,
    };
    record.grants[0].version += 1;
    ledger.commit(commit(record)).await.expect("committed");
    assert_eq!(endings().await, [(at(300), 1)]);
    // Its removal was sent.
    let mut record = ledger.member(&key(user("1"))).await.expect("readable");
    record.grants[0].removal_sent_at = Some(at(301));
    record.grants[0].version += 1;
    ledger.commit(commit(record)).await.expect("committed");
    assert_eq!(endings().await, []);
    drop(created);
}
