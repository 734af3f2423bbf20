//! What the queries of the ledger run on here: SQLite.
//!
//! Owns every difference to another database that the shared files (`read`, `write`, `writer`, `ledger` and those
//! beside them, which `postgres` compiles as well) meet. Never holds a query of the ledger itself.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{FromRow, QueryBuilder, SqlSafeStr, Sqlite, raw_sql};

use super::open::{self, Lock, Options};
use super::writer::Counters;
use crate::ports::ledger::LedgerError;
use crate::store::rows;

pub(super) use super::SqliteLedger as Handle;

pub(super) type Db = Sqlite;
pub(super) type DbRow = SqliteRow;
pub(super) type Conn = SqliteConnection;
pub(super) type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;
pub(super) type Readers = SqlitePool;
pub(super) type Reader = PoolConnection<Sqlite>;
/// What is kept for as long as the ledger is open.
pub(super) type Held = Lock;

/// Lets another process open the file.
pub(super) fn let_go(held: Held) {
    drop(held);
}

/// Before a column: keeps the planner from following an index of it.
pub(super) const PLUS: &str = "+";

/// Since when the oldest grant that was not seen gone is on its way out, by integration. The plus keeps an index of
/// all grants from being walked for the sake of its order.
pub(super) const REVOKING: &str = "SELECT integration, MIN(json_extract(body, '$.state.since')) FROM grants \
     WHERE state = 'revoking' GROUP BY +integration";

/// Reads a whole ledger as it is at one instant.
pub(super) const BEGIN_COPY: &str = "BEGIN";
/// Writes a whole ledger.
pub(super) const BEGIN_FILL: &str = "BEGIN IMMEDIATE";
/// Other processes that work on it: the lock of the file keeps them away.
pub(super) const IN_USE: &str = "SELECT 0";
/// Drops what a new ledger says about itself.
pub(super) const MAKE_ROOM: &str = "DELETE FROM facts; DELETE FROM meta; DELETE FROM holds";

pub(super) fn query<'q>(text: impl SqlSafeStr) -> Query<'q> {
    sqlx::query(text)
}

pub(super) fn query_scalar<'q, O>(
    text: impl SqlSafeStr,
) -> sqlx::query::QueryScalar<'q, Sqlite, O, SqliteArguments>
where
    (O,): for<'r> FromRow<'r, SqliteRow>,
{
    sqlx::query_scalar(text)
}

pub(super) fn built(text: &mut QueryBuilder<Sqlite>) -> Query<'_> {
    text.build()
}

pub(super) fn built_scalar<O>(
    text: &mut QueryBuilder<Sqlite>,
) -> sqlx::query::QueryScalar<'_, Sqlite, O, SqliteArguments>
where
    (O,): for<'r> FromRow<'r, SqliteRow>,
{
    text.build_query_scalar()
}

/// Runs statements without values, one after the other.
pub(super) async fn run(conn: &mut Conn, text: &'static str) -> Result<(), sqlx::Error> {
    raw_sql(text).execute(conn).await.map(drop)
}

/// Begins the transaction of a batch.
pub(super) async fn begin(conn: &mut Conn) -> Result<(), sqlx::Error> {
    run(conn, "BEGIN IMMEDIATE").await
}

/// Ends a failed transaction; SQLite may have ended it by itself. Answers whether the connection can be used again.
pub(super) async fn rolled_back(conn: &mut Conn) -> bool {
    match run(conn, "ROLLBACK").await {
        Ok(()) => true,
        Err(error) => {
            let ended = error
                .as_database_error()
                .is_some_and(|error| error.message().contains("no transaction is active"));
            if !ended {
                tracing::warn!(%error, "Rolling back failed");
            }
            ended
        }
    }
}

/// Says before the commit how far the audit will go: nobody else listens here.
pub(super) fn announce(
    _conn: &mut Conn,
    known: u64,
) -> std::future::Ready<Result<u64, sqlx::Error>> {
    std::future::ready(Ok(known))
}

/// Ends a transaction. Answers how far the audit goes then: asked in the same text, which costs one round trip to the
/// connection's thread instead of two.
pub(super) async fn commit(conn: &mut Conn, _announced: u64) -> Result<u64, sqlx::Error> {
    let last: Vec<Option<i64>> = query_scalar("SELECT MAX(sequence) FROM events; COMMIT")
        .fetch_all(conn)
        .await?;
    Ok(last.into_iter().next().flatten().map_or(0, rows::uint))
}

/// How often the ledger has changed: the lock on the file keeps every other process out.
pub(super) fn stamp(counters: &Counters) -> Option<u64> {
    Some(counters.changes.load(Ordering::Acquire))
}

/// Behind a table: follows the index of watched members. Left alone, SQLite would look at everybody.
macro_rules! watched {
    () => {
        " INDEXED BY members_watched"
    };
}

pub(super) use watched;

/// Waits for a step of a batch: the file is on this machine.
pub(super) async fn patient<T>(
    step: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    step.await
}

/// Gives a reader back.
pub(super) fn done(reader: Reader) -> impl Future<Output = Result<(), sqlx::Error>> {
    drop(reader);
    std::future::ready(Ok(()))
}

/// Lets go of a reader whose query failed.
pub(super) fn spoiled(reader: Reader) {
    drop(reader);
}

/// The claim that a write is bound to: there is only one process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fence {}

/// Claims that were found to stand in this transaction.
#[derive(Debug, Default)]
pub(super) struct Admitted(());

impl Admitted {
    /// Whether the claim still stands; the refusal if it does not.
    pub(super) fn admit(
        &mut self,
        _conn: &mut Conn,
        fence: &Fence,
        _action: &'static str,
    ) -> std::future::Ready<Result<Option<LedgerError>, sqlx::Error>> {
        match *fence {}
    }
}

/// Where connections come from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) options: Options,
}

impl Source {
    /// Most writes in one commit.
    pub(super) fn batch(&self) -> usize {
        self.options.batch
    }

    /// A connection in place of one that failed.
    pub(super) async fn anew(&self) -> Result<Conn, sqlx::Error> {
        open::anew(&self.path, &self.options).await
    }
}
