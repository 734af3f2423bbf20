//! Adapters of the witness port: `file` (one small append-only file) and `memory` (simulation and tests); and `journal`,
//! a file of the same layout behind the journal port.
//!
//! Owns the layout of their records and what makes the file trustworthy: a checksum for each record, a lock, a torn
//! tail that is cut off, anything else that does not fit refused. Never knows the ledger, and never repairs what it
//! cannot read.

pub mod file;
pub mod journal;
pub mod memory;
pub mod record;

pub use file::{FileWitness, OpenError, inspect};
pub use journal::FileJournal;
pub use memory::MemoryWitness;
