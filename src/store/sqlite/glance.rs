//! Looks at a ledger file beside a running process.
//!
//! Owns the one connection that never writes and takes no lock. Never repairs.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::audit;
use super::errors;
use super::open::OpenError;
use super::read;
use super::recovery::{holds, identity};
use crate::ports::audit::{AuditBlock, AuditRecord};
use crate::ports::ledger::{EventFilter, HoldRecord, Identity, Result, StoredEvent};

/// Events read at a time.
const PAGE: usize = 1_000;

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
        const ACTION: &str = "reading the audit";
        let mut records = audit::records(&mut self.conn, after, PAGE)
            .await
            .unwrap_or_else(|error| Err(errors::of_statement(ACTION, error)))?;
        records.retain(|record| record.sequence <= up_to);
        Ok(records)
    }

    /// A block of the audit.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn block(&mut self, number: u64) -> Result<Option<AuditBlock>> {
        const ACTION: &str = "reading a block of the audit";
        let found = audit::blocks(&mut self.conn, number, 1, ACTION)
            .await
            .unwrap_or_else(|error| Err(errors::of_statement(ACTION, error)))?;
        Ok(found.into_iter().find(|block| block.number == number))
    }

    /// The newest block of the audit.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn last_block(&mut self) -> Result<Option<AuditBlock>> {
        const ACTION: &str = "reading the newest block of the audit";
        audit::last(&mut self.conn, ACTION)
            .await
            .unwrap_or_else(|error| Err(errors::of_statement(ACTION, error)))
    }

    /// Lets go of the file.
    pub async fn close(self) {
        if let Err(error) = self.conn.close().await {
            tracing::debug!(%error, "Closing a connection that only read failed");
        }
    }
}
