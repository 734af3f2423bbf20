//! Sealing the audit.
//!
//! Owns where the signing key is. Never holds it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::secret::Secret;
use super::{Ledger, LedgerKind};

/// Seals over the audit, by which anybody can check an export without trusting the connector or its database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Where the signing key is: the text that `latchkey audit keygen` prints, in the same kinds of places as an
    /// Elastic Cloud key.
    pub signing_key: Secret,
}

impl Audit {
    pub(super) fn check(&self, ledger: Option<&Ledger>, problems: &mut Problems) {
        self.signing_key.check("audit.signing_key", problems);
        if ledger.is_some_and(|ledger| ledger.kind == LedgerKind::Memory) {
            problems.add(
                "audit",
                "seals an audit that is forgotten with the process",
                "leave it out, or keep the ledger in a file",
            );
        }
    }
}
