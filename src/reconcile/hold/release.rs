//! Ending a hold.
//!
//! Owns the order in which ledger and witness are made to agree, so that a crash in between leaves the hold as it
//! was. Never decides that it is time: an operator does.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::start::owned_of;
use super::{Held, Hold};
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{EndCause, GrantState};
use crate::domain::ids::UserId;
use crate::domain::member::MemberRecord;
use crate::ports::ledger::{HoldRecord, LedgerError, MEMBERS_AT_A_TIME, MemberCommit};
use crate::ports::witness::{Binding, WitnessError};
use crate::reconcile::settle::Draft;

/// Why a hold was not released; it goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The ledger could not do it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The witness could not do it.
    #[error(transparent)]
    Witness(#[from] WitnessError),
}

impl Hold {
    /// Ends the hold: from here on the ledger is taken at its word. Answers what it was, `None` if there was none.
    ///
    /// # Errors
    /// [`ReleaseError`] when ledger or witness could not be written; the hold goes on then.
    pub async fn release(
        &self,
        by: &str,
        reason: &str,
    ) -> Result<Option<HoldRecord>, ReleaseError> {
        let accord = &self.accord;
        let _turn = accord.turn.lock().await;
        let Some(held) = self.held() else {
            return Ok(None);
        };
        let ledger = accord.ledger.as_ref();
        let identity = ledger.identity().await?;
        self.correct(&held).await?;
        let mut generation = identity.generation;
        let mut intents = Vec::new();
        if let Some(witness) = &accord.witness {
            let found = witness.found().await?;
            if let Some(binding) = found.binding.filter(|bound| bound.ledger == identity.id) {
                generation = generation.max(binding.generation);
            }
            // What is known of the other integrations stays as it is.
            let others = witness.open_intents().await?;
            intents.extend(
                others
                    .into_iter()
                    .filter(|intent| intent.integration != self.integration),
            );
            intents.extend(owned_of(ledger, &self.integration).await?);
        }
        generation += 1;
        ledger.agree(generation, accord.witness.is_some()).await?;
        if let Some(witness) = &accord.witness {
            let binding = Binding {
                ledger: identity.id,
                generation,
            };
            let last = ledger.last_sequence().await?;
            witness.begin(binding, last, intents).await?;
            accord.agreed.store(true, Ordering::SeqCst);
            accord.writable.store(true, Ordering::SeqCst);
        }
        let event = EventKind::HoldReleased {
            by: by.to_owned(),
            reason: reason.to_owned(),
        };
        let at = accord.clock.now();
        let audit = vec![AuditEvent::integration(at, &self.integration, event)];
        ledger.end_hold(&self.integration, audit).await?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.show();
        tracing::warn!(integration = %self.integration, "Hold was released");
        Ok(Some(held.record.clone()))
    }

    /// Makes the ledger forget what the witness contradicts, and ends grants of the time before that gave nothing yet:
    /// they may have been given and ended since, and what was asked for then must not appear now.
    async fn correct(&self, held: &Held) -> Result<(), LedgerError> {
        let ledger = self.accord.ledger.as_ref();
        let mut after: Option<UserId> = None;
        loop {
            let page = ledger
                .members(&self.integration, after.as_ref(), MEMBERS_AT_A_TIME)
                .await?;
            for record in page.items {
                let mut record = record;
                loop {
                    let key = record.key.clone();
                    let draft = corrected(record, held, self.accord.clock.now());
                    if !draft.changed {
                        break;
                    }
                    let commit = MemberCommit {
                        record: draft.record,
                        audit: draft.audit,
                        request: None,
                    };
                    match ledger.commit(commit).await {
                        Ok(_) => break,
                        Err(LedgerError::Conflict { .. }) => record = ledger.member(&key).await?,
                        Err(error) => return Err(error),
                    }
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

fn corrected(record: MemberRecord, held: &Held, now: Timestamp) -> Draft {
    let over: Vec<Assignment> = record
        .owned
        .iter()
        .filter(|row| held.contradicts(&record, row))
        .map(|row| row.assignment.clone())
        .collect();
    let mut draft = Draft::new(record);
    draft
        .record
        .owned
        .retain(|row| !over.contains(&row.assignment));
    for assignment in &over {
        draft.drift(
            now,
            "contradicted",
            assignment,
            "left alone: the witness saw its end",
        );
    }
    let owned: Vec<Assignment> = draft
        .record
        .owned
        .iter()
        .map(|row| row.assignment.clone())
        .collect();
    let since = held.record.since;
    draft.each_grant(now, |grant| {
        let wants = |list: &[Assignment]| {
            grant
                .assignments
                .iter()
                .any(|pair| list.contains(&pair.assignment))
        };
        if wants(&over) {
            grant.externally_modified = true;
            return grant.begin_revoke(EndCause::Superseded, now);
        }
        let given_nothing = matches!(grant.state, GrantState::Activating { .. }) && !wants(&owned);
        let code = "hold".to_owned();
        given_nothing
            && grant.created_at < since
            && grant.begin_revoke(EndCause::ActivationFailed { code }, now)
    });
    draft.finish(now);
    draft
}
