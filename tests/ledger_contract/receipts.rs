//! Receipts, late removals and forgotten access: stored with their commit, listed in order, pruned with their grants.

use latchkey::domain::evidence::Forgotten;
use latchkey::domain::grant::{EndCause, Grant, GrantState};
use latchkey::domain::member::{MemberRecord, Phase};
use latchkey::domain::receipt::{Fate, Line, Look, Receipt, Trail};
use latchkey::ports::ledger::{LedgerError, ReceiptCursor, ReceiptFilter};

use crate::support::*;

on_every_ledger!(
    a_receipt_is_stored_with_its_commit_and_replaced_by_the_next,
    a_refused_commit_leaves_no_receipt,
    receipts_are_listed_by_end_and_filtered_by_every_field,
    a_receipt_goes_with_its_grant,
    late_removals_are_listed_whatever_was_tried,
    removals_behind_something_less_urgent_are_listed,
    forgotten_access_is_found_again,
    the_census_counts_what_is_late,
);

fn receipt_of(grant: &Grant, ended: i64, open: bool) -> Receipt {
    let mut trail = Trail::new(assignment(deployment("a")));
    trail.look = if open {
        Look::Owed {
            from: at(ended + 30),
        }
    } else {
        Look::Done { at: at(ended + 40) }
    };
    Receipt {
        grant_id: grant.id,
        integration: grant.integration.clone(),
        subject: grant.subject.clone(),
        caller: grant.caller.clone(),
        request_id: grant.request_id.clone(),
        beneficiary: grant.beneficiary.clone(),
        requester: String::new(),
        justification: String::new(),
        duration: grant.duration,
        starts_at: None,
        not_after: None,
        created_at: grant.created_at,
        verified_at: None,
        extensions: 0,
        due_at: Some(at(ended - 1)),
        ended_at: at(ended),
        cause: EndCause::Expired,
        before: None,
        after: None,
        lines: vec![Line {
            fate: Fate::Removed,
            trail,
        }],
        membership_outlives: false,
        externally_modified: false,
    }
}

/// Ends the one grant of a member with a receipt.
async fn end(ledger: &AnyLedger, made: &Grant, ended: i64, open: bool) {
    let mut record = ledger
        .member(&key(made.subject.clone()))
        .await
        .expect("readable");
    end_all(&mut record, ended);
    record.evidence.outbox.push(receipt_of(made, ended, open));
    ledger.commit(commit(record)).await.expect("committed");
}

async fn a_receipt_is_stored_with_its_commit_and_replaced_by_the_next(ledger: AnyLedger) {
    let made = create(&ledger, grant(1, user("1"))).await;
    assert_eq!(ledger.receipt(made.id).await.expect("readable"), None);
    end(&ledger, &made, 100, true).await;
    let stored = ledger.receipt(made.id).await.expect("readable");
    assert_eq!(stored, Some(receipt_of(&made, 100, true)));
    let mut record = ledger.member(&key(user("1"))).await.expect("readable");
    assert!(record.evidence.outbox.is_empty(), "it left the aggregate");
    record.evidence.outbox.push(receipt_of(&made, 100, false));
    ledger.commit(commit(record)).await.expect("committed");
    let stored = ledger.receipt(made.id).await.expect("readable");
    assert_eq!(stored, Some(receipt_of(&made, 100, false)));
}

async fn a_refused_commit_leaves_no_receipt(ledger: AnyLedger) {
    let made = create(&ledger, grant(1, user("1"))).await;
    let mut record = ledger.member(&key(user("1"))).await.expect("readable");
    record.version += 1;
    record.evidence.outbox.push(receipt_of(&made, 100, true));
    let refused = ledger.commit(commit(record)).await;
    assert!(matches!(refused, Err(LedgerError::Conflict { .. })));
    assert_eq!(ledger.receipt(made.id).await.expect("readable"), None);
}

async fn receipts_are_listed_by_end_and_filtered_by_every_field(ledger: AnyLedger) {
    for n in 1..=9_u8 {
        let mut one = grant(n, user(&n.to_string()));
        if n == 2 {
            one.beneficiary = "Ada@Example.com".to_owned();
        }
        if n == 3 {
            one.caller = caller("local");
        }
        let made = create(&ledger, one).await;
        // Two by two at one instant, later ids first.
        end(&ledger, &made, 100 + i64::from(n / 2), n == 4).await;
    }
    let numbers = |receipts: &[Receipt]| -> Vec<String> {
        receipts
            .iter()
            .map(|one| one.request_id.to_string())
            .collect()
    };
    for limit in [1, 2, 4, 9, 20] {
        let (mut seen, mut before): (Vec<String>, Option<ReceiptCursor>) = (Vec::new(), None);
        loop {
            let page = ledger
                .list_receipts(&ReceiptFilter::default(), before, limit)
                .await
                .expect("readable");
            seen.extend(numbers(&page.items));
            match page.next {
                Some(next) => before = Some(next),
                None => break,
            }
        }
        let all: Vec<String> = (1..=9).rev().map(|n| format!("r{n}")).collect();
        assert_eq!(seen, all, "{limit} a page");
    }
    let none = ReceiptFilter::default;
    for (filter, expected) in [
        (
            ReceiptFilter {
                caller: Some(caller("local")),
                ..none()
            },
            vec!["r3"],
        ),
        (
            ReceiptFilter {
                subject: Some("ada@example.COM".to_owned()),
                ..none()
            },
            vec!["r2"],
        ),
        (
            ReceiptFilter {
                subject: Some("user:7".to_owned()),
                ..none()
            },
            vec!["r7"],
        ),
        (
            ReceiptFilter {
                integration: Some(integration("other")),
                ..none()
            },
            vec![],
        ),
        (
            ReceiptFilter {
                since: Some(at(103)),
                until: Some(at(104)),
                ..none()
            },
            vec!["r7", "r6"],
        ),
        (
            ReceiptFilter {
                open_only: true,
                ..none()
            },
            vec!["r4"],
        ),
    ] {
        let page = ledger
            .list_receipts(&filter, None, 20)
            .await
            .expect("readable");
        assert_eq!(numbers(&page.items), expected, "{filter:?}");
    }
}

async fn a_receipt_goes_with_its_grant(ledger: AnyLedger) {
    let made = create(&ledger, grant(1, user("1"))).await;
    end(&ledger, &made, 100, false).await;
    // The request id is still remembered: grant and receipt stay.
    ledger.prune(at(10), at(200), 100).await.expect("pruned");
    assert!(ledger.receipt(made.id).await.expect("readable").is_some());
    ledger
        .prune(at(100_000), at(200), 100)
        .await
        .expect("pruned");
    assert_eq!(ledger.grant(made.id).await.expect("readable"), None);
    assert_eq!(ledger.receipt(made.id).await.expect("readable"), None);
}

/// A member whose access is ours and due at an instant.
async fn owning(ledger: &AnyLedger, n: u8, due: i64) -> MemberRecord {
    let made = create(ledger, grant(n, user(&n.to_string()))).await;
    let mut record = ledger.member(&key(made.subject)).await.expect("readable");
    record.owned.push(owned(deployment("a")));
    record.grants[0].state = GrantState::Revoking {
        since: at(due),
        cause: EndCause::Expired,
    };
    // Far away: what a pause after failures does to the queue.
    record.due = Some(latchkey::domain::member::Due {
        at: at(90_000),
        kind: latchkey::domain::member::DueKind::Remove,
        weight: 1,
    });
    ledger.commit(commit(record)).await.expect("committed");
    ledger
        .member(&key(user(&n.to_string())))
        .await
        .expect("readable")
}

async fn late_removals_are_listed_whatever_was_tried(ledger: AnyLedger) {
    for (n, due) in [(1, 300), (2, 100), (3, 200), (4, 100), (5, 5_000)] {
        owning(&ledger, n, due).await;
    }
    let mut gone = owning(&ledger, 6, 50).await;
    gone.owned[0].phase = Phase::Closing {
        gone_at: at(60),
        look_at: at(90),
    };
    ledger.commit(commit(gone)).await.expect("committed");
    let name = integration("main");
    for limit in [1, 2, 3, 10] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = ledger
                .late(&name, at(1_000), after.as_ref(), limit)
                .await
                .expect("readable");
            assert!(page.items.len() <= limit);
            for record in page.items {
                assert_eq!(record.grants.len(), 1, "whole records");
                seen.push(record.key.subject.to_string());
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(
            seen,
            ["user:2", "user:4", "user:3", "user:1"],
            "{limit} a page"
        );
    }
    let other = ledger
        .late(&integration("other"), at(9_999), None, 10)
        .await
        .expect("readable");
    assert!(other.items.is_empty());
}

async fn removals_behind_something_less_urgent_are_listed(ledger: AnyLedger) {
    use latchkey::domain::member::{Due, DueKind};
    let queued = [
        (1, 300, 200, DueKind::Look),
        (2, 100, 900, DueKind::Verify),
        (3, 200, 150, DueKind::Grant),
        // Queued as it should be, not due yet, waiting for later, and not late.
        (4, 100, 100, DueKind::Remove),
        (5, 5_000, 100, DueKind::Look),
        (6, 100, 2_000, DueKind::Look),
    ];
    for (n, removal, at_second, kind) in queued {
        let mut record = owning(&ledger, n, removal).await;
        record.due = Some(Due {
            at: at(at_second),
            kind,
            weight: 7,
        });
        ledger.commit(commit(record)).await.expect("committed");
    }
    let name = integration("main");
    for limit in [1, 2, 10] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = ledger
                .hidden_removals(&name, at(1_000), after.as_ref(), limit)
                .await
                .expect("readable");
            assert!(page.items.len() <= limit);
            seen.extend(
                page.items
                    .into_iter()
                    .map(|found| found.subject.to_string()),
            );
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, ["user:2", "user:3", "user:1"], "{limit} a page");
    }
    let other = ledger
        .hidden_removals(&integration("other"), at(9_999), None, 10)
        .await
        .expect("readable");
    assert!(other.items.is_empty());
}

async fn forgotten_access_is_found_again(ledger: AnyLedger) {
    let name = integration("main");
    for n in ["1", "2"] {
        let mut record = MemberRecord::new(key(user(n)));
        if n == "2" {
            record.evidence.forgotten.push(Forgotten {
                assignment: assignment(deployment("a")),
                at: at(1),
                by: "ada".to_owned(),
                confirmed_by: "grace".to_owned(),
                reason: "gone".to_owned(),
                reported_at: None,
            });
        }
        ledger.commit(commit(record)).await.expect("committed");
    }
    let found = ledger.forgotten(&name).await.expect("readable");
    assert_eq!(found, [key(user("2"))]);
    let mut record = ledger.member(&found[0]).await.expect("readable");
    assert_eq!(record.evidence.forgotten.len(), 1, "it is kept");
    record.evidence.forgotten.clear();
    ledger.commit(commit(record)).await.expect("committed");
    assert_eq!(ledger.forgotten(&name).await.expect("readable"), []);
}

async fn the_census_counts_what_is_late(ledger: AnyLedger) {
    for (n, due) in [(1, 300), (2, 100), (3, 5_000)] {
        owning(&ledger, n, due).await;
    }
    let census = ledger.census(at(330)).await.expect("readable");
    let late: Vec<(u64, i64)> = census
        .late
        .iter()
        .map(|one| (one.members, one.oldest.timestamp()))
        .collect();
    assert_eq!(late, [(1, at(100).timestamp())], "a minute is no lateness");
    let census = ledger.census(at(1_000)).await.expect("readable");
    assert_eq!(census.late.len(), 1, "one integration, one power");
    assert_eq!(census.late[0].members, 2);
    assert_eq!(census.late[0].weight, 20);
}
