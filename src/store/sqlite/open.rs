//! Opening the file: who may have it, whether it is whole, and which layout it has.
//!
//! Owns the files beside the ledger and every reason not to start. Never repairs: a damaged ledger is named, kept as
//! it is, and left to an operator.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, query, query_scalar};

use super::errors;
use super::layout::{self, MigrateFailure};
use super::log::{self, Finding};

/// Page cache of the connection that writes, in KiB. Negative numbers of the pragma are KiB.
const WRITER_CACHE: &str = "-2048";
/// Page cache of each connection that reads: the system's own cache holds the file, and this one must not grow with it.
const READER_CACHE: &str = "-512";

/// What SQLite may hold in all, in bytes; beyond it a cache uses its own oldest page again instead of growing. The
/// caches above are bounds of each connection, and together with what the connections need they would come to twice
/// as much.
const HEAP: &str = "3145728";

/// "LKEY" in the header of the file, so that another application's database is not taken for a ledger.
const APPLICATION_ID: i64 = 0x4c4b_4559;

/// How the ledger is opened. The defaults are for production.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Connections for reading; each costs a thread and its page cache. Default 4.
    pub readers: u32,
    /// Writes that may wait while a commit is in flight; beyond it callers wait for a place. Default 1,024.
    pub queue: usize,
    /// Most writes in one commit: bounds how long one commit takes. Default 512.
    pub batch: usize,
    /// Most pages (4 KiB each) that the file may grow to; no bound by default. Beyond it the ledger is unavailable
    /// for writing, exactly as on a full disk.
    pub max_pages: Option<u32>,
    /// Files up to this size in bytes are checked whole at open; beyond it the check would hold back the first
    /// revocation after a restart, and [`super::SqliteLedger::verify`] does it later, beside the work. Default
    /// 64 MiB, which takes less than half a second on a small machine.
    pub check_up_to: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            readers: 4,
            queue: 1024,
            batch: 512,
            max_pages: None,
            check_up_to: 64 << 20,
        }
    }
}

/// Why the ledger cannot be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it cannot be made or opened.
    #[error(
        "{action} {}: the ledger needs a directory that this process can write to; mount a volume there or set another path",
        path.display()
    )]
    Files {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another process has the ledger open.
    #[error(
        "the ledger {} is in use by another process: stop that one first; two writers on one file are refused",
        path.display()
    )]
    Locked {
        /// The ledger.
        path: PathBuf,
    },
    /// The file is a database of something else.
    #[error(
        "{} is a database, but not a Latchkey ledger: set the ledger path to a file of its own",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer release wrote the file.
    #[error(
        "the ledger {} has schema version {found}, this release knows versions up to {known}: run the newer release again, or restore a backup from before the upgrade",
        path.display()
    )]
    NewerSchema {
        /// The ledger.
        path: PathBuf,
        /// Version in the file.
        found: i64,
        /// Newest version known here.
        known: i64,
    },
    /// The file is torn or was overwritten.
    #[error(
        "the ledger {} is damaged ({detail}): keep the file and those beside it, restore the latest backup to a new path, or salvage with `sqlite3 OLD .recover | sqlite3 NEW`; docs/ledger.md has the steps",
        path.display()
    )]
    Damaged {
        /// The ledger.
        path: PathBuf,
        /// The first thing found wrong.
        detail: String,
    },
    /// It would have to be made or brought up to date, and that was not permitted.
    #[error(
        "the ledger {} would have to be made or brought up to date, and this start may not do that",
        path.display()
    )]
    Withheld {
        /// The ledger.
        path: PathBuf,
    },
    /// The database refused for another reason.
    #[error("{action} the ledger {}", path.display())]
    Database {
        /// What was being done.
        action: &'static str,
        /// The ledger.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Whether this start may make a ledger or change the layout of one, asked once and only where something is to be made
/// or changed.
pub(super) struct Permission<P>(Option<P>);

impl<P: Future<Output = bool> + Send> Permission<P> {
    pub(super) fn new(asked: P) -> Self {
        Self(Some(asked))
    }

    /// Waits until it is permitted.
    pub(super) async fn granted(&mut self, path: &Path) -> Result<(), OpenError> {
        let Some(asked) = self.0.take() else {
            return Ok(());
        };
        if asked.await {
            return Ok(());
        }
        Err(OpenError::Withheld {
            path: path.to_owned(),
        })
    }
}

/// The claim of one process on one ledger; let go when dropped or when the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes the directory and the file, readable by their owner only, and takes the lock.
pub(super) fn files(path: &Path) -> Result<Lock, OpenError> {
    let failed = |action, path: &Path, source| OpenError::Files {
        action,
        path: path.to_owned(),
        source,
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| failed("creating the directory", directory, source))?;
    let open = |path: &Path| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
    };
    let lock_path = beside(path, ".lock");
    let lock = open(&lock_path).map_err(|source| failed("opening", &lock_path, source))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(OpenError::Locked {
                path: path.to_owned(),
            });
        }
        Err(errno) => return Err(failed("locking", &lock_path, errno.into())),
    }
    let is_new = !path.exists();
    let file = open(path).map_err(|source| failed("opening", path, source))?;
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(|source| failed("restricting", path, source))?;
    if is_new {
        // The name must survive a power cut as well as the content.
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| failed("syncing", directory, source))?;
    }
    Ok(Lock { _file: lock })
}

fn connect_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        // Mapped pages would count as ours and grow with the file.
        .pragma("mmap_size", "0")
        .pragma("soft_heap_limit", HEAP)
        .disable_statement_logging()
}

/// Settings of the one connection that writes: every commit is on the disk before it returns.
pub(super) fn writer_options(path: &Path, options: &Options) -> SqliteConnectOptions {
    let settings = connect_options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // On macOS fsync alone leaves data in the drive's cache.
        .pragma("fullfsync", "ON")
        .pragma("checkpoint_fullfsync", "ON")
        .pragma("journal_size_limit", "67108864")
        .pragma("cache_size", WRITER_CACHE)
        .pragma("trusted_schema", "OFF");
    match options.max_pages {
        Some(pages) => settings.pragma("max_page_count", pages.to_string()),
        None => settings,
    }
}

/// Settings of a connection that only reads.
pub(super) fn reader_options(path: &Path) -> SqliteConnectOptions {
    connect_options(path)
        .pragma("query_only", "ON")
        .pragma("cache_size", READER_CACHE)
}

/// Connections that only read, each answer a snapshot.
pub(super) fn readers(path: &Path, options: &Options) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(options.readers.max(1))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_lazy_with(reader_options(path))
}

/// Opens the writer's connection on a file that is whole, ours, and of a layout that is known or can be brought up.
/// Before it is permitted, the file is only looked at.
pub(super) async fn writer(
    path: &Path,
    options: &Options,
    permission: &mut Permission<impl Future<Output = bool> + Send>,
) -> Result<SqliteConnection, OpenError> {
    let failed = |action: &'static str, error: sqlx::Error| {
        if errors::is_corrupt(&error) {
            OpenError::Damaged {
                path: path.to_owned(),
                detail: error.to_string(),
            }
        } else {
            OpenError::Database {
                action,
                path: path.to_owned(),
                source: error.into(),
            }
        }
    };
    let log = beside(path, "-wal");
    match log::examine(&log) {
        Ok(Finding::Whole) => {}
        // Not a reason to stay away: a power cut leaves this behind, and then nothing was answered.
        Ok(Finding::TornEnd) => tracing::error!(
            log = %log.display(),
            "The log of the ledger ends in a commit that cannot be read: torn by a power cut before it was answered, or damaged; what it held is not known"
        ),
        Ok(Finding::Damaged(detail)) => {
            return Err(OpenError::Damaged {
                path: path.to_owned(),
                detail: format!("its log {}: {detail}", log.display()),
            });
        }
        Err(source) => {
            return Err(OpenError::Files {
                action: "reading",
                path: log,
                source,
            });
        }
    }
    // Looked at through a connection that cannot write: closing one that can would write the log of a damaged file
    // back into it. A first start that was cut short before there was a log leaves a journal, which only one that can
    // write undoes; there is nothing in the file yet.
    let is_first_start = beside(path, "-journal").exists();
    if is_first_start {
        permission.granted(path).await?;
    }
    let mut conn = connect_options(path)
        .read_only(!is_first_start)
        .connect()
        .await
        .map_err(|error| failed("opening", error))?;
    let (application, tables, ours): (i64, i64, i64) = (
        query_scalar("PRAGMA application_id")
            .fetch_one(&mut conn)
            .await
            .map_err(|error| failed("reading the header of", error))?,
        query_scalar("SELECT COUNT(*) FROM sqlite_master")
            .fetch_one(&mut conn)
            .await
            .map_err(|error| failed("reading the schema of", error))?,
        query_scalar("SELECT COUNT(*) FROM sqlite_master WHERE name = '_sqlx_migrations'")
            .fetch_one(&mut conn)
            .await
            .map_err(|error| failed("reading the schema of", error))?,
    );
    let is_empty = tables == 0 && application == 0;
    // A first start that was cut short has made the list of migrations and not yet its mark.
    let is_ours = application == APPLICATION_ID || (application == 0 && ours == 1);
    if !is_empty && !is_ours {
        return Err(OpenError::Foreign {
            path: path.to_owned(),
        });
    }
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    if size <= options.check_up_to {
        let found = structure(&mut conn)
            .await
            .map_err(|error| failed("checking", error))?;
        if let Some(detail) = found {
            return Err(OpenError::Damaged {
                path: path.to_owned(),
                detail,
            });
        }
    }
    let reading = |error| failed("reading the layout of", error);
    let mode: String = query_scalar("PRAGMA journal_mode")
        .fetch_one(&mut conn)
        .await
        .map_err(reading)?;
    let is_current = application == APPLICATION_ID
        && mode == "wal"
        && ours == 1
        && layout::is_current(&mut conn).await.map_err(reading)?;
    if let Err(error) = conn.close().await {
        return Err(failed("closing", error));
    }
    if !is_current {
        permission.granted(path).await?;
    }
    let mut conn = writer_options(path, options)
        .connect()
        .await
        .map_err(|error| failed("opening", error))?;
    if is_current {
        return Ok(conn);
    }
    layout::migrate(&mut conn, path)
        .await
        .map_err(|error| match error {
            MigrateFailure::Open(error) => error,
            MigrateFailure::Database(error) => failed("migrating", error),
        })?;
    if application != APPLICATION_ID {
        query("PRAGMA application_id = 1280001369")
            .execute(&mut conn)
            .await
            .map_err(|error| failed("marking", error))?;
    }
    Ok(conn)
}

/// The same for whoever may make and change it.
pub(super) async fn permitted_writer(
    path: &Path,
    options: &Options,
) -> Result<SqliteConnection, OpenError> {
    let mut permission = Permission::new(std::future::ready(true));
    writer(path, options, &mut permission).await
}

/// Opens the writer's connection again after one that failed to write, on the file that this process holds.
///
/// What a failed fsync leaves in the log may look written and never reach the disk, and the next fsync says nothing
/// of it. So the log is not trusted as it stands: what is valid in it is written into the file anew and synced there
/// before anything else is promised.
pub(super) async fn anew(path: &Path, options: &Options) -> Result<SqliteConnection, sqlx::Error> {
    let mut conn = writer_options(path, options).connect().await?;
    let busy: i64 = query_scalar("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(&mut conn)
        .await?;
    if busy == 0 {
        Ok(conn)
    } else {
        Err(sqlx::Error::Protocol(
            "readers keep the log from being written into the file".to_owned(),
        ))
    }
}

/// The first thing wrong with the structure of the file, indexes and constraints included; `None` when it is whole.
pub(super) async fn structure(conn: &mut SqliteConnection) -> Result<Option<String>, sqlx::Error> {
    let found: String = query_scalar("PRAGMA integrity_check(1)")
        .fetch_one(conn)
        .await?;
    Ok((found != "ok").then_some(found))
}
