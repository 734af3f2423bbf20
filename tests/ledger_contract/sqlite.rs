//! What only a file can promise: it survives, it is nobody else's, and damage is named.

mod counts;
mod start;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use latchkey::domain::grant::{EndCause, GrantState};
use latchkey::domain::ids::OrganizationId;
use latchkey::domain::member::DueKind;
use latchkey::ports::Ledger;
use latchkey::ports::ledger::{Accepted, EventFilter, GrantFilter, LedgerError, MemberCommit};
use latchkey::store::SqliteLedger;
use latchkey::store::sqlite::{OpenError, Options, bench_bare_commits};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, query};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::*;

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("state").join("ledger.db");
    (folder, path)
}

async fn refused(path: &Path) -> OpenError {
    match SqliteLedger::open(path, Options::default()).await {
        Ok(_) => panic!("the ledger opened"),
        Err(error) => error,
    }
}

async fn direct(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(path)
        .connect()
        .await
        .expect("a connection beside the ledger")
}

async fn filled(path: &Path, grants: u8) {
    let file = File::open(path, Options::default()).await;
    let ledger: AnyLedger = Arc::new(file.ledger.clone());
    for n in 1..=grants {
        create(&ledger, grant(n, user(&n.to_string()))).await;
    }
    file.close().await;
}

#[tokio::test]
async fn what_was_answered_is_there_after_the_process_is_gone() {
    let (_folder, path) = place();
    let mut file = File::open(&path, Options::default()).await;
    let ledger: AnyLedger = Arc::new(file.ledger.clone());
    let accepted = create(&ledger, grant(1, user("1"))).await;
    let record = ledger.member(&key(user("1"))).await.expect("readable");
    // Nothing is closed: the writer is cut off as by a crash.
    file.writer.shutdown().await;
    assert!(ledger.check().await.is_err());
    drop((file, ledger));

    let file = File::open(&path, Options::default()).await;
    assert_eq!(
        file.ledger.grant(accepted.id).await.expect("readable"),
        Some(accepted.clone())
    );
    assert_eq!(
        file.ledger.member(&key(user("1"))).await.expect("readable"),
        record
    );
    assert!(matches!(
        file.ledger.accept(accept(accepted)).await,
        Ok(Accepted::Replayed(_))
    ));
    assert_eq!(*file.ledger.changes().borrow(), 1);
    file.close().await;
}

#[tokio::test]
async fn when_every_handle_is_dropped_the_file_is_let_go_whole() {
    let (_folder, path) = place();
    let File { ledger, mut writer } = File::open(&path, Options::default()).await;
    ledger.check().await.expect("writable");
    drop(ledger);
    writer
        .join_next()
        .await
        .expect("the writer")
        .expect("ends in order");
    assert!(
        !path.with_extension("db-wal").exists(),
        "the log was written back"
    );
    File::open(&path, Options::default()).await.close().await;
}

#[tokio::test]
async fn writes_that_wait_share_a_commit() {
    let (_folder, path) = place();
    let file = File::open(&path, Options::default()).await;
    let mut callers = JoinSet::new();
    for n in 0..200 {
        let ledger = file.ledger.clone();
        callers.spawn(async move { ledger.accept(accept(grant(n, user(&n.to_string())))).await });
    }
    for accepted in callers.join_all().await {
        assert!(matches!(accepted, Ok(Accepted::Created(_))));
    }
    assert_eq!(file.ledger.writes(), 200);
    let commits = file.ledger.commits();
    assert!((1..=50).contains(&commits), "{commits} commits");
    assert_eq!(file.ledger.last_sequence().await.expect("readable"), 200);
    file.close().await;
}

#[tokio::test]
async fn a_write_that_fails_in_a_batch_fails_alone() {
    let (_folder, path) = place();
    let file = File::open(&path, Options::default()).await;
    let mut callers = JoinSet::new();
    for n in 0..40_u8 {
        let ledger = file.ledger.clone();
        let mut one = accept(grant(n, user(&n.to_string())));
        if n % 10 == 3 {
            // No release writes version 0: a constraint refuses it.
            one.grant.version = 0;
        }
        callers.spawn(async move { (n, ledger.accept(one).await) });
    }
    for (n, outcome) in callers.join_all().await {
        match outcome {
            Ok(Accepted::Created(_)) => assert_ne!(n % 10, 3, "{n}"),
            Err(LedgerError::Unavailable { .. }) => assert_eq!(n % 10, 3, "{n}"),
            other => panic!("{n}: {other:?}"),
        }
    }
    let all = file
        .ledger
        .list_grants(&GrantFilter::default(), None, 99)
        .await;
    assert_eq!(all.expect("readable").items.len(), 36);
    assert_eq!(file.ledger.last_sequence().await.expect("readable"), 36);
    file.close().await;
}

#[tokio::test]
async fn a_full_disk_refuses_whole_writes_and_keeps_what_was_accepted() {
    let (_folder, path) = place();
    filled(&path, 1).await;
    let mut options = Options::default();
    options.max_pages = Some(64);
    let file = File::open(&path, options).await;
    let mut accepted = 1;
    let refusal = loop {
        let n = accepted + 1;
        match file
            .ledger
            .accept(accept(grant(n, user(&n.to_string()))))
            .await
        {
            Ok(Accepted::Created(_)) => accepted = n,
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refusal, LedgerError::Unavailable { .. }),
        "{refusal:?}"
    );
    let events = file.ledger.last_sequence().await.expect("readable");
    assert_eq!(events, u64::from(accepted));
    let refused = file
        .ledger
        .member(&key(user(&(accepted + 1).to_string())))
        .await
        .expect("readable");
    assert_eq!((refused.version, refused.grants.len()), (0, 0));
    file.close().await;

    let file = File::open(&path, Options::default()).await;
    let all = file
        .ledger
        .list_grants(&GrantFilter::default(), None, 999)
        .await;
    assert_eq!(all.expect("readable").items.len(), usize::from(accepted));
    file.ledger.check().await.expect("there is room again");
    file.close().await;
}

#[tokio::test]
async fn after_a_commit_that_failed_nothing_is_there_and_the_ledger_is_opened_anew() {
    let (_folder, path) = place();
    let file = File::open(&path, Options::default()).await;
    // A constraint that is checked at COMMIT and no sooner.
    let mut conn = direct(&path).await;
    for text in [
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TRIGGER orphan AFTER INSERT ON events BEGIN INSERT INTO child VALUES (7); END",
    ] {
        query(text).execute(&mut conn).await.expect("prepared");
    }
    let outcome = file.ledger.accept(accept(grant(1, user("1")))).await;
    assert!(
        matches!(outcome, Err(LedgerError::Unavailable { .. })),
        "{outcome:?}"
    );
    assert_eq!(
        file.ledger
            .grant(grant(1, user("1")).id)
            .await
            .expect("readable"),
        None
    );
    assert_eq!(file.ledger.commits(), 0);
    query("DROP TRIGGER orphan")
        .execute(&mut conn)
        .await
        .expect("dropped");
    conn.close().await.expect("closed");
    let outcome = file.ledger.accept(accept(grant(1, user("1")))).await;
    assert!(matches!(outcome, Ok(Accepted::Created(_))), "{outcome:?}");
    assert_eq!(file.ledger.commits(), 1);
    file.close().await;
}

#[tokio::test]
async fn a_second_process_is_refused_with_the_remedy() {
    let (_folder, path) = place();
    let file = File::open(&path, Options::default()).await;
    let error = refused(&path).await;
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("stop that one first"), "{error}");
    file.close().await;
    File::open(&path, Options::default()).await.close().await;
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_named() {
    // Nobody can make files there, not even root.
    let error = refused(Path::new("/proc/self/ledger.db")).await;
    assert!(
        matches!(error, OpenError::Files { .. }) && error.to_string().contains("/proc/self"),
        "{error}"
    );
    let folder = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(folder.path().join("file"), "x").expect("written");
    let error = refused(&folder.path().join("file").join("ledger.db")).await;
    assert!(matches!(error, OpenError::Files { .. }), "{error}");
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let (_folder, path) = place();
    let file = File::open(&path, Options::default()).await;
    file.ledger.check().await.expect("writable");
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let mut name = path.clone().into_os_string();
        name.push(suffix);
        let mode = std::fs::metadata(&name)
            .unwrap_or_else(|error| panic!("{}: {error}", name.display()))
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{}", name.display());
    }
    file.close().await;
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let (_folder, path) = place();
    filled(&path, 1).await;
    let mut conn = direct(&path).await;
    query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99, 'later', true, x'00', 0)",
    )
    .execute(&mut conn)
    .await
    .expect("written");
    conn.close().await.expect("closed");
    let error = refused(&path).await;
    assert!(
        matches!(error, OpenError::NewerSchema { found: 99, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("newer release"), "{error}");
}

#[tokio::test]
async fn the_database_of_another_application_is_left_alone() {
    let (folder, _) = place();
    let path = folder.path().join("other.db");
    std::fs::write(&path, "").expect("written");
    let mut conn = direct(&path).await;
    query("CREATE TABLE theirs (x)")
        .execute(&mut conn)
        .await
        .expect("written");
    conn.close().await.expect("closed");
    assert!(matches!(refused(&path).await, OpenError::Foreign { .. }));
}

#[tokio::test]
async fn torn_and_overwritten_files_are_called_damaged() {
    for damage in ["overwritten", "torn", "zeroed"] {
        let (_folder, path) = place();
        filled(&path, 60).await;
        let mut bytes = std::fs::read(&path).expect("readable");
        match damage {
            "overwritten" => bytes = b"this is not a database, whatever its name".repeat(200),
            "torn" => bytes.truncate(bytes.len() / 2 / 4096 * 4096),
            _ => {
                let middle = bytes.len() / 2 / 4096 * 4096;
                bytes[middle..middle + 8192].fill(0);
            }
        }
        std::fs::write(&path, &bytes).expect("written");
        let error = refused(&path).await;
        assert!(
            matches!(error, OpenError::Damaged { .. }),
            "{damage}: {error}"
        );
        assert!(error.to_string().contains("restore"), "{damage}: {error}");
        assert_eq!(
            std::fs::read(&path).expect("readable"),
            bytes,
            "{damage}: kept as it was found"
        );
    }
}

#[tokio::test]
async fn rows_that_no_release_wrote_are_refused_and_not_guessed() {
    let (_folder, path) = place();
    filled(&path, 2).await;
    let mut conn = direct(&path).await;
    query("UPDATE grants SET body = '{}', version = version + 1 WHERE subject = 'user:1'")
        .execute(&mut conn)
        .await
        .expect("written");
    query("UPDATE members SET format = 2, version = version + 1 WHERE subject = 'user:2'")
        .execute(&mut conn)
        .await
        .expect("written");
    conn.close().await.expect("closed");
    let file = File::open(&path, Options::default()).await;
    for (id, words) in [("1", "not what any release wrote"), ("2", "newer release")] {
        let error = file
            .ledger
            .member(&key(user(id)))
            .await
            .expect_err("unreadable");
        let LedgerError::Corrupt { source, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(source.to_string().contains(words), "{source}");
    }
    assert!(matches!(
        file.ledger.grant(grant(1, user("1")).id).await,
        Err(LedgerError::Corrupt { .. })
    ));
    assert!(matches!(
        file.ledger.accept(accept(grant(1, user("1")))).await,
        Err(LedgerError::Corrupt { .. })
    ));
    file.close().await;
}

#[tokio::test]
async fn the_database_itself_refuses_what_the_life_cycle_forbids() {
    let (_folder, path) = place();
    let file = File::open(&path, Options::default()).await;
    let ledger: AnyLedger = Arc::new(file.ledger.clone());
    for n in 1..=2 {
        create(&ledger, grant(n, user(&n.to_string()))).await;
    }
    let mut record = ledger.member(&key(user("2"))).await.expect("readable");
    end_all(&mut record, 10);
    ledger.commit(commit(record)).await.expect("committed");
    drop(ledger);
    file.close().await;

    let mut conn = direct(&path).await;
    let revoking = "UPDATE grants SET state = 'revoking', cause = 'expired', version = 9 WHERE subject = 'user:1'";
    query(revoking).execute(&mut conn).await.expect("allowed");
    for forbidden in [
        "UPDATE grants SET state = 'revoking', ended_at = NULL, version = 9 WHERE subject = 'user:2'",
        "UPDATE grants SET state = 'activating', ended_at = NULL, cause = NULL, version = 9 WHERE subject = 'user:2'",
        "UPDATE grants SET state = 'active', expires_at = 1, cause = NULL, version = 10 WHERE subject = 'user:1'",
        "UPDATE grants SET state = 'scheduled', cause = NULL, version = 10 WHERE subject = 'user:1'",
        "UPDATE grants SET state = 'ended', version = 10 WHERE subject = 'user:1'",
        "UPDATE grants SET state = 'gone', version = 10 WHERE subject = 'user:1'",
        "UPDATE grants SET body = '' WHERE subject = 'user:1'",
        "DELETE FROM grants WHERE subject = 'user:1'",
        "UPDATE members SET version = version - 1",
        "UPDATE members SET due_at = 1, due_rank = NULL, version = version + 1",
        "DELETE FROM members",
        "UPDATE events SET body = ''",
        "DELETE FROM events",
        "UPDATE requests SET kind = 'tombstone'",
        "INSERT INTO requests SELECT * FROM requests",
        "INSERT INTO grants SELECT * FROM grants",
    ] {
        let outcome = query(AssertSqlSafe(forbidden)).execute(&mut conn).await;
        assert!(
            matches!(outcome, Err(sqlx::Error::Database(_))),
            "{forbidden}: {outcome:?}"
        );
    }
    let active = "INSERT INTO grants SELECT 'new', integration, subject, caller, request_id, 'active', beneficiary, \
         targets, created_at, NULL, NULL, NULL, 1, format, body FROM grants LIMIT 1";
    let endless = query(active).execute(&mut conn).await;
    assert!(endless.is_err(), "an active grant has an end");
    query("UPDATE grants SET state = 'ended', ended_at = 1, version = 10 WHERE subject = 'user:1'")
        .execute(&mut conn)
        .await
        .expect("the one exit");
    conn.close().await.expect("closed");
}

#[tokio::test]
async fn what_is_due_and_open_is_found_by_an_index() {
    let (_folder, path) = place();
    filled(&path, 1).await;
    let mut conn = direct(&path).await;
    for (text, index) in [
        (
            "SELECT subject, due_at FROM members WHERE integration = 'main' AND due_rank = 1 \
             AND due_at IS NOT NULL AND due_at <= 9 ORDER BY due_at, subject LIMIT 5",
            "members_due",
        ),
        (
            "SELECT MIN(m.due_rank) FROM members m WHERE m.integration = 'main' \
             AND m.due_at IS NOT NULL AND m.due_rank > 5",
            "members_due",
        ),
        (
            "SELECT integration, state, COUNT(*) FROM grants WHERE state <> 'ended' \
             GROUP BY integration, state",
            "grants_open",
        ),
        (
            "SELECT SUM(owned), SUM(blocked) FROM members WHERE owned > 0",
            "members_owning",
        ),
        (
            "SELECT body FROM grants WHERE integration = 'main' AND subject = 'user:1' AND state <> 'ended'",
            "grants_open",
        ),
        (
            "SELECT body FROM events WHERE sequence > 3 AND grant_id = 'x' ORDER BY sequence LIMIT 9",
            "events_of_grants",
        ),
    ] {
        let plan: Vec<String> = query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}")))
            .fetch_all(&mut conn)
            .await
            .expect("explained")
            .iter()
            .map(|row| row.get("detail"))
            .collect();
        assert!(
            plan.iter().any(|step| step.contains(index)),
            "{text}: {plan:?}"
        );
    }
    conn.close().await.expect("closed");
}

#[tokio::test]
async fn a_copy_made_while_running_is_a_whole_ledger() {
    let (folder, path) = place();
    let file = File::open(&path, Options::default()).await;
    let ledger: AnyLedger = Arc::new(file.ledger.clone());
    create(&ledger, grant(1, user("1"))).await;
    let copy = folder.path().join("copy.db");
    let mut conn = direct(&path).await;
    query(AssertSqlSafe(format!("VACUUM INTO '{}'", copy.display())))
        .execute(&mut conn)
        .await
        .expect("copied");
    conn.close().await.expect("closed");
    create(&ledger, grant(2, user("1"))).await;
    drop(ledger);
    file.close().await;
    let file = File::open(&copy, Options::default()).await;
    file.ledger.verify().await.expect("whole");
    let record = file.ledger.member(&key(user("1"))).await.expect("readable");
    assert_eq!(record.grants.len(), 1);
    file.close().await;
}

#[tokio::test]
async fn bare_commits_write_the_rows_of_accepts() {
    let (_folder, path) = place();
    let bare = bench_bare_commits(&path, 3, 20, |n| {
        let n = u8::try_from(n).expect("small");
        let mut one = accept(grant(n, user(&n.to_string())));
        one.due = due(0, DueKind::Grant, 1);
        one
    })
    .await
    .expect("measured");
    assert_eq!((bare.grants, bare.commits), (60, 3));
    let file = File::open(&path, Options::default()).await;
    let all = file
        .ledger
        .list_grants(&GrantFilter::default(), None, 99)
        .await;
    assert_eq!(all.expect("readable").items.len(), 60);
    let events = file.ledger.events(&EventFilter::default(), 0, 99).await;
    assert_eq!(events.expect("readable").len(), 60);
    file.close().await;
}
