//! Ending a hold.
//!
//! Owns the order in which ledger and witness are made to agree, so that a crash in between leaves the hold as it
//! was. Never decides that it is time: an operator does.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::start::{Knowledge, import, names, of, owned_of};
use super::story::CONTRADICTED;
use super::{Held, Hold};
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{EndCause, GrantState};
use crate::domain::ids::{IntegrationName, UserId};
use crate::domain::member::{MemberKey, MemberRecord, Owned, Phase, Subject, WriteKind};
use crate::ports::ledger::{Evidence, HoldRecord, LedgerError, MEMBERS_AT_A_TIME, MemberCommit};
use crate::ports::witness::{Binding, Intent, WitnessError};
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
    /// What is open is known to a witness that cannot be read.
    #[error("releasing a hold by a witness that cannot be read")]
    Unreadable(#[source] WitnessError),
}

impl Hold {
    /// Ends the hold: from here on the ledger is taken at its word. Answers what it was, `None` if there was none.
    ///
    /// # Errors
    /// [`ReleaseError`] when ledger or witness could not be written, and when what is open is known to a witness that
    /// cannot be read; the hold goes on then.
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
        let held = self.asked_again(&held).await?;
        self.correct(&held).await?;
        let alone = accord.alone().await;
        let mut generation = identity.generation + 1;
        let mut is_raised = false;
        let mut intents = Vec::new();
        if let Some(witness) = &accord.witness {
            let found = witness.found().await?;
            if let Some(binding) = found.binding.filter(|bound| bound.ledger == identity.id) {
                // One ahead is a release or a start that was cut short between the two writes. Raised with every try,
                // the witness would soon look like an old copy.
                is_raised = identity.witnessed && identity.generation == binding.generation + 1;
                generation = if is_raised {
                    identity.generation
                } else {
                    generation.max(binding.generation + 1)
                };
            }
            intents = self.open_from_now_on().await?;
        }
        if !is_raised {
            ledger.agree(generation, accord.witness.is_some()).await?;
        }
        if accord.witness.is_some() {
            let binding = Binding {
                ledger: identity.id,
                generation,
            };
            let last = ledger.last_sequence().await?;
            alone.begin(binding, last, intents).await?;
            accord.agreed.store(true, Ordering::SeqCst);
            accord.writable.store(true, Ordering::SeqCst);
        }
        drop(alone);
        let event = EventKind::HoldReleased {
            by: by.to_owned(),
            reason: reason.to_owned(),
        };
        let at = accord.clock.now();
        let audit = vec![AuditEvent::integration(at, &self.integration, event)];
        ledger.end_hold(&self.integration, audit).await?;
        self.keep(None);
        tracing::warn!(integration = %self.integration, "Hold was released");
        Ok(Some(held.record.clone()))
    }

    /// What the hold goes by at its end: what the witness knows is read once more, and what only the witness knows is
    /// taken over into the ledger before the witness is begun anew.
    async fn asked_again(&self, held: &Held) -> Result<Held, ReleaseError> {
        let accord = &self.accord;
        let mut open = held.open.clone();
        if held.record.evidence == Evidence::Witness {
            match accord.consult().await? {
                // There is nothing to be asked: the operator takes the ledger at its word.
                Knowledge::Nothing => {}
                Knowledge::Unreadable(error) => return Err(ReleaseError::Unreadable(error)),
                Knowledge::Open(intents) => {
                    let mut news = of(&self.integration, &intents);
                    let known = open.get_or_insert_default();
                    news.retain(|intent| {
                        !known.contains(&(intent.subject.clone(), intent.assignment.clone()))
                    });
                    import(accord.ledger.as_ref(), accord.clock.as_ref(), &news).await?;
                    known.extend(names(news));
                }
            }
        }
        Ok(Held {
            record: held.record.clone(),
            open,
            is_unread: false,
        })
    }

    /// What the witness is to hold open after the release: of this integration what the ledger owns, of the others what
    /// is known of them.
    async fn open_from_now_on(&self) -> Result<Vec<Intent>, ReleaseError> {
        let accord = &self.accord;
        let ledger = accord.ledger.as_ref();
        let holds = ledger.holds().await?;
        let evidence_of = |name: &IntegrationName| {
            let hold = holds.iter().find(|hold| hold.integration == *name)?;
            Some(hold.evidence)
        };
        let mut others: Vec<IntegrationName> = accord.integrations.clone();
        others.retain(|name| *name != self.integration);
        let known = match accord.consult().await? {
            Knowledge::Open(open) => Some(open),
            Knowledge::Nothing => None,
            Knowledge::Unreadable(error) => {
                if others
                    .iter()
                    .any(|name| evidence_of(name) == Some(Evidence::Witness))
                {
                    return Err(ReleaseError::Unreadable(error));
                }
                None
            }
        };
        let mut open: BTreeMap<(MemberKey, Assignment), Intent> = BTreeMap::new();
        for intent in known.iter().flatten() {
            if intent.integration != self.integration {
                open.insert((intent.key(), intent.assignment.clone()), intent.clone());
            }
        }
        let by_ledger = |name: &&IntegrationName| match evidence_of(name) {
            Some(Evidence::Ledger | Evidence::Nothing) => true,
            Some(Evidence::Witness) | None => known.is_none(),
        };
        for name in others.iter().filter(by_ledger).chain([&self.integration]) {
            for intent in owned_of(ledger, name).await? {
                let name = (intent.key(), intent.assignment.clone());
                open.entry(name)
                    .and_modify(|one| one.must_end_by = one.must_end_by.max(intent.must_end_by))
                    .or_insert(intent);
            }
        }
        Ok(open.into_values().collect())
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
                self.correct_one(record, held).await?;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        for key in ledger.subjects(&self.integration, None).await? {
            if matches!(key.subject, Subject::Invitee(_)) {
                self.correct_one(ledger.member(&key).await?, held).await?;
            }
        }
        Ok(())
    }

    async fn correct_one(&self, mut record: MemberRecord, held: &Held) -> Result<(), LedgerError> {
        let ledger = self.accord.ledger.as_ref();
        loop {
            let key = record.key.clone();
            let draft = corrected(record, held, self.accord.clock.now());
            if !draft.changed {
                return Ok(());
            }
            let commit = MemberCommit {
                record: draft.record,
                audit: draft.audit,
                request: None,
            };
            match ledger.commit(commit).await {
                Ok(_) => return Ok(()),
                Err(LedgerError::Conflict { .. }) => record = ledger.member(&key).await?,
                Err(error) => return Err(error),
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
            CONTRADICTED,
            assignment,
            "left alone: the witness saw its end",
        );
    }
    let is_given = |row: &Owned| row.phase == Phase::Live && row.last_write.kind == WriteKind::Add;
    // Nothing was added during the hold. What no read has shown by now was taken away, or shows at the next look: it is
    // not given once more.
    for row in draft
        .record
        .owned
        .iter_mut()
        .filter(|row| is_given(row) && !row.seen)
    {
        row.seen = true;
        draft.record.check_at = Some(now);
        draft.changed = true;
    }
    // What is on its way out gives nothing.
    let owned: Vec<Assignment> = draft
        .record
        .owned
        .iter()
        .filter(|row| is_given(row))
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
        let given_nothing = match grant.state {
            GrantState::Scheduled { .. } | GrantState::AwaitingMember { .. } => true,
            GrantState::Activating { .. } => !wants(&owned),
            GrantState::Active { .. } | GrantState::Revoking { .. } | GrantState::Ended { .. } => {
                false
            }
        };
        let code = "hold".to_owned();
        given_nothing
            && grant.created_at < since
            && grant.begin_revoke(EndCause::ActivationFailed { code }, now)
    });
    draft.finish(now);
    draft
}
