//! Where the witness is.
//!
//! Owns this setting. Never opens the file.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::text;
use super::{Ledger, LedgerKind};

/// A small record of every intent apart from the ledger, by which a lost or restored ledger is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// The file, on another volume than the ledger: what is lost together proves nothing.
    #[schemars(schema_with = "text::schemas::path")]
    pub path: PathBuf,
}

impl Witness {
    pub(super) fn check(&self, ledger: Option<&Ledger>, problems: &mut Problems) {
        if !self.path.is_absolute() {
            problems.add(
                "witness.path",
                "is relative, so what is known would depend on where Latchkey is started",
                "write an absolute path such as /var/lib/latchkey-witness/witness",
            );
        }
        if ledger.is_some_and(|ledger| ledger.kind == LedgerKind::Postgres) {
            problems.add(
                "witness",
                "is of one replica alone, while the ledger is shared: it would miss what the others do",
                "leave it out, and let the database keep a synchronous stand-by",
            );
        }
        if ledger
            .is_some_and(|ledger| ledger.kind == LedgerKind::Sqlite && ledger.path == self.path)
        {
            problems.add(
                "witness.path",
                "is the ledger itself",
                "write a path of its own, on another volume",
            );
        }
    }
}
