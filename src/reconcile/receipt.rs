//! Making receipts: what the audit of a commit means for the evidence of a member and for receipts. Pure.
//!
//! Owns that a receipt says what the audit says and is stored in the same transaction: it is folded from the events of
//! that commit. Runs right before every commit of a member, in passes and in the service. Never decides about access and
//! never looks at a clock.

use crate::domain::assignment::Assignment;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::evidence::Evidence;
use crate::domain::grant::{EndCause, Grant, GrantState, Holding};
use crate::domain::member::{MemberRecord, Phase, Subject, WriteKind};
use crate::domain::receipt::{
    BlockedRemoval, Calls, Gone, Line, Look, Receipt, SIGHTED, Sighting, Trail, ended, fate,
};

/// What a survivor's drift says when it is put back.
const PUT_BACK: &str = "put back as it was";

/// Takes the events of a commit into the evidence of its member, writes receipts for grants that end with it, and
/// brings receipts up to date that still owe a second look. What has to be stored stands in the outbox afterwards.
pub fn keep(record: &mut MemberRecord, audit: &[AuditEvent]) {
    let mut evidence = std::mem::take(&mut record.evidence);
    let before = evidence.open.clone();
    for event in audit {
        take_in(&mut evidence, record, event);
    }
    follow_rows(&mut evidence, record);
    follow_grants(&mut evidence, record);
    for receipt in &evidence.open {
        if !before.contains(receipt) {
            push(&mut evidence.outbox, receipt.clone());
        }
    }
    for grant in &record.grants {
        if let Some(receipt) = seal(&evidence, record, grant) {
            if receipt.is_open() {
                evidence.open.push(receipt.clone());
            }
            push(&mut evidence.outbox, receipt);
        }
    }
    evidence.open.retain(Receipt::is_open);
    drop_what_is_over(&mut evidence, record);
    record.evidence = evidence;
}

/// The last word about a grant counts.
fn push(outbox: &mut Vec<Receipt>, receipt: Receipt) {
    outbox.retain(|earlier| earlier.grant_id != receipt.grant_id);
    outbox.push(receipt);
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other event says of a receipt what it says of a trail"
)]
fn take_in(evidence: &mut Evidence, record: &MemberRecord, event: &AuditEvent) {
    let at = event.at;
    begin(evidence, record, event);
    for trail in &mut evidence.trails {
        trace(trail, record, event);
    }
    let lines = evidence
        .open
        .iter_mut()
        .flat_map(|receipt| &mut receipt.lines)
        .filter(|line| line.trail.look.is_open());
    for line in lines {
        // What is added from now on belongs to a later grant, and is on that one's receipt.
        match &event.kind {
            EventKind::CallIntended { write, .. } | EventKind::CallEnded { write, .. }
                if *write == WriteKind::Add => {}
            EventKind::Observed { present, .. }
                if present.contains(&line.trail.assignment.to_string()) =>
            {
                line.trail.look = Look::TakenOver { at };
            }
            _ => trace(&mut line.trail, record, event),
        }
    }
    if let (EventKind::GrantExtended { .. }, Some(id)) = (&event.kind, event.grant_id) {
        let grant = evidence.grant_mut(id);
        grant.extensions = grant.extensions.saturating_add(1);
    }
}

/// Begins trails with the first call, and remembers what the member held before that.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "no other event begins anything"
)]
fn begin(evidence: &mut Evidence, record: &MemberRecord, event: &AuditEvent) {
    if let EventKind::Observed { gone, .. } = &event.kind {
        let ours = record.owned.iter().map(|row| &row.assignment);
        for assignment in ours.filter(|assignment| gone.contains(&assignment.to_string())) {
            evidence.trail_mut(assignment);
        }
    }
    let named: Vec<Assignment> = match &event.kind {
        EventKind::CallIntended {
            write, assignments, ..
        } => {
            let ours = record
                .owned
                .iter()
                .map(|row| &row.assignment)
                .filter(|assignment| assignments.contains(&assignment.to_string()));
            let ours: Vec<Assignment> = ours.cloned().collect();
            for assignment in &ours {
                let trail = evidence.trail_mut(assignment);
                let over = trail.gone.is_some() || trail.given_up.is_some();
                if *write == WriteKind::Add && (over || trail.removed.intents > 0) {
                    *trail = Trail::new(assignment.clone());
                }
            }
            if *write == WriteKind::Remove {
                return;
            }
            ours
        }
        EventKind::Observed { standing, .. } => record
            .grants
            .iter()
            .flat_map(|grant| &grant.assignments)
            .map(|held| &held.assignment)
            .filter(|assignment| standing.contains(&assignment.to_string()))
            .cloned()
            .collect(),
        _ => return,
    };
    for grant in &record.grants {
        let concerned = grant
            .assignments
            .iter()
            .any(|held| named.contains(&held.assignment));
        if concerned && !grant.state.is_ended() {
            let trail = evidence.grant_mut(grant.id);
            if trail.before.is_none() {
                trail.before = sighting(record);
            }
        }
    }
}

fn sighting(record: &MemberRecord) -> Option<Sighting> {
    let seen = record.last_seen.as_ref()?;
    let more = seen.assignments.len().saturating_sub(SIGHTED);
    Some(Sighting {
        read_started_at: seen.at,
        assignments: seen.assignments.iter().take(SIGHTED).cloned().collect(),
        more: u32::try_from(more).unwrap_or(u32::MAX),
    })
}

/// What one event says about one assignment.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "most events say nothing about an assignment"
)]
fn trace(trail: &mut Trail, record: &MemberRecord, event: &AuditEvent) {
    let at = event.at;
    let text = trail.assignment.to_string();
    let calls = |trail: &mut Trail, write: WriteKind, change: &dyn Fn(&mut Calls)| match write {
        WriteKind::Add => change(&mut trail.added),
        WriteKind::Remove => change(&mut trail.removed),
    };
    match &event.kind {
        EventKind::CallIntended {
            write, assignments, ..
        } if assignments.contains(&text) => calls(trail, *write, &|calls| calls.intend(at)),
        EventKind::CallEnded {
            write,
            assignments,
            outcome,
            evidence,
        } if assignments.contains(&text) => {
            calls(trail, *write, &|calls| calls.end(outcome, evidence, at));
        }
        EventKind::Observed {
            read_started_at,
            present,
            gone,
            ..
        } => {
            if present.contains(&text) {
                trail.seen_at = trail.seen_at.or(Some(at));
            }
            if gone.contains(&text) {
                let first = Gone {
                    at,
                    read_started_at: *read_started_at,
                };
                trail.gone = trail.gone.or(Some(first));
                // Until when it is owed follows from the row.
                trail.look = Look::Owed { from: at };
            }
        }
        EventKind::Drift {
            kind,
            assignment,
            action,
        } => match kind.as_str() {
            "missing" if *assignment == text => trail.missing_at = trail.missing_at.or(Some(at)),
            "resurrected" if *assignment == text => {
                trail.resurrections = trail.resurrections.saturating_add(1);
                trail.resurrected_at = Some(at);
                trail.look = Look::Reopened { at };
            }
            "survivor_missing" if action == PUT_BACK => {
                let survivor = record
                    .owned(&trail.assignment)
                    .into_iter()
                    .flat_map(|row| &row.must_survive)
                    .map(|survivor| &survivor.assignment)
                    .find(|survivor| survivor.to_string() == *assignment);
                if let Some(survivor) = survivor
                    && !trail.restored.contains(survivor)
                {
                    trail.restored.push(survivor.clone());
                }
            }
            _ => {}
        },
        EventKind::RemovalBlocked {
            assignment, code, ..
        } if *assignment == text => {
            let times = trail.blocked.as_ref().map_or(0, |blocked| blocked.times);
            trail.blocked = Some(BlockedRemoval {
                code: code.clone(),
                times: times.saturating_add(1),
            });
        }
        EventKind::MemberLeft { read_started_at } => {
            let closing = record
                .owned(&trail.assignment)
                .is_some_and(|row| matches!(row.phase, Phase::Closing { .. }));
            if closing && trail.gone.is_none() {
                trail.gone = Some(Gone {
                    at,
                    read_started_at: *read_started_at,
                });
                trail.look = Look::Owed { from: at };
            }
        }
        EventKind::SecondLook { assignment } if *assignment == text => {
            trail.look = Look::Done { at };
        }
        _ => {}
    }
}

/// How long second looks are owed stands on the rows.
fn follow_rows(evidence: &mut Evidence, record: &MemberRecord) {
    let lines = evidence
        .open
        .iter_mut()
        .flat_map(|receipt| &mut receipt.lines)
        .map(|line| &mut line.trail);
    for trail in evidence.trails.iter_mut().chain(lines) {
        if let (Look::Owed { from }, Some(Phase::Closing { look_at, .. })) = (
            &mut trail.look,
            record.owned(&trail.assignment).map(|row| row.phase),
        ) {
            *from = look_at;
        }
    }
}

/// What was promised and what is due, before the state that says so is gone.
fn follow_grants(evidence: &mut Evidence, record: &MemberRecord) {
    for grant in &record.grants {
        match &grant.state {
            GrantState::Active { .. } | GrantState::Activating { .. } => {
                if let Some(end) = grant.ends_at() {
                    evidence.grant_mut(grant.id).expires_at = Some(end);
                }
            }
            GrantState::Revoking { since, .. } => {
                let trail = evidence.grant_mut(grant.id);
                trail.due_at = trail.due_at.or(Some(*since));
            }
            GrantState::Scheduled { .. }
            | GrantState::AwaitingMember { .. }
            | GrantState::Ended { .. } => {}
        }
    }
}

/// The receipt of a grant that has ended.
fn seal(evidence: &Evidence, record: &MemberRecord, grant: &Grant) -> Option<Receipt> {
    let (ended_at, cause) = ended(&grant.state)?;
    let known = evidence.grant(grant.id);
    let lines: Vec<Line> = grant
        .assignments
        .iter()
        .map(|held| line(evidence, record, &held.assignment, held.holding, cause))
        .collect();
    let given = lines.iter().any(|line| {
        !line.trail.added.is_none() || line.fate.was_seen_gone() || line.trail.given_up.is_some()
    });
    let promised = known.and_then(|known| known.expires_at);
    let due_at = known
        .and_then(|known| known.due_at)
        .or_else(|| {
            if *cause == EndCause::Expired {
                // Due and ended in one commit.
                promised.or(grant.not_after).map(|end| end.min(ended_at))
            } else {
                Some(ended_at)
            }
        })
        .filter(|_| given);
    let gone = lines
        .iter()
        .filter_map(|line| line.trail.gone)
        .map(|gone| gone.read_started_at)
        .max();
    let after = sighting(record)
        .filter(|sighting| gone.is_some_and(|started_at| sighting.read_started_at >= started_at));
    Some(Receipt {
        grant_id: grant.id,
        integration: grant.integration.clone(),
        subject: record.key.subject.clone(),
        caller: grant.caller.clone(),
        request_id: grant.request_id.clone(),
        beneficiary: grant.beneficiary.clone(),
        requester: grant.requester.clone(),
        justification: grant.justification.clone(),
        duration: grant.duration,
        starts_at: grant.starts_at,
        not_after: grant.not_after,
        created_at: grant.created_at,
        verified_at: grant.verified_at,
        extensions: known.map_or(0, |known| known.extensions),
        due_at,
        ended_at,
        cause: cause.clone(),
        before: known.and_then(|known| known.before.clone()),
        after,
        lines,
        membership_outlives: grant.invited
            && matches!(record.key.subject, Subject::Member(_))
            && *cause != EndCause::MemberLeft,
        externally_modified: grant.externally_modified,
    })
}

fn line(
    evidence: &Evidence,
    record: &MemberRecord,
    assignment: &Assignment,
    holding: Holding,
    cause: &EndCause,
) -> Line {
    let trail = evidence.trail(assignment);
    let kept = record
        .owned(assignment)
        .is_some_and(|row| row.phase == Phase::Live);
    let fate = fate(holding, trail, kept, cause);
    let mut trail = trail
        .cloned()
        .unwrap_or_else(|| Trail::new(assignment.clone()));
    if !fate.was_seen_gone() {
        trail.look = Look::NotOwed;
    }
    Line { fate, trail }
}

/// What nothing refers to any more is forgotten.
fn drop_what_is_over(evidence: &mut Evidence, record: &MemberRecord) {
    let open: Vec<&Grant> = record
        .grants
        .iter()
        .filter(|grant| !grant.state.is_ended())
        .collect();
    evidence
        .grants
        .retain(|known| open.iter().any(|grant| grant.id == known.id));
    evidence.trails.retain(|trail| {
        record.owned(&trail.assignment).is_some()
            || open
                .iter()
                .flat_map(|grant| &grant.assignments)
                .any(|held| held.assignment == trail.assignment)
    });
    evidence.proposals.retain(|proposal| {
        record
            .owned(&proposal.assignment)
            .is_some_and(|row| row.phase == Phase::Live)
    });
}

#[cfg(test)]
mod tests;
