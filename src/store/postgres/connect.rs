//! Coming to the server: where it is, who we are, and whether to trust it.
//!
//! Owns the settings of every connection, the password file, and every reason not to start. Never keeps a password
//! longer than a connection takes to make.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{
    PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions, PgSslMode,
};
use sqlx::{ConnectOptions, Postgres, Row};
use tokio::time::Instant;

use super::engine::{self, Reader, query};
use super::{errors, hush};

/// Between tries to reach the server at start.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How the ledger is reached. The defaults are for production.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// `postgres://user@host:port/database`, without a password.
    pub url: String,
    /// File with the password, read for every new connection.
    pub password_file: Option<PathBuf>,
    /// Certificates that the server's must come from; with it the server's name is checked as well.
    pub ca_file: Option<PathBuf>,
    /// Connections for reading; one more writes, and one listens. Default 8.
    pub max_connections: u32,
    /// Whether the schema is brought up at start. Otherwise one that is older is refused.
    pub migrate: bool,
    /// Writes that may wait while a commit is in flight; beyond it callers wait for a place. Default 1,024.
    pub queue: usize,
    /// Most writes in one commit: bounds how long other replicas wait for their turn. Default 256.
    pub batch: usize,
    /// How long a server that is not there yet is tried for at start, at least once: a database that restarts with us
    /// is waited for. Default 30 s; nothing for whoever asks what is wrong.
    pub wait: Duration,
}

impl Options {
    /// The defaults for a server.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            password_file: None,
            ca_file: None,
            max_connections: 8,
            migrate: true,
            queue: 1024,
            batch: 256,
            wait: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").finish_non_exhaustive()
    }
}

/// Why the ledger cannot be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting is wrong.
    #[error(
        "ledger.url is not the address of a PostgreSQL database: write postgres://USER@HOST/DATABASE"
    )]
    Url {
        /// What is wrong with it.
        #[source]
        source: sqlx::Error,
    },
    /// The server does not let us in, or is not there.
    #[error(
        "connecting to the database of the ledger: check ledger.url, ledger.password_file and ledger.ca_file, and that the server runs"
    )]
    Connect {
        /// What it said.
        #[source]
        source: sqlx::Error,
    },
    /// The schema has not been brought up.
    #[error(
        "the schema of the ledger has version {found}, this release needs {known}: run `latchkey migrate`, or set `ledger.migrate: true`"
    )]
    OlderSchema {
        /// Version in the database.
        found: i64,
        /// Version needed.
        known: i64,
    },
    /// A newer release changed the schema in a way that this one does not know.
    #[error(
        "the schema of the ledger needs a release that knows version {needed}, this one knows {known}: run the newer release again"
    )]
    NewerSchema {
        /// Version that a release must know.
        needed: i64,
        /// Version known here.
        known: i64,
    },
    /// A migration that was applied is not the one that this release has.
    #[error(
        "migration {version} of the ledger is not the one of this release: the database belongs to another program or was changed by hand"
    )]
    Foreign {
        /// Which.
        version: i64,
    },
    /// Commits are not durable there.
    #[error(
        "the database answers commits before they are on its disk ({setting} is off): a lost commit is access that nobody takes away; turn it on for this database"
    )]
    NotDurable {
        /// Which setting.
        setting: &'static str,
    },
    /// The server refused for another reason.
    #[error("{action} in the database of the ledger")]
    Database {
        /// What was being done.
        action: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
}

/// Makes connections.
pub(super) struct Connector {
    url: String,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    wait: Duration,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            url: options.url.clone(),
            password_file: options.password_file.clone(),
            ca_file: options.ca_file.clone(),
            wait: options.wait,
        }
    }

    /// Settings of a connection, with the password as it is now.
    fn settings(&self) -> Result<PgConnectOptions, sqlx::Error> {
        let mut settings = PgConnectOptions::from_str(&self.url)?
            .application_name("latchkey")
            // Poolers refuse start-up parameters that they do not know.
            .extra_float_digits(None)
            .disable_statement_logging();
        if let Some(file) = &self.ca_file {
            settings = settings.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(file);
        }
        if let Some(file) = &self.password_file {
            let text = std::fs::read_to_string(file)?;
            settings = settings.password(text.trim_end_matches(['\r', '\n']));
        }
        Ok(settings)
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let settings = self.settings()?;
        let made = settings.connect().await;
        made.map_err(|error| hush::hushed(error, &settings))
    }

    /// The first connection of this process; waits a while for a server that is not there yet.
    pub(super) async fn first(&self) -> Result<PgConnection, OpenError> {
        PgConnectOptions::from_str(&self.url).map_err(|source| OpenError::Url { source })?;
        let end = Instant::now() + self.wait;
        loop {
            match engine::patient(self.connect()).await {
                Ok(conn) => return Ok(conn),
                Err(source) if Instant::now() >= end || !may_come(&source) => {
                    return Err(OpenError::Connect { source });
                }
                Err(error) => {
                    tracing::warn!(%error, "The database of the ledger cannot be reached yet; trying again");
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
            }
        }
    }

    /// A pool of connections that are made when they are needed.
    pub(super) fn pool(&self, connections: u32) -> Result<PgPool, OpenError> {
        self.pool_of(connections.max(3))
            .map_err(|source| OpenError::Connect { source })
    }

    fn pool_of(&self, connections: u32) -> Result<PgPool, sqlx::Error> {
        Ok(PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(5))
            .test_before_acquire(false)
            .connect_lazy_with(self.settings()?))
    }

    /// A connection that listens on a channel. It is in no pool that others wait for: one that nobody hears from any
    /// more cannot be told from one on which there is nothing to hear, and would keep its place.
    pub(super) async fn listen(&self, channel: &str) -> Result<PgListener, sqlx::Error> {
        let alone = self.pool_of(1)?;
        let listen = async {
            let mut listener = PgListener::connect_with(&alone).await?;
            // Whoever lost it listens anew, with the password as it is then.
            listener.eager_reconnect(false);
            listener.listen(channel).await?;
            Ok(listener)
        };
        let listening = listen.await;
        listening.map_err(|error| hush::hushed(error, &alone.connect_options()))
    }

    /// A connection of the pool. Where the password was refused it is read anew, once: it may have been rotated.
    pub(super) async fn reader(
        &self,
        pool: &PgPool,
        is_pooled: bool,
    ) -> Result<Reader, sqlx::Error> {
        let conn = match acquired(pool).await {
            Err(error) if errors::is_refused_login(&error) && self.password_file.is_some() => {
                pool.set_connect_options(self.settings()?);
                acquired(pool).await?
            }
            acquired => acquired?,
        };
        Reader::begin(conn, is_pooled).await
    }
}

/// A connection of the pool, which may have to log in for it.
pub(super) async fn acquired(pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
    let settings = pool.connect_options();
    let acquired = pool.acquire().await;
    acquired.map_err(|error| hush::hushed(error, &settings))
}

/// Whether waiting may help.
fn may_come(error: &sqlx::Error) -> bool {
    if let sqlx::Error::Database(error) = error {
        let code = error.code();
        return code.is_some_and(|code| code.starts_with("57P") || code.starts_with("53"));
    }
    // A server whose certificate is not right says something that cannot be believed; that stays so.
    matches!(error, sqlx::Error::Io(cause) if cause.kind() != std::io::ErrorKind::InvalidData)
}

/// Refuses a server that would answer a commit and lose it.
pub(super) async fn examine(conn: &mut PgConnection) -> Result<(), OpenError> {
    let failed = |source| OpenError::Database {
        action: "reading the settings",
        source,
    };
    engine::run(conn, "BEGIN READ ONLY").await.map_err(failed)?;
    let row = query("SELECT current_setting('synchronous_commit'), current_setting('server_version_num')::bigint")
        .fetch_one(&mut *conn)
        .await
        .map_err(failed)?;
    engine::run(conn, "COMMIT").await.map_err(failed)?;
    let synchronous: String = row.try_get(0).map_err(failed)?;
    if synchronous == "off" {
        return Err(OpenError::NotDurable {
            setting: "synchronous_commit",
        });
    }
    Ok(())
}
