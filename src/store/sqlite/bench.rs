//! The floor that the accept rate is compared with: the same rows through the same crate, with nothing around them.
//!
//! Owns one measurement. Never part of serving.

use std::path::Path;
use std::time::Duration;

use sqlx::query;
use sqlx::sqlite::SqliteConnection;
use tokio::time::Instant;

use super::open::{self, OpenError, Options};
use super::write::{self, BARE_ACCEPT};
use crate::ports::ledger::Accept;
use crate::store::rows::AcceptRows;

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
    let mut conn = open::writer(path, &options).await?;
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
        let mut statement = write::bind_accept(BARE_ACCEPT, &row.request, &row.grant);
        if let Some(event) = row.events.first() {
            statement = write::bind_event(statement, event).bind(event.body.clone());
        }
        statement.execute(&mut *conn).await?;
    }
    query("COMMIT").execute(conn).await?;
    Ok(())
}
