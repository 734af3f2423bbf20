//! Identity, generation and holds of a ledger.
//!
//! Owns their statements. Never repairs.

use sqlx::Row;

use super::engine::{Conn, query};
use super::errors::{corrupt, unavailable};
use super::read::Read;
use super::write::{Applied, Reply};
use crate::domain::Timestamp;
use crate::ports::ledger::{HoldRecord, Identity};
use crate::store::rows::{self, EventRow, FORMAT, IllegalWrite};

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

pub(super) async fn identity(conn: &mut Conn, action: &'static str) -> Read<Identity> {
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
    conn: &mut Conn,
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

pub(super) async fn holds(conn: &mut Conn, action: &'static str) -> Read<Vec<HoldRecord>> {
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

pub(super) async fn put_hold(conn: &mut Conn, row: &HoldRow, events: &[EventRow]) -> Applied {
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

pub(super) async fn end_hold(conn: &mut Conn, integration: &str, events: &[EventRow]) -> Applied {
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
    conn: &mut Conn,
    action: &'static str,
) -> Read<Option<Timestamp>> {
    let at: Option<i64> = query(
        "SELECT MAX(at) FROM (SELECT at FROM events ORDER BY sequence DESC LIMIT $1) AS newest",
    )
    .bind(rows::count(rows::NEWEST))
    .fetch_one(conn)
    .await?
    .try_get(0)?;
    Ok(match at.map(rows::instant).transpose() {
        Ok(at) => Ok(at),
        Err(error) => Err(corrupt(action, error)),
    })
}
