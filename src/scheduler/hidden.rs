//! Removals that wait behind something less urgent of the same member.
//!
//! Owns finding and raising them: a member has one place in the queue, and an earlier look whose turn does not come would
//! keep it. Never decides what is sent.

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::domain::ids::IntegrationName;
use crate::domain::member::MemberKey;
use crate::domain::overdue::hidden_removal;
use crate::ports::ledger::LedgerError;
use crate::ports::{Ledger, Wake};

/// Late by more than this, a removal is looked for.
pub const LATE: TimeDelta = TimeDelta::seconds(15);

/// Members asked for at a time.
const PAGE: usize = 1_000;

/// Wakes the members of an integration whose removal is late and hidden, as what they are: removals. Answers how many.
///
/// # Errors
/// The first [`LedgerError`], after all others were tried: one record that cannot be read hides nobody else.
pub async fn raise_hidden(
    ledger: &dyn Ledger,
    wake: &dyn Wake,
    integration: &IntegrationName,
    now: Timestamp,
) -> Result<usize, LedgerError> {
    let (mut raised, mut trouble, mut after) = (0, None, None);
    loop {
        let page = ledger
            .hidden_removals(integration, now - LATE, after.as_ref(), PAGE)
            .await?;
        for found in page.items {
            let key = MemberKey {
                integration: integration.clone(),
                subject: found.subject,
            };
            match ledger.member(&key).await {
                Ok(record) => {
                    if let Some(due) = hidden_removal(&record, now) {
                        wake.wake(&key, due);
                        raised += 1;
                    }
                }
                Err(error) => {
                    trouble.get_or_insert(error);
                }
            }
        }
        after = page.next;
        if after.is_none() {
            return trouble.map_or(Ok(raised), Err);
        }
    }
}
