//! The counts that the file keeps of itself: they agree with counting.

use super::*;

#[tokio::test]
async fn the_counts_that_the_ledger_keeps_agree_with_counting_after_every_way_of_writing() {
    let (_folder, path) = place();
    let file = File::open(&path, Options::default()).await;
    let ledger: AnyLedger = Arc::new(file.ledger.clone());
    // Enough at a time for the text that holds several, and one of them twice.
    let mut callers = JoinSet::new();
    for n in 0..60_u8 {
        let ledger = file.ledger.clone();
        let one = accept(grant(n % 50, user(&(n % 7).to_string())));
        callers.spawn(async move { ledger.accept(one).await });
    }
    let created = callers
        .join_all()
        .await
        .into_iter()
        .filter(|accepted| matches!(accepted, Ok(Accepted::Created(_))))
        .count();
    assert_eq!(created, 50, "each request id made one grant");
    for n in 0..7 {
        let mut record = ledger
            .member(&key(user(&n.to_string())))
            .await
            .expect("readable");
        for (at, grant) in record.grants.iter_mut().enumerate() {
            grant.version += 1;
            grant.state = if at % 2 == 0 {
                GrantState::Ended {
                    at: grant.created_at,
                    cause: EndCause::Lapsed,
                }
            } else {
                GrantState::Revoking {
                    since: grant.created_at,
                    cause: EndCause::Expired,
                }
            };
        }
        let commit = MemberCommit {
            record,
            audit: Vec::new(),
            request: None,
        };
        ledger.commit(commit).await.expect("stored");
    }
    let kept = ledger.census(at(0)).await.expect("counted");
    drop(ledger);
    file.close().await;
    let mut conn = direct(&path).await;
    let counted: i64 = query("SELECT COUNT(*) FROM grants WHERE state = 'revoking'")
        .fetch_one(&mut conn)
        .await
        .expect("counted")
        .get(0);
    conn.close().await.expect("closed");
    let kept: Vec<(String, u64)> = kept
        .grants
        .into_iter()
        .map(|(_, state, number)| (state, number))
        .collect();
    let counted = u64::try_from(counted).expect("not negative");
    assert!(counted > 0);
    assert_eq!(kept, [("revoking".to_owned(), counted)]);
}

#[tokio::test]
async fn a_ledger_of_before_the_counts_is_counted_once_when_it_is_brought_up() {
    let (_folder, path) = place();
    filled(&path, 9).await;
    let mut conn = direct(&path).await;
    for text in [
        "DROP TRIGGER census_grant_made",
        "DROP TRIGGER census_grant_moved",
        "DROP TRIGGER census_member_made",
        "DROP TRIGGER census_member_changed",
        "DROP TABLE census",
        "DROP INDEX grants_by_state",
        "DELETE FROM _sqlx_migrations WHERE version = 5",
    ] {
        query(text).execute(&mut conn).await.expect("undone");
    }
    conn.close().await.expect("closed");
    let file = File::open(&path, Options::default()).await;
    let census = file.ledger.census(at(0)).await.expect("counted");
    let total: u64 = census.grants.iter().map(|(_, _, number)| number).sum();
    assert_eq!(total, 9);
    file.close().await;
}
