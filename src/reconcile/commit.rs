//! Durable steps of a pass: load, change, compare and swap, and what is counted once it is durable.
//!
//! Owns reading back a commit of unknown outcome. Never sends anything upstream, and never counts what is not durable.

use super::pass::Reconciler;
use super::settle::Draft;
use crate::domain::Timestamp;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{EndCause, Grant, GrantState};
use crate::domain::ids::GrantId;
use crate::domain::member::{MemberKey, Owned};
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
        let _ending = self.witness_ends(&record.key, &audit);
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
        let meant = Meant {
            key: record.key.clone(),
            version: record.version,
            owned: record.owned.clone(),
            grants: record.grants.iter().map(state_of).collect(),
        };
        let commit = MemberCommit {
            record,
            audit,
            request: None,
        };
        let mut writing = self
            .outage
            .as_ref()
            .map(|outage| outage.committing(&meant.key, self.clock.since_boot()));
        if let Some(writing) = &mut writing {
            writing.begins();
        }
        let committed = self.ledger.commit(commit).await;
        if let Some(writing) = &mut writing {
            writing.ends(&committed);
        }
        let version = match committed {
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
    async fn find_committed(&self, meant: &Meant, error: LedgerError) -> Result<u64, LedgerError> {
        let Ok(found) = self.ledger.member(&meant.key).await else {
            return Err(error);
        };
        if found.version == meant.version {
            return Err(LedgerError::Conflict {
                key: meant.key.clone(),
            });
        }
        // Grants that ended have left the aggregate, and the ledger numbers versions itself.
        let open = || meant.grants.iter().filter(|(_, state)| !state.is_ended());
        let ours = found.version == meant.version + 1
            && meant.owned == found.owned
            && open().count() == found.grants.len()
            && open().all(|grant| found.grants.iter().any(|other| state_of(other) == *grant));
        if ours { Ok(found.version) } else { Err(error) }
    }
}

/// What a commit means to store, as far as it is compared when its outcome is unknown.
struct Meant {
    key: MemberKey,
    version: u64,
    owned: Vec<Owned>,
    grants: Vec<(GrantId, GrantState)>,
}

fn state_of(grant: &Grant) -> (GrantId, GrantState) {
    (grant.id, grant.state.clone())
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
