//! Ending grants early.
//!
//! Owns that a revocation is one durable change of state and a signal, by id or by the request id of a grant that
//! may not have arrived yet. Never takes access away itself, and never tells a foreign grant from an unknown one.

use crate::domain::Timestamp;
use crate::domain::caller::Caller;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{EndCause, Grant, GrantState};
use crate::domain::ids::{CallerName, GrantId, RequestId};
use crate::domain::member::{Due, DueKind, MemberRecord, weight_class};
use crate::ports::ledger::{MemberCommit, RequestRecord};

use super::error::{Result, ServiceError};
use super::{ATTEMPTS, Service, actor, member_key};

/// Which grant to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhichGrant {
    /// By its id.
    Id(GrantId),
    /// By the request id that it was or will be created with.
    Request(RequestId),
}

/// One revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Which grant.
    pub which: WhichGrant,
    /// Who ended it, as told by the caller; may be empty.
    pub requester: String,
    /// Why; may be empty.
    pub reason: String,
}

/// What became of a revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// The grant as it stands: on its way out or ended.
    Grant(Box<Grant>),
    /// Its request id is closed: the grant will be refused when it arrives.
    Tombstoned,
}

impl Service {
    /// Ends one grant of the caller. Repeating is harmless; a grant on its way out keeps its first cause.
    ///
    /// # Errors
    /// [`ServiceError::UnknownGrant`] for unknown and foreign ids alike, [`ServiceError::Contended`], and failures
    /// of the ledger.
    pub async fn revoke_grant(
        &self,
        caller: impl Into<Caller>,
        revocation: Revocation,
    ) -> Result<Revoked> {
        let caller = &caller.into();
        let Revocation {
            which,
            requester,
            reason,
        } = revocation;
        let lawful = self.check_ending(caller, None, "grant", &requester);
        let cause = EndCause::Revoked {
            by: actor(requester, &caller.name),
            reason,
        };
        let result = match (lawful, which) {
            (Err(refused), _) => Err(refused),
            (Ok(()), WhichGrant::Id(id)) => self
                .revoke_by_id(caller, id, &cause)
                .await
                .map(|grant| Revoked::Grant(Box::new(grant))),
            (Ok(()), WhichGrant::Request(request)) => {
                self.revoke_by_request(caller, &request, &cause).await
            }
        };
        self.audited("revoke_grant", &caller.name, None, None, result)
            .await
    }

    async fn revoke_by_id(&self, caller: &Caller, id: GrantId, cause: &EndCause) -> Result<Grant> {
        for _ in 0..ATTEMPTS {
            let grant = self
                .ledger
                .grant(id)
                .await?
                .filter(|grant| caller.may_revoke(&grant.caller))
                .ok_or(ServiceError::UnknownGrant)?;
            let foreign;
            let cause = if grant.caller == caller.name {
                cause
            } else {
                foreign = on_behalf(cause, &caller.name);
                &foreign
            };
            if matches!(
                grant.state,
                GrantState::Revoking { .. } | GrantState::Ended { .. }
            ) {
                return Ok(grant);
            }
            let key = member_key(&grant);
            let mut record = self.ledger.member(&key).await?;
            let ending = end_grants(
                &mut record,
                |candidate| candidate.id == id,
                cause,
                self.clock.now(),
            );
            if ending.revoked == 0 {
                // It moved to another member, or ended, since it was loaded.
                tokio::task::yield_now().await;
                continue;
            }
            if self.store_ending(record, ending).await? {
                let grant = self.own_grant(&grant.caller, id).await?;
                tracing::info!(grant.id = %id, grant.state = grant.state.name(), "Grant revoked");
                return Ok(grant);
            }
        }
        Err(ServiceError::Contended)
    }

    async fn revoke_by_request(
        &self,
        caller: &Caller,
        request: &RequestId,
        cause: &EndCause,
    ) -> Result<Revoked> {
        let mut record = self.ledger.find_request(&caller.name, request).await?;
        if record.is_none() {
            let now = self.clock.now();
            let event = AuditEvent {
                at: now,
                integration: None,
                subject: None,
                grant_id: None,
                caller: Some(caller.name.clone()),
                kind: EventKind::Tombstoned {
                    request_id: request.to_string(),
                },
            };
            // As long as the grant could have lasted, and as long again as repeats are recognised.
            let remember_until = now
                + self.rules.max_start_delay
                + self.rules.max_total
                + self.settings.remember_requests;
            record = self
                .ledger
                .tombstone(&caller.name, request, remember_until, vec![event])
                .await?;
        }
        match record {
            None | Some(RequestRecord::Tombstone) => Ok(Revoked::Tombstoned),
            Some(RequestRecord::Grant { id, .. }) => self
                .revoke_by_id(caller, id, cause)
                .await
                .map(|grant| Revoked::Grant(Box::new(grant))),
            Some(RequestRecord::Done { .. }) => Err(ServiceError::invalid(
                "grant_request_id",
                "is the request_id of another call, not of a CreateGrant",
            )),
        }
    }

    /// Stores a member whose grants were ended, and tells the scheduler. `false`: decide again.
    pub(super) async fn store_ending(&self, record: MemberRecord, ending: Ending) -> Result<bool> {
        let key = record.key.clone();
        let stored = self
            .try_commit(MemberCommit {
                record,
                audit: ending.audit,
                request: None,
            })
            .await?;
        if stored && let Some(due) = ending.due {
            self.wake.wake(&key, due);
        }
        Ok(stored)
    }
}

/// Who ended a grant of another caller: the receipt says through whom.
fn on_behalf(cause: &EndCause, caller: &CallerName) -> EndCause {
    let mut cause = cause.clone();
    if let EndCause::Revoked { by, .. } = &mut cause
        && by != caller.as_str()
    {
        *by = format!("{by} ({caller})");
    }
    cause
}

/// What ending grants did to a record.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// Grants that are now on their way out or ended.
    pub(super) revoked: u32,
    /// Grants of the selection that were on their way out before.
    pub(super) already: u32,
    /// Events of the change.
    pub(super) audit: Vec<AuditEvent>,
    /// When the member is due because of it.
    pub(super) due: Option<Due>,
}

/// Ends the selected grants of a record and makes it due. Pure.
pub(super) fn end_grants(
    record: &mut MemberRecord,
    select: impl Fn(&Grant) -> bool,
    cause: &EndCause,
    now: Timestamp,
) -> Ending {
    let mut ending = Ending::default();
    let mut removal_weight: Option<u32> = None;
    for grant in record.grants.iter_mut().filter(|grant| select(grant)) {
        let from = grant.state.name();
        if !grant.begin_revoke(cause.clone(), now) {
            ending.already += 1;
            continue;
        }
        grant.version += 1;
        ending.revoked += 1;
        if !grant.state.is_ended() {
            removal_weight = removal_weight.max(Some(grant.weight()));
        }
        let cause = match &grant.state {
            GrantState::Revoking { cause, .. } | GrantState::Ended { cause, .. } => {
                Some(cause.clone())
            }
            GrantState::Scheduled { .. }
            | GrantState::AwaitingMember { .. }
            | GrantState::Activating { .. }
            | GrantState::Active { .. } => None,
        };
        ending.audit.push(AuditEvent::grant(
            now,
            grant,
            EventKind::GrantChanged {
                from: from.to_owned(),
                to: grant.state.name().to_owned(),
                cause,
                expires_at: None,
            },
        ));
    }
    if ending.revoked == 0 {
        return ending;
    }
    if let Some(weight) = removal_weight {
        let weight = weight_class(record.open_weight(now)).max(weight);
        // A removal that was due before stays due from then.
        let before = record
            .due
            .filter(|due| due.kind == DueKind::Remove && due.at <= now);
        record.due = Some(Due {
            at: before.map_or(now, |due| due.at),
            kind: DueKind::Remove,
            weight: before.map_or(weight, |due| due.weight.max(weight)),
        });
    } else if record.grants.iter().all(|grant| grant.state.is_ended())
        && record.owned.is_empty()
        && record.invitation.is_none()
    {
        record.due = None;
    } else if record.due.is_none_or(|due| due.at > now) {
        // What is left, an invitation that nobody waits for say, is looked at now.
        record.due = Some(Due {
            at: now,
            kind: DueKind::Look,
            weight: 0,
        });
    }
    ending.due = record.due;
    ending
}
