//! The evidence of a period as a folder that stands for itself: the sealed audit, what was asked for, receipts, drift,
//! and how punctual revocations were.
//!
//! Owns the layout, its manifest and checking it. Never needs a ledger to check: requests and drift are the same lines as
//! in the sealed audit and must all be there, the service level follows from the receipts, the manifest covers every file.

mod level;
mod verify;
mod write;

#[cfg(test)]
mod pack_tests;

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::ports::audit::AuditRecord;

pub use level::{LateRevocation, ServiceLevel, UpTo};
pub use verify::{PackFinding, PackReport, verify};
pub use write::{Facts, PackError, PackWriter};

/// The layout; another one gets another name.
pub const FORMAT: &str = "latchkey-evidence-v1";
/// Names every file.
pub const MANIFEST: &str = "manifest.json";
/// The signature over the manifest's bytes, in base64.
pub const SIGNATURE: &str = "manifest.sig";

const AUDIT: &str = "audit.jsonl";
const REQUESTS: &str = "requests.jsonl";
const DRIFT: &str = "drift.jsonl";
const RECEIPTS: &str = "receipts.jsonl";
const LEVEL: &str = "service_level.json";

/// What a pack is about and made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// Which ledger.
    pub ledger: String,
    /// The first instant of the period.
    pub from: Timestamp,
    /// The first instant after the period.
    pub to: Timestamp,
    /// When it was made.
    pub made_at: Timestamp,
    /// Version that made it.
    pub version: String,
    /// The first block in `audit.jsonl`.
    pub first_block: u64,
    /// The last one, as `NUMBER:HASH`.
    pub head: String,
    /// When that was sealed: nothing is said about what was written later.
    pub sealed_at: Timestamp,
    /// Name of the key that signed the manifest; `None` when it was not at hand.
    pub key: Option<String>,
    /// Every other file but the signature.
    pub files: Vec<Entry>,
}

/// One file of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// What decides where an event belongs.
#[derive(Debug, Deserialize)]
struct Head {
    at: Timestamp,
    kind: Kind,
}

#[derive(Debug, Deserialize)]
struct Kind {
    event: String,
}

/// When an event happened, as far as that can be read.
#[must_use]
pub fn happened_at(record: &AuditRecord) -> Option<Timestamp> {
    place(record.body.as_bytes()).map(|(at, _)| at)
}

/// When an event happened and which file it stands in besides the audit, if any.
fn place(body: &[u8]) -> Option<(Timestamp, Option<&'static str>)> {
    let head: Head = serde_json::from_slice(body).ok()?;
    let file = match head.kind.event.as_str() {
        "grant_accepted" | "grant_extended" | "request_refused" | "tombstoned" => Some(REQUESTS),
        "drift" | "drift_ended" | "roles_overwritten" | "breaker" => Some(DRIFT),
        _ => None,
    };
    Some((head.at, file))
}
