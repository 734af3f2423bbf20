//! Rotations of keys.
//!
//! Owns their statements. Never decides whether a step may be taken.

use sqlx::Row;

use super::engine::{Conn, query};
use super::errors::corrupt;
use super::read::Read;
use super::write::{Applied, Reply};
use crate::domain::ids::IntegrationName;
use crate::domain::rotation::KeyRotation;
use crate::store::rows::{self, EventRow, FORMAT};

/// A rotation as it is stored.
#[derive(Debug)]
pub(super) struct RotationRow {
    integration: String,
    /// The version that must be there; 0 for none.
    loaded: i64,
    body: String,
}

impl RotationRow {
    pub(super) fn new(rotation: &KeyRotation) -> Self {
        Self {
            integration: rotation.integration.to_string(),
            loaded: rows::int(rotation.version),
            body: serde_json::to_string(rotation).expect("plain data has a JSON form"),
        }
    }
}

pub(super) async fn rotation(
    conn: &mut Conn,
    integration: &IntegrationName,
    action: &'static str,
) -> Read<Option<KeyRotation>> {
    let found = query("SELECT version, format, body FROM key_rotations WHERE integration = $1")
        .bind(integration.to_string())
        .fetch_optional(conn)
        .await?;
    let Some(row) = found else {
        return Ok(Ok(None));
    };
    let (version, format, body): (i64, i64, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let what = || format!("the key rotation of {integration}");
    Ok(match rows::read_body::<KeyRotation>(what, format, &body) {
        Ok(rotation) => Ok(Some(KeyRotation {
            version: rows::uint(version),
            ..rotation
        })),
        Err(error) => Err(corrupt(action, error)),
    })
}

/// Stores a rotation unless somebody else did meanwhile; answers how many rows that changed.
pub(super) async fn put(conn: &mut Conn, row: &RotationRow, events: &[EventRow]) -> Applied {
    let put = if row.loaded == 0 {
        query(
            "INSERT INTO key_rotations (integration, version, format, body) VALUES ($1, 1, $2, $3) \
             ON CONFLICT (integration) DO NOTHING",
        )
    } else {
        query(
            "UPDATE key_rotations SET version = version + 1, format = $2, body = $3 \
             WHERE integration = $1 AND version = $4",
        )
    };
    let put = put
        .bind(row.integration.clone())
        .bind(FORMAT)
        .bind(row.body.clone());
    let put = if row.loaded == 0 {
        put
    } else {
        put.bind(row.loaded)
    };
    let put = put.execute(&mut *conn).await?.rows_affected();
    if put > 0 {
        super::write::events(conn, events).await?;
    }
    Ok(Ok(Reply::Number(put)))
}
