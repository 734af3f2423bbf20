//! What a search for drift asks: who is there, how each should look, and whether anything was written.

use std::collections::BTreeSet;

use latchkey::domain::grant::{Certainty, GrantState, Holding};
use latchkey::domain::ids::UserId;
use latchkey::domain::member::{LastSeen, MemberRecord};
use latchkey::domain::sight::Settled;
use latchkey::ports::ledger::{Page, Sighted};

use crate::support::*;

on_every_ledger!(
    a_settled_member_is_listed_with_its_sight_and_others_without,
    a_sight_goes_with_the_next_grant_and_with_the_first_doubt,
    sights_come_in_the_order_and_the_pages_of_the_members,
    the_version_of_a_member_is_that_of_its_record,
    a_stamp_changes_with_every_write_to_a_member_and_with_nothing_else,
);

fn id(name: &str) -> UserId {
    UserId::parse(name).expect("valid")
}

/// Accepts grant `n` of a member and stores it as active, owned and seen.
async fn settle(ledger: &AnyLedger, n: u8, name: &str) -> MemberRecord {
    create(ledger, grant(n, user(name))).await;
    let mut record = ledger.member(&key(user(name))).await.expect("readable");
    record.member_since = Some(at(-100));
    for grant in &mut record.grants {
        grant.state = GrantState::Active {
            activated_at: at(10),
            expires_at: at(3600 + i64::from(n)),
        };
        grant.certainty = Certainty::Verified;
        grant.assignments[0].holding = Holding::Owned;
    }
    let mut row = owned(deployment("a"));
    row.seen = true;
    record.owned = vec![row];
    record.last_seen = Some(LastSeen {
        at: at(10),
        assignments: BTreeSet::from([assignment(deployment("a")), assignment(deployment("b"))]),
    });
    ledger.commit(commit(record)).await.expect("committed");
    ledger.member(&key(user(name))).await.expect("readable")
}

async fn listed(ledger: &AnyLedger) -> Vec<Sighted> {
    let page = ledger.sights(&integration("main"), None, 100).await;
    page.expect("readable").items
}

async fn a_settled_member_is_listed_with_its_sight_and_others_without(ledger: AnyLedger) {
    let record = settle(&ledger, 1, "1").await;
    create(&ledger, grant(2, user("2"))).await;
    create(&ledger, grant(3, invitee("ada@example.com"))).await;
    let settled = Settled::of(&record).expect("nothing is left to find out");
    assert_eq!(settled.until, at(3601));
    assert_eq!(
        listed(&ledger).await,
        [
            Sighted {
                user: id("1"),
                settled: Some(settled)
            },
            Sighted {
                user: id("2"),
                settled: None
            }
        ]
    );
}

async fn a_sight_goes_with_the_next_grant_and_with_the_first_doubt(ledger: AnyLedger) {
    settle(&ledger, 1, "1").await;
    let record = settle(&ledger, 2, "2").await;
    assert!(
        listed(&ledger)
            .await
            .iter()
            .all(|one| one.settled.is_some())
    );
    create(&ledger, grant(3, user("1"))).await;
    let mut doubtful = record;
    doubtful.check_at = Some(at(60));
    ledger.commit(commit(doubtful)).await.expect("committed");
    let listed = listed(&ledger).await;
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|one| one.settled.is_none()), "{listed:?}");
}

async fn sights_come_in_the_order_and_the_pages_of_the_members(ledger: AnyLedger) {
    for (n, name) in [(1, "3"), (2, "10"), (3, "2"), (4, "1")] {
        settle(&ledger, n, name).await;
    }
    create(&ledger, grant(5, user("4"))).await;
    let mut gone = settle(&ledger, 6, "5").await;
    end_all(&mut gone, 20);
    gone.owned.clear();
    ledger.commit(commit(gone)).await.expect("committed");
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let name = integration("main");
        let Page { items, next } = ledger
            .sights(&name, after.as_ref(), 2)
            .await
            .expect("readable");
        let members = ledger.members(&name, after.as_ref(), 2).await;
        let members = members.expect("readable");
        assert_eq!(members.next, next);
        assert_eq!(members.items.len(), items.len());
        seen.extend(items.into_iter().map(|one| one.user.to_string()));
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, ["1", "10", "2", "3", "4"]);
}

async fn the_version_of_a_member_is_that_of_its_record(ledger: AnyLedger) {
    let key = key(user("1"));
    assert_eq!(ledger.version(&key).await.expect("readable"), 0);
    let record = settle(&ledger, 1, "1").await;
    assert_eq!(record.version, 2);
    assert_eq!(ledger.version(&key).await.expect("readable"), 2);
}

async fn a_stamp_changes_with_every_write_to_a_member_and_with_nothing_else(ledger: AnyLedger) {
    let Some(mut before) = ledger.stamp() else {
        // It says so where it cannot tell.
        return;
    };
    for n in 1..4 {
        settle(&ledger, n, &n.to_string()).await;
        let now = ledger.stamp().expect("it could tell before");
        assert_ne!(now, before);
        listed(&ledger).await;
        ledger.census(at(0)).await.expect("readable");
        assert_eq!(ledger.stamp(), Some(now));
        before = now;
    }
    ledger
        .append(vec![lifecycle("told")])
        .await
        .expect("written");
    ledger.check().await.expect("writable");
    assert_eq!(ledger.stamp(), Some(before), "nothing is due by that");
}
