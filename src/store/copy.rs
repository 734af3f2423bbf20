//! A whole ledger from one database to another: the same rows, the same identity.
//!
//! Owns the list of tables and their columns. Never merges: the target must be empty, and nobody may work on either.

use std::path::PathBuf;

use async_trait::async_trait;

use super::{postgres, sqlite};

/// Rows that are read and written at a time; with the values of each of them a text stays within what SQLite binds.
const PAGE: i64 = 500;

/// Where a ledger is.
#[derive(Debug)]
pub enum Place {
    /// A SQLite file.
    File(PathBuf),
    /// A PostgreSQL database.
    Server(Box<postgres::Options>),
}

/// Why a ledger cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The file cannot be opened.
    #[error(transparent)]
    File(#[from] sqlite::OpenError),
    /// The database cannot be opened.
    #[error(transparent)]
    Server(#[from] postgres::OpenError),
    /// Something is in the target already.
    #[error("the target holds a ledger already: copy to an empty one")]
    NotEmpty,
    /// Replicas work on one of them.
    #[error("replicas work on the ledger: stop them first")]
    InUse,
    /// A row could not be read or written.
    #[error("copying table {table}")]
    Rows {
        /// Which table.
        table: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
}

/// A value of a row.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Text(Option<String>),
    Number(Option<i64>),
}

/// A table; the first columns are its key.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) key: usize,
    pub(crate) text: &'static [&'static str],
    pub(crate) numbers: &'static [&'static str],
    /// Whether the numbers come first.
    numbers_first: bool,
}

impl Table {
    /// Columns in the order in which they are read and written.
    pub(crate) fn columns(&self) -> Vec<(&'static str, Kind)> {
        let text = self.text.iter().map(|name| (*name, Kind::Text));
        let numbers = self.numbers.iter().map(|name| (*name, Kind::Number));
        if self.numbers_first {
            numbers.chain(text).collect()
        } else {
            text.chain(numbers).collect()
        }
    }
}

const fn table(
    name: &'static str,
    key: usize,
    text: &'static [&'static str],
    numbers: &'static [&'static str],
) -> Table {
    Table {
        name,
        key,
        text,
        numbers,
        numbers_first: false,
    }
}

/// Every table but the census, which the database counts by itself.
pub(crate) const TABLES: &[Table] = &[
    table("facts", 1, &["name", "value"], &[]),
    table("meta", 1, &["name"], &["value"]),
    table("organizations", 1, &["organization_id", "integration"], &[]),
    table("holds", 1, &["integration", "body"], &["format"]),
    table(
        "grants",
        1,
        &[
            "id",
            "integration",
            "subject",
            "caller",
            "request_id",
            "state",
            "beneficiary",
            "targets",
            "cause",
            "body",
        ],
        &[
            "created_at",
            "expires_at",
            "ended_at",
            "version",
            "format",
            "ends_by",
        ],
    ),
    table(
        "members",
        2,
        &["integration", "subject", "body"],
        &[
            "version",
            "owned",
            "blocked",
            "due_at",
            "due_rank",
            "format",
            "removal_due_at",
            "removal_weight",
            "forgotten",
            "watched",
        ],
    ),
    table(
        "requests",
        2,
        &["caller", "request_id", "kind", "fingerprint", "grant_id"],
        &["remember_until"],
    ),
    table(
        "receipts",
        1,
        &[
            "grant_id",
            "integration",
            "subject",
            "beneficiary",
            "caller",
            "body",
        ],
        &["ended_at", "is_open", "format"],
    ),
    Table {
        name: "events",
        key: 1,
        text: &[
            "integration",
            "subject",
            "grant_id",
            "caller",
            "kind",
            "body",
        ],
        numbers: &["sequence", "at", "format"],
        numbers_first: true,
    },
    Table {
        name: "audit_blocks",
        key: 1,
        text: &["header", "leaves", "signature"],
        numbers: &["number", "last"],
        numbers_first: true,
    },
    table("sink_cursors", 1, &["name"], &["sequence"]),
    table(
        "key_rotations",
        1,
        &["integration", "body"],
        &["version", "format"],
    ),
    table(
        "used_tokens",
        1,
        &["token", "kind", "grant_id"],
        &["used_at", "forget_after"],
    ),
    table(
        "reviews",
        1,
        &["grant_id", "integration", "body"],
        &["is_open", "format"],
    ),
];

/// One end of a copy, in one transaction.
#[async_trait]
pub(crate) trait End: Send {
    /// Begins: to be read from, or to be written to.
    async fn begin(&mut self, reads: bool) -> Result<(), sqlx::Error>;
    /// Whether replicas work on it.
    async fn is_in_use(&mut self) -> Result<bool, sqlx::Error>;
    /// Whether nothing was ever promised there.
    async fn is_empty(&mut self) -> Result<bool, sqlx::Error>;
    /// Drops what a new ledger says about itself.
    async fn make_room(&mut self) -> Result<(), sqlx::Error>;
    /// The next rows after a row, in the order of the key.
    async fn page(
        &mut self,
        table: &Table,
        after: Option<&[Cell]>,
        limit: i64,
    ) -> Result<Vec<Vec<Cell>>, sqlx::Error>;
    /// Writes rows, at least one.
    async fn put(&mut self, table: &Table, rows: Vec<Vec<Cell>>) -> Result<(), sqlx::Error>;
    /// Makes it durable.
    async fn commit(&mut self) -> Result<(), sqlx::Error>;
}

async fn open(place: &Place) -> Result<Box<dyn End>, CopyError> {
    Ok(match place {
        Place::File(path) => Box::new(sqlite::end_of_copy(path).await?),
        Place::Server(options) => Box::new(postgres::end_of_copy(options).await?),
    })
}

/// Copies a ledger. Answers how many rows of each table.
///
/// # Errors
/// [`CopyError`]; then the target is as it was.
pub async fn copy(from: &Place, to: &Place) -> Result<Vec<(&'static str, u64)>, CopyError> {
    let failed = |table| move |source| CopyError::Rows { table, source };
    let (mut source, mut target) = (open(from).await?, open(to).await?);
    source.begin(true).await.map_err(failed("meta"))?;
    target.begin(false).await.map_err(failed("meta"))?;
    if source.is_in_use().await.map_err(failed("ownership"))?
        || target.is_in_use().await.map_err(failed("ownership"))?
    {
        return Err(CopyError::InUse);
    }
    if !target.is_empty().await.map_err(failed("events"))? {
        return Err(CopyError::NotEmpty);
    }
    target.make_room().await.map_err(failed("meta"))?;
    let mut copied = Vec::new();
    for table in TABLES {
        let (mut count, mut after) = (0, None);
        loop {
            let rows = source
                .page(table, after.as_deref(), PAGE)
                .await
                .map_err(failed(table.name))?;
            let Some(last) = rows.last() else { break };
            after = Some(last[..table.key].to_vec());
            count += rows.len() as u64;
            target.put(table, rows).await.map_err(failed(table.name))?;
        }
        copied.push((table.name, count));
    }
    target.commit().await.map_err(failed("events"))?;
    Ok(copied)
}
