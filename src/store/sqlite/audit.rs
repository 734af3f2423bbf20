//! The audit of a ledger as it is stored, and its seals.
//!
//! Owns their statements. Never parses an event or a block.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sqlx::Row;

use super::engine::{self, Conn, DbRow, Handle, query};
use super::errors::{self, corrupt};
use super::ledger::answer;
use super::read::Read;
use super::write::{Applied, Reply, Work};
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

pub(super) async fn records(conn: &mut Conn, after: u64, limit: usize) -> Read<Vec<AuditRecord>> {
    let records =
        query("SELECT sequence, body FROM events WHERE sequence > $1 ORDER BY sequence LIMIT $2")
            .bind(rows::int(after))
            .bind(rows::count(limit))
            .try_map(|row: DbRow| {
                Ok(AuditRecord {
                    sequence: rows::uint(row.try_get(0)?),
                    body: row.try_get(1)?,
                })
            })
            .fetch_all(conn)
            .await?;
    Ok(Ok(records))
}

pub(super) async fn last(conn: &mut Conn, action: &'static str) -> Read<Option<AuditBlock>> {
    let found = query(blocks!("ORDER BY number DESC LIMIT 1"))
        .fetch_optional(conn)
        .await?;
    found.map_or(Ok(Ok(None)), |row| Ok(read(&row, action)?.map(Some)))
}

pub(super) async fn blocks(
    conn: &mut Conn,
    from: u64,
    limit: usize,
    action: &'static str,
) -> Read<Vec<AuditBlock>> {
    let found = query(blocks!("WHERE number >= $1 ORDER BY number LIMIT $2"))
        .bind(rows::int(from))
        .bind(rows::count(limit))
        .fetch_all(conn)
        .await?;
    let read: std::result::Result<Vec<_>, sqlx::Error> =
        found.iter().map(|row| read(row, action)).collect();
    Ok(read?.into_iter().collect())
}

fn read(row: &DbRow, action: &'static str) -> Read<AuditBlock> {
    let (leaves, signature): (&str, &str) = (row.try_get(3)?, row.try_get(4)?);
    let (Ok(leaves), Ok(signature)) = (STANDARD.decode(leaves), STANDARD.decode(signature)) else {
        let damaged = IllegalWrite("a block of the audit is not base64".to_owned());
        return Ok(Err(corrupt(action, damaged)));
    };
    Ok(Ok(AuditBlock {
        number: rows::uint(row.try_get(0)?),
        last: rows::uint(row.try_get(1)?),
        header: row.try_get(2)?,
        leaves,
        signature,
    }))
}

/// Adds a block that is the next one.
pub(super) async fn add(conn: &mut Conn, block: &AuditBlock, action: &'static str) -> Applied {
    let added = query(
        "INSERT INTO audit_blocks (number, last, header, leaves, signature) SELECT $1, $2, $3, $4, $5 \
         WHERE $1 = (SELECT COALESCE(MAX(number), 0) + 1 FROM audit_blocks)",
    )
    .bind(rows::int(block.number))
    .bind(rows::int(block.last))
    .bind(block.header.clone())
    .bind(STANDARD.encode(&block.leaves))
    .bind(STANDARD.encode(&block.signature))
    .execute(conn)
    .await?
    .rows_affected();
    if added == 1 {
        return Ok(Ok(Reply::Done));
    }
    let other = IllegalWrite(format!("block {} is not the next one", block.number));
    Ok(Err(errors::unavailable(action, other)))
}

/// How far a sink has acknowledged.
pub(super) async fn cursor(conn: &mut Conn, sink: &str) -> Read<u64> {
    let found = query("SELECT sequence FROM sink_cursors WHERE name = $1")
        .bind(sink.to_owned())
        .fetch_optional(conn)
        .await?;
    match found {
        None => Ok(Ok(0)),
        Some(row) => Ok(Ok(rows::uint(row.try_get(0)?))),
    }
}

/// Moves a cursor that stands where it is said to.
pub(super) async fn move_cursor(conn: &mut Conn, sink: &str, from: u64, to: u64) -> Applied {
    let moved = if from == 0 {
        query(
            "INSERT INTO sink_cursors (name, sequence) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET sequence = excluded.sequence WHERE sink_cursors.sequence = 0",
        )
        .bind(sink.to_owned())
        .bind(rows::int(to))
    } else {
        query("UPDATE sink_cursors SET sequence = $2 WHERE name = $1 AND sequence = $3")
            .bind(sink.to_owned())
            .bind(rows::int(to))
            .bind(rows::int(from))
    };
    let moved = moved.execute(conn).await?.rows_affected();
    Ok(Ok(Reply::Number(moved)))
}

#[async_trait]
impl AuditStore for Handle {
    async fn records(&self, after: u64, limit: usize) -> Result<Vec<AuditRecord>> {
        answer!(self, "reading the audit", |conn, _action| records(
            conn, after, limit
        ))
    }

    async fn last_block(&self) -> Result<Option<AuditBlock>> {
        answer!(self, "reading the newest block", |conn, action| last(
            conn, action
        ))
    }

    async fn blocks(&self, from: u64, limit: usize) -> Result<Vec<AuditBlock>> {
        answer!(self, "reading blocks of the audit", |conn, action| blocks(
            conn, from, limit, action
        ))
    }

    async fn add_block(&self, block: AuditBlock) -> Result<()> {
        self.write(Work::Seal(Box::new(block))).await.map(drop)
    }

    async fn cursor(&self, sink: &str) -> Result<u64> {
        answer!(self, "reading the cursor of a sink", |conn, _action| {
            cursor(conn, sink)
        })
    }

    async fn move_cursor(&self, sink: &str, from: u64, to: u64) -> Result<bool> {
        let work = Work::MoveCursor {
            sink: sink.to_owned(),
            from,
            to,
        };
        Ok(matches!(self.write(work).await?, Reply::Number(1)))
    }
}
