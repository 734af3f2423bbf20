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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::domain::member::{Due, DueKind, MemberRecord};
    use crate::domain::overdue::tests::{at, hidden};
    use crate::ports::ledger::MemberCommit;
    use crate::store::MemoryLedger;

    #[derive(Debug, Default)]
    struct Woken(Mutex<Vec<(MemberKey, Due)>>);

    impl Wake for Woken {
        fn wake(&self, key: &MemberKey, due: Due) {
            self.0
                .lock()
                .expect("not poisoned")
                .push((key.clone(), due));
        }
    }

    async fn raised(ledger: &MemoryLedger, second: i64) -> (usize, Vec<(MemberKey, DueKind)>) {
        let woken = Woken::default();
        let main = IntegrationName::parse("main").expect("valid");
        let raised = raise_hidden(ledger, &woken, &main, at(second)).await;
        let woken = woken.0.into_inner().expect("not poisoned");
        let kinds = woken.into_iter().map(|(key, due)| (key, due.kind));
        (raised.expect("readable"), kinds.collect())
    }

    #[tokio::test]
    async fn a_removal_that_has_waited_too_long_behind_a_look_goes_as_a_removal() {
        let ledger = MemoryLedger::new();
        let (one, other) = (hidden("1"), hidden("2"));
        let mut sent = hidden("3");
        sent.owned.clear();
        for record in [&one, &other, &sent] {
            let commit = MemberCommit {
                record: MemberRecord::clone(record),
                audit: Vec::new(),
                request: None,
            };
            ledger.commit(commit).await.expect("committed");
        }
        let late = LATE.num_seconds();
        assert_eq!(raised(&ledger, 100 + late - 1).await, (0, Vec::new()));
        let both = [&one, &other].map(|record| (record.key.clone(), DueKind::Remove));
        assert_eq!(raised(&ledger, 100 + late).await, (2, both.to_vec()));
    }
}
