//! Durable steps of a pass: load, change, compare and swap, and what is counted once it is durable.
//!
//! Owns reading back a commit of unknown outcome. Never sends anything upstream, and never counts what is not durable.

use super::pass::Reconciler;
use super::settle::Draft;
use crate::domain::Timestamp;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{EndCause, GrantState};
use crate::domain::member::{MemberKey, MemberRecord};
use crate::ports::ledger::{LedgerError, MemberCommit};

impl Reconciler {
    /// Loads, changes and stores a member until nobody was in between.
    pub(super) async fn update(
        &self,
        key: &MemberKey,
        mut change: impl FnMut(&mut Draft, Timestamp) + Send,
    ) -> Result<(), LedgerError> {
        loop {
            let now = self.clock.now();
            let mut draft = Draft::new(self.ledger.member(key).await?);
            change(&mut draft, now);
            if !draft.changed && draft.audit.is_empty() {
                return Ok(());
            }
            match self.commit(draft).await {
                Ok(_) => return Ok(()),
                Err(LedgerError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn commit(&self, draft: Draft) -> Result<u64, LedgerError> {
        let Draft {
            mut record,
            audit,
            steps,
            ..
        } = draft;
        super::receipt::keep(&mut record, &audit);
        self.witness_ends(&record.key, &audit);
        let ended: Vec<_> = record
            .grants
            .iter()
            .filter_map(|grant| {
                if let GrantState::Ended { at, cause } = &grant.state {
                    Some((cause.code(), grant.removal_sent_at.map(|sent| *at - sent)))
                } else {
                    None
                }
            })
            .collect();
        let drift: Vec<String> = audit
            .iter()
            .filter_map(|event| {
                if let EventKind::Drift { kind, .. } = &event.kind {
                    Some(kind.clone())
                } else {
                    None
                }
            })
            .collect();
        let changes: Vec<AuditEvent> = audit
            .iter()
            .filter(|event| event.kind.name() == "grant_changed")
            .cloned()
            .collect();
        let meant = record.clone();
        let commit = MemberCommit {
            record,
            audit,
            request: None,
        };
        let version = match self.ledger.commit(commit).await {
            Err(error @ LedgerError::CommitUnknown { .. }) => {
                self.find_committed(&meant, error).await?
            }
            answered => answered?,
        };
        for (cause, verified) in ended {
            super::metrics::grant_ended(&self.integration, cause, verified);
        }
        super::metrics::steps_done(&self.integration, &steps, self.settings.revocation_within);
        for kind in drift {
            super::metrics::drift_met(&self.integration, kind);
        }
        for event in changes {
            log_change(&event);
        }
        Ok(version)
    }

    /// Reads back what a commit of unknown outcome left: the version if it is there, a conflict if it is not.
    async fn find_committed(
        &self,
        meant: &MemberRecord,
        error: LedgerError,
    ) -> Result<u64, LedgerError> {
        let Ok(found) = self.ledger.member(&meant.key).await else {
            return Err(error);
        };
        if found.version == meant.version {
            return Err(LedgerError::Conflict {
                key: meant.key.clone(),
            });
        }
        // Grants that ended have left the aggregate, and the ledger numbers versions itself.
        let mut expected = meant.clone();
        expected.version = found.version;
        expected.grants.retain(|grant| !grant.state.is_ended());
        let ours = found.version == meant.version + 1
            && expected.owned == found.owned
            && expected.grants.len() == found.grants.len()
            && expected.grants.iter().all(|grant| {
                found
                    .grants
                    .iter()
                    .any(|other| other.id == grant.id && other.state == grant.state)
            });
        if ours { Ok(found.version) } else { Err(error) }
    }
}

/// One line for each change of the state of access.
fn log_change(event: &AuditEvent) {
    let EventKind::GrantChanged {
        from, to, cause, ..
    } = &event.kind
    else {
        return;
    };
    let grant = event.grant_id.map(|id| id.to_string()).unwrap_or_default();
    let cause = cause.as_ref().map(EndCause::code);
    tracing::info!(
        grant.id = grant,
        grant.from = from,
        grant.state = to,
        cause,
        "Grant changed"
    );
}
