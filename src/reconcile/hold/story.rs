//! One member while the events about them are read: what each event says is theirs, ours, waiting or over.
//!
//! Owns the reading of events, and the shape of what is taken over from one. Pure. Never takes for ours what an event
//! does not say is.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{Certainty, EndCause, Grant, GrantState, GrantedAssignment, Holding};
use crate::domain::ids::{GrantId, RequestId};
use crate::domain::member::{
    LastWrite, MemberKey, MemberRecord, Owned, Phase, Subject, WriteKind, WriteOutcome,
};
use crate::domain::ttl::Ttl;
use crate::ports::witness::Intent;

/// How long after an intent its call may still land.
const ECHO: TimeDelta = TimeDelta::minutes(10);

/// One subject while its events are read.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) record: MemberRecord,
    /// Grants that wait for a start or a person that the events do not name.
    waiting: BTreeSet<GrantId>,
    /// Assignments that the last intent made ours; a refusal takes them back.
    fresh: Vec<Assignment>,
    /// Neighbours that are about to be put back; they are not ours.
    restoring: BTreeSet<Assignment>,
}

impl Story {
    pub(super) fn new(key: MemberKey) -> Self {
        Self {
            record: MemberRecord::new(key),
            waiting: BTreeSet::new(),
            fresh: Vec::new(),
            restoring: BTreeSet::new(),
        }
    }

    fn grant(&mut self, id: Option<GrantId>) -> Option<&mut Grant> {
        self.record
            .grants
            .iter_mut()
            .find(|grant| Some(grant.id) == id)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "of many kinds of events only some are of interest"
    )]
    pub(super) fn take(&mut self, event: &AuditEvent) {
        let at = event.at;
        match &event.kind {
            EventKind::GrantAccepted {
                state,
                assignments,
                duration_s,
                requester,
                justification,
                policies: _,
            } => {
                let (Some(id), Some(caller), Ok(duration)) = (
                    event.grant_id,
                    event.caller.clone(),
                    Ttl::from_seconds(*duration_s),
                ) else {
                    return;
                };
                if state != "activating" && state != "active" {
                    self.waiting.insert(id);
                }
                let key = &self.record.key;
                let grant = Grant {
                    id,
                    integration: key.integration.clone(),
                    subject: key.subject.clone(),
                    caller,
                    request_id: RequestId::parse(format!("adopted-{id}"))
                        .expect("an id is printable ASCII"),
                    beneficiary: beneficiary(&key.subject),
                    requester: requester.clone(),
                    justification: justification.clone(),
                    assignments: parsed(assignments)
                        .into_iter()
                        .map(|assignment| GrantedAssignment {
                            assignment,
                            holding: Holding::Undecided,
                        })
                        .collect(),
                    duration,
                    starts_at: None,
                    not_after: None,
                    created_at: at,
                    state: if state == "active" {
                        GrantState::Active {
                            activated_at: at,
                            expires_at: at + duration.delta(),
                        }
                    } else {
                        GrantState::Activating {
                            since: at,
                            must_end_by: None,
                        }
                    },
                    version: 1,
                    certainty: Certainty::Unknown,
                    externally_modified: false,
                    invited: false,
                    attempts: 0,
                    last_error: None,
                    verified_at: None,
                    removal_sent_at: None,
                    authority: None,
                };
                self.record.grants.push(grant);
            }
            EventKind::GrantChanged {
                to,
                cause,
                expires_at,
                ..
            } => self.changed(event, to, cause.as_ref(), *expires_at),
            EventKind::GrantExtended { to, .. } => {
                let Some(grant) = self.grant(event.grant_id) else {
                    return;
                };
                if let GrantState::Active { expires_at, .. } = &mut grant.state {
                    *expires_at = *to;
                }
                let wanted: Vec<Assignment> = assignments_of(grant);
                for row in &mut self.record.owned {
                    if wanted.contains(&row.assignment) {
                        row.must_end_by = row.must_end_by.max(Some(*to));
                    }
                }
            }
            EventKind::CallIntended {
                write, assignments, ..
            } => self.intended(*write, &parsed(assignments), at),
            EventKind::CallEnded {
                write,
                assignments,
                outcome,
                ..
            } => {
                let fresh = std::mem::take(&mut self.fresh);
                if outcome == "refused" {
                    if *write == WriteKind::Add {
                        self.record
                            .owned
                            .retain(|row| !fresh.contains(&row.assignment));
                    }
                    return;
                }
                for assignment in parsed(assignments) {
                    if let Some(row) = self.record.owned_mut(&assignment) {
                        row.last_write = LastWrite {
                            kind: *write,
                            at,
                            outcome: if outcome == "done" {
                                WriteOutcome::Done
                            } else {
                                WriteOutcome::Unknown
                            },
                        };
                    }
                }
            }
            EventKind::Observed {
                present,
                gone,
                standing,
                ..
            } => {
                for assignment in parsed(present) {
                    if let Some(row) = self.record.owned_mut(&assignment) {
                        row.seen = true;
                    }
                }
                for assignment in parsed(gone) {
                    self.closing(&assignment, at);
                }
                let standing = parsed(standing);
                for held in self
                    .record
                    .grants
                    .iter_mut()
                    .flat_map(|grant| &mut grant.assignments)
                {
                    if standing.contains(&held.assignment) {
                        held.holding = Holding::Standing;
                    }
                }
            }
            EventKind::SecondLook { assignment } => {
                let gone = Assignment::parse(assignment).ok();
                self.record
                    .owned
                    .retain(|row| Some(&row.assignment) != gone.as_ref());
            }
            EventKind::Drift {
                kind,
                assignment,
                action,
            } => {
                let Ok(assignment) = Assignment::parse(assignment) else {
                    return;
                };
                if kind == "resurrected"
                    && let Some(row) = self.record.owned_mut(&assignment)
                {
                    row.phase = Phase::Live;
                } else if kind == "survivor_missing" && action == "put back as it was" {
                    self.restoring.insert(assignment);
                }
            }
            EventKind::MemberLeft { .. } => {
                let all: Vec<Assignment> = self
                    .record
                    .owned
                    .iter()
                    .map(|row| row.assignment.clone())
                    .collect();
                for assignment in all {
                    self.closing(&assignment, at);
                }
            }
            EventKind::Recovered {
                assignment,
                must_end_by,
                ..
            } => {
                if let Ok(assignment) = Assignment::parse(assignment)
                    && self.record.owned(&assignment).is_none()
                {
                    let row = owned(&assignment, at, *must_end_by, WriteOutcome::Unknown);
                    self.record.owned.push(row);
                }
            }
            _ => {}
        }
    }

    fn changed(
        &mut self,
        event: &AuditEvent,
        to: &str,
        cause: Option<&EndCause>,
        expires_at: Option<Timestamp>,
    ) {
        let at = event.at;
        if let Some(id) = event.grant_id {
            self.waiting.remove(&id);
        }
        if to == "ended" {
            self.record
                .grants
                .retain(|grant| Some(grant.id) != event.grant_id);
            return;
        }
        let Some(grant) = self.grant(event.grant_id) else {
            return;
        };
        match to {
            "activating" => {
                grant.state = GrantState::Activating {
                    since: at,
                    must_end_by: None,
                };
            }
            "active" => {
                grant.verified_at = grant.verified_at.or(Some(at));
                grant.state = GrantState::Active {
                    activated_at: at,
                    expires_at: expires_at.unwrap_or(at),
                };
            }
            "revoking" => {
                grant.state = GrantState::Revoking {
                    since: at,
                    cause: cause.cloned().unwrap_or(EndCause::Expired),
                };
            }
            _ => {
                let id = grant.id;
                self.waiting.insert(id);
            }
        }
    }

    fn intended(&mut self, write: WriteKind, assignments: &[Assignment], at: Timestamp) {
        self.fresh.clear();
        for assignment in assignments {
            if write == WriteKind::Add && self.restoring.remove(assignment) {
                continue;
            }
            let mut ends_at = None;
            if write == WriteKind::Add {
                for grant in &mut self.record.grants {
                    let wants = grant
                        .assignments
                        .iter_mut()
                        .find(|held| held.assignment == *assignment);
                    let Some(held) = wants else { continue };
                    held.holding = Holding::Owned;
                    grant.bound_before_send(at);
                    ends_at = ends_at.max(grant.ends_at());
                }
            }
            let last_write = LastWrite {
                kind: write,
                at,
                outcome: WriteOutcome::InFlight,
            };
            match self.record.owned_mut(assignment) {
                Some(row) => {
                    row.last_write = last_write;
                    row.echo_until = Some(at + ECHO);
                    if write == WriteKind::Add {
                        row.phase = Phase::Live;
                        row.seen = false;
                        row.must_end_by = row.must_end_by.max(ends_at);
                    }
                }
                None if write == WriteKind::Add => {
                    self.fresh.push(assignment.clone());
                    let row = owned(assignment, at, ends_at, WriteOutcome::InFlight);
                    self.record.owned.push(row);
                }
                None => {}
            }
        }
    }

    fn closing(&mut self, assignment: &Assignment, at: Timestamp) {
        if let Some(row) = self.record.owned_mut(assignment) {
            row.phase = Phase::Closing {
                gone_at: at,
                look_at: at,
            };
        }
    }

    /// Grants whose start or person is not in the events cannot be rebuilt: they gave nothing yet.
    pub(super) fn leave_out_waiting(&mut self, left_out: &mut Vec<String>) {
        let waiting = std::mem::take(&mut self.waiting);
        let invitee = matches!(self.record.key.subject, Subject::Invitee(_));
        self.record.grants.retain(|grant| {
            let waits = invitee || waiting.contains(&grant.id);
            if waits {
                left_out.push(format!(
                    "grant {} for {} had not begun: ask for it again",
                    grant.id, grant.beneficiary
                ));
            }
            !waits
        });
    }

    /// The witness is newer than the audit: what it does not hold open any more is over, and so is what wanted it.
    pub(super) fn leave_out_ended(&mut self, open: &[&Intent], left_out: &mut Vec<String>) {
        let is_open =
            |assignment: &Assignment| open.iter().any(|intent| intent.assignment == *assignment);
        let key = self.record.key.clone();
        let mut over = Vec::new();
        self.record.owned.retain(|row| {
            let kept = is_open(&row.assignment);
            if !kept {
                over.push(row.assignment.clone());
                left_out.push(format!(
                    "{} of {key}: the witness does not hold it open",
                    row.assignment
                ));
            }
            kept
        });
        self.record.grants.retain(|grant| {
            !grant
                .assignments
                .iter()
                .any(|held| over.contains(&held.assignment))
        });
    }
}

pub(super) fn owned(
    assignment: &Assignment,
    at: Timestamp,
    must_end_by: Option<Timestamp>,
    outcome: WriteOutcome,
) -> Owned {
    Owned {
        assignment: assignment.clone(),
        phase: Phase::Live,
        since: at,
        must_end_by,
        last_write: LastWrite {
            kind: WriteKind::Add,
            at,
            outcome,
        },
        seen: false,
        echo_until: Some(at + ECHO),
        removal_echo_until: None,
        must_survive: Vec::new(),
        blocked: None,
        isolate: false,
        attempts: 0,
    }
}

pub(super) fn beneficiary(subject: &Subject) -> String {
    match subject {
        Subject::Member(user) => user.to_string(),
        Subject::Invitee(email) => email.to_string(),
    }
}

fn parsed(texts: &[String]) -> Vec<Assignment> {
    texts
        .iter()
        .filter_map(|text| Assignment::parse(text).ok())
        .collect()
}

pub(super) fn assignments_of(grant: &Grant) -> Vec<Assignment> {
    grant
        .assignments
        .iter()
        .map(|held| held.assignment.clone())
        .collect()
}
