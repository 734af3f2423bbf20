//! The layout of the file: which one it has, and bringing an older one up.
//!
//! Owns the list of migrations. Never edits one that was released.

use std::path::Path;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Row, SqlSafeStr, query};

use super::open::OpenError;

/// Why a layout could not be brought up.
pub(super) enum MigrateFailure {
    Open(OpenError),
    Database(sqlx::Error),
}

/// Every migration, oldest first; one that was released is never edited.
fn migrations() -> Vec<Migration> {
    vec![
        Migration::new(
            1,
            "ledger".into(),
            MigrationType::Simple,
            include_str!("../migrations/0001_ledger.sql").into_sql_str(),
            false,
        ),
        Migration::new(
            2,
            "receipts".into(),
            MigrationType::Simple,
            include_str!("../migrations/0002_receipts.sql").into_sql_str(),
            false,
        ),
        Migration::new(
            3,
            "recovery".into(),
            MigrationType::Simple,
            include_str!("../migrations/0003_recovery.sql").into_sql_str(),
            false,
        ),
        Migration::new(
            4,
            "endings".into(),
            MigrationType::Simple,
            include_str!("../migrations/0004_endings.sql").into_sql_str(),
            false,
        ),
        Migration::new(
            5,
            "census".into(),
            MigrationType::Simple,
            include_str!("../migrations/0005_census.sql").into_sql_str(),
            false,
        ),
        Migration::new(
            9,
            "watched".into(),
            MigrationType::Simple,
            include_str!("../migrations/0009_watched.sql").into_sql_str(),
            false,
        ),
        Migration::new(
            10,
            "audit blocks".into(),
            MigrationType::Simple,
            include_str!("../migrations/0010_audit_blocks.sql").into_sql_str(),
            false,
        ),
        Migration::new(
            12,
            "sights".into(),
            MigrationType::Simple,
            include_str!("../migrations/0012_sights.sql").into_sql_str(),
            false,
        ),
        Migration::new(
            13,
            "sink cursors".into(),
            MigrationType::Simple,
            include_str!("../migrations/0013_sink_cursors.sql").into_sql_str(),
            false,
        ),
        Migration::new(
            14,
            "key rotations".into(),
            MigrationType::Simple,
            include_str!("../migrations/0014_key_rotations.sql").into_sql_str(),
            false,
        ),
        Migration::new(
            15,
            "used tokens".into(),
            MigrationType::Simple,
            include_str!("../migrations/0015_used_tokens.sql").into_sql_str(),
            false,
        ),
    ]
}

/// Whether a file that has a list of migrations has exactly those of this release, so that there is nothing to bring
/// up. Whatever else is in the list, [`migrate`] judges.
pub(super) async fn is_current(conn: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let applied = query("SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version")
        .fetch_all(conn)
        .await?;
    let known = migrations();
    if applied.len() != known.len() {
        return Ok(false);
    }
    for (row, one) in applied.iter().zip(&known) {
        let (version, checksum, success): (i64, Vec<u8>, bool) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if version != one.version || checksum != *one.checksum || !success {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Brings the layout up to that of this release.
pub(super) async fn migrate(
    conn: &mut SqliteConnection,
    path: &Path,
) -> Result<(), MigrateFailure> {
    let migrations = migrations();
    let known = migrations.iter().map(|one| one.version).max().unwrap_or(0);
    match Migrator::with_migrations(migrations).run(conn).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(found)) if found > known => {
            Err(MigrateFailure::Open(OpenError::NewerSchema {
                path: path.to_owned(),
                found,
                known,
            }))
        }
        // A migration that was released is never edited, so it is the file that changed.
        Err(error @ (MigrateError::VersionMismatch(_) | MigrateError::Dirty(_))) => {
            Err(MigrateFailure::Open(OpenError::Damaged {
                path: path.to_owned(),
                detail: error.to_string(),
            }))
        }
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
            Err(MigrateFailure::Database(error))
        }
        Err(other) => Err(MigrateFailure::Open(OpenError::Database {
            action: "migrating",
            path: path.to_owned(),
            source: other.into(),
        })),
    }
}
