//! What the queries of the ledger run on here: PostgreSQL.
//!
//! Owns every difference to SQLite that the shared files meet: unnamed statements, the turn that orders commits over
//! all replicas, patience with a server that may be gone, claims. Never holds a query of the ledger itself.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnection, PgPool, PgRow, Postgres};
use sqlx::{FromRow, QueryBuilder, SqlSafeStr, raw_sql};
use tokio::time::timeout;

use super::connect::Connector;
use super::errors;
use super::read;
use super::writer::Counters;
use crate::ports::ledger::{LedgerError, NotOwner};
use crate::store::rows;

pub(super) use super::PostgresLedger as Handle;

pub(super) type Db = Postgres;
pub(super) type DbRow = PgRow;
pub(super) type Conn = PgConnection;
pub(super) type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;
pub(super) type Readers = PgPool;
/// What is kept for as long as the ledger is open.
#[derive(Debug, Default)]
pub(super) struct Held(());

/// Nothing is locked outside of the database.
pub(super) fn let_go(_held: Held) {}

/// Before a column, where another planner needs it.
pub(super) const PLUS: &str = "";

/// Since when the oldest grant that was not seen gone is on its way out, by integration.
pub(super) const REVOKING: &str = "SELECT integration, MIN(body::jsonb -> 'state' ->> 'since') FROM grants \
     WHERE state = 'revoking' GROUP BY integration";

/// Begins, and waits for the turn. A process that stands still in the middle loses its turn with its session, a
/// second later; so does a statement that the server cannot get on with.
const BEGIN: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '1s'; SET LOCAL lock_timeout = '8s'; \
     SET LOCAL statement_timeout = '9s'; SELECT value FROM meta WHERE name = 'turn' FOR UPDATE";

/// Longest wait for a step, beyond which the server counts as gone. Longer than its own time-outs, which say more.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest wait until a connection that has answered everything is fit for the next, which takes one round trip.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// Channel on which replicas tell each other that there is something new.
pub(super) const CHANNEL: &str = "latchkey";

/// Reads a whole ledger as it is at one instant.
pub(super) const BEGIN_COPY: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Writes a whole ledger.
pub(super) const BEGIN_FILL: &str = "BEGIN; SELECT value FROM meta WHERE name = 'turn' FOR UPDATE";
/// Claims that stand.
pub(super) const IN_USE: &str =
    "SELECT COUNT(*) FROM ownership WHERE holder <> '' AND deadline > clock_timestamp()";
/// Drops what a new ledger says about itself.
pub(super) const MAKE_ROOM: &str =
    "DELETE FROM facts; DELETE FROM meta WHERE name <> 'turn'; DELETE FROM holds";

// Unnamed: a prepared statement would stay with a session that a pooler hands to somebody else.
pub(super) fn query<'q>(text: impl SqlSafeStr) -> Query<'q> {
    sqlx::query(text).persistent(false)
}

pub(super) fn query_scalar<'q, O>(
    text: impl SqlSafeStr,
) -> sqlx::query::QueryScalar<'q, Postgres, O, PgArguments>
where
    (O,): for<'r> FromRow<'r, PgRow>,
{
    sqlx::query_scalar(text).persistent(false)
}

pub(super) fn built(text: &mut QueryBuilder<Postgres>) -> Query<'_> {
    text.build().persistent(false)
}

pub(super) fn built_scalar<O>(
    text: &mut QueryBuilder<Postgres>,
) -> sqlx::query::QueryScalar<'_, Postgres, O, PgArguments>
where
    (O,): for<'r> FromRow<'r, PgRow>,
{
    text.build_query_scalar().persistent(false)
}

/// Runs statements without values, one after the other.
pub(super) async fn run(conn: &mut Conn, text: &'static str) -> Result<(), sqlx::Error> {
    raw_sql(text).execute(conn).await.map(drop)
}

/// Begins the transaction of a batch.
pub(super) async fn begin(conn: &mut Conn) -> Result<(), sqlx::Error> {
    run(conn, BEGIN).await
}

/// Ends a failed transaction. Answers whether the connection can be used again.
pub(super) async fn rolled_back(conn: &mut Conn) -> bool {
    match timeout(Duration::from_secs(1), run(conn, "ROLLBACK")).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "Rolling back failed");
            false
        }
        Err(_) => false,
    }
}

/// The newest sequence, right before the commit; other replicas hear of it with the commit.
pub(super) async fn announce(conn: &mut Conn, known: u64) -> Result<u64, sqlx::Error> {
    let last = read::last_sequence(conn).await?;
    if last > known {
        query("SELECT pg_notify($1, $2)")
            .bind(CHANNEL)
            .bind(last.to_string())
            .execute(conn)
            .await?;
    }
    Ok(last)
}

/// Ends a transaction. Answers how far the audit goes then, as it was announced in it.
pub(super) async fn commit(conn: &mut Conn, announced: u64) -> Result<u64, sqlx::Error> {
    run(conn, "COMMIT").await?;
    Ok(announced)
}

/// How often the ledger has changed: other replicas change it too, so nobody here knows.
pub(super) fn stamp(_counters: &Counters) -> Option<u64> {
    None
}

/// Behind a table: the planner of PostgreSQL chooses its indexes by itself.
macro_rules! watched {
    () => {
        ""
    };
}

pub(super) use watched;

/// The newest sequence, on a connection that is in no transaction.
pub(super) async fn framed_last_sequence(conn: &mut Conn) -> Result<u64, sqlx::Error> {
    run(conn, "BEGIN READ ONLY").await?;
    let last = read::last_sequence(conn).await?;
    run(conn, "COMMIT").await?;
    Ok(last)
}

/// Waits for a step, but not for ever: a server that is cut off says nothing.
pub(super) async fn patient<T>(
    step: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match timeout(PATIENCE, step).await {
        Ok(done) => done,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the server did not answer in time",
        ))),
    }
}

/// A connection for reading, in a transaction where a pooler stands in between.
#[derive(Debug)]
pub(super) struct Reader {
    conn: PoolConnection<Postgres>,
    is_framed: bool,
    /// Whether everything that was asked was answered.
    is_done: bool,
}

impl Reader {
    pub(super) async fn begin(
        mut conn: PoolConnection<Postgres>,
        is_framed: bool,
    ) -> Result<Self, sqlx::Error> {
        if is_framed {
            let begun = patient(run(&mut conn, "BEGIN READ ONLY")).await;
            if let Err(error) = begun {
                conn.close_on_drop();
                return Err(error);
            }
        }
        Ok(Self {
            conn,
            is_framed,
            is_done: false,
        })
    }

    /// From here on it is in a transaction, to be ended by [`done`].
    pub(super) fn framed(&mut self) {
        self.is_framed = true;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.is_done {
            give_back(&mut self.conn);
        } else {
            // Somebody stopped waiting in the middle: nobody else shall get this transaction. Nor shall the place in the
            // pool wait for an answer to come first: from a server that is cut off none ever does.
            self.conn.close_on_drop();
        }
    }
}

/// Gives a connection back to its pool, which asks it for a sign of life first. Left to itself the pool waits for that
/// without end, and the place is lost where the server was cut off right then.
#[expect(
    clippy::disallowed_methods,
    reason = "the pool spawns the same in its own drop, without a limit"
)]
fn give_back(conn: &mut PoolConnection<Postgres>) {
    tokio::spawn(timeout(GIVE_BACK, conn.return_to_pool()));
}

impl Deref for Reader {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.conn
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.conn
    }
}

/// Gives a reader back.
pub(super) async fn done(mut reader: Reader) -> Result<(), sqlx::Error> {
    if reader.is_framed {
        patient(run(&mut reader.conn, "COMMIT")).await?;
    }
    reader.is_done = true;
    Ok(())
}

/// Lets go of a reader whose query failed.
pub(super) fn spoiled(mut reader: Reader) {
    reader.conn.close_on_drop();
}

/// The claim that a write is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fence {
    /// It stands, under this epoch.
    Held { integration: String, epoch: u64 },
    /// Whoever has it, it ends before this millisecond. Locked against being renewed until the write is committed: an
    /// owner that renews it afterwards reads what was written.
    Beyond { integration: String, end_ms: i64 },
}

/// Claims that were found to stand in this transaction; their rows are locked against a change of hands until it ends.
#[derive(Debug, Default)]
pub(super) struct Admitted(Vec<Fence>);

impl Admitted {
    /// Whether the claim still stands; the refusal if it does not.
    pub(super) async fn admit(
        &mut self,
        conn: &mut Conn,
        fence: &Fence,
        action: &'static str,
    ) -> Result<Option<LedgerError>, sqlx::Error> {
        if self.0.contains(fence) {
            return Ok(None);
        }
        let (integration, epoch) = match fence {
            Fence::Held { integration, epoch } => (integration, *epoch),
            Fence::Beyond { integration, .. } => (integration, 0),
        };
        let asked = match fence {
            Fence::Held { epoch, .. } => query(
                "SELECT 1 FROM ownership WHERE integration = $1 AND epoch = $2 AND holder <> '' FOR SHARE",
            )
            .bind(integration.clone())
            .bind(rows::int(*epoch)),
            Fence::Beyond { end_ms, .. } => query(
                "SELECT 1 FROM ownership WHERE integration = $1 \
                 AND (EXTRACT(EPOCH FROM deadline) * 1000)::bigint < $2 FOR SHARE",
            )
            .bind(integration.clone())
            .bind(*end_ms),
        };
        if asked.fetch_optional(conn).await?.is_some() {
            self.0.push(fence.clone());
            return Ok(None);
        }
        let over = NotOwner {
            integration: integration.clone(),
            epoch,
        };
        Ok(Some(errors::unavailable(action, over)))
    }
}

/// Where connections come from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) connector: Arc<Connector>,
    pub(super) batch: usize,
}

impl Source {
    /// Most writes in one commit.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// A connection in place of one that failed.
    pub(super) async fn anew(&self) -> Result<Conn, sqlx::Error> {
        self.connector.connect().await
    }
}
