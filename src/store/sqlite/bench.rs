//! What the bench needs of the engine: the floors it compares with, and a ledger of any size in a short time.
//!
//! Owns the same rows through the same crate with nothing around them. Never part of serving.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, query};
use tokio::time::Instant;

use super::accept::{self, BARE_ACCEPT};
use super::open::{self, OpenError, Options};
use super::read;
use super::together::{REQUESTS, TOGETHER};
use super::write::{self, Work};
use crate::domain::Timestamp;
use crate::domain::ids::{CallerName, IntegrationName, RequestId};
use crate::ports::ledger::{Accept, DueMember, MemberCommit, RequestRecord};
use crate::store::rows::{AcceptRows, CommitRows, RequestRow};

/// What a run of bare commits took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BareCommits {
    /// Grants made durable, each with its request id and its first audit event.
    pub grants: u64,
    /// Commits they took.
    pub commits: u64,
    /// Time from the first `BEGIN` to the return of the last `COMMIT`.
    pub elapsed: Duration,
}

/// Commits `batches` transactions of `per_batch` grants each to a new ledger at `path`: grant, request id and audit
/// event, but no member, no queue, no service. `make` gives the grant of each number; making them is not measured.
///
/// # Errors
/// [`OpenError`] when the ledger cannot be made or a statement fails, for example because ids repeat.
pub async fn bench_bare_commits(
    path: &Path,
    batches: usize,
    per_batch: usize,
    mut make: impl FnMut(usize) -> Accept + Send,
) -> Result<BareCommits, OpenError> {
    let options = Options::default();
    let _lock = open::files(path)?;
    let mut conn = open::permitted_writer(path, &options).await?;
    let rows: Vec<AcceptRows> = (0..batches * per_batch)
        .map(|number| AcceptRows::new(make(number)))
        .collect();
    let started = Instant::now();
    for batch in rows.chunks(per_batch.max(1)) {
        commit(&mut conn, batch)
            .await
            .map_err(|error| OpenError::Database {
                action: "committing bare rows to",
                path: path.to_owned(),
                source: error.into(),
            })?;
    }
    let elapsed = started.elapsed();
    write::close(conn).await;
    Ok(BareCommits {
        grants: rows.len() as u64,
        commits: batches as u64,
        elapsed,
    })
}

async fn commit(conn: &mut SqliteConnection, rows: &[AcceptRows]) -> Result<(), sqlx::Error> {
    query("BEGIN IMMEDIATE").execute(&mut *conn).await?;
    for row in rows {
        let mut statement = accept::bind_accept(query(BARE_ACCEPT), &row.request, &row.grant);
        if let Some(event) = row.events.first() {
            statement = write::bind_event(statement, event).bind(event.body.clone());
        }
        statement.execute(&mut *conn).await?;
    }
    query("COMMIT").execute(conn).await?;
    Ok(())
}

/// A member and the request ids of its grants, to be written by [`bench_fill`].
#[derive(Debug)]
pub struct Filled {
    /// The member as it shall stand in the ledger; version 0.
    pub commit: MemberCommit,
    /// What the request ids of its grants stand for.
    pub requests: Vec<(CallerName, RequestId, RequestRecord, Timestamp)>,
}

/// Writes members with their grants, request ids and events to a new ledger at `path`, `per_commit` grants in a
/// transaction, through the statements that serving uses. Answers how many grants it wrote. A crash in the middle
/// leaves a file of no use: nothing is synced before the end.
///
/// # Errors
/// [`OpenError`] when the ledger cannot be made or a statement fails.
pub async fn bench_fill(
    path: &Path,
    members: impl Iterator<Item = Filled> + Send,
    per_commit: usize,
) -> Result<u64, OpenError> {
    let _lock = open::files(path)?;
    let mut conn = open::permitted_writer(path, &Options::default()).await?;
    let filled = fill(&mut conn, members, per_commit).await;
    write::close(conn).await;
    filled.map_err(|error| OpenError::Database {
        action: "filling",
        path: path.to_owned(),
        source: error.into(),
    })
}

/// What the triggers would have counted.
const COUNTED: &str = "DELETE FROM census; \
     INSERT INTO census SELECT integration, state, COUNT(*) FROM grants WHERE state <> 'ended' GROUP BY integration, state; \
     INSERT INTO census SELECT integration, 'owned', SUM(owned) FROM members WHERE owned > 0 GROUP BY integration; \
     INSERT INTO census SELECT integration, 'blocked', SUM(blocked) FROM members WHERE owned > 0 GROUP BY integration";

/// Drops every index and trigger; answers the texts that make them again.
async fn set_aside(conn: &mut SqliteConnection) -> Result<Vec<String>, sqlx::Error> {
    let found: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT type, name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL",
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut texts = Vec::with_capacity(found.len());
    for (kind, name, text) in found {
        query(sqlx::AssertSqlSafe(format!("DROP {kind} {name}")))
            .execute(&mut *conn)
            .await?;
        texts.push(text);
    }
    Ok(texts)
}

/// Writes request ids down; those that are taken stay what they were.
async fn remember(conn: &mut SqliteConnection, rows: &[RequestRow]) -> Result<(), sqlx::Error> {
    let (many, rest) = rows.as_chunks::<TOGETHER>();
    for rows in many {
        let statement = rows
            .iter()
            .fold(query(REQUESTS.as_str()), write::bind_request);
        statement.execute(&mut *conn).await?;
    }
    for row in rest {
        write::insert_request(conn, row).await?;
    }
    Ok(())
}

async fn fill(
    conn: &mut SqliteConnection,
    members: impl Iterator<Item = Filled> + Send,
    per_commit: usize,
) -> Result<u64, sqlx::Error> {
    query(
        "PRAGMA synchronous = OFF; PRAGMA soft_heap_limit = 0; PRAGMA cache_size = -262144; PRAGMA wal_autocheckpoint = 100000",
    )
    .execute(&mut *conn)
    .await?;
    // Indexes and triggers come back at the end, which is faster than keeping them up row by row.
    let aside = set_aside(conn).await?;
    let (mut total, mut open) = (0, 0);
    for Filled { commit, requests } in members {
        if open == 0 {
            query("BEGIN IMMEDIATE").execute(&mut *conn).await?;
        }
        let requests: Vec<RequestRow> = requests
            .iter()
            .map(|(caller, id, record, until)| RequestRow::new(caller, id, record, *until))
            .collect();
        let rows = CommitRows::new(commit);
        open += rows.grants.len().max(1);
        total += rows.grants.len() as u64;
        remember(conn, &requests).await?;
        write::apply(conn, &Work::Commit(Box::new(rows)))
            .await?
            .map_err(|refused| sqlx::Error::Protocol(refused.to_string()))?;
        if open >= per_commit {
            query("COMMIT").execute(&mut *conn).await?;
            open = 0;
        }
    }
    if open > 0 {
        query("COMMIT").execute(&mut *conn).await?;
    }
    for text in aside {
        query(sqlx::AssertSqlSafe(text)).execute(&mut *conn).await?;
    }
    query(COUNTED).execute(&mut *conn).await?;
    query("PRAGMA synchronous = FULL; PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(conn)
        .await?;
    Ok(total)
}

/// The subjects of the first page of what is due at `until`, read from the file alone: what any program must do
/// before it can remove anything. Takes no lock and changes nothing.
///
/// # Errors
/// [`OpenError`] when the file cannot be read.
pub async fn bench_first_page(
    path: &Path,
    integration: &IntegrationName,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<DueMember>, OpenError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| OpenError::Database {
        action: "reading the first page of",
        path: path.to_owned(),
        source: error,
    };
    let mut conn = open::reader_options(path)
        .connect()
        .await
        .map_err(|error| failed(error.into()))?;
    read::due(
        &mut conn,
        integration,
        until,
        limit,
        "reading the first page",
    )
    .await
    .map_err(|error| failed(error.into()))?
    .map_err(|error| failed(error.into()))
}
