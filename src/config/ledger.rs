//! Where the ledger is and how long it remembers.
//!
//! Owns these settings. Never opens the ledger.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::text::{self, Period};

/// What holds the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LedgerKind {
    /// A file; survives restarts.
    #[default]
    Sqlite,
    /// Memory; forgets what is owed when the process ends. For simulations only.
    Memory,
}

/// The durable record of what was promised and what is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ledger {
    /// `sqlite` for a file, `memory` for simulations. A file, because a lost ledger is lost knowledge of what to
    /// take away.
    pub kind: LedgerKind,
    /// The file of the `sqlite` ledger, on a volume that outlives the process.
    #[schemars(schema_with = "text::schemas::path")]
    pub path: PathBuf,
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
}
