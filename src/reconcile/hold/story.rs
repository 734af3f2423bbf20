//! One member while the events about them are read: what each event says is theirs, ours, waiting or over.
//!
//! Owns the reading of events. Pure. Never takes for ours what an event does not say is.

use std::collections::{BTreeMap, BTreeSet};

use super::shapes::{ECHO, approval, assignments_of, beneficiary, owned, parsed};
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::authority::{BreakGlass, Review};
use crate::domain::drift::{DriftAction, DriftKind};
use crate::domain::event::{AuditEvent, EventKind, NOT_SENT};
use crate::domain::evidence::Forgotten;
use crate::domain::grant::{Certainty, EndCause, Grant, GrantState, GrantedAssignment, Holding};
use crate::domain::ids::{GrantId, RequestId};
use crate::domain::member::{
    LastWrite, MemberKey, MemberRecord, Phase, Subject, WriteKind, WriteOutcome,
};
use crate::domain::ttl::Ttl;
use crate::ports::witness::Intent;
use crate::reconcile::settle::Draft;

/// The drift of what a release made the ledger forget.
pub(super) const CONTRADICTED: &str = "contradicted";

/// One subject while its events are read.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) record: MemberRecord,
    /// Grants that wait for a start or a person that the events do not name.
    waiting: BTreeSet<GrantId>,
    /// What the record was before the last intent: it is so again where nothing came of the call.
    before: Option<MemberRecord>,
    /// Neighbours that are being put back; they are not ours. Events of earlier releases say it of the drift alone.
    restoring: BTreeSet<Assignment>,
    /// Changes of grants that are not here yet: those of an address are handed over after the events that say how.
    early: BTreeMap<GrantId, AuditEvent>,
    /// What was given up, and when: an intent of before then is over.
    given_up: BTreeMap<Assignment, Timestamp>,
    /// Reviews that were opened by grants of this subject.
    pub(super) reviews: Vec<Review>,
}

impl Story {
    pub(super) fn new(key: MemberKey) -> Self {
        Self {
            record: MemberRecord::new(key),
            waiting: BTreeSet::new(),
            before: None,
            restoring: BTreeSet::new(),
            early: BTreeMap::new(),
            given_up: BTreeMap::new(),
            reviews: Vec::new(),
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
                let wanted = parsed(assignments);
                // One that is accepted as active stands for what was recovered, and ends with it.
                let ends: Option<Timestamp> = wanted
                    .iter()
                    .filter_map(|one| self.record.owned(one)?.must_end_by)
                    .max();
                let full = at + duration.delta();
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
                    assignments: wanted
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
                            expires_at: ends.map_or(full, |end| end.min(full)),
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
            EventKind::Approved { approvers, ids, .. } => {
                if let Some(grant) = self.grant(event.grant_id) {
                    let approvals = approvers
                        .iter()
                        .zip(ids)
                        .map(|(who, id)| approval(who, id, at));
                    let authority = grant.authority.get_or_insert_default();
                    authority.approvals.extend(approvals);
                }
            }
            EventKind::BreakGlassUsed {
                key,
                id,
                reason,
                token,
                until,
            } => {
                let used = BreakGlass {
                    key: key.clone(),
                    id: id.clone(),
                    token: token.clone(),
                    reason: reason.clone(),
                    until: until.unwrap_or(at),
                };
                if let Some(grant) = self.grant(event.grant_id) {
                    grant.authority.get_or_insert_default().break_glass = Some(used);
                    let owed = Review::owed(grant);
                    self.reviews.extend(owed);
                }
            }
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
                write,
                assignments,
                put_back,
                ..
            } => {
                self.before = None;
                if !put_back {
                    self.intended(*write, &parsed(assignments), at);
                }
            }
            EventKind::CallEnded {
                write,
                assignments,
                outcome,
                ..
            } => {
                let before = self.before.take();
                if outcome == "refused" || outcome == NOT_SENT {
                    if let Some(before) = before {
                        self.undo(&before, &parsed(assignments), at);
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
                match kind.as_str() {
                    "resurrected" => {
                        if let Some(row) = self.record.owned_mut(&assignment) {
                            row.phase = Phase::Live;
                        }
                    }
                    "survivor_missing" if action == DriftAction::PutBack.words() => {
                        self.restoring.insert(assignment);
                    }
                    "survivor_missing" => {
                        self.restoring.remove(&assignment);
                    }
                    "forgotten_gone" => self.watch_no_more(&assignment),
                    // A release went by a witness that saw its end.
                    CONTRADICTED => self.give_up(&assignment, at),
                    _ => {}
                }
            }
            EventKind::DriftEnded {
                kind, assignment, ..
            } if kind == DriftKind::SurvivorMissing.as_str() => {
                if let Ok(assignment) = Assignment::parse(assignment) {
                    self.restoring.remove(&assignment);
                }
            }
            EventKind::AccessAdopted { assignment, .. } => {
                if let Ok(assignment) = Assignment::parse(assignment) {
                    self.give_up(&assignment, at);
                    for held in self
                        .record
                        .grants
                        .iter_mut()
                        .flat_map(|grant| &mut grant.assignments)
                        .filter(|held| held.assignment == assignment)
                    {
                        held.holding = Holding::Standing;
                    }
                }
            }
            EventKind::AccessForgotten {
                assignment,
                by,
                confirmed_by,
                reason,
            } => {
                if let Ok(assignment) = Assignment::parse(assignment) {
                    self.give_up(&assignment, at);
                    self.watch_no_more(&assignment);
                    self.record.evidence.forgotten.push(Forgotten {
                        assignment,
                        at,
                        by: by.clone(),
                        confirmed_by: confirmed_by.clone(),
                        reason: reason.clone(),
                        reported_at: None,
                    });
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
                let Ok(assignment) = Assignment::parse(assignment) else {
                    return;
                };
                if let Some(row) = self.record.owned_mut(&assignment) {
                    row.must_end_by = row.must_end_by.max(*must_end_by);
                    row.phase = Phase::Live;
                } else {
                    let row = owned(&assignment, at, *must_end_by, WriteOutcome::Unknown);
                    self.record.owned.push(row);
                }
            }
            _ => {}
        }
    }

    /// What was forgotten has been seen gone, or is forgotten anew.
    fn watch_no_more(&mut self, assignment: &Assignment) {
        let forgotten = &mut self.record.evidence.forgotten;
        forgotten.retain(|known| known.assignment != *assignment);
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
            self.early.retain(|id, _| Some(*id) != event.grant_id);
            self.record
                .grants
                .retain(|grant| Some(grant.id) != event.grant_id);
            return;
        }
        let Some(grant) = self.grant(event.grant_id) else {
            if let Some(id) = event.grant_id {
                self.early.insert(id, event.clone());
            }
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
        self.before = Some(self.record.clone());
        for assignment in assignments {
            // While it is owed to a neighbour it is not given: it is put back, again and again.
            if write == WriteKind::Add && self.restoring.contains(assignment) {
                continue;
            }
            if write == WriteKind::Add {
                self.given_up.remove(assignment);
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
                    let row = owned(assignment, at, ends_at, WriteOutcome::InFlight);
                    self.record.owned.push(row);
                }
                None => {}
            }
        }
    }

    /// Nothing came of the last call.
    fn undo(&mut self, before: &MemberRecord, assignments: &[Assignment], at: Timestamp) {
        let record = MemberRecord::new(self.record.key.clone());
        let mut draft = Draft::new(std::mem::replace(&mut self.record, record));
        draft.undo_intent(before, assignments, at);
        self.record = draft.record;
    }

    fn give_up(&mut self, assignment: &Assignment, at: Timestamp) {
        self.record
            .owned
            .retain(|row| row.assignment != *assignment);
        self.given_up.insert(assignment.clone(), at);
    }

    /// Takes over what waited for the person of this story.
    pub(super) fn join(&mut self, mut waited: Self, at: Timestamp) {
        let early = std::mem::take(&mut self.early);
        let mut changes = Vec::new();
        for mut grant in waited.record.grants.drain(..) {
            grant.subject = self.record.key.subject.clone();
            grant.state = GrantState::Activating {
                since: at,
                must_end_by: None,
            };
            changes.extend(early.get(&grant.id).cloned());
            self.record.grants.push(grant);
        }
        self.reviews.append(&mut waited.reviews);
        // One that is to start later waits on.
        for change in changes {
            self.take(&change);
        }
    }

    /// Leaves out intents that are older than the decision to give them up.
    pub(super) fn leave_out_given_up(
        &self,
        intents: &mut Vec<&Intent>,
        left_out: &mut Vec<String>,
    ) {
        let key = &self.record.key;
        intents.retain(|intent| {
            let over = self
                .given_up
                .get(&intent.assignment)
                .is_some_and(|at| intent.at <= *at);
            if over {
                left_out.push(format!(
                    "{} of {key}: it was given up, which the witness was not told",
                    intent.assignment
                ));
            }
            !over
        });
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
