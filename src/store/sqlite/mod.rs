//! The ledger in one SQLite file: durable to the disk with every answer.
//!
//! Owns the file, its lock, one connection that writes (WAL, `synchronous=FULL`, group commit) and a few that read.
//! The writer runs in the task that the caller gives it. Never answers a write before its commit returned, and never
//! opens a file that another process has.

mod accept;
mod audit;
mod bench;
mod census;
mod copy;
mod engine;
mod errors;
mod glance;
mod layout;
mod ledger;
mod log;
mod open;
mod operations;
mod read;
mod recovery;
mod reviews;
mod rotations;
mod sights;
mod together;
mod wanted;
mod write;
mod writer;

#[cfg(test)]
mod plan_tests;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqlitePool;
use tokio::sync::{mpsc, watch};

pub use self::bench::{BareCommits, Filled, bench_bare_commits, bench_fill, bench_first_page};
pub use self::glance::Glance;
use self::open::Permission;
pub use self::open::{OpenError, Options};
use self::wanted::Wanted;
use self::writer::{Command, Counters, Writer};
use crate::domain::Timestamp;
use crate::domain::ids::IntegrationName;
use crate::ports::ledger::Result;

/// Handle of the ledger; cloning it is cheap.
#[derive(Clone)]
pub struct SqliteLedger {
    path: Arc<PathBuf>,
    commands: mpsc::Sender<Command>,
    readers: SqlitePool,
    last_sequence: watch::Receiver<u64>,
    counters: Arc<Counters>,
}

impl fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteLedger")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl SqliteLedger {
    /// Opens or creates the ledger at `path`, brings its schema up, and answers a handle and the writer.
    ///
    /// The writer is a future that must run for as long as the ledger is used: give it to a named, supervised task.
    /// It ends after [`crate::ports::Ledger::close`] or when every handle is gone, and then the file is let go. When it is dropped
    /// before, writes fail as unavailable, or as of unknown outcome where one was under way.
    ///
    /// # Errors
    /// [`OpenError`] in words for an operator: no place to write, another process, another application's file, a
    /// newer schema, or damage.
    pub async fn open(
        path: &Path,
        options: Options,
    ) -> std::result::Result<(Self, impl Future<Output = ()> + Send + use<>), OpenError> {
        Self::open_when(path, options, std::future::ready(true)).await
    }

    /// The same for a start that may yet be refused: a ledger is made, or its layout brought up, only once
    /// `permission` answers that it may be; what is there and up to date is opened meanwhile, and not written.
    ///
    /// # Errors
    /// The same, and [`OpenError::Withheld`] when there was something to make or to bring up and it may not be; then
    /// the ledger is as it was.
    pub async fn open_when<P>(
        path: &Path,
        options: Options,
        permission: P,
    ) -> std::result::Result<(Self, impl Future<Output = ()> + Send + use<P>), OpenError>
    where
        P: Future<Output = bool> + Send,
    {
        let mut permission = Permission::new(permission);
        if !path.exists() {
            permission.granted(path).await?;
        }
        let lock = open::files(path)?;
        let mut conn = open::writer(path, &options, &mut permission).await?;
        let last = read::last_sequence(&mut conn)
            .await
            .map_err(|error| OpenError::Database {
                action: "reading the last audit sequence of",
                path: path.to_owned(),
                source: error.into(),
            })?;
        let readers = open::readers(path, &options);
        let (commands, receiver) = mpsc::channel(options.queue.max(1));
        let (sender, last_sequence) = watch::channel(last);
        let counters = Arc::new(Counters::default());
        let ledger = Self {
            path: Arc::new(path.to_owned()),
            commands,
            readers: readers.clone(),
            last_sequence,
            counters: Arc::clone(&counters),
        };
        let writer = Writer {
            source: engine::Source {
                path: path.to_owned(),
                options,
            },
            conn: Some(conn),
            commands: receiver,
            last_sequence: sender,
            counters,
            readers,
            held: lock,
        };
        Ok((ledger, writer.run()))
    }

    /// Commits made since the ledger was opened. Fewer than [`Self::writes`] when writes came together.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.counters.commits.load(Ordering::Relaxed)
    }

    /// Writes that were part of a commit since the ledger was opened.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.counters.writes.load(Ordering::Relaxed)
    }

    /// Checks every page of the file and the checksum of every body. It reads the whole file and holds nobody up, nor
    /// the end of the process: dropping the future interrupts what SQLite is doing for it.
    ///
    /// # Errors
    /// `LedgerError::Corrupt` with the first thing found wrong, or `LedgerError::Unavailable`.
    pub async fn verify(&self) -> Result<()> {
        const ACTION: &str = "checking every page and every row";
        let mut conn = self.reader(ACTION).await?;
        let wanted = Wanted::by(&mut conn)
            .await
            .map_err(|error| errors::of_statement(ACTION, error))?;
        let found = async {
            match open::structure(&mut conn).await? {
                Some(detail) => Ok(Some(detail)),
                None => read::damaged_body(&mut conn).await,
            }
        }
        .await
        .map_err(|error| errors::of_statement(ACTION, error))?;
        drop(wanted);
        match found {
            None => Ok(()),
            Some(detail) => Err(errors::corrupt(ACTION, detail)),
        }
    }

    /// A connection that reads.
    async fn reader(&self, action: &'static str) -> Result<PoolConnection<Sqlite>> {
        self.readers
            .acquire()
            .await
            .map_err(|error| errors::of_statement(action, error))
    }

    /// The claim that its writes are bound to.
    fn fence(&self) -> Option<engine::Fence> {
        None
    }

    /// The bound of a write that moves an end: nobody else can have begun to take it away.
    fn fence_beyond(&self, _: &IntegrationName, _: Timestamp) -> Option<engine::Fence> {
        None
    }
}

/// Opens a ledger that no process has, to copy it whole.
pub(super) async fn end_of_copy(path: &Path) -> std::result::Result<copy::Open, OpenError> {
    let held = open::files(path)?;
    let conn = open::permitted_writer(path, &Options::default()).await?;
    Ok(copy::Open { conn, _held: held })
}
