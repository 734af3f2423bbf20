//! Why a member holds each role now.
//!
//! Owns the words for what a read and the ledger say together. Never changes either, and never names the grants
//! of other callers.

use std::collections::BTreeSet;

use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::caller::Caller;
use crate::domain::drift::OpenDrift;
use crate::domain::grant::Grant;
use crate::domain::ids::{Email, GrantId, IntegrationName, UserId};
use crate::domain::member::{MemberRecord, Phase, Subject, WriteKind};
use crate::domain::request::Principal;
use crate::ports::provider::Priority;

use super::error::{Result, ServiceError};
use super::resolve::Resolved;
use super::{Service, subject_key};

/// Why an assignment is there, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessKind {
    /// Held without an end, not through the connector.
    Standing,
    /// Held because of grants.
    Granted,
    /// Being taken away, or not seen gone twice yet.
    Closing,
    /// Wanted and not shown yet.
    Pending,
    /// Given and not there any more: somebody else removed it.
    Missing,
    /// Wanted, and covered by standing access.
    Covered,
    /// Given through the connector, given up on, and still there.
    Forgotten,
}

/// One assignment, explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Which.
    pub assignment: Assignment,
    /// Why it is there.
    pub kind: AccessKind,
    /// Whether the read showed it.
    pub is_present: bool,
    /// Grants of the caller that want it.
    pub grants: Vec<GrantId>,
    /// How many grants of other callers want it.
    pub foreign_grants: u32,
    /// When the last of those grants ends; `None` before activation and for standing access.
    pub until: Option<Timestamp>,
}

/// Why a member holds roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The member.
    pub user_id: UserId,
    /// Address, where shown.
    pub email: Option<Email>,
    /// When the read started.
    pub observed_at: Timestamp,
    /// Whether the read showed everything.
    pub is_complete: bool,
    /// Every assignment held, wanted or owed, in order.
    pub access: Vec<Access>,
    /// Where this differs from what the ledger expects, since when, and what is done about it.
    pub drift: Vec<OpenDrift>,
}

impl Service {
    /// Explains each role of a member from a fresh read and the ledger.
    ///
    /// # Errors
    /// [`ServiceError::NotAMember`], [`ServiceError::NotShown`], [`ServiceError::Upstream`], and failures of the
    /// ledger.
    pub async fn explain_access(
        &self,
        caller: impl Into<Caller>,
        integration: Option<&IntegrationName>,
        who: &Principal,
    ) -> Result<Explanation> {
        let caller = caller.into();
        let integration = self.integration(integration)?;
        self.check_reading(&caller, Some(&integration.name), "access")
            .await?;
        let (read, resolved) = self
            .observe_member(integration, who, Priority::Discovery)
            .await?;
        let Resolved::Member(user) = resolved else {
            return Err(ServiceError::NotAMember {
                remedy: "the list of members shows who is",
            });
        };
        let record = self
            .ledger
            .member(&subject_key(
                &integration.name,
                Subject::Member(user.clone()),
            ))
            .await?;
        let shown = read.member(&user);
        let held = shown
            .map(|member| member.assignments.clone())
            .unwrap_or_default();
        Ok(Explanation {
            email: shown.and_then(|member| member.email.clone()),
            user_id: user,
            observed_at: read.started_at,
            is_complete: read.is_complete(),
            access: explain(
                &caller,
                &record,
                &held,
                read.is_complete(),
                self.clock.now(),
            ),
            drift: record.drifts,
        })
    }
}

/// Puts the three sets side by side. Pure.
fn explain(
    caller: &Caller,
    record: &MemberRecord,
    held: &BTreeSet<Assignment>,
    is_complete: bool,
    now: Timestamp,
) -> Vec<Access> {
    let wanting = |assignment: &Assignment| -> Vec<&Grant> {
        record
            .grants
            .iter()
            .filter(|grant| {
                grant.expects_access(now)
                    && grant
                        .assignments
                        .iter()
                        .any(|wanted| wanted.assignment == *assignment)
            })
            .collect()
    };
    let mut all: BTreeSet<&Assignment> = held.iter().collect();
    all.extend(record.owned.iter().map(|owned| &owned.assignment));
    all.extend(
        record
            .grants
            .iter()
            .filter(|grant| grant.expects_access(now))
            .flat_map(|grant| grant.assignments.iter().map(|wanted| &wanted.assignment)),
    );
    all.into_iter()
        .map(|assignment| {
            let grants = wanting(assignment);
            let is_present = held.contains(assignment);
            let covered = held
                .iter()
                .any(|other| record.owned(other).is_none() && other.covers(assignment));
            let kind = match record.owned(assignment) {
                Some(owned) if grants.is_empty() || owned.phase != Phase::Live => {
                    AccessKind::Closing
                }
                Some(_) if is_present => AccessKind::Granted,
                Some(owned)
                    if is_complete && owned.seen && owned.last_write.kind == WriteKind::Add =>
                {
                    AccessKind::Missing
                }
                Some(_) => AccessKind::Pending,
                None if record.evidence.forgotten(assignment).is_some() => AccessKind::Forgotten,
                None if grants.is_empty() => AccessKind::Standing,
                None if covered => AccessKind::Covered,
                None => AccessKind::Pending,
            };
            let (own, foreign): (Vec<&Grant>, Vec<&Grant>) = grants
                .iter()
                .copied()
                .partition(|grant| caller.may_read(&grant.caller));
            Access {
                assignment: assignment.clone(),
                kind,
                is_present,
                grants: own.iter().map(|grant| grant.id).collect(),
                foreign_grants: u32::try_from(foreign.len()).unwrap_or(u32::MAX),
                until: grants.iter().filter_map(|grant| grant.ends_at()).max(),
            }
        })
        .collect()
}
