//! Starts that may yet be refused: what they leave of a ledger. And starts that find everything done already.

use std::future::{pending, ready};

use super::*;

async fn withheld(path: &Path) {
    match SqliteLedger::open_when(path, Options::default(), ready(false)).await {
        Ok(_) => panic!("the ledger opened"),
        Err(OpenError::Withheld { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

async fn changed(path: &Path, texts: &[&'static str]) {
    let mut conn = direct(path).await;
    for text in texts {
        query(*text).execute(&mut conn).await.expect("changed");
    }
    conn.close().await.expect("closed");
}

#[tokio::test]
async fn nothing_is_made_or_brought_up_to_date_by_a_start_that_may_not_change_it() {
    let (folder, path) = place();
    withheld(&path).await;
    let made = std::fs::read_dir(folder.path()).expect("readable").count();
    assert_eq!(made, 0, "no directory and no file");

    filled(&path, 3).await;
    // As the release before left it, and as a copy may come.
    let older: &[&str] = &[
        "DROP TABLE used_tokens",
        "DROP TABLE reviews",
        "DELETE FROM _sqlx_migrations WHERE version = 15",
    ];
    for texts in [older, &["PRAGMA journal_mode = DELETE"]] {
        changed(&path, texts).await;
        let before = std::fs::read(&path).expect("readable");
        withheld(&path).await;
        assert!(std::fs::read(&path).expect("readable") == before);
        let file = File::open(&path, Options::default()).await;
        file.ledger.identity().await.expect("brought up");
        file.close().await;
    }

    std::fs::write(&path, "").expect("written");
    withheld(&path).await;
    assert_eq!(std::fs::metadata(&path).expect("there").len(), 0);
}

#[tokio::test]
async fn a_ledger_that_is_up_to_date_opens_before_it_is_known_whether_it_may_be_changed() {
    let (_folder, path) = place();
    filled(&path, 3).await;
    let opened = SqliteLedger::open_when(&path, Options::default(), pending()).await;
    let (ledger, run) = opened.expect("nothing to ask for");
    let mut writer = JoinSet::new();
    writer.spawn(run);
    ledger.check().await.expect("writable");
    let census = ledger.census(at(0)).await.expect("counted");
    assert_eq!(census.grants.iter().map(|(_, _, n)| n).sum::<u64>(), 3);
    File { ledger, writer }.close().await;
}

#[tokio::test]
async fn an_organization_that_is_bound_already_is_not_written_again() {
    let (_folder, path) = place();
    let file = File::open(&path, Options::default()).await;
    let organization = OrganizationId::parse("100").expect("valid");
    for _ in 0..3 {
        file.ledger
            .claim_organization(&integration("main"), &organization)
            .await
            .expect("bound");
        assert_eq!(file.ledger.commits(), 1);
    }
    let other = file
        .ledger
        .claim_organization(&integration("other"), &organization)
        .await;
    assert!(matches!(other, Err(LedgerError::OrganizationTaken { .. })));
    file.close().await;
}
