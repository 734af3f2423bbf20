//! The ledger in a PostgreSQL database: what several replicas share.
//!
//! Owns connections, migrations, the order of commits over all replicas, and who owns which organization. Queries,
//! writes and group commit are the files of `sqlite`, compiled here against this database: one text for both. Nothing
//! is kept in a session (no prepared statement, no session lock, no setting), so a pooler in transaction mode may stand
//! in between. Never answers a write before its commit returned.

#![expect(
    clippy::duplicate_mod,
    reason = "one text for both databases, compiled against each one's driver"
)]

mod bench;
mod connect;
mod engine;
mod errors;
mod follow;
mod hush;
mod migrate;
mod ownership;
mod picture;
mod together;

#[path = "../sqlite/audit.rs"]
mod audit;
#[path = "../sqlite/census.rs"]
mod census;
#[path = "../sqlite/copy.rs"]
mod copy;
#[path = "../sqlite/ledger.rs"]
mod ledger;
#[path = "../sqlite/operations.rs"]
mod operations;
#[path = "../sqlite/read.rs"]
mod read;
#[path = "../sqlite/recovery.rs"]
mod recovery;
#[path = "../sqlite/reviews.rs"]
mod reviews;
#[path = "../sqlite/rotations.rs"]
mod rotations;
#[path = "../sqlite/sights.rs"]
mod sights;
#[path = "../sqlite/write.rs"]
mod write;
#[path = "../sqlite/writer.rs"]
mod writer;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sqlx::postgres::PgPool;
use tokio::sync::{mpsc, watch};

pub use self::bench::{BenchServer, bench_first_page};
use self::connect::Connector;
pub use self::connect::{OpenError, Options};
pub use self::migrate::migrate;
pub use self::ownership::{Claiming, PostgresOwnership};
use self::writer::{Command, Counters, Writer};
use crate::domain::Timestamp;
use crate::domain::ids::IntegrationName;
use crate::ports::ledger::Result;
use crate::ports::ownership::Standing;

/// Handle of the ledger; cloning it is cheap.
#[derive(Clone)]
pub struct PostgresLedger {
    commands: mpsc::Sender<Command>,
    readers: PgPool,
    connector: Arc<Connector>,
    last_sequence: watch::Receiver<u64>,
    counters: Arc<Counters>,
    /// Whether a pooler stands in between, so that each read needs a transaction around it.
    is_pooled: bool,
    bound_to: Option<(IntegrationName, Arc<Standing>)>,
}

impl fmt::Debug for PostgresLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLedger")
            .field("at", &self.connector)
            .field("is_pooled", &self.is_pooled)
            .field("bound_to", &self.bound_to)
            .finish_non_exhaustive()
    }
}

impl PostgresLedger {
    /// Connects, brings the schema up or finds that it is, and answers a handle and the work behind it.
    ///
    /// The work is a future that must run for as long as the ledger is used: give it to a named, supervised task. It
    /// ends after [`crate::ports::Ledger::close`].
    ///
    /// # Errors
    /// [`OpenError`] in words for an operator: no connection, a schema that is older or newer than this release knows.
    pub async fn open(
        options: Options,
    ) -> std::result::Result<(Self, impl Future<Output = ()> + Send + use<>), OpenError> {
        let connector = Arc::new(Connector::new(&options));
        let mut conn = connector.first().await?;
        if options.migrate {
            migrate::bring_up(&mut conn).await?;
        } else {
            migrate::check(&mut conn).await?;
        }
        connect::examine(&mut conn).await?;
        let readers = connector.pool(options.max_connections)?;
        let is_pooled = !follow::hears(&connector, &readers).await;
        tracing::info!(
            pooler = is_pooled,
            "The ledger is a PostgreSQL database{}",
            if is_pooled {
                "; a pooler stands in between: changes of other replicas are found by asking every second"
            } else {
                ""
            }
        );
        let last = engine::framed_last_sequence(&mut conn)
            .await
            .map_err(|source| OpenError::Database {
                action: "reading the last audit sequence",
                source,
            })?;
        let (commands, receiver) = mpsc::channel(options.queue.max(1));
        let (sender, last_sequence) = watch::channel(last);
        let counters = Arc::new(Counters::default());
        let ledger = Self {
            commands,
            readers: readers.clone(),
            connector: Arc::clone(&connector),
            last_sequence,
            counters: Arc::clone(&counters),
            is_pooled,
            bound_to: None,
        };
        let follower = follow::follow(
            Arc::clone(&connector),
            readers.clone(),
            is_pooled,
            sender.clone(),
        );
        let writer = Writer {
            source: engine::Source {
                connector,
                batch: options.batch,
            },
            conn: Some(conn),
            commands: receiver,
            last_sequence: sender,
            counters,
            readers,
            held: engine::Held::default(),
        };
        Ok((ledger, async move {
            futures::join!(writer.run(), follower);
        }))
    }

    /// The same ledger, whose writes are bound to the claim of this process on an integration: once it is over they
    /// are refused as [`crate::ports::ledger::NotOwner`].
    #[must_use]
    pub fn bound_to(&self, integration: IntegrationName, standing: Arc<Standing>) -> Self {
        Self {
            bound_to: Some((integration, standing)),
            ..self.clone()
        }
    }

    /// Whether a pooler stands between this process and the server.
    #[must_use]
    pub fn is_pooled(&self) -> bool {
        self.is_pooled
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

    /// Checks the checksum of every body. It reads everything and holds nobody up.
    ///
    /// # Errors
    /// `LedgerError::Corrupt` with the first thing found wrong, or `LedgerError::Unavailable`.
    pub async fn verify(&self) -> Result<()> {
        const ACTION: &str = "checking every row";
        let mut reader = self.reader(ACTION).await?;
        match read::damaged_body(&mut reader).await {
            Ok(None) => engine::done(reader)
                .await
                .map_err(|error| errors::of_statement(ACTION, error)),
            Ok(Some(detail)) => Err(errors::corrupt(ACTION, detail)),
            Err(error) => Err(errors::of_statement(ACTION, error)),
        }
    }

    /// A connection that reads.
    async fn reader(&self, action: &'static str) -> Result<engine::Reader> {
        self.connector
            .reader(&self.readers, self.is_pooled)
            .await
            .map_err(|error| errors::of_statement(action, error))
    }

    /// The claim that its writes are bound to.
    fn fence(&self) -> Option<engine::Fence> {
        let (integration, standing) = self.bound_to.as_ref()?;
        Some(engine::Fence::Held {
            integration: integration.to_string(),
            epoch: standing.epoch(),
        })
    }

    /// The bound of a write that moves an end, where it is not bound to a claim of this process.
    fn fence_beyond(&self, integration: &IntegrationName, end: Timestamp) -> Option<engine::Fence> {
        Some(self.fence().unwrap_or_else(|| engine::Fence::Beyond {
            integration: integration.to_string(),
            end_ms: end.timestamp_millis(),
        }))
    }
}

/// Opens a ledger, to copy it whole.
pub(super) async fn end_of_copy(options: &Options) -> std::result::Result<copy::Open, OpenError> {
    let mut conn = Connector::new(options).first().await?;
    if options.migrate {
        migrate::bring_up(&mut conn).await?;
    } else {
        migrate::check(&mut conn).await?;
    }
    Ok(copy::Open {
        conn,
        _held: engine::Held::default(),
    })
}
