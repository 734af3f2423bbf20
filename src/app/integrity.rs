//! The file of the ledger, looked through while the connector works.
//!
//! Owns the check after start and its repetition, and the complaint. Never stops a revocation for it: what can be
//! read goes on, and what cannot is named.

use std::sync::Arc;
use std::time::Duration;

use crate::ports::ledger::LedgerError;
use crate::runtime::readiness::ReadinessHandle;
use crate::runtime::{Shutdown, TaskError};
use crate::store::SqliteLedger;

/// After the first revocations of a restart have left.
const FIRST: Duration = Duration::from_secs(5);
/// Disks forget slowly; a look a day finds it before the nightly backup is the only good copy.
const EVERY: Duration = Duration::from_secs(86_400);
/// Repeats of the complaint while the file is damaged.
const AGAIN: Duration = Duration::from_secs(60);

/// Checks until the process stops. A damaged file makes the process not ready, and an error of the log names what is
/// damaged.
pub(super) async fn watch(
    ledger: Arc<SqliteLedger>,
    ready: ReadinessHandle,
    shutdown: Shutdown,
) -> Result<(), TaskError> {
    let mut pause = FIRST;
    loop {
        tokio::select! {
            () = shutdown.draining() => break,
            () = tokio::time::sleep(pause) => {}
        }
        let checked = tokio::select! {
            () = shutdown.draining() => break,
            checked = ledger.verify() => checked,
        };
        pause = match checked {
            Ok(()) => {
                ready.set_ready();
                EVERY
            }
            Err(LedgerError::Corrupt { source, .. }) => {
                tracing::error!(
                    code = "ledger_corrupt",
                    detail = %source,
                    "Ledger is damaged; what can be read goes on. Stop, keep its files, and restore or salvage: docs/ledger.md has the steps"
                );
                ready.set_waiting("ledger_corrupt: docs/ledger.md has the steps");
                AGAIN
            }
            Err(error) => {
                tracing::warn!(code = error.code(), "Ledger cannot be checked");
                AGAIN
            }
        };
    }
    Ok(())
}
