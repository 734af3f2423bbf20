//! Identity, generation and holds of a ledger in SQLite, and looks at its file beside a running process.
//!
//! Owns their statements, and the one connection that never writes and takes no lock. Never repairs.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row, query};

use super::audit;
use super::errors::{self, corrupt, unavailable};
use super::open::OpenError;
use super::read::{self, Read};
use super::write::{Applied, Reply};
use crate::domain::Timestamp;
use crate::ports::audit::{AuditBlock, AuditRecord};
use crate::ports::ledger::{EventFilter, HoldRecord, Identity, Result, StoredEvent};
use crate::store::rows::{self, EventRow, FORMAT, IllegalWrite};

/// Events read at a time.
const PAGE: usize = 1_000;

/// A hold as it is stored.
#[derive(Debug)]
pub(super) struct HoldRow {
    integration: String,
    body: String,
}

impl HoldRow {
    pub(super) fn new(hold: &HoldRecord) -> Self {
        Self {
            integration: hold.integration.to_string(),
            body: serde_json::to_string(hold).expect("plain data has a JSON form"),
        }
    }
}

pub(super) async fn identity(conn: &mut SqliteConnection, action: &'static str) -> Read<Identity> {
    let row = query(
        "SELECT (SELECT value FROM facts WHERE name = 'ledger_id'), \
         (SELECT value FROM meta WHERE name = 'generation'), \
         (SELECT value FROM meta WHERE name = 'witnessed')",
    )
    .fetch_one(conn)
    .await?;
    let (id, generation, witnessed): (Option<String>, Option<i64>, Option<i64>) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(match id {
        Some(id) => Ok(Identity {
            id,
            generation: rows::uint(generation.unwrap_or(0)),
            witnessed: witnessed == Some(1),
        }),
        None => Err(corrupt(
            action,
            IllegalWrite("the ledger has lost its identity".to_owned()),
        )),
    })
}

pub(super) async fn agree(
    conn: &mut SqliteConnection,
    generation: u64,
    witnessed: bool,
    action: &'static str,
) -> Applied {
    let raised = query(
        "INSERT INTO meta (name, value) VALUES ('generation', $1) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE excluded.value > meta.value",
    )
    .bind(rows::int(generation))
    .execute(&mut *conn)
    .await?;
    if raised.rows_affected() == 0 {
        return Ok(Err(unavailable(action, rows::not_higher(generation))));
    }
    query(
        "INSERT INTO meta (name, value) VALUES ('witnessed', $1) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(i64::from(witnessed))
    .execute(conn)
    .await?;
    Ok(Ok(Reply::Done))
}

pub(super) async fn holds(
    conn: &mut SqliteConnection,
    action: &'static str,
) -> Read<Vec<HoldRecord>> {
    let found = query("SELECT integration, format, body FROM holds ORDER BY integration")
        .fetch_all(conn)
        .await?;
    let mut holds = Vec::new();
    for row in found {
        let (name, format, body): (String, i64, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        match rows::read_body(|| format!("the hold of {name}"), format, &body) {
            Ok(hold) => holds.push(hold),
            Err(error) => return Ok(Err(corrupt(action, error))),
        }
    }
    Ok(Ok(holds))
}

pub(super) async fn put_hold(
    conn: &mut SqliteConnection,
    row: &HoldRow,
    events: &[EventRow],
) -> Applied {
    query(
        "INSERT INTO holds (integration, format, body) VALUES ($1, $2, $3) \
         ON CONFLICT (integration) DO UPDATE SET format = excluded.format, body = excluded.body",
    )
    .bind(row.integration.clone())
    .bind(FORMAT)
    .bind(row.body.clone())
    .execute(&mut *conn)
    .await?;
    super::write::events(conn, events).await?;
    Ok(Ok(Reply::Done))
}

pub(super) async fn end_hold(
    conn: &mut SqliteConnection,
    integration: &str,
    events: &[EventRow],
) -> Applied {
    let ended = query("DELETE FROM holds WHERE integration = $1")
        .bind(integration.to_owned())
        .execute(&mut *conn)
        .await?
        .rows_affected();
    if ended > 0 {
        super::write::events(conn, events).await?;
    }
    Ok(Ok(Reply::Number(ended)))
}

pub(super) async fn latest_instant(
    conn: &mut SqliteConnection,
    action: &'static str,
) -> Read<Option<Timestamp>> {
    let at: Option<i64> =
        query("SELECT MAX(at) FROM (SELECT at FROM events ORDER BY sequence DESC LIMIT $1)")
            .bind(rows::count(rows::NEWEST))
            .fetch_one(conn)
            .await?
            .try_get(0)?;
    Ok(match at.map(rows::instant).transpose() {
        Ok(at) => Ok(at),
        Err(error) => Err(corrupt(action, error)),
    })
}

/// A ledger file looked at without its lock: nothing is written, and a running process is not disturbed.
#[derive(Debug)]
pub struct Glance {
    conn: SqliteConnection,
}

impl Glance {
    /// Opens the file for reading. A file of an earlier release that was not brought up yet answers errors.
    ///
    /// # Errors
    /// [`OpenError::Database`] when it is not there or cannot be read.
    pub async fn at(path: &Path) -> std::result::Result<Self, OpenError> {
        let conn = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .create_if_missing(false)
            .disable_statement_logging()
            .connect()
            .await
            .map_err(|error| OpenError::Database {
                action: "reading",
                path: path.to_owned(),
                source: error.into(),
            })?;
        Ok(Self { conn })
    }

    /// Which ledger it is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn identity(&mut self) -> Result<Identity> {
        const ACTION: &str = "reading the identity";
        identity(&mut self.conn, ACTION)
            .await
            .unwrap_or_else(|error| Err(errors::of_statement(ACTION, error)))
    }

    /// Integrations in hold.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn holds(&mut self) -> Result<Vec<HoldRecord>> {
        const ACTION: &str = "reading holds";
        holds(&mut self.conn, ACTION)
            .await
            .unwrap_or_else(|error| Err(errors::of_statement(ACTION, error)))
    }

    /// The next events after a sequence, oldest first; none at the end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn events(&mut self, after: u64) -> Result<Vec<StoredEvent>> {
        const ACTION: &str = "reading audit events";
        read::events(&mut self.conn, &EventFilter::default(), after, PAGE, ACTION)
            .await
            .unwrap_or_else(|error| Err(errors::of_statement(ACTION, error)))
    }

    /// The next audit records after a sequence, up to another one, as they are stored; none at the end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn records(&mut self, after: u64, up_to: u64) -> Result<Vec<AuditRecord>> {
        let mut records = audit::records(&mut self.conn, after, PAGE)
            .await
            .map_err(|error| errors::of_statement("reading the audit", error))?;
        records.retain(|record| record.sequence <= up_to);
        Ok(records)
    }

    /// A block of the audit.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn block(&mut self, number: u64) -> Result<Option<AuditBlock>> {
        let found = audit::blocks(&mut self.conn, number, 1)
            .await
            .map_err(|error| errors::of_statement("reading a block of the audit", error))?;
        Ok(found.into_iter().find(|block| block.number == number))
    }

    /// The newest block of the audit.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn last_block(&mut self) -> Result<Option<AuditBlock>> {
        audit::last(&mut self.conn)
            .await
            .map_err(|error| errors::of_statement("reading the newest block of the audit", error))
    }

    /// Lets go of the file.
    pub async fn close(self) {
        if let Err(error) = self.conn.close().await {
            tracing::debug!(%error, "Closing a connection that only read failed");
        }
    }
}
