//! Looks at a ledger file beside a running process.
//!
//! Owns the one connection that never writes and takes no lock. Never repairs.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::audit;
use super::census;
use super::errors;
use super::open::OpenError;
use super::operations;
use super::read;
use super::recovery::{holds, identity};
use crate::domain::ids::IntegrationName;
use crate::domain::receipt::Receipt;
use crate::ports::audit::{AuditBlock, AuditRecord};
use crate::ports::ledger::{
    EventFilter, HoldRecord, Identity, Page, ReceiptCursor, ReceiptFilter, Result, StoredEvent,
};

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

    /// Reviews of emergency grants that nobody has closed, by integration. A file of an earlier release has none yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn open_reviews(&mut self) -> Result<Vec<(IntegrationName, u64)>> {
        const ACTION: &str = "counting open reviews";
        census::open_reviews(&mut self.conn, ACTION)
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

    /// The newest sequence; 0 when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn last_sequence(&mut self) -> Result<u64> {
        const ACTION: &str = "reading the newest sequence";
        read::last_sequence(&mut self.conn)
            .await
            .map_err(|error| errors::of_statement(ACTION, error))
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

    /// How far a sink of the audit has acknowledged, and the newest sequence. A file of an earlier release has no
    /// cursors yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn cursor(&mut self, sink: &str) -> Result<(u64, u64)> {
        const ACTION: &str = "reading the cursor of a sink";
        let cursor = audit::cursor(&mut self.conn, sink)
            .await
            .unwrap_or_else(|error| Err(errors::of_statement(ACTION, error)))?;
        let last = read::last_sequence(&mut self.conn)
            .await
            .map_err(|error| errors::of_statement(ACTION, error))?;
        Ok((cursor, last))
    }

    /// Receipts, those of the latest ends first, beginning below `before`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn receipts(
        &mut self,
        filter: &ReceiptFilter,
        before: Option<ReceiptCursor>,
    ) -> Result<Page<Receipt, ReceiptCursor>> {
        const ACTION: &str = "listing receipts";
        operations::list_receipts(&mut self.conn, filter, before, PAGE, ACTION)
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
