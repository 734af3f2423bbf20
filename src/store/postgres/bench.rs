//! What the bench needs of the server: databases of its own, a ledger filled in a short time, and the floor of a start.
//!
//! Owns databases whose names it made itself, and no other. Never part of serving.

use std::fmt;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, raw_sql};

use super::connect::{Connector, OpenError, Options};
use super::engine::{query_scalar, run};
use super::{migrate, read};
use crate::domain::Timestamp;
use crate::domain::ids::IntegrationName;
use crate::ports::ledger::DueMember;

/// The first release of PostgreSQL that has to be told to copy files rather than rows.
const COPIES_ROWS: i64 = 150_000;

/// What the triggers would have counted.
const COUNTED: &str = "DELETE FROM census; \
     INSERT INTO census SELECT integration, state, COUNT(*) FROM grants WHERE state <> 'ended' GROUP BY integration, state; \
     INSERT INTO census SELECT integration, 'owned', SUM(owned) FROM members WHERE owned > 0 GROUP BY integration; \
     INSERT INTO census SELECT integration, 'blocked', SUM(blocked) FROM members WHERE blocked > 0 GROUP BY integration; \
     ALTER TABLE grants ENABLE TRIGGER census_of_grants; ALTER TABLE members ENABLE TRIGGER census_of_members";

/// Counting row by row in one transaction takes longer with every row.
const UNCOUNTED: &str = "ALTER TABLE grants DISABLE TRIGGER census_of_grants; ALTER TABLE members DISABLE TRIGGER census_of_members";

/// A server on which the bench makes databases: `latchkey_bench_RUN_NUMBER`.
pub struct BenchServer {
    options: Options,
    run: String,
}

impl fmt::Debug for BenchServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BenchServer")
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

fn failed(action: &'static str) -> impl Fn(sqlx::Error) -> OpenError {
    move |source| OpenError::Database { action, source }
}

impl BenchServer {
    /// `options` name a database that is there, to connect to: nothing is done in it.
    #[must_use]
    pub fn new(options: Options, entropy: [u8; 6]) -> Self {
        Self {
            options,
            run: hex::encode(entropy),
        }
    }

    fn name(&self, number: u32) -> String {
        format!("latchkey_bench_{}_{number}", self.run)
    }

    /// How the database of a number is reached.
    #[must_use]
    pub fn options(&self, number: u32) -> Options {
        let (address, settings) = match self.options.url.split_once('?') {
            Some((address, settings)) => (address, format!("?{settings}")),
            None => (self.options.url.as_str(), String::new()),
        };
        let (scheme, rest) = address.split_once("://").unwrap_or(("postgres", address));
        let host = rest.split_once('/').map_or(rest, |(host, _)| host);
        let name = self.name(number);
        Options {
            url: format!("{scheme}://{host}/{name}{settings}"),
            ..self.options.clone()
        }
    }

    async fn connected(&self, number: u32) -> Result<PgConnection, OpenError> {
        Connector::new(&self.options(number)).first().await
    }

    /// Makes a database: with an empty ledger, or as a copy of another one that nobody uses.
    ///
    /// # Errors
    /// [`OpenError`], for example where the role may not make databases.
    pub async fn make(&self, number: u32, copy_of: Option<u32>) -> Result<(), OpenError> {
        let failed = failed("making a database of the bench");
        let mut conn = Connector::new(&self.options).first().await?;
        let version: i64 = query_scalar("SELECT current_setting('server_version_num')::bigint")
            .fetch_one(&mut conn)
            .await
            .map_err(&failed)?;
        let from = copy_of.map_or_else(String::new, |number| {
            let strategy = if version >= COPIES_ROWS {
                " STRATEGY file_copy"
            } else {
                ""
            };
            format!(" TEMPLATE {}{strategy}", self.name(number))
        });
        let text = format!("CREATE DATABASE {}{from}", self.name(number));
        raw_sql(AssertSqlSafe(text))
            .execute(&mut conn)
            .await
            .map_err(&failed)?;
        if copy_of.is_none() {
            migrate(&self.options(number)).await?;
        } else {
            // The first session of a database reads its catalogue; a server that is up has done so long ago.
            let mut first = self.connected(number).await?;
            run(&mut first, "SELECT COUNT(*) FROM meta")
                .await
                .map_err(&failed)?;
        }
        Ok(())
    }

    /// Drops a database that it made, and ends whoever is in it.
    ///
    /// # Errors
    /// [`OpenError`]
    pub async fn drop(&self, number: u32) -> Result<(), OpenError> {
        let mut conn = Connector::new(&self.options).first().await?;
        let text = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name(number));
        let dropped = raw_sql(AssertSqlSafe(text)).execute(&mut conn).await;
        dropped
            .map(std::mem::drop)
            .map_err(failed("dropping a database of the bench"))
    }

    /// Stops counting grants: many are to be written, and [`Self::settle`] counts them.
    ///
    /// # Errors
    /// [`OpenError`]
    pub async fn open_to_many(&self, number: u32) -> Result<(), OpenError> {
        let mut conn = self.connected(number).await?;
        run(&mut conn, UNCOUNTED)
            .await
            .map_err(failed("preparing a database of the bench"))
    }

    /// Counts what there is, and does what the server itself does in time: a ledger that stands for long has been
    /// vacuumed, and its planner knows it. Answers its size in bytes.
    ///
    /// # Errors
    /// [`OpenError`]
    pub async fn settle(&self, number: u32) -> Result<i64, OpenError> {
        let failed = failed("settling a database of the bench");
        let mut conn = self.connected(number).await?;
        run(&mut conn, COUNTED).await.map_err(&failed)?;
        run(&mut conn, "VACUUM (ANALYZE)").await.map_err(&failed)?;
        query_scalar("SELECT pg_database_size(current_database())")
            .fetch_one(&mut conn)
            .await
            .map_err(failed)
    }
}

/// The subjects of the first page of what is due at `until`, over one new connection: what any program must do before
/// it can remove anything. Takes no claim and changes nothing.
///
/// # Errors
/// [`OpenError`] when the database cannot be reached or read.
pub async fn bench_first_page(
    options: &Options,
    integration: &IntegrationName,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<DueMember>, OpenError> {
    let action = "reading the first page";
    let mut conn = Connector::new(options)
        .connect()
        .await
        .map_err(|source| OpenError::Connect { source })?;
    read::due(&mut conn, integration, until, limit, action)
        .await
        .map_err(failed(action))?
        .map_err(|error| failed(action)(sqlx::Error::Protocol(error.to_string())))
}
