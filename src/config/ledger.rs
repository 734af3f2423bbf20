//! Where the ledger is and how long it remembers.
//!
//! Owns these settings. Never opens the ledger.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::text::{self, Period};

use crate::domain::host::is_loopback;

/// What holds the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LedgerKind {
    /// A file; survives restarts.
    #[default]
    Sqlite,
    /// A PostgreSQL database, which several replicas share.
    Postgres,
    /// Memory; forgets what is owed when the process ends. For simulations only.
    Memory,
}

/// The durable record of what was promised and what is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ledger {
    /// `sqlite` for a file, `postgres` for several replicas, `memory` for simulations. A file, because a lost ledger is lost knowledge of what to
    /// take away.
    pub kind: LedgerKind,
    /// The file of the `sqlite` ledger, on a volume that outlives the process.
    #[schemars(schema_with = "text::schemas::path")]
    pub path: PathBuf,
    /// The database of the `postgres` ledger, as `postgres://USER@HOST:PORT/DATABASE`, without a password.
    pub url: String,
    /// File with the password, read for every new connection, so that it can be rotated.
    pub password_file: Option<PathBuf>,
    /// Certificates in PEM that the server's certificate must come from; its name is checked as well. Needed unless
    /// the server is on this machine.
    pub ca_file: Option<PathBuf>,
    /// Connections for reading; one more writes, one listens, up to three claim. Eight, so that a dozen replicas fit
    /// into a small server.
    pub max_connections: u32,
    /// Whether `serve` brings the schema up. Turn it off where another role does that with `latchkey migrate`; then an
    /// older schema is refused.
    pub migrate: bool,
    /// How long a replica that is gone or cut off keeps its organizations before another one takes them. Five seconds,
    /// twice what a change may take upstream.
    pub claim: Period,
    /// Directory of this replica alone, in which it notes removals that it sends while the `postgres` ledger is away: for
    /// the rest of its claim, of access that was known to end then. Nothing is removed without the database where it is
    /// left out. On a volume that outlives the process, so that the audit has every call.
    pub journal: Option<PathBuf>,
    /// How long what is over is remembered.
    pub retention: Retention,
}

/// How long what is over is remembered. Audit events are not touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Request ids. A week, so that a caller that was down over a weekend can repeat its calls safely.
    pub requests: Period,
    /// Grants that have ended. A quarter, which is how far back reviews usually look.
    pub ended_grants: Period,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            kind: LedgerKind::Sqlite,
            path: PathBuf::from("/var/lib/latchkey/ledger.db"),
            url: String::new(),
            password_file: None,
            ca_file: None,
            max_connections: 8,
            migrate: true,
            claim: Period::seconds(5),
            journal: None,
            retention: Retention::default(),
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            requests: Period::seconds(7 * 86_400),
            ended_grants: Period::seconds(90 * 86_400),
        }
    }
}

impl Ledger {
    pub(super) fn check(&self, problems: &mut Problems) {
        const DAY: Duration = Duration::from_secs(86_400);
        if self.kind == LedgerKind::Sqlite && !self.path.is_absolute() {
            problems.add(
                "ledger.path",
                "is relative, so what is owed would depend on where Latchkey is started",
                "write an absolute path such as /var/lib/latchkey/ledger.db",
            );
        }
        if self.kind == LedgerKind::Postgres {
            self.check_server(problems);
        }
        if let Some(journal) = &self.journal {
            if self.kind != LedgerKind::Postgres {
                problems.add(
                    "ledger.journal",
                    "is for a ledger that can be away while this process runs",
                    "leave it out, or set ledger.kind to postgres",
                );
            } else if !journal.is_absolute() {
                problems.add(
                    "ledger.journal",
                    "is relative, so what was sent would be looked for elsewhere after a start from another directory",
                    "write an absolute path such as /var/lib/latchkey-journal",
                );
            }
        }
        let Retention {
            requests,
            ended_grants,
        } = self.retention;
        problems.within("ledger.retention.requests", requests, DAY, DAY * 366);
        problems.within(
            "ledger.retention.ended_grants",
            ended_grants,
            DAY,
            DAY * 3660,
        );
    }

    fn check_server(&self, problems: &mut Problems) {
        const SECOND: Duration = Duration::from_secs(1);
        problems.within("ledger.claim", self.claim, SECOND, SECOND * 60);
        if !(3..=200).contains(&self.max_connections) {
            problems.add(
                "ledger.max_connections",
                "is out of bounds",
                "write a number from 3 to 200",
            );
        }
        let url = match url::Url::parse(&self.url) {
            Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => url,
            Ok(_) | Err(_) => {
                problems.add(
                    "ledger.url",
                    "is not the address of a PostgreSQL database",
                    "write postgres://USER@HOST:PORT/DATABASE",
                );
                return;
            }
        };
        if url.password().is_some() {
            problems.add(
                "ledger.url",
                "holds a password, which would be read by whoever reads the configuration",
                "write the password into a file and its path to ledger.password_file",
            );
        }
        let near = match url.host_str() {
            None => true,
            // The path of a socket may stand for a host.
            Some(name) => is_loopback(Some(name)) || name.to_ascii_lowercase().starts_with("%2f"),
        };
        let verified = url
            .query_pairs()
            .any(|(name, value)| name == "sslmode" && value == "verify-full");
        if !near && self.ca_file.is_none() && !verified {
            problems.add(
                "ledger.ca_file",
                "is missing, so anybody on the way could pretend to be the database",
                "write the path of the certificates that the server's comes from, or sslmode=verify-full into ledger.url",
            );
        }
    }
}
