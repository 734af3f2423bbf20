//! The audit of a ledger in SQLite as it is stored, and its seals.
//!
//! Owns their statements. Never parses an event or a block.

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Row, query};

use super::write::{Applied, Reply, Work};
use super::{SqliteLedger, errors};
use crate::ports::audit::{AuditBlock, AuditRecord, AuditStore};
use crate::ports::ledger::Result;
use crate::store::rows::{self, IllegalWrite};

macro_rules! blocks {
    ($rest:literal) => {
        concat!(
            "SELECT number, last, header, leaves, signature FROM audit_blocks ",
            $rest
        )
    };
}

pub(super) async fn records(
    conn: &mut SqliteConnection,
    after: u64,
    limit: usize,
) -> sqlx::Result<Vec<AuditRecord>> {
    query("SELECT sequence, body FROM events WHERE sequence > $1 ORDER BY sequence LIMIT $2")
        .bind(rows::int(after))
        .bind(rows::count(limit))
        .try_map(|row: SqliteRow| {
            Ok(AuditRecord {
                sequence: rows::uint(row.try_get(0)?),
                body: row.try_get(1)?,
            })
        })
        .fetch_all(conn)
        .await
}

pub(super) async fn last(conn: &mut SqliteConnection) -> sqlx::Result<Option<AuditBlock>> {
    query(blocks!("ORDER BY number DESC LIMIT 1"))
        .try_map(read)
        .fetch_optional(conn)
        .await
}

pub(super) async fn blocks(
    conn: &mut SqliteConnection,
    from: u64,
    limit: usize,
) -> sqlx::Result<Vec<AuditBlock>> {
    query(blocks!("WHERE number >= $1 ORDER BY number LIMIT $2"))
        .bind(rows::int(from))
        .bind(rows::count(limit))
        .try_map(read)
        .fetch_all(conn)
        .await
}

fn read(row: SqliteRow) -> sqlx::Result<AuditBlock> {
    Ok(AuditBlock {
        number: rows::uint(row.try_get(0)?),
        last: rows::uint(row.try_get(1)?),
        header: row.try_get(2)?,
        leaves: row.try_get(3)?,
        signature: row.try_get(4)?,
    })
}

/// Adds a block that is the next one.
pub(super) async fn add(
    conn: &mut SqliteConnection,
    block: &AuditBlock,
    action: &'static str,
) -> Applied {
    let added = query(
        "INSERT INTO audit_blocks (number, last, header, leaves, signature) SELECT $1, $2, $3, $4, $5 \
         WHERE $1 = (SELECT COALESCE(MAX(number), 0) + 1 FROM audit_blocks)",
    )
    .bind(rows::int(block.number))
    .bind(rows::int(block.last))
    .bind(block.header.clone())
    .bind(block.leaves.clone())
    .bind(block.signature.clone())
    .execute(conn)
    .await?
    .rows_affected();
    if added == 1 {
        return Ok(Ok(Reply::Done));
    }
    let other = IllegalWrite(format!("block {} is not the next one", block.number));
    Ok(Err(errors::unavailable(action, other)))
}

#[async_trait]
impl AuditStore for SqliteLedger {
    async fn records(&self, after: u64, limit: usize) -> Result<Vec<AuditRecord>> {
        const ACTION: &str = "reading the audit";
        let mut conn = self.reader(ACTION).await?;
        records(&mut conn, after, limit)
            .await
            .map_err(|error| errors::of_statement(ACTION, error))
    }

    async fn last_block(&self) -> Result<Option<AuditBlock>> {
        const ACTION: &str = "reading the newest block of the audit";
        let mut conn = self.reader(ACTION).await?;
        last(&mut conn)
            .await
            .map_err(|error| errors::of_statement(ACTION, error))
    }

    async fn blocks(&self, from: u64, limit: usize) -> Result<Vec<AuditBlock>> {
        const ACTION: &str = "reading blocks of the audit";
        let mut conn = self.reader(ACTION).await?;
        blocks(&mut conn, from, limit)
            .await
            .map_err(|error| errors::of_statement(ACTION, error))
    }

    async fn add_block(&self, block: AuditBlock) -> Result<()> {
        self.write(Work::Seal(Box::new(block))).await.map(drop)
    }
}
