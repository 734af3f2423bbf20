//! Signed texts that are used once, and the reviews of emergency grants.

use latchkey::domain::authority::{Approval, Authority, BreakGlass, Closing, Review};
use latchkey::domain::grant::Grant;
use latchkey::ports::ledger::Accepted;
use tokio::task::JoinSet;

use crate::support::*;

on_every_ledger!(
    a_token_is_used_by_one_grant_and_a_repeat_of_its_request_is_no_second_use,
    concurrent_uses_of_one_token_are_one_grant,
    each_approval_of_a_grant_is_used_up,
    a_used_token_is_remembered_until_it_has_long_expired,
    an_emergency_grant_owes_a_review_until_it_is_closed_once,
    reviews_are_listed_newest_first_in_pages,
    a_used_token_is_known_before_anything_is_accepted_with_it,
    open_reviews_are_counted_by_integration,
    a_restored_review_uses_its_token_up_and_changes_nothing_that_is_there,
);

fn approval(token: &str) -> Approval {
    Approval {
        approver: "bob".to_owned(),
        person: "bob@example.com".to_owned(),
        id: format!("id of {token}"),
        token: token.to_owned(),
        until: at(1_000),
    }
}

fn approved(n: u8, tokens: &[&str]) -> Grant {
    let mut grant = grant(n, user("1"));
    grant.authority = Some(Box::new(Authority {
        approvals: tokens.iter().map(|token| approval(token)).collect(),
        break_glass: None,
    }));
    grant
}

fn emergency(n: u8, token: &str) -> Grant {
    let mut grant = grant(n, user("1"));
    grant.authority = Some(Box::new(Authority {
        approvals: Vec::new(),
        break_glass: Some(BreakGlass {
            key: "safe".to_owned(),
            id: format!("id of {token}"),
            token: token.to_owned(),
            reason: "the plane is gone".to_owned(),
            until: at(1_000),
        }),
    }));
    grant
}

fn closing() -> Closing {
    Closing {
        at: at(60),
        by: "bob".to_owned(),
        caller: caller("ops"),
        note: "looked".to_owned(),
    }
}

async fn a_token_is_used_by_one_grant_and_a_repeat_of_its_request_is_no_second_use(
    ledger: AnyLedger,
) {
    let first = create(&ledger, emergency(1, "t")).await;
    let stored = ledger.grant(first.id).await.expect("readable");
    assert_eq!(stored.as_ref(), Some(&first), "what it rests on is kept");
    let again = ledger.accept(accept(first.clone())).await;
    assert!(matches!(again, Ok(Accepted::Replayed(_))), "{again:?}");
    let other = emergency(2, "t");
    let refused = ledger.accept(accept(other.clone())).await;
    assert!(
        matches!(&refused, Ok(Accepted::TokenUsed(token)) if token == "t"),
        "{refused:?}"
    );
    assert_eq!(ledger.grant(other.id).await.expect("readable"), None);
    let known = ledger.find_request(&other.caller, &other.request_id).await;
    assert_eq!(known.expect("readable"), None, "its request id stays free");
    assert_eq!(ledger.last_sequence().await.expect("readable"), 1);
}

async fn concurrent_uses_of_one_token_are_one_grant(ledger: AnyLedger) {
    let mut racing = JoinSet::new();
    for n in 0..20 {
        let ledger = ledger.clone();
        racing.spawn(async move { ledger.accept(accept(emergency(n, "t"))).await });
    }
    let outcomes = racing.join_all().await;
    let created = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(Accepted::Created(_))));
    assert_eq!(created.count(), 1);
    let refused = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(Accepted::TokenUsed(_))));
    assert_eq!(refused.count(), 19);
}

async fn each_approval_of_a_grant_is_used_up(ledger: AnyLedger) {
    create(&ledger, approved(1, &["a", "b"])).await;
    for (n, tokens) in [(2, ["c", "b"]), (3, ["a", "c"])] {
        let refused = ledger.accept(accept(approved(n, &tokens))).await;
        assert!(matches!(refused, Ok(Accepted::TokenUsed(_))), "{refused:?}");
    }
    create(&ledger, approved(4, &["c"])).await;
    let reviews = ledger.reviews(false, None, 10).await.expect("readable");
    assert!(reviews.items.is_empty(), "approvals owe no review");
}

async fn a_used_token_is_remembered_until_it_has_long_expired(ledger: AnyLedger) {
    const MONTH: i64 = 30 * 24 * 3600;
    create(&ledger, approved(1, &["t"])).await;
    ledger
        .prune(at(1_000 + MONTH), at(0), 100)
        .await
        .expect("pruned");
    let refused = ledger.accept(accept(approved(2, &["t"]))).await;
    assert!(matches!(refused, Ok(Accepted::TokenUsed(_))), "{refused:?}");
    ledger
        .prune(at(1_001 + MONTH), at(0), 100)
        .await
        .expect("pruned");
    create(&ledger, approved(2, &["t"])).await;
}

async fn an_emergency_grant_owes_a_review_until_it_is_closed_once(ledger: AnyLedger) {
    let grant = create(&ledger, emergency(1, "t")).await;
    let review = ledger.review(grant.id).await.expect("readable");
    let review = review.expect("owed");
    assert_eq!(review.closed, None);
    assert_eq!(review.used.reason, "the plane is gone");
    let before = ledger.last_sequence().await.expect("readable");
    let closed = ledger.close_review(grant.id, closing(), vec![lifecycle("closed")]);
    assert!(closed.await.expect("written"));
    let twice = Closing {
        by: "cy".to_owned(),
        ..closing()
    };
    let again = ledger.close_review(grant.id, twice, vec![lifecycle("again")]);
    assert!(!again.await.expect("written"));
    assert_eq!(ledger.last_sequence().await.expect("readable"), before + 1);
    let review = ledger.review(grant.id).await.expect("readable");
    assert_eq!(
        review.expect("kept").closed,
        Some(closing()),
        "the first one"
    );
    let open = ledger.reviews(true, None, 10).await.expect("readable");
    assert!(open.items.is_empty());
    let unknown = ledger.close_review(approved(9, &[]).id, closing(), Vec::new());
    assert!(!unknown.await.expect("written"));
}

async fn reviews_are_listed_newest_first_in_pages(ledger: AnyLedger) {
    let mut ids = Vec::new();
    for n in 1..=3 {
        ids.push(create(&ledger, emergency(n, &format!("t{n}"))).await.id);
    }
    ids.reverse();
    ledger
        .close_review(ids[1], closing(), Vec::new())
        .await
        .expect("written");
    let page = ledger.reviews(false, None, 2).await.expect("readable");
    let listed: Vec<_> = page.items.iter().map(|review| review.grant_id).collect();
    assert_eq!(listed, ids[..2]);
    let rest = ledger.reviews(false, page.next, 2).await.expect("readable");
    assert_eq!(rest.items.len(), 1);
    assert_eq!((rest.items[0].grant_id, rest.next), (ids[2], None));
    let open = ledger.reviews(true, None, 10).await.expect("readable");
    let listed: Vec<_> = open.items.iter().map(|review| review.grant_id).collect();
    assert_eq!(listed, [ids[0], ids[2]]);
}

async fn a_used_token_is_known_before_anything_is_accepted_with_it(ledger: AnyLedger) {
    create(&ledger, emergency(1, "t")).await;
    create(&ledger, approved(2, &["a", "b"])).await;
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    for (asked, found) in [
        (names(&[]), None),
        (names(&["c"]), None),
        (names(&["t"]), Some("t")),
        (names(&["c", "b", "a"]), Some("b")),
    ] {
        let used = ledger.used(&asked).await.expect("readable");
        assert_eq!(used.as_deref(), found, "{asked:?}");
    }
}

async fn open_reviews_are_counted_by_integration(ledger: AnyLedger) {
    let first = create(&ledger, emergency(1, "t1")).await;
    create(&ledger, emergency(2, "t2")).await;
    let count = async || ledger.census(at(0)).await.expect("readable").open_reviews;
    assert_eq!(count().await, [(integration("main"), 2)]);
    ledger
        .close_review(first.id, closing(), Vec::new())
        .await
        .expect("written");
    assert_eq!(count().await, [(integration("main"), 1)]);
}

async fn a_restored_review_uses_its_token_up_and_changes_nothing_that_is_there(ledger: AnyLedger) {
    let lost = Review::owed(&emergency(1, "t")).expect("owed");
    ledger.restore_review(lost.clone()).await.expect("written");
    let found = ledger.review(lost.grant_id).await.expect("readable");
    assert_eq!(found.as_ref(), Some(&lost));
    let refused = ledger.accept(accept(emergency(2, "t"))).await;
    assert!(
        matches!(&refused, Ok(Accepted::TokenUsed(token)) if token == "t"),
        "{refused:?}"
    );
    ledger
        .close_review(lost.grant_id, closing(), Vec::new())
        .await
        .expect("written");
    ledger.restore_review(lost.clone()).await.expect("written");
    let found = ledger.review(lost.grant_id).await.expect("readable");
    assert_eq!(found.expect("kept").closed, Some(closing()), "as it stood");
}
