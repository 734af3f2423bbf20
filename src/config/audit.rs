//! Sealing the audit, and delivering it.
//!
//! Owns where the signing key is. Never holds it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::secret::Secret;
use super::sink::{self, Sink};
use super::{Ledger, LedgerKind};

/// Seals over the audit, by which anybody can check an export without trusting the connector or its database, and the
/// places that it is delivered to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Where the signing key is: the text that `latchkey audit keygen` prints, in the same kinds of places as an
    /// Elastic Cloud key. Left out, nothing is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<Secret>,
    /// Where every event is delivered to, in order and at least once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub sinks: Vec<Sink>,
}

impl Audit {
    pub(super) fn check(&self, ledger: Option<&Ledger>, problems: &mut Problems) {
        match &self.signing_key {
            Some(key) => key.check("audit.signing_key", problems),
            None if self.sinks.is_empty() => problems.add(
                "audit",
                "neither seals nor delivers anything",
                "write `signing_key`, `sinks` or both, or leave the section out",
            ),
            None => {}
        }
        sink::check(&self.sinks, problems);
        if ledger.is_some_and(|ledger| ledger.kind == LedgerKind::Memory) {
            problems.add(
                "audit",
                "is of a ledger that is forgotten with the process",
                "leave it out, or keep the ledger in a file",
            );
        }
    }
}
