//! Trying again at once what waits for a pause.
//!
//! Owns nothing but the end of pauses: for a person who asks, once, after changing the reason of a refusal. Never
//! changes what is wanted or owned.

use super::pass::Reconciler;
use crate::domain::member::MemberKey;
use crate::ports::ledger::LedgerError;

impl Reconciler {
    /// Ends the pauses of a member: what failed or was refused is tried again by the next pass.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger could not be read or written.
    pub async fn hurry(&self, key: &MemberKey) -> Result<(), LedgerError> {
        self.update(key, |draft, now| {
            draft.changed |= draft.record.backoff.take().is_some();
            for row in &mut draft.record.owned {
                if let Some(blocked) = &mut row.blocked
                    && blocked.retry_at > now
                {
                    blocked.retry_at = now;
                    draft.changed = true;
                }
            }
        })
        .await
    }
}
