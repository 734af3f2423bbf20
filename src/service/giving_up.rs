//! The two ways of giving up ownership of an assignment: forgetting it, and adopting it as standing access.
//!
//! Owns who may decide so, and that the decision is durable, audited and on every receipt. Never takes anything away
//! from anybody, and never deletes a word of the audit.

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::domain::assignment::{ApplicationRoles, Assignment, Target};
use crate::domain::caller::Caller;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::evidence::{Forgotten, Proposal};
use crate::domain::grant::{Certainty, GrantState, Holding};
use crate::domain::ids::{CallerName, GrantId, IntegrationName};
use crate::domain::member::{
    Due, DueKind, MemberKey, MemberRecord, Owned, Phase, Subject, WriteKind,
};
use crate::domain::overdue::{GRACE, removal_due_at};
use crate::domain::receipt::GivenUp;
use crate::domain::request::Principal;
use crate::ports::ledger::MemberCommit;
use crate::ports::provider::Priority;
use crate::reconcile::outage::Writing;
use crate::reconcile::settle::Draft;

use super::error::{Result, ServiceError};
use super::resolve::Resolved;
use super::{ATTEMPTS, Integration, Service, subject_key};

/// How long a proposal to forget something waits for a second person.
const PROPOSAL_TTL: TimeDelta = TimeDelta::hours(1);

/// One assignment of one member, as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessReference {
    /// Which organization; `None` for the only one.
    pub integration: Option<IntegrationName>,
    /// Whose access.
    pub member: Principal,
    /// Canonical role id.
    pub role: String,
    /// Where it is held.
    pub target: Target,
    /// Stack roles; `None` where only one assignment of the role on the target is ours.
    pub application_roles: Option<ApplicationRoles>,
}

/// What became of a call to forget an assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forgetting {
    /// Somebody else has to confirm it.
    Proposed {
        /// Which.
        assignment: Assignment,
        /// Who proposed it.
        by: String,
        /// Until when.
        expires_at: Timestamp,
    },
    /// It is given up, and watched for.
    Forgotten {
        /// Which.
        assignment: Assignment,
        /// Who proposed it.
        by: String,
        /// Who confirmed it.
        confirmed_by: String,
        /// Grants that ended with it.
        ended: Vec<GrantId>,
    },
}

impl Forgetting {
    fn assignment(&self) -> &Assignment {
        match self {
            Self::Proposed { assignment, .. } | Self::Forgotten { assignment, .. } => assignment,
        }
    }
}

/// What became of an adoption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Which assignment is standing access now.
    pub assignment: Assignment,
    /// Grants that wanted it.
    pub grants: Vec<GrantId>,
}

impl Service {
    /// Proposes to give up an assignment, or confirms the proposal of somebody else.
    ///
    /// # Errors
    /// [`ServiceError::NotOwned`], [`ServiceError::Unfit`] when its removal is neither overdue nor blocked,
    /// [`ServiceError::InvalidField`] when several assignments match, and failures of the ledger.
    pub async fn forget_access(
        &self,
        caller: impl Into<Caller>,
        access: &AccessReference,
        requester: &str,
        reason: &str,
    ) -> Result<Forgetting> {
        let caller = &caller.into();
        let key = self.member_of(access).await?;
        let result = self
            .try_forget(caller, &key, access, requester, reason)
            .await;
        let subject = Some(key.subject.to_string());
        let forgetting = self
            .audited(
                "forget_access",
                &caller.name,
                Some(&key.integration),
                subject,
                result,
            )
            .await?;
        tracing::warn!(integration = %key.integration, state = ?std::mem::discriminant(&forgetting), "Forgetting of access was asked for");
        Ok(forgetting)
    }

    async fn try_forget(
        &self,
        caller: &Caller,
        key: &MemberKey,
        access: &AccessReference,
        requester: &str,
        reason: &str,
    ) -> Result<Forgetting> {
        for _ in 0..ATTEMPTS {
            let mut record = self.ledger.member(key).await?;
            let now = self.clock.now();
            let Some(row) = find(&record, access)? else {
                let known = known_forgotten(&record, access).ok_or(ServiceError::NotOwned)?;
                self.tell_witness(key, known.assignment()).await;
                return Ok(known);
            };
            may_be_forgotten(&record, row, now)?;
            let assignment = row.assignment.clone();
            let standing = record.evidence.proposal(&assignment, now).cloned();
            let Some(proposal) = standing else {
                let proposal = Proposal {
                    assignment: assignment.clone(),
                    by: requester.to_owned(),
                    identity: caller.identity.clone(),
                    reason: reason.to_owned(),
                    at: now,
                    expires_at: now + PROPOSAL_TTL,
                };
                let kind = EventKind::ForgetProposed {
                    assignment: assignment.to_string(),
                    by: proposal.by.clone(),
                    reason: proposal.reason.clone(),
                    expires_at: proposal.expires_at,
                };
                let answer = Forgetting::Proposed {
                    assignment: assignment.clone(),
                    by: proposal.by.clone(),
                    expires_at: proposal.expires_at,
                };
                let proposals = &mut record.evidence.proposals;
                proposals.retain(|other| other.assignment != assignment);
                proposals.push(proposal);
                let mut event = AuditEvent::member(now, key, kind);
                event.caller = Some(caller.name.clone());
                let audit = vec![event];
                if self.store(record, audit).await? {
                    return Ok(answer);
                }
                continue;
            };
            // A name is told; an identity is proven. Two people differ in both, as far as both are there.
            let is_same_identity =
                proposal.identity.is_some() && proposal.identity == caller.identity;
            if is_same_identity || is_same_person(&proposal.by, requester) {
                return Ok(Forgetting::Proposed {
                    assignment,
                    by: proposal.by,
                    expires_at: proposal.expires_at,
                });
            }
            let (record, mut audit, ended) = forget(record, &assignment, &proposal, requester, now);
            for event in &mut audit {
                event.caller.get_or_insert_with(|| caller.name.clone());
            }
            if self.store(record, audit).await? {
                self.tell_witness(key, &assignment).await;
                tracing::error!(
                    integration = %key.integration, member = %key.subject, %assignment,
                    "Access was given up without being seen gone; it is watched for"
                );
                return Ok(Forgetting::Forgotten {
                    assignment,
                    by: proposal.by,
                    confirmed_by: requester.to_owned(),
                    ended,
                });
            }
        }
        Err(ServiceError::Contended)
    }

    /// Takes an assignment that is ours for standing access from now on.
    ///
    /// # Errors
    /// [`ServiceError::NotOwned`], [`ServiceError::Unfit`] when it was not seen yet or its removal has begun,
    /// [`ServiceError::InvalidField`] when several assignments match, and failures of the ledger.
    pub async fn adopt_access(
        &self,
        caller: &CallerName,
        access: &AccessReference,
        requester: &str,
        reason: &str,
    ) -> Result<Adopted> {
        let key = self.member_of(access).await?;
        let result = self.try_adopt(&key, access, requester, reason).await;
        let subject = Some(key.subject.to_string());
        let adopted = self
            .audited(
                "adopt_access",
                caller,
                Some(&key.integration),
                subject,
                result,
            )
            .await?;
        tracing::warn!(integration = %key.integration, assignment = %adopted.assignment, "Access was adopted as standing");
        Ok(adopted)
    }

    async fn try_adopt(
        &self,
        key: &MemberKey,
        access: &AccessReference,
        requester: &str,
        reason: &str,
    ) -> Result<Adopted> {
        let integration = self.integration(Some(&key.integration))?;
        for _ in 0..ATTEMPTS {
            let mut writing = self.deciding(integration, key);
            let record = self.ledger.member(key).await?;
            let now = self.clock.now();
            let Some(row) = find(&record, access)? else {
                let known = known_adopted(&record, access).ok_or(ServiceError::NotOwned)?;
                self.tell_witness(key, &known.assignment).await;
                return Ok(known);
            };
            may_be_adopted(row)?;
            let assignment = row.assignment.clone();
            if writing
                .as_ref()
                .is_some_and(|writing| writing.is_removing(&assignment))
            {
                return Err(removal_begun());
            }
            // What was refused is removed by nobody who cannot write that down.
            let end = removal_due_at(&record, row).filter(|_| row.blocked.is_none());
            let (record, audit, grants) = adopt(record, &assignment, requester, reason, now);
            let stored = match end {
                Some(end) => {
                    self.store_end(integration, record, audit, end, &mut writing)
                        .await?
                }
                None => self.store(record, audit).await?,
            };
            if stored {
                self.tell_witness(key, &assignment).await;
                return Ok(Adopted { assignment, grants });
            }
        }
        Err(ServiceError::Contended)
    }

    async fn member_of(&self, access: &AccessReference) -> Result<MemberKey> {
        let integration = self.integration(access.integration.as_ref())?;
        let user = match &access.member {
            Principal::User(user) => user.clone(),
            who @ Principal::Email(_) => {
                match self
                    .resolve_member(integration, who, Priority::Revoke)
                    .await?
                {
                    Resolved::Member(user) => user,
                    Resolved::Nobody => {
                        return Err(ServiceError::NotAMember {
                            remedy: "name the user id, which the list of overdue removals shows",
                        });
                    }
                }
            }
        };
        Ok(subject_key(&integration.name, Subject::Member(user)))
    }

    /// What is not ours any more must not come back out of the witness.
    async fn tell_witness(&self, key: &MemberKey, assignment: &Assignment) {
        let integration = self.integrations.get(&key.integration);
        if let Some(hold) = integration.and_then(|integration| integration.hold.as_ref()) {
            hold.note_given_up(key, assignment).await;
        }
    }

    /// Stores a decision and has the member looked at. `false`: decide again.
    async fn store(&self, record: MemberRecord, audit: Vec<AuditEvent>) -> Result<bool> {
        let (key, due, commit) = self.looked_at(record, audit);
        let stored = self.try_commit(commit).await?;
        if stored {
            self.wake.wake(&key, due);
        }
        Ok(stored)
    }

    fn looked_at(
        &self,
        mut record: MemberRecord,
        audit: Vec<AuditEvent>,
    ) -> (MemberKey, Due, MemberCommit) {
        let due = Due {
            at: self.clock.now(),
            kind: DueKind::Look,
            weight: 0,
        };
        let due = record.due.map_or(due, |earlier| earlier.min(due));
        record.due = Some(due);
        let key = record.key.clone();
        let request = None;
        let commit = MemberCommit {
            record,
            audit,
            request,
        };
        (key, due, commit)
    }

    /// The same for what would have gone at `end`.
    async fn store_end(
        &self,
        integration: &Integration,
        record: MemberRecord,
        audit: Vec<AuditEvent>,
        end: Timestamp,
        writing: &mut Option<Writing<'_>>,
    ) -> Result<bool> {
        let (key, due, commit) = self.looked_at(record, audit);
        let stored = self.commit_end(integration, commit, end, writing).await?;
        if stored {
            self.wake.wake(&key, due);
        }
        Ok(stored)
    }
}

fn is_meant(access: &AccessReference, assignment: &Assignment) -> bool {
    let AccessReference {
        integration: _,
        member: _,
        role,
        target,
        application_roles,
    } = access;
    assignment.role == *role
        && assignment.target == *target
        && application_roles
            .as_ref()
            .is_none_or(|roles| assignment.application_roles == *roles)
}

/// The one row that is meant.
fn find<'a>(record: &'a MemberRecord, access: &AccessReference) -> Result<Option<&'a Owned>> {
    let mut rows = record
        .owned
        .iter()
        .filter(|row| is_meant(access, &row.assignment));
    match (rows.next(), rows.next()) {
        (row, None) => Ok(row),
        (_, Some(_)) => Err(ServiceError::invalid(
            "access.application_roles",
            "several assignments of this role on this target are ours: name the stack roles",
        )),
    }
}

/// Whether two names are of one person, as far as names tell.
fn is_same_person(one: &str, other: &str) -> bool {
    one.trim().to_lowercase() == other.trim().to_lowercase()
}

fn may_be_forgotten(record: &MemberRecord, row: &Owned, now: Timestamp) -> Result<()> {
    let is_overdue = removal_due_at(record, row).is_some_and(|at| at + GRACE <= now);
    if is_overdue || (row.phase == Phase::Live && row.blocked.is_some()) {
        return Ok(());
    }
    Err(ServiceError::Unfit {
        code: "not_overdue",
        problem: "only access whose removal is overdue or blocked can be forgotten: revoke it, and let Latchkey try",
    })
}

fn may_be_adopted(row: &Owned) -> Result<()> {
    let unfit = |code, problem| Err(ServiceError::Unfit { code, problem });
    if row.phase != Phase::Live {
        return unfit(
            "already_gone",
            "it was seen gone: there is nothing to adopt; give it in Elastic Cloud",
        );
    }
    if row.last_write.kind == WriteKind::Remove {
        return Err(removal_begun());
    }
    if !row.seen {
        return unfit(
            "not_seen",
            "no read has shown it yet: wait until its grant is active",
        );
    }
    Ok(())
}

fn removal_begun() -> ServiceError {
    ServiceError::Unfit {
        code: "removal_begun",
        problem: "its removal was sent already: wait until it is gone, then give it in Elastic Cloud",
    }
}

fn known_forgotten(record: &MemberRecord, access: &AccessReference) -> Option<Forgetting> {
    let known = record
        .evidence
        .forgotten
        .iter()
        .find(|known| is_meant(access, &known.assignment))?;
    Some(Forgetting::Forgotten {
        assignment: known.assignment.clone(),
        by: known.by.clone(),
        confirmed_by: known.confirmed_by.clone(),
        ended: Vec::new(),
    })
}

fn known_adopted(record: &MemberRecord, access: &AccessReference) -> Option<Adopted> {
    let trail = record.evidence.trails.iter().find(|trail| {
        is_meant(access, &trail.assignment)
            && matches!(trail.given_up, Some(GivenUp::Adopted { .. }))
    })?;
    Some(Adopted {
        assignment: trail.assignment.clone(),
        grants: naming(record, &trail.assignment),
    })
}

fn naming(record: &MemberRecord, assignment: &Assignment) -> Vec<GrantId> {
    record
        .grants
        .iter()
        .filter(|grant| {
            grant
                .assignments
                .iter()
                .any(|held| held.assignment == *assignment)
        })
        .map(|grant| grant.id)
        .collect()
}

/// Gives an assignment up. Pure. Answers the record, its audit, and the grants that end with it.
fn forget(
    mut record: MemberRecord,
    assignment: &Assignment,
    proposal: &Proposal,
    confirmed_by: &str,
    now: Timestamp,
) -> (MemberRecord, Vec<AuditEvent>, Vec<GrantId>) {
    for row in &mut record.owned {
        // What is given up is not put back either.
        row.must_survive
            .retain(|survivor| survivor.assignment != *assignment);
    }
    let Proposal { by, reason, .. } = proposal.clone();
    record.evidence.give_up(
        assignment,
        &GivenUp::Forgotten {
            at: now,
            by: by.clone(),
            confirmed_by: confirmed_by.to_owned(),
            reason: reason.clone(),
        },
    );
    record
        .evidence
        .forgotten
        .retain(|known| known.assignment != *assignment);
    record.evidence.forgotten.push(Forgotten {
        assignment: assignment.clone(),
        at: now,
        by: by.clone(),
        confirmed_by: confirmed_by.to_owned(),
        reason: reason.clone(),
        reported_at: None,
    });
    let kind = EventKind::AccessForgotten {
        assignment: assignment.to_string(),
        by,
        confirmed_by: confirmed_by.to_owned(),
        reason,
    };
    finish(record, assignment, kind, now)
}

/// Makes an assignment standing access. Pure. Answers the record, its audit, and the grants that wanted it.
fn adopt(
    mut record: MemberRecord,
    assignment: &Assignment,
    by: &str,
    reason: &str,
    now: Timestamp,
) -> (MemberRecord, Vec<AuditEvent>, Vec<GrantId>) {
    record.evidence.give_up(
        assignment,
        &GivenUp::Adopted {
            at: now,
            by: by.to_owned(),
            reason: reason.to_owned(),
        },
    );
    let grants = naming(&record, assignment);
    for grant in &mut record.grants {
        let mut changed = false;
        for held in &mut grant.assignments {
            if held.assignment == *assignment && held.holding != Holding::Standing {
                held.holding = Holding::Standing;
                changed = true;
            }
        }
        grant.version += u64::from(changed);
    }
    let kind = EventKind::AccessAdopted {
        assignment: assignment.to_string(),
        by: by.to_owned(),
        reason: reason.to_owned(),
    };
    let (record, audit, _) = finish(record, assignment, kind, now);
    (record, audit, grants)
}

/// Takes an assignment out of what is ours and ends the grants that waited for nothing else, with the event of the
/// decision first.
fn finish(
    record: MemberRecord,
    assignment: &Assignment,
    kind: EventKind,
    now: Timestamp,
) -> (MemberRecord, Vec<AuditEvent>, Vec<GrantId>) {
    let first = AuditEvent::member(now, &record.key, kind);
    let mut draft = Draft::new(record);
    draft.audit.push(first);
    draft.disown(assignment, now);
    draft.finish(now);
    let Draft {
        mut record, audit, ..
    } = draft;
    let mut ended = Vec::new();
    for grant in &mut record.grants {
        if !matches!(grant.state, GrantState::Ended { .. }) {
            continue;
        }
        ended.push(grant.id);
        let forgotten = grant
            .assignments
            .iter()
            .any(|held| record.evidence.forgotten(&held.assignment).is_some());
        if forgotten {
            // No read agreed with it.
            grant.certainty = Certainty::Unknown;
        }
    }
    (record, audit, ended)
}
