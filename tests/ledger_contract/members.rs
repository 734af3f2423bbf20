//! The member aggregate: compare and swap, what leaves it, and the move of an invitee.

use latchkey::domain::grant::{EndCause, GrantState};
use latchkey::domain::ids::OrganizationId;
use latchkey::domain::member::{Backoff, Blocked, DueKind, MemberRecord};
use latchkey::ports::ledger::{Accepted, GrantFilter, LedgerError};
use tokio::task::JoinSet;

use crate::support::*;

on_every_ledger!(
    an_unknown_member_is_empty_at_version_zero,
    a_record_comes_back_as_it_was_stored,
    a_commit_on_a_stale_version_has_no_effect,
    a_grant_accepted_meanwhile_makes_a_commit_lose,
    ended_grants_leave_the_aggregate_and_stay_found,
    versions_of_grants_rise_with_every_change_and_only_then,
    a_grant_left_out_of_a_commit_is_not_lost,
    a_grant_never_leaves_revoking_but_as_ended,
    rekey_moves_everything_or_nothing,
    a_rekey_that_would_leave_a_grant_behind_is_refused,
    compare_and_swap_holds_under_a_hundred_writers,
    an_organization_belongs_to_one_integration,
    a_closed_ledger_refuses,
);

async fn an_unknown_member_is_empty_at_version_zero(ledger: AnyLedger) {
    let record = ledger.member(&key(user("1"))).await.expect("readable");
    assert_eq!(record, MemberRecord::new(key(user("1"))));
}

async fn a_record_comes_back_as_it_was_stored(ledger: AnyLedger) {
    let mut record = MemberRecord::new(key(user("1")));
    record.member_since = Some(at(1));
    record.owned = vec![owned(deployment("a")), owned(deployment("b"))];
    record.owned[1].blocked = Some(Blocked {
        code: "last_owner".to_owned(),
        since: at(1),
        retry_at: at(2),
        refusals: 3,
    });
    record.backoff = Some(Backoff {
        failures: 2,
        until: at(9),
        code: "timeout".to_owned(),
    });
    record.due = Some(due(30, DueKind::Verify, 7));
    record.grants = vec![grant(1, user("1")), grant(2, user("1"))];
    assert_eq!(
        ledger
            .commit(commit(record.clone()))
            .await
            .expect("committed"),
        1
    );
    record.version = 1;
    assert_eq!(
        ledger.member(&key(user("1"))).await.expect("readable"),
        record
    );
}

async fn a_commit_on_a_stale_version_has_no_effect(ledger: AnyLedger) {
    create(&ledger, grant(1, user("1"))).await;
    let stale = ledger.member(&key(user("1"))).await.expect("readable");
    ledger
        .commit(commit(stale.clone()))
        .await
        .expect("committed");
    let mut late = stale.clone();
    end_all(&mut late, 10);
    let mut late = commit(late);
    late.audit = vec![lifecycle("never")];
    assert!(matches!(
        ledger.commit(late).await,
        Err(LedgerError::Conflict { key: lost }) if lost == key(user("1"))
    ));
    let now = ledger.member(&key(user("1"))).await.expect("readable");
    assert_eq!((now.version, now.grants.len()), (2, 1));
    assert_eq!(ledger.last_sequence().await.expect("readable"), 1);
    let unborn = MemberRecord::new(key(user("1")));
    assert!(matches!(
        ledger.commit(commit(unborn)).await,
        Err(LedgerError::Conflict { .. })
    ));
}

async fn a_grant_accepted_meanwhile_makes_a_commit_lose(ledger: AnyLedger) {
    create(&ledger, grant(1, user("1"))).await;
    let loaded = ledger.member(&key(user("1"))).await.expect("readable");
    create(&ledger, grant(2, user("1"))).await;
    assert!(matches!(
        ledger.commit(commit(loaded)).await,
        Err(LedgerError::Conflict { .. })
    ));
    let now = ledger.member(&key(user("1"))).await.expect("readable");
    assert_eq!(now.grants.len(), 2);
}

async fn ended_grants_leave_the_aggregate_and_stay_found(ledger: AnyLedger) {
    let first = create(&ledger, grant(1, user("1"))).await;
    let second = create(&ledger, grant(2, user("1"))).await;
    let mut record = ledger.member(&key(user("1"))).await.expect("readable");
    record.grants[0].state = GrantState::Ended {
        at: at(10),
        cause: EndCause::Lapsed,
    };
    assert_eq!(ledger.commit(commit(record)).await.expect("committed"), 3);
    let now = ledger.member(&key(user("1"))).await.expect("readable");
    assert_eq!(
        now.grants.iter().map(|grant| grant.id).collect::<Vec<_>>(),
        [second.id]
    );
    let ended = ledger.grant(first.id).await.expect("readable");
    assert!(ended.expect("still found").state.is_ended());
}

async fn versions_of_grants_rise_with_every_change_and_only_then(ledger: AnyLedger) {
    create(&ledger, grant(1, user("1"))).await;
    create(&ledger, grant(2, user("1"))).await;
    let mut record = ledger.member(&key(user("1"))).await.expect("readable");
    // One was raised by who changed it, one was not: both end up at 2. The third commit changes nothing.
    record.grants[0].attempts = 1;
    record.grants[1].attempts = 1;
    record.grants[1].version = 2;
    ledger.commit(commit(record)).await.expect("committed");
    let record = ledger.member(&key(user("1"))).await.expect("readable");
    ledger.commit(commit(record)).await.expect("committed");
    let record = ledger.member(&key(user("1"))).await.expect("readable");
    assert_eq!(
        record
            .grants
            .iter()
            .map(|grant| grant.version)
            .collect::<Vec<_>>(),
        [2, 2]
    );
}

async fn a_grant_left_out_of_a_commit_is_not_lost(ledger: AnyLedger) {
    create(&ledger, grant(1, user("1"))).await;
    let mut record = ledger.member(&key(user("1"))).await.expect("readable");
    record.grants.clear();
    ledger.commit(commit(record)).await.expect("committed");
    let now = ledger.member(&key(user("1"))).await.expect("readable");
    assert_eq!(now.grants.len(), 1);
}

async fn a_grant_never_leaves_revoking_but_as_ended(ledger: AnyLedger) {
    create(&ledger, grant(1, user("1"))).await;
    let mut record = ledger.member(&key(user("1"))).await.expect("readable");
    record.grants[0].state = GrantState::Revoking {
        since: at(5),
        cause: EndCause::Expired,
    };
    ledger.commit(commit(record)).await.expect("committed");
    let mut record = ledger.member(&key(user("1"))).await.expect("readable");
    record.grants[0].state = GrantState::Active {
        activated_at: at(1),
        expires_at: at(100),
    };
    assert!(matches!(
        ledger.commit(commit(record.clone())).await,
        Err(LedgerError::Unavailable { .. })
    ));
    let now = ledger.member(&key(user("1"))).await.expect("readable");
    assert_eq!((now.version, now.grants[0].state.name()), (2, "revoking"));
    end_all(&mut record, 10);
    let ended = record.clone();
    ledger.commit(commit(record)).await.expect("committed");
    let mut back = ended;
    back.version = 3;
    back.grants[0].state = GrantState::Revoking {
        since: at(5),
        cause: EndCause::Expired,
    };
    assert!(matches!(
        ledger.commit(commit(back)).await,
        Err(LedgerError::Unavailable { .. })
    ));
}

async fn rekey_moves_everything_or_nothing(ledger: AnyLedger) {
    let waiting = invitee("ada@example.com");
    let first = create(&ledger, grant(1, waiting.clone())).await;
    create(&ledger, grant(2, user("1"))).await;
    let from = ledger
        .member(&key(waiting.clone()))
        .await
        .expect("readable");
    let into = ledger.member(&key(user("1"))).await.expect("readable");

    // The member changed meanwhile: the invitee keeps its grant and its version.
    let mut stale = into.clone();
    stale.version = 7;
    assert!(matches!(
        ledger.rekey(from.clone(), commit(stale)).await,
        Err(LedgerError::Conflict { key: lost }) if lost == key(user("1"))
    ));
    assert_eq!(
        ledger
            .member(&key(waiting.clone()))
            .await
            .expect("readable"),
        from
    );

    let mut join = commit(into);
    join.record.due = Some(due(3, DueKind::Grant, 1));
    join.audit = vec![lifecycle("joined")];
    assert_eq!(
        ledger
            .rekey(from.clone(), join.clone())
            .await
            .expect("moved"),
        2
    );
    let left = ledger
        .member(&key(waiting.clone()))
        .await
        .expect("readable");
    assert!(left.is_quiet() && left.due.is_none(), "{left:?}");
    assert_eq!(left.version, from.version + 1);
    let now = ledger.member(&key(user("1"))).await.expect("readable");
    assert_eq!(now.grants.len(), 2);
    assert!(now.grants.iter().all(|grant| grant.subject == user("1")));
    let moved = ledger
        .grant(first.id)
        .await
        .expect("readable")
        .expect("found");
    assert_eq!((moved.subject, moved.version), (user("1"), 2));

    // Twice is once: the invitee is not at that version any more.
    join.record.version = 2;
    assert!(matches!(
        ledger.rekey(from, join).await,
        Err(LedgerError::Conflict { .. })
    ));
}

async fn a_rekey_that_would_leave_a_grant_behind_is_refused(ledger: AnyLedger) {
    let waiting = invitee("ada@example.com");
    create(&ledger, grant(1, waiting.clone())).await;
    let mut from = ledger
        .member(&key(waiting.clone()))
        .await
        .expect("readable");
    from.grants.clear();
    let into = MemberRecord::new(key(user("1")));
    assert!(matches!(
        ledger.rekey(from, commit(into)).await,
        Err(LedgerError::Unavailable { .. })
    ));
    let left = ledger.member(&key(waiting)).await.expect("readable");
    assert_eq!((left.version, left.grants.len()), (1, 1));
}

async fn compare_and_swap_holds_under_a_hundred_writers(ledger: AnyLedger) {
    create(&ledger, grant(1, user("1"))).await;
    let mut writers = JoinSet::new();
    for _ in 0..100 {
        let ledger = ledger.clone();
        writers.spawn(async move {
            let mut losses = 0_u32;
            loop {
                let mut record = ledger.member(&key(user("1"))).await.expect("readable");
                record.grants[0].attempts += 1;
                match ledger.commit(commit(record)).await {
                    Ok(_) => return losses,
                    Err(LedgerError::Conflict { .. }) => losses += 1,
                    Err(other) => panic!("{other}"),
                }
            }
        });
    }
    writers.join_all().await;
    let record = ledger.member(&key(user("1"))).await.expect("readable");
    assert_eq!((record.grants[0].attempts, record.version), (100, 101));
    let listed = ledger.list_grants(&GrantFilter::default(), None, 10).await;
    assert_eq!(listed.expect("readable").items.len(), 1);
}

async fn an_organization_belongs_to_one_integration(ledger: AnyLedger) {
    let (first, second) = (
        OrganizationId::parse("100").expect("valid"),
        OrganizationId::parse("200").expect("valid"),
    );
    for _ in 0..2 {
        ledger
            .claim_organization(&integration("main"), &first)
            .await
            .expect("claimed, and once more by its owner");
    }
    let taken = ledger
        .claim_organization(&integration("other"), &first)
        .await;
    assert!(matches!(
        taken,
        Err(LedgerError::OrganizationTaken { ref organization, ref owner })
            if *organization == first && *owner == integration("main")
    ));
    // An integration keeps its organization: a key of another organization is a mistake.
    let moved = ledger
        .claim_organization(&integration("main"), &second)
        .await;
    assert!(matches!(
        moved,
        Err(LedgerError::OrganizationTaken { ref organization, .. }) if *organization == first
    ));
    ledger
        .claim_organization(&integration("other"), &second)
        .await
        .expect("still free");
}

async fn a_closed_ledger_refuses(ledger: AnyLedger) {
    ledger.check().await.expect("writable");
    ledger.close().await;
    ledger.close().await;
    assert!(ledger.check().await.is_err());
    assert!(matches!(
        ledger.accept(accept(grant(1, user("1")))).await,
        Err(LedgerError::Unavailable { .. })
    ));
    assert!(matches!(
        ledger.member(&key(user("1"))).await,
        Err(LedgerError::Unavailable { .. })
    ));
    let created = ledger.accept(accept(grant(2, user("1")))).await;
    assert!(!matches!(created, Ok(Accepted::Created(_))));
}
