//! Adapters of the ledger port: `sqlite` (durable, the default), `postgres` (several replicas) and `memory` (simulation
//! and tests).
//!
//! Owns rows, SQL and migrations; nothing outside of this module sees one. All of them pass one contract suite
//! (`tests/ledger_contract`), which is what the port's documentation means in practice. Never decides anything about
//! access, never calls upstream, never reads a clock: every instant that is compared is an argument.
//!
//! Rules that all adapters keep beyond the text of [`crate::ports::ledger::Ledger`]:
//!
//! * A refused call has no effect at all: no row, no audit event, no version raised.
//! * A grant's `version` never stands still while its content changes: what a commit stores gets the version it
//!   carries, or one more than the stored one if that is higher. Unchanged grants are not rewritten.
//! * Instants that are compared (`due`, ends, `remember_until`) have microsecond precision, rounded down.
//! * `accept` raises the member's version, so that a pass that loaded the member before loses its commit.
//! * A request id is kept as long as its grant has not ended, and a grant as long as a request id stands for it.
//! * A member row is never deleted: its version never starts again, so a stale version never fits by chance.
//! * A commit that would move a grant against its life cycle (out of `ended`, out of `revoking` to anything but
//!   `ended`) is refused as [`crate::ports::ledger::LedgerError::Unavailable`], and so is a rekey that would leave
//!   grants or owned assignments behind.

mod checksum;
mod copy;
mod endings;
mod failure;
mod filter;
pub mod memory;
mod once;
pub mod postgres;
mod rows;
mod sole;
pub mod sqlite;
mod tally;

pub use copy::{CopyError, Place, copy};
pub use memory::MemoryLedger;
pub use postgres::{Options as PostgresOptions, PostgresLedger};
pub use sole::SoleOwnership;
pub use sqlite::{Glance, Options as SqliteOptions, SqliteLedger};
