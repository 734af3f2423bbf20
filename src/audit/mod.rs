//! The sealed audit: evidence that nobody can rewrite unnoticed, and that is checked without trusting us.
//!
//! Owns hashing, signing, exporting and verifying. Events are written by the ledger in the transaction of the state
//! they belong to; this module seals what is stored and never changes or filters it. Verifying needs an export and a
//! public key, no ledger and no running connector.

pub mod block;
pub mod export;
pub mod key;
pub mod pack;
mod sealer;
pub mod tree;
pub mod verify;

#[cfg(test)]
mod tampering_tests;

pub use block::{Block, Header, Malformed};
pub use key::{PublicKey, SigningKey};
pub use sealer::{SealError, Sealed, Sealer};
pub use verify::{Finding, Report, Verifier};

/// Registers help texts.
pub fn describe_metrics() {
    sealer::describe_metrics();
}
