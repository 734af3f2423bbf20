//! Long questions that end when nobody wants the answer any more.
//!
//! Owns the interruption of a statement. SQLite goes on with one whose future was dropped, and closing the ledger
//! waits for every connection: a check of a large file would keep the process from ending in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::Sqlite;
use sqlx::pool::PoolConnection;

/// Steps of SQLite's machine between two looks at whether the answer is still wanted: some tens of microseconds.
const STEPS: i32 = 10_000;

/// Keeps the statements of one connection going; once it is dropped they are interrupted, and the connection, which can
/// answer nothing any more, does not return to its pool.
#[derive(Debug)]
pub(super) struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// For every statement on `conn` from now on.
    pub(super) async fn by(conn: &mut PoolConnection<Sqlite>) -> Result<Self, sqlx::Error> {
        let wanted = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&wanted);
        conn.close_on_drop();
        conn.lock_handle()
            .await?
            .set_progress_handler(STEPS, move || seen.load(Ordering::Relaxed));
        Ok(Self(wanted))
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use sqlx::sqlite::SqlitePoolOptions;

    use super::*;

    /// Counts for ever.
    const ENDLESS: &str =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    /// Far more than an interruption takes; only a statement that is never interrupted gets there.
    const NEVER: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_question_that_nobody_waits_for_ends_and_its_pool_can_be_closed() {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect("sqlite::memory:")
            .await
            .expect("a database in memory");
        let mut conn = pool.acquire().await.expect("the only connection");
        let wanted = Wanted::by(&mut conn).await.expect("a handler");
        let one: i64 = sqlx::query_scalar("SELECT 1")
            .fetch_one(&mut *conn)
            .await
            .expect("asked");
        assert_eq!(one, 1, "what is wanted is answered");
        {
            let asking = sqlx::query_scalar::<_, i64>(ENDLESS).fetch_one(&mut *conn);
            tokio::pin!(asking);
            assert!(asking.as_mut().now_or_never().is_none(), "it has begun");
        }
        drop(wanted);
        drop(conn);
        tokio::time::timeout(NEVER, pool.close())
            .await
            .expect("the pool is closed");
    }

    #[tokio::test]
    async fn the_next_question_gets_a_connection_of_its_own() {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect("sqlite::memory:")
            .await
            .expect("a database in memory");
        let mut conn = pool.acquire().await.expect("the only connection");
        drop(Wanted::by(&mut conn).await.expect("a handler"));
        drop(conn);
        let many: i64 = sqlx::query_scalar(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT count(*) FROM n",
        )
        .fetch_one(&pool)
        .await
        .expect("not interrupted");
        assert_eq!(many, 100_000);
    }
}
