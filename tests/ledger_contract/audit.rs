//! Audit events: in the transaction of their state, in one order, filtered, followed.

use latchkey::domain::event::EventKind;
use latchkey::ports::ledger::{EventFilter, StoredEvent};

use crate::support::*;

on_every_ledger!(
    events_come_in_the_order_of_commits,
    events_are_filtered_by_every_field,
    followers_are_told_after_every_commit_that_wrote_one,
);

fn sequences(events: &[StoredEvent]) -> Vec<u64> {
    events.iter().map(|event| event.sequence).collect()
}

async fn events_come_in_the_order_of_commits(ledger: AnyLedger) {
    assert_eq!(ledger.last_sequence().await.expect("readable"), 0);
    ledger
        .append(vec![lifecycle("a"), lifecycle("b")])
        .await
        .expect("appended");
    let accepted = create(&ledger, grant(1, user("1"))).await;
    ledger.append(Vec::new()).await.expect("nothing to do");
    let mut many = accept(grant(2, user("2")));
    many.audit.push(lifecycle("c"));
    many.audit.push(lifecycle("d"));
    ledger.accept(many).await.expect("accepted");
    let all = ledger.events(&EventFilter::default(), 0, 99).await;
    let all = all.expect("readable");
    assert_eq!(sequences(&all), [1, 2, 3, 4, 5, 6]);
    assert_eq!(all[1].event, lifecycle("b"));
    assert_eq!(all[2].event, event_of(&accepted));
    assert_eq!(all[5].event, lifecycle("d"));
    let some = ledger.events(&EventFilter::default(), 2, 2).await;
    assert_eq!(some.expect("readable"), all[2..4]);
    assert_eq!(ledger.last_sequence().await.expect("readable"), 6);
}

async fn events_are_filtered_by_every_field(ledger: AnyLedger) {
    let first = create(&ledger, grant(1, user("1"))).await;
    let mut second = grant(2, user("2"));
    second.integration = integration("other");
    second.caller = caller("local");
    create(&ledger, second).await;
    let mut joined = event_of(&first);
    joined.kind = EventKind::SecondLook {
        assignment: "x".to_owned(),
    };
    ledger
        .append(vec![lifecycle("started"), joined])
        .await
        .expect("appended");
    let of = EventFilter::default;
    for (filter, expected) in [
        (of(), vec![1, 2, 3, 4]),
        (
            EventFilter {
                caller: Some(caller("local")),
                ..of()
            },
            vec![2],
        ),
        (
            EventFilter {
                integration: Some(integration("main")),
                ..of()
            },
            vec![1, 4],
        ),
        (
            EventFilter {
                grant_id: Some(first.id),
                ..of()
            },
            vec![1, 4],
        ),
        (
            EventFilter {
                kinds: vec!["second_look".to_owned(), "lifecycle".to_owned()],
                ..of()
            },
            vec![3, 4],
        ),
        (
            EventFilter {
                kinds: vec!["second_look".to_owned()],
                caller: Some(caller("local")),
                ..of()
            },
            vec![],
        ),
    ] {
        let found = ledger.events(&filter, 0, 99).await.expect("readable");
        assert_eq!(sequences(&found), expected, "{filter:?}");
    }
}

async fn followers_are_told_after_every_commit_that_wrote_one(ledger: AnyLedger) {
    let mut follower = ledger.changes();
    assert_eq!(*follower.borrow_and_update(), 0);
    create(&ledger, grant(1, user("1"))).await;
    assert!(follower.has_changed().expect("open"));
    assert_eq!(*follower.borrow_and_update(), 1);
    let record = ledger.member(&key(user("1"))).await.expect("readable");
    ledger.commit(commit(record)).await.expect("committed");
    assert!(
        !follower.has_changed().expect("open"),
        "nothing was written"
    );
    ledger
        .append(vec![lifecycle("a"), lifecycle("b")])
        .await
        .expect("appended");
    assert_eq!(*follower.borrow_and_update(), 3);
    assert_eq!(*ledger.changes().borrow(), 3);
}
