//! What only a server can promise: several processes share it, it goes away and comes back, its schema has an age.

use std::time::Duration;

use latchkey::ports::Ledger as _;
use latchkey::ports::ledger::{Accepted, EventFilter, GrantFilter, LedgerError};
use latchkey::store::postgres::{OpenError, Options, migrate};
use latchkey::store::{CopyError, Place, PostgresLedger, copy};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::server::{Served, database};
use crate::support::*;

#[tokio::test]
async fn what_one_replica_commits_another_reads_and_hears_of() {
    let database = database().await;
    let (one, other) = (Served::open(&database).await, Served::open(&database).await);
    let mut news = other.ledger.changes();
    let accepted = create(&one.any(), grant(1, user("1"))).await;
    timeout(Duration::from_secs(5), news.wait_for(|last| *last == 1))
        .await
        .expect("in time")
        .expect("open");
    let found = other.ledger.grant(accepted.id).await.expect("readable");
    assert_eq!(found, Some(accepted.clone()));
    assert!(matches!(
        other.ledger.accept(accept(accepted)).await,
        Ok(Accepted::Replayed(_))
    ));
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn through_a_pooler_the_commits_of_others_are_found_by_asking() {
    let database = database().await;
    let one = Served::open(&database).await;
    let other = Served::with(Options::new(database.pooled_url())).await;
    let mut news = other.ledger.changes();
    create(&one.any(), grant(1, user("1"))).await;
    timeout(Duration::from_secs(5), news.wait_for(|last| *last == 1))
        .await
        .expect("in time")
        .expect("open");
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn events_of_two_replicas_have_one_order_without_gaps() {
    let database = database().await;
    let (one, other) = (Served::open(&database).await, Served::open(&database).await);
    let mut writers = JoinSet::new();
    for n in 0..60_u8 {
        let ledger = if n % 2 == 0 { one.any() } else { other.any() };
        writers.spawn(async move { ledger.accept(accept(grant(n, user(&n.to_string())))).await });
    }
    for accepted in writers.join_all().await {
        assert!(matches!(accepted, Ok(Accepted::Created(_))), "{accepted:?}");
    }
    let events = one.ledger.events(&EventFilter::default(), 0, 99).await;
    let sequences: Vec<u64> = events
        .expect("readable")
        .iter()
        .map(|event| event.sequence)
        .collect();
    assert_eq!(sequences, (1..=60).collect::<Vec<u64>>());
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_commit_that_takes_long_is_waited_for_so_that_no_reader_passes_it_by() {
    let database = database().await;
    let (one, other) = (Served::open(&database).await, Served::open(&database).await);
    create(&one.any(), grant(1, user("1"))).await;
    let after = |ledger: PostgresLedger, last| async move {
        let events = ledger.events(&EventFilter::default(), last, 99).await;
        let events = events.expect("readable").into_iter();
        events.map(|event| event.sequence).collect::<Vec<_>>()
    };
    // Another replica in the middle of its commit: its event has a number already.
    let mut slow = <sqlx::postgres::PgConnection as sqlx::Connection>::connect(&database.url())
        .await
        .expect("connected");
    sqlx::raw_sql(
        "BEGIN; SELECT value FROM meta WHERE name = 'turn' FOR UPDATE; \
         INSERT INTO events (at, integration, subject, grant_id, caller, kind, format, body) \
         SELECT at, integration, subject, grant_id, caller, kind, format, body FROM events WHERE sequence = 1",
    )
    .execute(&mut slow)
    .await
    .expect("written");
    let mut later = JoinSet::new();
    let ledger = one.any();
    later.spawn(async move { ledger.accept(accept(grant(2, user("2")))).await });
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_locks \
         WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))";
    let has_come = async {
        while !sqlx::query_scalar::<_, bool>(waits)
            .fetch_one(&mut slow)
            .await
            .expect("asked")
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), has_come)
        .await
        .expect("it waits for its turn");
    // Whoever reads now and goes on from here misses nothing of what comes.
    assert_eq!(after(other.ledger.clone(), 0).await, [1]);
    sqlx::raw_sql("COMMIT")
        .execute(&mut slow)
        .await
        .expect("committed");
    let accepted = later.join_next().await.expect("spawned").expect("ended");
    assert!(matches!(accepted, Ok(Accepted::Created(_))), "{accepted:?}");
    assert_eq!(after(other.ledger.clone(), 1).await, [2, 3]);
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn writes_that_wait_share_a_commit_and_one_that_fails_fails_alone() {
    let served = Served::open(&database().await).await;
    let mut callers = JoinSet::new();
    for n in 0..200_u8 {
        let ledger = served.any();
        let mut one = accept(grant(n, user(&n.to_string())));
        if n % 50 == 3 {
            // No release writes version 0.
            one.grant.version = 0;
        }
        callers.spawn(async move { (n, ledger.accept(one).await) });
    }
    for (n, outcome) in callers.join_all().await {
        match outcome {
            Ok(Accepted::Created(_)) => assert_ne!(n % 50, 3, "{n}"),
            Err(LedgerError::Unavailable { .. }) => assert_eq!(n % 50, 3, "{n}"),
            other => panic!("{n}: {other:?}"),
        }
    }
    let all = served
        .ledger
        .list_grants(&GrantFilter::default(), None, 999)
        .await;
    assert_eq!(all.expect("readable").items.len(), 196);
    assert!(served.ledger.commits() < 100, "{}", served.ledger.commits());
    served.ledger.verify().await.expect("whole");
    served.close().await;
}

#[tokio::test]
async fn sessions_that_the_server_ends_are_replaced_and_nothing_that_was_answered_is_lost() {
    let database = database().await;
    let served = Served::open(&database).await;
    let ledger = served.any();
    create(&ledger, grant(1, user("1"))).await;
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = '{}' AND pid <> pg_backend_pid()",
        database.name
    );
    database.run(&end).await;
    // The first write meets the dead session and says that nothing happened; the next one has a new session.
    let mut accepted = ledger.accept(accept(grant(2, user("2")))).await;
    for _ in 0..3 {
        match accepted {
            Ok(_) => break,
            Err(LedgerError::Unavailable { .. }) => {
                accepted = ledger.accept(accept(grant(2, user("2")))).await;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(matches!(accepted, Ok(Accepted::Created(_))), "{accepted:?}");
    let last = read_past_ended_sessions(async || ledger.last_sequence().await).await;
    assert_eq!(last, 2);
    served.close().await;
}

/// Reads until no idle session is left that the server has ended: each of them is met once, and how many there are is
/// up to how many questions were ever asked at the same time.
async fn read_past_ended_sessions<T>(read: impl AsyncFn() -> Result<T, LedgerError>) -> T {
    let mut answer = read().await;
    for _ in 0..8 {
        if answer.is_ok() {
            break;
        }
        answer = read().await;
    }
    answer.expect("readable")
}

#[tokio::test]
async fn a_database_that_only_reads_is_named_and_written_again_when_it_may_be() {
    let database = database().await;
    let served = Served::open(&database).await;
    let ledger = served.any();
    create(&ledger, grant(1, user("1"))).await;
    let name = &database.name;
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    );
    database
        .run_outside(&format!(
            "ALTER DATABASE {name} SET default_transaction_read_only = on; {end}"
        ))
        .await;
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(ledger.check().await.expect_err("refused").code());
    }
    assert_eq!(codes.last(), Some(&"ledger_read_only"), "{codes:?}");
    let id = grant(1, user("1")).id;
    let read = read_past_ended_sessions(async || ledger.grant(id).await).await;
    assert_eq!(read.map(|grant| grant.id), Some(id));
    database
        .run_outside(&format!(
            "ALTER DATABASE {name} RESET default_transaction_read_only"
        ))
        .await;
    // Refused sessions are not asked again, so the next one writes.
    ledger.check().await.expect("writable again");
    served.close().await;
}

#[tokio::test]
async fn a_replica_that_stands_still_in_the_middle_of_a_commit_loses_its_turn() {
    let database = database().await;
    let served = Served::open(&database).await;
    let url = database.url();
    let mut paused = <sqlx::postgres::PgConnection as sqlx::Connection>::connect(&url)
        .await
        .expect("connected");
    // As a replica begins; then nothing more comes.
    sqlx::raw_sql(
        "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '1s'; \
         SELECT value FROM meta WHERE name = 'turn' FOR UPDATE",
    )
    .execute(&mut paused)
    .await
    .expect("begun");
    let done = timeout(Duration::from_secs(6), served.ledger.check()).await;
    done.expect("in time").expect("written");
    served.close().await;
}

#[tokio::test]
async fn a_schema_that_was_not_brought_up_is_refused_where_another_role_does_that() {
    let database = database().await;
    let mut options = Options::new(database.url());
    options.migrate = false;
    match PostgresLedger::open(options.clone()).await {
        Err(OpenError::OlderSchema { found: 0, .. }) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened without a schema"),
    }
    let applied = migrate(&options).await.expect("brought up");
    assert!(!applied.is_empty());
    assert!(migrate(&options).await.expect("nothing to do").is_empty());
    Served::with(options).await.close().await;
}

#[tokio::test]
async fn replicas_that_start_together_bring_the_schema_up_once() {
    let database = database().await;
    let mut starting = JoinSet::new();
    for _ in 0..4 {
        let options = Options::new(database.url());
        starting.spawn(async move { migrate(&options).await.expect("brought up").len() });
    }
    let mut applied = starting.join_all().await;
    applied.sort_unstable();
    assert_eq!(applied[..3], [0, 0, 0], "{applied:?}");
}

#[tokio::test]
async fn a_server_that_loses_commits_is_refused() {
    let database = database().await;
    let name = &database.name;
    database
        .run(&format!(
            "ALTER DATABASE {name} SET synchronous_commit = off"
        ))
        .await;
    assert!(matches!(
        PostgresLedger::open(Options::new(database.url()))
            .await
            .err(),
        Some(OpenError::NotDurable { .. })
    ));
}

#[tokio::test]
async fn a_password_that_was_rotated_is_read_again() {
    let database = database().await;
    let name = &database.name;
    let role = format!("role_{name}");
    let set = |password: &str| format!("ALTER ROLE {role} PASSWORD '{password}'");
    database
        .run(&format!(
            "CREATE ROLE {role} LOGIN; {}; ALTER DATABASE {name} OWNER TO {role}",
            set("first")
        ))
        .await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("password");
    std::fs::write(&file, "first\n").expect("written");
    let mut options = Options::new(database.url_as(&role));
    options.password_file = Some(file.clone());
    let served = Served::with(options).await;
    let ledger = served.any();
    create(&ledger, grant(1, user("1"))).await;
    database.run(&set("second")).await;
    std::fs::write(&file, "second\n").expect("written");
    database
        .run(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
        ))
        .await;
    let mut answers = (ledger.check().await, ledger.last_sequence().await);
    for _ in 0..8 {
        if answers.0.is_ok() && answers.1.is_ok() {
            break;
        }
        answers = (ledger.check().await, ledger.last_sequence().await);
    }
    answers.0.expect("writable");
    assert_eq!(answers.1.expect("readable"), 1);
    served.close().await;
}

#[tokio::test]
async fn a_ledger_that_is_copied_there_and_back_is_the_same_and_never_onto_another() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (path, back) = (folder.path().join("one.db"), folder.path().join("two.db"));
    let file = File::open(&path, latchkey::store::SqliteOptions::default()).await;
    let ledger: AnyLedger = std::sync::Arc::new(file.ledger.clone());
    for n in 1..=3 {
        create(&ledger, grant(n, user(&n.to_string()))).await;
    }
    let mut record = ledger.member(&key(user("1"))).await.expect("readable");
    record.owned = vec![owned(deployment("a"))];
    ledger.commit(commit(record)).await.expect("committed");
    let expected = crate::model::picture(&ledger).await;
    let identity = ledger.identity().await.expect("readable");
    file.close().await;

    let database = database().await;
    let server = || Place::Server(Box::new(Options::new(database.url())));
    let copied = copy(&Place::File(path.clone()), &server())
        .await
        .expect("copied");
    assert!(copied.contains(&("grants", 3)), "{copied:?}");
    assert!(matches!(
        copy(&Place::File(path), &server()).await,
        Err(CopyError::NotEmpty)
    ));
    let served = Served::open(&database).await;
    assert_eq!(crate::model::picture(&served.any()).await, expected);
    assert_eq!(served.ledger.identity().await.expect("readable"), identity);
    served.close().await;

    copy(&server(), &Place::File(back.clone()))
        .await
        .expect("copied back");
    let file = File::open(&back, latchkey::store::SqliteOptions::default()).await;
    let ledger: AnyLedger = std::sync::Arc::new(file.ledger.clone());
    assert_eq!(crate::model::picture(&ledger).await, expected);
    file.close().await;
}

#[tokio::test]
async fn who_only_asks_tries_a_server_that_is_not_there_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut options = Options::new(format!("postgres://latchkey@{address}/latchkey"));
    options.wait = Duration::ZERO;
    let opening = PostgresLedger::open(options);
    tokio::pin!(opening);
    let mut tries = 0;
    let opened = loop {
        tokio::select! {
            opened = &mut opening => break opened.map(drop),
            // Closed at once, as by a server that goes down.
            Ok(_) = listener.accept() => tries += 1,
        }
    };
    assert!(
        matches!(opened, Err(OpenError::Connect { .. })),
        "{opened:?}"
    );
    assert_eq!(tries, 1);
}
