//! Bringing the schema up.
//!
//! Owns the list of migrations and what a release may work with. Everything is one transaction: a migration that was
//! cut short was not applied. Never edits one that was released; each only adds, so that an older release works on.

use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnection;
use sqlx::{Row, raw_sql};

use super::connect::{Connector, OpenError, Options};
use super::engine::{self, query};

/// One step of the schema.
struct Migration {
    version: i64,
    /// The newest version that a release must know to work with the schema after this step. It stays where it is as
    /// long as steps only add.
    needs: i64,
    text: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        needs: 1,
        text: include_str!("migrations/0001_ledger.sql"),
    },
    Migration {
        version: 2,
        needs: 1,
        text: include_str!("migrations/0002_ownership.sql"),
    },
    Migration {
        version: 3,
        needs: 1,
        text: include_str!("migrations/0003_audit_blocks.sql"),
    },
    Migration {
        version: 4,
        needs: 1,
        text: include_str!("migrations/0004_sights.sql"),
    },
    Migration {
        version: 5,
        needs: 1,
        text: include_str!("migrations/0005_sink_cursors.sql"),
    },
    Migration {
        version: 6,
        needs: 1,
        text: include_str!("migrations/0006_key_rotations.sql"),
    },
    Migration {
        version: 7,
        needs: 1,
        text: include_str!("migrations/0007_used_tokens.sql"),
    },
];

/// Newest version that this release knows.
const KNOWN: i64 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// One at a time; the lock ends with its transaction.
const BEGIN: &str =
    "BEGIN; SET LOCAL lock_timeout = '60s'; SELECT pg_advisory_xact_lock(5501183276341)";

const LIST: &str = "CREATE TABLE IF NOT EXISTS latchkey_schema (\
     version BIGINT NOT NULL PRIMARY KEY, needs BIGINT NOT NULL, checksum TEXT NOT NULL, \
     applied_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())";

/// Brings the schema up, for a role of its own. Answers the versions that were applied now.
///
/// # Errors
/// [`OpenError`] when the database cannot be reached or changed, or is newer than this release can work with.
pub async fn migrate(options: &Options) -> Result<Vec<i64>, OpenError> {
    let mut conn = Connector::new(options).first().await?;
    bring_up(&mut conn).await
}

pub(super) async fn bring_up(conn: &mut PgConnection) -> Result<Vec<i64>, OpenError> {
    let failed = |source| OpenError::Database {
        action: "bringing up the schema",
        source,
    };
    engine::run(conn, BEGIN).await.map_err(failed)?;
    let applied = apply(conn).await;
    let end = if applied.is_ok() {
        "COMMIT"
    } else {
        "ROLLBACK"
    };
    engine::run(conn, end).await.map_err(failed)?;
    applied
}

async fn apply(conn: &mut PgConnection) -> Result<Vec<i64>, OpenError> {
    let failed = |source| OpenError::Database {
        action: "bringing up the schema",
        source,
    };
    let mut known = Applied::read(conn).await?;
    known.examine()?;
    if known.0.is_empty() {
        engine::run(conn, LIST).await.map_err(failed)?;
        known = Applied::default();
    }
    let mut done = Vec::new();
    for one in MIGRATIONS {
        if known.0.iter().any(|(version, ..)| *version == one.version) {
            continue;
        }
        raw_sql(one.text)
            .execute(&mut *conn)
            .await
            .map_err(failed)?;
        query("INSERT INTO latchkey_schema (version, needs, checksum) VALUES ($1, $2, $3)")
            .bind(one.version)
            .bind(one.needs)
            .bind(checksum(one.text))
            .execute(&mut *conn)
            .await
            .map_err(failed)?;
        done.push(one.version);
    }
    Ok(done)
}

/// Finds whether this release can work with the schema as it is.
pub(super) async fn check(conn: &mut PgConnection) -> Result<(), OpenError> {
    let failed = |source| OpenError::Database {
        action: "reading the schema",
        source,
    };
    engine::run(conn, "BEGIN READ ONLY").await.map_err(failed)?;
    let applied = Applied::read(conn).await;
    engine::run(conn, "ROLLBACK").await.map_err(failed)?;
    let applied = applied?;
    applied.examine()?;
    let found = applied.0.iter().map(|(version, ..)| *version).max();
    match found {
        Some(found) if found >= KNOWN => Ok(()),
        found => Err(OpenError::OlderSchema {
            found: found.unwrap_or(0),
            known: KNOWN,
        }),
    }
}

/// What the database says was applied: version, what it needs, checksum.
#[derive(Default)]
struct Applied(Vec<(i64, i64, String)>);

impl Applied {
    async fn read(conn: &mut PgConnection) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Database {
            action: "reading the schema",
            source,
        };
        let there: bool = query("SELECT to_regclass('latchkey_schema') IS NOT NULL")
            .fetch_one(&mut *conn)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(failed)?;
        if !there {
            return Ok(Self::default());
        }
        let rows = query("SELECT version, needs, checksum FROM latchkey_schema ORDER BY version")
            .fetch_all(conn)
            .await
            .map_err(failed)?;
        let mut applied = Vec::with_capacity(rows.len());
        for row in rows {
            let one = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
            applied.push(one().map_err(failed)?);
        }
        Ok(Self(applied))
    }

    fn examine(&self) -> Result<(), OpenError> {
        for (version, needs, found) in &self.0 {
            if *needs > KNOWN {
                return Err(OpenError::NewerSchema {
                    needed: *needs,
                    known: KNOWN,
                });
            }
            let ours = MIGRATIONS.iter().find(|one| one.version == *version);
            if ours.is_some_and(|one| checksum(one.text) != *found) {
                return Err(OpenError::Foreign { version: *version });
            }
        }
        Ok(())
    }
}

fn checksum(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(rows: &[(i64, i64)]) -> Applied {
        let text = |version: i64| {
            let ours = MIGRATIONS.iter().find(|one| one.version == version);
            ours.map_or_else(String::new, |one| checksum(one.text))
        };
        Applied(
            rows.iter()
                .map(|(version, needs)| (*version, *needs, text(*version)))
                .collect(),
        )
    }

    #[test]
    fn a_newer_schema_that_only_adds_is_worked_with_and_one_that_needs_more_is_refused() {
        assert!(applied(&[(1, 1), (KNOWN + 1, KNOWN)]).examine().is_ok());
        assert!(matches!(
            applied(&[(1, 1), (KNOWN + 1, KNOWN + 1)]).examine(),
            Err(OpenError::NewerSchema { .. })
        ));
    }

    #[test]
    fn a_migration_that_was_changed_afterwards_is_noticed() {
        let mut rows = applied(&[(1, 1)]);
        rows.0[0].2.push('0');
        assert!(matches!(
            rows.examine(),
            Err(OpenError::Foreign { version: 1 })
        ));
    }

    #[test]
    fn versions_rise_and_none_needs_more_than_itself() {
        for pair in MIGRATIONS.windows(2) {
            assert!(pair[0].version < pair[1].version && pair[0].needs <= pair[1].needs);
        }
        assert!(MIGRATIONS.iter().all(|one| one.needs <= one.version));
    }
}
